"""The page ``docs/accuracy.md``, and the summary of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from launches import Launch
from score import Scored, by, confusion, is_decidable, is_new_vllm, quantile, spread
from validate import Case, cross_validated, usable

from shardgate.domain.model import ModelArchitecture

Json = dict[str, Any]

FIGURES = {
    "weights_gib_per_gpu": "weights",
    "activation_peak_gib": "activation",
    "non_torch_gib": "non-torch",
    "kv_cache_gib": "KV GiB",
    "kv_tokens": "KV tokens",
}
LIMITS = {"weights_gib_per_gpu": 0.03, "kv_cache_gib": 0.06, "kv_tokens": 0.07}
"""Beyond these a case is an outlier, and explained by name."""
EXPLANATIONS = Path(__file__).parent / "explanations.json"
EXACT = 0.004
"""Figures are printed with two decimals: a ratio of two of them is exact within this."""
DECIDED, WRONG, FOUND = 0.88, 0.03, 0.75


def summary(scored: list[Scored]) -> Json:
    """What was aimed at, and what was reached."""
    high = [each for each in scored if each.case.get("confidence", "high") == "high"]
    new = [each for each in scored if is_new_vllm(each)]
    per_token = [abs(error) for each in scored if (error := each.errors.get("kv_bytes_per_token_per_gpu")) is not None]
    decidable = [each for each in scored if is_decidable(each)]
    matrix = confusion(decidable)
    failures = sum(number for (measured, _), number in matrix.items() if measured == "doesNotStart")
    wrong = matrix["runs", "doesNotStart"] + matrix["doesNotStart", "runs"]
    contexts = [each.errors["estimated_max_model_len"] for each in scored if each.errors.get("estimated_max_model_len") is not None]
    from_pool = [each.context_from_printed_pool for each in scored if each.context_from_printed_pool is not None]
    return {
        "cases": len(scored),
        "weightsHighConfidence": spread(high, "weights_gib_per_gpu"),
        "kvBytesPerToken": {"n": len(per_token), "exact": sum(error <= EXACT for error in per_token)},
        "kvCacheGibNewVllm": spread(new, "kv_cache_gib"),
        "kvTokensNewVllm": spread(new, "kv_tokens"),
        "outcome": {
            "n": len(decidable),
            "right": matrix["runs", "runs"] + matrix["doesNotStart", "doesNotStart"],
            "wrong": wrong,
            "undecided": matrix["runs", "undecided"] + matrix["doesNotStart", "undecided"],
            "failures": failures,
            "failuresFound": matrix["doesNotStart", "doesNotStart"],
        },
        "contextLimit": {
            "n": len(contexts),
            "worst": max((abs(error) for error in contexts if error is not None), default=None),
            "nFromPrintedPool": len(from_pool),
            "worstFromPrintedPool": max(map(abs, from_pool), default=None),
        },
    }


def page(scored: list[Scored], launches: list[Launch]) -> str:
    """All of it, in Markdown."""
    sections = [
        _introduction(scored),
        _aims(summary(scored)),
        "## Outcome\n\nRows: what happened. All cases that say it, and in brackets those of high confidence that give tensor width, "
        "version and GPU memory.\n\n" + _confusion(scored),
        *(
            f"## By {name}\n\nMedian and p90 of the absolute relative error (number of cases).\n\n" + _groups(scored, launches, key)
            for name, key in _KEYS.items()
        ),
        "## Cross-validation\n\n" + _validation(scored, launches),
        "## Outliers\n\n" + _outliers(scored),
    ]
    return "\n\n".join(sections) + "\n"


def _introduction(scored: list[Scored]) -> str:
    sources = len({each.case.get("source_url") for each in scored})
    return (
        "# Accuracy of the memory model\n\n<!-- Written by `make accuracy`; do not edit. -->\n\n"
        f"{len(scored)} launches of engines on real GPUs, from {sources} public logs, issues and notebooks "
        "(`tests/data/memory_cases.json`, each with its source), against what `verify` predicts for the same declaration on the "
        "same GPU. `make accuracy MEMORY=FILE OUT=FILE.json` does the same for another file of that form."
    )


def _aims(found: Json) -> str:
    weights, pool, tokens = found["weightsHighConfidence"], found["kvCacheGibNewVllm"], found["kvTokensNewVllm"]
    outcome, per_token, context = found["outcome"], found["kvBytesPerToken"], found["contextLimit"]
    rows = [
        ("weights per rank, high confidence", "median 0.7 %, p95 3 %", f"{_percent(weights['median'])}, {_percent(weights['p95'])}", weights["n"]),
        ("KV bytes per token", "exact on 95 %", f"{per_token['exact']} of {per_token['n']}", per_token["n"]),
        ("KV cache GiB, vLLM 0.11 and newer", "median 2 %, p90 6 %", f"{_percent(pool['median'])}, {_percent(pool['p90'])}", pool["n"]),
        ("KV tokens, the same", "median 2 %, p90 7 %", f"{_percent(tokens['median'])}, {_percent(tokens['p90'])}", tokens["n"]),
        ("outcome decided and right", _percent(DECIDED), f"{outcome['right']} of {outcome['n']}", outcome["n"]),
        ("outcome wrong", f"at most 1, or {_percent(WRONG)}", str(outcome["wrong"]), outcome["n"]),
        ("failures found", _percent(FOUND), f"{outcome['failuresFound']} of {outcome['failures']}", outcome["failures"]),
        ("largest context against the engine's own estimate", "5 %", _percent(context["worst"]), context["n"]),
        ("the same, from the pool that the engine printed", "", _percent(context["worstFromPrintedPool"]), context["nFromPrintedPool"]),
    ]  # fmt: skip
    return "## Aims\n\n" + _table(["figure", "aim", "measured", "cases"], rows)


def _confusion(scored: list[Scored]) -> str:
    everything, decidable = confusion(scored), confusion(each for each in scored if is_decidable(each))
    rows = [
        (
            measured,
            *(f"{everything[measured, told]} ({decidable[measured, told]})" for told in ("runs", "doesNotStart", "undecided")),
        )
        for measured in ("runs", "doesNotStart")
    ]
    return _table(["", "runs", "does not start", "undecided"], rows)


def _groups(scored: list[Scored], launches: list[Launch], key: Callable[[Scored, Launch], str]) -> str:
    names = {id(each): key(each, launch) for each, launch in zip(scored, launches, strict=True)}
    rows = []
    for name, group in by(scored, lambda each: names[id(each)]).items():
        cells = []
        for figure in FIGURES:
            found = spread(group, figure)
            cells.append("" if not found["n"] else f"{_percent(found['median'])}, {_percent(found['p90'])} ({found['n']})")
        if any(cells):
            rows.append((name, *cells))
    return _table(["", *FIGURES.values()], rows)


def _attention(_: Scored, launch: Launch) -> str:
    model = launch.declaration.model
    if not isinstance(model, ModelArchitecture):
        return "not known"
    kinds = sorted({cache.kind.value for kind in model.kinds for cache in kind.caches})
    return " and ".join(kinds) or "none"


_KEYS: dict[str, Callable[[Scored, Launch], str]] = {
    "engine and version": lambda each, _: f"{each.case.get('engine')} {_series(each.case.get('engine_version'))}",
    "GPU": lambda _, launch: launch.gpu.product or "not known",
    "attention": _attention,
    "quantisation": lambda _, launch: launch.declaration.weights_name or "not known",
}


def _series(version: Any) -> str:  # text or null
    parts = str(version or "of unknown version").split(".")
    return ".".join(parts[:2]) if parts[0].isdigit() else str(version or "of unknown version")


def _validation(scored: list[Scored], launches: list[Launch]) -> str:
    cases = usable((each.case, launch) for each, launch in zip(scored, launches, strict=True))
    ways: dict[str, Callable[[Case], str]] = {
        "by source": lambda each: str(each.case.get("source_group")),
        "by (model, GPU)": lambda each: f"{each.case.get('arch_key')} {each.launch.gpu.product}",
    }
    rows = []
    for name, key in ways.items():
        errors = cross_validated(cases, key)
        rows.append((f"held out {name}", _percent(quantile(errors, 0.5)), _percent(quantile(errors, 0.9)), len(errors)))
    in_sample = spread([each for each in scored if any(each.case is case.case for case in cases)], "kv_cache_gib")
    rows.append(("with the constants as they stand", _percent(in_sample["median"]), _percent(in_sample["p90"]), in_sample["n"]))
    return (
        "Fitted on these launches, and on nothing else of them: the copies of the logits that the sampler's trial run needs (9.7 "
        "where it sorts, 3.65 with the Triton kernel), memory outside PyTorch on one GPU (before and from vLLM 0.18) and over "
        "NVLink, a base of 0.03 GiB. Weights, KV bytes per token and budgets are computed, not fitted. Below, the KV pool of vLLM "
        "launches: each group is predicted with constants fitted on the other groups, or on a published prior where the others "
        "have none. Most pools come from one source, so leaving it out rests nearly wholly on priors.\n\n"
        + _table(["KV cache GiB", "median", "p90", "cases"], rows)
    )


def _outliers(scored: Iterable[Scored]) -> str:
    told = json.loads(EXPLANATIONS.read_text(encoding="utf-8"))
    rows = []
    for each in scored:
        over = {
            figure: error for figure, limit in LIMITS.items()
            if (error := each.errors.get(figure)) is not None and abs(error) > limit
        }  # fmt: skip
        if over:
            shown = ", ".join(f"{FIGURES[figure]} {error:+.0%}".replace("%", " %") for figure, error in over.items())
            rows.append((each.case.get("id"), shown, told.get(str(each.case.get("id")), "not explained yet")))
        if each.measured_outcome in ("runs", "doesNotStart") and each.prediction.outcome not in (
            each.measured_outcome,
            "undecided",
        ):
            rows.append((each.case.get("id"), "outcome wrong", told.get(str(each.case.get("id")), "not explained yet")))
    limits = ", ".join(f"{FIGURES[figure]} {_percent(limit)}" for figure, limit in LIMITS.items())
    return f"Beyond {limits}, or with a wrong outcome; why, as far as the evidence goes.\n\n" + _table(
        ["case", "error", "why"], rows
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}".replace(".0%", "%").replace("%", " %")


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    names = list(head)
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)
