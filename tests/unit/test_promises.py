"""GPUs promised to declarations whose pods have not come: given once, oldest first, shrunk as pods come, ended in time."""

from typing import Any

import pytest

from builders import a_body, a_book, a_node, a_pod, a_vllm_deployment, standing
from shardgate.adapters.claimed import Claim, ClaimedPod, ledger_key
from shardgate.adapters.pods import DECLARATION_LABEL, pod_from, read_pod
from shardgate.shells import promises as module
from shardgate.shells.judge import Judge
from shardgate.shells.promises import Claimed, Promises, Reason

Json = dict[str, Any]


class Scene:
    """A cluster, and declarations that are judged in it one after the other."""

    def __init__(self, *objects: Any) -> None:
        self.judge = Judge(a_book(*objects), lambda: (0.0, 0.0))
        self.book = self.judge.book
        self.promises = Promises(self.book)

    def give(self, name: str, generation: int = 1, **spec: Any) -> Claimed:
        return self.promises.give(name, generation, self.judge.judge(standing(a_body(name, **spec), name)))

    def outcome(self, name: str, **spec: Any) -> tuple[str, tuple[str, ...]]:
        verdict = self.judge.judge(a_body(name, **spec)).verdict
        return verdict.outcome.label, verdict.codes

    def comes(self, name: str, node: str, gpus: int = 8, declaration: str = "llama") -> None:
        record = read_pod(pod_from(a_pod(name, node=node, gpus=gpus, declaration=declaration)))
        assert record is not None
        self.book.put_pod(record)

    def free(self) -> int:
        inventory = self.book.inventory(0.0)
        return sum(group.like.free("nvidia.com/gpu") * group.count for group in inventory.groups)


def test_the_first_is_promised_and_the_second_waits() -> None:
    scene = Scene(a_node())
    assert scene.give("llama").reason is Reason.PROMISED
    assert scene.free() == 0
    assert scene.outcome("llama") == ("Sound", ()), "its own promise is its own"
    assert scene.outcome("other") == ("Waiting", ("GpusBusy",))
    assert "8 promised to others whose pods have not come" in scene.judge.judge(a_body("other")).verdict.findings[0].message
    assert scene.give("other").reason is Reason.NOT_PROMISED
    scene.promises.forget("llama")
    assert scene.give("other").reason is Reason.PROMISED


def test_a_promise_shrinks_as_its_pods_come_and_nothing_counts_twice() -> None:
    scene = Scene(a_node(), a_node("node-b"), a_node("node-c"))
    assert scene.give("llama", replicas=2).message.startswith("16 GPUs promised")
    assert scene.free() == 8
    scene.comes("p1", "node-c")
    assert scene.free() == 8, "it came elsewhere than was planned, and stands for any"
    assert scene.give("llama", replicas=2).message.startswith("8 GPUs promised")
    scene.comes("p2", "node-b")
    assert scene.free() == 8
    assert scene.give("llama", replicas=2) == Claimed(reason=Reason.HELD, message="its pods have come for all 16 GPUs")
    assert len(scene.book.claims) == 0


def test_it_ends_in_time_and_a_new_spec_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    scene = Scene(a_node())
    assert scene.give("llama").seconds_left == 900
    clock[0] += 500
    assert scene.give("llama").seconds_left == 400
    clock[0] += 401
    assert scene.give("llama").reason is Reason.EXPIRED
    assert scene.free() == 8
    assert scene.give("llama").reason is Reason.EXPIRED
    assert scene.give("llama", generation=2).reason is Reason.PROMISED


def test_what_cannot_start_is_promised_nothing() -> None:
    scene = Scene(a_node())
    assert scene.give("llama", strategy={"tensor": 3}, gpus={"perPod": 4}).reason is Reason.NOT_PROMISED
    assert scene.give("llama", replicas=2).reason is Reason.NOT_PROMISED
    assert scene.give("llama", replicas=0).reason is Reason.NOTHING_NEEDED
    assert scene.free() == 8


def test_a_promise_follows_its_node() -> None:
    scene = Scene(a_node("node-a"), a_node("node-b"))
    scene.give("llama")
    (pod,) = scene.book.own_pods(scene.judge.declare(a_body("llama")).subject.owner)
    scene.book.drop_node(pod.node, 0.0)
    for _ in range(2):
        assert scene.give("llama").reason is Reason.PROMISED
    (moved,) = scene.book.own_pods(scene.judge.declare(a_body("llama")).subject.owner)
    assert moved.node != pod.node


