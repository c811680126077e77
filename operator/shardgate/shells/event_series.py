"""What is told by events, and how often: the same of the same object is one Event that counts, as client-go's recorders do.

An object that is told of again and again costs so many writes and no more: a bucket of its own, of the size that client-go
gives it (``EventSourceObjectSpamFilter``). What it holds back is counted, and told with the next of its sort.
"""

import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

BURST = 25
REFILL_SECONDS = 300.0
MOST_SERIES = MOST_OBJECTS = 2000
"""Remembered; what was told of longest ago is forgotten first, and told as something new."""

Json = dict[str, Any]


@dataclass(slots=True)
class Series:
    """One Event, and how often it has come to be."""

    namespace: str
    event: Json
    """As it is made, or was."""
    count: int = 0
    told: int = 0
    """Of these, how many its Event says; 0 where none stands."""
    last: str = ""
    """When it came to be last."""

    def made(self) -> Json:
        """The Event, where none stands."""
        return self.event if self.count == 1 else {**self.event, **self.patch()}

    def patch(self) -> Json:
        """Of the Event that stands."""
        return {"series": {"count": self.count, "lastObservedTime": self.last}}

    def is_gone(self) -> None:
        """The Event stands no more: what it has not said is told by another one."""
        self.event = {**self.event, "eventTime": self.last}
        self.count, self.told = self.count - self.told, 0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class EventSeries:
    """Of one replica. Times are of the monotonic clock."""

    def __init__(self) -> None:
        self._series: OrderedDict[Hashable, Series] = OrderedDict()
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def note(self, namespace: str, event: Json) -> Series | None:
        """It has come to be once more: what is to be told of it; ``None`` where its object has been told of often enough."""
        regarding = event["regarding"]
        about = tuple(regarding.get(part, "") for part in ("kind", "namespace", "name", "uid"))
        key = (about, event["type"], event["reason"], event["note"])
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series(namespace, event)
        self._series.move_to_end(key)
        series.count, series.last = series.count + 1, event["eventTime"]
        if len(self._series) > MOST_SERIES:
            self._series.popitem(last=False)
        return series if self._takes(about) else None

    def _takes(self, about: Hashable) -> bool:
        now = time.monotonic()
        bucket = self._buckets.setdefault(about, _Bucket(BURST, now))
        self._buckets.move_to_end(about)
        if len(self._buckets) > MOST_OBJECTS:
            self._buckets.popitem(last=False)
        bucket.tokens, bucket.at = min(BURST, bucket.tokens + (now - bucket.at) / REFILL_SECONDS), now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True
