"""Which standing objects are to be judged, and when."""

import asyncio
import logging
import time
from collections.abc import Iterable

log = logging.getLogger(__name__)

MAX_RETRY_SECONDS = 60.0
MAX_DOUBLINGS = 8


class WorkQueue:
    """By uid; times are of the monotonic clock."""

    def __init__(self, wake: asyncio.Event) -> None:
        self._wake = wake
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def put(self, uid: str, seconds: float = 0.0) -> None:
        """Judge it, in so many seconds."""
        self._due[uid] = time.monotonic() + seconds
        self._wake.set()

    def put_later(self, uid: str, seconds: float) -> None:
        """Judge it then, unless it is due before."""
        due = time.monotonic() + seconds
        self._due[uid] = min(due, self._due.get(uid, due))

    def put_all(self, uids: Iterable[str]) -> None:
        """Judge them all, but for those that wait after a failure."""
        now = time.monotonic()
        self._due |= {uid: now for uid in uids if uid not in self._failures}

    def drop(self, uid: str) -> None:
        """Forget it."""
        self._due.pop(uid, None)
        self._failures.pop(uid, None)
        self._wake.set()

    def due(self) -> list[str]:
        """Those whose time has come; they stay until ``take``."""
        now = time.monotonic()
        return [uid for uid, due in self._due.items() if due <= now]

    def soonest(self) -> float:
        """When the next is due."""
        return min(self._due.values(), default=float("inf"))

    def take(self, uid: str) -> None:
        """It is being judged."""
        self._due.pop(uid, None)

    def succeeded(self, uid: str) -> None:
        """It was judged, and what was new written."""
        self._failures.pop(uid, None)

    def retry(self, uid: str, why: str, at_least_seconds: float = 0.0) -> None:
        """It failed: again, after a pause that doubles, and is no shorter than was asked for."""
        failures = self._failures[uid] = min(self._failures.get(uid, 0) + 1, MAX_DOUBLINGS)
        pause = max(min(MAX_RETRY_SECONDS, 0.5 * 2**failures), at_least_seconds)
        self._due[uid] = time.monotonic() + pause
        log.warning("%s: %s, again in %.0f s", uid, why, pause)
