"""The ledger: what two replicas promise at once is settled by one object."""

import asyncio
import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest

from builders import a_book, a_node
from shardgate.adapters.claimed import Claim, ClaimedPod
from shardgate.adapters.nodes import node_from
from shardgate.domain.declaration import Subject
from shardgate.domain.inventory import Owner
from shardgate.shells import ledger as module
from shardgate.shells.cluster import ApiError
from shardgate.shells.ledger import Ledger, UnsettledError, Wanted
from shardgate.shells.metrics import Metrics
from shardgate.shells.writer import Writer

Json = dict[str, Any]


class OneLedger:
    """Stands in for the API server: the one object, with optimistic locking."""

    def __init__(self) -> None:
        self.body: Json | None = None
        self.version, self.writes = 0, 0
        self.during: Any = None

    async def request(self, verb: str, path: str, *, body: Json | None = None, **_: Any) -> Json:
        await asyncio.sleep(0)
        if self.during is not None:
            happens, self.during = self.during, None
            await happens()
        if verb == "GET":
            if self.body is None:
                raise ApiError(404, "NotFound", path)
            return copy.deepcopy(self.body)
        assert body is not None
        self.writes += 1
        if verb == "POST" and self.body is not None:
            raise ApiError(409, "AlreadyExists", path)
        if verb == "PATCH" and self.body is None:
            raise ApiError(404, "NotFound", path)
        if verb == "PATCH" and body["metadata"]["resourceVersion"] != str(self.version):
            raise ApiError(409, "Conflict", path)
        self.version += 1
        self.body = {"metadata": {"name": "shardgate", "resourceVersion": str(self.version)}, "spec": body["spec"]}
        return copy.deepcopy(self.body)


@dataclass(frozen=True)
class Decision:
    wanted: Wanted | None


class Replica:
    """A book with eight GPUs, and admissions that want them all."""

    def __init__(self, api: OneLedger) -> None:
        self.book = a_book(a_node())
        self.ledger = Ledger(Writer(api, Metrics(), "test"), self.book.claims, Metrics())  # type: ignore[arg-type]

    def decide(self, name: str, generation: int = 1) -> Decision:
        owner = Owner("serving", "InferenceDeployment", name)
        free = sum(group.like.free("nvidia.com/gpu") for group in self.book.inventory(0.0).groups)
        own = any(pod.is_promised for pod in self.book.own_pods(owner))
        if free < 8 and not own:
            return Decision(None)
        claim = Claim(
            uid=f"uid-{name}", generation=generation, owners=(owner,),
            pods=(ClaimedPod(node="node-a", requests={"nvidia.com/gpu": 8}),),
        )  # fmt: skip
        subject = Subject(api_version="shardgate.io/v1alpha1", kind="InferenceDeployment", namespace="serving", name=name)
        return Decision(Wanted(claim=claim, subject=subject, seconds=900))

    async def ask(self, name: str, generation: int = 1) -> bool:
        """Whether it was let in."""
        found = await self.ledger.settle(lambda: self.decide(name, generation))
        return found.wanted is not None


def test_of_many_on_three_replicas_one_is_let_in() -> None:
    async def test() -> None:
        api = OneLedger()
        replicas = [Replica(api) for _ in range(3)]
        answers = await asyncio.gather(*(replicas[number % 3].ask(f"r{number}") for number in range(64)))
        assert sum(answers) == 1
        assert api.body is not None
        assert len(api.body["spec"]["claims"]) == 1

    asyncio.run(test())


def test_the_same_again_takes_nothing_and_a_new_generation_takes_its_place() -> None:
    async def test() -> None:
        api = OneLedger()
        replica = Replica(api)
        assert [await replica.ask("a") for _ in range(10)] == [True] * 10
        assert api.writes == 1
        assert await replica.ask("a", generation=2)
        assert api.body is not None
        assert [each["generation"] for each in api.body["spec"]["claims"]] == [2]

    asyncio.run(test())


