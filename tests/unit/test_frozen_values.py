"""What was judged, written down and read again: it is judged alike."""

import json
from dataclasses import replace
from typing import Any

import pytest

from builders import a_declaration, a_node, a_pod, a_vllm_deployment, an_inventory
from case_files import Case, cases
from shardgate.adapters.frozen_values import UnknownForm, packed, unpacked
from shardgate.adapters.referred_workloads import read_declaration
from shardgate.adapters.workload_declarations import declare
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.registry import read_workload
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND
from shardgate.domain.used_facts import used_facts
from shardgate.domain.verify import verify
from shardgate.shells.documents import Document
from shardgate.shells.snapshot import Snapshot


def through_json(value: Any) -> Any:
    return unpacked(json.loads(json.dumps(packed(value))))


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_every_case_is_judged_alike_by_the_facts_that_it_used(case: Case) -> None:
    snapshot = Snapshot()
    snapshot.add(Document(case.name, body) for body in case.cluster)

    declaration = read_declaration(case.workload, snapshot.book.rules.known_profiles)
    kind = f"{declaration.subject.kind}.shardgate.io"
    policy = snapshot.book.rules.policy_for(declaration.subject.namespace, kind, OWN_KIND)
    inventory = snapshot.inventory()
    before = verify(declaration, inventory, policy)
    then = through_json((declaration, used_facts(inventory, [declaration]), policy))
    assert then[0] == declaration
    assert then[2] == policy
    assert verify(*then) == before
    assert before.outcome.label == case.outcome


def test_groups_of_other_kinds_are_written_down_too() -> None:
    workload = read_workload(a_vllm_deployment(gpus=4), Library())
    assert workload is not None
    groups = declare(workload)
    assert through_json(groups) == groups
    assert through_json(FOREIGN_KIND) == FOREIGN_KIND


def test_what_is_shared_stays_shared() -> None:
    inventory = an_inventory(*(a_node(f"n{number}") for number in range(3)))
    (group,) = through_json(inventory).groups
    assert len({id(node.shape) for node in group.nodes}) == 1
    assert len(packed(inventory)["values"]) < len(packed((inventory, inventory.groups[0].nodes[0]))["values"]) + 5


def test_what_is_no_value_of_ours_is_neither_written_nor_made() -> None:
    with pytest.raises(TypeError, match="Thread"):
        packed((__import__("threading").Thread(),))
    for document in (
        None, {}, {"values": [{"class": "Popen", "fields": {"args": "id"}}], "root": [0]}, {"values": [], "root": [3]},
        {"values": [{"class": "Subject", "fields": {"colour": "red"}}], "root": [0]},
        {"values": [{"enum": "Mode", "value": 7}], "root": [0]},
    ):  # fmt: skip
        with pytest.raises(UnknownForm):
            unpacked(document)


def test_facts_that_are_left_out_are_others() -> None:
    declaration = a_declaration()
    inventory = an_inventory(
        a_node(), a_node("b"), a_pod("mine", node="node-a", gpus=2, declaration="llama"),
        a_pod("theirs", node="b", gpus=2, declaration="other"),
    )  # fmt: skip
    used = used_facts(inventory, [declaration])
    assert [owner.name for owner in used.held] == ["llama"]
    assert all(node.pods == () for node in used.nodes)
    assert verify(declaration, used, OWN_KIND) == verify(declaration, inventory, OWN_KIND)
    other = replace(declaration, subject=replace(declaration.subject, name="other"))
    assert [owner.name for owner in used_facts(inventory, [other]).held] == ["other"]