def test_a_list_of_pods_ends_no_promise() -> None:
    scene = Scene(a_node())
    scene.give("llama")
    scene.book.retain_pods(set())
    assert scene.free() == 0


def test_what_others_took_is_lost_by_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    scene = Scene(a_node(gpus=16), a_node("node-b", gpus=4))
    for name in ("old", "new"):
        assert scene.give(name).reason is Reason.PROMISED
        clock[0] += 1
    scene.promises.relieve(scene.book.inventory(0.0))
    assert len(scene.book.claims) == 2
    scene.comes("stranger", "node-a", gpus=1, declaration="stranger")
    scene.promises.relieve(scene.book.inventory(0.0))
    assert (scene.promises.has("old"), scene.promises.has("new")) == (True, False)
    assert scene.give("old").reason is Reason.PROMISED
    assert scene.give("new").reason is Reason.NOT_PROMISED


def test_a_promise_is_nothing_that_could_be_evicted() -> None:
    scene = Scene(a_node())
    scene.give("llama")
    scene.book.put_priority_class("high", 1000, is_default=True)
    assert scene.outcome("other") == ("Waiting", ("GpusBusy",))


def test_what_was_promised_at_admission_counts_until_a_promise_of_as_much_stands_for_it() -> None:
    scene = Scene(a_node(), a_node("node-b"))
    owner = scene.judge.declare(a_body("llama")).subject.owner
    pods = tuple(ClaimedPod(node=node, requests={"nvidia.com/gpu": 8}) for node in ("node-a", "node-b"))
    scene.give("llama", generation=1)
    scene.book.claims.put(Claim(uid=ledger_key("llama"), generation=2, owners=(owner,), pods=pods))
    scene.give("llama", generation=1)
    assert scene.free() <= 0, "its update was let in, and needs sixteen"
    assert scene.give("llama", generation=2, replicas=2).reason is Reason.PROMISED
    assert scene.book.claims.get(ledger_key("llama")) is None


def test_a_promise_waits_for_the_workload_that_is_labelled_with_it() -> None:
    scene = Scene(a_node())
    scene.give("llama")
    body = a_vllm_deployment("labelled")
    body["spec"]["template"]["metadata"]["labels"][DECLARATION_LABEL] = "llama"
    found, other = scene.judge.judge_workload(body), scene.judge.judge_workload(a_vllm_deployment("other"))
    assert found is not None
    assert other is not None
    assert (found.workload.verdict.codes, other.workload.verdict.codes) == ((), ("GpusBusy",))


def test_what_ran_out_under_another_leader_is_not_promised_again() -> None:
    scene = Scene(a_node())
    judgement = scene.judge.judge(a_body("llama"))
    assert scene.promises.give("u", 1, judgement, ran_out=True).reason is Reason.EXPIRED
    assert scene.promises.give("u", 2, judgement).reason is Reason.PROMISED


def test_a_pod_that_waits_is_counted_once() -> None:
    scene = Scene(a_node(), a_node("node-b"))
    scene.give("llama")
    assert scene.outcome("other") == ("Sound", ())
    scene.comes("p", "", 8)
    assert scene.outcome("other") == ("Sound", ()), "it waits for one node, and there are two"
    assert scene.outcome("other", replicas=2)[0] == "Waiting"
    assert scene.give("llama").reason is Reason.HELD
    assert scene.outcome("other") == ("Sound", ())


def test_a_label_gives_nobody_the_pods_of_another_one() -> None:
    """What is promised to an InferenceDeployment is for the workload that names it; what is there already is whose it is."""
    scene = Scene(a_node())
    scene.comes("p", "node-a", declaration="llama")
    other = a_vllm_deployment("other")
    other["spec"]["template"]["metadata"]["labels"][DECLARATION_LABEL] = "llama"
    found = scene.judge.judge_workload(standing(other, "other"))
    assert found is not None
    assert (found.workload.verdict.outcome.label, found.workload.verdict.codes) == ("Waiting", ("GpusBusy",))
    assert found.own_pods == ()
