"""A reflector against an API server that misbehaves on command."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import aiohttp.web
import pytest
from kubernetes import client as kubernetes_client

from shardgate.adapters.nodes import NodeObject
from shardgate.shells import reflector as module
from shardgate.shells.cluster import Cluster
from shardgate.shells.reflector import Reflector

Json = dict[str, Any]


def node(name: str, version: int, **more: Any) -> Json:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, **more}


def event(kind: str, body: Json) -> Json:
    return {"type": kind, "object": body}


def error(code: int) -> Json:
    return event("ERROR", {"kind": "Status", "code": code, "reason": "Test", "message": "as asked"})


@dataclass
class Kept:
    """A store that remembers."""

    items: dict[str, NodeObject] = field(default_factory=dict)
    puts: list[str] = field(default_factory=list)

    def key(self, item: NodeObject) -> str:
        return item.metadata.name

    def put(self, item: NodeObject) -> None:
        self.items[item.metadata.name] = item
        self.puts.append(item.metadata.name)

    def drop(self, item: NodeObject) -> None:
        self.items.pop(item.metadata.name, None)

    def retain(self, keys: set[str]) -> None:
        self.items = {name: item for name, item in self.items.items() if name in keys}


@dataclass
class Server:
    """Answers lists and watches by scripts, one entry a request; the last entry stays."""

    lists: list[Any]
    watches: list[Any]
    asked: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    retry_after: int = 0

    async def answer(self, request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        query = dict(request.query)
        self.asked.append(query)
        script = self.watches if query.get("watch") else self.lists
        step = script.pop(0) if len(script) > 1 else script[0]
        self.times.append(time.monotonic())
        if isinstance(step, int):
            headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
            return aiohttp.web.json_response({"reason": "Test", "message": "as asked"}, status=step, headers=headers)
        if not query.get("watch"):
            return aiohttp.web.json_response(step)
        response = aiohttp.web.StreamResponse()
        await response.prepare(request)
        for line in step:
            await response.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        if step and step[-1] == b"":
            await asyncio.sleep(30)  # an open stream with nothing more to say
        return response

    def versions(self) -> list[str]:
        return [query["resourceVersion"] for query in self.asked if "watch" in query]


def page(version: int, *items: Json, more: str = "") -> Json:
    return {"metadata": {"resourceVersion": str(version), "continue": more}, "items": list(items)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAUSE_SECONDS", 0.02)


def follow(server: Server, until: Callable[[Kept, Reflector[NodeObject]], bool]) -> tuple[Kept, Reflector[NodeObject]]:
    async def run() -> tuple[Kept, Reflector[NodeObject]]:
        app = aiohttp.web.Application()
        app.router.add_get("/api/v1/nodes", server.answer)
        runner = aiohttp.web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        configuration = kubernetes_client.Configuration()
        configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
        kept = Kept()
        async with Cluster(configuration) as cluster:
            reflector = Reflector(cluster=cluster, name="nodes", path="/api/v1/nodes", item=NodeObject, store=kept)
            task = asyncio.create_task(reflector.run())
            try:
                await asyncio.wait_for(_until(lambda: until(kept, reflector)), 10)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await runner.cleanup()
        assert not task.done() or task.cancelled()
        return kept, reflector

    return asyncio.run(run())


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


QUIET = [b""]
Step = Callable[[], Awaitable[None]]


def test_lists_come_in_pages_and_changes_are_followed() -> None:
    server = Server(
        lists=[page(10, node("a", 1), more="next"), page(10, node("b", 2))],
        watches=[[event("ADDED", node("c", 11)), event("DELETED", node("a", 12)), b""]],
    )
    kept, _ = follow(server, lambda kept, _: "a" not in kept.items and "c" in kept.items)
    assert set(kept.items) == {"b", "c"}
    assert [query.get("continue") for query in server.asked[:2]] == [None, "next"]


@pytest.mark.parametrize("gone", [[error(410)], 410])
def test_after_410_in_either_form_what_went_meanwhile_is_gone(gone: Any) -> None:
    server = Server(lists=[page(10, node("a", 1), node("b", 2)), page(20, node("b", 2))], watches=[gone, QUIET])
    kept, _ = follow(server, lambda kept, _: set(kept.items) == {"b"})
    assert server.versions()[-1] == "20"
    assert set(kept.items) == {"b"}


@pytest.mark.parametrize("broken", [[error(500)], [error(429)], [error(504)], 500, 503, 403, [b'{"type": "ADD'], [b"not json\n"]])
def test_any_other_error_resumes_where_it_was(broken: Any) -> None:
    """No second list, and nothing that was applied is asked for again."""
    before = [event("ADDED", node("c", 15))]
    first = [*before, *broken] if isinstance(broken, list) else before
    server = Server(lists=[page(10, node("a", 1))], watches=[first, *([broken] if isinstance(broken, int) else []), QUIET])
    enough = 2 if isinstance(broken, list) else 3
    kept, reflector = follow(server, lambda kept, _: len(server.versions()) >= enough and "c" in kept.items)
    assert server.versions()[0] == "10"
    assert set(server.versions()[1:]) == {"15"}
    assert kept.puts == ["a", "c"]
    assert len([query for query in server.asked if "watch" not in query]) == 1
    assert reflector.health.restarts or isinstance(broken, list)


def test_a_list_that_fails_is_asked_for_again() -> None:
    server = Server(lists=[500, 403, page(10, node("a", 1))], watches=[QUIET])
    _, reflector = follow(server, lambda _, reflector: reflector.health.synced.is_set())
    assert reflector.health.restarts == {"500": 1, "403": 1}


def test_an_object_that_cannot_be_decoded_is_named_and_left_out() -> None:
    bad = node("bad", 3, status={"allocatable": ["no mapping"]})
    server = Server(lists=[page(10, node("a", 1), bad)], watches=[[event("ADDED", node("b", 11)), b""]])
    kept, reflector = follow(server, lambda kept, _: "b" in kept.items)
    assert set(kept.items) == {"a", "b"}
    assert set(reflector.unreadable) == {"bad"}


def test_a_stream_that_is_accepted_and_silent_is_nothing_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.1)
    server = Server(lists=[page(10), 503], watches=[QUIET])
    _, reflector = follow(server, lambda _, reflector: reflector.health.restarts.get("503", 0) >= 3)
    assert reflector.health.restarts["relist"] == 1
    assert reflector.health.broken_seconds() > 0.02
    assert reflector.health.age_seconds() > reflector.health.broken_seconds()


def test_what_held_and_breaks_again_has_been_broken_since_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet resource says nothing for a minute: a break, mended and forgotten, is no part of the next one."""
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0], time=lambda: now[0]))
    health = module.Health()
    health.synced.set()
    health.heard()
    health.broke("away", "connection")
    now[0] += 10
    assert health.broken_seconds() == 10
    health.connected()
    now[0] += module.HOLDS_AFTER_SECONDS - 1
    health.broke("away", "connection")
    assert health.broken_seconds() == 14, "it did not hold"
    health.connected()
    now[0] += module.HOLDS_AFTER_SECONDS + 1
    assert health.broken_seconds() == 0
    health.broke("away", "connection")
    now[0] += 2
    assert health.broken_seconds() == 2
    assert health.age_seconds() == 22


