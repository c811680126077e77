"""Standing workloads of other kinds: nothing is written to them, a ``WorkloadVerdict`` stands beside them while it must.

This is the audit of what was there before us, and of what slipped through while no webhook answered.
"""

from collections.abc import Callable, Iterable
from typing import Any

from shardgate.adapters.standing_workloads import StandingWorkloads
from shardgate.adapters.workload_verdict_objects import PLURAL, is_mismatch, name_of, says_new, workload_verdict
from shardgate.adapters.workloads.kinds import JudgedKind
from shardgate.adapters.workloads.values import dicts
from shardgate.api import GROUP, VERSION
from shardgate.domain.enforce import enforce
from shardgate.domain.inventory import Inventory
from shardgate.domain.situation import is_stale
from shardgate.domain.verdict import Outcome, Verdict
from shardgate.shells.cluster import APPLY_PATCH, ApiError
from shardgate.shells.config import OperatorConfig
from shardgate.shells.config_maps import ConfigMaps
from shardgate.shells.judge import Judge, WorkloadJudgement
from shardgate.shells.lease import Lease
from shardgate.shells.metrics import Metrics
from shardgate.shells.reconciler import BAD, STALE_RETRY_SECONDS
from shardgate.shells.work_queue import WorkQueue
from shardgate.shells.writer import Writer, now

Json = dict[str, Any]
FIELD_MANAGER = {"fieldManager": "shardgate", "force": "true"}
HTTP_NOT_FOUND = 404


