"""Karpenter's NodePools and NodeClaims -> nodes that may come, and nodes that are on their way.

A pool tells requirements on labels; which instance types meet them follows from what the types' names say
(``data/instance_types.json``). A requirement on a label that is not known here rules nothing out.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any

import msgspec

from shardgate.adapters.gpu_resources import RESOURCE_OF_VENDOR
from shardgate.adapters.gpus import gpu_from, product_of_id
from shardgate.adapters.nodes.objects import NodeTaint
from shardgate.adapters.quantities import AMPLE, QuantityError, resources
from shardgate.adapters.tables import table
from shardgate.domain.arrivals import ANY_NUMBER_OF_GPUS, MANY_NODES
from shardgate.domain.inventory import Node, NodeShape, NodeState, Sharing, Taint
from shardgate.domain.selectors import Expression
from shardgate.domain.units import MEBI, Bytes

API_VERSION = "karpenter.sh/v1"
GROUP = "karpenter.sh"
MOST_NODES = MANY_NODES
"""Of one instance type, where a pool states no limit on its GPUs."""

_INSTANCE_TYPE, _ARCH, _OS = "node.kubernetes.io/instance-type", "kubernetes.io/arch", "kubernetes.io/os"
_AWS = "karpenter.k8s.aws/instance-"
_AWS_AUTO = "eks.amazonaws.com/instance-"
_TYPES_OF_CLASS = {
    "karpenter.k8s.aws": re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+"),
    "eks.amazonaws.com": re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+"),
    "karpenter.azure.com": re.compile(r"Standard_.+"),
    "karpenter.k8s.gcp": re.compile(r"(a2|a3|a4|a4x|g2|g4)-.+"),
}
"""Node classes by their API group -> the names of the cloud's instance types."""
_TELLING = frozenset(
    f"{prefix}{kind}-{what}"
    for prefix in (_AWS, _AWS_AUTO)
    for kind in ("gpu", "accelerator")
    for what in ("name", "count", "manufacturer")
)
"""Labels that a type either has, or has not: where it has not, it does not meet a requirement on them."""
_ARM_FAMILIES = ("g5g", "p6e-gb200", "p6e-gb300", "a4x")


class _Requirement(msgspec.Struct, gc=False):
    key: str = ""
    operator: str = "In"
    values: list[str] | None = None


class _NodeClass(msgspec.Struct, gc=False):
    group: str = ""


class _TemplateMetadata(msgspec.Struct, gc=False):
    labels: dict[str, str] | None = None


class _ClaimSpec(msgspec.Struct, gc=False):
    requirements: list[_Requirement] | None = None
    taints: list[NodeTaint] | None = None
    nodeClassRef: _NodeClass = msgspec.field(default_factory=_NodeClass)  # noqa: N815  # as the API spells it


class _Template(msgspec.Struct, gc=False):
    metadata: _TemplateMetadata = msgspec.field(default_factory=_TemplateMetadata)
    spec: _ClaimSpec = msgspec.field(default_factory=_ClaimSpec)


class _PoolSpec(msgspec.Struct, gc=False):
    template: _Template = msgspec.field(default_factory=_Template)
    limits: dict[str, str | int | float] | None = None


class _Condition(msgspec.Struct, gc=False):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class _PoolStatus(msgspec.Struct, gc=False):
    resources: dict[str, str | int | float] | None = None
    conditions: list[_Condition] | None = None


class _Metadata(msgspec.Struct, gc=False):
    name: str = ""
    resourceVersion: str = ""  # noqa: N815
    labels: dict[str, str] | None = None
    deletionTimestamp: str = ""  # noqa: N815


class NodePoolObject(msgspec.Struct, gc=False):
    """A NodePool, decoded no further than it is read."""

    metadata: _Metadata
    spec: _PoolSpec = msgspec.field(default_factory=_PoolSpec)
    status: _PoolStatus = msgspec.field(default_factory=_PoolStatus)


class _ClaimStatus(msgspec.Struct, gc=False):
    nodeName: str = ""  # noqa: N815
    allocatable: dict[str, str | int | float] | None = None
    conditions: list[_Condition] | None = None


