"""NodePools and NodeClaims: nodes that may come, and nodes on their way."""

from dataclasses import replace
from typing import Any

import pytest

from builders import AWS, a_declaration, a_node, a_pool
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.disclosure import told
from shardgate.adapters.karpenter import claim_from, nodes_of_pool, pool_from
from shardgate.adapters.nodes import node_from
from shardgate.adapters.policies import read_policy
from shardgate.domain.capacity import arrivals
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND, Disclosure, Policy
from shardgate.domain.verdict import Outcome, Verdict
from shardgate.domain.verify import verify


@pytest.mark.parametrize(
    ("requirements", "types"),
    [
        ([(f"{AWS}family", "In", ["p5"])], {"p5.4xlarge", "p5.48xlarge"}),
        ([("node.kubernetes.io/instance-type", "In", ["g5.xlarge", "c7i.large"])], {"g5.xlarge"}),
        ([(f"{AWS}gpu-name", "In", ["h100"]), (f"{AWS}gpu-count", "Gt", ["1"])], {"p5.48xlarge"}),
        ([(f"{AWS}category", "In", ["c", "m", "r"])], set()),
        (
            [
                (f"{AWS}family", "In", ["p5", "inf2"]),
                (f"{AWS}accelerator-name", "In", ["inferentia2"]),
                (f"{AWS}size", "In", ["xlarge"]),
            ],
            {"inf2.xlarge"},
        ),
        (
            [(f"{AWS}family", "In", ["p5"]), (f"{AWS}cpu", "Gt", ["100"])],
            {"p5.4xlarge", "p5.48xlarge"},
        ),  # not known: ruled out by nothing
        ([(f"{AWS}family", "In", ["g5g"]), ("kubernetes.io/arch", "In", ["amd64"])], set()),  # Graviton hosts
        ([(f"{AWS}family", "In", ["p5"]), ("karpenter.sh/capacity-type", "In", ["spot"])], {"p5.4xlarge", "p5.48xlarge"}),
    ],
)
def test_types_that_meet_a_pools_requirements(requirements: list[tuple[str, str, list[str]]], types: set[str]) -> None:
    found = nodes_of_pool(pool_from(a_pool(*requirements)))
    assert {node.name.removeprefix("gpu/") for node in found} == types


def test_limits_leave_so_many_nodes() -> None:
    wanted = (f"{AWS}size", "In", ["48xlarge"]), (f"{AWS}family", "In", ["p5"])
    node, later = nodes_of_pool(pool_from(a_pool(*wanted, limits={"nvidia.com/gpu": "32"}, held={"nvidia.com/gpu": "8"})))
    assert (later.count, later.takes_turns, node.takes_turns) == (1, True, False)
    assert (node.count, node.allocatable["nvidia.com/gpu"], node.shape.gpu.product) == (3, 8, "H100-80GB-HBM3")
    assert nodes_of_pool(pool_from(a_pool(*wanted, limits={"nvidia.com/gpu": "4"}))) == ()


def judged(book: ClusterBook, policy: Any = OWN_KIND, **changes: Any) -> Verdict:
    return verify(a_declaration(**changes), book.inventory(0.0), policy)


P5 = (f"{AWS}family", "In", ["p5"])


def test_what_may_come_is_waited_for_even_when_capacity_is_closed() -> None:
    book = ClusterBook()
    book.put_node(node_from({"metadata": {"name": "cpu"}, "status": {"allocatable": {"cpu": "8"}}}), 0.0)
    assert judged(book).codes[0] == "GpuCountTooLow"
    book.put_pool(pool_from(a_pool(P5)))
    assert judged(book).codes == ("NodesToProvision",)
    assert judged(book, FOREIGN_KIND).codes == ("NodesToProvision",)
    tainted = a_pool(P5, taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}])
    book.put_pool(pool_from(tainted))
    assert judged(book).codes[0] != "NodesToProvision"
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert judged(book, placement={"tolerations": tolerations}).codes == ("NodesToProvision",)
    book.drop_autoscaled("NodePool", "gpu")
    assert judged(book).codes[0] == "GpuCountTooLow"


