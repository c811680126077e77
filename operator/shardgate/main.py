"""What ``kopf run -A -m shardgate.main`` loads: reads the configuration, wires the shells."""

import asyncio
import gc
import itertools
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kopf

from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.exceptions import KIND as EXCEPTION
from shardgate.adapters.exceptions import PLURAL as EXCEPTIONS
from shardgate.adapters.gpu_node_reports import PLURAL as REPORTS
from shardgate.adapters.karpenter import API_VERSION as KARPENTER_VERSION
from shardgate.adapters.karpenter import NodeClaimObject, NodePoolObject
from shardgate.adapters.limit_ranges import LimitRangeObject
from shardgate.adapters.manifests import SECRET
from shardgate.adapters.nodes import (
    SLICES_VERSION,
    ClaimObject,
    DeviceClassObject,
    HeartbeatObject,
    NodeObject,
    ReportObject,
    SliceObject,
)
from shardgate.adapters.pods import PodObject
from shardgate.adapters.quotas import QuotaObject
from shardgate.adapters.workload_verdict_objects import PLURAL as VERDICTS
from shardgate.adapters.workloads.kinds import JUDGED_KINDS, JudgedKind
from shardgate.adapters.workloads.references import REFERENCES
from shardgate.api import GROUP, VERSION
from shardgate.domain.calibration import Accuracy
from shardgate.domain.declaration import Subject
from shardgate.domain.enforce import Override
from shardgate.domain.inventory import Inventory
from shardgate.shells.allocator import give_back_large_blocks
from shardgate.shells.calibration import Calibration
from shardgate.shells.certificates import Certificates
from shardgate.shells.cluster import OPERATOR, ApiError, Cluster, ClusterUnreachable
from shardgate.shells.config import ConfigError, OperatorConfig, read_config
from shardgate.shells.config_maps import ConfigMaps
from shardgate.shells.decision_reviews import DecisionReviews, is_decision_review
from shardgate.shells.decisions import Decisions
from shardgate.shells.exception_admission import ExceptionAdmission, is_exception
from shardgate.shells.judge import Judge
from shardgate.shells.lease import Lease
from shardgate.shells.ledger import NAME as LEDGER
from shardgate.shells.ledger import PLURAL as LEDGERS
from shardgate.shells.ledger import Ledger, Seen
from shardgate.shells.log_queue import LogQueue
from shardgate.shells.memory_limit import memory_limit_bytes
from shardgate.shells.metrics import HEARTBEAT_SECONDS, KIND, HealthServer, Metrics
from shardgate.shells.null_storages import NullDiffBase, NullProgress
from shardgate.shells.operator_status import OperatorStatus
from shardgate.shells.policy_status import PolicyStatus
from shardgate.shells.reconciler import Reconciler
from shardgate.shells.reflector import Reflector, is_older
from shardgate.shells.rejudging import Rejudging
from shardgate.shells.report_events import ReportEvents
from shardgate.shells.report_stores import Heartbeats, Reports
from shardgate.shells.stores import (
    Claims,
    DeclarationObject,
    Declarations,
    DeviceClasses,
    Exceptions,
    Ledgers,
    Namespaced,
    NamespaceObject,
    Namespaces,
    NodeClaims,
    NodePools,
    Nodes,
    OneSecret,
    Pods,
    Policies,
    PolicyObject,
    PriorityClasses,
    PriorityClassObject,
    ProfileObject,
    Profiles,
    ReferenceObject,
    References,
    Slices,
    Verdicts,
    Workloads,
)
from shardgate.shells.upkeep import Upkeep
from shardgate.shells.webhook import Admission
from shardgate.shells.webhook_registrations import WebhookRegistrations
from shardgate.shells.webhook_server import WebhookServer
from shardgate.shells.work_queue import WorkQueue
from shardgate.shells.workload_reconciler import WorkloadReconciler
from shardgate.shells.writer import Writer

log = logging.getLogger(__name__)

