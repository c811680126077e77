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
from typing import TypeAlias

from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import UNSCHEDULABLE_TAINT, Node, NodeGroup, NodeShape, NodeState, Resources, Taint
from shardgate.domain.pod_rules import PodRules, is_repelled, restricted
from shardgate.domain.selectors import HOST_LABEL
from shardgate.domain.units import count

MAX_EXAMPLE_PODS = 4096
"""An example of more pods tells nobody more, and costs time on the admission path."""


class View(Enum):
    """Which cluster is asked about."""

    IDLE = "what is installed and takes pods, were nothing else running"
    OBTAINABLE = "all that is here, unavailable nodes and devices included"


class Reason(StrEnum):
    """Why a node was left out; the order is that of the filters."""

    PRODUCT = "another product"
    SELECTOR = "node selector"
    AFFINITY = "node affinity"
    RULES = "pod affinity or anti-affinity"
    TAINT = "tainted"
    CORDONED = "cordoned"
    NOT_READY = "not ready"
    IN_TRANSITION = "in transition"
    GONE = "gone"
    PROVISIONABLE = "not provisioned yet"
    MEMORY = "GPU memory too small"
    GPUS = "too few free GPUs"
    OTHER_RESOURCE = "too little CPU, memory or pod room"


_ORDER = {reason: index for index, reason in enumerate(Reason)}
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
    detail: str = ""
    """The taint (``key=value``), or how many GPUs a pod asks for."""

    @property
    def text(self) -> str:
        """``tainted nvidia.com/gpu=present``, ``with fewer than 8 free GPUs``, ``cordoned``."""
        match self.reason:
            case Reason.TAINT:
                return f"tainted {self.detail}"
            case Reason.GPUS:
                return "without a free GPU" if self.detail == "1" else f"with fewer than {self.detail} free GPUs"
            case _:
                return self.reason.value


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
    pods_that_fit: int
    """Single pods that would find a place now, whole replicas or not."""
    pods: tuple[PlacedPod, ...]
    excluded: tuple[Exclusion, ...]


def summary_of(excluded: Iterable[Exclusion]) -> str:
    """``12 nodes: 3 tainted dedicated=training, 9 with fewer than 8 free GPUs``; empty when none was left out."""
    parts = [f"{len(each.nodes)} {each.text}" for each in excluded]
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
    def other_requests(self) -> tuple[tuple[str, int], ...]:
        """All but the GPUs."""
        return tuple((name, amount) for name, amount in self.requests.items() if name != self.resource)

    @property
    def pods(self) -> int:
        """Over all replicas."""
        return self.pods_per_replica * self.replicas


Excluded: TypeAlias = dict[tuple[Reason, str], list[str]]
"""(reason, detail) -> names of nodes that were left out for it."""


