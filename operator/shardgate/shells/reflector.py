"""A live copy of one resource: LIST in pages, WATCH, and LIST again on any doubt.

Nothing that the API server sends ends a reflector: 410 in either form, a silent stream and an event that is older than
what was told list again, other errors resume the watch from where it was, a broken frame counts as a broken watch, an
object that cannot be decoded is left out and named. While a copy is behind, its owner can tell by ``Health``.
"""

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, cast

import aiohttp
import msgspec

from shardgate.adapters.kubernetes_protobuf import CONTENT_TYPE, ListedPage, NotProtobufError, page_reader
from shardgate.shells.cluster import ApiError, Cluster

log = logging.getLogger(__name__)

WATCH_SECONDS = (240, 300)
"""How long one watch may run; spread, so that not all end at once."""
SILENCE_SECONDS = 75
"""Bookmarks come once a minute: a stream that is silent for longer is broken."""
HOLDS_AFTER_SECONDS = 5.0
"""A watch that has lasted this long is not about to fail for the reason that its forerunner did."""
MAX_PAUSE_SECONDS = 15.0
MAX_PAUSES_SECONDS = {"connection": 3.0, "relist": 4.0, "410": 4.0, "short": 4.0}
"""By reason, where it is less: an API server that is away costs little to look for, and is to be found soon."""
MAX_DOUBLINGS = 6
SHORT_WATCH_SECONDS = 1.0
HTTP_GONE, HTTP_NOT_FOUND = 410, 404
AT_A_TIME = 200
"""Objects of a page that are read before other work gets its turn: about 5 ms of pods."""
ABSENT_SECONDS = 30
"""How often a resource that is not served is asked for again."""

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class ListMetadata(msgspec.Struct, gc=False, rename={"continue_": "continue"}):
    """Metadata of a list."""

    resourceVersion: str = ""  # noqa: N815  # as the API spells it
    continue_: str = ""


class RawList(msgspec.Struct, gc=False):
    """A page, its items not decoded yet."""

    metadata: ListMetadata
    items: list[msgspec.Raw] | None = None


class WatchEvent(msgspec.Struct, gc=False):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class ObjectMetadata(msgspec.Struct, gc=False):
    """What every object has."""

    name: str = ""
    namespace: str = ""
    resourceVersion: str = ""  # noqa: N815


class AnyObject(msgspec.Struct, gc=False):
    """Any object, by its metadata."""

    metadata: ObjectMetadata


class ErrorStatus(msgspec.Struct, gc=False):
    """The object of an ERROR event."""

    code: int = 0
    reason: str = ""
    message: str = ""


class Store(Protocol[T_contra]):
    """Where the copy is kept. Keys are whatever ``key`` says identifies an object."""

    def key(self, item: T_contra) -> str:
        """Identifies the object."""

    def put(self, item: T_contra) -> None:
        """An object was added or changed."""

    def drop(self, item: T_contra) -> None:
        """An object was deleted."""

    def retain(self, keys: set[str]) -> None:
        """A complete list had only these."""


@dataclass(slots=True)
class Health:
    """How well a copy follows its resource. Times are of ``time.monotonic``."""

    synced: asyncio.Event = field(default_factory=asyncio.Event)
    last_heard: float = 0.0
    last_heard_at: float = 0.0
    """Unix time, for the metric."""
    reached: str = ""
    """``resourceVersion`` up to which the copy is complete; empty before all is listed."""
    broken_since: float | None = None
    connected_since: float | None = None
    problem: str = ""
    restarts: dict[str, int] = field(default_factory=dict)

    def heard(self) -> None:
        """An event, a bookmark or a complete list came."""
        self.last_heard, self.last_heard_at = time.monotonic(), time.time()
        self.broken_since, self.problem = None, ""

    def connected(self) -> None:
        """A watch was accepted. That is nothing heard yet: a stream may be accepted and stay silent."""
        self.connected_since = time.monotonic()

    def broke(self, problem: str, reason: str) -> None:
        """The watch is known to be broken."""
        if self.broken_since is None or self._holds():
            self.broken_since = time.monotonic()
        self.connected_since = None
        if self.problem != problem:
            log.warning("%s", problem)
        self.problem = problem
        self.restarts[reason] = self.restarts.get(reason, 0) + 1

    def age_seconds(self) -> float:
        """Since the last event or bookmark."""
        return time.monotonic() - self.last_heard if self.synced.is_set() else float("inf")

    def broken_seconds(self) -> float:
        """Since the watch was known to be broken; a new one that has held for a while is not."""
        return 0.0 if self.broken_since is None or self._holds() else time.monotonic() - self.broken_since

    def _holds(self) -> bool:
        return self.connected_since is not None and time.monotonic() - self.connected_since > HOLDS_AFTER_SECONDS


