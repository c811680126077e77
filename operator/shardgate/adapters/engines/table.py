"""Engines as declared: their start-up rules, and how their versions use memory, from the tables."""

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from shardgate.adapters.engines.versions import OPEN_END, Span, release, span_of
from shardgate.adapters.performance import pace_of
from shardgate.adapters.tables import table
from shardgate.domain.engine import (
    BudgetBasis,
    BySize,
    Engine,
    EngineRule,
    Holds,
    MemoryRules,
    StaticReserve,
    StepBySize,
)
from shardgate.domain.estimate import Estimate
from shardgate.domain.strategy import Remainder
from shardgate.domain.units import GIBI

KNOWN = ("vllm", "sglang", "tensorrt-llm", "lmdeploy", "tgi", "nim")
V0_SWITCH = "VLLM_USE_V1"


@lru_cache(maxsize=256)
def engine_of(name: str | None, version: str | None, generation: str | None = None) -> tuple[Engine, bool]:
    """(the engine, whether its version was understood). ``other``, or none at all, is an engine whose rules are not known.

    ``generation``: V0 or V1 of vLLM, where its environment says which.
    """
    known = name in KNOWN
    span, understood = span_of(version, _newest(name))
    newest = release(_newest(name))
    return (
        Engine(
            name=name or "",
            version=version,
            known=known,
            rules=_rules(name or "", span, newest) if known else {},
            memory=_memory(name or "", span, generation) if known else (),
            pace=pace_of(name or "", span) if known else None,
            is_newer_than_known=span.is_one and span.low[: len(newest)] > newest,
        ),
        understood,
    )


def _newest(name: str | None) -> str:
    row = table("engine_memory")["engines"].get(name)
    return str(row["newestKnown"]) if row else "1"


def _rules(name: str, span: Span, newest: tuple[int, ...]) -> dict[str, EngineRule]:
    found: dict[str, EngineRule] = {}
    for row in table("engine_rules")["rules"]:
        if row["engine"] != name:
            continue
        since, until = release(row["since"]), release(row["until"]) if "until" in row else OPEN_END
        if not span.meets(since, until):
            continue
        if row.get("past") and span.low == (0,) and not span.is_one:
            continue  # nobody who leaves the version out means one that old
        last_read = release(row["readUpTo"]) if "readUpTo" in row else newest
        confirmed = row.get("lasting") or span.low[: len(last_read)] <= last_read
        holds = Holds.IN_SOME_VERSIONS if not span.within(since, until) else Holds.YES if confirmed else Holds.NOT_CONFIRMED
        if "readUpTo" in row and not span.is_one and holds is Holds.YES:
            holds = Holds.IN_SOME_VERSIONS
        found[row["rule"]] = EngineRule(
            message=row["message"], versions=versions_of(row), source=row["source"], holds=holds, values=row.get("values", {})
        )
    return found


def versions_of(row: Mapping[str, Any]) -> str:
    """``from 0.9.1, before 0.11``: of a row of the table."""
    since = "all versions" if release(row["since"]) == (0,) else f"from {row['since']}"
    return f"{since}, before {row['until']}" if "until" in row else since


def _memory(name: str, span: Span, generation: str | None) -> tuple[MemoryRules, ...]:
    """Rows that the version could fall under, newest first."""
    rows = [each for each in _memory_rows(name) if span.meets(each[0], each[1])]
    chosen = [each for each in rows if generation is None or each[2] in (generation, "")]
    return tuple(rules for _, _, _, rules in reversed(chosen or rows))


@cache
def _memory_rows(name: str) -> tuple[tuple[tuple[int, ...], tuple[int, ...], str, MemoryRules], ...]:
    """(since, until, generation, rules), oldest first; V0 before V1 of the same versions."""
    engine = table("engine_memory")["engines"].get(name)
    if engine is None:
        return ()
    rows: list[tuple[tuple[int, ...], tuple[int, ...], str, MemoryRules]] = []
    merged: dict[str, dict[str, Any]] = {}
    all_rows = engine["rows"]
    for index, row in enumerate(all_rows):
        generation = row.get("generation", "")
        older = merged.get(generation) or merged.get("V0" if generation == "V1" else "", {})
        merged[generation] = {**older, **row}
        following = [each for each in all_rows[index + 1 :] if each.get("generation", "") == generation]
        until = row.get("until") or (following[0]["since"] if following else None)
        versions = f"{name} from {row['since']}" + (f", before {until}" if until else "")
        rules = _memory_rules(versions, merged[generation])
        rows.append((release(row["since"]), release(until) if until else OPEN_END, generation, rules))
    return tuple(sorted(rows, key=lambda each: (each[0], each[2])))


def _memory_rules(versions: str, row: dict[str, Any]) -> MemoryRules:
    def gibs(field: str) -> Estimate:
        return Estimate(*(figure * GIBI for figure in row[field]))

    def by_size(field: str) -> BySize | None:
        value = row[field]
        return BySize(small=value["small"], large=value["large"], never_large=value.get("neverLarge", "")) if value else None

    reserve = row.get("reserve")
    return MemoryRules(
        versions=versions,
        basis=BudgetBasis(row["basis"]),
        utilization_low=row["utilization"][0],
        utilization_high=row["utilization"][1],
        reserve=StaticReserve(steps=tuple(_step(each) for each in reserve)) if reserve else None,
        sequences=by_size("sequences") or BySize(small=1, large=1),
        batched_tokens=by_size("batchedTokens"),
        long_prompt_batched_tokens=row["longPromptBatchedTokens"],
        block_tokens=row["blockTokens"],
        latent_workspace_tokens=row["latentWorkspaceTokens"],
        sampler_copies=Estimate(*row["samplerCopies"]),
        step_copies=Estimate(*row["stepCopies"]),
        tower=gibs("towerGib"),
        only_driver_samples=row["onlyDriverSamples"],
        mixture_copies=Estimate(*row["mixtureCopies"]),
        activation_base=gibs("activationBaseGib"),
        non_torch_single=gibs("nonTorchSingleGib"),
        non_torch_linked=gibs("nonTorchLinkedGib"),
        non_torch_unlinked=gibs("nonTorchUnlinkedGib"),
        start_single=gibs("startSingleGib"),
        start_linked=gibs("startLinkedGib"),
        start_unlinked=gibs("startUnlinkedGib"),
        graphs=gibs("graphsGib"),
        are_graphs_budgeted=row["areGraphsBudgeted"],
        checks_free_at_start=row["checksFreeAtStart"],
        group_tolerance=row["groupTolerance"],
        counts_tokens_by_concurrency=row["countsTokensByConcurrency"],
        groups_hybrid_layers=row["groupsHybridLayers"],
        groups_chunked_layers=row["groupsChunkedLayers"],
        caches_latents=row["cachesLatents"],
        absorbs_latents=row["absorbsLatents"],
        remainder=Remainder(row["remainder"]),
        adapts_experts=row["adaptsExperts"],
        loads_before_quantising=row["loadsBeforeQuantising"],
        shards_experts_over_data=row["shardsExpertsOverData"],
        needs_full_length=row["needsFullLength"],
        counts_all_stages=row["countsAllStages"],
        window_full_ratio=row["windowFullRatio"],
        source=row["source"],
    )


def _step(row: list[float]) -> StepBySize:
    up_to, chunk, graph, graph_wide = row
    return StepBySize(up_to_mib=up_to, chunk_tokens=int(chunk), graph_batch=int(graph), graph_batch_wide=int(graph_wide))
