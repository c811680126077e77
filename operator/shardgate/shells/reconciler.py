"""Status, annotations and events of standing InferenceDeployments: written to only where a verdict says something new."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from shardgate.adapters.alternatives import alternatives_of
from shardgate.adapters.disclosure import text_told
from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.standing_workloads import referred_to
from shardgate.adapters.status import (
    OUR_ANNOTATIONS,
    annotations,
    claimed_by,
    is_mismatch,
    is_worth_writing,
    says_otherwise,
    settled,
    status_of,
    unjudged,
)
from shardgate.api import GROUP, VERSION
from shardgate.domain.codes import finding
from shardgate.domain.declaration import Declaration
from shardgate.domain.enforce import enforce
from shardgate.domain.inventory import Inventory
from shardgate.domain.placement import Placement
from shardgate.domain.plight import plight
from shardgate.domain.search import change_of
from shardgate.domain.situation import is_stale
from shardgate.domain.verdict import Outcome
from shardgate.shells.cluster import ApiError
from shardgate.shells.config import OperatorConfig
from shardgate.shells.judge import Judge, Judgement
from shardgate.shells.lease import Lease
from shardgate.shells.metrics import KIND, Metrics
from shardgate.shells.policy_status import StandingVerdict
from shardgate.shells.promises import Promises, Reason
from shardgate.shells.repairs import Repairs
from shardgate.shells.work_queue import WorkQueue
from shardgate.shells.writer import Writer, now

log = logging.getLogger(__name__)

STALE_RETRY_SECONDS = 5.0
HTTP_NOT_FOUND = 404

Json = dict[str, Any]
BAD = (Outcome.WAITING, Outcome.UNSOUND)


class Reconciler:
    """What is done with the verdicts on standing declarations."""

    def __init__(  # its collaborators
        self, writer: Writer, judge: Judge, lease: Lease, config: OperatorConfig, metrics: Metrics, queue: WorkQueue,
        on_gone: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._writer, self._judge, self._lease = writer, judge, lease
        self._config, self._metrics, self.queue = config, metrics, queue
        self._on_gone = on_gone
        self._promises = Promises(judge.book, metrics.claims_expired.inc)
        self._bodies: dict[str, Json] = {}
        self._declarations: dict[str, tuple[str, Declaration]] = {}
        self._mismatched: dict[str, bool] = {}
        """uid -> whether it was seen to become worse; conditions tell it after a restart, but only to the second."""
        self.judged: dict[str, StandingVerdict] = {}
        """What was last found, by uid."""
        self._examples: dict[str, set[str]] = {}
        """uid -> nodes of the example that stands in its status."""
        self._marked: dict[str, dict[str, str | None]] = {}
        """uid -> our annotations as they last stood there, while we lead."""
        self._told: dict[str, Json] = {}
        """uid -> the status as we last wrote it, while we lead."""
        self._repairs = Repairs()

    def put(self, body: Json) -> None:
        """A declaration was added or changed."""
        uid = body["metadata"]["uid"]
        if self._lease.is_held() and not body.get("status"):
            self._told.setdefault(uid, {})  # nothing of ours stands there yet: what comes before it is not ours
        if uid not in self._told:
            self._judge.chosen.seen(body)
        self._bodies[uid] = body
        self._judge.workloads.name(uid, referred_to(body))
        self.queue.put(uid)

    def drop(self, uid: str) -> None:
        """A declaration was deleted."""
        if uid in self._bodies:
            self._judge.workloads.note_gone(self._bodies[uid], time.monotonic())
        for known in (self._bodies, self._declarations, self._mismatched, self._examples, self.judged, self._marked, self._told):
            known.pop(uid, None)
        self._repairs.forget(uid)
        self._judge.workloads.name(uid, None)
        self._judge.chosen.forget(uid)
        self._promises.forget(uid)
        self._on_gone(uid)
        self.queue.drop(uid)

    def uids(self) -> list[str]:
        """All that is known to stand."""
        return list(self._bodies)

    def order(self, uid: str) -> tuple[str, str]:
        """The oldest is promised first."""
        metadata = (self._bodies.get(uid) or {}).get("metadata") or {}
        return (str(metadata.get("creationTimestamp")), uid)

    def relieve(self, inventory: Inventory) -> None:
        """What was promised and is gone is promised no longer."""
        self._promises.relieve(inventory)

    def keep_promises(self) -> None:
        """As the leader says that they are; where another replica leads."""
        self._marked.clear()
        self._told.clear()  # what stands is written by another one now
        for uid, body in self._bodies.items():
            status, generation = body.get("status") or {}, body["metadata"].get("generation")
            is_promised = claimed_by(status) == ("True", Reason.PROMISED) and status.get("observedGeneration") == generation
            is_promised &= not body["metadata"].get("deletionTimestamp")
            if not is_promised and self._promises.has(uid):
                self._promises.forget(uid)
            elif is_promised and not self._promises.has(uid):
                try:
                    judgement = self._judge.judge(body, self._declaration(uid, body))
                except ExceptionGroup:
                    continue
                self._promises.give(uid, generation, judgement)

    def has_judged(self, uid: str, generation: int) -> bool:
        """Whether the declaration stands and was judged at this generation, or a later one: its own promise is what counts."""
        status = (self._bodies.get(uid) or {}).get("status") or {}
        return int(status.get("observedGeneration") or 0) >= max(generation, 1)

    def declarations(self) -> Iterator[Declaration]:
        """All that stand and can be read."""
        for uid, body in list(self._bodies.items()):
            with contextlib.suppress(ExceptionGroup):
                yield self._declaration(uid, body)

    def get(self, uid: str) -> Json | None:
        """The declaration of this uid, as it stands."""
        return self._bodies.get(uid)

    def label(self, uid: str) -> str:
        """Its kind, namespace and name."""
        metadata = (self._bodies.get(uid) or {}).get("metadata") or {}
        return f"{KIND} {metadata.get('namespace')}/{metadata.get('name')}"

    async def judge_and_write(self, uid: str) -> None:
        """Judge it, and write what is new. Raises ``ApiError`` and ``ClusterUnreachable``."""
        try:
            await self._judge_and_write(uid)
        except ApiError as error:
            if error.status != HTTP_NOT_FOUND:
                raise
            self.drop(uid)

    async def _judge_and_write(self, uid: str) -> None:
        body = self._bodies.get(uid)
        if body is None or body["metadata"].get("deletionTimestamp") or self._config.is_exempt(body["metadata"]["namespace"]):
            self._judge.workloads.take_over(uid, is_so=False)
            self._promises.forget(uid)  # pods that still run hold their GPUs themselves
            return
        judgement: Judgement | None = None
        try:
            judgement = self._judge.judge(body, self._declaration(uid, body))
        except ExceptionGroup as problems:
            mistakes = "; ".join(map(str, mistakes_in(problems)))
            found = finding("DeclarationOpaque", where="spec", outcome=Outcome.UNDECIDED, message=f"cannot be read: {mistakes}")
        except Exception:
            self._metrics.internal_errors.inc()
            log.exception("%s cannot be judged", self.label(uid))
            message = "an internal error, see the operator's log"
            found = finding("InternalError", where="spec", outcome=Outcome.UNDECIDED, message=message)
        is_taken_over = judgement is not None and referred_to(body) is not None and not judgement.declaration.is_partial
        self._judge.workloads.take_over(uid, is_so=is_taken_over)
        if judgement is None:
            self._promises.forget(uid)
            status = unjudged(body, found, now())
            await self._write_what_is_new(uid, body, dict.fromkeys(OUR_ANNOTATIONS), status, None)
        elif is_stale(judgement.inventory, judgement.policy):
            # Nothing new is known; the inventory's own metrics and readiness say so.
            self.queue.put(uid, STALE_RETRY_SECONDS)
        else:
            self._note(uid, judgement)
            # What somebody else wrote there since we last did is not ours: it ends no promise.
            told, generation = self._told.get(uid), body["metadata"]["generation"]
            stood: Json = (body.get("status") or {}) if told is None else told
            ran_out = claimed_by(stood) == ("False", Reason.EXPIRED) and stood.get("observedGeneration") == generation
            claimed = self._promises.give(uid, generation, judgement, ran_out=ran_out)
            if claimed.seconds_left is not None:
                self.queue.put_later(uid, claimed.seconds_left)
            said = (claimed.status, claimed.reason, claimed.message)
            contested = self._repairs.is_contested(uid)
            status = status_of(
                body, judgement.declaration, judgement.told, judgement.policy, said, now(), is_contested=contested
            )  # fmt: skip
            await self._write_what_is_new(uid, body, annotations(judgement.verdict), status, judgement.verdict.placement, judgement)

    async def _write_what_is_new(  # noqa: C901  # what is new, and what somebody undid, are written together
        self, uid: str, body: Json, marks: dict[str, str | None], status: Json, placement: Placement | None,
        judgement: Judgement | None = None,
    ) -> None:  # fmt: skip
        before = body.get("status") or {}
        present = body["metadata"].get("annotations") or {}
        marks = settled(marks, present, self._marked.get(uid))
        wanted = {name: value for name, value in marks.items() if present.get(name) != value}
        is_forged = self._told.get(uid, before) != before
        is_ours = uid in self._told  # else another one led, or nobody: somebody may have written there meanwhile
        says_new = is_worth_writing(before, status) or self._example_broke(uid, placement) or is_forged
        says_new = says_new or (not is_ours and says_otherwise(before, status))
        if (wanted or says_new) and not self._lease.is_held():
            self.queue.put(uid)  # whoever leads next has this to write
            return
        is_undone, is_repair = self._undone(uid, marks, status, is_forged=is_forged, is_stripped=bool(wanted))
        if is_undone and (pause := self._repairs.seconds_to_wait(uid)):
            self.queue.put_later(uid, pause)
            if is_repair:
                return
            wanted = {} if self._marked.get(uid) == marks else wanted
        if wanted:
            answer = await self._write(body, "", {"metadata": {"annotations": wanted}})
            self._marked[uid] = marks
            if is_repair:
                self._note_repair(uid)
            if not self._take(uid, body, answer):
                return
            body = answer
        if says_new:
            if judgement is not None:
                status = {**status, "alternatives": await _alternatives(judgement)}
            answer = await self._write(body, "/status", {"status": status})
            self._take(uid, body, answer)
            if uid not in self._bodies:
                return  # it went meanwhile: nothing is to be remembered, nobody to be told
            await self._remember(uid, answer, before, status, placement)
            if is_repair and not wanted:
                self._note_repair(uid)
        if not is_undone:
            self._marked[uid] = marks
            self._told.setdefault(uid, before)

    def _undone(
        self, uid: str, marks: dict[str, str | None], status: Json, *, is_forged: bool, is_stripped: bool
    ) -> tuple[bool, bool]:
        """Whether somebody undid what we wrote; and whether to put that back is all that there is to write."""
        told, is_marked = self._told.get(uid), self._marked.get(uid) == marks
        is_undone = is_forged or (is_stripped and is_marked)
        return is_undone, is_undone and is_marked and not (told is not None and is_worth_writing(told, status))

    def _note_repair(self, uid: str) -> None:
        self._repairs.note(uid)
        self.queue.put_later(uid, self._repairs.seconds_until_forgotten(uid))  # what is told of it ends with it

    async def _remember(self, uid: str, answer: Json, before: Json, status: Json, placement: Placement | None) -> None:
        """A status was written; who watches events is told where its outcome is another one."""
        self._told[uid] = answer.get("status") or {}
        self._judge.chosen.wrote(answer)
        self._examples[uid] = {pod.node for pod in placement.pods} if placement else set()
        self._note_mismatch(uid, before.get("outcome"), status["outcome"])
        if before.get("outcome") != status["outcome"]:
            reason = status["findings"][0]["code"] if status["findings"] else status["outcome"]
            await self._writer.tell(answer, Outcome[status["outcome"].upper()], reason, status["summary"])

    async def _write(self, body: Json, part: str, patch: Json) -> Json:
        """A patch of the object as it stands here, and of no other."""
        metadata = body["metadata"]
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{metadata['namespace']}/inferencedeployments/{metadata['name']}{part}"
        locked = {**patch, "metadata": {"resourceVersion": metadata["resourceVersion"], **patch.get("metadata", {})}}
        return await self._writer.write("PATCH", path, f"inferencedeployments{part}", locked)

    def _note(self, uid: str, judgement: Judgement) -> None:
        verdict, subject = judgement.verdict, judgement.declaration.subject
        answer = enforce(judgement.declaration, verdict, judgement.policy, None, judgement.own_pods)
        owners = judgement.declaration.owners
        fares = plight(verdict, judgement.inventory, owners, ran=self._judge.book.has_run(owners))
        self.judged[uid] = StandingVerdict(
            kind=KIND, group=GROUP, namespace=subject.namespace, name=subject.name, outcome=verdict.outcome, codes=verdict.codes,
            is_refused=not answer.allowed, plight=fares,
        )  # fmt: skip

    def _take(self, uid: str, started_from: Json, answer: Json) -> bool:
        """Keep what our write made of the object, unless the watch brought something newer, or its end, meanwhile."""
        if self._bodies.get(uid) is not started_from:
            return False
        self._bodies[uid] = answer
        return True

    def _example_broke(self, uid: str, placement: Placement | None) -> bool:
        """A node of the example that stands in the status takes the pods no more."""
        if placement is None or uid not in self._examples:
            return False
        out = {name for each in placement.excluded for name in each.nodes}
        return not self._examples[uid].isdisjoint(out)

    def _note_mismatch(self, uid: str, before: str | None, after: str) -> None:
        """A declaration that was better once and is Waiting or Unsound now."""
        if Outcome[after.upper()] not in BAD:
            self._mismatched[uid] = False
        elif before is not None and Outcome[before.upper()] < Outcome[after.upper()]:
            self._mismatched[uid] = True

    def _is_mismatch(self, uid: str, status: Json) -> bool:
        """As seen by this process; where it saw no change, as the conditions tell."""
        return self._mismatched.get(uid, is_mismatch(status))

    def _declaration(self, uid: str, body: Json) -> Declaration:
        referrals = f" {self._judge.version}" if referred_to(body) else ""
        version = f"{body['metadata']['resourceVersion']} {self._judge.book.rules.profiles_version}{referrals}"
        known = self._declarations.get(uid)
        if known is None or known[0] != version:
            known = self._declarations[uid] = (version, self._judge.declare(body))
        return known[1]

    def publish(self, *, leading: bool) -> None:
        """Set the metrics of all that stand."""
        standing = {uid: body.get("status") or {} for uid, body in self._bodies.items()} if leading else {}
        judged = (
            (KIND, status["outcome"], _codes(status) if self._is_mismatch(uid, status) else ())
            for uid, status in standing.items()
            if status.get("outcome")
        )
        self._metrics.observe_declarations([KIND], judged)
        found = [(KIND, self._is_mismatch(uid, standing[uid]), each.plight) for uid, each in self.judged.items() if uid in standing]
        self._metrics.observe_plights([KIND], found)


def _codes(status: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each["code"] for each in status.get("findings") or ()))


async def _alternatives(judgement: Judgement) -> list[Json]:
    """What would do instead of what does not; looked for in a thread, for it takes as long as a hundred verdicts."""
    if judgement.verdict.outcome not in (Outcome.UNSOUND, Outcome.WASTEFUL):
        return []
    declaration, inventory, policy = judgement.declaration, judgement.inventory, judgement.policy
    found = await asyncio.to_thread(alternatives_of, declaration, inventory, policy)
    changes = (change_of(each, judgement.verdict.performance) for each in found)
    return [{"change": text_told(each, inventory, policy)} for each in changes]
