"""The reconciler when the object changes, goes, or the lease lapses in the middle of a write."""

import asyncio
import copy
import time
from pathlib import Path
from typing import Any

import pytest

from builders import a_body, a_book, a_node
from shardgate.shells.cluster import ApiError
from shardgate.shells.config import OperatorConfig
from shardgate.shells.judge import Judge
from shardgate.shells.metrics import Metrics
from shardgate.shells.reconciler import Reconciler
from shardgate.shells.rejudging import Rejudging
from shardgate.shells.work_queue import WorkQueue
from shardgate.shells.writer import Writer

Json = dict[str, Any]


class OneObject:
    """Stands in for the API server: one object, resourceVersions, and something that happens during a write."""

    def __init__(self, body: Json) -> None:
        self.body: Json | None = body
        self.during: Any = None
        self.writes: list[tuple[str, str]] = []

    async def request(self, method: str, path: str, *, body: Json | None = None, **_: Any) -> Json:
        self.writes.append((method, path.rsplit("/", 1)[1]))
        assert body is not None
        if method == "POST":
            return {}
        if self.body is None:
            raise ApiError(404, "NotFound", path)
        if body["metadata"]["resourceVersion"] != self.body["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", path)
        changed = copy.deepcopy(self.body)
        if "status" in body:
            changed["status"] = {key: value for key, value in body["status"].items() if value is not None}
        for name, value in body["metadata"].get("annotations", {}).items():
            changed["metadata"].setdefault("annotations", {})[name] = value
        self.body = self.changed(changed)
        answer = copy.deepcopy(self.body)
        if self.during is not None:
            happens, self.during = self.during, None
            happens()
        return answer

    @staticmethod
    def changed(body: Json) -> Json:
        body["metadata"]["resourceVersion"] = str(int(body["metadata"]["resourceVersion"]) + 1)
        return body


class Holding:
    """A lease that is held or not, as told."""

    def __init__(self) -> None:
        self.held = True
        self.gained = asyncio.Event()

    def is_held(self) -> bool:
        return self.held


def standing() -> Json:
    body = a_body()
    body["metadata"] |= {"uid": "u", "resourceVersion": "1", "generation": 1}
    return body


class Judging(Reconciler):
    """A reconciler, and passes over what is due in it."""

    rejudging: Rejudging

    async def once(self) -> None:
        await self.rejudging.once()


def reconciler(api: OneObject, lease: Holding) -> Judging:
    judge = Judge(a_book(a_node()), lambda: (0.0, 0.0))
    config = OperatorConfig(tls_cert=Path("c"), tls_key=Path("k"))
    wake, metrics = asyncio.Event(), Metrics()
    writer = Writer(api, metrics, "test")  # type: ignore[arg-type]
    made = Judging(writer, judge, lease, config, metrics, WorkQueue(wake))  # type: ignore[arg-type]
    made.rejudging = Rejudging(judge, lease, metrics, wake, [made])  # type: ignore[arg-type]
    return made


def test_a_pass_that_outlasts_the_lease_keeps_nothing_in_order_at_its_end() -> None:
    async def test() -> None:
        api, lease = OneObject(standing()), Holding()
        subject, kept = reconciler(api, lease), []

        async def upkeep() -> None:
            kept.append(1)

        subject.rejudging._upkeep = upkeep
        subject.put(standing())
        api.during = lambda: setattr(lease, "held", False)  # while its first write is on its way
        await subject.once()
        assert (len(api.writes) > 0, kept) == (True, [])
        lease.held = True
        await subject.once()
        assert kept == [1]

    asyncio.run(test())


def test_it_writes_once_and_then_nothing() -> None:
    async def test() -> None:
        api, lease = OneObject(standing()), Holding()
        subject = reconciler(api, lease)
        subject.put(standing())
        for _ in range(3):
            await subject.once()
        assert api.writes == [("PATCH", "llama"), ("PATCH", "status"), ("POST", "events")]

    asyncio.run(test())


def undecided_pods() -> Json:
    """One whose pods' size is the operator's to choose: it has Sound on one node of 8 GPUs."""
    body = standing()
    del body["spec"]["gpus"]
    body["spec"]["strategy"] = {"tensor": 8}
    return body


def forged(body: Json, **status: Any) -> Json:
    """The same object after somebody wrote into its status."""
    made = copy.deepcopy(body)
    made["metadata"]["resourceVersion"] = str(int(made["metadata"]["resourceVersion"]) + 1)
    made["status"] = {**(made.get("status") or {}), **status}
    return made


EIGHT_PODS = {"required": {"gpus": 8, "gpusPerReplica": 8, "pods": 8}}