def test_a_selector_reaches_a_pools_labels_and_those_of_its_types() -> None:
    book = ClusterBook()
    book.put_pool(pool_from(a_pool(P5, labels={"team": "serving"})))
    for selector in ({"team": "serving"}, {"karpenter.sh/nodepool": "gpu"}, {f"{AWS}gpu-name": "h100"}):
        assert judged(book, placement={"nodeSelector": selector}).codes == ("NodesToProvision",)
    assert judged(book, placement={"nodeSelector": {"team": "other"}}).codes[0] != "NodesToProvision"


def test_a_claim_is_a_node_on_its_way_until_it_registers() -> None:
    claim = {"metadata": {"name": "gpu-x", "labels": {"node.kubernetes.io/instance-type": "p5.48xlarge"}}, "spec": {}, "status": {}}
    book = ClusterBook()
    book.put_node_claim(claim_from(claim))
    assert judged(book).codes == ("NodesToProvision",)
    claim["status"] = {"nodeName": "ip-10-0-0-1", "allocatable": {"nvidia.com/gpu": "8"}}
    book.put_node_claim(claim_from(claim))
    book.put_node(node_from(a_node("ip-10-0-0-1").body), 0.0)
    assert judged(book).codes == ()


def test_a_limit_that_is_no_quantity_is_named() -> None:
    book = ClusterBook()
    book.put_pool(pool_from(a_pool(P5, limits={"nvidia.com/gpu": "many"})))
    assert list(book.unreadable) == ["NodePool gpu"]


def test_a_pool_whose_types_are_not_known_may_still_bring_gpus() -> None:
    new = a_pool(("node.kubernetes.io/instance-type", "In", ["p99.48xlarge"]))
    small = a_pool(("node.kubernetes.io/instance-type", "In", ["c99.large"]))
    assert len(nodes_of_pool(pool_from(new))) == 1
    assert nodes_of_pool(pool_from(small)) == ()
    book = ClusterBook()
    book.put_pool(pool_from(new))
    assert set(judged(book).codes) == {"GpuFactsMissing", "NodesToProvision"}


def test_auto_mode_and_providers_that_are_not_known_name_the_same_types() -> None:
    auto = a_pool(("eks.amazonaws.com/instance-family", "In", ["p5"]))
    auto["spec"]["template"]["spec"]["nodeClassRef"]["group"] = "eks.amazonaws.com"
    assert {node.name for node in nodes_of_pool(pool_from(auto))} == {"gpu/p5.4xlarge", "gpu/p5.48xlarge"}
    other = a_pool(("node.kubernetes.io/instance-type", "In", ["p5.48xlarge"]))
    other["spec"]["template"]["spec"]["nodeClassRef"]["group"] = "karpenter.example.com"
    assert {node.name for node in nodes_of_pool(pool_from(other))} == {"gpu/p5.48xlarge"}


def test_at_least_and_at_most() -> None:
    at_least = a_pool((f"{AWS}family", "In", ["p5"]), (f"{AWS}gpu-count", "Gte", ["8"]))
    assert {node.name for node in nodes_of_pool(pool_from(at_least))} == {"gpu/p5.48xlarge"}


def cpu_only() -> ClusterBook:
    book = ClusterBook()
    book.put_node(node_from({"metadata": {"name": "cpu"}, "status": {"allocatable": {"cpu": "8"}}}), 0.0)
    return book


def conditions(*stated: tuple[str, str, str]) -> list[dict[str, str]]:
    return [{"type": kind, "status": "False", "reason": reason, "message": message} for kind, reason, message in stated]


H100_NODE = "8 x H100-80GB-HBM3"
WHOLE = ("node.kubernetes.io/instance-type", "In", ["p5.48xlarge"])


