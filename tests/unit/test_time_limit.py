"""A computation that does not come back is cut, and one that does is left alone."""

import asyncio
import signal
import sys
import threading
import time

import pytest

from shardgate.shells import time_limit as module
from shardgate.shells.time_limit import OutOfTime, ends_at, within_time


def sleeps(log: list[str]) -> None:
    time.sleep(30)
    log.append("came back")


def computes(log: list[str]) -> None:
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        pass
    log.append("came back")


@pytest.mark.parametrize("endless", [sleeps, computes])
def test_it_is_cut_wherever_it_is(endless: object) -> None:
    log: list[str] = []
    with ends_at(time.monotonic() + 0.05), pytest.raises(OutOfTime):
        within_time(endless, log)  # type: ignore[arg-type]
    assert log == []


def test_what_ends_in_time_is_returned_and_no_signal_comes_later() -> None:
    with ends_at(time.monotonic() + 0.05):
        assert within_time(divmod, 7, 2) == (3, 1)
    time.sleep(0.15)


def test_a_signal_that_comes_while_it_is_cut_does_not_keep_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a process gets little of a processor, the next signal is there before the first one is dealt with."""
    real, came = signal.setitimer, []

    def setitimer(which: int, seconds: float, interval: float = 0.0) -> tuple[float, float]:
        if not seconds:  # it ends
            monkeypatch.setattr(module._limit, "is_set", True)  # as it was a moment before
            module._limit.ring(signal.SIGALRM, sys._getframe(1))
            monkeypatch.setattr(module._limit, "is_set", False)
            came.append(which)
        return real(which, seconds, interval)

    monkeypatch.setattr(module.signal, "setitimer", setitimer)
    with ends_at(time.monotonic() + 0.05), pytest.raises(OutOfTime):
        within_time(computes, [])
    assert came == [signal.ITIMER_REAL]


def test_time_that_was_up_before_ends_it_at_once() -> None:
    with ends_at(time.monotonic() - 5), pytest.raises(OutOfTime):
        within_time(sleeps, [])


def test_without_a_limit_it_takes_its_time() -> None:
    assert within_time(divmod, 7, 2) == (3, 1)


def test_a_limit_ends_where_it_was_set() -> None:
    with ends_at(time.monotonic() - 5):
        pass
    assert within_time(time.sleep, 0.06) is None


def test_a_part_of_what_is_limited_is_limited_with_it() -> None:
    with ends_at(time.monotonic() + 0.05), pytest.raises(OutOfTime):
        within_time(lambda: (within_time(divmod, 7, 2), time.sleep(30)))


def test_another_task_has_no_limit() -> None:
    async def limited() -> None:
        with ends_at(time.monotonic() - 5):
            await asyncio.sleep(0.05)

    async def both() -> tuple[int, int]:
        task = asyncio.create_task(limited())
        await asyncio.sleep(0)
        found = within_time(divmod, 7, 2)
        await task
        return found

    assert asyncio.run(both()) == (3, 1)


def test_outside_the_main_thread_there_is_no_signal_to_cut_it_by() -> None:
    found: list[object] = []

    def work() -> None:
        with ends_at(time.monotonic() - 5):
            found.append(within_time(divmod, 7, 2))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(3, 1)]
