"""Node objects -> what a pod can be given there.

Counts come from ``status.allocatable`` alone; labels tell the kind. A missing label is an unknown fact, never zero.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from shardgate.adapters.gpus import gpu_of
from shardgate.adapters.quantities import AMPLE, resources
from shardgate.domain.inventory import Gpu, Node, NodeShape, NodeState, Sharing, Taint, is_device
from shardgate.domain.units import MEBI, Bytes

GPU_PRODUCT, GPU_MEMORY = "nvidia.com/gpu.product", "nvidia.com/gpu.memory"
_OWN_LABELS = frozenset({"kubernetes.io/hostname", "nvidia.com/gfd.timestamp"})
"""Labels that differ on every node, and that no pod selects by (the host's name is compared with the node's)."""

_DRIVER_UPGRADE_UNDERWAY = frozenset(
    f"{step}-required" for step in ("cordon", "wait-for-jobs", "pod-deletion", "drain", "pod-restart", "validation", "uncordon")
)
"""``nvidia.com/gpu-driver-upgrade-state`` while the GPU Operator works on the node (NVIDIA/k8s-operator-libs upgrade)."""
_MIG_CHANGE_UNDERWAY = frozenset({"pending", "rebooting"})

NVIDIA = "nvidia.com/"
_UNSTATED = {"cpu": AMPLE, "memory": AMPLE, "ephemeral-storage": AMPLE, "pods": AMPLE}
"""Every kubelet states these; an excerpt of a node that does not is no node without them."""

_BYTES_FROM = 2**20
"""GFD wrote ``gpu.memory`` in bytes in mid-2022: a value this large in MiB would be a tebibyte."""


class NodeMetadata(msgspec.Struct, gc=False):
    """The part of ObjectMeta that is read."""

    name: str = ""
    uid: str = ""
    namespace: str = ""
    resourceVersion: str = ""  # noqa: N815  # as the API spells it
    labels: dict[str, str] | None = None


class NodeTaint(msgspec.Struct, gc=False):
    """A taint."""

    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(msgspec.Struct, gc=False):
    """The part of a node's spec that is read."""

    unschedulable: bool = False
    taints: list[NodeTaint] | None = None


class NodeCondition(msgspec.Struct, gc=False):
    """A condition."""

    type: str = ""
    status: str = ""


class NodeStatus(msgspec.Struct, gc=False):
    """The part of a node's status that is read."""

    capacity: dict[str, str | int | float] | None = None
    allocatable: dict[str, str | int | float] | None = None
    conditions: list[NodeCondition] | None = None


class NodeObject(msgspec.Struct, gc=False):
    """A Node, decoded no further than it is read."""

    metadata: NodeMetadata
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


MOST_UNITS = 10_000
MAX_SHAPES = 50_000
"""Bounded, whatever labels come and go."""


class Shapes:
    """Shares equal node shapes, so that what holds for one need not be worked out for each node."""

    def __init__(self) -> None:
        self._known: dict[tuple[frozenset[tuple[str, str]], tuple[Taint, ...], Gpu], NodeShape] = {}

    def shape(self, labels: Mapping[str, str], taints: tuple[Taint, ...], gpu: Gpu) -> NodeShape:
        """The one shape with these labels, taints and GPU."""
        key = (frozenset(labels.items()), taints, gpu)
        if len(self._known) > MAX_SHAPES:
            self._known.clear()
        if key not in self._known:
            self._known[key] = NodeShape(labels=dict(labels), taints=taints, gpu=gpu)
        return self._known[key]


