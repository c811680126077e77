"""Pods that wait before these, and pods that would make way for them."""

from typing import Any

import pytest

from builders import GPU, NodeBuilder, a_book, a_declaration, a_node, a_pod
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.verdict import Outcome, Verdict
from shardgate.domain.verify import verify

Json = dict[str, Any]


def waiting(name: str, gpus: int, *, priority: int = 0, **spec: Any) -> Json:
    body = a_pod(name, gpus=gpus, namespace="other")
    body["status"] = {"phase": "Pending"}
    body["spec"] |= {"priority": priority, **spec}
    return body


def holding(name: str, node: str, gpus: int, priority: int) -> Json:
    body = a_pod(name, node=node, gpus=gpus, namespace="other")
    body["spec"]["priority"] = priority
    return body


def judged(*objects: NodeBuilder | Json, priority_class: str = "", **changes: Any) -> Verdict:
    book = a_book(*objects)
    book.put_priority_class("high", 1000, is_default=False)
    placement = {**changes.pop("placement", {}), "priorityClassName": priority_class}
    declared = a_declaration(
        model={"name": "acme/x"}, engine={"name": "other"}, strategy={"tensor": 4, "pipeline": 1}, gpus={"perPod": 4},
        placement=placement, **changes,
    )  # fmt: skip
    return verify(declared, book.inventory(0.0), OWN_KIND)


def capacity(verdict: Verdict) -> dict[str, Outcome]:
    return {each.code: each.outcome for each in verdict.findings if each.code in ("GpusBusy", "WouldPreempt", "GpuCountTooLow")}


@pytest.mark.parametrize(
    ("pending", "busy"),
    [
        ([waiting("p", 8)], True),
        ([waiting("p", 4)], False),  # both fit
        ([waiting("p", 4), waiting("q", 4)], True),
        ([waiting("p", 8, priority=-1)], False),  # behind us
        ([waiting("p", 16)], False),  # fits nowhere: it waits on
        ([waiting("p", 8, nodeSelector={"pool": "x"})], False),  # may not go there
        ([waiting("p", 8, nodeSelector={"kubernetes.io/hostname": "node-a"})], True),
        ([waiting("p", 8, schedulingGates=[{"name": "wait"}])], False),  # not queued
        ([waiting("p", 8, schedulerName="volcano")], False),
        ([waiting("p", 0)], False),
    ],
)
def test_pods_that_wait_before(pending: list[Json], busy: bool) -> None:  # a parameter of the table
    verdict = judged(a_node(), *pending)
    assert capacity(verdict) == ({"GpusBusy": Outcome.WAITING} if busy else {})
    assert verdict.placement is not None
    assert verdict.placement.feasible  # what the scheduler would bind, were these pods alone in the queue


def test_others_go_where_they_hinder_least() -> None:
    """The pod of 2 GPUs goes beside the one that runs, so that the whole node stays whole."""
    nodes = (a_node("whole", gpus=4), a_node("part", gpus=4))
    assert capacity(judged(*nodes, holding("h", "part", 2, 0), waiting("p", 2))) == {}
    assert capacity(judged(*nodes, holding("h", "part", 3, 0), waiting("p", 2))) == {"GpusBusy": Outcome.WAITING}


def test_a_higher_priority_goes_first() -> None:
    assert capacity(judged(a_node(), waiting("p", 8, priority=500))) == {"GpusBusy": Outcome.WAITING}
    assert capacity(judged(a_node(), waiting("p", 8, priority=500), priority_class="high")) == {}


def test_own_pods_are_no_others() -> None:
    own = a_pod("own", gpus=4, declaration="llama")
    own["status"] = {"phase": "Pending"}
    assert capacity(judged(a_node(gpus=4), own)) == {}


def test_what_would_make_way_is_obtainable() -> None:
    held = (a_node(), holding("a", "node-a", 4, 0), holding("b", "node-a", 4, 0))
    assert capacity(judged(*held)) == {"GpusBusy": Outcome.WAITING}
    verdict = judged(*held, priority_class="high")
    assert capacity(verdict) == {"WouldPreempt": Outcome.RISKY}
    assert verdict.placement is not None
    assert not verdict.placement.feasible
    peers = (a_node(), holding("a", "node-a", 4, 1000), holding("b", "node-a", 4, 1000))
    assert capacity(judged(*peers, priority_class="high")) == {"GpusBusy": Outcome.WAITING}


