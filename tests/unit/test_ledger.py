"""The ledger: what two replicas promise at once is settled by one object."""

import asyncio
import copy
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest

from builders import a_book, a_declaration, a_node, a_pod, a_vllm_deployment, standing
from shardgate.adapters.claimed import Claim, ClaimedPod, gpus_of_pods
from shardgate.adapters.nodes import node_from
from shardgate.adapters.pods import pod_from, read_pod
from shardgate.domain.declaration import GpuWish, LeaderWish, Subject
from shardgate.domain.inventory import Owner
from shardgate.shells import ledger as module
from shardgate.shells.cluster import ApiError, ClusterUnreachable
from shardgate.shells.judge import Judge
from shardgate.shells.ledger import Ledger, Seen, UnsettledError, Wanted
from shardgate.shells.metrics import Metrics
from shardgate.shells.time_limit import answered_by, ends_at, within_time
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

    def decide(self, name: str, generation: int = 1, pods: int = 1) -> Decision:
        owner = Owner("serving", "InferenceDeployment", name)
        free = sum(group.like.free("nvidia.com/gpu") for group in self.book.inventory(0.0).groups)
        own = any(pod.is_promised for pod in self.book.own_pods(owner))
        if free < 8 and not own:
            return Decision(None)
        claim = Claim(
            uid=f"uid-{name}", generation=generation, owners=(owner,),
            pods=(ClaimedPod(node="node-a", requests={"nvidia.com/gpu": 8}),) * pods,
        )  # fmt: skip
        subject = Subject(api_version="shardgate.io/v1alpha1", kind="InferenceDeployment", namespace="serving", name=name)
        return Decision(Wanted(claim=claim, subject=subject, seconds=900))

    async def ask(self, name: str, generation: int = 1, pods: int = 1) -> bool:
        """Whether it was let in."""
        found = await self.ledger.settle(lambda: self.decide(name, generation, pods))
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


def test_what_a_workload_asks_for_is_read_from_it() -> None:
    judge = Judge(a_book(), lambda: (0.0, 0.0))
    assert judge.asked_by(standing(a_vllm_deployment(replicas=2))) == (("nvidia.com/gpu", 8),) * 2
    assert judge.asked_by(standing(a_vllm_deployment("none", replicas=0), "none")) == ()
    wish = GpuWish(resource="nvidia.com/gpu", per_pod=8, pods_per_replica=3, leader=LeaderWish(gpus=4))
    led = replace(a_declaration(replicas=2), gpus=wish)
    assert gpus_of_pods(led) == (("nvidia.com/gpu", 4), ("nvidia.com/gpu", 8), ("nvidia.com/gpu", 8)) * 2
    assert gpus_of_pods(a_declaration()) is None, "how many pods there are rests on the nodes"


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


def test_a_race_is_told_unsettled_before_its_answer_is_due() -> None:
    async def test() -> None:
        api = OneLedger()
        replica = Replica(api)

        async def dawdle() -> None:
            await asyncio.sleep(1)

        api.during = dawdle
        began = time.monotonic()
        with answered_by(began + 0.5), pytest.raises(UnsettledError):
            await replica.ask("a")
        assert time.monotonic() - began < 0.45

    asyncio.run(test())


def test_a_race_that_is_decided_again_has_a_turn_of_its_own() -> None:
    async def test() -> None:
        replica = Replica(OneLedger())

        def decide() -> Decision:
            return within_time(replica.decide, "a")

        with ends_at(time.monotonic() - 1):  # the review's first turn is over: it waited for its turn to write
            assert (await replica.ledger.settle(decide)).wanted is not None

        def for_ever() -> Decision:
            within_time(time.sleep, 1)
            return Decision(wanted=None)

        with answered_by(time.monotonic() + 0.3), pytest.raises(UnsettledError):
            await replica.ledger.settle(for_ever)

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
            await replica.ledger.upkeep(
                lambda uid, _: Seen(stands=uid in standing, generation=1), lambda uid, generation: (uid, generation) in covered
            )
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