def message(book: ClusterBook, policy: Policy = OWN_KIND, **changes: Any) -> tuple[str, str]:
    """(code, message) of the worst finding."""
    found = judged(book, policy, **changes).findings[0]
    return found.code, found.message


def test_a_message_names_what_may_come_and_why_it_has_not() -> None:
    book, pool = cpu_only(), a_pool(WHOLE, limits={"nvidia.com/gpu": "32"}, held={"nvidia.com/gpu": "8"})
    book.put_pool(pool_from(pool))
    code, text = message(book)
    assert code == "NodesToProvision"
    assert text.endswith(f"nodes that may come: NodePool gpu may bring 3 nodes of {H100_NODE}")
    pool["status"]["conditions"] = conditions(("Ready", "NodeClassNotReady", "NodeClass is not ready"))
    book.put_pool(pool_from(pool))
    assert message(book)[1].endswith(f"NodePool gpu may bring 3 nodes of {H100_NODE} (not Ready: NodeClass is not ready)")


def test_a_node_on_its_way_says_how_far_it_is() -> None:
    labels = {"node.kubernetes.io/instance-type": "p5.48xlarge"}
    claim: dict[str, Any] = {"metadata": {"name": "gpu-x", "labels": labels}, "spec": {}, "status": {}}
    book = cpu_only()
    for stated, why in (
        ([], "not registered yet"),
        (conditions(("Launched", "InsufficientCapacityError", "no capacity in any zone")), "not Launched: no capacity in any zone"),
        (conditions(("Registered", "NodeNotFound", "")), "not Registered: NodeNotFound"),
    ):
        claim["status"]["conditions"] = stated
        book.put_node_claim(claim_from(claim))
        assert message(book)[1].endswith(f"NodeClaim gpu-x is to bring 1 node of {H100_NODE} ({why})")


@pytest.mark.parametrize(
    ("limits", "held", "why"),
    [
        ({"nvidia.com/gpu": "4"}, {}, "has no room for another such node (nvidia.com/gpu: 0 of 4 used)"),
        ({"cpu": "0"}, {}, "has no room for another such node (cpu: 0 of 0 used)"),
        ({"nodes": "2", "nvidia.com/gpu": "7"}, {"nodes": "2"}, "has no room for another such node (nodes: 2 of 2 used)"),
        ({"memory": "0"}, {"memory": "4Gi"}, "has no room for another such node (memory: 4Gi of 0 used)"),
    ],
)
def test_a_pool_whose_limits_allow_no_such_node_brings_none_and_that_is_said(limits: Any, held: Any, why: str) -> None:
    book = cpu_only()
    book.put_pool(pool_from(a_pool(WHOLE, limits=limits, held=held)))
    assert message(book) == ("GpuCountTooLow", f"TP2 x PP4 x DP1 needs 8 GPUs, the cluster has 0; NodePool gpu {why}")
    assert message(book, FOREIGN_KIND) == ("InventoryEmpty", f"none of 1 node has GPUs, and NodePool gpu {why}")
    book.retain_autoscaled("NodePool", set())
    assert message(book)[1] == "TP2 x PP4 x DP1 needs 8 GPUs, the cluster has 0"


