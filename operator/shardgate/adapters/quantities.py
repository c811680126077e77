"""Kubernetes quantities as whole numbers: CPU in millicores, everything else in units."""

from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import lru_cache

from kubernetes.utils.quantity import parse_quantity

AMPLE = 10**15
"""Room of a resource that nobody states: it is taken to suffice."""

_LARGEST = Decimal(10) ** 18


class QuantityError(ValueError):
    """Not a quantity."""


@lru_cache(maxsize=65536)
def _exact(text: str) -> Decimal:
    try:
        return Decimal(parse_quantity(text))  # type: ignore[no-untyped-call]  # the package has no types
    except (ValueError, ArithmeticError) as error:
        problem = f"{text!r} is not a quantity"
        raise QuantityError(problem) from error


@lru_cache(maxsize=65536)
def whole(resource: str, value: str | float, *, up: bool = False) -> int:
    """A quantity as a whole number; rounded down for what a node has, up for what a pod asks. Nodes and pods repeat few."""
    exact = _exact(str(value))
    if not exact.is_finite() or abs(exact) > _LARGEST:
        problem = f"{value!r} is out of range"
        raise QuantityError(problem)
    exact *= 1000 if resource == "cpu" else 1
    return int(exact.to_integral_value(ROUND_CEILING if up else ROUND_FLOOR))


def resources(amounts: Mapping[str, str | int | float] | None, *, up: bool = False) -> dict[str, int]:
    """A resource list as whole numbers."""
    return {name: whole(name, value, up=up) for name, value in (amounts or {}).items()}
