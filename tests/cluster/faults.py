"""What makes a test a fault test: its number, the fault, its pass criterion, and what was measured.

Numbers to 52 are those of a list of faults that admission controllers of the field met; from 53 on they are the rows of
the life of a cluster, none of which may cost anyone a refusal. ``make faults`` runs them at length, and keeps what they
measured in ``docs/reliability.md``.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest

Measured = Callable[[str], None]
"""Told what a test saw: the last column of the page."""

LENGTH = os.environ.get("FAULTS", "")
"""``""`` in ``make test``, ``long`` in ``make faults``, ``full`` with ``FULL=1``."""


def at_length(short: int, *, long: int, full: int | None = None) -> int:
    """How many rounds or seconds, by where the test runs."""
    return {"": short, "long": long, "full": long if full is None else full}[LENGTH]


def fault(*numbers: int, what: str, load: str = "", criterion: str) -> Any:
    """Marks a test. ``load``: what goes on meanwhile, beyond the test's own calls."""
    return pytest.mark.fault(numbers=numbers, what=what, load=load, criterion=criterion)


def unless_missed(is_met: bool, text: str) -> str:
    """What was measured, marked where it misses a figure of the criterion that the test, on a shared machine, holds to a looser limit."""
    return text if is_met else f"**missed**: {text}"


only_at_length = pytest.mark.skipif(not LENGTH, reason="takes minutes: part of `make faults`")


def properties(item: pytest.Item) -> list[tuple[str, object]]:
    """A fault test's own columns, as its report carries them."""
    marker = item.get_closest_marker("fault")
    if marker is None:
        return []
    columns: list[tuple[str, object]] = [(key, marker.kwargs[key]) for key in ("what", "load", "criterion")]
    return [("faults", " ".join(f"F{number}" for number in marker.kwargs["numbers"])), *columns]
