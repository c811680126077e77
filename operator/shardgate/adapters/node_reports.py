"""What nodes' agents report, and whether it still counts: a report is believed while its agent is heard."""

import datetime
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from shardgate.adapters.nodes import HeartbeatObject, NodeFacts, ReportObject

STALE_AFTER_SECONDS = 30.0
"""An agent renews its Lease every 10 s: one that has missed two is silent at the third."""
SILENT = "its agent has not been heard"
LEAST_LOOK_SECONDS = 1.0
"""Between two looks at who has fallen silent."""


@dataclass(slots=True)
class NodeReports:
    """By node. The caller says what time it is, in seconds of any steady clock; other machines' clocks are not trusted.

    An agent counts as heard when its Lease is seen to change. Where a Lease is seen for the first time, its own time is
    all there is: it is compared with the wall clock once.
    """

    stale_after_seconds: float = STALE_AFTER_SECONDS
    are_heartbeats_needed: bool = True
    """False where files may hold reports alone: what has no Lease counts."""
    are_heartbeats_followed: Callable[[], bool] = lambda: True
    """While it is not so, nobody falls silent: we do not hear."""
    _reports: dict[str, NodeFacts] = field(default_factory=dict)
    _uids: dict[str, str] = field(default_factory=dict)
    """Node -> uid of its report."""
    _shared: dict[NodeFacts, NodeFacts] = field(default_factory=dict)
    """Nodes that say the same share one value."""
    _renewed: dict[str, str] = field(default_factory=dict)
    """Node -> its Lease's time, as it stands there."""
    _heard: dict[str, float] = field(default_factory=dict)
    """Node -> when its Lease was last seen to change."""
    _silent: dict[str, None] = field(default_factory=dict)
    """Nodes whose agents have been heard, and are not any more."""
    _looked_from: float = float("-inf")
    """What nobody could hear before this moment is no silence."""
    _was_deaf: bool = False
    _next_look: float = float("inf")

    def put(self, item: ReportObject) -> bool:
        """A report was added or changed: whether it says something else now."""
        facts = item.read()
        name, before = item.metadata.name, self._reports.get(item.metadata.name)
        if len(self._shared) > 2 * len(self._reports) + 100:
            self._shared = {each: each for each in self._reports.values()}
        self._reports[name] = self._shared.setdefault(facts, facts)
        self._uids[name] = item.metadata.uid
        return before != facts

    def drop(self, name: str) -> bool:
        """A report was deleted: whether there was one."""
        self._uids.pop(name, None)
        return self._reports.pop(name, None) is not None

    def uid(self, name: str) -> str:
        """Of the node's report; empty where there is none."""
        return self._uids.get(name, "")

    @property
    def names(self) -> Iterable[str]:
        """Nodes with a report."""
        return self._reports.keys()

    def hear(self, item: HeartbeatObject, now: float, wall: float) -> bool:
        """A Lease was added or changed: whether a silent agent is heard again. ``wall``: Unix time."""
        name, renewed = item.metadata.name, item.spec.renewTime
        before = self._renewed.get(name)
        if before == renewed:
            return False
        self._renewed[name] = renewed
        was_heard = self.is_heard(name)
        age = 0.0 if before is not None else max(0.0, wall - renewed_at(item))
        self._heard[name] = now - age
        if age >= self.stale_after_seconds:
            self._silent[name] = None
        else:
            self._silent.pop(name, None)
            self._next_look = min(self._next_look, now - age + self.stale_after_seconds)
        return self.is_heard(name) != was_heard

    def unhear(self, name: str) -> bool:
        """A Lease was deleted: whether its agent counted as heard."""
        was_heard = self.is_heard(name)
        for kept in (self._renewed, self._heard, self._silent):
            kept.pop(name, None)
        return was_heard and not self.is_heard(name)

    def heartbeats_listed(self, names: set[str], now: float) -> list[str]:
        """A complete list of Leases was read: nodes of which one is gone. Time in which nothing was heard does not count."""
        self._looked_from = now
        return [name for name in self._heard if name not in names]

    def fall_silent(self, now: float) -> Iterator[str]:
        """Nodes whose agents have not been heard for too long by now, each told once."""
        if not self.are_heartbeats_followed():
            self._was_deaf = True
            return
        if self._was_deaf:
            self._was_deaf, self._looked_from = False, now
        if now < self._next_look:
            return
        heard = {name: max(at, self._looked_from) for name, at in self._heard.items() if name not in self._silent}
        late = [name for name, at in heard.items() if now - at >= self.stale_after_seconds]
        for name in late:
            self._silent[name] = None
        next_one = min((at for name, at in heard.items() if name not in self._silent), default=float("inf"))
        self._next_look = max(now + LEAST_LOOK_SECONDS, next_one + self.stale_after_seconds)
        yield from late

    def is_heard(self, name: str) -> bool:
        """Whether the node's agent lives, as far as its Lease tells."""
        if name not in self._heard:
            return not self.are_heartbeats_needed
        return name not in self._silent

    def facts(self, name: str) -> NodeFacts | None:
        """What the node's driver says, where that counts."""
        found = self._reports.get(name)
        return found if found is not None and found.is_read and self.is_heard(name) else None

    def has_no_cuda(self, name: str) -> bool:
        """Whether the node's driver is known to be in no state to run anything."""
        found = self._reports.get(name)
        return found is not None and found.has_no_cuda and self.is_heard(name)

    def problem(self, name: str) -> str:
        """Why the node's report does not count; empty where it does, or there is none."""
        found = self._reports.get(name)
        if found is None:
            return ""
        if not self.is_heard(name):
            return SILENT
        if found.problem:
            return f"its driver cannot be read ({found.problem})"
        return "" if found.is_read else "it does not say which GPUs there are"

    def counts(self) -> dict[str, int]:
        """Nodes by how their reports are: fresh, silent, unreadable."""
        found = {"fresh": 0, "silent": 0, "unreadable": 0}
        for name, facts in self._reports.items():
            found["silent" if not self.is_heard(name) else "fresh" if facts.is_read else "unreadable"] += 1
        return found


def renewed_at(item: HeartbeatObject) -> float:
    """Unix time by its holder's clock; 0 where it says none."""
    try:
        return datetime.datetime.fromisoformat(item.spec.renewTime).timestamp()
    except ValueError:
        return 0.0