def read_node(node: NodeObject, shapes: Shapes) -> Node | None:
    """A node with devices, as it says of itself; ``None`` for one that has none and never said so.

    Raises ``QuantityError`` for an amount that is no quantity.
    """
    status, spec = node.status or NodeStatus(), node.spec or NodeSpec()
    allocatable, capacity = resources(status.allocatable), resources(status.capacity)
    devices = {name for name in (*allocatable, *capacity) if is_device(name)}
    labels = node.metadata.labels or {}
    if not devices and GPU_PRODUCT not in labels:
        return None
    unavailable = {name: capacity.get(name, 0) - allocatable.get(name, 0) for name in devices}
    state = _state(node)
    labelled = _labelled_count(labels) if GPU_PRODUCT in labels else 0
    if labelled and not any(name.startswith(NVIDIA) and capacity.get(name, 0) > 0 for name in devices):
        # Labelled by GPU Feature Discovery, and no device plugin has registered (yet, or since a restart).
        state = NodeState.IN_TRANSITION if state is NodeState.USABLE else state
        unavailable["nvidia.com/gpu"] = labelled
    kept = {key: value for key, value in labels.items() if key not in _OWN_LABELS}
    taints = tuple(Taint(key=each.key, value=each.value, effect=each.effect) for each in spec.taints or ())
    return Node(
        name=node.metadata.name,
        shape=shapes.shape(kept, taints, read_gpu(labels, allocatable)),
        state=state,
        allocatable={**_UNSTATED, **allocatable},
        unavailable_gpus={name: amount for name, amount in unavailable.items() if amount > 0},
        hostname=labels.get("kubernetes.io/hostname", ""),
    )


def _labelled_count(labels: Mapping[str, str]) -> int:
    count = labels.get("nvidia.com/gpu.count", "")
    return int(count) if count.isascii() and count.isdigit() else 0


def read_gpu(labels: Mapping[str, str], allocatable: Mapping[str, int]) -> Gpu:
    """The node's GPU product, memory of a unit and sharing, from GPU Feature Discovery's labels."""
    product = labels.get(GPU_PRODUCT)
    whole = gpu_of(product, _memory(labels.get(GPU_MEMORY)))
    sharing = _sharing(labels, product or "", allocatable)
    if sharing is Sharing.NONE:
        return whole
    # What an engine sees of a whole card says nothing of a part of one.
    visible = whole.visible if sharing is Sharing.TIME_SLICING else None
    return replace(whole, visible=visible, sharing=sharing, units_per_card=_units_per_card(labels, sharing))


def _units_per_card(labels: Mapping[str, str], sharing: Sharing) -> int | None:
    """Schedulable units of one card that is shared in time; ``None`` where nothing tells."""
    replicas = labels.get("nvidia.com/gpu.replicas", "")
    if sharing not in (Sharing.TIME_SLICING, Sharing.MPS) or not replicas.isascii() or not replicas.isdigit():
        return None
    return int(replicas) if 1 < int(replicas) < MOST_UNITS else None


def _memory(label: str | None) -> Bytes | None:
    digits = (label or "").removesuffix("MiB")
    if not digits.isascii() or not digits.isdigit() or int(digits) == 0:
        return None
    return Bytes(int(digits) if int(digits) >= _BYTES_FROM else int(digits) * MEBI)


def _sharing(labels: Mapping[str, str], product: str, allocatable: Mapping[str, int]) -> Sharing:
    if labels.get("nvidia.com/vgpu.present") == "true":
        return Sharing.VGPU
    if "-MIG-" in product:
        return Sharing.MIG_SINGLE
    if any(name.startswith("nvidia.com/mig-") and amount > 0 for name, amount in allocatable.items()):
        return Sharing.MIG_MIXED
    strategy, replicas = labels.get("nvidia.com/gpu.sharing-strategy", ""), labels.get("nvidia.com/gpu.replicas", "1")
    if strategy == "mps":
        return Sharing.MPS
    shared = product.endswith("-SHARED") or (replicas.isdigit() and int(replicas) > 1)
    if strategy == "time-slicing" or shared or allocatable.get("nvidia.com/gpu.shared", 0) > 0:
        return Sharing.TIME_SLICING
    return Sharing.NONE


def _state(node: NodeObject) -> NodeState:
    labels, status = node.metadata.labels or {}, node.status or NodeStatus()
    ready = next((each.status for each in status.conditions or () if each.type == "Ready"), "True")
    if ready != "True":
        return NodeState.NOT_READY
    if labels.get("nvidia.com/gpu-driver-upgrade-state") in _DRIVER_UPGRADE_UNDERWAY:
        return NodeState.IN_TRANSITION
    if labels.get("nvidia.com/mig.config.state") in _MIG_CHANGE_UNDERWAY:
        return NodeState.IN_TRANSITION
    return NodeState.CORDONED if node.spec is not None and node.spec.unschedulable else NodeState.USABLE


def node_from(body: Mapping[str, Any]) -> NodeObject:
    """A Node from plain values. Raises ``msgspec.ValidationError`` naming the field."""
    return msgspec.convert(body, NodeObject, strict=False)
