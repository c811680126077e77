"""Required rules between pods: which nodes they leave to pods that are all alike, and how many pods on each.

Affinity and anti-affinity, topology spread that must hold, and ports of the host. Pods that are alike make this exact by
counting wherever one rule at a time limits a domain: affinity to one's own kind puts all into the roomiest domain,
anti-affinity one into each, a spread evens domains out up to its skew. Where several rules limit domains that overlap, a
placement is searched for, and ``most`` bounds what a better search could find.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from shardgate.domain.inventory import BoundPod, Node, NodeState, Owner
from shardgate.domain.selectors import HOST_LABEL, Expression, HostPort, PodTerm

Rooms: TypeAlias = list[tuple[Node, int]]
"""Nodes, and how many of the pods each takes by its resources."""
MOST_STEPS = 200_000
"""Nodes that a search looks at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadConstraint:
    """A topology spread constraint with ``whenUnsatisfiable: DoNotSchedule``."""

    topology_key: str
    max_skew: int
    expressions: tuple[Expression, ...] | None
    """Of the pods that are counted; ``None`` counts none."""
    min_domains: int = 1
    honors_affinity: bool = True
    """Domains are those of nodes that selector and affinity let in."""
    honors_taints: bool = False
    """Domains are those of nodes whose taints let in."""
    counts_own_revision: bool = False
    """Other pods never count: it follows a label that their controller gives each revision."""

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod of the same namespace is counted."""
        return self.expressions is not None and all(each.matches(labels) for each in self.expressions)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRules:
    """What pods of one kind demand of others, and what they are themselves."""

    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    owners: frozenset[Owner] = frozenset()
    """By whom these pods say that they are declared."""
    affinity: tuple[PodTerm, ...] = ()
    anti_affinity: tuple[PodTerm, ...] = ()
    spread: tuple[SpreadConstraint, ...] = ()
    host_ports: tuple[HostPort, ...] = ()

    @property
    def demands(self) -> bool:
        """Whether they demand anything."""
        return bool(self.affinity or self.anti_affinity or self.spread or self.host_ports)

    def are(self, pod: BoundPod) -> bool:
        """Whether a pod is one of these already: those are placed anew."""
        return not self.owners.isdisjoint(pod.owners)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """All nodes of the cluster, with GPUs or without, and which of them are domains to these pods."""

    nodes: tuple[Node, ...]
    lets_in: Callable[[Node], bool] | None
    """By selector and affinity; ``None`` where those let all in."""
    tolerates: Callable[[Node], bool]
    """By taints."""
    namespaces: Mapping[str, Mapping[str, str]]
    """Namespace -> its labels."""
    is_idle: bool = False
    """Nothing is running: pods that an affinity is for may come yet."""
    may_grow: tuple[Node, ...] = ()
    """Nodes that are gone for a while or may come, where those count too."""

    def selects(self, term: PodTerm, pod: BoundPod) -> bool:
        """Whether a term is about a pod that is bound."""
        return term.selects(pod.namespace, pod.labels, self.namespaces)

    def selects_these(self, term: PodTerm, rules: PodRules) -> bool:
        """Whether a term is about these pods."""
        return term.selects(rules.namespace, rules.labels, self.namespaces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restricted:
    """What the rules leave. ``rooms``: a placement of as many pods as was found, by node."""

    rooms: Rooms
    most: int
    """No placement holds more."""
    in_any_order: bool = True
    """Whether pods that are placed one by one, wherever there is room, come to as many."""
    sequence: tuple[Node, ...] = ()
    """A node for each pod, in an order in which no step breaks a spread; empty where any order will do."""

    @property
    def found(self) -> int:
        """Pods that do find a place."""
        return sum(room for _, room in self.rooms)


def domain_of(node: Node, key: str) -> str | None:
    """The node's value of a topology key; ``None`` where it has none. A node that may come may be a domain of its own."""
    value = node.hostname if key == HOST_LABEL else node.labels.get(key)
    if not value and node.state is NodeState.PROVISIONABLE:
        return f"?{node.name}"
    return value or None


