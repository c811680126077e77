"""Required affinity and anti-affinity between pods."""

from typing import Any

import pytest

from builders import NodeBuilder, a_book, a_declaration, a_node, a_pod
from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.pods import DECLARATION_LABEL
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
    assert "pod affinity or anti-affinity" in {each.text for each in verdict.placement.excluded}


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
    assert "4 pod affinity or anti-affinity" in next(each.message for each in verdict.findings if each.code == "GpusBusy")
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
