"""Every form that a verdict takes: JSON, messages, status."""

import json
from typing import Any

import pytest

from builders import T4, NodeBuilder, a_body, a_declaration, a_node, an_inventory
from shardgate.adapters.disclosure import told
from shardgate.adapters.messages import rejection, warning
from shardgate.adapters.report import report
from shardgate.adapters.status import annotations, is_mismatch, is_worth_writing, status_of, summary
from shardgate.domain.enforce import enforce
from shardgate.domain.policy import OWN_KIND, Disclosure, Policy
from shardgate.domain.verdict import Verdict
from shardgate.domain.verify import verify

KEYS = {
    "apiVersion", "kind", "ref", "subject", "outcome", "aspects", "status", "recommendation", "score", "declared", "hardware",
    "memory", "placement", "performance", "balance", "communication", "graph", "risks", "alternatives", "scoreTerms",
    "findings", "assumptions",
}  # fmt: skip


def judged(node: NodeBuilder, **changes: Any) -> Verdict:
    return verify(a_declaration(**changes), an_inventory(node), OWN_KIND)


def document(node: NodeBuilder, **changes: Any) -> dict[str, Any]:
    return report(a_declaration(**changes), judged(node, **changes), reference="3f9c")


@pytest.mark.parametrize("node", [a_node(), a_node(gpus=1, labels=T4), a_node().without_gpu_labels()])
@pytest.mark.parametrize("changes", [{}, {"model": {"name": "acme/unknown"}}, {"engine": None}])
def test_every_key_is_always_there(node: NodeBuilder, changes: dict[str, Any]) -> None:
    shown = document(node, **changes)
    assert set(shown) == KEYS
    assert set(shown["memory"]) == set(document(a_node())["memory"])
    assert set(shown["placement"]) == {"feasible", "feasibleWhenIdle", "replicasThatFit", "remark", "pods", "excluded"}
    assert json.loads(json.dumps(shown)) == shown


def test_the_compatible_report() -> None:
    shown = document(a_node())
    assert (shown["status"], shown["recommendation"], shown["score"]) == ("PASSED", "PROCEED_WITH_CONFIDENCE", 95)
    assert [(stage["firstLayer"], stage["lastLayer"]) for stage in shown["memory"]["perStage"]] == [
        (0, 19), (20, 39), (40, 59), (60, 79),
    ]  # fmt: skip
    ranks = [[node["rank"] for node in shown["graph"]["nodes"] if node["stage"] == stage] for stage in range(4)]
    assert ranks == [[0, 1], [2, 3], [4, 5], [6, 7]]
    (pod,) = shown["placement"]["pods"]
    assert pod == {
        "group": "server", "replica": 0, "pod": 0, "node": "node-a", "gpus": 8,
        "localGpus": list(range(8)), "ranks": list(range(8)),
    }  # fmt: skip
    assert shown["hardware"]["products"] == [{"product": "H100-80GB-HBM3", "gpus": 8, "memoryBytes": 81559 << 20, "nodes": 1}]


def test_what_is_not_known_is_null_never_zero() -> None:
    shown = document(a_node().without_gpu_labels(), model={"name": "acme/unknown"})
    assert shown["memory"]["weightsBytes"] is None
    assert shown["hardware"]["memoryInstalledBytes"] is None
    assert shown["performance"]["requestsPerSecond"] is None


def test_a_deficit_is_shown() -> None:
    memory = document(a_node(gpus=1, labels=T4))["memory"]
    assert memory["outcome"] == "doesNotFit"
    assert 4 < memory["deficitBytes"] / 2**30 < 6


def test_a_rejection_shows_every_problem_with_both_numbers() -> None:
    declaration, verdict = a_declaration(), judged(a_node(gpus=1, labels=T4))
    text = rejection(declaration.subject, verdict, enforce(declaration, verdict, OWN_KIND, None), "3f9c")
    first, *lines = text.splitlines()
    assert first == "InferenceDeployment serving/llama cannot run here (score 0/100), 3 problems (ref 3f9c):"
    assert lines[0] == "  GpuCountTooLow       spec.strategy: TP2 x PP4 x DP1 needs 8 GPUs, the cluster has 1 (Tesla-T4)"
    assert sum(line.startswith("                       -> ") for line in lines) == 3


