"""Nodes of the inventory from Node objects: shapes shared by like nodes, and the state of each."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace

from shardgate.adapters.gpu_node_reports import KIND as REPORT
from shardgate.adapters.gpu_resources import MIG, PLAIN, gpus_among, is_gpu, passed_through, vendor_of
from shardgate.adapters.gpus import gpu_from
from shardgate.adapters.nodes.objects import NodeObject, NodeSpec, NodeStatus
from shardgate.adapters.nodes.reading import NodeReading, read_gpus
from shardgate.adapters.nodes.reports import NodeFacts
from shardgate.adapters.nodes.slices import Device, DeviceClass
from shardgate.adapters.nodes.statements import COUNT, PRODUCT, sold_with, whole_number
from shardgate.adapters.quantities import AMPLE, resources
from shardgate.domain.inventory import DEVICE_CLASS_DOMAIN, Gpu, Node, NodeShape, NodeState, Sharing, Taint, Visible, is_device
from shardgate.domain.units import MEBI, Bytes

_OWN_LABELS = frozenset({"kubernetes.io/hostname", "nvidia.com/gfd.timestamp"})
"""Labels that differ on every node, and that no pod selects by (the host's name is compared with the node's)."""

_DRIVER_UPGRADE_UNDERWAY = frozenset(
    f"{step}-required" for step in ("cordon", "wait-for-jobs", "pod-deletion", "drain", "pod-restart", "validation", "uncordon")
)
"""``nvidia.com/gpu-driver-upgrade-state`` while the GPU Operator works on the node (NVIDIA/k8s-operator-libs upgrade)."""
_MIG_CHANGE_UNDERWAY = frozenset({"pending", "rebooting"})

_NVIDIA = "nvidia.com/"
_UNSTATED = {"cpu": AMPLE, "memory": AMPLE, "ephemeral-storage": AMPLE, "pods": AMPLE}
"""Every kubelet states these; an excerpt of a node that does not is no node without them."""

MAX_SHAPES = 50_000
"""Bounded, whatever labels come and go."""

Units = tuple[tuple[str, Gpu], ...]
_NO_GPU = Gpu(product=None, memory=None, visible=None)
"""A unit of which nothing is told."""


class Shapes:
    """Shares equal node shapes and readings, so that what holds for one need not be worked out for each node."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[tuple[Taint, ...], Gpu, Units], NodeShape] = {}
        self._labels: dict[frozenset[tuple[str, str]], dict[str, str]] = {}
        self._units: dict[object, tuple[Gpu, Units, Mapping[str, str]]] = {}
        """By identity of the labels, which the value keeps alive."""
        self._by_identity: dict[object, tuple[NodeShape, Gpu, Units]] = {}
        """The same shapes by identity of their parts: comparing those costs more than all else."""
        self._changed: dict[tuple[int, Hashable], tuple[NodeShape, NodeShape]] = {}
        """By identity of the shape as it was, which the value keeps alive."""

    def shape(self, taints: tuple[Taint, ...], gpu: Gpu, units: Units = ()) -> NodeShape:
        """The one shape with these taints and GPUs."""
        quick = (taints, id(gpu), id(units))
        known = self._by_identity.get(quick)
        if known is not None:
            return known[0]
        key = (taints, gpu, units)
        if len(self._shapes) > MAX_SHAPES:
            self._shapes.clear()
            self._by_identity.clear()
        if key not in self._shapes:
            self._shapes[key] = NodeShape(taints=taints, gpu=gpu, units=dict(units))
        if len(self._by_identity) <= MAX_SHAPES:
            self._by_identity[quick] = self._shapes[key], gpu, units
        return self._shapes[key]

    def changed(self, shape: NodeShape, key: Hashable, change: Callable[[Gpu], Gpu]) -> NodeShape:
        """The one shape that comes of changing each of its units; ``key`` names the change."""
        if len(self._changed) > MAX_SHAPES:
            self._changed.clear()
        known = self._changed.get((id(shape), key))
        if known is None:
            units = tuple((name, change(each)) for name, each in shape.units.items())
            known = self._changed[id(shape), key] = shape, self.shape(shape.taints, change(shape.gpu), units)
        return known[1]

    def labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The one object for these labels."""
        if len(self._labels) > MAX_SHAPES:
            self._labels.clear()
        return self._labels.setdefault(frozenset(labels.items()), dict(labels))

    def units(
        self, labels: Mapping[str, str], allocatable: Mapping[str, int], capacity: Mapping[str, int], register: str,
        devices: tuple[Device, ...], report: NodeFacts | None = None, report_problem: str = "",
    ) -> tuple[Gpu, Units]:  # fmt: skip
        """What a unit is, in general and by resource; equal nodes are read once. ``labels``: as ``labels()`` gave them."""
        key = (
            id(labels),
            tuple(gpus_among(allocatable).items()),
            tuple(gpus_among(capacity).items()),
            register,
            devices,
            report,
            report_problem,
        )
        if len(self._units) > MAX_SHAPES:
            self._units.clear()
        if key not in self._units:
            told = _of_vendor_here(labels, allocatable, capacity)
            reading = read_gpus(told, allocatable, capacity, register, devices, report)
            gpu, units = units_of(reading)
            if report_problem:
                gpu = replace(gpu, report_problem=report_problem)
                units = tuple((name, replace(each, report_problem=report_problem)) for name, each in units)
            known = {name for name, _ in units}
            others = ((name, _NO_GPU) for name in gpus_among({**allocatable, **capacity}) if name not in known)
            self._units[key] = gpu, (*units, *(each for each in others if _is_of_another(each[0], reading.vendor))), labels
        return self._units[key][:2]


def _is_of_another(resource: str, vendor: str | None) -> bool:
    """Whether what is read of a node's GPUs tells nothing of this resource."""
    return passed_through(resource) is not None or vendor_of(resource) not in ("", vendor, None if vendor else vendor_of(resource))


