"""Keeps verdicts true after admission: whatever changed, what stands is judged by the cluster as it is now.

Level-triggered: at rest nothing is judged and nothing is written. Only the leader writes; every replica keeps the queues
warm.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from shardgate.domain.inventory import Inventory
from shardgate.shells.cluster import ApiError, ClusterUnreachable
from shardgate.shells.judge import Judge
from shardgate.shells.lease import Lease
from shardgate.shells.metrics import Metrics
from shardgate.shells.work_queue import WorkQueue

log = logging.getLogger(__name__)

PASS_SECONDS = 0.5
"""Changes that come together are judged together; a status is at most this and a judgement late."""
IDLE_SECONDS = 5.0
"""What is remembered stops counting by time alone, so look again now and then."""
BATCH = 20
"""Objects judged before other work gets its turn."""


class Standing(Protocol):
    """Objects of one sort that stand, and what is done with a verdict on them."""

    queue: WorkQueue

    def uids(self) -> Iterable[str]:
        """All that stand."""

    def order(self, uid: str) -> tuple[str, str]:
        """Which is judged first, of those that are due."""

    def relieve(self, inventory: Inventory) -> None:
        """End promises of what others took."""

    def keep_promises(self) -> None:
        """Where another replica leads: hold what it promises."""

    def label(self, uid: str) -> str:
        """For the log."""

    async def judge_and_write(self, uid: str) -> None:
        """Judge one that is due, and write what is new. Raises ``ApiError`` and ``ClusterUnreachable``."""

    def publish(self, *, leading: bool) -> None:
        """Set the metrics of all that stand."""


class Rejudging:
    """Judges all that stand again whenever it or the cluster changes."""

    def __init__(  # its collaborators
        self, judge: Judge, lease: Lease, metrics: Metrics, wake: asyncio.Event, standing: Sequence[Standing],
        upkeep: Callable[[], Awaitable[None]] | None = None, note: Callable[[Inventory, bool], None] = lambda _, __: None,
    ) -> None:  # fmt: skip
        """``note``: told of the cluster at each pass, and whether this replica leads."""
        self._judge, self._lease, self._metrics = judge, lease, metrics
        self._wake, self._standing = wake, standing
        self._upkeep = upkeep
        """What else the leader keeps in order, a pass at a time."""
        self._note = note
        self._judged_version: tuple[int, ...] = ()

    def cluster_changed(self) -> None:
        """Something in the book changed."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience()):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.once()
            except Exception:
                self._metrics.internal_errors.inc()
                log.exception("a reconciling pass failed")
            await asyncio.sleep(PASS_SECONDS)

    def _patience(self) -> float:
        if not self._lease.is_held():
            return IDLE_SECONDS  # whoever leads judges what is due
        soonest = min(each.queue.soonest() for each in self._standing)
        return min(IDLE_SECONDS, max(0.0, soonest - time.monotonic()))

    async def once(self) -> None:
        """One pass over all that is due."""
        inventory = self._judge.inventory()
        self._metrics.observe_inventory(inventory)
        leading = self._lease.is_held()
        self._note(inventory, leading)
        if leading:
            for each in self._standing:
                each.relieve(inventory)
        if self._lease.gained.is_set():
            self._lease.gained.clear()
            self._judged_version = ()
        version = self._judge.version
        if version != self._judged_version:
            for each in self._standing:
                each.queue.put_all(each.uids())
            self._judged_version = version
        for each in self._standing:
            if leading:
                await self._judge_due(each)
            else:
                each.keep_promises()
            each.publish(leading=leading)
        self._metrics.leader.set(leading)  # after what the leader tells: alerts hold until there is a leader who says otherwise
        if self._lease.is_held() and self._upkeep is not None:  # a pass may outlast the lease, waiting for an API server
            try:
                await self._upkeep()
            except (ApiError, ClusterUnreachable) as error:
                log.warning("upkeep: %s", error)

    async def _judge_due(self, standing: Standing) -> None:
        for number, uid in enumerate(sorted(standing.queue.due(), key=standing.order)):
            await self._judge_one(standing, uid)
            if number % BATCH == BATCH - 1:
                await asyncio.sleep(0)

    async def _judge_one(self, standing: Standing, uid: str) -> None:
        queue = standing.queue
        queue.take(uid)
        try:
            await standing.judge_and_write(uid)
        except ApiError as error:
            queue.retry(uid, f"{error}", error.retry_after_seconds)
        except ClusterUnreachable as error:
            queue.retry(uid, f"{error}")
        except Exception:
            self._metrics.internal_errors.inc()
            log.exception("%s", standing.label(uid))
            queue.retry(uid, "internal error")
        else:
            queue.succeeded(uid)