def test_a_ledger_that_is_deleted_or_broken_is_made_anew() -> None:
    async def test() -> None:
        api = OneLedger()
        replica = Replica(api)
        assert await replica.ask("a")
        api.body = None
        replica.ledger.drop()
        assert await replica.ask("b"), "nothing is promised any more"
        assert api.body is not None
        api.body["spec"] = {"claims": [{"uid": 7}]}
        api.version += 1
        api.body["metadata"]["resourceVersion"] = str(api.version)
        replica.ledger.put(copy.deepcopy(api.body))
        assert await replica.ask("c")
        assert [each["name"] for each in api.body["spec"]["claims"]] == ["c"]

    asyncio.run(test())


def test_an_older_state_from_the_watch_is_no_step_back() -> None:
    async def test() -> None:
        api = OneLedger()
        replica = Replica(api)
        assert await replica.ask("a")
        replica.ledger.put({"metadata": {"resourceVersion": "0"}, "spec": {"claims": []}})
        assert not await replica.ask("b")

    asyncio.run(test())


def test_a_race_that_is_not_settled_in_time_is_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(module, "SETTLE_SECONDS", 0.05)
        api = OneLedger()
        replica = Replica(api)

        async def dawdle() -> None:
            await asyncio.sleep(1)

        api.during = dawdle
        with pytest.raises(UnsettledError):
            await replica.ask("a")

    asyncio.run(test())


def test_claims_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    async def test() -> None:
        monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
        api = OneLedger()
        replica = Replica(api)
        standing: set[str] = set()
        covered: set[tuple[str, int]] = set()

        async def left() -> list[str]:
            await replica.ledger.upkeep(standing.__contains__, lambda uid, generation: (uid, generation) in covered)
            assert api.body is not None
            return [each["name"] for each in api.body["spec"]["claims"]]

        assert await replica.ask("never")
        clock[0] += 29
        assert await left() == ["never"]
        clock[0] += 2
        assert await left() == []
        assert await replica.ask("deleted")
        replica.ledger.gone("uid-deleted")
        assert await left() == []
        assert await replica.ask("old")
        standing.add("uid-old")
        clock[0] += 899
        assert await left() == ["old"]
        clock[0] += 2
        assert await left() == []
        assert await replica.ask("held")
        covered.add(("uid-held", 0))
        assert await left() == ["held"], "an earlier generation covers nothing"
        covered.add(("uid-held", 1))
        before = api.writes
        assert await left() == ["held"], "others have not heard of it yet"
        clock[0] += 4
        assert await left() == []
        assert await left() == []
        assert api.writes == before + 1, "at rest nothing is written"

    asyncio.run(test())


def test_a_scale_up_at_the_same_generation_takes_more() -> None:
    async def test() -> None:
        api = OneLedger()
        replica = Replica(api)
        replica.book.put_node(node_from(a_node("node-b").body), 0.0)
        assert await replica.ask("a")
        two = replica.decide("a").wanted
        assert two is not None
        more = ClaimedPod(node="node-b", requests={"nvidia.com/gpu": 8})
        bigger = replace(two, claim=replace(two.claim, pods=(*two.claim.pods, more)))
        await replica.ledger.settle(lambda: Decision(bigger))
        assert api.body is not None
        assert [len(each["pods"]) for each in api.body["spec"]["claims"]] == [2]
        assert sum(group.like.free("nvidia.com/gpu") * group.count for group in replica.book.inventory(0.0).groups) == 0

    asyncio.run(test())


def test_a_history_that_was_set_back_is_taken_as_it_is() -> None:
    async def test() -> None:
        api = OneLedger()
        api.version = 1000
        replica = Replica(api)
        assert await replica.ask("a")
        api.body, api.version = {"metadata": {"name": "shardgate", "resourceVersion": "5"}, "spec": {"claims": []}}, 5
        replica.ledger.put(copy.deepcopy(api.body))  # the watch begins anew
        assert await replica.ask("b"), "what stands is what counts"

    asyncio.run(test())
