"""The ``CapacityLedger``: where a policy refuses what would wait, two admissions that race are settled by one object.

A claim is written, with optimistic locking, before its object is let in. Whoever loses reads what the winner wrote,
judges again by that, and finds the GPUs taken. The leader takes claims away when their objects' own promises or pods
stand for them, when an object never appears, and when their time is up. Of an update or a scale that never came, or was
taken back, what the object that stands does not ask for ends as soon.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic import ValidationError

from shardgate.adapters.accuracy import accuracies_in
from shardgate.adapters.claimed import Claim, ClaimedPod, ClaimedPods, PodGpus, ledger_key, still_asked
from shardgate.api import API_VERSION, GROUP, VERSION
from shardgate.api.capacity_ledger import MOST_CLAIMS, CapacityLedger
from shardgate.domain.calibration import Accuracy
from shardgate.domain.declaration import Subject
from shardgate.domain.inventory import Owner
from shardgate.shells.cluster import ApiError
from shardgate.shells.failures import ClusterFailed
from shardgate.shells.metrics import Metrics
from shardgate.shells.time_limit import TURN_SECONDS, OutOfTime, answer_due, ends_at
from shardgate.shells.writer import Writer, now

log = logging.getLogger(__name__)

KIND, PLURAL, NAME = "CapacityLedger", "capacityledgers", "shardgate"
PATH = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
RETRY_SECONDS = 0.01
AGAIN_SECONDS = 0.1
"""After a write that the API server could not take just now."""
SETTLE_SECONDS = 1.5
"""A race that is not settled by then is refused, and may be tried again."""
ANSWER_SECONDS = 0.2
"""And so long before the answer is due, for it has to be given in time: one that comes too late lets in what was not settled."""
NEVER_CAME_SECONDS = 30.0
RENEW_SECONDS = 10.0
"""A review that comes again later than this renews its claim: what is promised must last until its object comes."""
COVERED_SECONDS = 3.0
MOST_GONE = 1000
HTTP_NOT_FOUND, HTTP_CONFLICT, HTTP_TOO_MANY, HTTP_SERVER_ERROR = 404, 409, 429, 500

Json = dict[str, Any]


class UnsettledError(Exception):
    """The ledger was not written: not in time, or not at all. Its text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A claim to be written before its object is let in."""

    claim: Claim
    subject: Subject
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The object of a claim, as it is now."""

    stands: bool
    is_followed: bool = True
    """False while its kind is not followed closely: it may be otherwise."""
    is_going: bool = False
    """It was deleted, and something holds it back: no more pods of it come."""
    generation: int = 0
    asked: tuple[PodGpus, ...] | None = None
    """GPUs of each pod that it asks for; ``None`` where it does not state them, or a status of its own tells."""


class Decided(Protocol):
    """What an admission decided."""

    @property
    def wanted(self) -> Wanted | None:
        """The claim that letting it in takes; ``None`` where it takes none."""


