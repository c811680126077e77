"""Required rules between pods: which nodes they leave to pods that are all alike, and how many pods on each.

Pods that are alike make this exact by counting. Affinity to one's own kind: all stand in one domain, the roomiest.
Anti-affinity to one's own kind: one pod in each domain. Pods that are there already open or close domains.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shardgate.domain.inventory import Node
from shardgate.domain.selectors import HOST_LABEL, PodTerm

Rooms = list[tuple[Node, int]]
"""Nodes, and how many of the pods each takes by its resources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRules:
    """What pods of one kind demand of others, and what they are themselves."""

    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    affinity: tuple[PodTerm, ...] = ()
    anti_affinity: tuple[PodTerm, ...] = ()

    @property
    def demands(self) -> bool:
        """Whether they demand anything."""
        return bool(self.affinity or self.anti_affinity)

    def are(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a pod is one of these: it has all their labels. Those are placed anew."""
        return bool(self.labels) and namespace == self.namespace and self.labels.items() <= labels.items()


def domain_of(node: Node, key: str) -> str | None:
    """The node's value of a topology key; ``None`` where it has none."""
    if key == HOST_LABEL:
        return node.hostname or None
    return node.labels.get(key)


def is_repelled(nodes: Iterable[Node], rules: PodRules) -> bool:
    """Whether pods that run somewhere demand that these stay away."""
    return any(
        term.selects(rules.namespace, rules.labels) and not rules.are(namespace, labels)
        for node in nodes
        for namespace, labels, term in node.repels
    )


def restricted(rooms: Rooms, running_on: Iterable[Node], rules: PodRules) -> Rooms:
    """The nodes that the rules leave, with how many pods each may take; their sum is the most that all can.

    ``running_on``: nodes whose pods count. None at all asks of an idle cluster, where pods that an affinity is for
    may come yet.
    """
    nodes = tuple(running_on)
    closed = _closed_domains(nodes, rules)
    left = [(node, room) for node, room in rooms if not any((key, domain_of(node, key)) in closed for key in _keys(closed))]
    if rules.affinity:
        left = _beside(left, nodes, rules)
    for key in _own_anti_keys(rules):
        left = _one_in_each(left, key)
    return left


def _keys(closed: set[tuple[str, str | None]]) -> set[str]:
    return {key for key, _ in closed}


def _closed_domains(nodes: tuple[Node, ...], rules: PodRules) -> set[tuple[str, str | None]]:
    """(key, domain) where pods stand that these must not be beside, or that will not have them beside themselves."""
    closed = set()
    for node in nodes:
        for term in rules.anti_affinity:
            if any(term.selects(*pod) and not rules.are(*pod) for pod in node.pods):
                closed.add((term.topology_key, domain_of(node, term.topology_key)))
        for namespace, labels, term in node.repels:
            if term.selects(rules.namespace, rules.labels) and not rules.are(namespace, labels):
                closed.add((term.topology_key, domain_of(node, term.topology_key)))
    return {(key, domain) for key, domain in closed if domain is not None}


def _beside(rooms: Rooms, nodes: tuple[Node, ...], rules: PodRules) -> Rooms:
    """Nodes in domains of pods that all terms select.

    Without any such pod, the roomiest domain, where all of these stand, if they select themselves.
    """
    keys = [term.topology_key for term in rules.affinity]
    placed = [node for node in nodes if any(_selected_by_all(rules, *pod) and not rules.are(*pod) for pod in node.pods)]
    if placed:
        open_domains = {key: {domain_of(node, key) for node in placed} - {None} for key in keys}
        return [(node, room) for node, room in rooms if all(domain_of(node, key) in open_domains[key] for key in keys)]
    if not _selected_by_all(rules, rules.namespace, rules.labels):
        return [] if nodes else rooms
    by_domains: dict[tuple[str | None, ...], Rooms] = defaultdict(list)
    for node, room in rooms:
        by_domains[tuple(domain_of(node, key) for key in keys)].append((node, room))
    able = [each for domains, each in by_domains.items() if None not in domains]
    anti = _own_anti_keys(rules)
    return max(able, key=lambda each: _total(each, anti), default=[])


def _selected_by_all(rules: PodRules, namespace: str, labels: Mapping[str, str]) -> bool:
    return all(term.selects(namespace, labels) for term in rules.affinity)


def _own_anti_keys(rules: PodRules) -> list[str]:
    """Topology keys in whose domains two of these pods may not stand, the host's name first."""
    keys = {term.topology_key for term in rules.anti_affinity if term.selects(rules.namespace, rules.labels)}
    return sorted(keys, key=lambda key: (key != HOST_LABEL, key))


def _one_in_each(rooms: Rooms, key: str) -> Rooms:
    """One pod in each domain, on its roomiest node; nodes without the key are no domain and keep their room."""
    best: dict[str, tuple[Node, int]] = {}
    left: Rooms = []
    for node, room in rooms:
        domain = domain_of(node, key)
        if domain is None:
            left.append((node, room))
        elif domain not in best or room > best[domain][1]:
            best[domain] = (node, room)
    return [*left, *((node, 1) for node, _ in best.values())]


def _total(rooms: Rooms, anti_keys: list[str]) -> int:
    for key in anti_keys:
        rooms = _one_in_each(rooms, key)
    return sum(room for _, room in rooms)
