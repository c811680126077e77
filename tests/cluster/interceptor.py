"""Stands between an operator and the API server, passes on what is asked and answered, and breaks it as a test says.

Every request is written down. A rule says what becomes of requests to a path; a watch that is open can be spoken into,
ended, cut, held back, or have its events changed on their way.
"""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import aiohttp.web

from controlplane.plane import ControlPlane
from controlplane.processes import free_ports

Json = dict[str, Any]
Lines = list[bytes]
POLL_SECONDS = 0.01
PASSED_ON = ("Authorization", "Content-Type", "Accept")


@dataclass(frozen=True)
class Hold:
    """Requests wait until the rule is lifted, and are passed on then, unless whoever asked has gone."""


@dataclass(frozen=True)
class Cut:
    """The connection ends without an answer."""


@dataclass(frozen=True)
class Refuse:
    """An error, as an API server would word it."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Say:
    """200 and these bytes; then the end, or the connection cut."""

    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    is_cut: bool = False


@dataclass(frozen=True)
class EmptyList:
    """The list has no items, whatever there is."""


@dataclass(frozen=True)
class Since:
    """A watch is resumed from an older version than was asked for: what was told already is told again."""

    version: str


Action = Hold | Cut | Refuse | Say | EmptyList | Since


@dataclass(eq=False)
class Rule:
    """What becomes of requests: a verb of Kubernetes, the beginning and the end of a path, and how often."""

    action: Action
    path: str
    verb: str
    ending: str
    left: float

    def is_for(self, verb: str, path: str) -> bool:
        return self.left > 0 and self.verb in ("", verb) and path.startswith(self.path) and path.endswith(self.ending)


@dataclass(frozen=True)
class Asked:
    """One request, and the status of its answer: 0 where none came."""

    at: float
    verb: str
    path: str
    query: Mapping[str, str]
    body: bytes
    status: int
    ruled: bool


@dataclass(eq=False)
class _Stream:
    path: str
    over: "asyncio.Future[tuple[bytes, bool]]"
    waiting: int = 0
    """Lines that are held back."""


def error_event(code: int, reason: str = "Test") -> bytes:
    """A watch's ERROR."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "as asked"}
    return json.dumps({"type": "ERROR", "object": body}).encode() + b"\n"


