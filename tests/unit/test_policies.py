from typing import Any

import pytest

from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.policies import read_policy
from shardgate.domain.declaration import Subject
from shardgate.domain.policy import (
    FOREIGN_KIND,
    OWN_KIND,
    Capacity,
    CodeAnswer,
    Disclosure,
    Mode,
    Policy,
    StatedPolicy,
    effective_policy,
)

KIND = "InferenceDeployment.shardgate.io"


def stated(name: str = "p", **spec: Any) -> StatedPolicy:
    return read_policy({"metadata": {"name": name}, "spec": spec})


def effective(*policies: StatedPolicy, default: Policy = OWN_KIND, **labels: str) -> Policy:
    named = {"kubernetes.io/metadata.name": "research", **labels}
    return effective_policy(policies, named, KIND, default)


BY_NAME = {"matchLabels": {"kubernetes.io/metadata.name": "research"}}


def test_nothing_matches_nothing_changes() -> None:
    assert effective() is OWN_KIND
    assert effective(stated(namespaceSelector={"matchLabels": {"a": "b"}}, mode="Audit")) is OWN_KIND
    assert effective(stated(kinds=["Deployment.apps"], mode="Audit")) is OWN_KIND


def test_a_field_weaker_than_the_default_counts_only_by_namespace_name() -> None:
    weak = {"mode": "Audit", "capacity": "Open", "disclosure": "Nodes"}
    assert effective(stated(**weak)).mode is Mode.ENFORCE
    named = effective(stated(namespaceSelector=BY_NAME, **weak))
    assert (named.mode, named.capacity, named.disclosure) == (Mode.AUDIT, Capacity.OPEN, Disclosure.NODES)


def test_a_stricter_field_counts_by_any_label() -> None:
    strict = stated(namespaceSelector={"matchLabels": {"tier": "prod"}}, refuse={"waiting": True}, mode="Enforce")
    merged = effective(strict, default=FOREIGN_KIND, tier="prod")
    assert merged.refuse_waiting
    assert merged.mode is Mode.ENFORCE


def test_the_strictest_of_several_field_by_field() -> None:
    one = stated(
        "a", namespaceSelector=BY_NAME, mode="Warn", staleAfterSeconds=60, codes={"GpusBusy": "Ignore", "GpuShared": "Warn"}
    )
    two = stated("b", namespaceSelector=BY_NAME, mode="Audit", staleAfterSeconds=30, codes={"GpusBusy": "Refuse"})
    merged = effective(one, two)
    assert merged.mode is Mode.WARN
    assert merged.stale_after_seconds == 30
    assert merged.codes == {"GpusBusy": CodeAnswer.REFUSE, "GpuShared": CodeAnswer.WARN}


def test_a_label_that_a_tenant_may_set_weakens_no_code_and_brings_no_pool() -> None:
    pool = {"name": "x", "product": "NVIDIA-L4", "gpusPerNode": 1, "maxNodes": 2}
    callable_in = stated(
        namespaceSelector={"matchLabels": {"tier": "dev"}},
        codes={"GpuCountTooLow": "Ignore", "GpusBusy": "Refuse"},
        provisionable=[pool],
    )
    merged = effective(callable_in, tier="dev")
    assert merged.codes == {"GpusBusy": CodeAnswer.REFUSE}
    assert merged.provisionable == ()


def test_pools_are_united() -> None:
    def pool(name: str) -> dict[str, Any]:
        return {"name": name, "product": "NVIDIA-L4", "gpusPerNode": 1, "maxNodes": 2}

    merged = effective(stated("a", provisionable=[pool("x")]), stated("b", provisionable=[pool("y"), pool("x")]))
    assert [node.name for node in merged.provisionable] == ["x", "y"]


@pytest.mark.parametrize(
    ("expression", "selects"),
    [
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, False),
        ({"key": "b", "operator": "NotIn", "values": ["1"]}, True),
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "a", "operator": "DoesNotExist"}, False),
    ],
)
def test_selector_expressions(expression: dict[str, Any], selects: bool) -> None:
    policy = stated(namespaceSelector={"matchExpressions": [expression]}, staleAfterSeconds=10)
    assert (effective(policy, a="1").stale_after_seconds == 10) is selects


def test_a_bad_policy_names_its_fields() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        stated(mode="Maybe", staleAfterSeconds=0)
    assert {each.where for each in mistakes_in(caught.value)} == {"spec.mode", "spec.staleAfterSeconds"}


@pytest.mark.parametrize(("api_version", "kind"), [("v1", "Pod"), ("apps/v1", "Deployment.apps")])
def test_a_kind_of_the_core_group_has_no_group(api_version: str, kind: str) -> None:
    subject = Subject(api_version=api_version, kind=kind.partition(".")[0], namespace="serving", name="x")
    assert subject.kind_and_group == kind
    enforced = read_policy({"metadata": {"name": "p"}, "spec": {"kinds": [kind], "mode": "Enforce"}})
    assert effective_policy([enforced], {}, subject.kind_and_group, FOREIGN_KIND).mode is Mode.ENFORCE
