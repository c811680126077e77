"""Who else wants the GPUs: pods that wait before these, and pods that would make way for them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from shardgate.domain.inventory import Node, NodeGroup, NodeState, Owner, PendingPods, Resources, grouped
from shardgate.domain.placement import NodeFilter, PodShape

_LOOKS_A_STEP = 4
"""Nodes that are asked whether a pod may go there at all cost less than those whose room is worked out."""
MOST_STEPS = 20_000
"""Nodes that are looked at for pods that wait; beyond, what is left of them is taken to hinder."""


def ahead_of(pending: Iterable[PendingPods], owners: Iterable[Owner], priority: int, resource: str) -> tuple[PendingPods, ...]:
    """Others' pods that kube-scheduler takes before these, or that were there before: of equal or higher priority."""
    mine = frozenset(owners)
    ahead = (
        each for each in pending if not each.owners & mine and each.priority >= priority and each.requests.get(resource, 0) > 0
    )
    return tuple(sorted(ahead, key=lambda each: -each.priority))


def both_fit(
    every: Iterable[NodeGroup],
    usable: Iterable[NodeGroup],
    pod: PodShape,
    own: Mapping[str, Resources],
    ahead: tuple[PendingPods, ...],
) -> bool:
    """Whether all of these pods fit beside those ahead, which go where they hinder least.

    ``every``: all nodes with GPUs; ``usable``: those that these pods may go to now.
    """
    ours = {node.name: _room(node, own.get(node.name, {}), {}, pod) for group in usable for node in group.nodes}
    slack = sum(ours.values()) - pod.pods
    if slack >= sum(each.count * _at_most_hindered(each, pod) for each in ahead):
        return True
    taken: dict[str, dict[str, int]] = {}
    steps = 0
    nodes = [node for group in every if group.like.state is NodeState.USABLE for node in group.nodes]
    for each in ahead:
        steps += len(nodes) // _LOOKS_A_STEP
        if steps > MOST_STEPS:
            return False
        places = [node for node in nodes if each.may_go_to(node)]
        for _ in range(each.count):
            steps += len(places)
            if steps > MOST_STEPS:
                return False
            best = _least_hindering(places, each, taken, ours, pod, own)
            if best is not None:
                node, room = best
                held = taken.setdefault(node.name, {})
                for name, amount in each.requests.items():
                    held[name] = held.get(name, 0) + amount
                if node.name in ours:
                    ours[node.name] = room
    return sum(ours.values()) >= pod.pods


def _at_most_hindered(pending: PendingPods, pod: PodShape) -> int:
    """How many of ours one of the pods ahead can cost, wherever it goes."""
    return max(-(-pending.requests.get(name, 0) // amount) for name, amount in pod.requests.items() if amount > 0)


def _least_hindering(  # the state of the search
    places: list[Node], pending: PendingPods, taken: Mapping[str, Resources], ours: Mapping[str, int], pod: PodShape,
    own: Mapping[str, Resources],
) -> tuple[Node, int] | None:  # fmt: skip
    """(a node that has room for the pod, what that leaves for ours); the first that costs us nothing, else the cheapest."""
    best: tuple[int, Node, int] | None = None
    for node in places:
        held = taken.get(node.name, {})
        if any(node.free(name) - held.get(name, 0) < amount for name, amount in pending.requests.items() if amount > 0):
            continue
        before = ours.get(node.name, 0)
        more = {name: held.get(name, 0) + amount for name, amount in pending.requests.items()}
        after = _room(node, own.get(node.name, {}), {**held, **more}, pod) if before else 0
        if after == before:
            return node, after
        if best is None or before - after < best[0]:
            best = (before - after, node, after)
    return None if best is None else best[1:]


def _room(node: Node, mine: Resources, taken: Resources, pod: PodShape) -> int:
    """Pods that the node takes now."""
    least = min(
        (node.free(name) + mine.get(name, 0) - taken.get(name, 0)) // amount for name, amount in pod.requests.items() if amount > 0
    )
    return max(0, least)


def after_preemption(groups: Iterable[NodeGroup], priority: int) -> tuple[NodeGroup, ...] | None:
    """The nodes once all pods of lower priority have made way; ``None`` where there are none of those."""
    groups = tuple(groups)
    if not any(group.has_pods_below(priority) for group in groups):
        return None
    nodes: list[Node] = []
    for node in (node for group in groups for node in group.nodes):
        lower = [amounts for at, amounts in node.used_by_priority.items() if at < priority]
        left = {name: amount - sum(each.get(name, 0) for each in lower) for name, amount in node.used.items()} if lower else {}
        nodes.append(replace(node, used={name: amount for name, amount in left.items() if amount}) if lower else node)
    return grouped(nodes)


def usable_now(groups: Iterable[NodeGroup], node_filter: NodeFilter, left_out: frozenset[int]) -> tuple[NodeGroup, ...]:
    """Selected nodes that take these pods now."""
    return tuple(
        group
        for group in groups
        if id(group.shape) not in left_out and node_filter.reason_against(group) is None and node_filter.state_reason(group) is None
    )