class Ledger:
    """Of one replica: the object as it was last seen, in the book."""

    def __init__(
        self, writer: Writer, claims: ClaimedPods, metrics: Metrics, made_for: Callable[[str], tuple[Owner, ...]] = lambda _: ()
    ) -> None:
        """``made_for``: what controllers made for the object of a uid; pods of that are its own."""
        self._writer, self._claims, self._metrics, self._made_for = writer, claims, metrics, made_for
        self._version = ""
        self._entries: dict[str, Json] = {}
        self._first_seen: dict[str, tuple[str, float]] = {}
        """uid -> when its claim was taken, as it says itself; and when this replica first saw that, by the monotonic clock."""
        self._covered: dict[str, float] = {}
        """uid -> since when its claim is not needed."""
        self._gone: dict[str, float] = {}
        """uid -> when its object went: it may have come and gone between two looks."""
        self.conditions: list[Json] = []
        """Of the whole operator, as they stand on the object."""
        self.status: Json = {}
        """All that stands there besides."""
        self.on_accuracy: Callable[[tuple[Accuracy, ...]], None] = lambda _: None
        """Told of how well memory was predicted here, whenever the object is seen."""
        self._lock = asyncio.Lock()

    # ---- what is seen

    def put(self, body: Json) -> None:
        """The ledger, as it stands. One that cannot be read promises nothing, and is written anew with the next claim."""
        # It may be older than our own last write: the next write meets that, and reads what stands.
        self._version = str(body["metadata"]["resourceVersion"])
        self.status = dict(body.get("status") or {})
        self.conditions = list(self.status.get("conditions") or ())
        self.on_accuracy(accuracies_in(self.status))
        try:
            CapacityLedger.read(body.get("spec"))
        except ValidationError as error:
            log.warning("the CapacityLedger cannot be read, and is made anew: %s", error)
            self._take_over({})
            return
        self._take_over({each["uid"]: each for each in (body.get("spec") or {}).get("claims") or ()})

    @property
    def version(self) -> str:
        """``resourceVersion`` of the object as it was last seen; empty where none stands."""
        return self._version

    def drop(self) -> None:
        """The ledger was deleted."""
        self._version, self.conditions, self.status = "", [], {}
        self.on_accuracy(())
        self._take_over({})

    def _take_over(self, entries: dict[str, Json]) -> None:
        for uid in self._entries.keys() - entries.keys():
            self._claims.drop(ledger_key(uid))
            self._first_seen.pop(uid, None)
            self._covered.pop(uid, None)
        for uid, entry in entries.items():
            if self._first_seen.get(uid, ("", 0.0))[0] != entry["takenAt"]:
                self._first_seen[uid] = (entry["takenAt"], time.monotonic())
            promised = self._claims.get(uid)  # a promise of its own, of the same, stands for it already
            if promised is None or promised.generation < entry["generation"] or len(promised.pods) < len(entry["pods"]):
                self._claims.put(self._claim(entry))
        self._entries = entries

    def note_made(self) -> None:
        """A controller made something: pods of that may be what was promised to its owner."""
        for uid, entry in self._entries.items():
            if self._claims.get(ledger_key(uid)) is not None:
                self._claims.put(self._claim(entry))

    def _claim(self, entry: Json) -> Claim:
        """With all by whom its pods may say that they are declared."""
        claim = _claim(entry)
        return replace(claim, owners=(*claim.owners, *self._made_for(entry["uid"])))

    # ---- admission

    async def settle(self, decide: Callable[[], Decided]) -> Decided:
        """Decide, and write the claim that the decision takes; decide again where another one was faster.

        Raises ``UnsettledError``.
        """
        ends = min(time.monotonic() + SETTLE_SECONDS, answer_due() - ANSWER_SECONDS)
        try:
            async with asyncio.timeout(ends - time.monotonic()), self._lock:
                while True:
                    with ends_at(min(ends, time.monotonic() + TURN_SECONDS)):
                        decided = decide()
                    wanted = decided.wanted
                    if wanted is None or self._has(wanted):
                        return decided
                    if await self._tried({**self._entries, wanted.claim.uid: _entry(wanted)}):
                        return decided
        except (TimeoutError, OutOfTime):
            problem = "there was not time enough"
            raise UnsettledError(problem) from None
        except ClusterFailed as error:
            log.warning("the CapacityLedger cannot be written: %s", error)
            problem = "the CapacityLedger cannot be written"  # why, is nothing that tenants need to know
            raise UnsettledError(problem) from None

    def _has(self, wanted: Wanted) -> bool:
        """The same was promised before: a review that comes twice takes nothing more."""
        uid = wanted.claim.uid
        entry = self._entries.get(uid)
        if entry is None or entry["generation"] < wanted.claim.generation or self._held(uid) > RENEW_SECONDS:
            return False
        return _amounts(_claim(entry).pods) == _amounts(wanted.claim.pods)

    async def _tried(self, entries: Mapping[str, Json]) -> bool:
        """Whether it was written; what passes is tried again, for as long as there is time."""
        try:
            return await self._write(entries)
        except ClusterFailed as error:
            if isinstance(error, ApiError) and error.status != HTTP_TOO_MANY and error.status < HTTP_SERVER_ERROR:
                raise
            await asyncio.sleep(AGAIN_SECONDS)
            return False

    async def _write(self, entries: Mapping[str, Json]) -> bool:
        """Whether it was written; else what stands was read."""
        claims = list(entries.values())[-MOST_CLAIMS:]
        try:
            if self._version:
                patch = {"metadata": {"resourceVersion": self._version}, "spec": {"claims": claims}}
                answer = await self._writer.write("PATCH", f"{PATH}/{NAME}", PLURAL, patch)
            else:
                body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": NAME}, "spec": {"claims": claims}}
                answer = await self._writer.write("POST", PATH, PLURAL, body)
        except ApiError as error:
            if error.status not in (HTTP_CONFLICT, HTTP_NOT_FOUND):
                raise
            await self._refresh()
            return False
        self.put(answer)
        return True

    async def _refresh(self) -> None:
        await asyncio.sleep(RETRY_SECONDS)
        try:
            self.put(await self._writer.read(f"{PATH}/{NAME}"))
        except ApiError as error:
            if error.status != HTTP_NOT_FOUND:
                raise
            self.drop()

    # ---- the leader

    async def upkeep(self, seen: Callable[[str, str], Seen], covered: Callable[[str, int], bool]) -> None:
        """Take away claims that are over, and of the others what is not asked for any more.

        ``seen``: the object of a uid and kind; ``covered``: at this generation it needs no claim here. What is covered
        stays a while: other replicas hear of the promise that stands for it in their own time.

        Raises ``ClusterUnreachable`` and ``ApiError``.
        """
        async with asyncio.timeout(SETTLE_SECONDS), self._lock:  # admission waits for this lock
            left: dict[str, Json] = {}
            for uid, entry in self._entries.items():
                found = seen(uid, entry["kind"])
                is_late = found.is_followed and self._held(uid) > NEVER_CAME_SECONDS
                why = self._why_over(uid, found, covered, is_late=is_late)
                if not why:
                    left[uid] = _as_asked(entry, found) if is_late else entry
                    continue
                log.info("claim of %s %s: %s", entry["kind"], uid, why)
                if why in EXPIRED:
                    self._metrics.claims_expired.inc()
            if left != self._entries or not self._version:
                await self._write(left)

    def _held(self, uid: str) -> float:
        """Seconds for which a claim has stood."""
        return time.monotonic() - self._first_seen[uid][1]

    def _why_over(self, uid: str, found: Seen, covered: Callable[[str, int], bool], *, is_late: bool) -> str:
        """``is_late``: what was let in would have come by now."""
        entry, now = self._entries[uid], time.monotonic()
        is_behind = found.stands and found.generation < entry["generation"]
        is_taken_back = is_late and is_behind  # what stands is all there is to promise for
        if not covered(uid, found.generation if is_taken_back else entry["generation"]):
            self._covered.pop(uid, None)
        elif now - self._covered.setdefault(uid, now) > COVERED_SECONDS:
            return NEVER_CHANGED if is_taken_back else "its promise or its pods stand for it"
        # What asked for no GPUs for a while counts as gone then, and takes its next claim later.
        if self._gone.get(uid, -math.inf) >= self._first_seen[uid][1] or found.is_going:
            return "its object was deleted"
        if not found.stands and is_late:
            return NEVER_CAME
        return RAN_OUT if self._held(uid) > entry["claimSeconds"] else ""

    def has_claim_of(self, uid: str, kind: str, namespace: str, name: str) -> bool:
        """Whether an object was let in with a claim that still stands: it may not have been seen to stand itself yet."""
        entry = self._entries.get(uid)
        return entry is not None and (entry["kind"], entry["namespace"], entry["name"]) == (kind, namespace, name)

    def gone(self, uid: str) -> None:
        """The object of this uid was deleted."""
        self._gone[uid] = time.monotonic()
        if len(self._gone) > MOST_GONE:
            lately = time.monotonic() - NEVER_CAME_SECONDS
            self._gone = {each: at for each, at in self._gone.items() if at > lately or each in self._entries}

    def missing(self, uid: str) -> bool:
        """Whether some of its pods have not come."""
        return bool(self._claims.missing(self._claim(self._entries[uid])))


