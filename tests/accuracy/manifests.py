"""Extraction compared with a folder of manifests that a person has read: ``*.yaml`` and ``truth.json``."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from shardgate.adapters.extracts import extract
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.registry import read_workloads

Json = dict[str, Any]

FIELDS = {
    "role": "role", "engine": "engine", "replicas": "replicas", "pods_per_replica": "podsPerReplica", "gpus_per_pod": "gpusPerPod",
    "gpu_resource": "gpuResource", "gpus_per_replica": "gpusPerReplica", "world_size": "worldSize", "model": "model",
    "dtype": "dtype", "quantization": "quantization", "kv_cache_dtype": "kvCache", "memory_utilization": "memoryUtilization",
    "max_model_len": "maxModelLen", "max_num_seqs": "maxSequences", "node_selector": "nodeSelector",
}  # fmt: skip
WIDTHS = {"tensor": "tensor", "pipeline": "pipeline", "data": "data", "data_local": "dataLocal"}


@dataclass
class Score:
    """Right, null where the truth has a value, and wrong, by kind of field."""

    explicit: Counter[str] = field(default_factory=Counter)
    other: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    negatives: list[str] = field(default_factory=list)
    by_field: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


def score(folder: Path) -> Score:
    """Every record of the folder's truth."""
    found = Score()
    for record in json.loads((folder / "truth.json").read_text()):
        bodies = [each for each in yaml.safe_load_all((folder / f"{record['id']}.yaml").read_text()) if isinstance(each, dict)]
        workloads = read_workloads(bodies, Library.of(bodies))
        groups = [group for workload in workloads for group in extract(workload)["groups"]]
        if not record["is_inference"]:
            if groups:
                found.negatives.append(record["id"])
            continue
        _compare(record, groups, found)
    return found


def _compare(record: Json, groups: list[Json], found: Score) -> None:
    left = list(groups)
    for index, truth in enumerate(record["groups"]):
        mine = next((each for each in left if each["role"] == truth["role"]), left[0] if left else None)
        if mine is not None:
            left.remove(mine)
        for name in (*FIELDS, *WIDTHS, "expert"):
            verdict = _field(name, truth, mine, record.get("model_also") or truth.get("model_also") or ())
            counts = found.explicit if name in truth["explicit"] else found.other
            counts[verdict] += 1
            found.by_field[name][verdict] += 1
            if verdict != "right":
                told = f"{record['id']}[{index}].{name}: truth {truth[name]!r}, found {_mine(name, truth, mine)!r}"
                (found.wrong if verdict == "wrong" else found.missing).append(told)
    if left:
        found.wrong.append(f"{record['id']}: {len(left)} groups more: {[each['role'] for each in left]}")


def _mine(name: str, truth: Json, mine: Json | None) -> Any:  # as the field
    if mine is None:
        return None
    if name == "expert":
        strategy = mine["strategy"]
        return strategy["expertParallel"] if truth["engine"] == "vllm" else strategy["expert"]
    return mine["strategy"][WIDTHS[name]] if name in WIDTHS else mine[FIELDS[name]]


def _field(name: str, truth: Json, mine: Json | None, also: Any) -> str:  # noqa: PLR0911  # a table of its cases
    right, told = truth[name], _mine(name, truth, mine)
    if mine is None:
        return "null" if right not in (None, {}) else "right"
    if name == "model" and told is not None and right is not None:
        names = {each.removeprefix("hf://") for each in (right, *also)}
        return "right" if told.removeprefix("hf://") in names else "wrong"
    if name in ("gpus_per_pod", "node_selector"):
        told = told or {}
        if name == "gpus_per_pod" and right != told and mine is not None:
            values = set((right or {}).values())
            if len(values) == 1 and set(told.values()) == values:
                return "right"
            if set(told.values()) <= {None} and values - {None}:
                return "null"
        if name == "node_selector" and mine is None and right:
            return "null"
    if told == right:
        return "right"
    return "null" if told is None else "wrong"


def section(found: Score, records: int) -> str:
    """The table, in Markdown."""
    lines = [
        "## Extraction from manifests",
        "",
        f"{records} public manifests that one person has read field by field, against what `extract` prints "
        "(`make accuracy MANIFESTS=DIR`). Explicit fields are those that a manifest states itself, through variables, files and "
        "scripts too; the others are defaults and inferences. Null where the truth has a value is not known, wrong is another value.",
        "",
        "| fields | right | null | wrong |",
        "|---|---|---|---|",
    ]
    for name, counts in (("explicit", found.explicit), ("others", found.other)):
        total = sum(counts.values())
        lines.append(
            f"| {name} ({total}) | {counts['right']} ({counts['right'] / total:.1%}) | {counts['null']} | {counts['wrong']} |"
        )
    lines += ["", "| field | right | null | wrong |", "|---|---|---|---|"]
    lines += [f"| {name} | {counts['right']} | {counts['null']} | {counts['wrong']} |" for name, counts in found.by_field.items()]
    judged = ", ".join(found.negatives) or "none"
    return "\n".join([*lines, "", f"What is no inference and was taken for it: {judged}."]) + "\n"
