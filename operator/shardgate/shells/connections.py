"""What a connection may cost: how many there are, how long one may stay silent, how long a header may take.

aiohttp limits bodies and idle time between requests alone. Each connection's protocol is wrapped: the wrapper passes all on,
and ends a connection that is over its time. The request's own time is the handler's business.
"""

import asyncio
import time
from collections.abc import Callable
from typing import cast

import aiohttp.web

MOST_CONNECTIONS = 2000
FIRST_SECONDS = 10.0
"""Until the first byte of a request, on a connection that has had none."""
HEADER_SECONDS = 5.0
"""From the first byte of a request until its header is whole."""
IDLE_SECONDS = 60.0
"""Between two requests."""
UNREAD_SECONDS = 0.5
"""After an answer to a request whose body did not come."""
HANDSHAKE_SECONDS = 5.0


class Connections:
    """All that are open. Called, it makes the protocol of a new one."""

    def __init__(self, make: Callable[[], asyncio.BaseProtocol], on_shed: Callable[[str], None], most: int | None = None) -> None:
        self._make, self._on_shed, self._most = make, on_shed, MOST_CONNECTIONS if most is None else most
        self._open: dict[asyncio.BaseProtocol, _Watched] = {}

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


class _Watched(asyncio.Protocol):
    """One connection: everything is passed on to aiohttp's protocol."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner, self._connections = inner, connections
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._first_byte = 0.0
        """Of the request that is coming; 0 while none is."""
        self._is_busy = False
        self._is_refused = False
        self._had_one = False
        """A request was answered here before: its silence is no fault."""

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
            self._first_byte = time.monotonic()
            self._end_in(HEADER_SECONDS)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._is_refused else self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_refused:
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
        return first or time.monotonic()

    def waits(self, seconds: float) -> None:
        """For the next request."""
        self._had_one = self._had_one or self._is_busy
        self._is_busy, self._first_byte = False, 0.0
        self._end_in(seconds)

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