@dataclass(slots=True)
class NodeFilter:
    """The declaration's constraints, applied to groups of nodes; remembers its answer per shape."""

    declaration: Declaration
    repelling: tuple[Node, ...] = ()
    """Nodes with pods that will not have others beside them."""
    running_on: tuple[Node, ...] = ()
    """All nodes, for the pods that run there."""
    _by_shape: dict[tuple[int, bool], Reason | None] = field(default_factory=dict)

    def select(self, groups: Iterable[NodeGroup]) -> tuple[tuple[NodeGroup, ...], Excluded]:
        """(the nodes with an accepted product that selector and affinity let in, those that are left out)."""
        wish = self.declaration.placement
        excluded: Excluded = defaultdict(list)
        selects = bool(wish.node_selector) or wish.node_terms is not None
        selected: list[NodeGroup] = []
        for group in groups:
            if not self.accepts(group):
                excluded[Reason.PRODUCT, ""].extend(node.name for node in group.nodes)
            elif not selects:
                selected.append(group)
            elif nodes := self._chosen(group, excluded):
                selected.append(group if len(nodes) == len(group.nodes) else NodeGroup(nodes))
        return tuple(selected), excluded

    @property
    def rules(self) -> PodRules | None:
        """Rules between pods that bear on these; ``None`` where there are none."""
        rules = self.declaration.placement.rules
        return rules if rules.demands or is_repelled(self.repelling, rules) else None

    def accepts(self, group: NodeGroup) -> bool:
        """Whether its GPUs are of an accepted product."""
        wish = self.declaration.gpus
        return accepts_product(wish.products, group.shape.unit(wish.resource).product)

    def _chosen(self, group: NodeGroup, excluded: Excluded) -> tuple[Node, ...]:
        wish = self.declaration.placement
        host = wish.node_selector.get(HOST_LABEL)
        wanted = [(key, value) for key, value in wish.node_selector.items() if key != HOST_LABEL]
        terms, of_hosts = wish.node_terms, any(term.is_of_hosts for term in wish.node_terms or ())
        chosen: list[Node] = []
        for nodes in group.by_labels:
            labels = nodes[0].labels
            reason = None
            if any(labels.get(key) != value for key, value in wanted):
                reason = Reason.SELECTOR
            elif terms is not None and not any(term.may_match(labels) for term in terms):
                reason = Reason.AFFINITY
            if reason is not None:
                excluded[reason, ""].extend(node.name for node in nodes)
            elif host is None and not of_hosts:
                chosen.extend(nodes)
            else:
                for node in nodes:
                    if host is not None and node.hostname != host:
                        excluded[Reason.SELECTOR, ""].append(node.name)
                    elif of_hosts and not any(term.matches(labels, node.name, node.hostname) for term in terms or ()):
                        excluded[Reason.AFFINITY, ""].append(node.name)
                    else:
                        chosen.append(node)
        return tuple(chosen)

    def reason_against(self, group: NodeGroup, *, passing: bool = True) -> Reason | None:
        """Why these pods cannot go to this selected group whatever is free; ``passing=False`` forgives taints that pass."""
        key = (id(group.shape), passing)
        if key not in self._by_shape:
            self._by_shape[key] = self._judge(group.shape, passing=passing)
        return self._by_shape[key]

    def _judge(self, shape: NodeShape, *, passing: bool) -> Reason | None:
        return Reason.TAINT if next(self._barring(shape, passing=passing), None) is not None else None

    def _barring(self, shape: NodeShape, *, passing: bool) -> Iterator[Taint]:
        """Taints that keep these pods off."""
        tolerations = self.declaration.placement.tolerations
        for taint in shape.taints:
            bars = taint.effect in ("NoSchedule", "NoExecute") and (passing or not taint.is_passing)
            if bars and not any(each.tolerates(taint) for each in tolerations):
                yield taint

    def barring_taint(self, group: NodeGroup) -> str:
        """The first taint that keeps these pods off a group: ``key=value``, or ``key``."""
        taint = next(self._barring(group.shape, passing=True), None)
        return "" if taint is None else f"{taint.key}={taint.value}" if taint.value else taint.key

    def state_reason(self, group: NodeGroup) -> Reason | None:
        """Why a node takes no pods now; a cordon is no obstacle to pods that tolerate it."""
        state = group.like.state
        if state is NodeState.CORDONED:
            cordon = Taint(key=UNSCHEDULABLE_TAINT)
            if any(each.tolerates(cordon) for each in self.declaration.placement.tolerations):
                return None
        return _STATE_REASONS.get(state)


