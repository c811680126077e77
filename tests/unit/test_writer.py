"""Writes that the API server refuses, and how long it asks to be left alone."""

import asyncio
import time
from typing import Any

import pytest

from shardgate.shells import event_series as module
from shardgate.shells.cluster import ApiError, ClusterUnreachable
from shardgate.shells.metrics import Metrics
from shardgate.shells.work_queue import WorkQueue
from shardgate.shells.writer import Writer


class Api:
    """Stands in for the API server: answers as told."""

    def __init__(self) -> None:
        self.error: ApiError | None = None
        self.writes = 0

    async def request(self, *_: Any, **__: Any) -> dict[str, Any]:
        self.writes += 1
        if self.error is not None:
            raise self.error
        return {}


def test_what_may_not_be_written_is_known_until_it_may() -> None:
    api, metrics = Api(), Metrics()
    writer = Writer(api, metrics, "test")  # type: ignore[arg-type]
    api.error = ApiError(403, "Forbidden", "no")
    with pytest.raises(ApiError):
        asyncio.run(writer.write("PATCH", "/x", "things/status", {}))
    assert writer.forbidden == {"things/status": "things/status: 403 Forbidden: no"}
    count = metrics.registry.get_sample_value("shardgate_write_failures_total", {"resource": "things/status", "status": "403"})
    assert count == 1
    api.error = None
    asyncio.run(writer.write("PATCH", "/x", "things/status", {}))
    assert writer.forbidden == {}


def test_events_wait_as_long_as_was_asked_for() -> None:
    api = Api()
    writer = Writer(api, Metrics(), "test")  # type: ignore[arg-type]
    api.error = ApiError(429, "TooManyRequests", "later", retry_after_seconds=0.2)

    async def tell() -> None:
        for number in range(3):
            await writer.tell_of("Thing", "serving", "it", "Reason", f"note {number}")
        assert api.writes == 1
        api.error = None
        await asyncio.sleep(0.25)
        await writer.send_owed()
        assert api.writes == 4

    asyncio.run(tell())


class Events:
    """Stands in for the API server: events, which go when it is told so."""

    def __init__(self) -> None:
        self.stand: dict[str, dict[str, Any]] = {}
        self.writes: list[str] = []
        self.is_away = self.answers_get_lost = False

    async def request(self, verb: str, path: str, *, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.writes.append(verb)
        if self.is_away:
            raise ClusterUnreachable(path)
        name = body["metadata"]["name"] if verb == "POST" else path.rsplit("/", 1)[1]
        if (name in self.stand) == (verb == "POST"):
            raise ApiError(409 if verb == "POST" else 404, "", name)
        self.stand[name] = {**self.stand.get(name, {}), **body}
        if self.answers_get_lost:
            raise ClusterUnreachable(path)
        return {}

    def told(self) -> list[tuple[str, int]]:
        """Note of each event, and how often it was."""
        return [(each["note"], each.get("series", {"count": 1})["count"]) for each in self.stand.values()]


def test_the_same_event_of_the_same_object_counts() -> None:
    api = Events()
    writer = Writer(api, Metrics(), "test")  # type: ignore[arg-type]

    async def tell(*notes: str, name: str = "it") -> None:
        for note in notes:
            await writer.tell_of("Thing", "serving", name, "Reason", note)

    async def test() -> None:
        await tell("7 of 8", "8 of 8", "7 of 8", "8 of 8", "7 of 8")
        assert (api.told(), api.writes) == ([("7 of 8", 3), ("8 of 8", 2)], ["POST", "POST", "PATCH", "PATCH", "PATCH"])
        await tell("7 of 8", name="another")
        assert len(api.stand) == 3
        api.stand.clear()  # an hour has passed
        await tell("7 of 8")
        assert api.told() == [("7 of 8", 1)]
        api.is_away = True
        await tell("7 of 8", "7 of 8", "6 of 8", "6 of 8")
        api.is_away = False
        del api.writes[:]
        await writer.send_owed()
        assert (api.told(), api.writes) == ([("7 of 8", 3), ("6 of 8", 2)], ["PATCH", "POST"])
        api.answers_get_lost = True
        await tell("5 of 8")
        api.answers_get_lost = False
        await tell("5 of 8")
        assert api.told()[-1] == ("5 of 8", 2)

    asyncio.run(test())


def test_an_object_is_told_of_so_often_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1e6]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    api = Events()
    writer = Writer(api, Metrics(), "test")  # type: ignore[arg-type]

    async def flap(times: int) -> int:
        before = len(api.writes)
        for number in range(times):
            await writer.tell_of("Thing", "serving", "it", "Reason", f"{7 + number % 2} of 8")
        return len(api.writes) - before

    async def test() -> None:
        assert await flap(1000) == module.BURST
        clock[0] += module.REFILL_SECONDS
        assert await flap(1000) == 1
        assert ("7 of 8", 501) in api.told(), "what was held back is counted"
        clock[0] += 1e6
        assert await flap(1000) == module.BURST

    asyncio.run(test())


def test_what_is_remembered_of_events_has_an_end() -> None:
    writer = Writer(Events(), Metrics(), "test")  # type: ignore[arg-type]

    async def test() -> None:
        for number in range(module.MOST_SERIES + 10):
            await writer.tell_of("Thing", "serving", f"it-{number}", "Reason", "note")
        assert (len(writer._events._series), len(writer._events._buckets)) == (module.MOST_SERIES, module.MOST_OBJECTS)
        assert not writer._owed

    asyncio.run(test())


def test_a_retry_comes_no_sooner_than_was_asked_for() -> None:
    queue = WorkQueue(asyncio.Event())
    queue.retry("u", "429", 5.0)
    assert 4.9 < queue.soonest() - time.monotonic() <= 5.0
    queue.retry("v", "500")
    assert queue.soonest() - time.monotonic() <= 1.0
