"""How often what others undo is put back."""

import pytest

from shardgate.shells import repairs as module
from shardgate.shells.repairs import Repairs


def test_so_many_a_minute_and_contested_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    subject = Repairs(most=2, seconds=60)
    assert (subject.seconds_to_wait("a"), subject.is_contested("a")) == (0, False)
    subject.note("a")
    clock[0] += 10
    assert (subject.seconds_to_wait("a"), subject.is_contested("a"), subject.seconds_until_forgotten("a")) == (0, False, 50)
    subject.note("a")
    assert (subject.seconds_to_wait("a"), subject.is_contested("a"), subject.is_contested("b")) == (50, True, False)
    clock[0] += 50
    assert (subject.seconds_to_wait("a"), subject.is_contested("a")) == (0, True), "one of them is past"
    clock[0] += 10
    assert (subject.seconds_to_wait("a"), subject.is_contested("a"), subject.seconds_until_forgotten("a")) == (0, False, 0)
