"""What a connection may cost: how many there are, how long one may stay silent, how long a header may take, how many may wait.

aiohttp limits bodies and idle time between requests alone. Each connection's protocol is wrapped: the wrapper passes all on,
ends a connection that is over its time, and turns a request away while more wait than can be answered in time. The
request's own time is the handler's business.
"""

import asyncio
import re
import time
from collections.abc import Callable
from typing import cast

import aiohttp.web

MOST_CONNECTIONS = 2000
FIRST_SECONDS = 8.0
"""Until the first byte of a request, on a connection that has had none: with what closing takes, within 10 s."""
HEADER_SECONDS = 5.0
"""From the first byte of a request until its header is whole."""
IDLE_SECONDS = 60.0
"""Between two requests."""
UNREAD_SECONDS = 0.5
"""After an answer to a request whose body did not come."""
HANDSHAKE_SECONDS = 5.0
QUEUE_SECONDS = 0.25
"""What waits here may take so long together. Until then nothing else is read: each that comes meanwhile keeps a connection, and
the next one needs another, whose handshake costs more than a review."""
FEWEST_WAITING, MOST_WAITING = 32, 256
"""However long each takes: one slow review is no reason to turn a burst away, and a fast machine none for an endless queue."""
ENOUGH_BEGUN = 64
"""So many tell how long each takes: of fewer, one that was slow would say too much."""
MOST_HEADER_BYTES, MOST_UNREAD_BYTES = 4 << 10, 64 << 10
_OTHERS = rb"(?:(?!content-length|transfer-encoding)[^\r\n]+\r\n)*"
_WHOLE = re.compile(
    rb"POST [^\r\n]+ HTTP/1\.1\r\n" + _OTHERS + rb"content-length: *(\d{1,8})\r\n" + _OTHERS + rb"\r\n", re.IGNORECASE
)
"""A header that says how long its body is, once."""
_TURNED_AWAY = b"too many reviews wait"
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_TURNED_AWAY), _TURNED_AWAY)
)
LOOK_SECONDS, STALLED_SECONDS = 0.05, 0.15
"""How often the loop is asked whether it still turns, and what counts as a halt."""


class Connections:
    """All that are open. Called, it makes the protocol of a new one.

    Requests that are whole and not begun yet wait. How many may, goes by how long each of them took of late: what comes
    beyond that is answered 503 at once, before anything of it is parsed, so that a machine which is too slow for all of it
    answers some in time and the rest without delay.
    """

    def __init__(self, make: Callable[[], asyncio.BaseProtocol], on_shed: Callable[[str], None], most: int | None = None) -> None:
        self._make, self._on_shed, self._most = make, on_shed, MOST_CONNECTIONS if most is None else most
        self._open: dict[asyncio.BaseProtocol, _Watched] = {}
        self._waiting = 0
        self._each_seconds = 0.0
        """That a request takes of late; 0 while it is not known."""
        self._since, self._begun = 0.0, 0
        """When these began to wait, and how many of them were begun."""
        self.looked = time.monotonic()
        """When the loop last turned, to within ``LOOK_SECONDS``."""
        self.looks = 0
        """How often it was seen to turn."""
        self._came_after: float | None = None
        """The loop has just halted since then: what it finds now may be as old."""
        self._behind_since: float | None = None
        """It halts again and again since then."""
        self._next_look: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def __call__(self) -> asyncio.BaseProtocol:
        """Called by the loop for each connection that is accepted."""
        return _Watched(cast(asyncio.Protocol, self._make()), self)

    def began(self, request: aiohttp.web.Request) -> float:
        """A request's header is whole: when its first byte came, by the monotonic clock."""
        watched = self._open.get(request.protocol)
        return time.monotonic() if watched is None else watched.began()

    def ended(self, request: aiohttp.web.Request) -> None:
        """The request was answered; a client that has not sent all of it is not waited for."""
        watched = self._open.get(request.protocol)
        if watched is not None:
            watched.waits(IDLE_SECONDS if request.content.is_eof() else UNREAD_SECONDS)

    def take(self, inner: asyncio.BaseProtocol, watched: "_Watched") -> bool:
        """Whether there is room for one more."""
        if len(self._open) >= self._most:
            self._on_shed("connections")
            return False
        self._open[inner] = watched
        return True

    def leave(self, inner: asyncio.BaseProtocol) -> None:
        """It is closed."""
        self._open.pop(inner, None)

    def overdue(self) -> None:
        """One was ended."""
        self._on_shed("slow")

    def look(self) -> None:
        """Begin to see when the loop halts, as it does while something is computed: nothing that comes is seen then."""
        now = time.monotonic()
        is_late = now - self.looked > STALLED_SECONDS
        self._came_after = self.looked if is_late else None
        self._behind_since = (self._behind_since or self.looked) if is_late else None
        self.looked, self.looks = now, self.looks + 1
        self._next_look = asyncio.get_running_loop().call_later(LOOK_SECONDS, self.look)

    def look_no_more(self) -> None:
        """The end of it."""
        if self._next_look is not None:
            self._next_look.cancel()

    def came(self) -> float:
        """What is seen now came then, or later."""
        if self._came_after is not None:
            return self._came_after
        now = time.monotonic()
        return self.looked if now - self.looked > STALLED_SECONDS else now

    def is_behind_since(self, moment: float) -> bool:
        """Whether the loop has hardly turned since then."""
        return self._behind_since is not None and self._behind_since <= moment

    def waits(self) -> bool:
        """Whether one more request may wait; if so, it does."""
        room = QUEUE_SECONDS / self._each_seconds if self._each_seconds else MOST_WAITING
        if self._waiting >= min(max(room, FEWEST_WAITING), MOST_WAITING):
            self._on_shed("busy")
            return False
        if not self._waiting:
            self._since, self._begun = time.monotonic(), 0
        self._waiting += 1
        return True

    def waits_no_more(self, *, is_begun: bool) -> None:
        """One was begun, or went."""
        self._waiting -= 1
        self._begun += is_begun
        if self._begun > 1 and (not self._waiting or self._begun >= ENOUGH_BEGUN):
            now = time.monotonic()
            each = (now - self._since) / self._begun
            self._each_seconds += (each - self._each_seconds) * self._begun / (self._begun + ENOUGH_BEGUN)
            self._since, self._begun = now, 0


