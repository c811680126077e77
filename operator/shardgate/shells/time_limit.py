"""A computation is cut when its review's time is up, wherever it is: the answer that says so must not wait for it.

A judgement runs on the event loop, where nothing else does meanwhile, asyncio's own timeouts included. Ours counts its
steps and gives up by them; this is for the one that does not come back. A timer's signal reaches Python code in any state,
blocking calls included, and the exception lands between any two instructions: so only what is pure is run this way, which
leaves nothing behind that could be half done (docs/adr/0011-a-judgement-is-cut-by-a-signal.md).
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

TURN_SECONDS = 1.0
"""That judgements take without a look at what came meanwhile, whose time runs as well. One takes 0.25 s at worst
(docs/benchmarks.md)."""
LEAST_SECONDS = 0.001
AGAIN_SECONDS = 0.05
"""Where the exception was lost, as in a finalizer, it comes again."""


class OutOfTime(Exception):
    """The time was up before the computation ended."""


_ends: ContextVar[float | None] = ContextVar("ends", default=None)
_answered: ContextVar[float] = ContextVar("answered", default=math.inf)


class _Limit:
    """There is one timer, for the one computation that runs in the main thread."""

    is_set = False

    def ring(self, _: int, interrupted: FrameType | None) -> None:
        """What the signal does. Whatever ``within_time`` itself does is not interrupted: it would never end the limit."""
        while interrupted is not None and interrupted.f_code is _Limit.ring.__code__:
            interrupted = interrupted.f_back  # a signal that came while the one before was dealt with
        if self.is_set and interrupted is not None and interrupted.f_code is not within_time.__code__:
            raise OutOfTime


_limit = _Limit()


@contextmanager
def ends_at(moment: float) -> Iterator[None]:
    """What ``within_time`` computes in here ends then, by the monotonic clock."""
    token = _ends.set(moment)
    try:
        yield
    finally:
        _ends.reset(token)


@contextmanager
def answered_by(moment: float) -> Iterator[None]:
    """A review that is handled in here is to be answered by then, by the monotonic clock."""
    token = _answered.set(moment)
    try:
        yield
    finally:
        _answered.reset(token)


def answer_due() -> float:
    """When the review that is being handled is to be answered; infinity where none is."""
    return _answered.get()


def within_time(compute: Callable[P, R], *arguments: P.args, **more: P.kwargs) -> R:
    """What it returns. Raises ``OutOfTime``. Without a limit where none is set, and outside the main thread."""
    ends = _ends.get()
    if ends is None or _limit.is_set or threading.current_thread() is not threading.main_thread():
        return compute(*arguments, **more)
    signal.signal(signal.SIGALRM, _limit.ring)
    _limit.is_set = True
    signal.setitimer(signal.ITIMER_REAL, max(ends - time.monotonic(), LEAST_SECONDS), AGAIN_SECONDS)
    try:
        return _computed(compute, *arguments, **more)
    finally:
        _limit.is_set = False
        signal.setitimer(signal.ITIMER_REAL, 0)


def _computed(compute: Callable[P, R], *arguments: P.args, **more: P.kwargs) -> R:
    """In a frame of its own, which is what may be interrupted."""
    return compute(*arguments, **more)
