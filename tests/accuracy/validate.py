"""How far the fitted constants carry: each group of cases is predicted with constants fitted on all others.

Fitted are the sampler's copies (one number where it sorts, one for the Triton kernel) and memory outside PyTorch on
one GPU (before and from vLLM 0.18) and over NVLink. Where the other cases have nothing to fit on, a prior stands in
that does not come from them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from launches import Launch

from shardgate.domain.engine import MemoryRules
from shardgate.domain.estimate import Estimate
from shardgate.domain.fitting import Weighed
from shardgate.domain.memory import memory_of, visible_memory
from shardgate.domain.units import GIBI
from shardgate.domain.weights import weights_of

Json = dict[str, Any]

SORT_FROM, TRITON_FROM, NEWER_FROM = 9.0, 3.3, "0.18"
PRIORS = {"sort": 9.5, "triton": 3.6, "singleOld": 0.25, "singleNew": 0.25, "linked": 2.0}
"""Published elsewhere: PR 32558 (sort 9.3 to 10 copies; the kernel 3.0, and some 80 MiB), NCCL buffers of about 2 GiB
on Hopper (sglang PR 11716), a quarter GiB of CUDA libraries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A launch with what it printed."""

    case: Json
    launch: Launch

    @property
    def rules(self) -> MemoryRules:
        """Of the version that is assumed."""
        return self.launch.declaration.engine.memory[0]

    @property
    def constants(self) -> tuple[str | None, str]:
        """Names of the constants that its prediction rests on: the sampler's, and of memory outside PyTorch."""
        copies = self.rules.sampler_copies.value
        sampler = "sort" if copies >= SORT_FROM else "triton" if TRITON_FROM <= copies < SORT_FROM else None
        strategy = self.launch.declaration.strategy
        if strategy.tensor * strategy.pipeline > 1:
            return sampler, "linked" if self.launch.gpu.has_nvlink else "unlinked"
        return sampler, "singleNew" if self.rules.non_torch_single.value > 0.2 * GIBI else "singleOld"  # GiB


def usable(cases: Iterable[tuple[Json, Launch]]) -> list[Case]:
    """vLLM cases with a printed pool, on a GPU that is known."""
    return [
        Case(case=case, launch=launch)
        for case, launch in cases
        if case.get("engine") == "vllm"
        and launch.is_split_known
        and (case.get("measured") or {}).get("kv_cache_gib")
        and launch.declaration.engine.memory
        and visible_memory(launch.gpu) is not None
        and Weighed.of(launch.declaration) is not None
    ]


def cross_validated(cases: list[Case], key: Callable[[Case], str]) -> list[float]:
    """Absolute relative errors of the KV pool, each group predicted by constants fitted on the others."""
    errors = []
    for group in sorted({key(each) for each in cases}):
        constants = _fit([each for each in cases if key(each) != group])
        errors += [
            abs(_predict(each, constants) / each.case["measured"]["kv_cache_gib"] - 1) for each in cases if key(each) == group
        ]
    return errors


def _fit(cases: list[Case]) -> dict[str, float]:
    """Medians of what single launches imply."""
    implied: dict[str, list[float]] = {}
    for each in cases:
        sampler, outside = each.constants
        measured = each.case["measured"]
        if measured.get("non_torch_gib") is not None:
            implied.setdefault(outside, []).append(measured["non_torch_gib"])
        if sampler is not None and measured.get("activation_peak_gib") is not None:
            copies = _implied_copies(each, measured["activation_peak_gib"])
            if copies is not None:
                implied.setdefault(sampler, []).append(copies)
    return PRIORS | {name: statistics.median(values) for name, values in implied.items()}


def _implied_copies(each: Case, activation_gib: float) -> float | None:
    """Copies that would give the printed activation; ``None`` where another peak decides it."""
    zero, one = (_estimate(each, each.rules.sampler_copies._replace(low=value, value=value, high=value)) for value in (0.0, 100.0))
    per_copy = (one.activation.value - zero.activation.value) / 100
    if per_copy <= 0:
        return None
    base = one.activation.value - 100 * per_copy
    copies = (activation_gib * GIBI - base) / per_copy
    return copies if copies > 1 else None


def _predict(each: Case, constants: dict[str, float]) -> float:
    sampler, outside = each.constants
    copies = each.rules.sampler_copies if sampler is None else Estimate.exactly(constants[sampler])
    rank = _estimate(each, copies)
    fixed = rank.overhead.value / GIBI
    names = {
        "linked": each.rules.non_torch_linked,
        "singleOld": each.rules.non_torch_single,
        "singleNew": each.rules.non_torch_single,
    }
    if outside in names:
        fixed += constants[outside] - names[outside].value / GIBI
    return (rank.budget.value - rank.weights.value - rank.activation.value) / GIBI - fixed


def _estimate(each: Case, copies: Estimate) -> Any:  # a rank's memory
    weighed, seen = Weighed.of(each.launch.declaration), visible_memory(each.launch.gpu)
    if weighed is None or seen is None:
        problem = f"{each.case['id']} is not usable"
        raise ValueError(problem)
    rules = replace(each.rules, sampler_copies=copies)
    return memory_of(weighed.load, weights_of(weighed.load, rules), rules, each.launch.gpu, seen).fullest