class NodeClaimObject(msgspec.Struct, gc=False):
    """A NodeClaim, decoded no further than it is read."""

    metadata: _Metadata
    spec: _ClaimSpec = msgspec.field(default_factory=_ClaimSpec)
    status: _ClaimStatus = msgspec.field(default_factory=_ClaimStatus)


def nodes_of_pool(pool: NodePoolObject, standing: Mapping[str, int] = MappingProxyType({})) -> tuple[Node, ...]:
    """One node for each instance type with GPUs that the pool may launch, counted as often as its limits leave.

    Another one, counted as often as its limits could ever allow besides, takes turns with nodes of the pool that are here.
    ``standing``: instance type -> the pool's nodes that are here or on their way. Raises ``QuantityError``.
    """
    if pool.metadata.deletionTimestamp:
        return ()
    limits, held = resources(pool.spec.limits), resources(pool.status.resources)
    found = []
    for node in _nodes_unlimited(pool):
        left, most = _left(node, limits, held), _left(node, limits, {})
        later = most - max(0, left) - standing.get(node.labels.get(_INSTANCE_TYPE, ""), 0)
        if left > 0:
            found.append(replace(node, count=left))
        if later > 0 and left < MOST_NODES:
            delay = "; ".join(filter(None, (f"{_at_limit(pool, limits, held)}: once others of its nodes leave", node.delay)))
            found.append(replace(node, name=f"{node.name} later", count=later, delay=delay, takes_turns=True))
    return tuple(found)


_OF_EVERY_NODE = ("cpu", "memory", "nodes")