class _ListAgain(Exception):
    """What was known cannot be resumed."""


class Reflector(Generic[T]):
    """Keeps ``store`` equal to the resource at ``path``; of several, for an optional one, at the first that is served."""

    def __init__(  # keyword-only: what it reflects, and how
        self, *, cluster: Cluster, name: str, path: str | Sequence[str], item: type[T], store: Store[T],
        page: int = 500, selector: str = "", on_change: Callable[[], None] = lambda: None, is_optional: bool = False,
        protobuf: str = "",
    ) -> None:  # fmt: skip
        """``protobuf``: the kind's name, where its lists are asked for in that form."""
        self.name, self.health = name, Health()
        self.unreadable: dict[str, str] = {}
        self._version = ""
        """Where to resume; empty: list again."""
        self._cluster, self._store = cluster, store
        self._paths = itertools.cycle((path,) if isinstance(path, str) else path)
        self._path = next(self._paths)
        self._absent = 0
        self._failures, self._was_away, self._went_on = 0, False, False
        """In a row; whether the API server was not reached; whether a watch has told something, or held, since the last."""
        self._versions = 1 if isinstance(path, str) else len(path)
        self._page, self._selector, self._on_change, self._is_optional = page, selector, on_change, is_optional
        self._item = msgspec.json.Decoder(item, strict=False)
        self._read_page = page_reader(protobuf, item) if protobuf else None
        self._list, self._event = msgspec.json.Decoder(RawList), msgspec.json.Decoder(WatchEvent)
        self._any, self._error = msgspec.json.Decoder(AnyObject), msgspec.json.Decoder(ErrorStatus)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if not self._version:
                    self._version = await self._relist()
                if await self._watch():
                    continue
                pause = self._broke("the watch ended at once", "short")
            except _ListAgain as doubt:
                self._version = ""
                pause = self._broke(f"{doubt}, listing again", "relist")
            except ApiError as error:
                if await self._is_absent(error):
                    continue
                pause = max(self._broke(f"the API server answered {error}", str(error.status)), error.retry_after_seconds)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                pause = self._broke(f"{type(error).__name__} {error}".rstrip(), "connection")
            except (msgspec.MsgspecError, NotProtobufError) as error:
                pause = self._broke(f"not what the API server should send: {error}", "decode")
            except Exception:
                # A defect of ours must not freeze the copy in silence: start over, and be seen as broken meanwhile.
                log.exception("%s: unexpected, listing again", self.name)
                self._version = ""
                pause = self._broke("internal error, see the log", "internal")
            await asyncio.sleep(pause)

    def _broke(self, problem: str, reason: str) -> float:
        """Seconds until the next try: they double while the same sort of trouble lasts, and no watch gets anywhere."""
        self.health.broke(f"{self.name}: {problem}", reason)
        is_away = reason == "connection"
        if self._went_on or is_away != self._was_away:
            self._failures = 0
        self._went_on, self._was_away = False, is_away
        self._failures = min(self._failures + 1, MAX_DOUBLINGS)
        most = min(MAX_PAUSE_SECONDS, MAX_PAUSES_SECONDS.get(reason, MAX_PAUSE_SECONDS))
        return min(most, 0.25 * float(2**self._failures)) * random.uniform(0.5, 1.0)  # noqa: S311  # jitter

    async def _is_absent(self, error: ApiError) -> bool:
        """Whether the API server does not serve an optional resource: there is none of it, and later there may be."""
        if error.status == HTTP_GONE:
            self._version = ""
        if error.status != HTTP_NOT_FOUND or not self._is_optional:
            return False
        self._version = ""
        self._path, self._absent = next(self._paths), self._absent + 1
        if self._absent % self._versions == 0:  # none of them is served
            self._store.retain(set())
            self.health.heard()
            self.health.synced.set()
            await asyncio.sleep(ABSENT_SECONDS)
        return True

    async def _relist(self) -> str:
        seen: set[str] = set()
        parameters = {"limit": str(self._page)} | ({"fieldSelector": self._selector} if self._selector else {})
        page = await self._page_of(parameters)
        while True:
            following = page.following
            # The API server writes the next page while this one is read: of a large list, either takes seconds.
            coming = asyncio.create_task(self._page_of({**parameters, "continue": following})) if following else None
            try:
                await self._take(page, seen)
            except BaseException:
                if coming is not None:
                    coming.cancel()
                raise
            if coming is None:
                break
            page = await coming
        self._absent = 0
        self._store.retain(seen)
        self.health.reached = page.version
        self.health.heard()
        self.health.synced.set()
        self._on_change()
        return page.version

    async def _page_of(self, parameters: dict[str, str]) -> ListedPage[T | None]:
        accept = f"{CONTENT_TYPE}, application/json" if self._read_page is not None else ""
        async with self._cluster.stream(self._path, parameters, aiohttp.ClientTimeout(total=60), accept) as response:
            content = await response.read()
            if self._read_page is not None and response.content_type == CONTENT_TYPE:
                return cast(ListedPage[T | None], self._read_page(content))
        page = self._list.decode(content)
        items = map(self._decoded, page.items or ())
        return ListedPage(items=items, version=page.metadata.resourceVersion, following=page.metadata.continue_)

    async def _take(self, page: ListedPage[T | None], seen: set[str]) -> None:
        for number, item in enumerate(page.items):
            if item is not None:
                seen.add(self._store.key(item))
                self._store.put(item)
            if number % AT_A_TIME == AT_A_TIME - 1:
                await asyncio.sleep(0)  # let admission run
        await asyncio.sleep(0)

    async def _watch(self) -> bool:
        """Follow changes from ``_version`` until the server ends the stream; what was applied is not asked for again.

        False for a stream that ended at once with nothing said: to open the next without a pause would be a loop.
        """
        started, said = time.monotonic(), False
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311  # spread
        parameters = {
            "watch": "true", "resourceVersion": self._version, "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds),
        } | ({"fieldSelector": self._selector} if self._selector else {})  # fmt: skip
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_SECONDS)
        rest = b""
        async with self._cluster.stream(self._path, parameters, timeout) as response:
            self.health.connected()
            try:
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    said |= self._apply_all(lines)
            except TimeoutError:
                # Its end may never have reached us, or the API server may be one that never gets to where we were.
                problem = f"nothing was heard for {SILENCE_SECONDS} s"
                raise _ListAgain(problem) from None
            finally:
                self._went_on |= time.monotonic() - started >= HOLDS_AFTER_SECONDS
        return said or time.monotonic() - started >= SHORT_WATCH_SECONDS

    def _apply_all(self, lines: Sequence[bytes]) -> bool:
        """Events that came together, up to one that ends the watch: whether there were any. Raises as ``_apply``."""
        said = is_changed = False
        try:
            for line in lines:
                if line.strip():
                    is_changed |= self._apply(line)
                    said = self._went_on = True
        finally:
            if said:
                self.health.heard()
            if is_changed:
                self._on_change()
        return said

    def _apply(self, line: bytes) -> bool:
        """One event: whether it changed the copy. Raises ``_ListAgain`` and ``ApiError``."""
        event = self._event.decode(line)
        if event.type == "ERROR":
            status = self._error.decode(event.object)
            if status.code == HTTP_GONE:
                problem = "the watch is too old to resume"
                raise _ListAgain(problem)
            raise ApiError(status.code, status.reason, status.message)
        reached = self._any.decode(event.object).metadata.resourceVersion
        if event.type != "BOOKMARK" and reached == self._version:
            return False  # told before
        if is_older(reached, self._version):
            problem = f"an event of version {reached} came after {self._version}"
            raise _ListAgain(problem)
        item = None if event.type == "BOOKMARK" else self._decoded(event.object)
        if item is not None and event.type == "DELETED":
            self._store.drop(item)
        elif item is not None:
            self._store.put(item)
        self._version = self.health.reached = reached or self._version
        return item is not None

    def _decoded(self, raw: msgspec.Raw) -> T | None:
        """The object, or ``None``: then it is named, and the copy goes on without it."""
        try:
            item = self._item.decode(raw)
        except msgspec.ValidationError as error:
            with _tolerating_nonsense():
                metadata = self._any.decode(raw).metadata
                name = f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name
                log.warning("%s %s is left out: %s", self.name, name, error)
                self.unreadable[name] = str(error)
            return None
        if self.unreadable:
            metadata = self._any.decode(raw).metadata
            self.unreadable.pop(f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name, None)
        return item


def is_older(version: str, than: str) -> bool:
    """Whether a resourceVersion came before another one of the same resource; what are no numbers cannot be compared."""
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)


@contextmanager
def _tolerating_nonsense() -> Iterator[None]:
    try:
        yield
    except msgspec.MsgspecError:
        log.warning("an object without metadata is left out")
