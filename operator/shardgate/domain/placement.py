"""Which pod goes to which node, as kube-scheduler's filters would allow, and what stood in the way.

Where all pods of a declaration are alike, counting how many of them each node takes is exact: a node's count is the least
of free / requested over all requested resources, and replicas may mix nodes (``pod_rules`` has the rules between pods,
``packing`` leaders that differ from their workers). The map is an example that holds now; the scheduler picks nodes and
the kubelet devices, so GPUs are local indices.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from fnmatch import fnmatchcase
from typing import TypeAlias

from shardgate.domain.declaration import Declaration, LeaderWish
from shardgate.domain.inventory import UNSCHEDULABLE_TAINT, Gpu, Node, NodeGroup, NodeShape, NodeState, Resources, Taint
from shardgate.domain.packing import Packed, packed
from shardgate.domain.pod_rules import PodRules, Surroundings, is_repelled, open_to, restricted
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
    RULES = "rules between pods"
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
class Exclusion:  # noqa: PLW1641  # the dataclass makes one, of reason and detail
    """Nodes left out for one reason."""

    reason: Reason
    left_out: tuple[Node, ...] = field(hash=False, repr=False)
    detail: str = ""
    """The taint (``key=value``), or how many GPUs a pod asks for."""

    @property
    def count(self) -> int:
        """How many nodes."""
        return len(self.left_out)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Their names; few ask for those, and there may be thousands."""
        return tuple(node.name for node in self.left_out)

    def __eq__(self, other: object) -> bool:
        """By names: what else is known of the nodes is no part of a verdict."""
        if not isinstance(other, Exclusion):
            return NotImplemented
        return (self.reason, self.detail, self.nodes) == (other.reason, other.detail, other.nodes)

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
    is_search_spent: bool = False
    """Not all were placed, and a longer search might."""
    in_any_order: bool = True
    """Whether the scheduler, taking the pods one by one wherever there is room, is sure to place them all."""


def summary_of(excluded: Iterable[Exclusion]) -> str:
    """``12 nodes: 3 tainted dedicated=training, 9 with fewer than 8 free GPUs``; empty when none was left out."""
    parts = [f"{each.count} {each.text}" for each in excluded]
    total = sum(each.count for each in excluded)
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
    leader: LeaderWish | None = None
    """Of the pods of a replica the first, where it differs."""
    tensor: int = 1
    """Ranks that talk to each other at every layer: on nodes that tell, GPUs that NVLink joins go to them first."""

    @property
    def leader_requests(self) -> Resources:
        """All that the first pod of a replica asks for."""
        return self.requests if self.leader is None else {**self.leader.requests, self.resource: self.leader.gpus, "pods": 1}

    @property
    def gpus_per_replica(self) -> int:
        """Over its pods."""
        first = self.gpus if self.leader is None else self.leader.gpus
        return first + self.gpus * (self.pods_per_replica - 1)

    def in_total(self, resource: str) -> int:
        """What all pods of all replicas request."""
        rest = self.requests.get(resource, 0) * (self.pods_per_replica - 1)
        return (self.leader_requests.get(resource, 0) + rest) * self.replicas

    @property
    def largest(self) -> "PodShape":
        """Pods that are all alike and ask for whatever either kind does: where these fit, the pods fit in any order."""
        if self.leader is None:
            return self
        leader = self.leader_requests
        requests = {name: max(leader.get(name, 0), self.requests.get(name, 0)) for name in {**leader, **self.requests}}
        return replace(self, gpus=requests[self.resource], requests=requests, leader=None)

    @property
    def other_requests(self) -> tuple[tuple[str, int], ...]:
        """All but the GPUs."""
        return tuple((name, amount) for name, amount in self.requests.items() if name != self.resource)

    @property
    def pods(self) -> int:
        """Over all replicas."""
        return self.pods_per_replica * self.replicas


Excluded: TypeAlias = dict[tuple[Reason, str], list[Node]]
"""(reason, detail) -> nodes that were left out for it."""


