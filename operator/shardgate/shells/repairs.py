"""How often we put back what others undo: whoever undoes it again and again must not make us write without end."""

import time
from collections import deque

MOST_REPAIRS = 2
REPAIR_SECONDS = 60.0


class Repairs:
    """By what is repaired; times are of the monotonic clock."""

    def __init__(self, most: int = MOST_REPAIRS, seconds: float = REPAIR_SECONDS) -> None:
        self._most, self._seconds = most, seconds
        self._made: dict[str, deque[float]] = {}
        self._contested: set[str] = set()

    def seconds_to_wait(self, key: str) -> float:
        """Until one more may be made; 0 where it may be now."""
        made = self._lately(key)
        return max(0.0, made[0] + self._seconds - time.monotonic()) if len(made) >= self._most else 0.0

    def note(self, key: str) -> None:
        """One was made."""
        self._made.setdefault(key, deque()).append(time.monotonic())

    def is_contested(self, key: str) -> bool:
        """Somebody undoes it again and again: from the last repair that may be made until none was needed for a while."""
        made = self._lately(key)
        if len(made) >= self._most:
            self._contested.add(key)
        elif not made:
            self._contested.discard(key)
        return key in self._contested

    def seconds_until_forgotten(self, key: str) -> float:
        """Until the last repair is past; 0 where none was made lately."""
        made = self._lately(key)
        return made[-1] + self._seconds - time.monotonic() if made else 0.0

    def forget(self, key: str) -> None:
        """It is gone."""
        self._made.pop(key, None)
        self._contested.discard(key)

    def _lately(self, key: str) -> deque[float]:
        made = self._made.get(key)
        if made is None:
            return deque()
        while made and time.monotonic() - made[0] >= self._seconds:
            made.popleft()
        if not made:
            del self._made[key]
        return made