def _of_vendor_here(labels: Mapping[str, str], allocatable: Mapping[str, int], capacity: Mapping[str, int]) -> Mapping[str, str]:
    """The labels, NVIDIA's left out where the node has another vendor's GPUs and none of NVIDIA's: they are stale."""
    here = {vendor_of(name) for amounts in (allocatable, capacity) for name, amount in gpus_among(amounts).items() if amount > 0}
    if PRODUCT not in labels or not here or "nvidia" in here or "" in here:
        return labels
    return {key: value for key, value in labels.items() if not key.startswith(_NVIDIA)}


def units_of(reading: NodeReading) -> tuple[Gpu, Units]:
    """The GPU as ``nvidia.com/gpu`` or its like gives it, and those of resources that give something else."""
    unshared = reading.sharing is None  # as far as anybody tells
    cut = "MIG slice" if reading.sharing is Sharing.MIG_SINGLE else ""
    plain = _unit(reading, reading.memory_mib if unshared else reading.unit_memory_mib, reading.sharing, cut)
    units = [
        (name, _unit(reading, mib, Sharing.MIG_MIXED if name.startswith(MIG) else reading.sharing, _part(name)))
        for name, mib in reading.memory_of_resource_mib.items()
    ]
    if reading.sharing is Sharing.MIG_MIXED:  # GPUs that are not cut stay whole
        units += [(PLAIN, _unit(reading, reading.memory_mib, Sharing.NONE))]
        units += [
            (name, _unit(reading, None, Sharing.MIG_MIXED, _part(name)))
            for name in reading.resources
            if name.startswith(MIG) and name not in reading.memory_of_resource_mib
        ]
    return plain, tuple(units)


def _part(resource: str) -> str:
    return resource.removeprefix(_NVIDIA).removesuffix(".shared") if resource.startswith(MIG) else ""