PLURAL = "inferencedeployments"
SECRETS = "secrets"
NO_INVENTORY = (PLURAL, VERDICTS, LEDGERS, EXCEPTIONS, SECRETS)
"""What is followed, and no fact of the cluster that a verdict rests on."""
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
STALE_AFTER_SECONDS, BROKEN_AFTER_SECONDS = 90, 30
SYNC_REPORT_SECONDS = 10.0
FOLLOW_SECONDS = 20.0


class EndlessBackoffs:
    """kopf gives up, and ends the process, when its list of pauses is used up: this one never is."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.2, 0.5, 1, 2, 4), itertools.repeat(8.0))


class Operator:
    """One replica: everything that lives as long as the process serves."""

    def __init__(self, config: OperatorConfig) -> None:
        self.config = config
        self.metrics = Metrics()
        self.log = LogQueue(self.metrics.lost_log_lines.inc)
        self.health = HealthServer(self.metrics, config.bind_address, config.metrics_port)
        self.cluster = Cluster.from_environment(OPERATOR)
        self.book = ClusterBook()
        self.identity = f"{os.environ.get('HOSTNAME') or platform.node()}_{os.getpid()}"
        self.lease = Lease(self.cluster, config.namespace, self.identity)
        self.turns = Upkeep(self.lease, self.metrics)
        self.judge = Judge(self.book, self.freshness)
        wake = asyncio.Event()
        self.writer = writer = Writer(self.cluster, self.metrics, self.identity)
        self.ledger = Ledger(writer, self.book.claims, self.metrics, self.judge.workloads.owners_made_for)
        self.ledger.on_accuracy = self.note_accuracy
        self.reconciler = Reconciler(writer, self.judge, self.lease, config, self.metrics, WorkQueue(wake), self.ledger.gone)
        self.config_maps = ConfigMaps(self.cluster, self.book.references)
        self.workloads = WorkloadReconciler(
            writer, self.judge, self.lease, config, self.metrics, WorkQueue(wake), self.config_maps, self.ledger.gone,
            self.ledger.note_made,
        )  # fmt: skip
        self.report_events = ReportEvents(writer, self.book.reports)
        self.rejudging = Rejudging(
            self.judge, self.lease, self.metrics, wake, (self.reconciler, self.workloads), self.upkeep, self.note_reports
        )
        self.decisions = Decisions(lambda: self.book.frozen_anew)
        self.admission = Admission(
            self.judge,
            config,
            self.metrics,
            self.ledger,
            writer.read,
            self.note_override,
            self.decisions.keep,
            is_behind=self.is_behind,
        )
        self.questions = DecisionReviews(self.decisions, self.review_access, self.identity)
        self.exceptions = ExceptionAdmission(self.review_access)
        self.certificates = None if config.tls_cert else Certificates(writer, config.namespace, config.hosts)
        certificate, key = _pair(config, self.certificates)
        self.server = WebhookServer(
            ids=frozenset({"validate", "mutate"}), address=config.bind_address, port=config.webhook_port,
            certificate=certificate, key=key, drain_seconds=config.drain_seconds,
            answer=self.answer, on_internal_error=self.metrics.internal_errors.inc,
            on_shed=lambda reason: self.metrics.shed.labels(reason).inc(), client_ca=config.client_ca,
            client_names=config.client_names,
        )  # fmt: skip
        self.policy_status = PolicyStatus(
            writer, self.book, lambda: [*self.reconciler.judged.values(), *self.workloads.judged.values()]
        )
        self.registrations = WebhookRegistrations(writer, self.metrics)
        self.calibration = Calibration(
            writer, self.ledger, self.lease, self.judge, self.metrics, config,
            lambda: itertools.chain(self.reconciler.declarations(), self.judge.declarations()),
        )  # fmt: skip
        self.status = OperatorStatus(
            writer, self.ledger, unready=self.unready, unsynced=self.unsynced, not_after=lambda: self.server.not_after,
            refused_pair=lambda: self.server.refused_pair, webhooks=self.webhooks_in_place,
        )  # fmt: skip
        common: dict[str, Any] = {"cluster": self.cluster, "on_change": self.rejudging.cluster_changed}
        self.reflectors: list[Reflector[Any]] = [
            Reflector(
                name="nodes", path="/api/v1/nodes", item=NodeObject, store=Nodes(self.book), page=500, protobuf="Node", **common
            ),
            Reflector(
                name="pods", path="/api/v1/pods", item=PodObject, store=Pods(self.book), page=2000, protobuf="Pod",
                selector="status.phase!=Succeeded,status.phase!=Failed", **common,
            ),
            *(
                Reflector(name=plural, path=f"/apis/{version}/{plural}", item=item, store=store, is_optional=True, **common)
                for version, plural, item, store in (
                    (SLICES_VERSION, "resourceslices", SliceObject, Slices(self.book)),
                    (SLICES_VERSION, "deviceclasses", DeviceClassObject, DeviceClasses(self.book)),
                    (SLICES_VERSION, "resourceclaims", ClaimObject, Claims(self.book)),
                    (KARPENTER_VERSION, "nodepools", NodePoolObject, NodePools(self.book)),
                    (KARPENTER_VERSION, "nodeclaims", NodeClaimObject, NodeClaims(self.book)),
                )
            ),
            *(
                Reflector(
                    name=plural, path=tuple(f"/apis/{each}/{plural}" for each in versions), item=ReferenceObject,
                    store=References(self.book, kind), is_optional=True, **common,
                )
                for versions, plural, kind in REFERENCES
            ),
            Reflector(
                name="resourcequotas", path="/api/v1/resourcequotas", item=QuotaObject,
                store=Namespaced(self.book.rules.quotas), **common,
            ),
            Reflector(
                name="limitranges", path="/api/v1/limitranges", item=LimitRangeObject,
                store=Namespaced(self.book.rules.limit_ranges), **common,
            ),
            Reflector(
                name="priorityclasses", path="/apis/scheduling.k8s.io/v1/priorityclasses", item=PriorityClassObject,
                store=PriorityClasses(self.book), **common,
            ),
            Reflector(name="namespaces", path="/api/v1/namespaces", item=NamespaceObject, store=Namespaces(self.book), **common),
            Reflector(
                name="verificationpolicies", path=f"/apis/{GROUP}/{VERSION}/verificationpolicies", item=PolicyObject,
                store=Policies(self.book, self.policy_status), **common,
            ),
            Reflector(
                name="modelprofiles", path=f"/apis/{GROUP}/{VERSION}/modelprofiles", item=ProfileObject,
                store=Profiles(self.book), **common,
            ),
            # Not kopf's watch: that one forgets nothing on a re-list, and ends the process on an error in the stream.
            Reflector(
                name=PLURAL, path=f"/apis/{GROUP}/{VERSION}/{PLURAL}", item=DeclarationObject,
                store=Declarations(self.reconciler), **common,
            ),
            Reflector(
                name=LEDGERS, path=f"/apis/{GROUP}/{VERSION}/{LEDGERS}", item=dict, store=Ledgers(self.ledger, LEDGER), **common
            ),
            Reflector(
                name=EXCEPTIONS, path=f"/apis/{GROUP}/{VERSION}/{EXCEPTIONS}", item=dict, store=Exceptions(self.book), **common
            ),
            Reflector(
                name=VERDICTS, path=f"/apis/{GROUP}/{VERSION}/{VERDICTS}", item=dict, store=Verdicts(self.workloads), **common
            ),
        ]  # fmt: skip
        if self.certificates is not None:
            self.reflectors.append(
                Reflector(
                    name=SECRETS,
                    path=self.certificates.path,
                    item=dict,
                    store=OneSecret(self.certificates, SECRET),
                    selector=f"metadata.name={SECRET}",
                    **common,
                )
            )
        self._inventory = [each.health for each in self.reflectors if each.name not in NO_INVENTORY]
        workloads = {
            each.kind: Reflector(
                name=f"{each.plural}.{each.group}", path=each.paths, item=dict, store=Workloads(self.workloads, each),
                is_optional=True, page=100, cluster=self.cluster,  # the queue wakes the leader where one changed
            )
            for each in JUDGED_KINDS
            if each.is_followed
        }  # fmt: skip
        self.followers: list[Reflector[Any]] = [*workloads.values()]
        """Of workloads that stand: owners, scales and declarations that name one rest on them."""
        self._health_of = {kind: each.health for kind, each in workloads.items()}
        """Kind -> how well its objects are followed."""
        names = {PLURAL: KIND, "pods": "Pod"}
        self._health_of |= {names[each.name]: each.health for each in self.reflectors if each.name in names}
        if config.node_agents:
            self.followers += self._of_agents(common)
        self._tasks: list[asyncio.Task[None]] = []
        self._telling: set[asyncio.Task[None]] = set()

    def _of_agents(self, common: Mapping[str, Any]) -> list[Reflector[Any]]:
        """Reports, and heartbeats: where they are missing, nodes are read by their labels, and admission goes on."""
        self.book.reports.stale_after_seconds = self.config.report_stale_after_seconds
        reports = Reflector(
            name=REPORTS, path=f"/apis/{GROUP}/{VERSION}/{REPORTS}", item=ReportObject, store=Reports(self.book), page=100,
            is_optional=True, **common,
        )  # fmt: skip
        heartbeats = Reflector(
            name="leases", path=f"/apis/coordination.k8s.io/v1/namespaces/{self.config.namespace}/leases", item=HeartbeatObject,
            store=Heartbeats(self.book, self.rejudging.cluster_changed), cluster=self.cluster,
        )  # fmt: skip
        self.book.reports.are_heartbeats_followed = lambda: heartbeats.health.broken_seconds() == 0
        return [reports, heartbeats]

    def note_reports(self, inventory: Inventory, leading: bool) -> None:  # noqa: FBT001  # as it is called
        """What nodes' agents report, at each pass."""
        if self.config.node_agents:
            self.metrics.observe_reports(self.book.reports.counts())
            self.report_events.note(inventory, leading=leading)

    async def answer(self, request: Mapping[str, Any], webhook: str) -> dict[str, Any]:
        """The response to a review; what it raises becomes HTTP 500."""
        if is_decision_review(request):
            return await self.questions.mutate(request)
        if is_exception(request):
            return await self.exceptions.validate(request) if webhook == "validate" else self.exceptions.mutate(request)
        return await self.admission.answer(request, webhook)

    async def review_access(self, review: dict[str, Any]) -> dict[str, Any]:
        """A SubjectAccessReview. Raises ``ClusterUnreachable`` and ``ApiError``."""
        answer: dict[str, Any] = await self.cluster.request("POST", ACCESS_REVIEWS, body=review)
        return answer

    def note_override(self, word: Override, subject: Subject, codes: tuple[str, ...]) -> None:
        """An event on the exception, for each use; admission does not wait for it."""
        note = f"used for {subject.label}: {', '.join(codes)}; granted by {word.granted_by}: {word.reason}"
        task = asyncio.create_task(
            self.writer.tell_of(EXCEPTION, word.namespace, word.name.partition("/")[2], "OverrideUsed", note)
        )
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def note_accuracy(self, found: tuple[Accuracy, ...]) -> None:
        """What the leader found of engines that run here holds for every replica."""
        self.book.put_accuracy(found)
        self.metrics.observe_accuracy(found)

    def seen(self, uid: str, kind: str) -> Seen:
        """The object of a claim, as this replica knows it."""
        health = self._health_of.get(kind)
        is_followed = health is None or (health.broken_seconds() == 0 and health.age_seconds() <= STALE_AFTER_SECONDS)
        own, workload = self.reconciler.get(uid), self.judge.workloads.get(uid)
        body = own or workload
        if uid in self.book.pods:
            return Seen(stands=True, generation=sys.maxsize)  # its GPUs never change
        if body is None:
            return Seen(stands=False, is_followed=is_followed)
        try:
            asked = None if workload is None else self.judge.asked_by(workload)
        except Exception:  # a defect of ours with one object must not keep the claims of all
            log.exception("%s %s: what it asks for cannot be read", kind, uid)
            self.metrics.internal_errors.inc()
            asked = None
        return Seen(
            stands=True, is_followed=is_followed, generation=int(body["metadata"].get("generation") or 0), asked=asked,
            is_going=bool(body["metadata"].get("deletionTimestamp")),
        )  # fmt: skip

    async def upkeep(self) -> None:
        """What the leader keeps in order besides verdicts."""

        def covered(uid: str, generation: int) -> bool:
            return self.reconciler.has_judged(uid, generation) or not self.ledger.missing(uid)

        parts = [lambda: self.ledger.upkeep(self.seen, covered), self.policy_status.upkeep, self.workloads.take_away_what_is_over]
        parts += [
            self.writer.send_owed,
            self.report_events.upkeep,
            self.calibration.upkeep,
            *([self.status.upkeep] if self.server.is_serving else []),
        ]
        if self.certificates is not None:
            parts.insert(0, self.certificates.upkeep)
        await self.turns.once(parts)

    def webhooks_in_place(self) -> tuple[str, str, str]:
        """The condition of the webhook configurations."""
        contested = self.certificates.contested() if self.certificates is not None else []
        if contested:
            return "False", "CaBundleContested", f"somebody else changes the caBundle of {', '.join(contested)} again and again"
        return self.registrations.stated()

    def freshness(self) -> tuple[float, float]:
        """(age of the stalest copy, time since a watch is known to be broken), in seconds."""
        return max(each.age_seconds() for each in self._inventory), max(each.broken_seconds() for each in self._inventory)

    def unready(self) -> list[str]:
        """Why no traffic should come here."""
        reasons = self.unsynced()
        if not self.server.is_serving:
            reasons.append("the webhook is not serving yet")
        if self.server.is_draining:
            reasons.append("draining")
        return reasons

    def unsynced(self) -> list[str]:
        """What is not followed, or not closely enough."""
        reasons = [
            f"{each.name}: not listed yet ({each.health.problem or 'listing'})"
            for each in self.reflectors
            if not each.health.synced.is_set()
        ]
        for each in self.reflectors:
            if each.health.synced.is_set() and each.health.age_seconds() > STALE_AFTER_SECONDS:
                reasons.append(f"{each.name}: nothing heard for {each.health.age_seconds():.0f} s")
            if each.health.broken_seconds() > BROKEN_AFTER_SECONDS:
                reasons.append(f"{each.name}: watch broken for {each.health.broken_seconds():.0f} s ({each.health.problem})")
        return reasons

    def is_behind(self, kind: JudgedKind, version: str) -> bool:
        """Whether workloads of this kind that stand are not followed, not closely enough, or not up to this ``resourceVersion``."""
        health = self._health_of[kind.kind]
        age, broken = health.age_seconds(), health.broken_seconds()  # the age is infinite before all are listed
        is_older_copy = not health.reached or is_older(health.reached, version)
        return age > STALE_AFTER_SECONDS or broken > BROKEN_AFTER_SECONDS or is_older_copy

    def refresh_metrics(self) -> None:
        """Before a scrape."""
        for each in (*self.reflectors, *self.followers):
            self.metrics.synced.labels(each.name).set(each.health.synced.is_set())
            self.metrics.last_event.labels(each.name).set(each.health.last_heard_at)
        self.metrics.ready.set(not self.unready())
        self.metrics.claims.set(len(self.book.claims))
        self.metrics.memory_limit.set(memory_limit_bytes())
        self.metrics.in_flight.set(self.server.in_flight)
        self.metrics.refused_pair.set(bool(self.server.refused_pair))
        if self.server.not_after is not None:
            self.metrics.not_after.set(self.server.not_after)

    async def start(self) -> None:
        """Returns when the inventory is complete; no request is answered before."""
        self.log.install()
        self.health.unready, self.health.refresh = self.unready, self.refresh_metrics
        self.health.start()
        await self.cluster.__aenter__()
        started = time.monotonic()
        self._tasks = [asyncio.create_task(each.run(), name=each.name) for each in (*self.reflectors, *self.followers)]
        self._tasks.append(asyncio.create_task(self._heartbeat(), name="heartbeat"))
        self._tasks.append(asyncio.create_task(self.config_maps.run(), name="configmaps"))
        await self._synced()
        if self.certificates is not None:
            await self._first_certificate(self.certificates)
        await self._followed()
        self._tasks.append(asyncio.create_task(self.lease.run(), name="lease"))
        self._tasks.append(asyncio.create_task(self.rejudging.run(), name="rejudging"))
        self._tasks.append(asyncio.create_task(self.registrations.run(), name="webhook configurations"))
        if self.config.prometheus_url is not None:
            self._tasks.append(asyncio.create_task(self.calibration.run(), name="calibration"))
        if self.certificates is not None:
            await self.certificates.served.wait()  # the leader, this replica or another one, sees to it
        nodes, pods = self.book.counts()
        gc.collect()
        gc.freeze()  # what was loaded stays: full collections need not walk it again
        log.warning("inventory complete in %.1f s: %d nodes, %d pods", time.monotonic() - started, nodes, pods)

    async def _synced(self) -> None:
        waiting = [asyncio.create_task(each.health.synced.wait()) for each in self.reflectors]
        while True:
            _, pending = await asyncio.wait(waiting, timeout=SYNC_REPORT_SECONDS)
            if not pending:
                return
            for each in self.reflectors:
                if not each.health.synced.is_set():
                    log.warning("waiting for %s: %s", each.name, each.health.problem or "listing")

    async def _first_certificate(self, certificates: Certificates) -> None:
        """Where there is none yet, whichever replica comes first makes it."""
        try:
            await certificates.begin()
        except (ApiError, ClusterUnreachable) as error:
            log.warning("the first certificate could not be written: %s", error)

    async def _followed(self) -> None:
        """Workloads that stand are known, too; a kind that cannot be listed keeps nobody from admission."""
        waiting = [each.health.synced.wait() for each in self.followers]
        try:
            async with asyncio.timeout(FOLLOW_SECONDS):
                await asyncio.gather(*waiting)
        except TimeoutError:
            for each in self.followers:
                if not each.health.synced.is_set():
                    log.warning("%s are not followed yet: %s", each.name, each.health.problem or "listing")

    async def _heartbeat(self) -> None:
        while True:
            self.health.ended = [task.get_name() for task in self._tasks if task.done()]
            self.health.beat()
            self.decisions.settle()
            for each in (*self.reflectors, *self.followers):
                for reason, count in list(each.health.restarts.items()):
                    self.metrics.watch_restarts.labels(each.name, reason).inc(count)
                    del each.health.restarts[reason]
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def stop(self) -> None:
        """Stop, and only then let go of the lease: nothing may take it again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.lease.release()
        await self.cluster.__aexit__()
        self.health.stop()
        if self.certificates is not None:
            self.certificates.clear()
        self.log.uninstall()


def _pair(config: OperatorConfig, certificates: Certificates | None) -> tuple[Path, Path]:
    """Where the server's certificate and key are."""
    if config.tls_cert is not None and config.tls_key is not None:
        return config.tls_cert, config.tls_key
    if certificates is None:
        problem = "neither a certificate nor one of our own"
        raise ConfigError(problem)
    return certificates.certificate, certificates.key


def _operator() -> Operator:
    try:
        return Operator(read_config(os.environ))
    except (ConfigError, ClusterUnreachable, OSError) as error:  # OSError: a port that is taken
        sys.exit(f"shardgate: {error}")


give_back_large_blocks()
operator = _operator()
os.environ.setdefault("POD_ID", operator.identity)  # else kopf looks our own name up, and a dead DNS holds it up


@kopf.on.startup(errors=kopf.ErrorsMode.PERMANENT)
async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Settings that keep kopf from writing or giving up, then the inventory."""
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = EndlessBackoffs()
    settings.persistence.diffbase_storage = NullDiffBase()
    settings.persistence.progress_storage = NullProgress()
    settings.admission.server = operator.server
    settings.admission.managed = None
    await operator.start()


@kopf.on.cleanup()
async def stop(**_: Any) -> None:
    """Stop our own tasks before kopf cancels whatever is left."""
    await operator.stop()