@dataclass(slots=True)
class NodeFilter:
    """The declaration's constraints, applied to groups of nodes; remembers its answer per shape."""

    declaration: Declaration
    repelling: tuple[Node, ...] = ()
    """Nodes with pods that will not have others beside them."""
    everywhere: tuple[Node, ...] = ()
    """All nodes that are there, with GPUs or without, for the pods that run there."""
    may_grow: tuple[Node, ...] = ()
    """Nodes that are gone for a while, or may come."""
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Namespace -> its labels."""
    _by_shape: dict[tuple[int, bool], Reason | None] = field(default_factory=dict)

    def select(self, groups: Iterable[NodeGroup]) -> tuple[tuple[NodeGroup, ...], Excluded]:
        """(the nodes with an accepted product that selector and affinity let in, those that are left out)."""
        wish = self.declaration.placement
        excluded: Excluded = defaultdict(list)
        selects = self.selects or bool(wish.node_name)
        selected: list[NodeGroup] = []
        for group in groups:
            if not self.accepts(group):
                excluded[Reason.PRODUCT, ""].extend(group.nodes)
            elif not selects:
                selected.append(group)
            elif nodes := self._chosen(group, excluded):
                selected.append(group if len(nodes) == len(group.nodes) else NodeGroup(nodes))
        return tuple(selected), excluded

    @property
    def selects(self) -> bool:
        """Whether selector or affinity leave any node out."""
        wish = self.declaration.placement
        return bool(wish.node_selector) or wish.node_terms is not None

    @property
    def rules(self) -> PodRules | None:
        """Rules between pods that bear on these; ``None`` where there are none."""
        rules = self.declaration.placement.rules
        return rules if rules.demands or is_repelled(self.repelling, rules, self.namespaces) else None

    def around(self, view: View | None) -> Surroundings:
        """What rules between pods look at: now (``None``), or in a view of the cluster."""
        wish = self.declaration.placement
        return Surroundings(
            nodes=self.everywhere,
            lets_in=(lambda node: node.is_selected(wish.node_selector, wish.node_terms)) if self.selects else None,
            tolerates=lambda node: next(self._barring(node.shape, passing=True), None) is None,
            namespaces=self.namespaces,
            is_idle=view is not None,
            may_grow=self.may_grow if view is View.OBTAINABLE else (),
        )

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
                excluded[reason, ""].extend(nodes)
            elif host is None and not of_hosts and not wish.node_name:
                chosen.extend(nodes)
            else:
                for node in nodes:
                    if (host is not None and node.hostname != host) or wish.node_name not in ("", node.name):
                        excluded[Reason.SELECTOR, ""].append(node)
                    elif of_hosts and not any(term.matches(labels, node.name, node.hostname) for term in terms or ()):
                        excluded[Reason.AFFINITY, ""].append(node)
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
        wish = self.declaration.placement
        tolerations, effects = wish.tolerations, ("NoExecute",) if wish.node_name else ("NoSchedule", "NoExecute")
        for taint in shape.taints:
            bars = taint.effect in effects and (passing or not taint.is_passing)
            if bars and not any(each.tolerates(taint) for each in tolerations):
                yield taint

    def barring_taint(self, group: NodeGroup) -> str:
        """The first taint that keeps these pods off a group: ``key=value``, or ``key``."""
        taint = next(self._barring(group.shape, passing=True), None)
        return "" if taint is None else f"{taint.key}={taint.value}" if taint.value else taint.key

    def state_reason(self, group: NodeGroup) -> Reason | None:
        """Why a node takes no pods now; a cordon is no obstacle to pods that tolerate it, or pass the scheduler by."""
        state = group.like.state
        if state is NodeState.CORDONED:
            if self.declaration.placement.node_name:
                return None
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


Taken: TypeAlias = dict[str, list[int]]
"""Node -> local indices of GPUs that pods of the example have."""


def place(
    groups: tuple[NodeGroup, ...],
    node_filter: NodeFilter,
    shape: PodShape,
    own: Mapping[str, Resources],
    left_out: frozenset[int],
    unselected: Mapping[tuple[Reason, str], list[Node]],
) -> Placement:
    """Place every pod of every replica on what is free now of groups that were selected.

    ``own`` is what these very pods already hold, by node: it counts as room. ``left_out`` holds the ids of node
    shapes whose GPUs do not hold a rank, ``unselected`` the nodes that were left out before.
    """
    slots: list[_Slots] = []
    usable: list[NodeGroup] = []
    excluded: Excluded = defaultdict(list, {key: list(nodes) for key, nodes in unselected.items()})
    for group in groups:
        reason = node_filter.reason_against(group)
        if reason in (None, Reason.TAINT):  # the taint that comes with a cordon or a failure says less than the state
            reason = node_filter.state_reason(group) or reason
        if reason is None and id(group.shape) in left_out:
            reason = Reason.MEMORY
        if reason is not None:
            detail = node_filter.barring_taint(group) if reason is Reason.TAINT else ""
            excluded[reason, detail].extend(group.nodes)
            continue
        usable.append(group)
        nodes = group.nodes
        mine = tuple(node for node in nodes if node.name in own) if own else ()
        for node in mine:
            _sort_in(slots, excluded, (node,), _room_with_own(node, shape, own[node.name]))
        others = tuple(node for node in nodes if node.name not in own) if mine else nodes
        if others:
            _place_others(group, others, shape, slots, excluded)
    found = _fitted(usable, slots, node_filter, shape, own, excluded)
    pods = found.room if found.packed is None else found.packed.replicas * shape.pods_per_replica
    fit = pods // shape.pods_per_replica
    feasible = fit >= shape.replicas
    return Placement(
        feasible=feasible,
        feasible_when_idle=feasible or _total(usable, shape, View.IDLE, node_filter) >= shape.pods,
        replicas_that_fit=fit,
        pods_that_fit=found.room,
        pods=_example_of(found, shape) if shape.replicas and feasible else (),
        excluded=tuple(
            Exclusion(reason=reason, detail=detail, left_out=tuple(nodes))
            for (reason, detail), nodes in sorted(excluded.items(), key=lambda each: (_ORDER[each[0][0]], each[0][1]))
        ),
        is_search_spent=not feasible and found.most >= shape.pods,
        in_any_order=found.in_any_order,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Places for pods now: so many, and at most so many by a longer search."""

    slots: list[_Slots]
    room: int
    most: int
    in_any_order: bool = True
    packed: Packed | None = None
    """Where a replica's leader differs from its workers."""
    sequence: tuple[Node, ...] = ()
    """A node for each pod, where the order matters."""


