"""Statuses of policies: written where they changed, and over nothing that another replica wrote since."""

import asyncio
import copy
from typing import Any

import pytest

from builders import a_book
from shardgate.adapters.policies import read_policy
from shardgate.shells import policy_status as module
from shardgate.shells.cluster import ApiError
from shardgate.shells.metrics import Metrics
from shardgate.shells.policy_status import PolicyStatus
from shardgate.shells.writer import Writer

Json = dict[str, Any]


class OnePolicy:
    """Stands in for the API server: one policy, with optimistic locking."""

    def __init__(self) -> None:
        self.body: Json = {"metadata": {"name": "strict", "generation": 1, "resourceVersion": "1"}, "spec": {}}
        self.writes = 0

    async def request(self, verb: str, path: str, *, body: Json, **_: Any) -> Json:
        self.writes += 1
        assert (verb, path.rsplit("/", 2)[1:]) == ("PATCH", ["strict", "status"])
        if body["metadata"]["resourceVersion"] != self.body["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", path)
        self.change(body["status"])
        return copy.deepcopy(self.body)

    def change(self, status: Json) -> None:
        version = str(int(self.body["metadata"]["resourceVersion"]) + 1)
        self.body["metadata"]["resourceVersion"], self.body["status"] = version, status


def a_replica(api: OnePolicy) -> PolicyStatus:
    book = a_book()
    book.rules.put_policy(read_policy(api.body))
    return PolicyStatus(Writer(api, Metrics(), "test"), book, list)  # type: ignore[arg-type]


def see(subject: PolicyStatus, api: OnePolicy) -> None:
    metadata = api.body["metadata"]
    subject.seen("strict", metadata["generation"], metadata["resourceVersion"], copy.deepcopy(api.body.get("status")))


def test_a_late_status_lands_nowhere_and_the_next_one_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_PAUSE_SECONDS", 0.0)
    api = OnePolicy()
    subject = a_replica(api)
    see(subject, api)
    by_another = {"observedGeneration": 1, "matched": 7, "refused": 0, "violations": []}
    api.change(by_another)
    asyncio.run(subject.upkeep())
    assert api.body["status"] == by_another
    see(subject, api)
    asyncio.run(subject.upkeep())
    assert api.body["status"]["matched"] == 0
    before = api.writes
    asyncio.run(subject.upkeep())
    see(subject, api)
    asyncio.run(subject.upkeep())
    assert api.writes == before, "at rest nothing is written"