@pytest.mark.parametrize("written_before", [True, False])
def test_pods_that_a_forged_status_tells_of_are_not_believed(*, written_before: bool) -> None:
    async def test() -> None:
        api = OneObject(undecided_pods())
        subject = reconciler(api, Holding())
        subject.put(undecided_pods())
        if written_before:
            await subject.once()
        assert api.body is not None
        api.body = forged(api.body, observedGeneration=1, outcome="Sound", **EIGHT_PODS)
        subject.put(copy.deepcopy(api.body))
        await subject.once()
        assert (api.body["status"]["outcome"], api.body["status"]["required"]["pods"]) == ("Sound", 1)

    asyncio.run(test())


def test_another_replica_keeps_to_what_it_saw_first() -> None:
    async def test() -> None:
        api, lease = OneObject(undecided_pods()), Holding()
        leading, other = reconciler(api, lease), reconciler(api, lease)
        leading.put(undecided_pods())
        await leading.once()
        lease.held = False
        assert api.body is not None
        other.put(copy.deepcopy(api.body))
        api.body = forged(api.body, **EIGHT_PODS)
        other.put(copy.deepcopy(api.body))
        lease.held = True
        other.queue.put("u")
        await other.once()
        assert (api.body["status"]["outcome"], api.body["status"]["required"]["pods"]) == ("Sound", 1)

    asyncio.run(test())


def test_a_promise_does_not_end_by_a_forged_condition() -> None:
    async def test() -> None:
        api = OneObject(standing())
        subject = reconciler(api, Holding())
        subject.put(standing())
        await subject.once()
        assert api.body is not None
        expired = [{**each, "status": "False", "reason": "Expired"} for each in api.body["status"]["conditions"]]
        api.body = forged(api.body, conditions=expired)
        subject.put(copy.deepcopy(api.body))
        await subject.once()
        claimed = next(each for each in api.body["status"]["conditions"] if each["type"] == "Claimed")
        assert (claimed["status"], claimed["reason"]) == ("True", "Promised")

    asyncio.run(test())


@pytest.mark.parametrize("part", ["digest", "summary"])
def test_what_was_forged_while_nobody_led_does_not_stay(part: str) -> None:
    async def test() -> None:
        api = OneObject(standing())
        before = reconciler(api, Holding())
        before.put(standing())
        await before.once()
        assert api.body is not None
        honest = api.body["status"][part]
        api.body = forged(api.body, **{part: "forged"})
        leads_next = reconciler(api, Holding())
        leads_next.put(copy.deepcopy(api.body))
        await leads_next.once()
        assert api.body["status"][part] == honest
        written = len(api.writes)
        third = reconciler(api, Holding())
        third.put(copy.deepcopy(api.body))
        await third.once()
        assert len(api.writes) == written, "nothing to put right"

    asyncio.run(test())


def test_a_spec_that_changes_during_a_write_is_judged_and_not_lost() -> None:
    async def test() -> None:
        api, lease = OneObject(standing()), Holding()
        subject = reconciler(api, lease)

        def update() -> None:
            assert api.body is not None
            api.body = api.changed(copy.deepcopy(api.body))
            api.body["spec"]["strategy"]["tensor"] = 4
            api.body["spec"]["strategy"]["pipeline"] = 2
            api.body["metadata"]["generation"] = 2
            subject.put(copy.deepcopy(api.body))

        api.during = update
        subject.put(standing())
        for _ in range(3):
            await subject.once()
        assert api.body is not None
        assert api.body["status"]["observedGeneration"] == 2
        assert api.body["status"]["strategy"] == "TP4 x PP2 x DP1"

    asyncio.run(test())


def test_an_object_that_goes_during_a_write_is_gone() -> None:
    async def test() -> None:
        api, lease = OneObject(standing()), Holding()
        subject = reconciler(api, lease)
        api.during = lambda: subject.drop("u")
        subject.put(standing())
        await subject.once()
        assert subject.uids() == []
        assert api.writes == [("PATCH", "llama")], "no status for what is gone"

    asyncio.run(test())


def test_nothing_is_remembered_of_an_object_that_goes_during_the_last_write() -> None:
    async def test() -> None:
        body = standing()
        body["metadata"]["annotations"] = {"shardgate.io/verdict": "Sound", "shardgate.io/score": "95"}
        api, lease = OneObject(copy.deepcopy(body)), Holding()
        subject = reconciler(api, lease)
        api.during = lambda: subject.drop("u")
        subject.put(body)
        await subject.once()
        assert api.writes == [("PATCH", "status")]
        assert (subject.uids(), subject._examples, subject._mismatched) == ([], {}, {})

    asyncio.run(test())