def accepts_product(patterns: tuple[str, ...], product: str | None) -> bool:
    """Shell patterns on the normalised name, case aside; no pattern accepts any.

    An unknown product may be an accepted one: it is let in here, and is a doubt (``Fit.UNKNOWN``) where it matters.
    """
    if not patterns or product is None:
        return True
    return any(fnmatchcase(product.lower(), pattern.lower()) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class _Slots:
    """Nodes that each take so many of the pods now."""

    room: int
    nodes: tuple[Node, ...]


def place(
    groups: tuple[NodeGroup, ...],
    node_filter: NodeFilter,
    shape: PodShape,
    own: Mapping[str, Resources],
    left_out: frozenset[int],
    unselected: Mapping[tuple[Reason, str], list[str]],
) -> Placement:
    """Place every pod of every replica on what is free now of groups that were selected.

    ``own`` is what these very pods already hold, by node: it counts as room. ``left_out`` holds the ids of node
    shapes whose GPUs do not hold a rank, ``unselected`` the nodes that were left out before.
    """
    slots: list[_Slots] = []
    idle_room = 0
    excluded: Excluded = defaultdict(list, {key: list(names) for key, names in unselected.items()})
    for group in groups:
        reason = node_filter.reason_against(group)
        if reason in (None, Reason.TAINT):  # the taint that comes with a cordon or a failure says less than the state
            reason = node_filter.state_reason(group) or reason
        if reason is None and id(group.shape) in left_out:
            reason = Reason.MEMORY
        if reason is not None:
            detail = node_filter.barring_taint(group) if reason is Reason.TAINT else ""
            excluded[reason, detail].extend(node.name for node in group.nodes)
            continue
        nodes = group.nodes
        idle_room += _idle_room(group, shape, View.IDLE)
        mine = tuple(node for node in nodes if node.name in own) if own else ()
        for node in mine:
            _sort_in(slots, excluded, (node,), _room_with_own(node, shape, own[node.name]))
        others = tuple(node for node in nodes if node.name not in own) if mine else nodes
        if others:
            _place_others(group, others, shape, slots, excluded)
    rules = node_filter.rules
    if rules is not None:
        slots = _within_rules(slots, node_filter.running_on, rules, excluded)
        idle_room = _idle_room_within(groups, node_filter, shape, left_out, rules)
    room = sum(each.room * len(each.nodes) for each in slots)
    fit = room // shape.pods_per_replica
    return Placement(
        feasible=fit >= shape.replicas,
        feasible_when_idle=idle_room >= shape.pods,
        replicas_that_fit=fit,
        pods_that_fit=room,
        pods=tuple(_example(slots, shape)) if shape.replicas and fit >= shape.replicas else (),
        excluded=tuple(
            Exclusion(reason=reason, detail=detail, nodes=tuple(names))
            for (reason, detail), names in sorted(excluded.items(), key=lambda each: (_ORDER[each[0][0]], each[0][1]))
        ),
    )


def _within_rules(slots: list[_Slots], running_on: tuple[Node, ...], rules: PodRules, excluded: Excluded) -> list[_Slots]:
    rooms = [(node, each.room) for each in slots for node in each.nodes]
    left = restricted(rooms, running_on, rules)
    kept = {node.name for node, _ in left}
    if dropped := [node.name for node, _ in rooms if node.name not in kept]:
        excluded[Reason.RULES, ""].extend(dropped)
    return [_Slots(room, (node,)) for node, room in left]


def _idle_room_within(
    groups: Iterable[NodeGroup], node_filter: NodeFilter, shape: PodShape, left_out: frozenset[int], rules: PodRules
) -> int:
    """Pods that usable nodes take within the rules, were nothing else running."""
    usable = (
        group
        for group in groups
        if id(group.shape) not in left_out and node_filter.reason_against(group) is None and node_filter.state_reason(group) is None
    )
    return _total_within(usable, shape, View.IDLE, rules)


def _total_within(groups: Iterable[NodeGroup], shape: PodShape, view: View, rules: PodRules) -> int:
    rooms = [(node, _idle_room(NodeGroup((node,)), shape, view)) for group in groups for node in group.nodes]
    return sum(room for _, room in restricted([each for each in rooms if each[1] > 0], (), rules))


def _place_others(group: NodeGroup, nodes: tuple[Node, ...], shape: PodShape, slots: list[_Slots], excluded: Excluded) -> None:
    """Nodes without pods of our own: GPUs are asked of the group, the rest of each node unless even the fullest has it."""
    room = group.like.free(shape.resource) // shape.gpus
    if room <= 0:
        excluded[Reason.GPUS, str(shape.gpus)].extend(node.name for node in nodes)
    elif all(group.least_free(name) >= room * amount for name, amount in shape.other_requests if amount > 0):
        slots.append(_Slots(room, nodes))
    else:
        for node in nodes:
            least = min(node.free(name) // amount for name, amount in shape.other_requests if amount > 0)
            _sort_in(slots, excluded, (node,), min(room, least))


def _sort_in(slots: list[_Slots], excluded: Excluded, nodes: tuple[Node, ...], room: int) -> None:
    if room > 0:
        slots.append(_Slots(room, nodes))
    else:
        excluded[Reason.OTHER_RESOURCE, ""].extend(node.name for node in nodes)


def _room_with_own(node: Node, shape: PodShape, mine: Resources) -> int:
    return min((node.free(name) + mine.get(name, 0)) // amount for name, amount in shape.requests.items() if amount > 0)


def _idle_room(group: NodeGroup, shape: PodShape, view: View) -> int:
    """Pods that these nodes take, were nothing else running there but DaemonSets' pods."""
    like = group.like
    gpus = like.allocatable.get(shape.resource, 0) if view is View.IDLE else group.installed(shape.resource)
    room = gpus // shape.gpus
    if room <= 0:
        return 0
    wanted = [(name, amount) for name, amount in shape.other_requests if amount > 0]
    if all(group.least_allocatable(name) >= room * amount for name, amount in wanted):
        return room * group.count
    return sum(max(0, min(room, *(node.idle(name) // amount for name, amount in wanted))) * node.count for node in group.nodes)


def room_in_total(groups: Iterable[NodeGroup], node_filter: NodeFilter, shape: PodShape, left_out: frozenset[int]) -> int:
    """Pods that selected groups could take, were they all available and idle; passing taints and states forgiven."""
    obtainable = [
        group for group in groups if id(group.shape) not in left_out and node_filter.reason_against(group, passing=False) is None
    ]
    rules = node_filter.declaration.placement.rules
    if rules.demands:
        return _total_within(obtainable, shape, View.OBTAINABLE, rules)
    return sum(_idle_room(group, shape, View.OBTAINABLE) for group in obtainable)


def _example(slots: list[_Slots], shape: PodShape) -> Iterator[PlacedPod]:
    """Whole replicas into single nodes first, the snuggest node first; what is left goes across neighbouring nodes."""
    per_replica = shape.pods_per_replica
    order = sorted(slots, key=lambda each: (each.room < per_replica, each.room, each.nodes[0].name))
    limit = min(shape.replicas, -(-MAX_EXAMPLE_PODS // per_replica))
    taken: dict[str, int] = defaultdict(int)
    replica = 0
    for each in order:
        for node in each.nodes if each.room >= per_replica else ():
            if replica == limit:
                return
            for _ in range(min(each.room // per_replica, limit - replica)):
                for pod in range(per_replica):
                    yield _placed(replica, pod, node, taken, shape)
                replica += 1
    if replica < limit:
        yield from _across_nodes(order, shape, range(replica, limit), taken)


def _across_nodes(slots: list[_Slots], shape: PodShape, replicas: range, taken: dict[str, int]) -> Iterator[PlacedPod]:
    """Replicas that no single node takes: within one neighbourhood where it has the room, else over those that adjoin."""
    per_replica = shape.pods_per_replica
    where: dict[int, tuple[str, ...]] = {}
    room_of: dict[tuple[str, ...], list[Node]] = defaultdict(list)
    for each in slots:
        rest = each.room % per_replica if each.room >= per_replica else each.room
        for node in each.nodes if rest else ():
            if id(node.labels) not in where:
                where[id(node.labels)] = tuple(node.labels.get(key, "") for key in NEIGHBOURHOODS)
            room_of[where[id(node.labels)]] += [node] * rest
    left: list[Node] = []
    number = replicas.start
    for neighbourhood in sorted(room_of):
        nodes = room_of[neighbourhood]
        whole = min(len(nodes) // per_replica, replicas.stop - number)
        for index, node in enumerate(nodes[: whole * per_replica]):
            yield _placed(number + index // per_replica, index % per_replica, node, taken, shape)
        number += whole
        left += nodes[whole * per_replica :]
    for index, node in enumerate(left[: (replicas.stop - number) * per_replica]):
        yield _placed(number + index // per_replica, index % per_replica, node, taken, shape)


NEIGHBOURHOODS = (
    "topology.kubernetes.io/region", "topology.kubernetes.io/zone",
    "cloud.google.com/gce-topology-block", "cloud.google.com/gce-topology-subblock",
    "topology.k8s.aws/network-node-layer-1", "topology.k8s.aws/network-node-layer-2", "topology.k8s.aws/network-node-layer-3",
    "oci.oraclecloud.com/rdma.network_block_id", "oci.oraclecloud.com/rdma.local_block_id",
    "network.topology.nvidia.com/spine", "network.topology.nvidia.com/block", "topology.kubernetes.io/rack",
    "nvidia.com/gpu.clique",
)  # fmt: skip
"""Labels of where a node stands, coarse to fine: stages of a replica are put on nodes that share as many as can be."""


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
