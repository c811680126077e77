"""What Shardgate predicts for a measured service, keyed as such are recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from served import Served

from shardgate.domain.estimate import Estimate
from shardgate.domain.fitting import Weighed, fit_of
from shardgate.domain.performance.estimate import limits_of, ranged, replica_of
from shardgate.domain.performance.serving import Service

Json = dict[str, Any]

MILLI = 1000.0
FIGURES = (
    "req_s", "output_tok_s_total", "output_tok_s_per_gpu", "total_tok_s_total", "total_tok_s_per_gpu", "ttft_ms", "tpot_ms",
    "e2e_ms",
)  # fmt: skip
"""Means; percentiles are not predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """Figures with their range, keyed as the file's ``metrics``; and what bounds them."""

    figures: dict[str, Estimate] = field(default_factory=dict)
    problem: str = ""
    """Why there are none."""

    def as_json(self) -> Json:
        """Keyed as the file's ``metrics``, with low and high."""

        def told(side: str) -> Json:
            return {name: round(getattr(self.figures[name], side), 4) if name in self.figures else None for name in FIGURES}

        return {**told("value"), "low": told("low"), "high": told("high"), "problem": self.problem or None}


def rate(served: Served) -> Rated:
    """The model's figures under the load that was measured."""
    declaration = served.declaration
    weighed = Weighed.of(declaration)
    if weighed is None:
        return Rated(problem="the model is not known")
    if served.lengths is None:
        return Rated(problem="the lengths of prompts and answers are not told")
    fit = fit_of(served.gpu, declaration, weighed)
    if fit.estimate is None:
        return Rated(problem=f"memory is not modelled: {fit.code} {fit.message}".strip())
    replica = replica_of(weighed, served.gpu, served.lengths, limits_of(fit.estimate, declaration), None)
    if replica is None:
        return Rated(problem="the engine's or the GPU's rates are not known")
    load, share = served.load, 1 / served.replicas
    kind = load["type"]
    if kind == "closed_loop":
        service = replica.at_concurrency(max(1.0, load["concurrency"] * share))
    elif kind == "static_batch":
        service = replica.static_batch(max(1.0, load["batch"] * share))
    elif kind == "offline_max":
        requests = load.get("num_requests")
        service = replica.at_most(None if requests is None else max(1.0, requests * share))
    else:
        service = replica.at_rate(load["request_rate"] * share)
        if service.load > 1 and load.get("num_requests"):
            service = replica.overloaded(load["request_rate"] * share, load["num_requests"] * share)
    return Rated(figures=_figures(served, service, replica.hardware, replica.work))


def _figures(served: Served, service: Service, hardware: Any, work: Any) -> dict[str, Estimate]:
    lengths = served.lengths
    assert lengths is not None  # the caller looked
    requests = service.requests_per_second * served.replicas
    output = requests * lengths.output
    total = requests * (lengths.output + lengths.prompt)
    spread = ranged(hardware, work)
    figures: dict[str, Estimate] = {
        "req_s": spread.rate(requests),
        "output_tok_s_total": spread.rate(output),
        "output_tok_s_per_gpu": spread.rate(output / served.gpus),
        "total_tok_s_total": spread.rate(total),
        "total_tok_s_per_gpu": spread.rate(total / served.gpus),
    }
    if not service.is_at_capacity:
        figures |= {
            "ttft_ms": spread.first_token(service.time_to_first_token * MILLI),
            "tpot_ms": spread.token(service.time_per_output_token * MILLI),
            "e2e_ms": spread.token(service.end_to_end * MILLI),
        }
    return figures
