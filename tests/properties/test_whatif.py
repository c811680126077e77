"""Laws of ``shardgate whatif``."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from builders import a_body, a_node, a_pod, standing
from shardgate.adapters.change_words import changes_in
from shardgate.domain.verdict import Outcome
from shardgate.shells.documents import Document
from shardgate.shells.whatif import WhatIf, what_if

Json = dict[str, Any]
NAMES = ("a", "b", "c")
MODEL = {"name": "meta-llama/Llama-3.1-8B-Instruct"}
"""Fits each GPU of the nodes below, whatever the strategy: what is left to decide is room."""


@st.composite
def clusters(draw: st.DrawFn) -> list[Json]:
    """Up to four nodes, declarations with and without their pods, and pods of nobody."""
    sizes = draw(st.lists(st.sampled_from([2, 4, 8]), min_size=1, max_size=4))
    left = dict(enumerate(sizes))
    objects = [a_node(f"n{number}", gpus=size).body for number, size in left.items()]

    def bind(name: str, gpus: int, declaration: str, *, is_controlled: bool) -> None:
        there = [number for number, room in left.items() if room >= gpus]
        if there and draw(st.booleans()):
            number = draw(st.sampled_from(there))
            left[number] -= gpus
            pod = a_pod(name, node=f"n{number}", gpus=gpus, declaration=declaration, ready=True)
            if is_controlled:
                owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": f"u-{name}", "controller": True}
                pod["metadata"]["ownerReferences"] = [owner]
            objects.append(pod)

    for name in NAMES:
        gpus = draw(st.sampled_from([1, 2, 4]))
        body = a_body(name, model=MODEL, strategy={"tensor": gpus}, gpus={"perPod": gpus}, replicas=draw(st.integers(1, 2)))
        body["spec"]["engine"] |= {"maxModelLen": 4096}
        objects.append(standing(body, f"uid-{name}"))
        for number in range(body["spec"]["replicas"]):
            bind(f"{name}-{number}", gpus, name, is_controlled=True)
    bind("other", 2, "", is_controlled=draw(st.booleans()))
    return objects


def asked(objects: list[Json], words: str) -> WhatIf:
    found = what_if(changes_in(words.split()), [Document("here", each) for each in objects], lambda items, _: items)
    assert not found.unreadable
    return found


def alone(objects: list[Json]) -> list[Json]:
    """The cluster with one declaration."""
    return [each for each in objects if each["kind"] != "InferenceDeployment" or each["metadata"]["name"] == NAMES[0]]


@settings(max_examples=60, deadline=None)
@given(clusters(), st.sampled_from([1, 2]))
def test_a_node_that_is_added_makes_nothing_worse(objects: list[Json], nodes: int) -> None:
    """Whatever the cluster is like, for one that stands alone: of several, one that fits now takes its place before the next.

    That a better node is there may be told of one that runs (TensorAcrossNodes).
    """
    changes = asked(alone(objects), f"add {nodes}xH100-80GB-HBM3:8").changes
    assert all(each.after.outcome <= max(each.before.outcome, Outcome.RISKY) for each in changes)


@settings(max_examples=60, deadline=None)
@given(clusters(), st.sampled_from(["cordon", "drain", "remove"]))
def test_a_node_that_is_taken_makes_nothing_better(objects: list[Json], verb: str) -> None:
    """For one that stands alone: among several, one that finds no place any more leaves its own to the next.

    Unknown is no order: no node at all is Undecided.
    """
    changes = asked(alone(objects), f"{verb} n0").changes
    assert all(
        max(each.after.outcome, Outcome.RISKY) >= each.before.outcome or each.after.outcome is Outcome.UNDECIDED for each in changes
    )


@settings(max_examples=30, deadline=None)
@given(clusters())
def test_what_is_undone_changes_nothing(objects: list[Json]) -> None:
    """A cordon that is lifted, a label that is taken away again."""
    assert asked(objects, "cordon * uncordon * label * x=1 label * x- taint * y:NoSchedule taint * y-").changes == ()


@settings(max_examples=30, deadline=None)
@given(clusters())
def test_draining_and_removing_is_removing(objects: list[Json]) -> None:
    """The same pods lose their node either way, the same verdicts follow."""
    at_once, in_two = asked(objects, "remove n0"), asked(objects, "drain n0 remove n0")
    assert [(each.subject, each.after.outcome) for each in at_once.changes] == [
        (each.subject, each.after.outcome) for each in in_two.changes
    ]