class Interceptor:
    """One of them; ``url`` is the API server that the operator is told of."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        (self.port,) = free_ports(1)
        self.url = f"https://127.0.0.1:{self.port}"
        self.asked: list[Asked] = []
        self._rules: list[Rule] = []
        self._paces: list[tuple[str, float]] = []
        """(path, events a second that are let through), what was said last first."""
        self._changed: dict[str, Callable[[Lines], Lines]] = {}
        self._streams: list[_Stream] = []
        self._running, self._stopping = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="interceptor", daemon=True)

    # ---- what tests say

    @contextmanager
    def rule(
        self, action: Action, path: str = "/", verb: str = "", ending: str = "", times: float = float("inf")
    ) -> Iterator[Rule]:
        """While this lasts. Verbs are those of Kubernetes: list, watch, get, create, update, patch, delete."""
        rule = Rule(action, path, verb, ending, times)
        self._rules = [rule, *self._rules]
        try:
            yield rule
        finally:
            self._rules = [each for each in self._rules if each is not rule]

    @contextmanager
    def silence(self, path: str = "/") -> Iterator[None]:
        """Nothing comes through open watches, and no request is answered, while TCP stays up; at the end all goes on."""
        with self.held_back(path), self.rule(Hold(), path):
            yield

    @contextmanager
    def held_back(self, path: str = "/", events_per_second: float = 0) -> Iterator[None]:
        """Events come through open watches at this pace, or not at all; at the end they do."""
        pace = (path, events_per_second)
        self._paces = [pace, *self._paces]
        try:
            yield
        finally:
            self._paces = [each for each in self._paces if each is not pace]

    def withheld(self, path: str = "/") -> int:
        """Events that are held back now."""
        return sum(each.waiting for each in self._streams if each.path.startswith(path))

    @contextmanager
    def changed(self, path: str, change: Callable[[Lines], Lines]) -> Iterator[None]:
        """What came together through open watches is changed on its way."""
        self._changed[path] = change
        try:
            yield
        finally:
            self._changed.pop(path)

    def end_watches(self, path: str, say: bytes = b"", *, cut: bool = False) -> int:
        """Say this in all watches on the path, and end them; returns how many."""
        streams = [each for each in self._streams if each.path.startswith(path)]

        def end() -> None:
            for each in streams:
                if not each.over.done():
                    each.over.set_result((say, cut))

        self._loop.call_soon_threadsafe(end)
        return len(streams)

    def watches(self, path: str) -> int:
        """How many are open."""
        return sum(each.path.startswith(path) for each in self._streams)

    def count(self, verb: str = "", path: str = "/", ending: str = "", *, since: float = 0.0, status: Sequence[int] = ()) -> int:
        """Requests that were answered since then (of ``time.monotonic``), with one of these statuses."""
        return len(self.found(verb, path, ending, since=since, status=status))

    def found(
        self, verb: str = "", path: str = "/", ending: str = "", *, since: float = 0.0, status: Sequence[int] = ()
    ) -> list[Asked]:
        """The same, as they were."""
        return [
            each
            for each in list(self.asked)
            if verb in ("", each.verb) and each.path.startswith(path) and each.path.endswith(ending)
            and each.at >= since and (not status or each.status in status)
        ]  # fmt: skip

    # ---- the server

    def start(self) -> None:
        """Returns once it listens."""
        self._thread.start()
        if not self._running.wait(10):
            raise RuntimeError("the interceptor did not start")

    def stop(self) -> None:
        """And wait for its end."""
        self._rules, self._paces = [], []
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(15)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        towards = ssl.create_default_context(cafile=str(self._plane.authority.path))
        served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        served.load_cert_chain(*self._plane.authority.issue(f"interceptor-{self.port}"))
        app = aiohttp.web.Application(client_max_size=16 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = aiohttp.web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5, access_log=None)
        connector = aiohttp.TCPConnector(limit=0, ssl=towards)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            await runner.setup()
            await aiohttp.web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=served).start()
            self._running.set()
            await self._stopping.wait()
            await runner.cleanup()

    async def _answer(self, request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        verb, body, at = _verb(request), await request.read(), time.monotonic()
        query = dict(request.query)
        status, ruled = 0, False
        try:
            while rule := next((each for each in self._rules if each.is_for(verb, request.path)), None):
                ruled = True
                rule.left -= 1
                if isinstance(rule.action, Hold):
                    while rule in self._rules:
                        await asyncio.sleep(POLL_SECONDS)
                    continue
                if isinstance(rule.action, Since):
                    query["resourceVersion"] = rule.action.version
                    break
                response = await self._ruled(rule.action, request, query)
                status = response.status
                return response
            response = await self._passed_on(request, verb, query, body)
            status = response.status
        except (aiohttp.ClientError, OSError):
            return _cut(request)
        else:
            return response
        finally:
            self.asked.append(Asked(at, verb, request.path, dict(request.query), body, status, ruled))

    async def _ruled(self, action: Action, request: aiohttp.web.Request, query: Json) -> aiohttp.web.StreamResponse:
        if isinstance(action, Refuse):
            said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": action.status, "reason": "Test"}
            return aiohttp.web.json_response({**said, "message": "as asked"}, status=action.status, headers=action.headers)
        if isinstance(action, Say):
            response = aiohttp.web.StreamResponse(headers={"Content-Type": "application/json", **action.headers})
            await response.prepare(request)
            await response.write(action.content)
            return await _ended(request, response, is_cut=action.is_cut)
        if isinstance(action, EmptyList):
            async with self._session.request(
                request.method, self._to(request), params=query, headers=_headers(request) | {"Accept": "application/json"}
            ) as answer:
                found = json.loads(await answer.read())
            found["items"] = []
            found["metadata"].pop("continue", None)
            return aiohttp.web.json_response(found)
        return _cut(request)

    def _to(self, request: aiohttp.web.Request) -> str:
        return self._plane.url + request.path

    async def _passed_on(self, request: aiohttp.web.Request, verb: str, query: Json, body: bytes) -> aiohttp.web.StreamResponse:
        async with self._session.request(
            request.method, self._to(request), params=query, data=body or None, headers=_headers(request),
            skip_auto_headers=["Accept-Encoding"], timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:  # fmt: skip
            if verb == "watch" and answer.status == 200:
                return await self._watched(request, answer)
            kept = {name: answer.headers[name] for name in ("Content-Type", "Warning", "Retry-After") if name in answer.headers}
            return aiohttp.web.Response(body=await answer.read(), status=answer.status, headers=kept)

    async def _watched(self, request: aiohttp.web.Request, answer: aiohttp.ClientResponse) -> aiohttp.web.StreamResponse:
        response = aiohttp.web.StreamResponse(headers={"Content-Type": answer.headers["Content-Type"]})
        await response.prepare(request)
        stream = _Stream(request.path, asyncio.get_running_loop().create_future())
        self._streams.append(stream)
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        copying = asyncio.gather(self._take(stream, answer, lines), self._give(stream, lines, response))
        try:
            await asyncio.wait({copying, stream.over}, return_when=asyncio.FIRST_COMPLETED)
            if not stream.over.done():
                await copying
                return response
        finally:
            self._streams.remove(stream)
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)
        said, is_cut = stream.over.result()
        await response.write(said)
        return await _ended(request, response, is_cut=is_cut)

    async def _take(self, stream: _Stream, answer: aiohttp.ClientResponse, lines: "asyncio.Queue[bytes | None]") -> None:
        """Whole lines, so that nothing said in between tears a frame; at once, or the API server gives up on us."""
        rest = b""
        async for chunk in answer.content.iter_any():
            *found, rest = (rest + chunk).split(b"\n")
            for line in found:
                lines.put_nowait(line)
            stream.waiting += len(found)
        lines.put_nowait(None)

    async def _give(self, stream: _Stream, lines: "asyncio.Queue[bytes | None]", response: aiohttp.web.StreamResponse) -> None:
        due, is_over = 0.0, False
        while not is_over:
            together = [await lines.get()]
            while self._pace(stream.path) == 0:
                await asyncio.sleep(POLL_SECONDS)
            while not lines.empty():
                together.append(lines.get_nowait())
            is_over = together[-1] is None
            found = [line for line in together if line is not None]
            change = next((change for prefix, change in self._changed.items() if stream.path.startswith(prefix)), None)
            changed = found if change is None else change(found)
            stream.waiting += len(changed) - len(found)
            for line in changed:
                while (pace := self._pace(stream.path)) == 0:
                    await asyncio.sleep(POLL_SECONDS)
                if pace < float("inf"):
                    due = max(due, time.monotonic() - 0.1) + 1 / pace
                    if (ahead := due - time.monotonic()) > 0.005:  # shorter sleeps are not exact: they are owed, and paid together
                        await asyncio.sleep(ahead)
                await response.write(line + b"\n")
                stream.waiting -= 1

    def _pace(self, path: str) -> float:
        return next((pace for prefix, pace in self._paces if path.startswith(prefix)), float("inf"))


def _verb(request: aiohttp.web.Request) -> str:
    if request.method == "GET":
        return "watch" if request.query.get("watch") else "list" if "limit" in request.query else "get"
    return {"POST": "create", "PUT": "update"}.get(request.method, request.method.lower())


def _headers(request: aiohttp.web.Request) -> Json:
    return {name: request.headers[name] for name in PASSED_ON if name in request.headers}


def _cut(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return aiohttp.web.Response(status=502)


async def _ended(request: aiohttp.web.Request, response: aiohttp.web.StreamResponse, *, is_cut: bool) -> aiohttp.web.StreamResponse:
    if is_cut:
        await asyncio.sleep(0.05)  # what was written is read first
        if request.transport is not None:
            request.transport.abort()
    return response


@contextmanager
def intercepting(plane: ControlPlane) -> Iterator[Interceptor]:
    """One that listens."""
    interceptor = Interceptor(plane)
    interceptor.start()
    try:
        yield interceptor
    finally:
        interceptor.stop()