def test_a_warning_is_one_line_of_at_most_120_characters_and_says_where_to_look() -> None:
    declaration, verdict = a_declaration(), judged(a_node().allocatable(7))
    text = warning(verdict.findings[0], declaration.subject, "3f9c")
    assert len(text) <= 120
    assert "\n" not in text
    assert text.startswith("NodesUnavailable: TP2 x PP4 x DP1 needs 8 GPUs")
    assert text.endswith("kubectl describe infd -n serving llama")


def body_with(status: dict[str, Any] | None) -> dict[str, Any]:
    body = a_body()
    body["metadata"] |= {"generation": 1, "uid": "u", "resourceVersion": "1"}
    return body | ({"status": status} if status else {})


def status(
    node: NodeBuilder, before: dict[str, Any] | None = None, policy: Policy = OWN_KIND, now: str = "2026-01-01T00:00:00Z"
) -> dict[str, Any]:
    return status_of(body_with(before), a_declaration(), judged(node), policy, ("True", "Held", "its pods hold all"), now)


def test_the_status_of_a_sound_declaration() -> None:
    shown = status(a_node())
    assert shown["outcome"] == "Sound"
    assert shown["required"] == {"gpus": 8, "gpusPerReplica": 8, "pods": 1}
    assert shown["available"] == {"gpus": 8, "free": 8, "replicasThatFit": 1}
    assert shown["summary"] == "TP2 x PP4 x DP1 on 8 x H100-80GB-HBM3, 16.9 GiB of 71.3 GiB per rank for weights"
    assert [(each["type"], each["status"]) for each in shown["conditions"]] == [
        ("Ready", "True"), ("Feasible", "True"), ("Claimed", "True"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("disclosure", "node"), [(Disclosure.NODES, "node-a"), (Disclosure.POOLS, "H100-80GB-HBM3"), (Disclosure.NONE, "")]
)
def test_what_a_tenant_may_see_of_nodes(disclosure: Disclosure, node: str) -> None:
    shown = status(a_node(), policy=Policy(disclosure=disclosure))
    assert shown["placement"][0]["node"] == node
    assert ("H100" in shown["summary"]) is (disclosure is not Disclosure.NONE)


def test_nothing_new_is_not_written() -> None:
    before = status(a_node())
    assert is_worth_writing(None, before)
    assert not is_worth_writing(before, status(a_node(), before))
    assert is_worth_writing(before, status(a_node().allocatable(7), before))


def test_free_gpus_that_move_without_changing_the_verdict_are_not_written() -> None:
    before = status(a_node(gpus=16))
    moved = before | {"available": before["available"] | {"free": 9}}
    assert not is_worth_writing(before, moved)


def test_a_mismatch_is_told_from_the_conditions_alone() -> None:
    sound = status(a_node())
    worse = status(a_node().allocatable(7), sound, now="2026-01-01T01:00:00Z")
    born_waiting = status(a_node().allocatable(7))
    assert not is_mismatch(sound)
    assert is_mismatch(worse)
    assert not is_mismatch(born_waiting)


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    sound = status(a_node())
    again = status(a_node(), sound, now="2027-01-01T00:00:00Z")
    assert [each["lastTransitionTime"] for each in again["conditions"]] == ["2026-01-01T00:00:00Z"] * 3


def test_annotations_hold_nothing_that_moves_with_the_cluster_alone() -> None:
    assert annotations(judged(a_node())) == {
        "shardgate.io/verdict": "Sound", "shardgate.io/score": "95", "shardgate.io/findings": None,
    }  # fmt: skip
    assert annotations(judged(a_node(gpus=1, labels=T4))) == {
        "shardgate.io/verdict": "Unsound",
        "shardgate.io/score": "0",
        "shardgate.io/findings": "GpuCountTooLow,WeightsDoNotFit,ModelExceedsCluster",
    }


def test_a_summary_says_the_worst_once() -> None:
    text = summary(a_declaration(), judged(a_node().allocatable(7)))
    assert text.count("TP2 x PP4 x DP1") == 1


def test_a_policy_that_discloses_nothing_has_products_taken_out_of_messages() -> None:
    inventory = an_inventory(a_node(gpus=1, labels=T4))
    verdict = verify(a_declaration(), inventory, OWN_KIND)
    assert told(verdict, inventory, Policy(disclosure=Disclosure.POOLS)) is verdict
    messages = [each.message for each in told(verdict, inventory, Policy(disclosure=Disclosure.NONE)).findings]
    assert messages[0] == "TP2 x PP4 x DP1 needs 8 GPUs, the cluster has 1 (GPU)"
    assert not any("T4" in message for message in messages)
