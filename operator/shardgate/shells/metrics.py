"""Metrics, liveness and readiness, served from a thread of their own: a busy event loop cannot hide them."""

import http.server
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from shardgate import __version__
from shardgate.adapters.gpu_resources import counted_once, is_gpu
from shardgate.domain.calibration import Accuracy
from shardgate.domain.capacity import POD_SIZES, supplies
from shardgate.domain.codes import CLASS_OF_CODE, WORST_OF_CODE
from shardgate.domain.inventory import Inventory, NodeState
from shardgate.domain.plight import Plight
from shardgate.domain.verdict import Outcome

HEARTBEAT_SECONDS = 1.0
DEAD_AFTER_SECONDS = 30.0
PREFIX = "shardgate"
UNKNOWN = "unknown"
"""Label of a product that nothing tells."""
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

KIND, OPERATIONS, ANSWERS = "InferenceDeployment", ("CREATE", "UPDATE"), ("allowed", "warned", "refused", "exempt", "invalid")
DRY_RUN = ("false", "true")
UNSOUND_CODES = tuple(code for code, worst in WORST_OF_CODE.items() if worst is Outcome.UNSOUND)
CONTRADICTED = ("product", "memory", "count", "sharing", "mig", "link")
"""Facts that sources may contradict each other in."""
OTHER_KIND = "other"
"""Of what a webhook sends us that we do not read."""


