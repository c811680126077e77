"""The node agent's own metrics, prefix ``shardgate_node_``."""

from collections import Counter as Tally

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from shardgate import __version__
from shardgate.domain.driver_reading import DriverReading, GpuState, Ownership

PREFIX = "shardgate_node_"
READ_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class NodeMetrics:
    """Counted by the agent, read by Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.gpus = self._gauge("gpus", "GPUs of this node by what their driver says of them.", "state")
        self.gpu_memory = self._gauge(
            "gpu_memory_bytes", "Memory of all GPUs of this node: total, reserved by the driver, used by processes.", "kind"
        )
        self.held_outside_pods = self._gauge(
            "gpu_memory_held_outside_pods_bytes", "Memory held by processes that no pod owns; NaN where that is not known."
        )
        self.xids = self._gauge("gpu_xids", "GPUs that have had this error (Xid) since the agent watches.", "xid")
        self.read_seconds = Histogram(
            PREFIX + "driver_read_seconds", "How long it takes to read the driver.", buckets=READ_SECONDS, registry=self.registry
        )
        self.failures = self._counter("driver_read_failures", "Readings that failed, by the driver's name of the error.", "error")
        self.call_errors = self._counter(
            "driver_call_errors",
            "Calls into the driver that failed, but for what it does not support.",
            "function",
            "error",
        )
        self.stuck = self._gauge("driver_call_stuck_seconds", "For how long a call into the driver has not come back; else 0.")
        self.read_at = self._gauge("driver_read_timestamp_seconds", "When the driver was last read.")
        self.writes = self._counter("report_writes", "Writes of this node's GpuNodeReport.", "result")
        self.published_at = self._gauge("report_written_timestamp_seconds", "When the report was last written.")
        self.heartbeats = self._counter("heartbeats", "Renewals of this node's Lease.", "result")
        self.beaten_at = self._gauge("heartbeat_timestamp_seconds", "When the Lease was last renewed.")
        Info(PREFIX + "build", "Version.", registry=self.registry).info({"version": __version__})
        for state in GpuState:
            self.gpus.labels(state.value)
        for result in ("written", "failed"):
            self.writes.labels(result)
            self.heartbeats.labels(result)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def count_error(self, function: str, error: str) -> None:
        """A call into the driver that failed."""
        self.call_errors.labels(function, error).inc()

    def show(self, reading: DriverReading | None) -> None:
        """What was read; ``None``: nothing is known, so nothing is shown."""
        states = Tally(gpu.health.state for gpu in reading.gpus) if reading is not None else Tally[GpuState]()
        for state in GpuState:
            self.gpus.labels(state.value).set(states[state])
        self.gpu_memory.clear()
        self.xids.clear()
        outside = None
        for gpu in reading.gpus if reading is not None else ():
            for kind, amount in (("total", gpu.memory.total), ("reserved", gpu.memory.reserved), ("used", gpu.memory.used)):
                if amount is not None:
                    self.gpu_memory.labels(kind).inc(amount)
            for xid in gpu.xids:
                self.xids.labels(str(xid)).inc()
            if gpu.processes is not None and all(each.ownership is not Ownership.UNKNOWN for each in gpu.processes):
                held = sum(each.memory or 0 for each in gpu.processes if each.ownership is Ownership.HOST)
                outside = held + (outside or 0)
        self.held_outside_pods.set(float("nan") if outside is None else outside)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)