def _unit(reading: NodeReading, mib: int | None, sharing: Sharing | None, part: str = "") -> Gpu:
    """One schedulable unit; a sharing that nothing speaks for is taken to be none, one that counts speak for is some."""
    if reading.contradicts("sharing"):
        sharing = Sharing.OTHER
    found = gpu_from(
        row=reading.row,
        product=reading.product,
        memory=None if mib is None else Bytes(mib * MEBI),
        possible=tuple(Bytes(each * MEBI) for each in reading.possible_memory_mib) if sharing in (Sharing.NONE, None) else (),
        compute_capability=reading.compute_capability,
        sharing=sharing or Sharing.NONE,
        part=part,
        units_per_card=reading.units_per_card,
        nvlink=reading.nvlink if reading.vendor in (None, "nvidia") and reading.gpus_physical != 1 else None,
        source=reading.sources.get("unitMemoryMib") or reading.sources.get("memoryMib") or "nothing tells the memory",
        contradictions=tuple(
            (str(each.fact), each.message) for each in reading.contradictions if each.is_of_report or each.fact != "count"
        ),
    )
    if part or cut_off_from_links(sharing):
        return found
    visible = found.visible
    if reading.visible is not None and found.memory is not None:
        seen = min(reading.visible, found.memory)
        visible = Visible(low=seen, high=seen, source=f"{REPORT}: total less what the driver keeps")
    return replace(found, links=reading.links, visible=visible)


def cut_off_from_links(sharing: Sharing | None) -> bool:
    """Parts of GPUs have no NVLink, and memory of their own."""
    return sharing in (Sharing.MIG_SINGLE, Sharing.MIG_MIXED)


def read_node(
    node: NodeObject,
    shapes: Shapes,
    devices: tuple[Device, ...] = (),
    report: NodeFacts | None = None,
    report_problem: str = "",
    *,
    has_no_cuda: bool = False,
) -> Node | None:
    """A node with devices, as it says of itself; ``None`` for one that has none and never said so.

    ``report``: what its agent says, where that counts; ``report_problem``: why it does not; ``has_no_cuda``: NVIDIA's driver
    is in no state to run anything.

    Raises ``QuantityError`` for an amount that is no quantity.
    """
    status, spec = node.status or NodeStatus(), node.spec or NodeSpec()
    capacity = resources(status.capacity)
    allocatable = resources(status.allocatable) or capacity
    names = {name for name in (*allocatable, *capacity) if is_device(name)}
    labels = node.metadata.labels or {}
    registered = bool(devices) or any(amount > 0 and _may_be_gpu(name) for name, amount in capacity.items())
    expected = None if registered else _expected(labels, report)
    if not names and not devices and PRODUCT not in labels and expected is None:
        return None
    unavailable = {name: capacity.get(name, 0) - allocatable.get(name, 0) for name in names}
    state = state_of(node)
    if expected is not None:  # no device plugin has registered (yet, or since a restart)
        state = NodeState.IN_TRANSITION if state is NodeState.USABLE else state
        unavailable[expected[0]] = expected[1]
    if has_no_cuda and state is NodeState.USABLE and (PRODUCT in labels or devices or any(map(_is_nvidia, names))):
        state = NodeState.IN_TRANSITION
    kept = shapes.labels({key: value for key, value in labels.items() if key not in _OWN_LABELS})
    taints = tuple(Taint(key=each.key, value=each.value, effect=each.effect) for each in spec.taints or ())
    register = node.metadata.annotations.hami_register if node.metadata.annotations else ""
    gpu, units = shapes.units(kept, allocatable, capacity, register, devices, report, report_problem)
    return Node(
        name=node.metadata.name,
        shape=shapes.shape(taints, gpu, units),
        labels=kept,
        state=state,
        allocatable={**_UNSTATED, **allocatable},
        unavailable_gpus={name: amount for name, amount in unavailable.items() if amount > 0},
        hostname=labels.get("kubernetes.io/hostname", ""),
    )


def _expected(labels: Mapping[str, str], report: NodeFacts | None) -> tuple[str, int] | None:
    """(resource, how many) that a node will offer, by its driver, GPU Feature Discovery's labels or its cloud's."""
    if report is not None and report.whole > 0 and not report.parts:
        return PLAIN, report.whole
    labelled = whole_number(labels.get(COUNT)) or 0 if PRODUCT in labels else 0
    return (PLAIN, labelled) if labelled else sold_with(labels)