@pytest.mark.parametrize(
    ("limits", "held", "used", "nodes"),
    [
        ({"nvidia.com/gpu": "8"}, {"nvidia.com/gpu": "8"}, "nvidia.com/gpu: 8 of 8 used", "1 node"),
        ({"nvidia.com/gpu": "20"}, {"nvidia.com/gpu": "21"}, "nvidia.com/gpu: 21 of 20 used", "2 nodes"),
        ({"nodes": "2", "nvidia.com/gpu": "99"}, {"nodes": "2"}, "nodes: 2 of 2 used", "2 nodes"),
        ({"cpu": "512"}, {"cpu": "512"}, "cpu: 512 of 512 used", "nodes"),
    ],
    ids=["GPUs", "more than its limit", "nodes", "CPU"],
)
def test_a_pool_at_its_limit_is_waited_for(limits: Any, held: Any, used: str, nodes: str) -> None:
    """Time heals it: the nodes that use up its limit may leave, and others come instead."""
    book = cpu_only()
    book.put_pool(pool_from(a_pool(WHOLE, limits=limits, held=held)))
    found = judged(book).findings[0]
    assert (found.code, found.outcome) == ("NodesToProvision", Outcome.WAITING)
    assert found.message.endswith(
        f"NodePool gpu may bring {nodes} of {H100_NODE} (at its limit, {used}: once others of its nodes leave)"
    )
    assert found.remedy == "wait until other nodes of the pool leave, raise its limits, or ask for fewer replicas"
    assert message(book, FOREIGN_KIND)[0] == "NodesToProvision"
    guarded = replace(OWN_KIND, disclosure=Disclosure.NONE)
    assert used not in told(judged(book, guarded), book.inventory(0.0), guarded).findings[0].message


def test_what_others_hold_of_a_limit_is_waited_for_as_far_as_it_is_needed() -> None:
    book = cpu_only()
    book.put_pool(pool_from(a_pool(WHOLE, limits={"nvidia.com/gpu": "32"}, held={"nvidia.com/gpu": "17"})))
    assert "limit" not in message(book)[1]
    code, text = message(book, replicas=3)
    assert code == "NodesToProvision"
    assert f"{H100_NODE} (near its limit, nvidia.com/gpu: 17 of 32 used: once others of its nodes leave)" in text
    assert judged(book, strategy={"tensor": 8, "pipeline": 5}).outcome is Outcome.UNSOUND, "40 GPUs are more than it ever allows"


def of_pool(name: str, instance_type: str) -> Any:
    return node_from(
        a_node(name).label("karpenter.sh/nodepool", "gpu").label("node.kubernetes.io/instance-type", instance_type).body
    )


def test_nodes_of_the_pool_that_are_here_are_no_further_ones() -> None:
    """Its limit allows two such nodes at a time: that one of them is here makes no third."""
    book = cpu_only()
    two = {"strategy": {"tensor": 8, "pipeline": 2}}
    book.put_pool(pool_from(a_pool(WHOLE, limits={"nvidia.com/gpu": "16"}, held={"nvidia.com/gpu": "16"})))
    assert judged(book, **two).outcome is Outcome.WAITING
    book.put_node(of_pool("a", "p5.48xlarge"), 0.0)
    assert judged(book, **two).outcome is Outcome.WAITING, "the other one is a node of other GPUs, that may leave"
    assert judged(book, strategy={"tensor": 8, "pipeline": 3}).outcome is Outcome.UNSOUND
    claim = {
        "metadata": {"name": "c", "labels": {"node.kubernetes.io/instance-type": "p5.48xlarge", "karpenter.sh/nodepool": "gpu"}}
    }
    book.put_node_claim(claim_from(claim))
    assert judged(book, **two).outcome is Outcome.WAITING
    assert judged(book, strategy={"tensor": 8, "pipeline": 3}).outcome is Outcome.UNSOUND
    assert (
        "has no room for another such node (nvidia.com/gpu: 16 of 16 used)"
        in message(book, strategy={"tensor": 8, "pipeline": 3})[1]
    )
    book.drop_autoscaled("NodeClaim", "c")
    book.put_node(of_pool("b", "p5.48xlarge"), 0.0)
    assert judged(book, **two).codes == ()
    assert judged(book, strategy={"tensor": 8, "pipeline": 3}).outcome is Outcome.UNSOUND
    book.drop_node("b", 0.0)
    book.inventory(16 * 60.0)
    assert judged(book, **two).codes == ("NodesToProvision",)
    assert book.inventory(16 * 60.0).provisionable


