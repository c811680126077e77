"""Which pod goes to which node, as kube-scheduler's filters would allow, and what stood in the way.

All pods of a declaration are alike here, so counting how many of them each node takes is exact: a node's count is
the least of free / requested over all requested resources, and replicas may mix nodes. The map is an example that
holds now; the scheduler picks nodes and the kubelet devices, so GPUs are local indices.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from fnmatch import fnmatchcase

from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import UNSCHEDULABLE_TAINT, Node, NodeShape, NodeState, Resources, Taint
from shardgate.domain.units import count

MAX_EXAMPLE_PODS = 4096
"""An example of more pods tells nobody more, and costs time on the admission path."""


class View(Enum):
    """Which cluster is asked about."""

    NOW = "what is free"
    IDLE = "what is installed and takes pods, were nothing else running"
    OBTAINABLE = "all that is here, unavailable nodes and devices included"


class Reason(StrEnum):
    """Why a node was left out; the order is that of the filters."""

    PRODUCT = "another product"
    SELECTOR = "node selector"
    TAINT = "tainted"
    CORDONED = "cordoned"
    NOT_READY = "not ready"
    IN_TRANSITION = "in transition"
    GONE = "gone"
    PROVISIONABLE = "not provisioned yet"
    MEMORY = "GPU memory too small"
    GPUS = "too few free GPUs"
    OTHER_RESOURCE = "too little CPU, memory or pod room"


_STATE_REASONS = {
    NodeState.CORDONED: Reason.CORDONED,
    NodeState.NOT_READY: Reason.NOT_READY,
    NodeState.IN_TRANSITION: Reason.IN_TRANSITION,
    NodeState.GONE: Reason.GONE,
    NodeState.PROVISIONABLE: Reason.PROVISIONABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """Nodes left out for one reason."""

    reason: Reason
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedPod:
    """One pod of one replica: its node, and the ranks on its local GPUs."""

    replica: int
    pod: int
    node: str
    pool: str
    local_gpus: tuple[int, ...]
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Whether all replicas fit now, and when idle; how many fit now; an example, and the nodes left out now."""

    feasible: bool
    feasible_when_idle: bool
    replicas_that_fit: int
    pods: tuple[PlacedPod, ...]
    excluded: tuple[Exclusion, ...]

    def excluded_summary(self) -> str:
        """``12 nodes: 3 tainted, 9 with too few free GPUs``; empty when none was left out."""
        return summary_of(self.excluded)


def summary_of(excluded: Iterable[Exclusion]) -> str:
    """Counts by reason, in the filters' order."""
    parts = [f"{len(each.nodes)} {each.reason.value}" for each in excluded]
    total = sum(len(each.nodes) for each in excluded)
    return f"{count(total, 'node')}: {', '.join(parts)}" if parts else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodShape:
    """What each pod asks for, and how many there are."""

    resource: str
    gpus: int
    requests: Resources
    """All of it: GPUs, one pod, and what else is declared."""
    pods_per_replica: int
    replicas: int
    ranks_per_pod: int
    ranks_per_replica: int

    @property
    def pods(self) -> int:
        """Over all replicas."""
        return self.pods_per_replica * self.replicas


@dataclass(slots=True)
class NodeFilter:
    """The declaration's constraints, applied to nodes; remembers its answer per node shape.

    A shape is shared by many nodes, so a scan over thousands of nodes costs a look-up each.
    """

    declaration: Declaration
    _by_shape: dict[int, Reason | None] = field(default_factory=dict)
    _permanent_by_shape: dict[int, Reason | None] = field(default_factory=dict)

    def reason_against(self, node: Node, *, passing: bool = True) -> Reason | None:
        """Why these pods cannot go to this node whatever is free there; ``passing=False`` forgives taints that pass."""
        memo = self._by_shape if passing else self._permanent_by_shape
        key = id(node.shape)
        if key not in memo:
            memo[key] = self._judge(node, node.shape, passing=passing)
        reason = memo[key]
        if reason is None and "kubernetes.io/hostname" in self.declaration.placement.node_selector:
            return self._selector(node)
        return reason

    def _judge(self, node: Node, shape: NodeShape, *, passing: bool) -> Reason | None:
        if not accepts_product(self.declaration.gpus.products, shape.gpu.product):
            return Reason.PRODUCT
        wish = self.declaration.placement
        if (against := self._selector(node, ignoring="kubernetes.io/hostname")) is not None:
            return against
        barring = (
            taint for taint in shape.taints if taint.effect in ("NoSchedule", "NoExecute") and (passing or not taint.is_passing)
        )
        if any(not any(each.tolerates(taint) for each in wish.tolerations) for taint in barring):
            return Reason.TAINT
        return None

    def _selector(self, node: Node, ignoring: str = "") -> Reason | None:
        for key, value in self.declaration.placement.node_selector.items():
            if key == ignoring:
                continue
            actual = node.name if key == "kubernetes.io/hostname" else node.shape.labels.get(key)
            if actual != value:
                return Reason.SELECTOR
        return None

    def state_reason(self, node: Node) -> Reason | None:
        """Why a node takes no pods now; a cordon is no obstacle to pods that tolerate it."""
        if node.state is NodeState.CORDONED:
            cordon = Taint(key=UNSCHEDULABLE_TAINT)
            if any(each.tolerates(cordon) for each in self.declaration.placement.tolerations):
                return None
        return _STATE_REASONS.get(node.state)


