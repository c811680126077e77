"""What nodes were, while something of them is on its way: the life of a cluster.

A node that was just deleted still counts as what the cluster may get for a while, one whose device plugin restarts
keeps its last known GPUs, one whose labels vanish keeps its last known labels. In memory alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from shardgate.adapters.gpu_resources import is_gpu
from shardgate.adapters.nodes import Shapes
from shardgate.adapters.remembered_nodes import RememberedNodes
from shardgate.domain.inventory import DEVICE_CLASS_DOMAIN, REMEMBERED_LABELS, Node, NodeState, is_device

GONE_COUNTS_SECONDS = 15 * 60
TRANSITION_SECONDS = 15 * 60
LABELS_KEPT_SECONDS = 24 * 3600
LABELLERS = ("nvidia.com/", "amd.com/", "gpu.intel.com/", "feature.node.kubernetes.io/")
"""Prefixes of labels that a labeller writes, and takes away as a whole while it is replaced."""


OPERATORS_LABELS = (
    "nvidia.com/gpu.present",
    "nvidia.com/gpu.deploy.",
    "nvidia.com/gpu.workload.",
    "nvidia.com/gpu-driver-upgrade",
    "nvidia.com/mig.config",
    "nvidia.com/device-plugin.config",
    "nvidia.com/vgpu.config",
    "nvidia.com/dra-kubelet-plugin",
)
"""Written by the GPU Operator itself: they stay while GPU Feature Discovery's are away."""


@dataclass(slots=True)
class _Known:
    """What is remembered of a node: as it last was with GPUs, and since when something is missing."""

    good: Node
    gpus_missing_since: float | None = None
    labels_missing_since: float | None = None
    gone_since: float | None = None


