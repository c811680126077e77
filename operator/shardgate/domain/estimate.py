"""Figures with their uncertainty, and how it adds up."""

from collections.abc import Iterable
from math import sqrt
from typing import NamedTuple

from shardgate.domain.units import gib


class Estimate(NamedTuple):
    """A figure, and between what it lies: ``low <= value <= high``."""

    low: float
    value: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> "Estimate":
        """A figure that is known."""
        return cls(value, value, value)

    def times(self, factor: float) -> "Estimate":
        """Scaled by a factor that is not negative."""
        return Estimate(self.low * factor, self.value * factor, self.high * factor)

    @property
    def text(self) -> str:
        """``16.9 GiB``, or ``16.4 to 17.2 GiB`` where it shows."""
        low, high = gib(int(self.low)), gib(int(self.high))
        return high if low == high else f"{low.removesuffix(' GiB')} to {high}"


ZERO = Estimate.exactly(0)


def difference(whole: Estimate, parts: Iterable[Estimate]) -> Estimate:
    """What the parts leave of the whole; may be negative.

    Errors of different origin are independent, so they add as the root of the sum of their squares, each side for
    itself: what the whole may fall short and the parts exceed, and the reverse.
    """
    parts = tuple(parts)
    value = whole.value - sum(part.value for part in parts)
    down = sqrt((whole.value - whole.low) ** 2 + sum((part.high - part.value) ** 2 for part in parts))
    up = sqrt((whole.high - whole.value) ** 2 + sum((part.value - part.low) ** 2 for part in parts))
    return Estimate(value - down, value, value + up)


def total(parts: Iterable[Estimate]) -> Estimate:
    """The sum, its uncertainty by the same rule."""
    negative = difference(ZERO, parts)
    return Estimate(-negative.high, -negative.value, -negative.low)
