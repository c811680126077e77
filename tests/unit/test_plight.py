"""How standing declarations fare, and the series that say so."""

from dataclasses import replace

import pytest

from builders import T4, Json, NodeBuilder, a_book, a_declaration, a_node, a_pod, an_inventory
from shardgate.domain.inventory import Inventory
from shardgate.domain.plight import Plight, plight
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.verdict import Finding, Outcome, Verdict
from shardgate.domain.verify import verify
from shardgate.shells.metrics import POD_SIZES, Metrics

OWN, OTHER = a_pod("mine", node="node-a", gpus=8, declaration="llama", ready=True), a_pod("other", node="node-a", gpus=8)


def fares(*objects: NodeBuilder | Json, ran: bool = True, **changes: object) -> tuple[Verdict, Plight]:
    declaration, inventory = a_declaration(**changes), an_inventory(*objects)
    verdict = verify(declaration, inventory, OWN_KIND)
    return verdict, plight(verdict, inventory, declaration.owners, ran=ran)


def unready(pod: Json, node: str = "node-a") -> Json:
    spec = {**pod["spec"], "nodeName": node}
    return {**pod, "spec": spec if node else {**pod["spec"], "nodeName": ""}, "status": {**pod["status"], "conditions": []}}


@pytest.mark.parametrize(
    ("objects", "outcome", "is_down"),
    [
        ([a_node(), OTHER], Outcome.WAITING, True),
        ([a_node(), OWN], Outcome.SOUND, False),
        ([a_node().allocatable(7), unready(OWN, "")], Outcome.WAITING, True),
        ([a_node().allocatable(7), OWN], Outcome.WAITING, False),
        ([a_node(gpus=4)], Outcome.UNSOUND, True),
        ([a_node().label("nvidia.com/mig.config.state", "rebooting")], Outcome.WAITING, False),
        ([a_node("node-b").label("nvidia.com/mig.config.state", "rebooting"), a_node(), OTHER], Outcome.WAITING, False),
    ],
)
def test_down_is_what_does_not_come_back_by_itself(objects: list[NodeBuilder | Json], outcome: Outcome, is_down: bool) -> None:
    verdict, found = fares(*objects)
    assert (verdict.outcome, found.is_down) == (outcome, is_down)


def test_a_node_that_it_could_not_use_keeps_nobody_asleep() -> None:
    moving = a_node("node-b", labels=T4).label("nvidia.com/mig.config.state", "rebooting")
    assert fares(moving, a_node(), OTHER, gpus={"perPod": 8, "products": ["H100*"]})[1].is_down


def test_what_never_ran_waits_in_a_queue() -> None:
    verdict, found = fares(a_node(), OTHER, ran=False)
    assert (verdict.outcome, found.is_down) == (Outcome.WAITING, False)


def test_what_has_run_is_remembered_when_its_pods_are_gone() -> None:
    book, owners = a_book(a_node(), OWN), a_declaration().owners
    assert not a_book(a_node(), unready(OWN)).has_run(owners)
    book.inventory(0.0)
    book.drop_pod(OWN["metadata"]["uid"])
    book.inventory(1.0)
    assert book.has_run(owners)
    assert not book.has_run(a_declaration("other").owners)


def test_what_can_never_run_and_runs_contradicts_us() -> None:
    verdict, found = fares(a_node(), OWN, strategy={"tensor": 16})
    assert verdict.outcome is Outcome.UNSOUND
    assert found.contradicted == tuple(each.code for each in verdict.findings if each.outcome is Outcome.UNSOUND)
    assert not found.is_down
    pair = a_pod("two", node="node-b", gpus=1, declaration="llama")
    assert fares(a_node(), a_node("node-b"), OWN, pair, strategy={"tensor": 32})[1].contradicted == (), "one of them is not ready"
    assert fares(a_node(), strategy={"tensor": 16})[1].contradicted == (), "nothing runs"


def test_a_roll_out_is_stuck_while_new_pods_wait_beside_old_ones() -> None:
    verdict, _ = fares(a_node(), OWN)
    surging = replace(verdict, findings=(replace(_a_finding(), code="SurgeDoesNotFit", outcome=Outcome.RISKY),))
    owners = a_declaration().owners
    fresh = unready(a_pod("fresh", gpus=8, declaration="llama"), "")
    assert plight(surging, an_inventory(a_node(), OWN, fresh), owners, ran=True).is_roll_out_stuck
    assert not plight(surging, an_inventory(a_node(), OWN), owners, ran=True).is_roll_out_stuck
    assert not plight(verdict, an_inventory(a_node(), OWN, fresh), owners, ran=True).is_roll_out_stuck