def _amounts(pods: Sequence[ClaimedPod]) -> list[list[tuple[str, int]]]:
    """What is asked for, wherever it is planned."""
    return sorted(sorted(each.requests.items()) for each in pods)


NEVER_CAME, NEVER_CHANGED, RAN_OUT = "its object never came", "its object never became that", "its time is up"
EXPIRED = (NEVER_CAME, NEVER_CHANGED, RAN_OUT)


def _as_asked(entry: Json, found: Seen) -> Json:
    """What of a claim the object asks for."""
    if found.asked is None:
        return entry
    claimed = _claim(entry).pods
    pods = still_asked(claimed, found.asked)
    return entry if _amounts(pods) == _amounts(claimed) else {**entry, "pods": _pods(pods)}


def _pods(pods: Sequence[ClaimedPod]) -> list[Json]:
    return [{"node": pod.node, "requests": dict(pod.requests)} for pod in pods]


def _entry(wanted: Wanted) -> Json:
    claim, subject = wanted.claim, wanted.subject
    return {
        "uid": claim.uid, "generation": claim.generation,
        "kind": subject.kind, "namespace": subject.namespace, "name": subject.name,
        "takenAt": now(), "claimSeconds": wanted.seconds,
        "pods": _pods(claim.pods),
    }  # fmt: skip


def _claim(entry: Json) -> Claim:
    return Claim(
        uid=ledger_key(entry["uid"]), generation=entry["generation"],
        owners=(Owner(entry["namespace"], entry["kind"], entry["name"]),),
        pods=tuple(ClaimedPod(node=each["node"], requests=each["requests"]) for each in entry["pods"]),
    )  # fmt: skip
