"""Engines: their start-up rules and their memory fraction, from the table."""

from typing import Any

from shardgate.adapters.tables import table
from shardgate.domain.declaration import BudgetBasis, Engine, EngineRule

_NO_ENGINE: dict[str, Any] = {"budgetBasis": "unknown", "memoryUtilization": [1.0, 1.0], "rules": {}}


def engine_of(name: str | None, version: str | None, memory_utilization: float | None) -> Engine:
    """The engine as declared. ``other``, or none at all, is an engine whose rules are not known."""
    row = table("engines")["engines"].get(name)
    known = row is not None
    row = row or _NO_ENGINE
    low, high = row["memoryUtilization"]
    return Engine(
        name=name or "",
        version=version,
        known=known,
        rules={code: EngineRule(**rule) for code, rule in row["rules"].items()},
        budget_basis=BudgetBasis(row["budgetBasis"]),
        utilization_low=low if memory_utilization is None else memory_utilization,
        utilization_high=high if memory_utilization is None else memory_utilization,
        utilization_declared=memory_utilization is not None,
    )
