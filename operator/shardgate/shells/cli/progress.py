"""What long work tells of itself: on standard error, only where that is a terminal, and only once it has taken a while."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

T = TypeVar("T")
QUIET_SECONDS = 0.7
"""Work that is done sooner tells nothing."""


def _screen() -> Console:
    return Console(stderr=True, emoji=False, highlight=False)


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner with what is being done, of which nobody knows how long it takes."""
    if not sys.stderr.isatty():
        yield
        return
    status = _screen().status(text)
    begin = threading.Timer(QUIET_SECONDS, status.start)
    begin.start()
    try:
        yield
    finally:
        begin.cancel()
        begin.join()
        status.stop()


def tracked(items: Sequence[T], text: str) -> Iterator[T]:
    """The items, with a bar that tells how many are done."""
    if not sys.stderr.isatty():
        yield from items
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, console=_screen(), transient=True)
    task = bar.add_task(text, total=len(items))
    began, is_shown = time.monotonic(), False
    try:
        for item in items:
            if not is_shown and time.monotonic() - began > QUIET_SECONDS:
                bar.start()
                is_shown = True
            yield item
            bar.advance(task)
    finally:
        if is_shown:
            bar.stop()