@dataclass(slots=True)
class NodeMemory:
    """Of all nodes with GPUs. The caller says what time it is, in seconds of any steady clock."""

    shapes: Shapes
    left: RememberedNodes = field(default_factory=RememberedNodes)
    """Those that went, and count as here no longer."""
    expires: float = float("inf")
    """When the next remembered thing stops counting."""
    _known: dict[str, _Known] = field(default_factory=dict)
    _timed: dict[str, None] = field(default_factory=dict)
    """Names of nodes of which something is remembered for a while."""

    def knows(self, name: str) -> bool:
        """Whether it had GPUs, a while ago or now."""
        return name in self._known

    def is_gone(self, name: str) -> bool:
        """Whether it was deleted, a short while ago."""
        return name in self._known and self._known[name].gone_since is not None

    def drop(self, name: str) -> None:
        """It is seen as if for the first time."""
        self._known.pop(name, None)

    def went(self, name: str, now: float) -> None:
        """It was deleted."""
        if name in self._known:
            self._known[name].gone_since = now

    def saw(self, name: str, stated: Node | None, now: float) -> None:
        """It is there, and says this of itself; ``None``: nothing of GPUs."""
        known = self._known.get(name)
        if known is not None and (stated is None or _lost_devices(known.good, stated)):
            known.gone_since = None
            if known.gpus_missing_since is None:
                known.gpus_missing_since = now
            if stated is not None:
                remembering = self._remembering_labels(stated, known, now)
                known.good = replace(known.good, shape=remembering.shape, labels=remembering.labels)
        elif stated is not None and _devices(stated):
            if known is None:
                known = self._known[name] = _Known(good=stated)
            else:
                known.good = self._remembering_labels(stated, known, now)
            known.gpus_missing_since = known.gone_since = None
            self.left.here(known.good)
        elif known is not None:
            known.gone_since = None

    def present(self, name: str, stated: Node | None, now: float) -> Node | None:
        """The node as it counts now: as stated, or as remembered while something is on its way."""
        known = self._known.get(name)
        if known is None:
            return stated
        if known.gone_since is not None:
            still = now - known.gone_since < GONE_COUNTS_SECONDS
            return replace(known.good, state=NodeState.GONE, unavailable_gpus={}) if still else None
        if known.gpus_missing_since is not None:
            if _says_so(stated) or now - known.gpus_missing_since < TRANSITION_SECONDS:
                return replace(known.good, state=NodeState.IN_TRANSITION, unavailable_gpus={})
            return stated
        if known.labels_missing_since is not None and now - known.labels_missing_since >= LABELS_KEPT_SECONDS:
            return stated
        return known.good

    def forget(self, stated: Mapping[str, Node | None], now: float) -> Iterator[str]:
        """What was remembered for long enough counts no longer: names of the nodes that are others by that."""
        for name in list(self._timed):
            known = self._known.get(name)
            if known is None or not any(deadline <= now for deadline in _deadlines(known)):
                continue
            said = stated.get(name)
            if known.gone_since is not None and now - known.gone_since >= GONE_COUNTS_SECONDS:
                self.left.left(known.good, known.gone_since)
                del self._known[name]
            elif known.gpus_missing_since is not None and not _says_so(said):
                if said is not None and _devices(said):
                    self._known[name] = _Known(good=said)
                    self.left.here(said)
                else:
                    self.left.left(known.good, known.gpus_missing_since)
                    del self._known[name]
            elif known.labels_missing_since is not None and said is not None:
                self._known[name] = _Known(good=said)
            else:
                continue
            yield name

    def note_deadlines(self, name: str) -> None:
        """Whether something of the node is remembered for a while: only those need be looked at as time goes by."""
        known = self._known.get(name)
        if known is not None and any(True for _ in _deadlines(known)):
            self._timed[name] = None
        else:
            self._timed.pop(name, None)

    def note_next(self, now: float) -> None:
        """Of all that were noted: ``expires``."""
        deadlines = (deadline for name in self._timed for deadline in _deadlines(self._known[name]))
        self.expires = min((each for each in deadlines if each > now), default=float("inf"))

    def _remembering_labels(self, node: Node, known: _Known, now: float) -> Node:
        """The node as stated, with a labeller's labels that all vanished at once put back, for a while."""
        before = known.good
        vanished = {
            key: value
            for prefix in LABELLERS
            if not any(_is_labellers(key, prefix) for key in node.labels)
            for key, value in before.labels.items()
            if _is_labellers(key, prefix)
        }
        if not vanished:
            known.labels_missing_since = None
            return node
        if known.labels_missing_since is None:
            known.labels_missing_since = now
        gpu, units = node.shape.gpu, node.shape.units
        if gpu.product is None and before.shape.gpu.product is not None:
            gpu, units = replace(before.shape.gpu, source=REMEMBERED_LABELS), before.shape.units
        shape = self.shapes.shape(node.shape.taints, gpu, tuple(units.items()))
        return replace(node, shape=shape, labels=self.shapes.labels({**vanished, **node.labels}))


def _is_labellers(key: str, prefix: str) -> bool:
    return key.startswith(prefix) and not key.startswith(OPERATORS_LABELS)


def _devices(node: Node) -> dict[str, int]:
    """Devices that a pod could get there."""
    return {name: amount for name, amount in node.allocatable.items() if amount > 0 and is_device(name)}


def _lost_devices(before: Node, now: Node) -> bool:
    """All of a vendor's GPUs went away: a plugin or driver is, nothing was rebuilt."""
    had, has = ({_offered_by(name) for name in _devices(node) if _offered_by(name)} for node in (before, now))
    return bool(had - has)


def _offered_by(resource: str) -> str:
    """What a GPU resource goes away with: its vendor's domain, or DeviceClasses; empty for what is no GPU."""
    domain = resource.partition("/")[0]
    return domain if domain == DEVICE_CLASS_DOMAIN or is_gpu(resource) else ""


def _says_so(stated: Node | None) -> bool:
    """A node that tells itself that its GPUs are being changed."""
    return stated is not None and stated.state is NodeState.IN_TRANSITION and not stated.unavailable_gpus


def _deadlines(known: _Known) -> Iterable[float]:
    if known.gone_since is not None:
        yield known.gone_since + GONE_COUNTS_SECONDS
    if known.gpus_missing_since is not None:
        yield known.gpus_missing_since + TRANSITION_SECONDS
    if known.labels_missing_since is not None:
        yield known.labels_missing_since + LABELS_KEPT_SECONDS