def _a_finding() -> Finding:
    return fares(a_node(), OTHER)[0].findings[0]


def test_series_of_how_they_fare() -> None:
    metrics = Metrics()
    metrics.observe_plights(
        ["Deployment", "Job"],
        [
            ("Deployment", True, Plight(is_down=True)),
            ("Deployment", False, Plight(is_down=True)),
            ("Deployment", False, Plight(contradicted=("GpuCountTooLow",), is_roll_out_stuck=True)),
        ],
    )
    value = metrics.registry.get_sample_value
    assert value("shardgate_declarations_down", {"kind": "Deployment"}) == 1, "what never was better is a queue"
    assert value("shardgate_declarations_down", {"kind": "Job"}) == 0
    assert value("shardgate_rollouts_stuck", {"kind": "Deployment"}) == 1
    assert value("shardgate_declarations_contradicted", {"kind": "Deployment", "code": "GpuCountTooLow"}) == 1
    assert value("shardgate_declarations_contradicted", {"kind": "Job", "code": "WorldSizeMismatch"}) == 0


@pytest.mark.parametrize(
    ("objects", "placeable", "free"),
    [
        ([a_node(), a_node("node-b", gpus=4), a_node("node-c", gpus=4), OTHER], (8, 4, 2, 0), (8, 8, 8, 0)),
        (
            [a_node(), a_node("node-b"), a_pod("x", node="node-a", gpus=4), a_pod("y", node="node-b", gpus=2)],
            (10, 5, 2, 0),
            (10, 10, 10, 10),
        ),
        ([a_node().allocatable(7), a_node("node-b").allocatable(7)], (14, 6, 2, 0), (14, 14, 14, 0)),
        ([a_node(), a_node("node-b").cordoned()], (8, 4, 2, 1), (8, 8, 8, 8)),
    ],
    ids=["mixed sizes", "scattered", "one of each failed", "cordoned"],
)
def test_free_gpus_count_for_a_size_where_the_node_is_that_large(
    objects: list[NodeBuilder | Json], placeable: tuple[int, ...], free: tuple[int, ...]
) -> None:
    metrics = Metrics()
    metrics.observe_inventory(an_inventory(*objects))

    def by_size(name: str) -> tuple[float | None, ...]:
        labels = ({"product": "H100-80GB-HBM3", "gpus": str(size)} for size in POD_SIZES)
        return tuple(metrics.registry.get_sample_value(f"shardgate_{name}", each) for each in labels)

    assert by_size("placeable_pods") == placeable
    assert by_size("gpus_free_by_node_size") == free


def test_series_of_nodes_that_are_less_than_they_should_be() -> None:
    metrics = Metrics()
    wrong = a_node("node-c", labels={**T4, "nvidia.com/gpu.memory": "999999"})
    metrics.observe_inventory(an_inventory(a_node().allocatable(7), a_node("node-b"), wrong))
    value = metrics.registry.get_sample_value
    assert value("shardgate_nodes_short_of_gpus", {"product": "H100-80GB-HBM3"}) == 1
    counted = [
        value("shardgate_gpus", {"product": "H100-80GB-HBM3", "state": state}) for state in ("installed", "free", "unavailable")
    ]
    assert counted == [15, 15, 1]
    assert value("shardgate_node_facts_contradicting", {"product": "H100-80GB-HBM3", "kind": "memory"}) == 0
    assert value("shardgate_node_facts_contradicting", {"product": "Tesla-T4", "kind": "memory"}) == 1
    changing = a_node().allocatable(7).label("nvidia.com/mig.config.state", "pending")
    metrics.observe_inventory(an_inventory(changing))
    assert value("shardgate_nodes_short_of_gpus", {"product": "H100-80GB-HBM3"}) == 0, "it is being changed"
    metrics.observe_inventory(an_inventory(a_node()))
    assert value("shardgate_nodes_short_of_gpus", {"product": "H100-80GB-HBM3"}) == 0
    assert value("shardgate_node_facts_contradicting", {"product": "Tesla-T4", "kind": "memory"}) is None
    metrics.observe_inventory(Inventory(groups=(), nodes_seen=0))
    assert value("shardgate_nodes_short_of_gpus", {"product": "H100-80GB-HBM3"}) is None