def test_what_could_not_be_written_without_the_lease_is_written_with_it() -> None:
    async def test() -> None:
        api, lease = OneObject(standing()), Holding()
        subject = reconciler(api, lease)
        answers = iter([True, False])
        lease.is_held = lambda: next(answers, lease.held)  # type: ignore[method-assign]
        lease.held = False
        subject.put(standing())
        await subject.once()
        assert api.writes == []
        lease.held = True
        await subject.once()
        assert ("PATCH", "status") in api.writes

    asyncio.run(test())


def test_an_object_that_is_gone_on_the_server_is_forgotten() -> None:
    async def test() -> None:
        api, lease = OneObject(standing()), Holding()
        subject = reconciler(api, lease)
        subject.put(standing())
        api.body = None
        await subject.once()
        assert subject.uids() == []

    asyncio.run(test())


def test_a_declaration_that_cannot_be_read_says_so_in_its_status() -> None:
    async def test() -> None:
        body = standing()
        body["spec"]["model"]["config"] = {"num_hidden_layers": "80"}
        api, lease = OneObject(copy.deepcopy(body)), Holding()
        subject = reconciler(api, lease)
        subject.put(body)
        await subject.once()
        assert api.body is not None
        assert api.body["status"]["outcome"] == "Undecided"
        assert "num_hidden_layers" in api.body["status"]["summary"]

    asyncio.run(test())


def stripped(api: OneObject, subject: Judging) -> None:
    """Somebody takes our annotations away."""
    assert api.body is not None
    api.body = api.changed(copy.deepcopy(api.body))
    api.body["metadata"].pop("annotations", None)
    subject.put(copy.deepcopy(api.body))


def test_who_undoes_our_annotations_again_and_again_costs_three_writes_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        clock = [time.monotonic()]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        api, lease = OneObject(standing()), Holding()
        subject = reconciler(api, lease)
        subject.put(standing())
        await subject.once()
        counts = []
        for _ in range(3):
            del api.writes[:]
            for _ in range(60):
                stripped(api, subject)
                await subject.once()
                clock[0] += 1
            counts.append(len(api.writes))
        assert counts[0] == 3, "twice put back, once told"
        assert max(counts) <= 3
        assert api.body is not None
        assert "Conflict" in [each["type"] for each in api.body["status"]["conditions"]]
        del api.writes[:]
        for _ in range(200):  # it has ended
            clock[0] += 1
            await subject.once()
        assert api.body["metadata"]["annotations"] == {"shardgate.io/verdict": "Sound", "shardgate.io/score": "95"}
        assert "Conflict" not in [each["type"] for each in api.body["status"]["conditions"]]
        assert len(api.writes) <= 2

    asyncio.run(test())


def test_a_forged_status_is_written_again_and_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        clock = [time.monotonic()]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        api, lease = OneObject(standing()), Holding()
        subject = reconciler(api, lease)
        subject.put(standing())
        await subject.once()
        assert api.body is not None
        honest = copy.deepcopy(api.body["status"])

        def forge() -> None:
            assert api.body is not None
            api.body = api.changed(copy.deepcopy(api.body))
            api.body["status"]["summary"] = "all is well, believe me"
            subject.put(copy.deepcopy(api.body))

        forge()
        await subject.once()
        assert api.body["status"] == honest
        del api.writes[:]
        for _ in range(60):
            forge()
            await subject.once()
            clock[0] += 1
        assert len(api.writes) <= 3

    asyncio.run(test())


def test_a_verdict_that_changes_is_written_whoever_undoes_what(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        clock = [time.monotonic()]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        api, lease = OneObject(standing()), Holding()
        subject = reconciler(api, lease)
        subject.put(standing())
        await subject.once()
        for _ in range(5):
            stripped(api, subject)
            await subject.once()
        subject._judge.book.drop_node("node-a", clock[0])
        subject.put(copy.deepcopy(api.body or {}))
        await subject.once()
        assert api.body is not None
        assert api.body["status"]["outcome"] == "Waiting"
        assert api.body["metadata"]["annotations"]["shardgate.io/verdict"] == "Waiting"

    asyncio.run(test())


def test_a_declaration_that_is_deleted_and_held_back_is_promised_nothing() -> None:
    async def test() -> None:
        api, lease = OneObject(standing()), Holding()
        leader, other = reconciler(api, lease), reconciler(api, Holding())
        other._lease.held = other.rejudging._lease.held = False  # type: ignore[attr-defined]
        claims = [each._judge.book.claims for each in (leader, other)]

        async def once() -> list[int]:
            for each in (leader, other):
                each.put(copy.deepcopy(api.body or {}))
                await each.once()
            return [len(each) for each in claims]

        await once()
        assert await once() == [1, 1]
        assert api.body is not None
        api.body["metadata"] |= {"deletionTimestamp": "2026-11-26T12:00:00Z", "finalizers": ["example.com/hold"]}
        del api.writes[:]
        assert await once() == [0, 0]
        assert api.writes == []

    asyncio.run(test())