def _left(node: Node, limits: Mapping[str, int], held: Mapping[str, int]) -> int:
    """How many such nodes the limits leave. What CPU and memory one takes is not known."""
    if any(limits[name] <= held.get(name, 0) for name in _OF_EVERY_NODE if name in limits):
        return 0
    left = limits["nodes"] - held.get("nodes", 0) if "nodes" in limits else MOST_NODES
    resource = next(name for name in RESOURCE_OF_VENDOR.values() if name in node.allocatable)
    if resource in limits:
        of_one = 1 if node.allocatable[resource] == ANY_NUMBER_OF_GPUS else node.allocatable[resource]
        left = min(left, (limits[resource] - held.get(resource, 0)) // of_one)
    return left


def why_no_more(pool: NodePoolObject, standing: Mapping[str, int] = MappingProxyType({})) -> str:
    """Why a pool of GPU nodes brings no more of them; empty where it may, where it has none, and where that cannot be read."""
    try:
        if not _nodes_unlimited(pool) or nodes_of_pool(pool, standing):
            return ""
        limits, held = resources(pool.spec.limits), resources(pool.status.resources)
    except QuantityError:
        return ""
    if pool.metadata.deletionTimestamp:
        return "is being deleted"
    return f"has no room for another such node ({_used(pool, limits, held)})"


def _at_limit(pool: NodePoolObject, limits: Mapping[str, int], held: Mapping[str, int]) -> str:
    is_reached = any(limits[name] <= held.get(name, 0) for name in _bounding(limits))
    return f"{'at its limit' if is_reached else 'near its limit'}, {_used(pool, limits, held)}"


def _bounding(limits: Mapping[str, int]) -> list[str]:
    return [name for name in (*RESOURCE_OF_VENDOR.values(), *_OF_EVERY_NODE) if name in limits]


def _used(pool: NodePoolObject, limits: Mapping[str, int], held: Mapping[str, int]) -> str:
    """``nvidia.com/gpu: 8 of 8 used``, of the limits that are reached, else of all that bound such nodes."""
    stated, used = pool.spec.limits or {}, pool.status.resources or {}
    reached = [name for name in _bounding(limits) if limits[name] <= held.get(name, 0)] or _bounding(limits)
    return ", ".join(f"{name}: {used.get(name, 0)} of {stated[name]} used" for name in reached)


def _nodes_unlimited(pool: NodePoolObject) -> list[Node]:
    """Of each instance type with GPUs that meets the pool's requirements, one."""
    spec = pool.spec.template.spec
    required = [_expression(each) for each in spec.requirements or ()]
    stated = {**(pool.spec.template.metadata.labels or {}), f"{GROUP}/nodepool": pool.metadata.name}
    fixed = {each.key: each.values[0] for each in required if each.operator == "In" and len(each.values) == 1}
    named = frozenset(value for each in required if each.key == _INSTANCE_TYPE and each.operator == "In" for value in each.values)
    found = []
    for name, row, known in _types(spec.nodeClassRef.group, named):
        if all(each.matches(known) for each in required if each.key in known or each.key in _TELLING):
            resource = RESOURCE_OF_VENDOR[row.get("vendor", "nvidia")]
            found.append(_node(f"{pool.metadata.name}/{name}", row, {**fixed, **known, **stated}, spec.taints, resource, 1))
    if not found and _speaks_of_gpus(required, resources(pool.spec.limits), spec.taints, named):
        found.append(_unknown_node(pool.metadata.name, {**fixed, **stated}, spec.taints))
    origin, delay = f"NodePool {pool.metadata.name}", _delay(pool.status.conditions, ("Ready",))
    return [replace(each, origin=origin, delay=delay) for each in found]


def _delay(conditions: list[_Condition] | None, types: tuple[str, ...]) -> str:
    """The first of these conditions that is false, with its reason in its own words."""
    stated = {each.type: each for each in conditions or () if each.status == "False"}
    for name in types:
        if name in stated:
            told = stated[name].message or stated[name].reason
            return f"not {name}{f': {told[:MOST_CHARACTERS]}' if told else ''}"
    return ""


MOST_CHARACTERS = 120
"""Of another's message, in ours."""


_ACCELERATED = re.compile(r"(p|g|gr|trn|inf|dl)\d[a-z0-9-]*\..+|Standard_N.+|(a2|a3|a4|a4x|g2|g4)-.+")
"""Names of instance types that clouds give to those with accelerators."""


def _speaks_of_gpus(
    required: list[Expression], limits: Mapping[str, int], taints: list[NodeTaint] | None, named: frozenset[str]
) -> bool:
    """Whether a pool of which no instance type is known is one of nodes with GPUs."""
    keys = [*(each.key for each in required), *limits, *(each.key for each in taints or ())]
    return any("gpu" in key or "accelerator" in key for key in keys) or any(
        name not in table("instance_types")["types"] and _ACCELERATED.fullmatch(name) for name in named
    )


def _unknown_node(pool: str, labels: Mapping[str, str], taints: list[NodeTaint] | None) -> Node:
    """A node of which nobody knows what GPUs it has, or how many."""
    row = {"count": ANY_NUMBER_OF_GPUS, "nvlink": None}
    return _node(f"{pool}/unknown instance type", row, labels, taints, RESOURCE_OF_VENDOR["nvidia"], MOST_NODES)


def pool_and_type(node: Node) -> tuple[str, str]:
    """The NodePool that brought a node, and its instance type; empty where its labels do not tell."""
    return node.labels.get(f"{GROUP}/nodepool", ""), node.labels.get(_INSTANCE_TYPE, "")


def node_of_claim(claim: NodeClaimObject) -> Node | None:
    """A node that was launched and has not registered yet; ``None`` for one that has, or without GPUs.

    Raises ``QuantityError``.
    """
    labels = claim.metadata.labels or {}
    row = table("instance_types")["types"].get(labels.get(_INSTANCE_TYPE, ""))
    if claim.status.nodeName or row is None or not row.get("count") or row.get("vendor", "nvidia") not in RESOURCE_OF_VENDOR:
        return None
    resource = RESOURCE_OF_VENDOR[row.get("vendor", "nvidia")]
    delay = _delay(claim.status.conditions, ("Launched", "Registered", "Initialized"))
    node = _node(claim.metadata.name, row, labels, claim.spec.taints, resource, 1)
    node = replace(node, origin=f"NodeClaim {claim.metadata.name}", delay=delay or "not registered yet")
    stated = resources(claim.status.allocatable)
    return node if not stated else _with_amounts(node, stated, resource)


def _with_amounts(node: Node, stated: Mapping[str, int], resource: str) -> Node:
    allocatable = {**node.allocatable, **stated}
    allocatable[resource] = stated.get(resource) or node.allocatable[resource]
    return replace(node, allocatable=allocatable)


def _node(
    name: str, row: Mapping[str, Any], labels: Mapping[str, str], taints: list[NodeTaint] | None, resource: str, count: int
) -> Node:
    gpu = row.get("gpu")
    product = product_of_id(gpu) if isinstance(gpu, str) else None
    sizes = tuple(Bytes(mib * MEBI) for mib in product.memory_mib) if product is not None else ()
    memory = sizes[0] if len(sizes) == 1 else None
    unit = gpu_from(
        row=product, product=product.label if product is not None else None, memory=memory,
        possible=sizes if len(sizes) > 1 else (),
        compute_capability=product.compute_capability if product is not None else None, sharing=Sharing.NONE,
        nvlink=row.get("nvlink"), source="instance type",
    )  # fmt: skip
    ample = {"cpu": AMPLE, "memory": AMPLE, "ephemeral-storage": AMPLE, "pods": AMPLE}
    return Node(
        name=name,
        shape=NodeShape(taints=tuple(Taint(key=each.key, value=each.value, effect=each.effect) for each in taints or ()), gpu=unit),
        state=NodeState.PROVISIONABLE,
        allocatable={**ample, resource: row["count"]},
        labels=dict(labels),
        count=count,
    )


def _expression(stated: _Requirement) -> Expression:
    return Expression(key=stated.key, operator=stated.operator, values=tuple(stated.values or ()))


def _types(group: str, named: frozenset[str]) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, str]]]:
    """(name, row, labels that follow from the name) of a cloud's instance types with whole GPUs.

    Of a provider that is not known, those that the pool names.
    """
    pattern = _TYPES_OF_CLASS.get(group)
    for name, row, known in _known_types():
        if pattern.fullmatch(name) if pattern is not None else name in named:
            yield name, row, known


