"""The last decisions of this replica, with the facts that they used for as long as those cost little."""

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from shardgate.adapters.decisions import KeptDecision
from shardgate.domain.inventory import Inventory

MOST = 200
MOST_BYTES = 32 << 20
"""What facts may take beyond the cluster as it is now: two pictures of it share every node that did not change between."""
CHANGE_BYTES = 2048
"""A node with its amounts, and a pod that is gone: 1 to 2 KiB a change, measured at 5,000 nodes and 150,000 pods."""
TUPLES_OF_A_GROUP = 3
"""Its nodes, their names, and those that share labels."""


@dataclass(slots=True)
class _Kept:
    decision: KeptDecision
    picture_bytes: int
    """Of the picture itself, where the decision before had another one."""
    changes: int
    """Changes of nodes that were counted when it was decided."""


class Decisions:
    """Nothing is copied, and nothing is written down before somebody asks; what takes time is to let go of an old picture.

    ``changes`` counts nodes that were frozen anew, as the book does: what stood in their place lives on in pictures.
    """

    def __init__(self, changes: Callable[[], int], most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._changes, self._most, self._most_bytes = changes, most, most_bytes
        self._kept: deque[_Kept] = deque()
        self._forgotten = 0
        """So many of the oldest have lost their facts."""
        self._picture_bytes = 0
        """Of those that have not."""

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def with_facts(self) -> int:
        """How many can be judged again."""
        return len(self._kept) - self._forgotten

    def keep(self, decision: KeptDecision) -> None:
        """The newest; the oldest goes where there are too many."""
        facts, latest = decision.facts, self._kept[-1].decision.facts if self._kept else None
        size = 0 if facts is None else _bytes_of(facts.inventory, None if latest is None else latest.inventory)
        self._kept.append(_Kept(decision, size, self._changes()))
        self._picture_bytes += size
        if len(self._kept) > self._most:
            if self._forgotten:
                self._forgotten -= 1
            else:
                self._picture_bytes -= self._kept[0].picture_bytes
            self._kept.popleft()
        self.settle()

    def settle(self) -> None:
        """Forget the oldest facts, as far as the cluster has moved away from them."""
        while self._forgotten < len(self._kept):
            oldest = self._kept[self._forgotten]
            if self._picture_bytes + (self._changes() - oldest.changes) * CHANGE_BYTES <= self._most_bytes:
                return
            oldest.decision = replace(oldest.decision, facts=None)
            self._picture_bytes -= oldest.picture_bytes
            self._forgotten += 1

    def find(self, namespace: str, reference: str) -> list[KeptDecision]:
        """Those of a namespace, the newest of each object, newest first: other objects may have the same short reference."""
        found: dict[str, KeptDecision] = {}
        for each in (kept.decision for kept in reversed(self._kept)):
            if each.reference == reference and each.subject.namespace == namespace:
                found.setdefault(each.subject.label, each)
        return list(found.values())


def _bytes_of(now: Inventory, before: Inventory | None) -> int:
    """Of what the picture does not share with the one before."""
    if before is None:
        before = Inventory(groups=(), nodes_seen=0)
    size = 0
    if now.groups is not before.groups:
        shared = set(map(id, before.groups))
        size = TUPLES_OF_A_GROUP * sum(sys.getsizeof(group.nodes) for group in now.groups if id(group) not in shared)
    parts = zip(_parts(now), _parts(before), strict=True)
    return size + sum(sys.getsizeof(here) for here, there in parts if here is not there)


def _parts(inventory: Inventory) -> tuple[object, ...]:
    return (inventory.held, inventory.without_gpus, inventory.repelling, inventory.pending, inventory.namespaces)
