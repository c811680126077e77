"""What the cluster has of each kind of GPU: installed, free, claimed, where whole pods still find room, what may come, who waits.

Amounts are counts of GPUs as pods ask for them: of a GPU that is cut or shared, its units.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from shardgate.domain.arrivals import ANY_NUMBER_OF_GPUS, MANY_NODES
from shardgate.domain.inventory import Gpu, Inventory, Node, NodeState, PendingPods, Resources

POD_SIZES = (1, 2, 4, 8)
"""GPUs of a pod, as serving engines are cut."""
GpusAmong = Callable[[Resources], Iterable[str]]
"""Which of a node's resources are GPUs, each device counted under one name."""


@dataclass(frozen=True, slots=True, order=True)
class KindOfGpu:
    """What pods can tell apart: the resource that they ask for, and what a unit of it is."""

    product: str
    """Without vendor; empty where it is not known."""
    resource: str
    part: str = ""
    """Of a GPU that is cut: ``mig-3g.20gb``."""
    sharing: str = "none"

    @classmethod
    def of(cls, gpu: Gpu, resource: str) -> "KindOfGpu":
        """The kind of a node's unit."""
        return cls(gpu.product or "", resource, gpu.part, gpu.sharing.value)


@dataclass(slots=True)
class Supply:
    """Of one kind, on nodes that are here. What is free is free now: on nodes that take pods, requests and claims taken off."""

    nodes: int = 0
    installed: int = 0
    """Allocatable."""
    unavailable: int = 0
    """Registered, and not healthy."""
    free: int = 0
    claimed: int = 0
    """Promised to pods that have not come: not free."""
    coming_free: int = 0
    """Held by pods that are terminating."""
    placeable: dict[int, int] = field(default_factory=lambda: dict.fromkeys(POD_SIZES, 0))
    """GPUs of a pod -> such pods that find room now, node by node, by GPUs alone."""
    free_by_node_size: dict[int, int] = field(default_factory=lambda: dict.fromkeys(POD_SIZES, 0))
    """GPUs -> those free on nodes that offer at least so many, taken ones included."""


def supplies(inventory: Inventory, gpus_among: GpusAmong) -> dict[KindOfGpu, Supply]:
    """By kind. A node on which more is requested than it has gives none; nodes that are gone or may come are not here."""
    found: dict[KindOfGpu, Supply] = {}
    promised = inventory.promised_by_node()
    for group in inventory.groups:
        node, nodes = group.like, group.count
        if node.state in (NodeState.GONE, NodeState.PROVISIONABLE):
            continue
        for resource in gpus_among(node.allocatable):
            supply = found.setdefault(KindOfGpu.of(node.shape.unit(resource), resource), Supply())
            installed = node.allocatable[resource]
            left = max(0, node.free(resource)) if node.state is NodeState.USABLE else 0
            supply.nodes += nodes
            supply.installed += installed * nodes
            supply.unavailable += node.unavailable_gpus.get(resource, 0) * nodes
            supply.free += left * nodes
            supply.claimed += sum(promised.get((each.name, resource), 0) for each in group.nodes) if promised else 0
            supply.coming_free += group.coming_free(resource)
            for size in POD_SIZES:
                supply.placeable[size] += left // size * nodes
                # By what it offers, not by what it has: where one of 8 GPUs failed, no pod of 8 is kept out by others.
                supply.free_by_node_size[size] += left * nodes if installed >= size else 0
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Nodes of one kind that may come, by one origin."""

    kind: KindOfGpu
    origin: str
    """``NodePool gpu``; of nodes that are here and change, ``nodes in transition``."""
    is_on_its_way: bool
    """Launched, or here and not ready yet: it needs no more pods to come."""
    nodes: int | None
    gpus: int | None
    """At most; ``None`` where no bound is stated, or what a node would have is not known."""
    delay: str = ""
    """Why it has not come yet, as its origin says."""


IN_TRANSITION = "nodes in transition"


def arrivals(inventory: Inventory, pools: Iterable[Node], gpus_among: GpusAmong) -> tuple[Arrival, ...]:
    """What autoscalers' objects and policies' ``pools`` name, and nodes whose GPUs are being changed.

    Several shapes of one origin are ways to use the same room: the one that brings most GPUs counts.
    """
    best: dict[tuple[KindOfGpu, str], Arrival] = {}
    may_come = (node for group in inventory.provisionable for node in group.nodes if not node.takes_turns)
    for node in (*may_come, *pools):
        for resource in gpus_among(node.allocatable):
            each = _arrival(node, resource)
            before = best.get((each.kind, each.origin))
            if before is None or _size(each) > _size(before):
                best[each.kind, each.origin] = each
    changing: dict[KindOfGpu, list[int]] = {}
    for group in inventory.groups:
        if group.like.state is NodeState.IN_TRANSITION:
            for resource in gpus_among({**group.like.allocatable, **group.like.unavailable_gpus}):
                counts = changing.setdefault(KindOfGpu.of(group.like.shape.unit(resource), resource), [0, 0])
                counts[0] += group.count
                counts[1] += group.installed(resource) * group.count
    here = (
        Arrival(kind=kind, origin=IN_TRANSITION, is_on_its_way=True, nodes=nodes, gpus=gpus)
        for kind, (nodes, gpus) in changing.items()
    )
    return (*best.values(), *here)


def _arrival(node: Node, resource: str) -> Arrival:
    of_one = node.allocatable[resource]
    is_known = of_one < ANY_NUMBER_OF_GPUS
    is_bound = node.count < MANY_NODES
    return Arrival(
        kind=KindOfGpu.of(node.shape.unit(resource), resource),
        origin=node.origin or node.name,
        is_on_its_way=node.origin.startswith("NodeClaim"),
        nodes=node.count if is_bound else None,
        gpus=node.count * of_one if is_bound and is_known else None,
        delay=node.delay,
    )


def _size(arrival: Arrival) -> float:
    return float("inf") if arrival.gpus is None else arrival.gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Pods that wait for a node and ask for GPUs."""

    pods: int
    gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """All of them; by kind, each at every kind that its selectors and lasting taints let it on; and those that none lets on."""

    total: Demand
    of_kind: Mapping[KindOfGpu, Demand]
    nowhere: Demand


def waiting(inventory: Inventory, pools: Iterable[Node], gpus_among: GpusAmong) -> Waiting:
    """Nodes that may come, or take no pods just now, count as where they could go."""
    nodes = (*inventory.nodes, *(node for group in inventory.provisionable for node in group.nodes), *pools)
    counts: dict[KindOfGpu, list[int]] = {}
    total, nowhere = [0, 0], [0, 0]
    for pod in inventory.pending:
        for resource in gpus_among(pod.requests):
            kinds = _kinds_for(pod, resource, nodes)
            for sums in (total, *([] if kinds else [nowhere]), *(counts.setdefault(kind, [0, 0]) for kind in kinds)):
                sums[0] += pod.count
                sums[1] += pod.count * pod.requests[resource]
    return Waiting(total=_demand(total), of_kind={kind: _demand(sums) for kind, sums in counts.items()}, nowhere=_demand(nowhere))


def _demand(sums: list[int]) -> Demand:
    return Demand(pods=sums[0], gpus=sums[1])


def _kinds_for(pod: PendingPods, resource: str, nodes: Iterable[Node]) -> set[KindOfGpu]:
    found: set[KindOfGpu] = set()
    for node in nodes:
        if resource in node.allocatable or resource in node.unavailable_gpus:
            kind = KindOfGpu.of(node.shape.unit(resource), resource)
            if kind not in found and pod.may_go_to(node, passing=False):
                found.add(kind)
    return found
