"""A probe whose calls may never come back: they are made on one thread of their own, and never on a second one."""

import queue
import threading
import time
from collections.abc import Callable

from shardgate.domain.driver_reading import CALL_HUNG, DriverReading, GpuProbe, ProbeError

HUNG_SECONDS = 10.0
"""Longer than a driver takes to wake 8 GPUs that nothing keeps awake."""


class _Call:
    """One reading, under way or done."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.done = threading.Event()
        self.reading: DriverReading | None = None
        self.error: BaseException | None = None


class WatchedProbe:
    """The same readings. A call that does not come back is a ``ProbeError`` until it does."""

    def __init__(
        self, probe: GpuProbe, hung_seconds: float = HUNG_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:  # fmt: skip
        self._probe, self._hung_seconds, self._clock = probe, hung_seconds, clock
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._current: _Call | None = None
        self._was_hung = False
        self._thread: threading.Thread | None = None

    @property
    def stuck_seconds(self) -> float:
        """For how long the present call has been under way, once it is given up; else 0."""
        return self._clock() - self._current.started if self._was_hung and self._current is not None else 0.0

    def gpus(self) -> DriverReading:
        """Raises ``ProbeError``, of the name ``CALL_HUNG`` at once while an earlier call is stuck."""
        call = self._current or self._start()
        if not call.done.wait(max(0.0, call.started + self._hung_seconds - self._clock())):
            self._was_hung = True
            problem = "a call into the driver does not come back"
            raise ProbeError(CALL_HUNG, problem)
        if self._was_hung:  # what it brings is from long ago
            self._current, self._was_hung = None, False
            return self.gpus()
        self._current = None
        if call.error is not None:
            raise call.error
        if call.reading is None:
            problem = "a reading ended without a result"
            raise RuntimeError(problem)
        return call.reading

    def _start(self) -> _Call:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="driver", daemon=True)
            self._thread.start()
        self._current = _Call(self._clock())
        self._calls.put(self._current)
        return self._current

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            try:
                call.reading = self._probe.gpus()
            except BaseException as error:  # noqa: BLE001  # whoever asked gets it
                call.error = error
            call.done.set()
