"""Required rules between pods: affinity and anti-affinity, spread, ports of the host."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from builders import NodeBuilder, a_book, a_declaration, a_node, a_pod, a_pool
from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.karpenter import pool_from
from shardgate.adapters.pod_templates import read_pod_template
from shardgate.adapters.pods import DECLARATION_LABEL
from shardgate.domain.placement import Placement
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.verdict import Verdict
from shardgate.domain.verify import verify

Json = dict[str, Any]
HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
OWN = {DECLARATION_LABEL: "llama"}


def term(key: str, labels: Json, **more: Any) -> Json:
    return {"topologyKey": key, "labelSelector": {"matchLabels": labels}, **more}


def rules(**kinds: list[Json]) -> Json:
    return {kind: {REQUIRED: terms} for kind, terms in kinds.items()}


def a_cluster() -> list[NodeBuilder]:
    """Two zones of two nodes of eight GPUs."""
    return [a_node(name).label(ZONE, zone) for name, zone in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b"))]


def other(name: str, node: str, labels: Json, namespace: str = "serving", **spec: Any) -> Json:
    body = a_pod(name, node=node, gpus=0, namespace=namespace)
    body["metadata"]["labels"] = labels
    body["spec"] |= spec
    return body


def judged(affinity: Json, *objects: Any, replicas: int = 1, gpus: int = 4, **changes: Any) -> Verdict:
    declared = a_declaration(
        model={"name": "acme/x"}, engine={"name": "other"}, strategy={"tensor": gpus, "pipeline": 1}, gpus={"perPod": gpus},
        replicas=replicas, placement={"affinity": affinity}, **changes,
    )  # fmt: skip
    return verify(declared, a_book(*objects).inventory(0.0), OWN_KIND)


def nodes_of(verdict: Verdict) -> list[str]:
    assert verdict.placement is not None
    return [pod.node for pod in verdict.placement.pods]


@pytest.mark.parametrize(
    ("key", "replicas", "fits"),
    [(HOST, 4, True), (HOST, 5, False), (ZONE, 2, True), (ZONE, 3, False)],
)
def test_one_replica_in_each_domain(key: str, replicas: int, fits: bool) -> None:  # a parameter of the table
    verdict = judged(rules(podAntiAffinity=[term(key, OWN)]), *a_cluster(), replicas=replicas)
    assert verdict.placement is not None
    assert verdict.placement.feasible is fits
    assert len(set(nodes_of(verdict))) == len(nodes_of(verdict))
    assert ("NodesDoNotFit" in verdict.codes) is not fits


def test_all_replicas_in_one_domain_the_roomiest() -> None:
    together = rules(podAffinity=[term(ZONE, OWN)])
    busy = a_pod("busy", node="a1", gpus=8, namespace="other")
    assert {name[0] for name in nodes_of(judged(together, *a_cluster(), busy, replicas=4))} == {"b"}
    verdict = judged(together, *a_cluster(), replicas=5)
    assert verdict.placement is not None
    assert (verdict.placement.feasible, verdict.placement.replicas_that_fit) == (False, 4)


def test_beside_pods_that_are_there_and_away_from_others() -> None:
    cache = other("cache", "b2", {"app": "cache"})
    away = rules(podAntiAffinity=[term(HOST, {"app": "cache"})])
    assert "b2" not in nodes_of(judged(away, *a_cluster(), cache, replicas=6))
    assert judged(away, *a_cluster(), cache, replicas=7).placement.feasible is False  # type: ignore[union-attr]  # judged
    elsewhere = other("cache", "b2", {"app": "cache"}, namespace="other")
    assert judged(away, *a_cluster(), elsewhere, replicas=8).placement.feasible is True  # type: ignore[union-attr]
    everywhere = rules(podAntiAffinity=[term(HOST, {"app": "cache"}, namespaceSelector={})])
    assert judged(everywhere, *a_cluster(), elsewhere, replicas=8).placement.feasible is False  # type: ignore[union-attr]


def test_pods_that_will_not_have_these_beside_them() -> None:
    alone = {"podAntiAffinity": {REQUIRED: [term(HOST, OWN)]}}
    loner = other("loner", "a1", {"app": "x"}, affinity=alone)
    verdict = judged({}, *a_cluster(), loner, replicas=8)
    assert verdict.placement is not None
    assert (verdict.placement.feasible, verdict.placement.pods_that_fit) == (False, 6)
    assert "rules between pods" in {each.text for each in verdict.placement.excluded}


def test_own_pods_do_not_stand_in_their_own_way() -> None:
    apart = rules(podAntiAffinity=[term(HOST, OWN)])
    own = [a_pod(f"own-{node}", node=node, gpus=4, declaration="llama", ready=True) for node in ("a1", "a2", "b1", "b2")]
    for each in own:
        each["spec"]["affinity"] = apart
    assert judged(apart, *a_cluster(), *own, replicas=4).placement.feasible is True  # type: ignore[union-attr]


def test_an_affinity_for_pods_that_may_come_yet_is_waited_for() -> None:
    book_label = {DECLARATION_LABEL: "other"}
    verdict = judged(rules(podAffinity=[term(HOST, book_label)]), *a_cluster())
    assert verdict.codes[-1] == "GpusBusy"
    assert "4 rules between pods" in next(each.message for each in verdict.findings if each.code == "GpusBusy")
    beside = other("o", "b1", book_label)
    assert nodes_of(judged(rules(podAffinity=[term(HOST, book_label)]), *a_cluster(), beside)) == ["b1"]


def test_a_term_that_may_select_these_pods_is_not_modelled() -> None:
    verdict = judged(rules(podAntiAffinity=[term(HOST, {"app": "llama"})]), *a_cluster())
    assert "ConstraintNotModelled" in verdict.codes


def test_mistakes_are_named() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        judged({"podAffinity": {REQUIRED: [{"labelSelector": {}}]}})
    (problem,) = mistakes_in(raised.value)
    assert "spec.placement.affinity.podAffinity" in str(problem)
    assert "topologyKey" in str(problem)


def spread(key: str, skew: int = 1, labels: Json | None = None, **more: Any) -> Json:
    selector = {"matchLabels": OWN if labels is None else labels}
    return {"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector, **more}


def templated(*objects: Any, replicas: int, gpus: int = 4, spec: Json | None = None, labels: Json | None = None) -> Placement:
    """By a pod template, as other kinds than ours have one."""
    container = {"name": "main", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}, "ports": (spec or {}).pop("ports", [])}
    template = {"metadata": {"labels": OWN if labels is None else labels}, "spec": {"containers": [container], **(spec or {})}}
    declared = a_declaration(
        model={"name": "acme/x"}, engine={"name": "other"}, strategy={"tensor": gpus, "pipeline": 1}, gpus={"perPod": gpus},
        replicas=replicas,
    )  # fmt: skip
    declared = replace(declared, placement=read_pod_template(template, "serving", "template").wish)
    placement = verify(declared, a_book(*objects).inventory(0.0), OWN_KIND).placement
    assert placement is not None
    return placement


def counted(placement: Placement) -> dict[str, int]:
    return dict(Counter(pod.node for pod in placement.pods))


def test_a_spread_evens_zones_out_up_to_its_skew() -> None:
    cluster = [*a_cluster(), a_node("c1", gpus=4).label(ZONE, "c")]
    assert templated(*cluster, replicas=5, spec={"topologySpreadConstraints": [spread(ZONE)]}).feasible
    assert templated(*cluster, replicas=6, spec={"topologySpreadConstraints": [spread(ZONE)]}).replicas_that_fit == 5
    assert templated(*cluster, replicas=7, spec={"topologySpreadConstraints": [spread(ZONE, 2)]}).feasible
    assert templated(*cluster, replicas=9, spec={"topologySpreadConstraints": [spread(ZONE, 3)]}).feasible


def test_no_step_of_the_example_breaks_the_spread() -> None:
    placement = templated(*a_cluster(), replicas=4, spec={"topologySpreadConstraints": [spread(ZONE)]})
    zones = [pod.node[0] for pod in placement.pods]
    assert {zones[0], zones[1]} == {zones[2], zones[3]} == {"a", "b"}


def test_a_node_without_gpus_is_a_domain_that_stays_empty() -> None:
    cpu = {"metadata": {"name": "cpu", "labels": {HOST: "cpu"}}, "kind": "Node", "status": {"allocatable": {"cpu": "8"}}}
    assert templated(*a_cluster(), replicas=8, spec={"topologySpreadConstraints": [spread(HOST)]}).feasible
    assert templated(*a_cluster(), cpu, replicas=5, spec={"topologySpreadConstraints": [spread(HOST)]}).replicas_that_fit == 4
    let_in = {"nodeSelector": {ZONE: "a"}, "topologySpreadConstraints": [spread(HOST)]}
    assert templated(*a_cluster(), cpu, replicas=4, spec=let_in).feasible  # the selector leaves the node out
    let_in["topologySpreadConstraints"] = [spread(HOST, nodeAffinityPolicy="Ignore")]
    assert templated(*a_cluster(), cpu, replicas=4, spec=let_in).replicas_that_fit == 2


def test_taints_leave_domains_out_only_by_policy() -> None:
    tainted = a_node("t").label(ZONE, "t").tainted("dedicated", "training")
    assert templated(*a_cluster(), tainted, replicas=4, spec={"topologySpreadConstraints": [spread(ZONE)]}).replicas_that_fit == 2
    honoured = [spread(ZONE, nodeTaintsPolicy="Honor")]
    assert templated(*a_cluster(), tainted, replicas=4, spec={"topologySpreadConstraints": honoured}).feasible


def test_too_few_domains_count_as_an_empty_one() -> None:
    constraint = [spread(ZONE, minDomains=3)]
    assert templated(*a_cluster(), replicas=4, spec={"topologySpreadConstraints": constraint}).replicas_that_fit == 2


def test_pods_that_are_there_count_in_a_spread_and_own_ones_do_not() -> None:
    other_two = [other(f"x{index}", "a1", {"app": "x", "team": "t"}) for index in range(2)]
    constraint = [spread(ZONE, labels={"team": "t"})]
    mine = {"app": "llama", "team": "t"}
    assert counted(
        templated(*a_cluster(), *other_two, replicas=2, spec={"topologySpreadConstraints": constraint}, labels=mine)
    ).keys() == {"b1"}
    by_revision = [spread(ZONE, labels={"team": "t"}, matchLabelKeys=["pod-template-hash"])]
    placement = templated(*a_cluster(), *other_two, replicas=2, spec={"topologySpreadConstraints": by_revision}, labels=mine)
    assert {node[0] for node in counted(placement)} == {"a", "b"}


def test_spread_over_zones_and_hosts_at_once_is_searched_for() -> None:
    both = [spread(ZONE), spread(HOST)]
    placement = templated(*a_cluster(), replicas=4, spec={"topologySpreadConstraints": both})
    assert counted(placement) == {"a1": 1, "a2": 1, "b1": 1, "b2": 1}
    assert not placement.in_any_order


def test_a_port_of_the_host_is_taken_once_a_node() -> None:
    port = [{"containerPort": 8000, "hostPort": 8000}]
    taken = other("taken", "a1", {"app": "x"})
    taken["spec"]["containers"][0]["ports"] = port
    assert templated(*a_cluster(), replicas=4, spec={"ports": port}).feasible
    assert templated(*a_cluster(), taken, replicas=4, spec={"ports": port}).replicas_that_fit == 3
    assert templated(*a_cluster(), taken, replicas=4, spec={"ports": [{**port[0], "protocol": "UDP"}]}).feasible
    on_the_host = {"ports": [{"containerPort": 8000}], "hostNetwork": True}
    assert templated(*a_cluster(), taken, replicas=4, spec=dict(on_the_host)).replicas_that_fit == 3
    assert templated(*a_cluster(), taken, replicas=8, spec={"ports": [{"containerPort": 8000}]}).feasible


def test_pods_that_name_their_node_pass_the_scheduler_by() -> None:
    tainted = a_node("t").tainted("dedicated", "training")
    assert counted(templated(*a_cluster(), tainted, replicas=2, spec={"nodeName": "t"})) == {"t": 2}
    assert templated(*a_cluster(), tainted, replicas=3, spec={"nodeName": "t"}).replicas_that_fit == 2


def test_affinity_to_a_pod_on_a_node_without_gpus() -> None:
    cpu = {"metadata": {"name": "cpu", "labels": {ZONE: "b"}}, "kind": "Node", "status": {"allocatable": {"cpu": "8"}}}
    cache = other("cache", "cpu", {"app": "cache"})
    near = {"affinity": rules(podAffinity=[term(ZONE, {"app": "cache"})])}
    assert {node[0] for node in counted(templated(*a_cluster(), cpu, cache, replicas=4, spec=near))} == {"b"}
    loner = other("loner", "cpu", {}, affinity=rules(podAntiAffinity=[term(ZONE, OWN)]))
    assert {node[0] for node in counted(templated(*a_cluster(), cpu, loner, replicas=4))} == {"a"}


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"topologySpreadConstraints": [{"topologyKey": ZONE}]}, "topologySpreadConstraints[0]"),
        ({"containers": [{"resources": {"limits": {"nvidia.com/gpu": "many"}}}]}, "template.spec"),
        ({"containers": "none"}, "template.spec.containers"),
    ],
)
def test_mistakes_in_a_template_are_named(spec: Json, named: str) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        read_pod_template({"spec": spec}, "serving", "template")
    assert named in str(mistakes_in(raised.value)[0])


def test_a_pod_that_repels_by_namespace_or_by_fields_that_are_newer() -> None:
    for more in (
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "serving"}}},
        {"matchLabelKeys": ["x"]},
        {"new": 1},
    ):
        term_of_it = {"podAntiAffinity": {REQUIRED: [term(HOST, OWN, **more)]}}
        loner = other("loner", "a1", {}, namespace="other" if "namespaceSelector" in more else "serving", affinity=term_of_it)
        assert judged({}, *a_cluster(), loner, replicas=8).placement.feasible is False, more  # type: ignore[union-attr]


def test_pods_of_another_owner_are_no_own_pods_whatever_their_labels() -> None:
    theirs = other("theirs", "a1", {**OWN, "tier": "b"})
    apart = {"affinity": rules(podAntiAffinity=[term(HOST, OWN)])}
    assert templated(*a_cluster(), theirs, replicas=4, spec=apart).replicas_that_fit == 3


def test_terminating_pods_do_not_count_in_a_spread() -> None:
    going = [other(f"x{index}", "a1", {"team": "t"}) for index in range(2)]
    for each in going:
        each["metadata"]["deletionTimestamp"] = "2026-11-26T00:00:00Z"
    constraint = {"topologySpreadConstraints": [spread(ZONE, labels={"team": "t"})]}
    placement = templated(*a_cluster(), *going, replicas=2, spec=constraint, labels={"team": "t"})
    assert {node[0] for node in counted(placement)} == {"a", "b"}


def test_a_zone_that_may_come_is_waited_for() -> None:
    zones = {"topologySpreadConstraints": [spread(ZONE, minDomains=3)]}
    assert not templated(*a_cluster(), replicas=6, spec=zones).feasible
    declared = replace(
        a_declaration(model={"name": "acme/x"}, engine={"name": "other"}, strategy={"tensor": 8}, gpus={"perPod": 8}, replicas=6),
        placement=read_pod_template(
            {"metadata": {"labels": OWN}, "spec": {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "8"}}}], **zones}},
            "serving", "template",
        ).wish,
    )  # fmt: skip
    book = a_book(*a_cluster())
    book.put_pool(pool_from(a_pool(("node.kubernetes.io/instance-type", "In", ["p5.48xlarge"]))))
    assert "NodesToProvision" in verify(declared, book.inventory(0.0), OWN_KIND).codes


def test_rules_that_overlap_are_searched_for_every_way() -> None:
    """Zones and tiers, one pod in each: the node that is best by itself leaves the rest without."""
    nodes = [a_node(name).label(ZONE, zone).label("tier", tier) for name, zone, tier in (
        ("n1", "a", "gold"), ("n2", "a", "one"), ("n5", "b", "gold"), ("n6", "b", "gold"))]  # fmt: skip
    apart = {"affinity": rules(podAntiAffinity=[term(ZONE, OWN), term("tier", OWN)])}
    assert set(counted(templated(*nodes, replicas=2, spec=apart))) >= {"n2"}