@cache
def _known_types() -> tuple[tuple[str, Mapping[str, Any], Mapping[str, str]], ...]:
    names = {gpu_id: name for name, ids in table("gpu_names")["karpenter"].items() for gpu_id in ids}
    found = []
    for name, row in table("instance_types")["types"].items():
        vendor = row.get("vendor", "nvidia")
        if not row.get("count") or vendor not in RESOURCE_OF_VENDOR:
            continue
        family = name.partition(".")[0] if "." in name else name.partition("-")[0]
        known = {_INSTANCE_TYPE: name, _ARCH: "arm64" if family in _ARM_FAMILIES else "amd64", _OS: "linux"}
        if _TYPES_OF_CLASS["karpenter.k8s.aws"].fullmatch(name):
            kind = "gpu" if vendor in ("nvidia", "amd", "habana") else "accelerator"
            told = {
                "family": family, "size": name.partition(".")[2],
                "category": re.match(r"[a-z]+", family)[0],  # type: ignore[index]  # every family begins with letters
                f"{kind}-count": str(row["count"]), f"{kind}-manufacturer": vendor,
            }  # fmt: skip
            if generation := re.match(r"[a-z]+(\d+)", family):
                told["generation"] = generation[1]
            if isinstance(row.get("gpu"), str) and row["gpu"] in names:
                told[f"{kind}-name"] = names[row["gpu"]]
            known |= {f"{prefix}{key}": value for prefix in (_AWS, _AWS_AUTO) for key, value in told.items()}
        found.append((name, row, known))
    return tuple(found)


def pool_from(body: Mapping[str, Any]) -> NodePoolObject:
    """A NodePool from plain values. Raises ``msgspec.ValidationError`` naming the field."""
    return msgspec.convert(body, NodePoolObject, strict=False)


def claim_from(body: Mapping[str, Any]) -> NodeClaimObject:
    """A NodeClaim from plain values. Raises ``msgspec.ValidationError`` naming the field."""
    return msgspec.convert(body, NodeClaimObject, strict=False)
