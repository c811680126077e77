"""What each VerificationPolicy matches, and which standing objects it would refuse: on its status, where that changed."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from shardgate.adapters.cluster_book import ClusterBook
from shardgate.api import GROUP, VERSION
from shardgate.domain.plight import Plight
from shardgate.domain.verdict import Outcome
from shardgate.shells.cluster import ApiError
from shardgate.shells.writer import Writer

log = logging.getLogger(__name__)

Json = dict[str, Any]
PLURAL, STATUS = "verificationpolicies", "verificationpolicies/status"
MOST_VIOLATIONS = 50
HTTP_NOT_FOUND, HTTP_CONFLICT = 404, 409
LEAST_PAUSE_SECONDS = 10.0
"""Between two writes of all: counts move with every roll-out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingVerdict:
    """An object that stands, and what was last found of it."""

    kind: str
    group: str
    namespace: str
    name: str
    outcome: Outcome
    codes: tuple[str, ...]
    is_refused: bool
    """Its policy would refuse it, were it applied now."""
    plight: Plight = field(default_factory=Plight)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A policy, as it was last seen or written."""

    generation: int
    version: str
    status: Json


class PolicyStatus:
    """Of the replica that leads."""

    def __init__(self, writer: Writer, book: ClusterBook, standing: Callable[[], Iterable[StandingVerdict]]) -> None:
        self._writer, self._book, self._standing = writer, book, standing
        self._stored: dict[str, _Stored] = {}
        """Policy -> what stands of it."""
        self._problems: dict[str, str] = {}
        self._written = float("-inf")

    def seen(self, name: str, generation: int, version: str, status: Json | None, problem: str = "") -> None:
        """A policy as it stands, at this ``resourceVersion``; ``problem``: why it is not read."""
        self._stored[name] = _Stored(generation=generation, version=version, status=status or {})
        if problem:
            self._problems[name] = problem
        else:
            self._problems.pop(name, None)

    def gone(self, name: str) -> None:
        """It was deleted."""
        self._stored.pop(name, None)
        self._problems.pop(name, None)

    def wanted(self, name: str) -> Json:
        """The status that the policy should have."""
        generation = self._stored[name].generation
        policy, problem = self._book.rules.policies.get(name), self._problems.get(name)
        if problem or policy is None:
            return {"observedGeneration": generation, "problem": problem or "not read yet"}
        matched = [
            each
            for each in self._standing()
            if policy.selects(self._book.rules.labels_of(each.namespace), f"{each.kind}.{each.group}" if each.group else each.kind)
        ]
        worst = sorted((each for each in matched if each.is_refused), key=lambda each: (-each.outcome, each.namespace, each.name))
        return {
            "observedGeneration": generation,
            "matched": len(matched),
            "refused": len(worst),
            "violations": [
                {
                    "kind": each.kind, "namespace": each.namespace, "name": each.name, "outcome": each.outcome.label,
                    "codes": list(each.codes[:8]),
                }
                for each in worst[:MOST_VIOLATIONS]
            ],
        }  # fmt: skip

    async def upkeep(self) -> None:
        """Write what changed. Raises ``ApiError`` and ``ClusterUnreachable``."""
        if time.monotonic() - self._written < LEAST_PAUSE_SECONDS:
            return
        changed = {name: status for name in self._stored if (status := self.wanted(name)) != self._stored[name].status}
        if not changed:
            return
        self._written = time.monotonic()
        for name, status in changed.items():
            stored = self._stored.get(name)
            if stored is not None:
                await self._write(name, stored, status)

    async def _write(self, name: str, stored: _Stored, status: Json) -> None:
        """A patch of the policy as it stands here, and of no other."""
        gone: Json = dict.fromkeys(stored.status.keys() - status.keys())
        path, locked = f"/apis/{GROUP}/{VERSION}/{PLURAL}/{name}/status", {"resourceVersion": stored.version}
        try:
            answer = await self._writer.write("PATCH", path, STATUS, {"metadata": locked, "status": {**status, **gone}})
        except ApiError as error:
            if error.status not in (HTTP_NOT_FOUND, HTTP_CONFLICT):
                raise
            log.warning("the status of VerificationPolicy %s: %s", name, error)  # the watch brings what stands
            return
        if self._stored.get(name) is stored:
            self._stored[name] = replace(stored, version=str(answer["metadata"]["resourceVersion"]), status=status)
