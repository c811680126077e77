"""GPUs that standing declarations are promised until their pods hold them: so that none is promised twice.

Promises are advice among declarations: they hold nothing against kube-scheduler. The leader gives them, the oldest
declaration first, and says so in the condition ``Claimed``; the other replicas read them from there, and keep them as well.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from shardgate.adapters.claimed import Claim, planned
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.domain.inventory import Inventory
from shardgate.domain.units import count
from shardgate.shells.judge import Judgement


class Reason(StrEnum):
    """Of the condition ``Claimed``."""

    PROMISED = "Promised"
    HELD = "Held"
    NOTHING_NEEDED = "NothingNeeded"
    NOT_PROMISED = "NotPromised"
    EXPIRED = "Expired"


_CLAIMED = (Reason.PROMISED, Reason.HELD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The condition ``Claimed`` of one declaration, and how long it stays so by itself."""

    reason: Reason
    message: str
    seconds_left: float | None = None

    @property
    def status(self) -> str:
        """Of the condition."""
        return "True" if self.reason in _CLAIMED else "False"


class Promises:
    """Of one replica. Times are of the monotonic clock: no other machine's clock ends a promise early."""

    def __init__(self, book: ClusterBook, on_expired: Callable[[], None] = lambda: None) -> None:
        self._book, self._on_expired = book, on_expired
        self._since: dict[str, tuple[int, float]] = {}
        """uid -> (generation, when it was promised)."""
        self._expired: dict[str, int] = {}
        """uid -> the generation whose promise ran out."""

    def give(self, uid: str, generation: int, judgement: Judgement, *, ran_out: bool = False) -> Claimed:
        """Promise what the verdict found room for, keep a promise, or end it.

        ``ran_out``: its status says that a promise at this generation ran out: whoever led before gave it.
        """
        if ran_out:
            self._expired.setdefault(uid, generation)
        declaration, verdict = judgement.declaration, judgement.verdict
        if not declaration.replicas:
            return self._end(uid, Reason.NOTHING_NEEDED, "it asks for no replica")
        if not verdict.has_room or verdict.placement is None:
            return self._end(uid, Reason.NOT_PROMISED, "there is no room for all of it now")
        claim = Claim(
            uid=uid, generation=generation, owners=declaration.owners, pods=planned(declaration, verdict.placement)
        )  # fmt: skip
        missing = self._book.claims.missing(claim)
        gpus = sum(pod.requests.get(declaration.gpus.resource, 0) for pod in missing)
        if not missing:
            return self._end(uid, Reason.HELD, f"its pods have come for all {count(verdict.required.gpus, 'GPU')}")
        limit = judgement.policy.claim_seconds
        if self._expired.get(uid) == generation:
            return self._end(uid, Reason.EXPIRED, _ran_out(gpus, limit))
        now = time.monotonic()
        promised, since = self._since.get(uid, (generation, now))
        since = since if promised == generation else now
        if now - since > limit:
            self._expired[uid] = generation
            self._on_expired()
            return self._end(uid, Reason.EXPIRED, _ran_out(gpus, limit))
        self._since[uid] = (generation, since)
        self._book.claims.put(claim)
        return Claimed(
            reason=Reason.PROMISED, message=f"{count(gpus, 'GPU')} promised until its pods hold them, for {limit} s at most",
            seconds_left=limit - (now - since),
        )  # fmt: skip

    def _end(self, uid: str, reason: Reason, message: str) -> Claimed:
        self._since.pop(uid, None)
        self._book.claims.drop(uid)
        return Claimed(reason=reason, message=message)

    def relieve(self, inventory: Inventory) -> None:
        """Where others took what was promised, the latest promises there end first: the oldest keeps what is left."""
        promised = inventory.promised_by_node()
        if not promised:
            return
        names = {name for name, _ in promised}
        nodes = (node for group in inventory.groups for node in group.nodes if node.name in names)
        lacking = {
            (node.name, resource): -node.free(resource)
            for node in nodes
            for resource in node.allocatable
            if (node.name, resource) in promised and node.free(resource) < 0
        }
        for uid in sorted(self._since, key=lambda each: self._since[each][1], reverse=True):
            claim = self._book.claims.get(uid)
            held = [] if claim is None else self._book.claims.missing(claim)
            amounts = [(pod.node, resource, amount) for pod in held for resource, amount in pod.requests.items()]
            if not any(lacking.get((node, resource), 0) > 0 for node, resource, _ in amounts):
                continue
            for node, resource, amount in amounts:
                if (node, resource) in lacking:
                    lacking[node, resource] -= amount
            self._book.claims.drop(uid)

    def forget(self, uid: str) -> None:
        """The declaration is gone."""
        for known in (self._since, self._expired):
            known.pop(uid, None)
        self._book.claims.drop(uid)

    def has(self, uid: str) -> bool:
        """Whether something is promised to it."""
        return self._book.claims.get(uid) is not None


def _ran_out(gpus: int, limit: int) -> str:
    return f"{count(gpus, 'GPU')} were promised for {limit} s, and its pods did not come; a change of its spec asks again"