class WorkloadReconciler:
    """What is done with the verdicts on standing workloads."""

    def __init__(  # its collaborators
        self, writer: Writer, judge: Judge, lease: Lease, config: OperatorConfig, metrics: Metrics, queue: WorkQueue,
        config_maps: ConfigMaps, on_gone: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._writer, self._judge, self._lease = writer, judge, lease
        self._config, self._metrics, self.queue = config, metrics, queue
        self._config_maps, self._on_gone = config_maps, on_gone
        self._verdicts: dict[str, Json] = {}
        """uid of a workload -> the WorkloadVerdict that stands beside it."""
        self._outcomes: dict[str, tuple[str, Outcome]] = {}
        """uid -> (kind, outcome), of those that were judged."""
        self._violating: set[str] = set()
        self._kinds: set[str] = set()

    @property
    def _standing(self) -> StandingWorkloads:
        return self._judge.workloads

    def uids(self) -> Iterable[str]:
        """All that stand."""
        return self._standing.all_uids()

    def put(self, body: Json) -> None:
        """A workload was added or changed."""
        if self._standing.put(body):
            self._config_maps.follow(body)
            self.queue.put(body["metadata"]["uid"])

    def drop(self, uid: str) -> None:
        """A workload was deleted; the garbage collector takes what it owns."""
        self._standing.drop(uid)
        self._config_maps.unfollow(uid)
        self._on_gone(uid)
        self._outcomes.pop(uid, None)
        self._violating.discard(uid)
        self.queue.drop(uid)

    def uids_of(self, kind: JudgedKind) -> list[str]:
        """Those of a kind that stand."""
        return self._standing.uids(kind.group, kind.kind)

    def put_verdict(self, body: Json) -> None:
        """A WorkloadVerdict stands, or was changed: by us, or by somebody else."""
        for owner in dicts(body["metadata"].get("ownerReferences")):
            before = self._verdicts.get(str(owner.get("uid")))
            self._verdicts[str(owner.get("uid"))] = body
            if before != body:
                self.queue.put(str(owner.get("uid")))

    def drop_verdict(self, name: tuple[str, str]) -> None:
        """By namespace and name."""
        for uid, body in list(self._verdicts.items()):
            if (body["metadata"]["namespace"], body["metadata"]["name"]) == name:
                del self._verdicts[uid]
                self.queue.put(uid)

    def verdict_names(self) -> list[tuple[str, str]]:
        """Of those that stand."""
        return [(body["metadata"]["namespace"], body["metadata"]["name"]) for body in self._verdicts.values()]

    def order(self, uid: str) -> tuple[str, str]:
        """One is as good as another."""
        return ("", uid)

    def relieve(self, inventory: Inventory) -> None:
        """Nothing is promised to them."""

    def keep_promises(self) -> None:
        """Pods of theirs come at once: nothing is promised to them."""

    def label(self, uid: str) -> str:
        """Its kind, namespace and name."""
        body = self._standing.get(uid) or {}
        metadata = body.get("metadata") or {}
        return f"{body.get('kind')} {metadata.get('namespace')}/{metadata.get('name')}"

    async def judge_and_write(self, uid: str) -> None:
        """Judge it, and write what is new. Raises ``ApiError`` and ``ClusterUnreachable``."""
        body = self._standing.get(uid)
        if body is None:
            return
        judgement = self._judge.judge_workload(body) if self._is_judged(body) else None
        if judgement is not None and is_stale(judgement.inventory, judgement.policy):
            self.queue.put(uid, STALE_RETRY_SECONDS)
            return
        before = self._outcomes.get(uid)
        if judgement is None:
            self._outcomes.pop(uid, None)
            self._violating.discard(uid)
            await self._take_away(uid, body)
            return
        verdict = judgement.told
        self._kinds.add(body["kind"])
        self._note_violation(uid, judgement)
        if verdict.findings:
            await self._say(uid, body, verdict, None if before is None else before[1])
        else:
            await self._take_away(uid, body)
        self._outcomes[uid] = (body["kind"], verdict.outcome)

    def _is_judged(self, body: Json) -> bool:
        """It is not exempt, not going, and nothing else is judged in its stead."""
        metadata = body["metadata"]
        if metadata.get("deletionTimestamp") or self._config.is_exempt(metadata.get("namespace") or ""):
            return False
        return not self._judge.is_judged_elsewhere(body)

    def _note_violation(self, uid: str, judgement: WorkloadJudgement) -> None:
        declarations = judgement.workload.declarations
        refused = declarations and not enforce(declarations[0], judgement.told, judgement.policy, None, judgement.own_pods).allowed
        (self._violating.add if refused else self._violating.discard)(uid)

    async def _say(self, uid: str, body: Json, verdict: Verdict, seen: Outcome | None) -> None:
        """Keep the object beside the workload true, and tell of a change by an event."""
        stored = self._verdicts.get(uid)
        before = None if stored is None else stored.get("status") or {}
        if before is None and seen is not None:
            before = {"outcome": seen.label}
        fresh = workload_verdict(body, verdict, before, now())
        if not says_new(stored, fresh):
            return
        if not self._lease.is_held():
            self.queue.put(uid)  # whoever leads next has this to write
            return
        answer = await self._writer.write("PATCH", _path(body), PLURAL, fresh, content_type=APPLY_PATCH, parameters=FIELD_MANAGER)
        self._verdicts[uid] = answer
        was = None if before is None else before.get("outcome")
        if was != verdict.outcome.label and (was is not None or verdict.outcome is Outcome.RISKY or verdict.outcome in BAD):
            await self._writer.tell(body, verdict.outcome, verdict.codes[0], verdict.findings[0].message)

    async def _take_away(self, uid: str, body: Json) -> None:
        """Nothing is found any more: nothing stands beside it."""
        stored = self._verdicts.get(uid)
        if stored is None:
            return
        if not self._lease.is_held():
            self.queue.put(uid)
            return
        try:
            await self._writer.write("DELETE", _path(body), PLURAL, None)
        except ApiError as error:
            if error.status != HTTP_NOT_FOUND:
                raise
        self._verdicts.pop(uid, None)
        await self._writer.tell(body, Outcome.SOUND, Outcome.SOUND.label, "nothing is found any more")

    def publish(self, *, leading: bool) -> None:
        """Set the metrics of all that stand."""
        judged = self._outcomes if leading else {}
        self._metrics.observe_declarations(
            self._kinds, [(kind, outcome.label, self._mismatched(uid)) for uid, (kind, outcome) in judged.items()]
        )
        for kind in self._kinds:
            count = sum(uid in judged and judged[uid][0] == kind for uid in self._violating)
            self._metrics.violations.labels(kind).set(count)

    def _mismatched(self, uid: str) -> tuple[str, ...]:
        """Codes of one that was better before."""
        status = (self._verdicts.get(uid) or {}).get("status") or {}
        if not status or not is_mismatch(status):
            return ()
        return tuple(dict.fromkeys(each["code"] for each in status.get("findings") or ()))


def _path(body: Json) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{body['metadata']['namespace']}/{PLURAL}/{name_of(body)}"
