"""Node affinity: operators as Kubernetes evaluates them, and mistakes by their path."""

from typing import Any

import pytest

from builders import a_body, a_declaration, a_node, an_inventory
from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.referred_workloads import read_declaration
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.selectors import Expression, NodeTerm
from shardgate.domain.verify import verify


@pytest.mark.parametrize(
    ("operator", "values", "matching"),
    [
        ("In", ("b", "c"), {"b"}),
        ("NotIn", ("b",), {"a", "7", None}),
        ("Exists", (), {"a", "b", "7"}),
        ("DoesNotExist", (), {None}),
        ("Gt", ("6",), {"7"}),
        ("Lt", ("8",), {"7"}),
        ("Gt", ("7",), set()),
    ],
)
def test_operators(operator: str, values: tuple[str, ...], matching: set[str | None]) -> None:
    """A missing key satisfies NotIn and DoesNotExist; Gt and Lt need whole numbers."""
    expression = Expression(key="k", operator=operator, values=values)
    found = {value for value in ("a", "b", "7", None) if expression.matches({} if value is None else {"k": value})}
    assert found == matching


def test_a_term_without_requirements_matches_nothing() -> None:
    assert not NodeTerm().matches({}, "n", "n")


def affinity(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


ZONE = "topology.kubernetes.io/zone"


@pytest.mark.parametrize(
    ("terms", "nodes"),
    [
        ([{"matchExpressions": [expression(ZONE, "In", "a", "b")]}], {"n-a", "n-b"}),
        ([{"matchExpressions": [expression(ZONE, "NotIn", "a")]}], {"n-b", "n-none"}),
        ([{"matchExpressions": [expression(ZONE, "In", "a")]}, {"matchExpressions": [expression(ZONE, "DoesNotExist")]}], {"n-a", "n-none"}),
        ([{"matchFields": [expression("metadata.name", "In", "n-b")]}], {"n-b"}),
        ([{"matchExpressions": [expression("kubernetes.io/hostname", "In", "n-a", "n-b")]}], {"n-a", "n-b"}),
        ([{"matchExpressions": [expression(ZONE, "Exists")], "matchFields": [expression("metadata.name", "NotIn", "n-a")]}], {"n-b"}),
        ([{}], set()),
    ],
)  # fmt: skip
def test_pods_go_only_where_a_term_matches(terms: list[dict[str, Any]], nodes: set[str]) -> None:
    cluster = an_inventory(a_node("n-a").label(ZONE, "a"), a_node("n-b").label(ZONE, "b"), a_node("n-none"))
    declaration = a_declaration(replicas=max(1, len(nodes)), placement={"affinity": affinity(*terms)})
    placement = verify(declaration, cluster, OWN_KIND).placement
    assert placement is not None
    assert placement.feasible is bool(nodes)
    assert {pod.node for pod in placement.pods} == nodes
    left_out = {name for each in placement.excluded for name in each.nodes}
    assert left_out == {"n-a", "n-b", "n-none"} - nodes


@pytest.mark.parametrize(
    ("stated", "path"),
    [
        (affinity(), "nodeSelectorTerms: needs at least one term"),
        (affinity({"matchExpressions": [expression("k", "In")]}), "nodeSelectorTerms[0].matchExpressions[0].values: needs a value"),
        (
            affinity({"matchExpressions": [expression("k", "Gt", "x")]}),
            "nodeSelectorTerms[0].matchExpressions[0].values: needs one",
        ),
        (affinity({"matchExpressions": [expression("k", "Near", "x")]}), "operator: Invalid enum value 'Near'"),
        (affinity({"matchFields": [expression("metadata.uid", "In", "x")]}), "matchFields[0]: needs metadata.name"),
        ({"nodeAffinity": {"required": {}}}, "nodeAffinity: Object contains unknown field `required`"),
        ({"nodeAffinity": 5}, "nodeAffinity: Expected `object`, got `int`"),
    ],
)
def test_mistakes_are_named_by_their_path(stated: dict[str, Any], path: str) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        read_declaration(a_body(placement={"affinity": stated}))
    (problem,) = mistakes_in(raised.value)
    assert str(problem).startswith("spec.placement.affinity.nodeAffinity")
    assert path in str(problem)