def test_what_takes_turns_is_not_on_its_way() -> None:
    book = cpu_only()
    book.put_node(of_pool("a", "p5.48xlarge"), 0.0)
    book.put_pool(pool_from(a_pool(WHOLE, limits={"nvidia.com/gpu": "16"}, held={"nvidia.com/gpu": "16"})))
    (later,) = (node for group in book.inventory(0.0).provisionable for node in group.nodes)
    assert later.takes_turns
    assert tuple(arrivals(book.inventory(0.0), (), lambda amounts: [name for name in amounts if "gpu" in name])) == ()


def test_a_pool_that_a_policy_names_is_named() -> None:
    stated = {"name": "h100", "product": "NVIDIA-H100-80GB-HBM3", "gpusPerNode": 8, "maxNodes": 4}
    (pool,) = read_policy({"metadata": {"name": "p"}, "spec": {"provisionable": [stated]}}).stated["provisionable"]  # type: ignore[misc]  # a tuple
    assert message(cpu_only(), replace(OWN_KIND, provisionable=(pool,)))[1].endswith(f"pool h100 may bring 4 nodes of {H100_NODE}")
    tainted = {**stated, "taints": [{"key": "team", "value": "ml", "effect": "NoSchedule"}]}
    (pool,) = read_policy({"metadata": {"name": "p"}, "spec": {"provisionable": [tainted]}}).stated["provisionable"]  # type: ignore[misc]  # a tuple
    code, text = message(cpu_only(), replace(OWN_KIND, provisionable=(pool,)))
    assert (code, text.rpartition("; ")[2]) == ("GpuCountTooLow", "pool h100 is tainted team=ml, which is not tolerated")


def test_a_pool_that_is_going_brings_nothing() -> None:
    pool = a_pool(WHOLE)
    pool["metadata"]["deletionTimestamp"] = "2026-11-26T00:00:00Z"
    book = cpu_only()
    book.put_pool(pool_from(pool))
    assert message(book)[1].endswith("NodePool gpu is being deleted")


def test_a_limit_on_nodes_bounds_them() -> None:
    node, later = nodes_of_pool(pool_from(a_pool(WHOLE, limits={"nodes": "5"}, held={"nodes": "3"})))
    assert (node.count, later.count) == (2, 3)


def test_a_pool_that_is_not_for_these_pods_says_why() -> None:
    book = cpu_only()
    book.put_pool(pool_from(a_pool(WHOLE, taints=[{"key": "dedicated", "value": "training", "effect": "NoSchedule"}])))
    assert message(book)[1].endswith("NodePool gpu is tainted dedicated=training, which is not tolerated")
    book.put_pool(pool_from(a_pool(WHOLE)))
    assert message(book, placement={"nodeSelector": {"team": "x"}})[1].endswith(
        "NodePool gpu is not let in by selector or affinity"
    )


def test_what_a_pool_may_bring_and_is_not_enough_is_said() -> None:
    book = cpu_only()
    book.put_pool(pool_from(a_pool(WHOLE, limits={"nvidia.com/gpu": "8"})))
    code, text = message(book, replicas=2)
    assert (code, judged(book, replicas=2).outcome) == ("GpuCountTooLow", Outcome.WAITING)
    assert f"more may come, and not enough: NodePool gpu may bring 1 node of {H100_NODE}" in text


def test_who_may_know_nothing_of_pools_is_told_nothing_of_them() -> None:
    book, pool = cpu_only(), a_pool(WHOLE)
    pool["status"]["conditions"] = conditions(("Ready", "NodeClassNotReady", "subnet-7 of account 42 is full"))
    book.put_pool(pool_from(pool))
    guarded = replace(OWN_KIND, disclosure=Disclosure.NONE)
    text = told(judged(book, guarded), book.inventory(0.0), guarded).findings[0].message
    assert text.endswith("a pool may bring nodes of 8 x GPU (for a reason of its own)")