class Metrics:
    """Every metric of the operator. Labels are codes and kinds, never names of objects."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, that nothing here asks for
        self.registry = CollectorRegistry()
        self.requests = self._counter(
            "admission_requests", "Admission requests answered", "kind", "operation", "outcome", "answer", "dry_run"
        )
        self.duration = Histogram(
            "admission_duration_seconds",
            "Time to answer an admission request",
            namespace=PREFIX,
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.findings = self._counter("findings", "Findings in admission answers, dry runs included, by code", "code")
        self.declarations = self._gauge("declarations", "Standing declarations by outcome (leader)", "kind", "outcome")
        self.mismatches = self._gauge(
            "declaration_mismatches", "Standing declarations that became Waiting or Unsound, by code (leader)", "kind", "code"
        )
        self.down = self._gauge(
            "declarations_down",
            "Standing mismatches that ran, none of whose pods is ready, and no node that they could use is on its way (leader)",
            "kind",
        )
        self.contradicted = self._gauge(
            "declarations_contradicted",
            "Standing declarations found Unsound, by code, all of whose pods are ready (leader)",
            "kind",
            "code",
        )
        self.stuck_roll_outs = self._gauge(
            "rollouts_stuck", "Standing declarations whose new pods find no room beside the old ones (leader)", "kind"
        )
        self.shed = self._counter("shed", "Connections and reviews that were not answered, by reason", "reason")
        self.in_flight = self._gauge("inflight", "Reviews that are being answered")
        self.claims = self._gauge("claims", "Objects that GPUs are promised to, until their pods hold them")
        self.claims_expired = self._counter("claims_expired", "Claims whose pods, or whose object, never came")
        self.overrides = self._counter("overrides", "Findings that did not refuse, on the word of an exception", "kind", "code")
        self.violations = self._gauge(
            "policy_violations", "Standing workloads of other kinds that today's policy would refuse (leader)", "kind"
        )
        self.gpus = self._gauge("gpus", "GPUs by product and state", "product", "state")
        self.placeable = self._gauge("placeable_pods", "Pods of so many GPUs that free GPUs could take", "product", "gpus")
        self.free_by_node_size = self._gauge(
            "gpus_free_by_node_size", "Free GPUs on nodes that offer at least so many, taken ones included", "product", "gpus"
        )
        self.short_nodes = self._gauge(
            "nodes_short_of_gpus", "Nodes of which some GPUs are registered and not healthy, as 7 of 8", "product"
        )
        self.contradicting_nodes = self._gauge(
            "node_facts_contradicting",
            "Nodes of which things are said that cannot all be right, by the fact: product, memory, count, sharing, mig, link",
            "product",
            "kind",
        )
        self.nodes_with_held_memory = self._gauge(
            "nodes_gpu_memory_held", "Nodes of which processes that no pod owns hold GPU memory, as their agents report", "product"
        )
        self.node_reports = self._gauge(
            "node_reports", "Nodes with a GpuNodeReport, by whether it counts: fresh, silent, unreadable", "state"
        )
        self.synced = self._gauge("inventory_synced", "1 when the resource was listed completely", "resource")
        self.last_event = self._gauge(
            "inventory_last_event_timestamp_seconds", "Unix time of the last event or bookmark", "resource"
        )
        self.watch_restarts = self._counter("watch_restarts", "Watches that broke, by reason", "resource", "reason")
        self.writes = self._counter("writes", "Requests that wrote to the API server", "resource", "verb")
        self.write_failures = self._counter("write_failures", "Such requests that were refused, by status", "resource", "status")
        self.leader = self._gauge("leader", "1 on the replica that writes")
        self.ready = self._gauge("ready", "1 while the replica answers admission: /readyz says so")
        self.memory_limit = self._gauge("memory_limit_bytes", "Memory that the process may take, 0 without a limit")
        self.webhook_problems = self._gauge(
            "webhook_configuration_problems", "What is missing from, or was changed in, a webhook configuration of ours", "kind"
        )
        self.not_after = self._gauge("tls_not_after_timestamp_seconds", "Unix time at which the serving certificate expires")
        self.refused_pair = self._gauge("tls_pair_refused", "1 while a certificate and key that were delivered are not served")
        self.lost_log_lines = self._counter("log_lines_lost", "Lines of our log that could not be written")
        self.prediction_error = self._gauge(
            "prediction_error_ratio",
            "p90 error of predicted KV-cache tokens of engines that run here",
            "engine_version",
            "product",
        )
        self.accuracy_reads = self._counter("accuracy_reads", "Looks at what engines say of their KV cache, by result", "result")
        self.internal_errors = self._counter("internal_errors", "Errors of our own")
        ProcessCollector(registry=self.registry)
        Info("build", "Version", namespace=PREFIX, registry=self.registry).info({"version": __version__})
        self._published: dict[Gauge, set[tuple[str, ...]]] = {}
        """Labels of the series that come and go."""
        self._initialise()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _initialise(self) -> None:
        """Series that alerts rest on exist from the start."""
        for reason in ("connections", "slow", "bodies", "busy", "deadline"):
            self.shed.labels(reason)
        for result in ("read", "failed"):
            self.accuracy_reads.labels(result)
        for code in CLASS_OF_CODE:
            self.findings.labels(code)
            self.mismatches.labels(KIND, code)
        for outcome in Outcome:
            self.declarations.labels(KIND, outcome.label)
            for operation in OPERATIONS:
                for answer in ("allowed", "warned", "refused"):
                    for dry_run in DRY_RUN:
                        self.requests.labels(KIND, operation, outcome.label, answer, dry_run)

    def count_request(self, kind: str, operation: str, outcome: str, answer: str, *, is_dry: bool) -> None:
        """One more request was answered. All texts are of bounded sets: none is taken from what is asked."""
        self.requests.labels(kind, operation, outcome, answer, DRY_RUN[is_dry]).inc()

    def observe_inventory(self, inventory: Inventory) -> None:
        """Publish GPU counts, and nodes that are less than they should be. Negative free counts as none to give."""
        counts: dict[Gauge, dict[tuple[str, ...], int]] = {
            gauge: {}
            for gauge in (
                self.gpus,
                self.placeable,
                self.free_by_node_size,
                self.short_nodes,
                self.contradicting_nodes,
                self.nodes_with_held_memory,
            )
        }

        def add(gauge: Gauge, labels: tuple[str, ...], amount: int) -> None:
            counts[gauge][labels] = counts[gauge].get(labels, 0) + amount

        for group in inventory.groups:
            node, nodes = group.like, group.count
            if node.state in (NodeState.GONE, NodeState.PROVISIONABLE):
                continue
            product = node.shape.gpu.product or UNKNOWN
            is_short = node.state is not NodeState.IN_TRANSITION and any(map(is_gpu, node.unavailable_gpus))
            add(self.short_nodes, (product,), nodes if is_short else 0)
            for fact in CONTRADICTED:
                is_so = any(each == fact for each, _ in node.shape.gpu.contradictions)
                add(self.contradicting_nodes, (product, fact), nodes if is_so else 0)
            add(self.nodes_with_held_memory, (product,), nodes if node.shape.gpu.held else 0)
        for kind, supply in supplies(inventory, counted_once).items():
            product = kind.product or UNKNOWN
            for state in ("installed", "unavailable", "free", "claimed"):
                add(self.gpus, (product, state), getattr(supply, state))
            for size in POD_SIZES:
                add(self.placeable, (product, str(size)), supply.placeable[size])
                add(self.free_by_node_size, (product, str(size)), supply.free_by_node_size[size])
        for gauge, values in counts.items():
            self._published[gauge] = _publish(gauge, values, self._published.get(gauge, set()))

    def observe_reports(self, counts: Mapping[str, int]) -> None:
        """Publish how nodes' reports are."""
        for state, nodes in counts.items():
            self.node_reports.labels(state).set(nodes)

    def observe_accuracy(self, found: Iterable[Accuracy]) -> None:
        """Publish how well engines were predicted, one series for each minor version and product that runs here."""
        errors: dict[tuple[str, ...], float] = {(each.engine_version, each.product): each.p90_error for each in found}
        self._published[self.prediction_error] = _publish(
            self.prediction_error, errors, self._published.get(self.prediction_error, set())
        )

    def observe_declarations(self, kinds: Iterable[str], standing: Iterable[tuple[str, str, tuple[str, ...]]]) -> None:
        """Publish standing declarations of these kinds: (kind, outcome, codes when it is a mismatch)."""
        outcomes = {(kind, outcome.label): 0 for kind in kinds for outcome in Outcome}
        codes = {(kind, code): 0 for kind, _ in outcomes for code in CLASS_OF_CODE}
        for kind, outcome, mismatched in standing:
            outcomes[kind, outcome] = outcomes.get((kind, outcome), 0) + 1
            for code in mismatched:
                codes[kind, code] = codes.get((kind, code), 0) + 1
        for outcome_labels, count in outcomes.items():
            self.declarations.labels(*outcome_labels).set(count)
        for code_labels, count in codes.items():
            self.mismatches.labels(*code_labels).set(count)

    def observe_plights(self, kinds: Iterable[str], standing: Iterable[tuple[str, bool, Plight]]) -> None:
        """Publish how standing declarations of these kinds fare: (kind, whether it is a mismatch, plight)."""
        down, stuck = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)
        contradicted = {(kind, code): 0 for kind in down for code in UNSOUND_CODES}
        for kind, is_mismatch, plight in standing:
            down[kind] += is_mismatch and plight.is_down
            stuck[kind] += plight.is_roll_out_stuck
            for code in plight.contradicted:
                contradicted[kind, code] += 1
        for kind in down:
            self.down.labels(kind).set(down[kind])
            self.stuck_roll_outs.labels(kind).set(stuck[kind])
        for labels, count in contradicted.items():
            self.contradicted.labels(*labels).set(count)


