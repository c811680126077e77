"""Standing workloads of other kinds: nothing is written to them, a ``WorkloadVerdict`` stands beside them while it must.

This is the audit of what was there before us, and of what slipped through while no webhook answered.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.standing_workloads import StandingWorkloads, key_of
from shardgate.adapters.workload_verdict_objects import PLURAL, is_mismatch, name_of, patch_of, says_new, workload_verdict
from shardgate.adapters.workloads.kinds import JudgedKind, controller_of
from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.api import GROUP, VERSION
from shardgate.domain.enforce import enforce
from shardgate.domain.inventory import Inventory
from shardgate.domain.plight import plight
from shardgate.domain.situation import is_stale
from shardgate.domain.verdict import Outcome, Verdict
from shardgate.shells.cluster import ApiError
from shardgate.shells.config import OperatorConfig
from shardgate.shells.config_maps import ConfigMaps
from shardgate.shells.judge import Judge, WorkloadJudgement
from shardgate.shells.lease import Lease
from shardgate.shells.metrics import Metrics
from shardgate.shells.policy_status import StandingVerdict
from shardgate.shells.reconciler import BAD, STALE_RETRY_SECONDS
from shardgate.shells.repairs import Repairs
from shardgate.shells.work_queue import WorkQueue
from shardgate.shells.writer import Writer, now

Json = dict[str, Any]
HTTP_NOT_FOUND = 404
OVER_SECONDS = 30.0
Name = tuple[str, str]
"""Namespace, name."""


class WorkloadReconciler:
    """What is done with the verdicts on standing workloads."""

    def __init__(  # its collaborators
        self, writer: Writer, judge: Judge, lease: Lease, config: OperatorConfig, metrics: Metrics, queue: WorkQueue,
        config_maps: ConfigMaps, on_gone: Callable[[str], None] = lambda _: None, on_made: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """``on_gone``: told of the uid of what went; ``on_made``: told when something stands that a controller made."""
        self._writer, self._judge, self._lease = writer, judge, lease
        self._config, self._metrics, self.queue = config, metrics, queue
        self._config_maps, self._on_gone, self._on_made = config_maps, on_gone, on_made
        self._verdicts: dict[Name, Json] = {}
        """The WorkloadVerdicts that stand, by namespace and name."""
        self.judged: dict[str, StandingVerdict] = {}
        """What was last found, by uid."""
        self._left: dict[Name, float] = {}
        """WorkloadVerdicts that may have nothing to be about any more, and since when."""
        self._kinds: set[str] = set()
        self._said: dict[str, Json] = {}
        """uid -> what was last written beside it."""
        self._repairs = Repairs()

    @property
    def _standing(self) -> StandingWorkloads:
        return self._judge.workloads

    def uids(self) -> Iterable[str]:
        """All that stand."""
        return self._standing.all_uids()

    def put(self, body: Json) -> None:
        """A workload was added or changed."""
        uid = body["metadata"]["uid"]
        before = self._standing.named(*key_of(body))
        if before is not None and before["metadata"]["uid"] != uid:  # it was deleted and made anew while nobody looked
            self.drop(before["metadata"]["uid"])
        is_new = self._standing.get(uid) is None
        if not self._standing.put(body, time.monotonic()):
            return
        self._config_maps.follow(body)
        self.queue.put(uid)
        if is_new and controller_of(body) is not None:
            self._on_made()
        if is_new:  # what was made for it, and came first, is judged no longer
            for made in self._standing.made_for(uid):
                self.queue.put(made["metadata"]["uid"])

    def drop(self, uid: str) -> None:
        """A workload was deleted, or asks for GPUs no longer."""
        body = self._standing.get(uid)
        made = self._standing.made_for(uid)
        if body is None or not self._standing.drop(uid, time.monotonic()):
            return
        self._config_maps.unfollow(uid)
        self._on_gone(uid)
        self._repairs.forget(uid)
        for known in (self.judged, self._said):
            known.pop(uid, None)
        self.queue.drop(uid)
        for each in made:
            self.queue.put(each["metadata"]["uid"])
        if _name(body) in self._verdicts:
            self._left.setdefault(_name(body), time.monotonic())

    def uids_of(self, kind: JudgedKind) -> list[str]:
        """Those of a kind that stand."""
        return self._standing.uids(kind.group, kind.kind)

    def put_verdict(self, body: Json) -> None:
        """A WorkloadVerdict stands, or was changed: by us, or by somebody else."""
        name = (body["metadata"]["namespace"], body["metadata"]["name"])
        before, self._verdicts[name] = self._verdicts.get(name), body
        if before != body:
            self._look_again(body)

    def drop_verdict(self, name: Name) -> None:
        """By namespace and name."""
        body = self._verdicts.pop(name, None)
        self._left.pop(name, None)
        if body is not None:
            self._look_again(body)

    def _look_again(self, verdict: Json) -> None:
        """Judge the workload that a WorkloadVerdict is about; where there is none, the verdict is over."""
        about, name = self._about(verdict), (verdict["metadata"]["namespace"], verdict["metadata"]["name"])
        if about is None and name in self._verdicts:
            self._left.setdefault(name, time.monotonic())
        elif about is not None:
            self.queue.put(about["metadata"]["uid"])

    def _about(self, verdict: Json) -> Json | None:
        reference = mapping(mapping(verdict.get("spec")).get("workloadRef"))
        group = str(reference.get("apiVersion") or "").rpartition("/")[0]
        namespace = verdict["metadata"]["namespace"]
        return self._standing.named(group, str(reference.get("kind")), namespace, str(reference.get("name")))

    def verdict_names(self) -> list[Name]:
        """Of those that stand."""
        return list(self._verdicts)

    async def take_away_what_is_over(self) -> None:
        """WorkloadVerdicts whose workloads are gone, or are followed no longer. Raises as ``judge_and_write``.

        The garbage collector takes most of them; it gets a while to.
        """
        for name in [name for name, since in self._left.items() if time.monotonic() - since > OVER_SECONDS]:
            verdict = self._verdicts.get(name)
            if verdict is not None and self._about(verdict) is None:
                await self._delete(name)
            self._left.pop(name, None)  # what could not be deleted is tried again

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
        before = self.judged.get(uid)
        if judgement is None:
            self.judged.pop(uid, None)
            if self._stored(body) is not None:
                await self._delete(_name(body))
            return
        verdict = judgement.told
        self._kinds.add(body["kind"])
        if verdict.findings:
            await self._say(body, verdict, None if before is None else before.outcome)
        else:
            await self._take_away(body)
        self.judged[uid] = _standing(body, judgement, self._judge.book)

    def _is_judged(self, body: Json) -> bool:
        """It is not exempt, not going, and nothing else is judged in its stead."""
        metadata = body["metadata"]
        if metadata.get("deletionTimestamp") or self._config.is_exempt(metadata.get("namespace") or ""):
            return False
        return not self._judge.is_judged_elsewhere(body)

    def _stored(self, body: Json) -> Json | None:
        """The WorkloadVerdict beside a workload, and not beside one that had its name before."""
        stored = self._verdicts.get(_name(body))
        owners = [] if stored is None else dicts(stored["metadata"].get("ownerReferences"))
        return stored if any(each.get("uid") == body["metadata"]["uid"] for each in owners) else None

    async def _say(self, body: Json, verdict: Verdict, seen: Outcome | None) -> None:
        """Keep the object beside the workload true, and tell of a change by an event."""
        stored = self._stored(body)
        before = None if stored is None else stored.get("status") or {}
        if before is None and seen is not None:
            before = {"outcome": seen.label}
        fresh = workload_verdict(body, verdict, before, now())
        if not says_new(stored, fresh):
            return
        if not self._lease.is_held():
            self.queue.put(body["metadata"]["uid"])  # whoever leads next has this to write
            return
        uid = body["metadata"]["uid"]
        if uid in self._said and not says_new(self._said[uid], fresh):  # somebody else took it away, or wrote over it
            if pause := self._repairs.seconds_to_wait(uid):
                self.queue.put_later(uid, pause)
                return
            self._repairs.note(uid)
        self._said[uid] = await self._write(_name(body), fresh)
        was = None if before is None else before.get("outcome")
        if was != verdict.outcome.label and (was is not None or verdict.outcome is Outcome.RISKY or verdict.outcome in BAD):
            await self._writer.tell(body, verdict.outcome, verdict.codes[0], verdict.findings[0].message)

    async def _write(self, name: Name, fresh: Json) -> Json:
        """The object, where none stands here, or a patch of the one that does: nothing over what another replica wrote since."""
        stands = self._verdicts.get(name)
        if stands is None:
            answer = await self._writer.write("POST", _path((name[0], "")).rstrip("/"), PLURAL, fresh)
        else:
            answer = await self._writer.write("PATCH", _path(name), PLURAL, patch_of(stands, fresh))
        if self._verdicts.get(name) is stands:  # else the watch brought something newer
            self._verdicts[name] = answer
        return answer

    async def _take_away(self, body: Json) -> None:
        """Nothing is found any more: nothing stands beside it."""
        if self._stored(body) is not None and await self._delete(_name(body)):
            await self._writer.tell(body, Outcome.SOUND, Outcome.SOUND.label, "nothing is found any more")

    async def _delete(self, name: Name) -> bool:
        if not self._lease.is_held():
            return False  # whoever leads next looks at all of them
        metadata = self._verdicts[name]["metadata"]
        seen = {"preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}}
        try:
            await self._writer.write("DELETE", _path(name), PLURAL, seen)
        except ApiError as error:
            if error.status != HTTP_NOT_FOUND:
                raise
        gone = self._verdicts.pop(name, None)
        for owner in [] if gone is None else dicts(gone["metadata"].get("ownerReferences")):
            self._said.pop(str(owner.get("uid")), None)
        return True

    def publish(self, *, leading: bool) -> None:
        """Set the metrics of all that stand."""
        judged = self.judged if leading else {}
        found = [(each.kind, each.outcome.label, self._mismatched(uid)) for uid, each in judged.items()]
        self._metrics.observe_declarations(self._kinds, found)
        plights = [(each.kind, bool(self._mismatched(uid)), each.plight) for uid, each in judged.items()]
        self._metrics.observe_plights(self._kinds, plights)
        for kind in self._kinds:
            self._metrics.violations.labels(kind).set(sum(each.is_refused for each in judged.values() if each.kind == kind))

    def _mismatched(self, uid: str) -> tuple[str, ...]:
        """Codes of one that was better before."""
        body = self._standing.get(uid)
        status = ((self._stored(body) if body is not None else None) or {}).get("status") or {}
        if not status or not is_mismatch(status):
            return ()
        return tuple(dict.fromkeys(each["code"] for each in status.get("findings") or ()))


def _standing(body: Json, judgement: WorkloadJudgement, book: ClusterBook) -> StandingVerdict:
    declarations, verdict = judgement.workload.declarations, judgement.workload.verdict
    declaration = declarations[0] if declarations else None
    answer = enforce(declaration, verdict, judgement.policy, None, judgement.own_pods)
    group, kind, namespace, name = key_of(body)
    owners = {owner for each in declarations for owner in each.owners}
    fares = plight(verdict, judgement.inventory, owners, ran=book.has_run(owners))
    return StandingVerdict(
        kind=kind, group=group, namespace=namespace, name=name, outcome=verdict.outcome, codes=verdict.codes,
        is_refused=not answer.allowed, plight=fares,
    )  # fmt: skip


def _name(body: Json) -> Name:
    """Of the WorkloadVerdict beside a workload."""
    return (body["metadata"]["namespace"], name_of(body))


def _path(name: Name) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{name[0]}/{PLURAL}/{name[1]}"
