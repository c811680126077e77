"""``VerificationPolicy`` objects -> stated policies."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from shardgate.adapters.errors import problems_of
from shardgate.adapters.gpus import gpu_of
from shardgate.adapters.quantities import AMPLE, resources
from shardgate.api import API_VERSION
from shardgate.api.verification_policy import (
    NamespaceSelector,
    ProvisionablePool,
    VerificationPolicy,
    VerificationPolicySpec,
)
from shardgate.domain.inventory import Node, NodeShape, NodeState, Taint
from shardgate.domain.policy import Capacity, CodeAnswer, Disclosure, Mode, StatedPolicy

KIND = "VerificationPolicy"
NAMESPACE_NAME = "kubernetes.io/metadata.name"


def is_policy(body: Mapping[str, Any]) -> bool:
    """Whether the object is a policy, in the version that we read."""
    return body.get("kind") == KIND and body.get("apiVersion") == API_VERSION


def read_policy(body: Mapping[str, Any]) -> StatedPolicy:
    """The fields that the policy states. Raises an ``ExceptionGroup`` of ``DeclarationError``."""
    try:
        spec = VerificationPolicy.read(body.get("spec")).spec
    except ValidationError as error:
        raise problems_of(error) from None
    selector = spec.namespace_selector or NamespaceSelector()
    labels = dict(selector.match_labels or {})
    expressions = tuple((each.key, each.operator.value, tuple(each.values or ())) for each in selector.match_expressions or ())
    by_name = NAMESPACE_NAME in labels or any(key == NAMESPACE_NAME and how == "In" for key, how, _ in expressions)
    return StatedPolicy(
        name=(body.get("metadata") or {}).get("name") or "",
        match_labels=labels,
        match_expressions=expressions,
        kinds=tuple(spec.kinds or ()),
        by_namespace_name=by_name,
        stated=_stated(spec),
    )


def _stated(spec: VerificationPolicySpec) -> dict[str, object]:
    refuse = spec.refuse
    stated: dict[str, object | None] = {
        "mode": Mode[spec.mode.name] if spec.mode else None,
        "capacity": Capacity[spec.capacity.name] if spec.capacity else None,
        "refuse_waiting": refuse.waiting if refuse else None,
        "refuse_undecided": refuse.undecided if refuse else None,
        "codes": {code: CodeAnswer[answer.name] for code, answer in spec.codes.items()} if spec.codes else None,
        "disclosure": Disclosure[spec.disclosure.name] if spec.disclosure else None,
        "stale_after_seconds": spec.stale_after_seconds,
        "claim_seconds": spec.claim_seconds,
        "provisionable": tuple(_pool(each) for each in spec.provisionable) if spec.provisionable else None,
    }
    return {name: value for name, value in stated.items() if value is not None}


def _pool(pool: ProvisionablePool) -> Node:
    """The pool's nodes, as one node that counts ``maxNodes`` times."""
    resource = pool.resource or "nvidia.com/gpu"
    labels = {"nvidia.com/gpu.product": pool.product, **(pool.labels or {})}
    taints = tuple(Taint(key=each.key, value=each.value or "", effect=each.effect.value) for each in pool.taints or ())
    unstated = {"cpu": AMPLE, "memory": AMPLE, "ephemeral-storage": AMPLE, "pods": AMPLE}
    return Node(
        name=pool.name,
        shape=NodeShape(taints=taints, gpu=gpu_of(pool.product, None)),
        labels=labels,
        state=NodeState.PROVISIONABLE,
        allocatable={**unstated, **resources(pool.allocatable), resource: pool.gpus_per_node},
        count=pool.max_nodes,
        origin=f"pool {pool.name}",
    )