def _publish(gauge: Gauge, values: Mapping[tuple[str, ...], float], before: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Set what is, take away what no longer is; a scrape in between sees every series that lasts."""
    for labels, value in values.items():
        gauge.labels(*labels).set(value)
    for labels in before - set(values):
        gauge.remove(*labels)
    return set(values)


class _Server(http.server.ThreadingHTTPServer):
    def server_bind(self) -> None:
        """Without a look-up of our own name, as the base class does: DNS may be dead, and is nothing to us."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class HealthServer:
    """``/livez``, ``/readyz`` and ``/metrics`` on one port.

    Live as long as the event loop beats; ready when ``unready`` names no reason.
    """

    def __init__(self, metrics: Metrics, address: str, port: int) -> None:
        self._metrics = metrics
        self._beat = time.monotonic()
        self.unready: Callable[[], list[str]] = lambda: ["starting"]
        self.refresh: Callable[[], None] = lambda: None
        """Called before a scrape, in the server's thread: only atomic reads."""
        self.ended: list[str] = []
        """Tasks that should run for ever and do not: reason to be started again."""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            server_version = "shardgate"
            sys_version = ""
            protocol_version = "HTTP/1.1"
            timeout = 10
            paths: ClassVar = {"/livez": outer._live, "/readyz": outer._ready, "/metrics": outer._exposition}

            def do_GET(self) -> None:
                answer = self.paths.get(self.path.split("?")[0])
                status, kind, body = answer(self.headers.get("Accept", "")) if answer else (404, "text/plain", b"not found\n")
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Probes are not worth a line."""

        self._server = _Server((address, port), Handler)
        self._server.daemon_threads = True

    def start(self) -> None:
        """Serve until ``stop``."""
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()

    def beat(self) -> None:
        """The event loop is alive."""
        self._beat = time.monotonic()

    def _live(self, _accept: str) -> tuple[int, str, bytes]:
        age = time.monotonic() - self._beat
        if self.ended:
            return 503, "text/plain", f"ended: {', '.join(self.ended)}\n".encode()
        if age < DEAD_AFTER_SECONDS:
            return 200, "text/plain", b"ok\n"
        return 503, "text/plain", f"the event loop has not turned for {age:.0f} s\n".encode()

    def _ready(self, _accept: str) -> tuple[int, str, bytes]:
        reasons = self.unready()
        return (503, "text/plain", ("\n".join(reasons) + "\n").encode()) if reasons else (200, "text/plain", b"ok\n")

    def _exposition(self, accept: str) -> tuple[int, str, bytes]:
        self.refresh()
        encode, kind = choose_encoder(accept)
        return 200, kind, encode(self._metrics.registry)