def test_the_default_priority_class_counts_for_pods_without_one() -> None:
    book = a_book(a_node(), holding("a", "node-a", 8, 0))
    book.put_priority_class("usual", 10, is_default=True)
    assert book.inventory(0.0).priorities[""] == 10
    book.drop_priority_class("usual")
    assert book.inventory(0.0).priorities[""] == 0


def test_a_pod_that_was_bound_waits_no_longer() -> None:
    book = a_book(a_node(), waiting("p", 8))
    assert [each.count for each in book.inventory(0.0).pending] == [1]
    for body in (holding("p", "node-a", 8, 0),):
        body["metadata"]["uid"] = "uid-other-p"
        for each in a_book(body)._pods.values():  # the same pod, bound
            book.put_pod(each)
    assert book.inventory(0.0).pending == ()
    assert book.inventory(0.0).nodes[0].free(GPU) == 0


@pytest.mark.parametrize(
    ("replicas", "pods", "held", "scheduler", "risky"),
    [
        (2, 2, 4, "default-scheduler", True),  # three of four pods fit: each replica may hold one or two
        (2, 2, 0, "default-scheduler", False),  # all fit
        (1, 4, 4, "default-scheduler", False),  # one group waits for its own pods alone
        (4, 1, 4, "default-scheduler", False),  # groups of one pod
        (2, 2, 12, "default-scheduler", False),  # one pod fits: one group at most is half placed
        (2, 2, 4, "volcano", False),
    ],
)
def test_half_placed_groups(replicas: int, pods: int, held: int, scheduler: str, risky: bool) -> None:
    objects = [a_node("a"), a_node("b"), *(holding(f"h{index}", "ab"[index % 2], 4, 0) for index in range(held // 4))]
    book = a_book(*objects)
    declared = a_declaration(
        model={"name": "acme/x"}, engine={"name": "other"}, strategy={"tensor": 4, "pipeline": pods}, gpus={"perPod": 4},
        replicas=replicas, placement={"schedulerName": scheduler},
    )  # fmt: skip
    codes = verify(declared, book.inventory(0.0), OWN_KIND).codes
    assert ("GroupsMayDeadlock" in codes) is risky


def test_a_class_that_never_preempts_waits() -> None:
    book = a_book(a_node(), a_pod("low", node="node-a", gpus=8))
    book.put_priority_class("patient", 1000, is_default=False, preempts=False)
    book.put_priority_class("eager", 1000, is_default=False)
    placement = {"priorityClassName": "patient"}
    assert verify(a_declaration(placement=placement), book.inventory(0.0), OWN_KIND).codes == ("GpusBusy",)
    placement = {"priorityClassName": "eager"}
    assert verify(a_declaration(placement=placement), book.inventory(0.0), OWN_KIND).codes == ("WouldPreempt",)


def test_own_pods_are_not_counted_twice_when_they_make_way() -> None:
    high = a_pod("high", node="node-a", gpus=4)
    high["spec"]["priority"] = 2000
    book = a_book(a_node(), high, a_pod("own", node="node-a", gpus=4, declaration="llama"))
    book.put_priority_class("raised", 1000, is_default=False)
    verdict = verify(a_declaration(placement={"priorityClassName": "raised"}), book.inventory(0.0), OWN_KIND)
    assert verdict.codes == ("GpusBusy",)


def test_a_pod_that_waits_for_other_things_than_gpus_hinders_too() -> None:
    greedy = a_pod("greedy", gpus=1)
    greedy["spec"]["containers"][0]["resources"]["requests"]["memory"] = "1000Gi"
    small = {
        "strategy": {"tensor": 1, "pipeline": 1},
        "gpus": {"perPod": 1},
        "model": {"name": "acme/x"},
        "engine": {"name": "other"},
    }
    declared = a_declaration(**small, placement={"requests": {"memory": "100Gi"}})
    assert "GpusBusy" in verify(declared, a_book(a_node(), greedy).inventory(0.0), OWN_KIND).codes


def test_what_terminating_pods_hold_is_said_to_come_free() -> None:
    going = a_pod("going", node="node-a", gpus=3)
    going["metadata"]["deletionTimestamp"] = "2026-11-26T00:00:00Z"
    (found,) = verify(a_declaration(), a_book(a_node(), going).inventory(0.0), OWN_KIND).findings
    assert "5 of 8 are free, 3 held by pods that are terminating" in found.message
