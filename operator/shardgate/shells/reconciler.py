"""Keeps verdicts true after admission: status, annotations and events of standing declarations.

Level-triggered: whatever changed, a declaration is judged by the cluster as it is now, and written to only where the
result says something new. At rest nothing is written. Only the leader writes; every replica keeps the queue warm.
"""

import asyncio
import contextlib
import datetime
import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.status import OUR_ANNOTATIONS, annotations, is_mismatch, is_worth_writing, status_of, unjudged
from shardgate.api import API_VERSION, GROUP, VERSION
from shardgate.domain.codes import finding
from shardgate.domain.declaration import Declaration
from shardgate.domain.placement import Placement
from shardgate.domain.situation import is_stale
from shardgate.domain.verdict import Outcome
from shardgate.shells.cluster import MERGE_PATCH, ApiError, Cluster, ClusterUnreachable
from shardgate.shells.config import OperatorConfig
from shardgate.shells.judge import Judge, Judgement
from shardgate.shells.lease import Lease
from shardgate.shells.metrics import KIND, Metrics

log = logging.getLogger(__name__)

PASS_SECONDS = 0.5
"""Changes that come together are judged together; a status is at most this and a judgement late."""
IDLE_SECONDS = 5.0
"""What is remembered stops counting by time alone, so look again now and then."""
MAX_RETRY_SECONDS = 60.0
MAX_DOUBLINGS = 8
STALE_RETRY_SECONDS = 5.0
BATCH = 20
"""Declarations judged before other work gets its turn."""
HTTP_NOT_FOUND, HTTP_CONFLICT = 404, 409

Json = dict[str, Any]
_BAD = (Outcome.WAITING.label, Outcome.UNSOUND.label)


