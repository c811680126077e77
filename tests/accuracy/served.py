"""A measured service -> the declaration, the GPUs and the load that it was measured with."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from launches import GPU_NAMES, NOMINAL_SHARE, UnreadableCaseError

from shardgate.adapters.gpus import find_product, gpu_of
from shardgate.adapters.referred_workloads import read_declaration
from shardgate.adapters.tables import table
from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import Gpu, Visible
from shardgate.domain.performance.serving import Lengths
from shardgate.domain.units import GIBI, Bytes

Json = dict[str, Any]

MORE_GPU_NAMES: tuple[tuple[str, str], ...] = (
    (r"RTX[- ]?PRO[- ]?6000", "RTX-PRO-6000-Blackwell-Server-Edition"),
    (r"A100.*PCIe.*80|A100.*80.*PCIe", "A100-80GB-PCIe"),
    (r"A100.*PCIe", "A100-PCIE-40GB"),
    (r"H800.*PCIe", "H800-PCIe"),
    (r"H800", "H800"),
    (r"H200.*NVL", "H200-NVL"),
    (r"GB200", "GB200"),
    (r"GB300", "GB300"),
    (r"B300", "B300-SXM6-AC"),
    (r"MI355X", "AMD_Instinct_MI355X_OAM"),
    (r"MI325X", "AMD_Instinct_MI325X_OAM"),
    (r"A30\b", "A30"),
    (r"A40\b", "A40"),
    (r"A6000", "RTX-A6000"),
)
"""GPUs that sources of performance write otherwise than those of launches."""

ENGINES = {"vllm": "vllm", "sglang": "sglang", "tensorrt-llm": "tensorrt-llm", "trt-llm": "tensorrt-llm", "nim": "nim"}

KINDS = ("offline_max", "static_batch", "closed_loop", "poisson")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What was measured, and on what."""

    declaration: Declaration
    gpu: Gpu
    lengths: Lengths | None
    """``None`` where the source tells none, nor a data set whose lengths are known."""
    load: Json
    replicas: int
    """Independent copies that share the load."""
    gpus: int
    """That the printed figure covers."""


def read_served(case: Json, data_sets: Json) -> Served:
    """Raises ``UnreadableCaseError``."""
    try:
        kind = case["load"]["type"]
        if kind not in KINDS:
            problem = f"load.type needs one of {', '.join(KINDS)}, not {kind!r}"
            raise UnreadableCaseError(problem)
        data = int(case.get("dp") or 1)
        shares_tensor = int(case.get("attention_dp") or 1)
        gpu = _gpu(str(case["gpu"]))
        return Served(
            declaration=read_declaration(_body(case, shares_tensor)),
            gpu=gpu,
            lengths=_lengths(case, data_sets),
            load=case["load"],
            replicas=data,
            gpus=int(case["gpu_count"]),
        )
    except ExceptionGroup as problems:
        raise UnreadableCaseError("; ".join(str(each) for each in problems.exceptions)) from None
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        if isinstance(problem, UnreadableCaseError):
            raise
        raise UnreadableCaseError(f"{type(problem).__name__}: {problem}") from None


def _lengths(case: Json, data_sets: Json) -> Lengths | None:
    """As printed; the mean where the note says that lengths were drawn below it; else those of a known data set."""
    note = str(case.get("len_note") or "")
    prompt, output = case.get("input_len"), case.get("output_len")
    metrics = case["metrics"]
    if output is None and metrics.get("output_tok_s_total") and metrics.get("req_s"):
        output = metrics["output_tok_s_total"] / metrics["req_s"]
    if prompt is None and metrics.get("total_tok_s_total") and metrics.get("req_s") and metrics.get("output_tok_s_total"):
        prompt = (metrics["total_tok_s_total"] - metrics["output_tok_s_total"]) / metrics["req_s"]
    for name, lengths in data_sets.items():
        if re.search(lengths["match"], f"{note} {case.get('source_locator') or ''} {case.get('id')}", re.IGNORECASE):
            prompt = prompt if prompt is not None else lengths["prompt"]
            output = output if output is not None else lengths["output"]
            del name
            break
    if prompt is None or output is None:
        return None
    factor = float(found[1]) if (found := re.search(r"use (0\.\d+)x", note)) else 1.0
    return Lengths(prompt=max(1.0, prompt * factor), output=max(1.0, output * factor))