def accepts_product(patterns: tuple[str, ...], product: str | None) -> bool:
    """Shell patterns on the normalised name, case aside; no pattern accepts any, an unknown product matches none."""
    if not patterns:
        return True
    return product is not None and any(fnmatchcase(product.lower(), pattern.lower()) for pattern in patterns)


def room_for_pods(node: Node, shape: PodShape, view: View, own: Mapping[str, Resources]) -> int:
    """How many of these pods the node takes, by resources alone. Pods that are already theirs count as room."""
    least: int | None = None
    mine = own.get(node.name, {}) if view is View.NOW else {}
    for resource, requested in shape.requests.items():
        if requested <= 0:
            continue
        if view is View.NOW:
            have = node.free(resource) + mine.get(resource, 0)
        else:
            have = node.allocatable.get(resource, 0)
            if view is View.OBTAINABLE:
                have += node.unavailable_gpus.get(resource, 0)
        room = have // requested
        if least is None or room < least:
            least = room
            if room <= 0:
                return 0
    return (least or 0) * node.count


def place(
    nodes: Iterable[Node],
    node_filter: NodeFilter,
    shape: PodShape,
    own: Mapping[str, Resources],
    too_small: frozenset[int] = frozenset(),
) -> Placement:
    """Place every pod of every replica on what is free now.

    ``too_small`` holds the ids of node shapes whose GPUs do not hold a rank.
    """
    rooms: list[tuple[Node, int]] = []
    idle_room = 0
    excluded: dict[Reason, list[str]] = defaultdict(list)
    for node in nodes:
        reason = node_filter.reason_against(node) or node_filter.state_reason(node)
        if reason is None and id(node.shape) in too_small:
            reason = Reason.MEMORY
        if reason is None:
            idle_room += room_for_pods(node, shape, View.IDLE, own)
            room = room_for_pods(node, shape, View.NOW, own)
            if room > 0:
                rooms.append((node, room))
                continue
            mine = own.get(node.name, {}).get(shape.resource, 0)
            enough = node.free(shape.resource) + mine >= shape.gpus
            reason = Reason.OTHER_RESOURCE if enough else Reason.GPUS
        excluded[reason].append(node.name)
    fit = sum(room for _, room in rooms) // shape.pods_per_replica
    return Placement(
        feasible=fit >= shape.replicas,
        feasible_when_idle=idle_room >= shape.pods,
        replicas_that_fit=fit,
        pods=tuple(_example(rooms, shape)) if shape.replicas and fit >= shape.replicas else (),
        excluded=tuple(Exclusion(reason=reason, nodes=tuple(excluded[reason])) for reason in Reason if reason in excluded),
    )


def room_in_total(nodes: Iterable[Node], node_filter: NodeFilter, shape: PodShape, too_small: frozenset[int]) -> int:
    """Pods that all that is here could take, were it all available and idle; passing taints and states forgiven."""
    return sum(
        room_for_pods(node, shape, View.OBTAINABLE, {})
        for node in nodes
        if id(node.shape) not in too_small and node_filter.reason_against(node, passing=False) is None
    )


def _example(rooms: list[tuple[Node, int]], shape: PodShape) -> Iterator[PlacedPod]:
    """Whole replicas into single nodes first, the snuggest node first; what is left is filled across nodes."""
    order = sorted(rooms, key=lambda each: (each[1] < shape.pods_per_replica, each[1], each[0].name))
    taken: dict[str, int] = defaultdict(int)
    left = {node.name: room for node, room in order}
    whole = [(node, room // shape.pods_per_replica) for node, room in order]
    replica = 0
    limit = min(shape.replicas, -(-MAX_EXAMPLE_PODS // shape.pods_per_replica))
    for node, replicas_here in whole:
        for _ in range(min(replicas_here, limit - replica)):
            for pod in range(shape.pods_per_replica):
                yield _placed(replica, pod, node, taken, shape)
            left[node.name] -= shape.pods_per_replica
            replica += 1
    slots = ((node, slot) for node, _ in order for slot in range(left[node.name]))
    for rest in range(replica, limit):
        for pod in range(shape.pods_per_replica):
            node, _ = next(slots)
            yield _placed(rest, pod, node, taken, shape)


def _placed(replica: int, pod: int, node: Node, taken: dict[str, int], shape: PodShape) -> PlacedPod:
    first = taken[node.name]
    taken[node.name] += shape.gpus
    ranks = range(pod * shape.ranks_per_pod, min((pod + 1) * shape.ranks_per_pod, shape.ranks_per_replica))
    return PlacedPod(
        replica=replica,
        pod=pod,
        node=node.name,
        pool=node.shape.gpu.product or "",
        local_gpus=tuple(range(first, first + shape.gpus)),
        ranks=tuple(ranks),
    )