def _fitted(
    usable: list[NodeGroup], slots: list[_Slots], node_filter: NodeFilter, shape: PodShape, own: Mapping[str, Resources],
    excluded: Excluded,
) -> _Found:  # fmt: skip
    """What takes one node at a time, once rules between pods and between kinds of pods are kept."""
    rules = node_filter.rules
    if shape.leader is not None:
        nodes = [node for group in usable for node in group.nodes]
        if rules is not None:
            nodes = [node for node, _ in open_to([(node, 1) for node in nodes], node_filter.around(None), rules)]
        names = shape.largest.requests
        available = ((node, {name: node.free(name) + own.get(node.name, {}).get(name, 0) for name in names}) for node in nodes)
        found = packed(available, shape.leader_requests, shape.requests, shape.pods_per_replica - 1, shape.replicas)
        alike = shape.largest
        room = sum(max(0, _room_with_own(node, alike, own.get(node.name, {}))) for node in nodes)
        return _Found(
            slots=slots, room=max(found.replicas * shape.pods_per_replica, min(room, shape.pods)), packed=found,
            most=found.most * shape.pods_per_replica, in_any_order=room >= shape.pods,
        )  # fmt: skip
    if rules is None:
        room = sum(each.room * len(each.nodes) for each in slots)
        return _Found(slots=slots, room=room, most=room)
    rooms = [(node, each.room) for each in slots for node in each.nodes]
    left = restricted(rooms, node_filter.around(None), rules, shape.pods)
    kept = {node.name for node, _ in left.rooms}
    if dropped := [node for node, _ in rooms if node.name not in kept]:
        excluded[Reason.RULES, ""].extend(dropped)
    return _Found(
        slots=[_Slots(room, (node,)) for node, room in left.rooms],
        room=left.found, most=left.most, in_any_order=left.in_any_order, sequence=left.sequence,
    )  # fmt: skip


def _total(groups: Iterable[NodeGroup], shape: PodShape, view: View, node_filter: NodeFilter) -> int:
    """The most pods that nodes could take, were nothing else running there but DaemonSets' pods."""
    if shape.leader is not None:
        available = (
            (node, {name: _amount(node, name, shape.resource, view) for name in shape.largest.requests})
            for group in groups
            for node in group.nodes
        )
        found = packed(available, shape.leader_requests, shape.requests, shape.pods_per_replica - 1, shape.replicas)
        return found.most * shape.pods_per_replica
    rules = node_filter.declaration.placement.rules
    if not rules.demands:
        return sum(_idle_room(group, shape, view) for group in groups)
    rooms = [
        (node, room)
        for group in groups
        for node in group.nodes
        if (room := _idle_room(NodeGroup((replace(node, count=1),)), shape, view)) > 0
    ]
    return restricted(rooms, node_filter.around(view), rules, shape.pods).most


def _amount(node: Node, name: str, gpus: str, view: View) -> int:
    if name == gpus and view is View.OBTAINABLE:
        return node.allocatable.get(name, 0) + node.unavailable_gpus.get(name, 0)
    return node.idle(name)


def _place_others(group: NodeGroup, nodes: tuple[Node, ...], shape: PodShape, slots: list[_Slots], excluded: Excluded) -> None:
    """Nodes without pods of our own: GPUs are asked of the group, the rest of each node unless even the fullest has it."""
    room = group.like.free(shape.resource) // shape.gpus
    if room <= 0:
        excluded[Reason.GPUS, str(shape.gpus)].extend(nodes)
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
        excluded[Reason.OTHER_RESOURCE, ""].extend(nodes)