def _is_nvidia(resource: str) -> bool:
    return vendor_of(resource) == "nvidia"


def _may_be_gpu(resource: str) -> bool:
    return resource.startswith(_NVIDIA) or is_gpu(resource)


def with_device_classes(node: Node, classes: Iterable[DeviceClass], devices: tuple[Device, ...], shapes: Shapes) -> Node:
    """The node with what DeviceClasses' names and extended resources offer, where no device plugin offers the same."""
    allocatable, units, unavailable = dict(node.allocatable), dict(node.shape.units), dict(node.unavailable_gpus)
    whole_on = {(each.driver, each.pool) for each in devices if each.is_whole}
    for each in classes:
        own = [device for device in devices if each.takes(device)]
        names = [name for name in (f"{DEVICE_CLASS_DOMAIN}/{each.name}", each.extended_resource) if name]
        if not own or any(node.allocatable.get(name, 0) for name in names):
            continue
        # Parts that stand beside their GPU share it: as many as are listed do not fit at once.
        shares = any(not device.is_whole and (device.driver, device.pool) in whole_on for device in own)
        for name in names:
            allocatable[name] = sum(device.is_healthy and device.is_counted for device in own)
            unavailable[name] = len(own) - allocatable[name]  # tainted, or of a pool that the driver is still listing
            if shares or not each.is_read:
                units[name] = Gpu(product=None, memory=None, visible=None, source=f"DeviceClass {each.name} is not read as a whole")
            elif not own[0].is_whole:
                units[name] = _part_unit(node.shape.gpu, own)
    if allocatable == node.allocatable:
        return node
    return replace(
        node,
        allocatable=allocatable,
        unavailable_gpus={name: amount for name, amount in unavailable.items() if amount > 0},
        shape=shapes.shape(node.shape.taints, node.shape.gpu, tuple(units.items())),
    )


def _part_unit(gpu: Gpu, parts: list[Device]) -> Gpu:
    sizes = {each.memory for each in parts}
    memory = sizes.pop() if len(sizes) == 1 else None
    return gpu_from(
        row=None, product=parts[0].product or gpu.product, memory=memory, possible=(),
        compute_capability=parts[0].compute_capability or gpu.compute_capability, sharing=Sharing.MIG_MIXED,
        part=f"mig-{parts[0].profile}" if parts[0].profile else "part", nvlink=None, source="ResourceSlice",
    )  # fmt: skip


def read_node_without_gpus(node: NodeObject, shapes: Shapes) -> Node:
    """A node that offers no GPUs: where it stands, and whom it lets on."""
    labels, spec = node.metadata.labels or {}, node.spec or NodeSpec()
    kept = {key: value for key, value in labels.items() if key not in _OWN_LABELS}
    taints = tuple(Taint(key=each.key, value=each.value, effect=each.effect) for each in spec.taints or ())
    return Node(
        name=node.metadata.name,
        shape=shapes.shape(taints, _NO_GPU),
        labels=shapes.labels(kept),
        state=state_of(node),
        allocatable={},
        hostname=labels.get("kubernetes.io/hostname", ""),
    )


def state_of(node: NodeObject) -> NodeState:
    """Whether the node takes pods now, as it says of itself."""
    labels, status = node.metadata.labels or {}, node.status or NodeStatus()
    ready = next((each.status for each in status.conditions or () if each.type == "Ready"), "True")
    if ready != "True":
        return NodeState.NOT_READY
    if labels.get("nvidia.com/gpu-driver-upgrade-state") in _DRIVER_UPGRADE_UNDERWAY:
        return NodeState.IN_TRANSITION
    if labels.get("nvidia.com/mig.config.state") in _MIG_CHANGE_UNDERWAY:
        return NodeState.IN_TRANSITION
    return NodeState.CORDONED if node.spec is not None and node.spec.unschedulable else NodeState.USABLE
