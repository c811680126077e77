"""Amounts of memory, and how people read them."""

import math
from typing import NewType

Bytes = NewType("Bytes", int)

KIBI = 1024
MEBI = KIBI**2
GIBI = KIBI**3
GIGA = 10**9


def gib(amount: int) -> str:
    """``18164105216`` -> ``16.9 GiB``: what engines and ``nvidia-smi`` print."""
    return f"{amount / GIBI:.1f} GiB"


def gb(amount: int) -> str:
    """``141107412992`` -> ``141.1 GB``: what a download and a model card say."""
    return f"{amount / GIGA:.1f} GB"


DIGITS = 4
"""Significant ones: no figure is better known."""


def rounded(value: float) -> float:
    """To significant digits; whole numbers stay whole, what is not finite is 0."""
    if value == 0 or not math.isfinite(value):
        return 0.0
    return round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))


_HALVES_GO_UP = 1 + 1e-12
"""``7.965`` is a little less in binary, and would be shown as ``7.96``."""


def number(value: float) -> str:
    """Three digits that say something: ``8.73``, ``56``, ``1,318,768``, ``0.0021``."""
    size = abs(value)
    if value == int(value) or size >= 100:  # noqa: PLR2004  # three digits before the point
        return f"{round(value):,}"
    digits = 1 if size >= 10 else 2 if size >= 0.1 else 4  # noqa: PLR2004  # three digits in all
    return f"{value * _HALVES_GO_UP:.{digits}f}".rstrip("0").rstrip(".")


def ago(seconds: float) -> str:
    """``10800.0`` -> ``3 h ago``: in the largest unit of which there are two, minutes, hours or days."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{int(seconds // unit)} {name} ago"
    return "a moment ago"


def count(amount: int, noun: str, plural: str | None = None) -> str:
    """``1 GPU``, ``8 GPUs``."""
    return f"{amount} {noun if amount == 1 else plural or noun + 's'}"
