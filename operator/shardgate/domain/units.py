"""Amounts of memory, and how people read them."""

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


def ago(seconds: float) -> str:
    """``10800.0`` -> ``3 h ago``: in the largest unit of which there are two, minutes, hours or days."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{int(seconds // unit)} {name} ago"
    return "a moment ago"


def count(amount: int, noun: str, plural: str | None = None) -> str:
    """``1 GPU``, ``8 GPUs``."""
    return f"{amount} {noun if amount == 1 else plural or noun + 's'}"
