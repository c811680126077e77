"""Nodes that were here in the last 30 days: evidence of what may come again, where anything may come. In memory alone."""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from shardgate.domain.inventory import Node, NodeShape, NodeState, is_device

REMEMBERED_SECONDS = 30 * 24 * 3600
MOST_KINDS = 1000
"""Of nodes that are remembered, whatever labels come and go: the longest gone are forgotten first."""
STEP_SECONDS = 60.0
"""What is said of them is made anew this often."""


@dataclass(slots=True)
class _Kind:
    """Nodes that were alike in GPUs, lasting taints and labels."""

    like: Node
    left: deque[tuple[float, int]] = field(default_factory=deque)
    """(until when, how many were here at once), later ones with fewer: the first that still counts is the most."""


@dataclass(slots=True)
class RememberedNodes:
    """What was here. The caller says what time it is, in seconds of any steady clock."""

    _key_of: dict[str, Hashable] = field(default_factory=dict)
    """Name of a node that is here -> its kind."""
    _here: dict[Hashable, int] = field(default_factory=dict)
    _kinds: dict[Hashable, _Kind] = field(default_factory=dict)
    """Of those that left, the longest gone first."""
    _told: tuple[Node, ...] = ()
    _told_at: float | None = None

    def here(self, node: Node) -> None:
        """A node with GPUs is here, or is now like this."""
        key = _key(node)
        before = self._key_of.get(node.name)
        if before == key:
            return
        if before is not None:
            self._less(before)
        self._key_of[node.name] = key
        self._here[key] = self._here.get(key, 0) + 1
        self._told_at = None

    def left(self, node: Node, until: float) -> None:
        """It went, and counts as here no longer."""
        key = self._key_of.pop(node.name, None)
        if key is None:
            return
        kind = self._kinds.pop(key, None) or _Kind(like=node)
        kind.like = node
        while kind.left and kind.left[-1][1] <= self._here[key]:
            kind.left.pop()
        kind.left.append((until, self._here[key]))
        self._kinds[key] = kind
        if len(self._kinds) > MOST_KINDS:
            del self._kinds[next(iter(self._kinds))]
        self._less(key)

    def may_return(self, now: float) -> tuple[Node, ...]:
        """Of each kind one node, counted as often as more of them were here at once than are now; with how long ago."""
        if self._told_at is None or not self._told_at <= now < self._told_at + STEP_SECONDS:
            self._told, self._told_at = tuple(self._made(now)), now
        return self._told

    def _made(self, now: float) -> list[Node]:
        found = []
        for number, (key, kind) in enumerate(list(self._kinds.items())):
            while kind.left and now - kind.left[0][0] >= REMEMBERED_SECONDS:
                kind.left.popleft()
            if not kind.left:
                del self._kinds[key]
                continue
            until, most = kind.left[0]
            missing = most - self._here.get(key, 0)
            if missing > 0:
                found.append(_as_may_come(kind.like, f"remembered-{number}", missing, now - until))
        return found

    def _less(self, key: Hashable) -> None:
        self._here[key] -= 1
        if not self._here[key]:
            del self._here[key]
        self._told_at = None


def _installed(node: Node) -> dict[str, int]:
    """Devices, those that have failed among them."""
    names = {**node.allocatable, **node.unavailable_gpus}
    found = {name: node.allocatable.get(name, 0) + node.unavailable_gpus.get(name, 0) for name in names if is_device(name)}
    return {name: amount for name, amount in found.items() if amount}


def _key(node: Node) -> Hashable:
    shape = node.shape
    taints = tuple(each for each in shape.taints if not each.is_passing)
    devices = tuple(sorted(_installed(node).items()))
    return taints, shape.gpu, tuple(shape.units.items()), devices, frozenset(node.labels.items())


def _as_may_come(node: Node, name: str, count: int, gone_seconds: float) -> Node:
    shape = node.shape
    lasting = tuple(each for each in shape.taints if not each.is_passing)
    return Node(
        name=name, state=NodeState.PROVISIONABLE, labels=node.labels, count=count, gone_seconds=gone_seconds,
        shape=NodeShape(taints=lasting, gpu=shape.gpu, units=shape.units),
        allocatable={**node.allocatable, **_installed(node)},
    )  # fmt: skip
