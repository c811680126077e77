"""Kubernetes quantities as whole numbers: CPU in millicores, everything else in units."""

from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import lru_cache

from kubernetes.utils.quantity import parse_quantity

from shardgate.adapters.gpu_resources import is_gpu

AMPLE = 10**15
"""Room of a resource that nobody states: it is taken to suffice."""

_LARGEST = Decimal(2**63 - 1)
"""Kubernetes caps larger ones."""


MOST_GPUS = 10**9
"""More on one node are a mistake, not an amount."""


class QuantityError(ValueError):
    """Not a quantity."""


@lru_cache(maxsize=65536)
def _exact(text: str) -> Decimal:
    try:
        if "_" in text:  # Python's own notation
            raise ValueError(text)  # noqa: TRY301  # one message for all that is none
        return Decimal(parse_quantity(text))  # type: ignore[no-untyped-call]  # the package has no types
    except (ValueError, ArithmeticError) as error:
        problem = f"{text!r} is not a quantity"
        raise QuantityError(problem) from error


@lru_cache(maxsize=65536)
def whole(resource: str, value: str | float, *, up: bool = False) -> int:
    """A quantity as a whole number; rounded down for what a node has, up for what a pod asks. Nodes and pods repeat few."""
    exact = _exact(str(value))
    if not exact.is_finite():
        problem = f"{value!r} is not a quantity"
        raise QuantityError(problem)
    if is_gpu(resource) and abs(exact) > MOST_GPUS:
        problem = f"{value!r} is out of range"
        raise QuantityError(problem)
    exact = max(-_LARGEST, min(_LARGEST, exact)) * (1000 if resource == "cpu" else 1)
    return int(exact.to_integral_value(ROUND_CEILING if up else ROUND_FLOOR))


def resources(amounts: Mapping[str, str | int | float] | None, *, up: bool = False) -> dict[str, int]:
    """A resource list as whole numbers."""
    return {name: whole(name, value, up=up) for name, value in (amounts or {}).items()}