class Reconciler:
    """Judges standing declarations again whenever they or the cluster change."""

    def __init__(  # its collaborators
        self, cluster: Cluster, judge: Judge, lease: Lease, config: OperatorConfig, metrics: Metrics, identity: str
    ) -> None:
        self._cluster, self._judge, self._lease = cluster, judge, lease
        self._config, self._metrics, self._identity = config, metrics, identity
        self._bodies: dict[str, Json] = {}
        self._declarations: dict[str, tuple[str, Declaration]] = {}
        self._due: dict[str, float] = {}
        """uid -> when to judge it, by the monotonic clock."""
        self._failures: dict[str, int] = {}
        self._mismatched: dict[str, bool] = {}
        """uid -> whether it was seen to become worse; conditions tell it after a restart, but only to the second."""
        self._examples: dict[str, set[str]] = {}
        """uid -> nodes of the example that stands in its status."""
        self._wake = asyncio.Event()
        self._judged_version = -1

    def put(self, body: Json) -> None:
        """A declaration was added or changed."""
        uid = body["metadata"]["uid"]
        self._bodies[uid] = body
        self._due[uid] = time.monotonic()
        self._wake.set()

    def drop(self, uid: str) -> None:
        """A declaration was deleted."""
        for known in (self._bodies, self._declarations, self._due, self._failures):
            known.pop(uid, None)
        self._mismatched.pop(uid, None)
        self._examples.pop(uid, None)
        self._wake.set()

    def uids(self) -> list[str]:
        """All that is known to stand."""
        return list(self._bodies)

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
                await self._pass()
            except Exception:
                self._metrics.internal_errors.inc()
                log.exception("a reconciling pass failed")
            await asyncio.sleep(PASS_SECONDS)

    def _patience(self) -> float:
        soonest = min(self._due.values(), default=float("inf"))
        return min(IDLE_SECONDS, max(0.0, soonest - time.monotonic()))

    async def _pass(self) -> None:
        inventory = self._judge.inventory()
        self._metrics.observe_inventory(inventory)
        leading = self._lease.is_held()
        if self._lease.gained.is_set():
            self._lease.gained.clear()
            self._judged_version = -1
        version = self._judge.book.version
        if version != self._judged_version:
            now = time.monotonic()
            for uid in self._bodies:
                if uid not in self._failures:
                    self._due[uid] = now
            self._judged_version = version
        if leading:
            now = time.monotonic()
            for number, uid in enumerate([uid for uid, due in self._due.items() if due <= now]):
                await self._reconcile(uid)
                if number % BATCH == BATCH - 1:
                    await asyncio.sleep(0)
        self._publish(leading=leading)

    async def _reconcile(self, uid: str) -> None:
        body = self._bodies.get(uid)
        self._due.pop(uid, None)
        if body is None or body["metadata"].get("deletionTimestamp") or self._config.is_exempt(body["metadata"]["namespace"]):
            return
        try:
            await self._judge_and_write(uid, body)
            self._failures.pop(uid, None)
        except ApiError as error:
            if error.status == HTTP_NOT_FOUND:
                self.drop(uid)
                return
            self._retry(uid, f"{error}")
        except ClusterUnreachable as error:
            self._retry(uid, f"{error}")
        except Exception:
            self._metrics.internal_errors.inc()
            log.exception("%s/%s", body["metadata"]["namespace"], body["metadata"]["name"])
            self._retry(uid, "internal error")

    def _retry(self, uid: str, why: str) -> None:
        failures = self._failures[uid] = min(self._failures.get(uid, 0) + 1, MAX_DOUBLINGS)
        pause = min(MAX_RETRY_SECONDS, 0.5 * 2**failures)
        self._due[uid] = time.monotonic() + pause
        log.warning("%s: %s, again in %.0f s", uid, why, pause)

    async def _judge_and_write(self, uid: str, body: Json) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        judgement: Judgement | None = None
        try:
            judgement = self._judge.judge(body, self._declaration(uid, body))
        except ExceptionGroup as problems:
            mistakes = "; ".join(map(str, mistakes_in(problems)))
            found = finding("DeclarationOpaque", where="spec", outcome=Outcome.UNDECIDED, message=f"cannot be read: {mistakes}")
        except Exception:
            self._metrics.internal_errors.inc()
            log.exception("%s/%s cannot be judged", body["metadata"]["namespace"], body["metadata"]["name"])
            message = "an internal error, see the operator's log"
            found = finding("InternalError", where="spec", outcome=Outcome.UNDECIDED, message=message)
        if judgement is None:
            status = unjudged(body, found, now)
            await self._write_what_is_new(uid, body, dict.fromkeys(OUR_ANNOTATIONS), status, None)
        elif is_stale(judgement.inventory, judgement.policy):
            # Nothing new is known; the inventory's own metrics and readiness say so.
            self._due[uid] = time.monotonic() + STALE_RETRY_SECONDS
        else:
            status = status_of(body, judgement.declaration, judgement.told, judgement.policy, now)
            await self._write_what_is_new(uid, body, annotations(judgement.verdict), status, judgement.verdict.placement)

    async def _write_what_is_new(
        self, uid: str, body: Json, marks: dict[str, str | None], status: Json, placement: Placement | None
    ) -> None:
        metadata, before = body["metadata"], body.get("status") or {}
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{metadata['namespace']}/inferencedeployments/{metadata['name']}"
        present = metadata.get("annotations") or {}
        wanted = {name: value for name, value in marks.items() if present.get(name) != value}
        says_new = is_worth_writing(before, status) or self._example_broke(uid, placement)
        if (wanted or says_new) and not self._lease.is_held():
            self._due[uid] = time.monotonic()  # whoever leads next has this to write
            return
        if wanted:
            patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": wanted}}
            answer = await self._write("PATCH", path, "inferencedeployments", patch)
            if not self._take(uid, body, answer):
                return
            body = answer
        if says_new:
            patch = {"metadata": {"resourceVersion": body["metadata"]["resourceVersion"]}, "status": status}
            answer = await self._write("PATCH", f"{path}/status", "inferencedeployments/status", patch)
            self._take(uid, body, answer)
            if uid not in self._bodies:
                return  # it went meanwhile: nothing is to be remembered, nobody to be told
            self._examples[uid] = {pod.node for pod in placement.pods} if placement else set()
            self._note_mismatch(uid, before.get("outcome"), status["outcome"])
            if before.get("outcome") != status["outcome"]:
                await self._tell(answer, status)

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

    def _note_mismatch(self, uid: str, before: str | None, now: str) -> None:
        """A declaration that was better once and is Waiting or Unsound now."""
        if now not in _BAD:
            self._mismatched[uid] = False
        elif before is not None and Outcome[before.upper()] < Outcome[now.upper()]:
            self._mismatched[uid] = True

    def _is_mismatch(self, uid: str, status: Json) -> bool:
        """As seen by this process; where it saw no change, as the conditions tell."""
        return self._mismatched.get(uid, is_mismatch(status))

    def _declaration(self, uid: str, body: Json) -> Declaration:
        version = f"{body['metadata']['resourceVersion']} {self._judge.book.profiles_version}"
        known = self._declarations.get(uid)
        if known is None or known[0] != version:
            known = self._declarations[uid] = (version, self._judge.declare(body))
        return known[1]

    async def _tell(self, body: Json, status: Json) -> None:
        """An event on each change of outcome."""
        metadata = body["metadata"]
        reason = status["findings"][0]["code"] if status["findings"] else status["outcome"]
        unique = hashlib.sha256(f"{metadata['uid']}{reason}{time.time_ns()}".encode()).hexdigest()[:16]
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name'][:230]}.{unique}", "namespace": metadata["namespace"]},
            "eventTime": now,
            "reportingController": "shardgate.io/operator",
            "reportingInstance": self._identity[:128],
            "action": "Verify",
            "reason": reason,
            "type": "Warning" if Outcome[status["outcome"].upper()] >= Outcome.RISKY else "Normal",
            "note": f"{status['outcome']}: {status['summary']}"[:1024],
            "regarding": {
                "apiVersion": API_VERSION, "kind": KIND, "namespace": metadata["namespace"], "name": metadata["name"],
                "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
            },
        }  # fmt: skip
        await self._write("POST", f"/apis/events.k8s.io/v1/namespaces/{metadata['namespace']}/events", "events", event)

    async def _write(self, verb: str, path: str, resource: str, body: Json) -> Json:
        self._metrics.writes.labels(resource, verb.lower()).inc()
        kind = MERGE_PATCH if verb == "PATCH" else "application/json"
        answer: Json = await self._cluster.request(verb, path, body=body, content_type=kind)
        return answer

    def _publish(self, *, leading: bool) -> None:
        self._metrics.leader.set(leading)
        standing = {uid: body.get("status") or {} for uid, body in self._bodies.items()} if leading else {}
        self._metrics.observe_declarations(
            (status["outcome"], _codes(status) if self._is_mismatch(uid, status) else ())
            for uid, status in standing.items()
            if status.get("outcome")
        )


def _codes(status: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each["code"] for each in status.get("findings") or ()))
