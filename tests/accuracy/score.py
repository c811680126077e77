"""Predictions against what was measured: errors, outcomes, summaries."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from predict import Prediction

Json = dict[str, Any]

LEFT_OUT = ("engine_bug", "error_other")
"""Outcomes that say nothing of memory or rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One case with its prediction."""

    case: Json
    prediction: Prediction
    errors: dict[str, float | None]
    """Figure -> predicted over measured less 1; ``None`` where nothing was measured or predicted."""
    context_from_printed_pool: float | None
    """Error of the longest context that fits the pool which the engine printed, against its own estimate of it."""
    measured_outcome: str | None
    """runs or doesNotStart; ``None`` where the case says nothing of it."""


def score(case: Json, prediction: Prediction) -> Scored:
    """Compare one."""
    measured = dict(case.get("measured") or {})
    derived = _per_token(case, measured)
    errors: dict[str, float | None] = {}
    for name, figure in prediction.figures.items():
        value = measured.get(name)
        errors[name] = None if figure is None or not value else figure.value / value - 1
    if derived is not None and prediction.kv_bytes_per_token_per_gpu is not None:
        errors["kv_bytes_per_token_per_gpu"] = prediction.kv_bytes_per_token_per_gpu / derived - 1
    return Scored(
        case=case, prediction=prediction, errors=errors, measured_outcome=_outcome(case),
        context_from_printed_pool=_context(prediction, measured),
    )  # fmt: skip


def _context(prediction: Prediction, measured: Json) -> float | None:
    pool, told = measured.get("kv_cache_gib"), measured.get("estimated_max_model_len")
    if not pool or not told or prediction.longest_in is None:
        return None
    return prediction.longest_in(pool * 2**30) / told - 1


def _per_token(case: Json, measured: Json) -> float | None:
    pool, tokens = measured.get("kv_cache_gib"), measured.get("kv_tokens")
    return pool * 2**30 / tokens if pool and tokens else None


def _outcome(case: Json) -> str | None:
    outcome, tags = case.get("outcome"), case.get("tags") or []
    if outcome is None or outcome in LEFT_OUT or "engine_bug" in tags:
        return None
    return "runs" if outcome == "runs" or "runtime_oom" in tags else "doesNotStart"


def quantile(values: Iterable[float], share: float) -> float | None:
    """The value at this share of the sorted ones (nearest rank, upwards); ``None`` of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def spread(scored: Iterable[Scored], figure: str) -> Json:
    """Number, median, p90, p95 and worst of a figure's absolute relative error."""
    errors = [abs(error) for each in scored if (error := each.errors.get(figure)) is not None]
    return {
        "n": len(errors), "median": quantile(errors, 0.5), "p90": quantile(errors, 0.9), "p95": quantile(errors, 0.95),
        "worst": max(errors, default=None),
    }  # fmt: skip


def confusion(scored: Iterable[Scored]) -> Counter[tuple[str, str]]:
    """(measured, predicted) -> cases, of those that say an outcome."""
    return Counter((each.measured_outcome, each.prediction.outcome) for each in scored if each.measured_outcome is not None)


def is_decidable(each: Scored) -> bool:
    """High confidence, and it gives TP, version and GPU memory (total or nominal)."""
    case = each.case
    has_memory = case.get("gpu_memory_total_gib") is not None or case.get("gpu_memory_nominal_gb") is not None
    return bool(
        case.get("confidence", "high") == "high" and case.get("tp") and case.get("engine_version") and has_memory
        and each.measured_outcome is not None
    )  # fmt: skip


def is_new_vllm(each: Scored) -> bool:
    """vLLM 0.11 and newer."""
    text = str(each.case.get("engine_version") or "")
    parts = text.split(".")
    return each.case.get("engine") == "vllm" and len(parts) > 1 and parts[0] == "0" and parts[1].isdigit() and int(parts[1]) >= 11


def by(scored: Iterable[Scored], key: Callable[[Scored], str]) -> dict[str, list[Scored]]:
    """Groups, by name."""
    groups: dict[str, list[Scored]] = {}
    for each in scored:
        groups.setdefault(key(each), []).append(each)
    return dict(sorted(groups.items()))
