"""The lease against an API that keeps one object with optimistic locking."""

import asyncio
import copy
from typing import Any

import pytest

from shardgate.shells import lease as module
from shardgate.shells.cluster import ApiError, ClusterUnreachable
from shardgate.shells.lease import Lease

Json = dict[str, Any]


class OneLease:
    """Stands in for the cluster: one Lease, resourceVersions, and faults on command."""

    def __init__(self) -> None:
        self.stored: Json | None = None
        self.fault: Exception | None = None

    async def request(self, method: str, path: str, *, body: Json | None = None, **_: Any) -> Json:
        if self.fault is not None:
            raise self.fault
        if method == "GET":
            if self.stored is None:
                raise ApiError(404, "NotFound", path)
            return copy.deepcopy(self.stored)
        assert body is not None
        if method == "POST" and self.stored is not None:
            raise ApiError(409, "AlreadyExists", path)
        if method == "PUT" and body["metadata"]["resourceVersion"] != (self.stored or {})["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", path)
        version = int((self.stored or {"metadata": {"resourceVersion": "0"}})["metadata"]["resourceVersion"]) + 1
        self.stored = {**copy.deepcopy(body), "metadata": {**body["metadata"], "resourceVersion": str(version)}}
        return copy.deepcopy(self.stored)

    @property
    def holder(self) -> str:
        assert self.stored is not None
        return str(self.stored["spec"]["holderIdentity"])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("DURATION_SECONDS", 1.0), ("RENEW_DEADLINE_SECONDS", 0.6), ("RETRY_SECONDS", 0.05)):
        monkeypatch.setattr(module, name, value)


def run(test: Any) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[None]] = []

            def start(lease: Lease) -> asyncio.Task[None]:
                tasks.append(group.create_task(lease.run()))
                return tasks[-1]

            await asyncio.wait_for(test(start), 15)
            for task in tasks:
                task.cancel()

    asyncio.run(main())


async def until(holds: Any) -> None:
    while not holds():
        await asyncio.sleep(0.01)


def leases(api: OneLease) -> tuple[Lease, Lease]:
    return Lease(api, "ns", "one"), Lease(api, "ns", "two")  # type: ignore[arg-type]


def test_one_of_two_leads_and_a_release_hands_over_at_once() -> None:
    async def test(start: Any) -> None:
        api = OneLease()
        one, two = leases(api)
        task = start(one)
        await until(one.is_held)
        start(two)
        await asyncio.sleep(0.3)
        assert (one.is_held(), two.is_held(), api.holder) == (True, False, "one")
        task.cancel()
        await one.release()
        assert not one.is_held()
        await until(two.is_held)

    run(test)


def test_a_holder_that_is_gone_is_followed_after_its_time_by_our_own_clock() -> None:
    async def test(start: Any) -> None:
        api = OneLease()
        one, two = leases(api)
        task = start(one)
        await until(one.is_held)
        task.cancel()
        assert api.stored is not None
        api.stored["spec"]["renewTime"] = "2099-01-01T00:00:00.000000Z"  # a clock that is far ahead
        start(two)
        await until(two.is_held)
        assert not one.is_held(), "it stopped acting before the other began"

    run(test)


@pytest.mark.parametrize("fault", [ClusterUnreachable("away"), ApiError(500, "", ""), ValueError("not JSON")])
def test_a_leader_that_cannot_renew_stops_acting_and_comes_back(fault: Exception) -> None:
    async def test(start: Any) -> None:
        api = OneLease()
        one, _ = leases(api)
        start(one)
        await until(one.is_held)
        api.fault = fault
        await until(lambda: not one.is_held())
        api.fault = None
        await until(one.is_held)

    run(test)
