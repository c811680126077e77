"""The performance model against measured services: errors, ranges, the page ``docs/performance-accuracy.md``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launches import UnreadableCaseError
from rate import Rated, rate
from score import quantile
from served import read_served

Json = dict[str, Any]

EXPLANATIONS = Path(__file__).parent / "performance_explanations.json"
THROUGHPUT = ("output_tok_s_total", "output_tok_s_per_gpu", "req_s", "total_tok_s_total", "total_tok_s_per_gpu")
"""The first of these that a case prints is its throughput."""
FIGURES = {"throughput": THROUGHPUT, "TPOT": ("tpot_ms",), "TTFT": ("ttft_ms",), "E2E": ("e2e_ms",)}
OUTLIER = 1.6
"""A factor beyond which a core case's throughput or TPOT is explained by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One case with its prediction."""

    case: Json
    rated: Rated

    @property
    def tier(self) -> str:
        """core, extended or stress."""
        return str(self.case.get("tier") or "core")

    def ratio(self, names: Iterable[str]) -> float | None:
        """Predicted over measured, of the first of the metrics that both have."""
        found = self._figure(names)
        return None if found is None else found[0].value / found[1]

    def holds(self, names: Iterable[str]) -> bool | None:
        """Whether the range holds what was measured."""
        found = self._figure(names)
        return None if found is None else found[0].low <= found[1] <= found[0].high

    def width(self, names: Iterable[str]) -> float | None:
        """High over low."""
        found = self._figure(names)
        return None if found is None else found[0].high / found[0].low

    def _figure(self, names: Iterable[str]) -> tuple[Any, float] | None:
        measured = self.case["metrics"]
        for name in names:
            if measured.get(name) and name in self.rated.figures:
                return self.rated.figures[name], float(measured[name])
        return None


def compared(cases: list[Any], data_sets: Json) -> tuple[list[Compared], dict[str, str]]:
    """(predictions beside what was measured, case -> why it could not be read)."""
    found, problems = [], {}
    for number, case in enumerate(cases):
        name = str(case.get("id") or f"number {number + 1}") if isinstance(case, dict) else f"number {number + 1}"
        try:
            if not isinstance(case, dict) or not isinstance(case.get("metrics"), dict):
                problem = "needs an object with metrics"
                raise UnreadableCaseError(problem)  # noqa: TRY301  # one way out for all that cannot be read
            found.append(Compared(case=case, rated=rate(read_served(case, data_sets))))
        except (UnreadableCaseError, ArithmeticError, LookupError, TypeError, ValueError) as problem:
            problems[name] = str(problem) if isinstance(problem, UnreadableCaseError) else f"{type(problem).__name__}: {problem}"
    return found, problems


def document(found: list[Compared], problems: dict[str, str]) -> Json:
    """All predictions, keyed as the file's ``metrics``."""
    cases: list[Json] = []
    for each in found:
        measured = each.case["metrics"]
        errors = {
            name: round(figure.value / measured[name] - 1, 4)
            for name, figure in each.rated.figures.items()
            if isinstance(measured.get(name), int | float) and measured[name]
        }
        cases.append({"id": each.case.get("id"), "predicted": each.rated.as_json(), "measured": measured, "error": errors or None})
    cases += [{"id": name, "predicted": None, "measured": None, "error": None, "problem": why} for name, why in problems.items()]
    return {"cases": cases, "summary": summary(found)}


def summary(found: list[Compared]) -> Json:
    """Errors of each figure, by tier."""
    return {
        tier: {name: statistics([each for each in found if each.tier == tier], names) for name, names in FIGURES.items()}
        for tier in ("core", "extended", "stress")
    }


def statistics(found: list[Compared], names: tuple[str, ...]) -> Json:
    """Number, median and p90 error, worst factor, share inside the range, and the range's median width."""
    ratios = [ratio for each in found if (ratio := each.ratio(names)) is not None]
    errors = [abs(ratio - 1) for ratio in ratios]
    inside = [holds for each in found if (holds := each.holds(names)) is not None]
    widths = [width for each in found if (width := each.width(names)) is not None]
    return {
        "n": len(ratios), "median": quantile(errors, 0.5), "p90": quantile(errors, 0.9),
        "worstFactor": max((max(ratio, 1 / ratio) for ratio in ratios), default=None),
        "bias": quantile([ratio - 1 for ratio in ratios], 0.5),
        "inside": sum(inside) / len(inside) if inside else None, "highOverLow": quantile(widths, 0.5),
    }  # fmt: skip