def _room_with_own(node: Node, shape: PodShape, mine: Resources) -> int:
    return min((node.free(name) + mine.get(name, 0)) // amount for name, amount in shape.requests.items() if amount > 0)


def _idle_room(group: NodeGroup, shape: PodShape, view: View) -> int:
    """Pods that these nodes take, were nothing else running there but DaemonSets' pods."""
    like = group.like
    # What DaemonSets hold of the GPUs is no lasting matter: it refuses nothing.
    gpus = like.idle(shape.resource) if view is View.IDLE else group.installed(shape.resource)
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
    return _total(obtainable, shape, View.OBTAINABLE, node_filter)


def _example_of(found: _Found, shape: PodShape) -> tuple[PlacedPod, ...]:
    if found.packed is not None:
        return tuple(_example_of_kinds(found.packed, shape))
    return tuple(_example_in_order(found.sequence, shape) if found.sequence else _example(found.slots, shape))


def _example_in_order(sequence: tuple[Node, ...], shape: PodShape) -> Iterator[PlacedPod]:
    taken: Taken = defaultdict(list)
    for index, node in enumerate(sequence[: min(shape.pods, MAX_EXAMPLE_PODS)]):
        yield _placed(index // shape.pods_per_replica, index % shape.pods_per_replica, node, taken, shape)


def _example_of_kinds(found: Packed, shape: PodShape) -> Iterator[PlacedPod]:
    """Leaders and workers, each in the order of their neighbourhoods: those that stand near come together."""

    def in_order(nodes: tuple[Node, ...]) -> list[Node]:
        return sorted(nodes, key=lambda node: (tuple(node.labels.get(key, "") for key in NEIGHBOURHOODS), node.name))

    each = shape.pods_per_replica - 1
    leaders, workers = in_order(found.leaders), in_order(found.workers)
    taken: Taken = defaultdict(list)
    for replica, leader in enumerate(leaders[: -(-MAX_EXAMPLE_PODS // shape.pods_per_replica)]):
        for pod, node in enumerate((leader, *workers[replica * each : (replica + 1) * each])):
            yield _placed(replica, pod, node, taken, shape)


def _example(slots: list[_Slots], shape: PodShape) -> Iterator[PlacedPod]:
    """Whole replicas into single nodes first, the snuggest node first; what is left goes across neighbouring nodes.

    Nodes of which it is known that NVLink does not join a tensor group's GPUs come last.
    """
    per_replica = shape.pods_per_replica
    order = sorted(
        slots,
        key=lambda each: (
            each.nodes[0].shape.unit(shape.resource).are_joined(min(shape.tensor, shape.gpus)) is False,
            each.room < per_replica,
            each.room,
            each.nodes[0].name,
        ),
    )
    limit = min(shape.replicas, -(-MAX_EXAMPLE_PODS // per_replica))
    taken: Taken = defaultdict(list)
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


def _across_nodes(slots: list[_Slots], shape: PodShape, replicas: range, taken: Taken) -> Iterator[PlacedPod]:
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


def _local_gpus(gpu: Gpu, taken: list[int], number: int) -> tuple[int, ...]:
    """Of those that are left, GPUs that NVLink joins: of the smallest group that is large enough, else of the largest ones.

    Then those behind one PCIe switch. Where nothing tells how they are joined, in the order of their indices.
    """
    links, used = gpu.links, set(taken)
    if links is not None and number <= sum(map(len, links.islands)) - len(used):
        for groups in (links.islands, links.switches):
            left = [tuple(each for each in group if each not in used) for group in groups]
            enough = [group for group in left if len(group) >= number]
            if enough and (groups is links.switches or links.widest() > 1):
                return min(enough, key=len)[:number]
        left = sorted((tuple(each for each in group if each not in used) for group in links.islands), key=len, reverse=True)
        return tuple(each for group in left for each in group)[:number]
    first = max(used, default=-1) + 1
    return tuple(range(first, first + number))


def _placed(replica: int, pod: int, node: Node, taken: Taken, shape: PodShape) -> PlacedPod:
    gpus, before = shape.gpus, pod * shape.ranks_per_pod
    ranks_here = shape.ranks_per_pod
    if shape.leader is not None:
        first_ranks = min(shape.leader.gpus, shape.ranks_per_replica)
        if pod == 0:
            gpus, ranks_here = shape.leader.gpus, first_ranks
        before = 0 if pod == 0 else first_ranks + (pod - 1) * shape.ranks_per_pod
    local = _local_gpus(node.shape.unit(shape.resource), taken[node.name], gpus)
    taken[node.name] += local
    return PlacedPod(
        replica=replica,
        pod=pod,
        node=node.name,
        pool=node.shape.gpu.product or "",
        local_gpus=local,
        ranks=tuple(range(before, min(before + ranks_here, shape.ranks_per_replica))),
    )