def _gpu(text: str) -> Gpu:
    product = next((product for pattern, product in MORE_GPU_NAMES + GPU_NAMES if re.search(pattern, text, re.IGNORECASE)), None)
    if product is None:
        problem = f"gpu: {text} is no product that is known here"
        raise UnreadableCaseError(problem)
    return sized(gpu_of(product, None), product)


def sized(gpu: Gpu, product: str) -> Gpu:
    """With what its product has at least and at most, where more than one size is sold or none was read."""
    row = find_product(product)
    if gpu.memory is not None or row is None or row.memory_gb_nominal is None:
        return gpu
    low, high = (Bytes(int(row.memory_gb_nominal * share * GIBI)) for share in NOMINAL_SHARE)
    return replace(gpu, memory=high, visible=Visible(low=low, high=high, source="nominal"))


def _body(case: Json, shares_tensor: int) -> Json:
    engine = ENGINES.get(str(case["engine"]).lower(), "other")
    found = re.search(r"\d+\.\d+(\.\d+)?(rc\d+|\.post\d+)*", str(case.get("engine_version") or ""))
    is_version = found is not None and "MLPerf" not in str(case.get("engine_version"))
    tensor = int(case.get("tp") or 1)
    strategy: Json = {"tensor": tensor, "pipeline": int(case.get("pp") or 1)}
    if shares_tensor > 1:
        strategy |= {"data": shares_tensor, "attentionData": True}
    experts = int(case.get("ep") or 1)
    if experts > 1:
        strategy |= {"expertParallel": True} if engine == "vllm" else {"expert": experts}
    stated = {
        "name": engine,
        "version": found.group() if found and is_version else None,
        "maxSequences": case["load"].get("max_num_seqs"),
        "maxModelLen": None,
    }
    precision, cache = str(case["precision"]), case.get("kv_precision")
    quantised = precision in ("fp8", "fp4")
    if cache is None and engine == "tensorrt-llm" and quantised:
        cache = "fp8"  # NVIDIA's published checkpoints of these precisions say so of their cache
    return {
        "apiVersion": "shardgate.io/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": "served", "namespace": "accuracy"},
        "spec": {
            "model": _model(str(case["model"]), precision, "fp8" if cache == "fp8" else None),
            "engine": {key: value for key, value in stated.items() if value is not None},
            "strategy": strategy,
        },
    }


def _model(name: str, precision: str, cache: str | None) -> Json:
    model: Json = {"name": model_id(name)}
    if cache is not None:
        model["kvCache"] = cache
    if precision in ("bf16", "fp16"):
        model |= {"weights": precision, "config": {"quantization_config": None}}
    elif precision == "fp8":
        model |= {"weights": "fp8-block" if "deepseek" in name.lower() and "coder" not in name.lower() else "fp8"}
        model["config"] = {"quantization_config": None}
    elif precision == "fp4" and "gpt-oss" not in name:
        model |= {"weights": "nvfp4", "config": {"quantization_config": None}}
    return model


@cache
def model_id(name: str) -> str:
    """The catalogue's shortest id that begins as the source writes the model."""
    wanted = _plain(name)
    ids = [spelled for row in table("models")["models"] for spelled in (row["id"], *row.get("aliases", ()))]
    exact = [each for each in ids if _plain(each.rpartition("/")[2]) == wanted]
    near = [each for each in ids if _plain(each.rpartition("/")[2]).startswith(wanted)]
    found = exact or sorted(near, key=len)
    return found[0] if found else name


def _plain(text: str) -> str:
    return re.sub(r"meta-|[^a-z0-9]", "", text.lower())