def is_repelled(nodes: Iterable[Node], rules: PodRules, namespaces: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether pods that run somewhere demand that these stay away."""
    return any(
        term.selects(rules.namespace, rules.labels, namespaces) and not rules.are(pod)
        for node in nodes
        for pod in node.repelling
        for term in pod.repels
    )


def restricted(rooms: Rooms, around: Surroundings, rules: PodRules, wanted: int) -> Restricted:
    """The nodes that the rules leave, with how many of the pods each may take; at least ``wanted`` in all if those fit."""
    left = open_to(_apart(rooms, wanted), around, rules)
    if rules.host_ports:
        left = [(node, min(room, 1)) for node, room in left]
    limits = [limit for limit in _limits(around, rules) if limit is not None]
    for limit in limits:
        left = limit.admitted(left)
    together = _beside(left, around, rules)
    results = [_limited(each, [limit for limit in limits if limit.counts_these], wanted) for each in together]
    best = max(results, key=lambda each: each.found, default=Restricted(rooms=[], most=0))
    most = max((each.most for each in results), default=0)
    same = all(each.in_any_order and each.found >= min(wanted, best.found) for each in results)
    return replace(best, most=most, in_any_order=same)


def open_to(rooms: Rooms, around: Surroundings, rules: PodRules) -> Rooms:
    """The nodes that other pods there leave open to these."""
    if around.is_idle:
        return rooms
    closed = _closed_domains(around, rules)
    keys = {key for key, _ in closed}
    left = [(node, room) for node, room in rooms if not any((key, domain_of(node, key)) in closed for key in keys)]
    return [(node, room) for node, room in left if not rules.host_ports or not _has_ports_of(node, rules)]


def _apart(rooms: Rooms, wanted: int) -> Rooms:
    """Like nodes that may come, one by one: each is a host of its own."""
    return [
        each
        for node, room in rooms
        for each in (
            [(replace(node, count=1, name=f"{node.name}#{index}"), room) for index in range(min(node.count, max(wanted, 1)))]
            if node.count > 1
            else [(node, room)]
        )
    ]


def _has_ports_of(node: Node, rules: PodRules) -> bool:
    return any(
        mine.clashes(port) for pod in node.with_ports if not rules.are(pod) for port in pod.host_ports for mine in rules.host_ports
    )


def _closed_domains(around: Surroundings, rules: PodRules) -> set[tuple[str, str | None]]:
    """(key, domain) where pods stand that these must not be beside, or that will not have them beside themselves."""
    closed = set()
    for node in around.nodes:
        for term in rules.anti_affinity:
            if any(around.selects(term, pod) and not rules.are(pod) for pod in node.pods):
                closed.add((term.topology_key, domain_of(node, term.topology_key)))
        for pod in node.repelling:
            for term in () if rules.are(pod) else (each for each in pod.repels if around.selects_these(each, rules)):
                closed.add((term.topology_key, domain_of(node, term.topology_key)))
    return {(key, domain) for key, domain in closed if domain is not None}


def _beside(rooms: Rooms, around: Surroundings, rules: PodRules) -> list[Rooms]:
    """Sets of nodes of which one is to take all the pods: those near pods that all terms of the affinity select.

    Without any such pod, each domain is one, if these pods are selected themselves.
    """
    if not rules.affinity:
        return [rooms]
    keys = [term.topology_key for term in rules.affinity]
    near: dict[str, set[str | None]] = {key: set() for key in keys}
    for node in () if around.is_idle else around.nodes:
        if any(all(around.selects(term, pod) for term in rules.affinity) and not rules.are(pod) for pod in node.pods):
            for key in keys:
                near[key].add(domain_of(node, key))
    for domains in near.values():
        domains.discard(None)
    if any(near.values()):
        return [[(node, room) for node, room in rooms if all(domain_of(node, key) in near[key] for key in keys)]]
    if not all(around.selects_these(term, rules) for term in rules.affinity):
        return [rooms] if around.is_idle else []
    by_domains: dict[tuple[str | None, ...], Rooms] = defaultdict(list)
    for node, room in rooms:
        by_domains[tuple(domain_of(node, key) for key in keys)].append((node, room))
    return [each for domains, each in by_domains.items() if None not in domains]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """How many pods a domain may hold: ``skew`` more than the emptiest domain, or (``skew`` None) one."""

    key: str
    skew: int | None
    counts_these: bool
    there: Mapping[str, int] = field(default_factory=dict)
    """Domain -> pods that are there already."""
    always: frozenset[str] = frozenset()
    """Domains that a spread looks at whether these pods can go there or not."""
    too_few_domains: bool = False

    def admitted(self, rooms: Rooms) -> Rooms:
        """Nodes that it lets pods on, were each the first."""
        if self.skew is None:
            return rooms
        left = [(node, room) for node, room in rooms if domain_of(node, self.key) is not None]
        if self.counts_these:
            return left
        least = self._least({})
        return [(node, room) for node, room in left if self.there.get(domain_of(node, self.key) or "", 0) - least <= self.skew]

    def _least(self, room_of: Mapping[str, int]) -> int:
        """Pods of the emptiest domain, once each took all that it has room for."""
        if self.too_few_domains:
            return 0
        return min((self.there.get(domain, 0) + room_of.get(domain, 0) for domain in self.always), default=0)

    def capped(self, rooms: Rooms) -> Rooms:
        """The most that it leaves on each node, roomiest nodes first; exact where it is the only limit."""
        room_of: dict[str, int] = defaultdict(int)
        members: dict[str, Rooms] = defaultdict(list)
        left: Rooms = []
        for node, room in rooms:
            domain = domain_of(node, self.key)
            if domain is None:
                left.append((node, room))  # anti-affinity knows no domain there; a spread has left it out before
            else:
                room_of[domain] += room
                members[domain].append((node, room))
        highest = self.highest(room_of)
        for domain, each in members.items():
            remaining = highest - self.there.get(domain, 0)
            for node, room in sorted(each, key=lambda pair: -pair[1]):
                if remaining > 0:
                    left.append((node, min(room, remaining)))
                    remaining -= room
        return left

    def highest(self, placed: Mapping[str, int]) -> int:
        """Pods that a domain may hold, with so many of these placed already."""
        return 1 if self.skew is None else self._least(placed) + self.skew

    def held(self, domain: str, placed: Mapping[str, int]) -> int:
        """Pods that count in a domain."""
        return self.there.get(domain, 0) + placed.get(domain, 0)


def _limits(around: Surroundings, rules: PodRules) -> Iterable[_Limit]:
    selecting = (term for term in rules.anti_affinity if around.selects_these(term, rules))
    for key in sorted({term.topology_key for term in selecting}, key=lambda each: (each != HOST_LABEL, each)):
        yield _Limit(key=key, skew=None, counts_these=True)
    keys = [each.topology_key for each in rules.spread]
    for constraint in rules.spread:
        key = constraint.topology_key
        if any(node.state is NodeState.PROVISIONABLE and domain_of(node, key) == f"?{node.name}" for node in around.may_grow):
            continue  # what may come may come into whichever domain lacks room
        there = _pods_by_domain(constraint, around, rules, keys)
        yield _Limit(
            key=key,
            skew=constraint.max_skew,
            counts_these=constraint.counts_own_revision or constraint.selects(rules.labels),
            there=there,
            always=frozenset(there),
            too_few_domains=len(there) < constraint.min_domains,
        )


def _pods_by_domain(constraint: SpreadConstraint, around: Surroundings, rules: PodRules, keys: list[str]) -> dict[str, int]:
    """Domain -> pods that count there, of all domains that the constraint knows."""
    lets_in = around.lets_in if constraint.honors_affinity else None
    counts = not around.is_idle and not constraint.counts_own_revision
    selected: dict[int, bool] = {}
    """id of labels, which pods of one template share -> whether such pods count."""
    there: dict[str, int] = defaultdict(int)
    for node in (*around.nodes, *around.may_grow):
        if any(domain_of(node, each) is None for each in keys) or (lets_in is not None and not lets_in(node)):
            continue
        if constraint.honors_taints and not around.tolerates(node):
            continue
        number = 0
        for pod in node.pods if counts else ():
            key = id(pod.labels)
            if key not in selected:
                selected[key] = constraint.selects(pod.labels)
            if selected[key]:
                number += pod.namespace == rules.namespace and not pod.is_terminating and not rules.are(pod)
        there[domain_of(node, constraint.topology_key) or ""] += number
    return there


def _limited(rooms: Rooms, limits: list[_Limit], wanted: int) -> Restricted:
    """As many of the pods as the limits leave."""
    hosts = [limit for limit in limits if limit.key == HOST_LABEL and limit.skew is None]
    for limit in hosts:
        rooms = limit.capped(rooms)
    others = [limit for limit in limits if limit not in hosts]
    if not others:
        return Restricted(rooms=rooms, most=sum(room for _, room in rooms))
    if len(others) == 1:
        rooms = others[0].capped(rooms)
        sequence = () if others[0].skew is None else _level_by_level(rooms, others[0])
        return Restricted(rooms=rooms, most=sum(room for _, room in rooms), sequence=sequence)
    sequence = _searched(rooms, others, wanted)
    number: dict[str, int] = defaultdict(int)
    for node in sequence:
        number[node.name] += 1
    found = [(node, number[node.name]) for node, _ in rooms if node.name in number]
    most = len(sequence)
    if most < wanted:
        most = min(sum(room for _, room in limit.capped(rooms)) for limit in others)
    return Restricted(rooms=found, most=most, in_any_order=False, sequence=sequence)


def _level_by_level(rooms: Rooms, limit: _Limit) -> tuple[Node, ...]:
    """The emptiest domain is always next."""
    steps: list[tuple[int, str, Node]] = []
    level: dict[str, int] = defaultdict(int)
    for node, room in rooms:
        domain = domain_of(node, limit.key) or ""
        for _ in range(room):
            steps.append((limit.held(domain, level), domain, node))
            level[domain] += 1
    return tuple(node for _, _, node in sorted(steps, key=lambda each: each[:2]))


def _searched(rooms: Rooms, limits: list[_Limit], wanted: int) -> tuple[Node, ...]:
    """One pod after the other, where the domains hold fewest; ends at ``wanted``, or after ``MOST_STEPS``."""
    search = _Search.of(rooms, limits)
    sequence: list[Node] = []
    for _ in range(min(wanted, MOST_STEPS // max(len(search.queues), 1))):
        node = search.step()
        if node is None:
            break
        sequence.append(node)
    if len(sequence) < wanted <= MOST_TRIED and search.hosts is None:
        longer = _Backtracking(rooms=rooms, limits=limits, wanted=wanted).run()
        if len(longer) > len(sequence):
            return longer
    return tuple(sequence)


MOST_BRANCHES = 5_000
MOST_TRIED = 64
"""Pods of which every way is tried."""


@dataclass(slots=True, kw_only=True)
class _Backtracking:
    """Every way to place pods one by one, until one places all that are wanted or ``MOST_BRANCHES`` were looked at."""

    rooms: Rooms
    limits: list[_Limit]
    wanted: int
    branches: int = 0
    best: tuple[Node, ...] = ()
    placed: list[dict[str, int]] = field(default_factory=list)

    def run(self) -> tuple[Node, ...]:
        self.placed = [defaultdict(int) for _ in self.limits]
        of_domains: dict[tuple[str | None, ...], list[Node]] = defaultdict(list)
        for node, room in self.rooms:
            of_domains[tuple(domain_of(node, limit.key) for limit in self.limits)] += [node] * room
        self._try(of_domains, ())
        return self.best

    def _try(self, left: dict[tuple[str | None, ...], list[Node]], sequence: tuple[Node, ...]) -> bool:
        if len(sequence) > len(self.best):
            self.best = sequence
        if len(self.best) >= self.wanted or self.branches >= MOST_BRANCHES:
            return True
        highest = [limit.highest(so_far) for limit, so_far in zip(self.limits, self.placed, strict=True)]
        for domains, nodes in left.items():
            if not nodes or not self._leaves_room(domains, highest):
                continue
            self.branches += 1
            node = nodes.pop()
            self._count(domains, +1)
            if self._try(left, (*sequence, node)):
                return True
            nodes.append(node)
            self._count(domains, -1)
        return False

    def _leaves_room(self, domains: tuple[str | None, ...], highest: list[int]) -> bool:
        each = zip(self.limits, self.placed, domains, highest, strict=True)
        return all(domain is None or limit.held(domain, so_far) < most for limit, so_far, domain, most in each)

    def _count(self, domains: tuple[str | None, ...], change: int) -> None:
        for so_far, domain in zip(self.placed, domains, strict=True):
            if domain is not None:
                so_far[domain] += change


@dataclass(slots=True, kw_only=True)
class _Search:
    """Nodes that share all domains but the host's are one queue, the emptiest host first: only its head is looked at."""

    rooms: Rooms
    hosts: _Limit | None
    others: list[_Limit]
    on_host: "_Counts"
    queues: dict[tuple[str | None, ...], list[tuple[int, int, int]]]
    """Domains -> (pods on the host, less its room, index of the node)."""
    placed: list[dict[str, int]]
    taken: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    @classmethod
    def of(cls, rooms: Rooms, limits: list[_Limit]) -> "_Search":
        hosts = next((limit for limit in limits if limit.key == HOST_LABEL), None)
        others = [limit for limit in limits if limit is not hosts]
        on_host = _Counts({}, frozenset()) if hosts is None else _Counts(hosts.there, hosts.always)
        queues: dict[tuple[str | None, ...], list[tuple[int, int, int]]] = defaultdict(list)
        for index, (node, room) in enumerate(rooms):
            held = 0 if hosts is None else on_host.of(domain_of(node, HOST_LABEL))
            queues[tuple(domain_of(node, limit.key) for limit in others)].append((held, -room, index))
        for queue in queues.values():
            heapify(queue)
        return cls(
            rooms=rooms, hosts=hosts, others=others, on_host=on_host, queues=queues, placed=[defaultdict(int) for _ in others]
        )

    def step(self) -> Node | None:
        """The node for one more pod; ``None`` where no limit leaves one."""
        highest = [limit.highest(so_far) for limit, so_far in zip(self.others, self.placed, strict=True)]
        highest_on_host = None if self.hosts is None else self.on_host.least(self.hosts) + (self.hosts.skew or 0)
        ranked = [
            (rank, domains)
            for domains, queue in self.queues.items()
            if queue and (highest_on_host is None or queue[0][0] < highest_on_host)
            if (rank := self._rank(domains, highest)) is not None
        ]
        if not ranked:
            return None
        _, domains = min(ranked, key=lambda each: each[0] + self.queues[each[1]][0][0])
        _, _, index = heappop(self.queues[domains])
        self._take(index, domains)
        return self.rooms[index][0]

    def _rank(self, domains: tuple[str | None, ...], highest: list[int]) -> int | None:
        """Pods in the domains; ``None`` where one of them is full."""
        total = 0
        for limit, so_far, domain, most in zip(self.others, self.placed, domains, highest, strict=True):
            if domain is not None:
                held = limit.held(domain, so_far)
                if held >= most:
                    return None
                total += held
        return total

    def _take(self, index: int, domains: tuple[str | None, ...]) -> None:
        node, room = self.rooms[index]
        self.taken[index] += 1
        for so_far, domain in zip(self.placed, domains, strict=True):
            if domain is not None:
                so_far[domain] += 1
        now = self.taken[index]
        if self.hosts is not None:
            host = domain_of(node, HOST_LABEL)
            self.on_host.add(host)
            now = self.on_host.of(host)
        if self.taken[index] < room:
            heappush(self.queues[domains], (now, self.taken[index] - room, index))


class _Counts:
    """Pods by host, and the fewest on any that counts, without a walk over all."""

    def __init__(self, there: Mapping[str, int], always: frozenset[str]) -> None:
        self._held: dict[str, int] = dict(there)
        self._always = always
        self._hosts_with: dict[int, int] = defaultdict(int)
        for host in always:
            self._hosts_with[self._held.get(host, 0)] += 1
        self._least = min(self._hosts_with, default=0)

    def of(self, host: str | None) -> int:
        """On one host."""
        return self._held.get(host or "", 0)

    def add(self, host: str | None) -> None:
        """One more."""
        before = self.of(host)
        self._held[host or ""] = before + 1
        if host in self._always:
            self._hosts_with[before] -= 1
            self._hosts_with[before + 1] += 1
            while self._hosts_with[self._least] == 0:
                self._least += 1

    def least(self, limit: _Limit) -> int:
        """On the emptiest host."""
        return 0 if limit.too_few_domains else self._least
