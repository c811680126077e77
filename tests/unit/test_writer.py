"""Writes that the API server refuses, and how long it asks to be left alone."""

import asyncio
import time
from typing import Any

import pytest

from shardgate.shells.cluster import ApiError
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
        for _ in range(3):
            await writer.tell_of("Thing", "serving", "it", "Reason", "note")
        assert api.writes == 1
        api.error = None
        await asyncio.sleep(0.25)
        await writer.send_owed()
        assert api.writes == 4

    asyncio.run(tell())


def test_a_retry_comes_no_sooner_than_was_asked_for() -> None:
    queue = WorkQueue(asyncio.Event())
    queue.retry("u", "429", 5.0)
    assert 4.9 < queue.soonest() - time.monotonic() <= 5.0
    queue.retry("v", "500")
    assert queue.soonest() - time.monotonic() <= 1.0
