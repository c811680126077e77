"""Replicas whose leader asks for other amounts than its workers: how many fit, and where.

A node is what it takes: for each number of leaders, the most workers beside them (its frontier). Nodes of one frontier are
one class, so a cluster of thousands has few. The best places for so many leaders follow by dynamic programming over the
classes, exactly; a greedy pass answers before that wherever it reaches the bound.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from shardgate.domain.inventory import Node, Resources

MOST_STEPS = 300_000
"""Sums that a search may take."""
Frontier: TypeAlias = tuple[int, ...]
"""Index: leaders on a node; value: workers that it takes beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Replicas that were placed (``leaders`` and ``workers``: a node for each pod), and how many at most could be."""

    replicas: int
    most: int
    leaders: tuple[Node, ...]
    workers: tuple[Node, ...]


def frontier_of(available: tuple[int, ...], leader: tuple[int, ...], worker: tuple[int, ...], most: int) -> Frontier:
    """What a node takes with these amounts available, resource by resource; ``most`` leaders at most."""
    asked_by_leader = [(has, amount) for has, amount in zip(available, leader, strict=True) if amount > 0]
    leaders = max(0, min(most, *[has // amount for has, amount in asked_by_leader]))
    asked = [(has, amount, of_leader) for has, amount, of_leader in zip(available, worker, leader, strict=True) if amount > 0]
    return tuple(
        [max(0, min([(has - number * of_leader) // amount for has, amount, of_leader in asked])) for number in range(leaders + 1)]
    )


def packed(
    nodes: Iterable[tuple[Node, Resources]], leader: Resources, worker: Resources, workers_each: int, replicas: int
) -> Packed:
    """Place up to so many replicas of one leader and ``workers_each`` workers on nodes with these amounts available."""
    names = sorted({*leader, *worker})
    asked_by_leader, asked_by_worker = (tuple(asks.get(name, 0) for name in names) for asks in (leader, worker))
    frontiers: dict[tuple[int, ...], Frontier] = {}
    classes: dict[Frontier, list[Node]] = defaultdict(list)
    for node, available in nodes:
        key = tuple(available.get(name, 0) for name in names)
        if key not in frontiers:
            frontiers[key] = frontier_of(key, asked_by_leader, asked_by_worker, replicas)
        if any(frontiers[key]) or len(frontiers[key]) > 1:
            classes[frontiers[key]] += [node] * min(node.count, replicas * (workers_each + 1))
    total = sum(frontier[0] * len(members) for frontier, members in classes.items())
    leaders = sum((len(frontier) - 1) * len(members) for frontier, members in classes.items())
    most = min(replicas, leaders, total // workers_each)
    cheapest, lost = _greedy(classes, most)
    fit = max(number for number in range(most + 1) if total - lost[number] >= number * workers_each)
    if fit < most:
        better = _exact(classes, most, total, workers_each)
        if better is not None:
            return _result(classes, better, len(better), workers_each)
    return _result(classes, cheapest[:fit], most, workers_each)


Choice: TypeAlias = list[tuple[Frontier, int]]
"""For each leader, where it stands: a frontier, and which of its nodes."""


def _greedy(classes: Mapping[Frontier, list[Node]], leaders: int) -> tuple[Choice, list[int]]:
    """(places for leaders, each costing the fewest workers at its time; workers lost after none, one, two, ..)."""
    chosen: Choice = []
    lost = [0]
    # Which nodes of a class hold so many leaders; all but those that are listed hold none.
    holding: dict[Frontier, list[list[int]]] = {frontier: [[] for _ in frontier] for frontier in classes}
    opened = dict.fromkeys(classes, 0)
    for _ in range(leaders):
        options = (
            (frontier[have] - frontier[have + 1], frontier, have)
            for frontier, levels in holding.items()
            for have in range(len(frontier) - 1)
            if levels[have] or (have == 0 and opened[frontier] < len(classes[frontier]))
        )
        loss, frontier, have = min(options, key=lambda each: each[0])
        if holding[frontier][have]:
            index = holding[frontier][have].pop()
        else:
            index = opened[frontier]
            opened[frontier] += 1
        holding[frontier][have + 1].append(index)
        chosen.append((frontier, index))
        lost.append(lost[-1] + loss)
    return chosen, lost


def _exact(classes: Mapping[Frontier, list[Node]], leaders: int, total: int, workers_each: int) -> Choice | None:
    """Where to put the leaders of as many replicas as fit; ``None`` where that takes too many steps."""
    hosts = [
        (frontier, index)
        for frontier, members in classes.items()
        if len(frontier) > 1
        for index in range(min(len(members), leaders))
    ]
    if sum(len(frontier) for frontier, _ in hosts) * leaders > MOST_STEPS:
        return None
    none = total + 1
    least = [0, *([none] * leaders)]
    taken: list[list[int]] = []
    for frontier, _ in hosts:
        chosen, after = [0] * (leaders + 1), list(least)
        for number in range(1, leaders + 1):
            for here in range(1, min(number, len(frontier) - 1) + 1):
                cost = least[number - here] + frontier[0] - frontier[here]
                if cost < after[number]:
                    after[number], chosen[number] = cost, here
        least = after
        taken.append(chosen)
    left = max(number for number in range(leaders + 1) if total - least[number] >= number * workers_each)
    places: Choice = []
    for host, chosen in zip(reversed(hosts), reversed(taken), strict=True):
        places += [host] * chosen[left]
        left -= chosen[left]
    return places


def _result(classes: Mapping[Frontier, list[Node]], places: Choice, most: int, workers_each: int) -> Packed:
    leaders = [classes[frontier][index] for frontier, index in places]
    held: dict[tuple[Frontier, int], int] = defaultdict(int)
    for place in places:
        held[place] += 1
    wanted = len(places) * workers_each
    workers: list[Node] = []
    # Beside leaders first, so that a replica stays together where it can.
    order = [*held, *((frontier, index) for frontier, each in classes.items() for index in range(len(each)))]
    seen: set[tuple[Frontier, int]] = set()
    for frontier, index in order:
        if len(workers) >= wanted:
            break
        if (frontier, index) not in seen:
            seen.add((frontier, index))
            workers += [classes[frontier][index]] * frontier[held.get((frontier, index), 0)]
    return Packed(replicas=len(places), most=most, leaders=tuple(leaders), workers=tuple(workers[:wanted]))
