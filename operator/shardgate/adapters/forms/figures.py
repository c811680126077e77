"""How the document's values are shown. What is ``None`` is "unknown" everywhere: never 0, never left out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from shardgate.adapters.forms.content import Cell, Tone
from shardgate.domain.strategy import label_of
from shardgate.domain.units import GIBI, KIBI, MEBI

UNKNOWN = "unknown"
TONES = {
    "Sound": Tone.GOOD, "Wasteful": Tone.WARNING, "Risky": Tone.WARNING, "Waiting": Tone.WAITING, "Undecided": Tone.UNKNOWN,
    "Unsound": Tone.BAD,
}  # fmt: skip
"""Outcome -> tone."""

_TEBI = 1024 * GIBI


class Figure(NamedTuple):
    """An estimate with its range; ``low`` and ``high`` are ``None`` where only one number is known."""

    value: float
    low: float | None = None
    high: float | None = None


def figure_of(value: Any) -> Figure | None:
    """``{value, low, high}``, a bare number, or nothing."""
    if isinstance(value, Mapping):
        middle = value.get("value")
        return None if middle is None else Figure(middle, value.get("low"), value.get("high"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Figure(value)


def known(value: object) -> Cell:
    """As it is."""
    return unknown() if value is None else Cell(str(value))


def unknown() -> Cell:
    """What is not known."""
    return Cell(UNKNOWN, Tone.UNKNOWN)


def share(value: float) -> str:
    """0..1 as a percentage: ``0.0192`` -> ``1.9 %``."""
    return f"{value * 100:.1f}".rstrip("0").rstrip(".") + " %"


def amount(size: float) -> str:
    """Bytes in the largest binary unit of which there is one: ``5242880`` -> ``5.0 MiB``."""
    for unit, name in ((_TEBI, "TiB"), (GIBI, "GiB"), (MEBI, "MiB"), (KIBI, "KiB")):
        if abs(size) >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size:,.0f} B"


def measured(value: Any, show: Callable[[float], str], unit: str = "") -> Cell:
    """A number or figure; its range follows in the form ``8.3 req/s (7.4 to 9.2)``."""
    found = figure_of(value)
    if found is None:
        return unknown()
    text = f"{show(found.value)}{unit}"
    if found.low is None or found.high is None:
        return Cell(text)
    return Cell(f"{text} ({show(found.low)} to {show(found.high)}{unit})")


def single(value: Any, show: Callable[[float], str], unit: str = "") -> Cell:
    """The same, without its range."""
    found = figure_of(value)
    return unknown() if found is None else Cell(f"{show(found.value)}{unit}")


def spread(value: Any, show: Callable[[float], str], unit: str = "") -> Cell:
    """The range alone."""
    found = figure_of(value)
    if found is None or found.low is None or found.high is None:
        return unknown()
    return Cell(f"{show(found.low)} to {show(found.high)}{unit}")


def span(numbers: Sequence[int]) -> str:
    """``[0,1]``, as the reference reports write groups; ``[0-7]`` from four that follow each other."""
    values = list(numbers)
    if len(values) > 3 and values == list(range(values[0], values[-1] + 1)):  # noqa: PLR2004  # shorter than the list
        return f"[{values[0]}-{values[-1]}]"
    return f"[{','.join(map(str, values))}]"


def widths(strategy: Mapping[str, Any]) -> str:
    """``TP2 x PP4 x DP1``, and the rarer widths where they are used: a strategy as reports have it."""
    return label_of(
        strategy["tensor"], strategy["pipeline"], strategy["data"], expert_parallel=bool(strategy.get("expertParallel")),
        expert=strategy.get("expert"), prefill_context=strategy.get("prefillContext") or 1,
        decode_context=strategy.get("decodeContext") or 1,
    )  # fmt: skip
