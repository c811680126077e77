"""The agent's one loop: read, write what changed, tell that it lives."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from shardgate import __version__
from shardgate.adapters.gpu_node_reports import status_of, status_of_problem
from shardgate.adapters.report_changes import Change, change
from shardgate.domain.driver_reading import INTERNAL_ERROR, DriverReading, ProbeError
from shardgate.shells.agent.api_server import Refused, Unreachable
from shardgate.shells.agent.node_metrics import NodeMetrics
from shardgate.shells.agent.publisher import now
from shardgate.shells.agent.watched_probe import WatchedProbe

log = logging.getLogger(__name__)

AMOUNTS_SECONDS = 10.0
"""Writes that only tell of more or less memory keep this distance."""
CHECK_SECONDS = 300.0
"""So often it looks whether what it wrote stands there: somebody may have deleted or edited it."""
MOST_RETRY_SECONDS = 60.0
LIVE_SECONDS = 60.0
STALE_LIBRARY_SECONDS = 60.0
VERSION_MISMATCH = "NVML_ERROR_LIB_RM_VERSION_MISMATCH"
"""The library that we loaded is of a driver that has been replaced: only a new process loads the new one."""

Json = dict[str, Any]


class Writes(Protocol):
    """Where reports and heartbeats go."""

    def publish(self, status: Json) -> None:
        """Write a report's status."""

    def published(self) -> Json | None:
        """What stands there."""

    def beat(self) -> None:
        """Renew the Lease."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """The driver cannot be read, since then."""

    name: str
    since: str
    since_monotonic: float


class _Retry:
    """When an act that failed may be tried again: later and later, and never all nodes at once."""

    def __init__(self, clock: Callable[[], float], jitter: Callable[[], float]) -> None:
        self._clock, self._jitter = clock, jitter
        self._failures, self._not_before = 0, 0.0

    @property
    def is_due(self) -> bool:
        return self._clock() >= self._not_before

    @property
    def failures(self) -> int:
        return self._failures

    def failed(self, asked_seconds: float) -> None:
        self._failures += 1
        pause = min(2.0 ** min(self._failures - 1, 10), MOST_RETRY_SECONDS)
        self._not_before = self._clock() + max(pause * (0.5 + self._jitter()), asked_seconds)

    def succeeded(self) -> None:
        self._failures, self._not_before = 0, 0.0


class Agent:
    """One turn a call, from one thread; ``liveness`` and ``readiness`` may be asked from any."""

    def __init__(
        self, probe: WatchedProbe, writes: Writes, metrics: NodeMetrics, *, interval: float, heartbeat: float,
        clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        """``interval`` and ``heartbeat`` in seconds; ``jitter`` gives numbers from 0 to 1."""
        self._probe, self._writes, self._metrics = probe, writes, metrics
        self._interval, self._heartbeat = interval, heartbeat
        self._clock, self._jitter = clock, jitter
        self._reading: DriverReading | None = None
        self._failure: _Failure | None = None
        self._problem = ""
        self._shown: DriverReading | None = None
        self._written: DriverReading | _Failure | None = None
        self._written_status: Json | None = None
        self._written_at = -AMOUNTS_SECONDS
        self._beat_at = 0.0
        self._check_at = clock() + CHECK_SECONDS * (0.5 + jitter())
        self._writing, self._beating = _Retry(clock, jitter), _Retry(clock, jitter)
        self._turned_at = clock()

    def run(self, stop: threading.Event) -> None:
        """Turn until told to stop."""
        while not stop.is_set():
            started = self._clock()
            self.turn()
            stop.wait(max(0.0, started + self._interval - self._clock()))

    def turn(self) -> None:
        """Read once, and write what is due."""
        self._read()
        self._write()
        self._beat()
        self._check()
        self._turned_at = self._clock()

    def _read(self) -> None:
        started = self._clock()
        try:
            self._reading = self._probe.gpus()
        except ProbeError as error:
            self._fail(error)
        except Exception as error:
            log.exception("the driver was not understood")
            self._fail(ProbeError(INTERNAL_ERROR, f"{type(error).__name__}: {error}"))
        else:
            self._metrics.read_seconds.observe(self._clock() - started)
            self._metrics.read_at.set_to_current_time()
            if self._failure is not None:
                log.info("the driver can be read again, after %s", self._failure.name)
                self._failure = None
        self._metrics.stuck.set(self._probe.stuck_seconds)
        if self._failure is not None and self._shown is not None:
            self._shown = None
            self._metrics.show(None)
        elif self._failure is None and self._shown != self._reading:
            self._shown = self._reading
            self._metrics.show(self._reading)

    def _fail(self, error: ProbeError) -> None:
        self._metrics.failures.labels(error.name).inc()
        self._problem = error.problem
        if self._failure is None or self._failure.name != error.name:
            log.warning("the driver cannot be read: %s", error)
            self._failure = _Failure(error.name, now(), self._clock())

    def _write(self) -> None:
        state = self._failure or self._reading
        if state is None or not self._is_worth_writing(state) or not self._writing.is_due:
            return
        status = self._status(state)
        if self._attempt("the report", self._writing, self._metrics.writes, lambda: self._writes.publish(status)):
            self._written, self._written_status, self._written_at = state, status, self._clock()
            self._metrics.published_at.set_to_current_time()

    def _is_worth_writing(self, state: DriverReading | _Failure) -> bool:
        if isinstance(state, _Failure) or not isinstance(self._written, DriverReading):
            return state != self._written
        found = change(self._written, state)
        return found is Change.FACTS or (found is Change.AMOUNTS and self._clock() - self._written_at >= AMOUNTS_SECONDS)

    def _status(self, state: DriverReading | _Failure) -> Json:
        if isinstance(state, _Failure):
            problem = ProbeError(state.name, self._problem)
            return status_of_problem(problem, since=state.since, changed_at=now(), agent_version=__version__)
        return status_of(state, changed_at=now(), agent_version=__version__)

    def _beat(self) -> None:
        """A heartbeat says that the report holds: there is none while it could not be written."""
        if not self._is_published or self._clock() < self._beat_at or not self._beating.is_due:
            return
        if self._attempt("the heartbeat", self._beating, self._metrics.heartbeats, self._writes.beat):
            self._beat_at = self._clock() + self._heartbeat * (0.9 + 0.2 * self._jitter())
            self._metrics.beaten_at.set_to_current_time()

    def _check(self) -> None:
        """What stands there is to be what we wrote."""
        if self._clock() < self._check_at or self._written is None or self._writing.failures:
            return
        self._check_at = self._clock() + CHECK_SECONDS * (0.5 + self._jitter())
        try:
            found = self._writes.published()
        except (Refused, Unreachable) as error:
            log.info("the report could not be looked at: %s", error)
            return
        if found != self._written_status:
            log.warning("the report is not as it was written: it is written anew")
            self._written = None

    def _attempt(self, what: str, retry: _Retry, counter: Any, act: Callable[[], None]) -> bool:
        try:
            act()
        except (Refused, Unreachable, OSError, KeyError) as error:
            if isinstance(error, Refused) and error.status == 404:  # noqa: PLR2004  # HTTP
                self._written = None  # with the node, the report is gone too
            if not retry.failures:
                log.warning("%s could not be written: %s", what, error)
            retry.failed(error.retry_after_seconds if isinstance(error, Refused) else 0.0)
            counter.labels("failed").inc()
            return False
        if retry.failures:
            log.info("%s is written again, after %d failures", what, retry.failures)
        retry.succeeded()
        counter.labels("written").inc()
        return True

    def liveness(self) -> tuple[int, bytes]:
        """200 while the loop turns, whatever the driver does: a hung call is no reason to be restarted, nor cured by it."""
        if self._clock() - self._turned_at > LIVE_SECONDS + self._interval:
            return 503, b"the loop does not turn\n"
        failure = self._failure
        if (
            failure is not None
            and failure.name == VERSION_MISMATCH
            and self._clock() - failure.since_monotonic > STALE_LIBRARY_SECONDS
        ):
            return 503, b"the driver was replaced: a restart loads its library\n"
        return 200, b"ok\n"

    def readiness(self) -> tuple[int, bytes]:
        """200 once the report is written, until a write fails."""
        return (200, b"ok\n") if self._is_published else (503, b"the report is not written\n")

    @property
    def _is_published(self) -> bool:
        return self._written is not None and not self._writing.failures
