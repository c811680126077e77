"""ResourceQuotas: what they leave for a declaration's pods."""

from dataclasses import replace
from typing import Any

import pytest

from builders import GPU, a_declaration, a_node, a_pod, an_inventory
from shardgate.adapters.quotas import quota_from, read_quota
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.verdict import Verdict
from shardgate.domain.verify import verify

Json = dict[str, Any]


def a_quota(hard: Json, used: Json | None, **spec: Any) -> Json:
    return {
        "metadata": {"name": "gpus", "namespace": "serving"},
        "spec": {"hard": hard, **spec},
        "status": {"used": used} if used else {},
    }


def judged(quota: Json, *pods: Json, **changes: Any) -> Verdict:
    read = read_quota(quota_from(quota))
    cluster = replace(an_inventory(a_node(gpus=16), *pods), quotas={"serving": (read,) if read else ()})
    declared = a_declaration(
        model={"name": "acme/x"}, engine={"name": "other"}, strategy={"tensor": 4, "pipeline": 1}, gpus={"perPod": 4}, **changes
    )
    return verify(declared, cluster, OWN_KIND)


@pytest.mark.parametrize(
    ("hard", "used", "message"),
    [
        ({f"requests.{GPU}": "8"}, {f"requests.{GPU}": "6"}, f"allows 8 {GPU}, 6 used; this needs 4"),
        ({f"requests.{GPU}": "8"}, {f"requests.{GPU}": "4"}, None),
        ({"requests.memory": "64Gi"}, {"requests.memory": "32Gi"}, "allows 64.0 GiB memory, 32.0 GiB used; this needs 60.0 GiB"),
        ({"cpu": "4"}, {"cpu": "1"}, "allows 4000 millicores of CPU, 1000 used; this needs 8000"),
        ({"pods": "1"}, {"pods": "1"}, "allows 1 pods, 1 used; this needs 1"),
        ({"limits.memory": "1Gi", "services": "0"}, {"services": "0"}, None),  # of other things
        ({f"requests.{GPU}": "2"}, None, None),  # not counted yet
    ],
)
def test_what_a_quota_leaves(hard: Json, used: Json | None, message: str | None) -> None:
    found = [each.message for each in judged(a_quota(hard, used), placement={"requests": {"cpu": "8", "memory": "60Gi"}}).findings]
    quotas = [each for each in found if each.startswith("quota ")]
    assert [each.removeprefix("quota gpus of namespace serving ") for each in quotas] == ([message] if message else [])


def test_own_pods_are_used_already() -> None:
    quota = a_quota({f"requests.{GPU}": "4"}, {f"requests.{GPU}": "4"})
    own = a_pod("mine", node="node-a", gpus=4, declaration="llama")
    assert "QuotaTooSmall" not in judged(quota, own).codes
    assert "QuotaTooSmall" in judged(quota, own, replicas=2).codes


@pytest.mark.parametrize(
    ("scopes", "priority", "counts"),
    [
        ({"scopes": ["NotTerminating"]}, "", True),
        ({"scopes": ["BestEffort"]}, "", False),
        ({"scopes": ["Terminating"]}, "", False),
        (
            {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}},
            "high",
            True,
        ),
        (
            {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}},
            "",
            False,
        ),
        ({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}}, "", False),
        ({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "DoesNotExist"}]}}, "", True),
    ],
)
def test_scopes(scopes: Json, priority: str, counts: bool) -> None:  # a parameter of the table
    quota = a_quota({f"requests.{GPU}": "2"}, {f"requests.{GPU}": "0"}, **scopes)
    assert ("QuotaTooSmall" in judged(quota, placement={"priorityClassName": priority}).codes) is counts