class Upkeep:
    """The leader's, of one claim: by what stands, and which generation of it was judged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module, "now", lambda: f"taken at {self.now}")
        self.api = OneLedger()
        self.replica = Replica(self.api)
        self.seen, self.judged = Seen(stands=True, generation=1), 1

    async def after(self, seconds: float) -> list[int]:
        """GPUs of the pods that are claimed after as many seconds, and two looks."""
        self.now += seconds
        for _ in range(2):
            await self.replica.ledger.upkeep(
                lambda _, __: self.seen, lambda uid, at: self.judged >= at or not self.replica.ledger.missing(uid)
            )
        assert self.api.body is not None
        return [pod["requests"]["nvidia.com/gpu"] for each in self.api.body["spec"]["claims"] for pod in each["pods"]]


def test_an_update_that_never_came_ends_with_what_stands_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        leader = Upkeep(monkeypatch)
        assert await leader.replica.ask("a", generation=2, pods=2)
        leader.judged = 0
        assert await leader.after(29) == [8, 8], "it may be on its way"
        assert await leader.after(60) == [8, 8], "nothing else is promised to what stands yet"
        leader.judged = 1
        assert await leader.after(1) == [8, 8], "others have not heard of that promise"
        assert await leader.after(4) == []
        assert leader.replica.ledger._metrics.claims_expired._value.get() == 1
        assert leader.api.writes == 2

    asyncio.run(test())


def test_a_claim_ends_when_its_object_is_deleted_and_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        leader = Upkeep(monkeypatch)
        leader.judged = 0
        assert await leader.replica.ask("a")
        assert await leader.after(1) == [8]
        leader.seen = Seen(stands=True, generation=2, is_going=True)
        assert await leader.after(1) == []

    asyncio.run(test())


def test_an_update_that_came_and_is_not_judged_yet_keeps_its_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        leader = Upkeep(monkeypatch)
        assert await leader.replica.ask("a", generation=2, pods=2)
        leader.seen = Seen(stands=True, generation=2)
        assert await leader.after(100) == [8, 8]

    asyncio.run(test())


def test_a_scale_that_was_taken_back_keeps_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    one, three = (("nvidia.com/gpu", 8),), (("nvidia.com/gpu", 8),) * 3

    async def test() -> None:
        leader = Upkeep(monkeypatch)
        leader.judged = 0
        assert await leader.replica.ask("a", pods=3)
        leader.seen = Seen(stands=True, generation=2, asked=three)
        assert await leader.after(100) == [8, 8, 8], "its pods have not come"
        leader.seen = Seen(stands=True, generation=3, asked=one, is_followed=False)
        assert await leader.after(1) == [8, 8, 8], "it may be otherwise"
        leader.seen = Seen(stands=True, generation=3, asked=one)
        assert await leader.after(1) == [8], "one pod is still to come"
        before = leader.api.writes
        assert await leader.after(100) == [8]
        assert leader.api.writes == before, "at rest nothing is written"
        leader.seen = Seen(stands=True, generation=4, asked=(("nvidia.com/gpu", 4),))
        assert await leader.after(1) == [4], "a smaller pod takes the place of a larger one"
        leader.seen = Seen(stands=True, generation=4, asked=())
        assert await leader.after(1) == []
        assert await leader.after(4) == []
        assert leader.api.body == {**leader.api.body, "spec": {"claims": []}}  # type: ignore[dict-item]

    asyncio.run(test())


def test_a_scale_that_is_asked_for_again_is_claimed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        leader = Upkeep(monkeypatch)
        leader.judged, leader.seen = 0, Seen(stands=True, generation=1, asked=())
        assert await leader.replica.ask("a")
        assert await leader.after(29) == [8]
        assert await leader.replica.ask("a"), "refused by another webhook, and tried again"
        assert await leader.after(29) == [8]
        assert await leader.after(2) == []

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


class Refusing(OneLedger):
    """An API server that takes no write."""

    async def request(self, verb: str, path: str, **_: Any) -> Json:
        raise ApiError(403, "Forbidden", path) if verb != "GET" else AssertionError


def test_what_cannot_be_written_lets_nothing_in() -> None:
    async def test() -> None:
        with pytest.raises(UnsettledError, match=r"^the CapacityLedger cannot be written$"):
            await Replica(Refusing()).ask("a")

    asyncio.run(test())


class Busy(OneLedger):
    """An API server that cannot take the first writes."""

    left = 2

    async def request(self, verb: str, path: str, **more: Any) -> Json:
        if verb != "GET" and self.left:
            self.left -= 1
            raise ApiError(429, "TooManyRequests", path) if self.left else ClusterUnreachable("the connection was closed")
        return await super().request(verb, path, **more)


def test_what_passes_is_tried_again() -> None:
    async def test() -> None:
        api = Busy()
        assert await Replica(api).ask("a")
        assert (api.left, api.writes) == (0, 1)

    asyncio.run(test())


def test_what_asked_for_no_gpus_for_a_while_keeps_its_next_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        leader = Upkeep(monkeypatch)
        leader.judged = 0
        leader.replica.ledger.gone("uid-a")
        leader.now += 1
        assert await leader.replica.ask("a")
        leader.seen = Seen(stands=False)
        assert await leader.after(1) == [8], "its GPUs are on their way to us"
        leader.replica.ledger.gone("uid-a")
        assert await leader.after(1) == [], "it was deleted"

    asyncio.run(test())


def test_pods_of_what_a_controller_made_are_its_own() -> None:
    async def test() -> None:
        made: list[Owner] = []
        replica = Replica(OneLedger())
        replica.ledger = Ledger(Writer(OneLedger(), Metrics(), "test"), replica.book.claims, Metrics(), lambda _: tuple(made))  # type: ignore[arg-type]
        assert await replica.ask("a")
        pod = a_pod("p", node="node-a", gpus=8)
        pod["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "name": "made", "uid": "s", "controller": True}]
        record = read_pod(pod_from(pod))
        assert record is not None
        replica.book.put_pod(record)
        assert held(replica) == 16, "whose it is, is not known yet"
        made.append(Owner("serving", "StatefulSet", "made"))
        replica.ledger.note_made()
        assert held(replica) == 8
        assert not replica.ledger.missing("uid-a")

    asyncio.run(test())


def test_a_pod_is_what_was_promised_to_it() -> None:
    async def test() -> None:
        replica = Replica(OneLedger())
        claim = Claim(
            uid="uid-serving-p", generation=1, owners=(Owner("serving", "Pod", "p"),),
            pods=(ClaimedPod(node="node-a", requests={"nvidia.com/gpu": 8}),),
        )  # fmt: skip
        subject = Subject(api_version="v1", kind="Pod", namespace="serving", name="p")
        await replica.ledger.settle(lambda: Decision(Wanted(claim=claim, subject=subject, seconds=900)))
        record = read_pod(pod_from(a_pod("p", node="node-a", gpus=8)))
        assert record is not None
        replica.book.put_pod(record)
        assert held(replica) == 8

    asyncio.run(test())


def held(replica: Replica) -> int:
    """GPUs of all pods, promised ones among them."""
    replica.book.inventory(0.0)
    return sum(dict(each.requests).get("nvidia.com/gpu", 0) for each in replica.book.pods.values())