AIMS = (
    ("throughput", "median 12 %, p90 43 %, none over 3x"),
    ("TPOT", "median 10 %, p90 36 %"),
    ("TTFT", "inside the range on 80 %, a range of at most 3.4x"),
    ("E2E", ""),
)


def page(found: list[Compared]) -> str:
    """In Markdown."""
    core = [each for each in found if each.tier == "core"]
    lines = [
        "# Accuracy of the performance model",
        "",
        "<!-- Written by `make accuracy`; do not edit. -->",
        "",
        f"{len(found)} measured services from public sources (`tests/data/performance_cases.json`, each with its source), against "
        "the model's figures for the same model, engine, GPUs and load. Constants and their origin stand in "
        "`data/performance.json`: none was fitted on these cases by a solver, and they are no blind test either. After a first look at "
        "the core tier's errors two priors were moved (how unevenly experts are loaded, and how all-reduces over PCIe grow with ranks), "
        "the wait of prompts that start together was added, and the widths of the ranges were set from these errors, so that the shares "
        "inside say how well the widths were set, not how they carry. `make accuracy PERFORMANCE=FILE OUT=FILE.json` does the same for another file of "
        "that form.",
        "",
        "Latencies of an open loop at 85 % of capacity and more are not told: near the knee, 10 % of capacity move them threefold. "
        'Reports say "at capacity" there.',
        "",
        "## Core tier",
        "",
        "| figure | aim | cases | median error | p90 | worst | bias | inside the range | range, high over low |",
        "|---|---|---|---|---|---|---|---|---|",
        *(f"| {name} | {aim} {_row(statistics(core, FIGURES[name]))}" for name, aim in AIMS),
    ]
    groups: list[tuple[str, Callable[[Compared], str]]] = [
        ("GPU", lambda each: str(each.case["gpu"])),
        ("engine", lambda each: str(each.case["engine"])),
        ("kind", _kind),
        ("load", lambda each: str(each.case["load"]["type"])),
    ]
    for title, key in groups:
        lines += [
            "", f"## Core tier by {title}", "",
            "| " + title + " | figure | cases | median error | p90 | worst | bias | inside the range | range, high over low |",
            "|---|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for name in sorted({key(each) for each in core}):
            for figure in ("throughput", "TPOT", "TTFT"):
                its = statistics([each for each in core if key(each) == name], FIGURES[figure])
                if its["n"]:
                    lines.append(f"| {name} | {figure} {_row(its)}")
    lines += ["", "## The other tiers", ""]
    lines += [
        "| tier | figure | cases | median error | p90 | worst | bias | inside the range | range, high over low |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for tier in ("extended", "stress"):
        for figure, names in FIGURES.items():
            its = statistics([each for each in found if each.tier == tier], names)
            if its["n"]:
                lines.append(f"| {tier} | {figure} {_row(its)}")
    return "\n".join(lines + _worst(core) + _unpredicted(found)) + "\n"


def _worst(core: list[Compared]) -> list[str]:
    known = json.loads(EXPLANATIONS.read_text(encoding="utf-8"))
    lines = ["", "## The worst cases", "", f"Throughput or TPOT off by more than {OUTLIER:g}x, and why.", ""]
    for each in core:
        for figure in ("throughput", "TPOT"):
            ratio = each.ratio(FIGURES[figure])
            if ratio is not None and max(ratio, 1 / ratio) > OUTLIER:
                why = known.get(each.case.get("id"), "not explained yet")
                lines.append(f"- `{each.case.get('id')}`, {figure} x{ratio:.2f}: {why}")
    return lines


def _unpredicted(found: list[Compared]) -> list[str]:
    lines = [f"- `{each.case.get('id')}`: {each.rated.problem}" for each in found if each.rated.problem]
    return ["", "## Without a figure", "", *(lines or ["None."])]


def _kind(each: Compared) -> str:
    case = each.case
    if (case.get("attention_dp") or 1) > 1 or (case.get("ep") or 1) > 1:
        return "mixture, experts dealt out"
    tags = case.get("tags") or []
    if "moe" in tags or "ixtral" in str(case["model"]) or "DeepSeek" in str(case["model"]):
        return "mixture"
    if (case.get("pp") or 1) > 1:
        return "dense, pipeline"
    return "dense, one GPU" if (case.get("tp") or 1) == 1 else "dense, tensor"


def _row(its: Json) -> str:
    def share(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.0f} %"

    def factor(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}x"

    bias = "" if its["bias"] is None else f"{100 * its['bias']:+.0f} %"
    return (
        f"| {its['n']} | {share(its['median'])} | {share(its['p90'])} | {factor(its['worstFactor'])} | {bias} "
        f"| {share(its['inside'])} | {factor(its['highOverLow'])} |"
    )
