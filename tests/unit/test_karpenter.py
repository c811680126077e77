"""NodePools and NodeClaims: nodes that may come, and nodes on their way."""

from typing import Any

import pytest

from builders import AWS, a_declaration, a_node, a_pool
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.karpenter import claim_from, nodes_of_pool, pool_from
from shardgate.adapters.nodes import node_from
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND
from shardgate.domain.verdict import Verdict
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
    (node,) = nodes_of_pool(pool_from(a_pool(*wanted, limits={"nvidia.com/gpu": "32"}, held={"nvidia.com/gpu": "8"})))
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
