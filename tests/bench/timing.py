"""How long a piece of work takes: the one way that all benches measure it."""

import statistics
import time
from collections.abc import Callable


def milliseconds(work: Callable[[], object], runs: int, clock: Callable[[], float] = time.perf_counter) -> str:
    """``p50 / p99 ms`` of so many runs, by a clock of seconds."""
    taken = []
    for _ in range(runs):
        started = clock()
        work()
        taken.append((clock() - started) * 1000)
    cuts = statistics.quantiles(taken, n=100)
    return f"{cuts[49]:.2f} / {cuts[98]:.2f} ms"