class _Watched(asyncio.Protocol):
    """One connection: everything is passed on to aiohttp's protocol."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner, self._connections, self._made = inner, connections, connections.came()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._first_byte = 0.0
        """Of the request that is coming; 0 while none is."""
        self._is_busy = False
        self._is_refused = False
        self._had_one = False
        """A request was answered here before: its silence is no fault."""
        self._is_waiting = False
        """A request is here, whole, and not begun."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._connections.take(self._inner, self):
            self._is_refused = True
            self._transport.abort()
            return
        self._inner.connection_made(transport)
        self.waits(FIRST_SECONDS)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        if not self._is_busy and not self._first_byte:
            if is_whole(data):
                if not self._connections.waits():
                    self._turn_away()
                    return
                self._is_waiting = True
            self._first_byte = self._connections.came()
            if not self._had_one and self._connections.is_behind_since(self._made):  # who asks has waited since the handshake
                self._first_byte = self._made
            self._end_in(HEADER_SECONDS)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._is_refused else self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_refused:
            if self._is_waiting:
                self._connections.waits_no_more(is_begun=False)
            self._connections.leave(self._inner)
            self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def began(self) -> float:
        """The handler has it now."""
        first, self._first_byte, self._is_busy = self._first_byte, 0.0, True
        if self._timer is not None:
            self._timer.cancel()
        if self._is_waiting:
            self._is_waiting = False
            self._connections.waits_no_more(is_begun=True)
        return first or time.monotonic()

    def waits(self, seconds: float) -> None:
        """For the next request."""
        self._had_one = self._had_one or self._is_busy
        self._is_busy, self._first_byte = False, 0.0
        self._end_in(seconds)

    def _turn_away(self) -> None:
        """Without a word of it to aiohttp, for which this connection stays as it was."""
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size() > MOST_UNREAD_BYTES:  # it asks and asks, and takes no answer
            self._transport.abort()
            return
        self._transport.write(_BUSY)
        self._had_one = True
        self.waits(IDLE_SECONDS)

    def _end_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end)

    def _end(self) -> None:
        if self._transport is None:
            return
        if self._had_one and not self._first_byte:
            self._transport.close()
        else:
            self._connections.overdue()
            self._transport.abort()


def is_whole(data: bytes) -> bool:
    """Whether this is one request from its first to its last byte."""
    header = _WHOLE.match(data, 0, MOST_HEADER_BYTES)
    return header is not None and len(data) == header.end() + int(header[1])