def test_after_silence_it_lists_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server may be one that never gets to where the watch was: an etcd that was restored counts from before."""
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.1)
    server = Server(lists=[page(10, node("a", 1)), page(5, node("b", 2))], watches=[QUIET])
    follow(server, lambda kept, _: set(kept.items) == {"b"} and len(server.versions()) > 1)
    assert server.versions()[:2] == ["10", "5"]


def test_what_was_told_is_told_again_and_changes_nothing() -> None:
    again = event("MODIFIED", node("a", 11))
    server = Server(lists=[page(10, node("a", 1))], watches=[[again, again, event("ADDED", node("b", 12)), b""]])
    kept, _ = follow(server, lambda kept, _: "b" in kept.items)
    assert kept.puts == ["a", "a", "b"]


def test_an_event_older_than_what_was_told_is_not_believed() -> None:
    stale = event("DELETED", node("a", 11))
    server = Server(
        lists=[page(10, node("a", 1)), page(20, node("a", 12), node("b", 20))],
        watches=[[event("ADDED", node("a", 12)), stale, b""], QUIET],
    )
    kept, reflector = follow(server, lambda kept, _: "b" in kept.items)
    assert set(kept.items) == {"a", "b"}
    assert reflector.health.restarts == {"relist": 1}
    assert server.versions()[0] == "10"


def test_it_waits_as_long_as_it_is_asked_to() -> None:
    server = Server(lists=[429, page(10)], watches=[QUIET], retry_after=1)
    follow(server, lambda _, reflector: reflector.health.synced.is_set())
    assert server.times[1] - server.times[0] >= 1


def test_what_came_before_an_error_is_told_of() -> None:
    server = Server(
        lists=[page(10)],
        watches=[[json.dumps(event("ADDED", node("a", 11))).encode() + b"\n" + json.dumps(error(500)).encode() + b"\n"], QUIET],
    )
    told: list[int] = []
    follow(server, lambda kept, reflector: _told(reflector, told) and "a" in kept.items and len(told) >= 2)


def _told(reflector: Reflector[NodeObject], told: list[int]) -> bool:
    reflector._on_change = lambda: told.append(1)
    return True


def test_pauses_double_while_trouble_lasts_and_begin_anew_where_it_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAUSE_SECONDS", 15.0)
    monkeypatch.setattr(module.random, "uniform", lambda _, most: most)
    configuration = kubernetes_client.Configuration()
    subject = Reflector(cluster=Cluster(configuration), name="nodes", path="/", item=NodeObject, store=Kept())
    assert [subject._broke("refused", "connection") for _ in range(5)] == [0.5, 1, 2, 3, 3]
    assert [subject._broke("refused", "500") for _ in range(6)] == [0.5, 1, 2, 4, 8, 15]
    assert [subject._broke("too old", "relist") for _ in range(2)] == [4, 4]
    subject._went_on = True
    assert [subject._broke("too old", "410") for _ in range(2)] == [0.5, 1]


def test_watches_that_end_at_once_are_not_opened_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAUSE_SECONDS", 0.2)
    server = Server(lists=[page(10)], watches=[[]])
    _, reflector = follow(server, lambda _, reflector: reflector.health.restarts.get("short", 0) >= 4)
    assert len(server.versions()) <= 6
    assert reflector.health.broken_since is not None


def test_bookmarks_are_heard_and_move_the_place_to_resume() -> None:
    server = Server(lists=[page(10)], watches=[[event("BOOKMARK", node("", 50))], QUIET])
    follow(server, lambda _, __: len(server.versions()) >= 2)
    assert server.versions() == ["10", "50"]


def test_a_defect_of_the_store_does_not_end_it() -> None:
    server = Server(lists=[page(10, node("a", 1))], watches=[[event("ADDED", node("b", 11)), b""]])
    failing = iter([True, False])

    def until(kept: Kept, reflector: Reflector[NodeObject]) -> bool:
        if reflector.health.restarts.get("internal"):
            return "b" in kept.items
        original = kept.retain
        if next(failing, False):

            def retain(keys: set[str]) -> None:
                kept.retain = original  # type: ignore[method-assign]
                raise RuntimeError("a defect")

            kept.retain = retain  # type: ignore[method-assign]
        return False

    kept, _ = follow(server, until)
    assert set(kept.items) == {"a", "b"}
