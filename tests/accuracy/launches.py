"""A recorded launch -> the declaration and the GPUs that it was made with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from shardgate.adapters.gpus import gpu_of
from shardgate.adapters.models.catalogue import is_known, positions_of
from shardgate.adapters.referred_workloads import read_declaration
from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import Gpu, Visible
from shardgate.domain.units import GIBI, Bytes

Json = dict[str, Any]

GPU_NAMES: tuple[tuple[str, str], ...] = (
    (r"H100.*PCIe", "H100-PCIe"),
    (r"H100.*NVL", "H100-NVL"),
    (r"H100(?!.*64)", "H100-80GB-HBM3"),
    (r"H200", "H200"),
    (r"H20-3e", "H20-3e"),
    (r"H20\b", "H20"),
    (r"B200", "B200"),
    (r"A100.*40", "A100-SXM4-40GB"),
    (r"A100", "A100-SXM4-80GB"),
    (r"A800", "A800-SXM4-80GB"),
    (r"MI300X", "AMD_Instinct_MI300X_OAM"),
    (r"L40S", "L40S"),
    (r"L40\b", "L40"),
    (r"L4\b", "L4"),
    (r"A10G", "A10G"),
    (r"A10\b", "A10"),
    (r"T4\b", "Tesla-T4"),
    (r"V100.*32", "Tesla-V100-SXM2-32GB"),
    (r"V100", "Tesla-V100-SXM2-16GB"),
    (r"3090", "GeForce-RTX-3090"),
    (r"4090", "GeForce-RTX-4090"),
    (r"5090", "GeForce-RTX-5090"),
    (r"5080", "GeForce-RTX-5080"),
)
"""How people write GPUs in issues, and the product that labels name."""

NOMINAL_SHARE = (0.92, 0.998)
"""CUDA total over the nominal size taken as GiB, over all products that were measured."""

WEIGHTS: tuple[tuple[str, str], ...] = (
    (r"nvfp4", "nvfp4"),
    (r"mxfp4", "mxfp4"),
    (r"bitsandbytes|bnb", "bnb-int4"),
    (r"int8|w8a8|w8a16", "int8"),
    (r"gptq.*8|8.*gptq", "gptq-int8"),
    (r"awq|moe_wna16", "awq-int4"),
    (r"gptq", "gptq-int4"),
    (r"w4a16|int4", "compressed-int4"),
    (r"fp8.*block|block.*fp8", "fp8-block"),
    (r"fp8", "fp8"),
)
"""How people write quantisation, and the layout's name."""

DTYPES = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32"}


class UnreadableCaseError(ValueError):
    """A case that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What was launched, and on what."""

    declaration: Declaration
    gpu: Gpu
    gpus: int
    is_split_known: bool
    """Whether the tensor and pipeline widths are stated, or follow from a single GPU."""


def read_launch(case: Json) -> Launch:
    """Raises ``UnreadableCaseError``."""
    try:
        declaration = read_declaration(_body(case))
        known = case.get("n_gpus") == 1 or (case.get("tp") is not None and case.get("pp") is not None)
        return Launch(declaration=declaration, gpu=_gpu(case), gpus=_gpus(case), is_split_known=known)
    except ExceptionGroup as problems:
        raise UnreadableCaseError("; ".join(str(each) for each in problems.exceptions)) from None
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        raise UnreadableCaseError(f"{type(problem).__name__}: {problem}") from None


def _gpus(case: Json) -> int:
    if case.get("n_gpus"):
        return int(case["n_gpus"])
    dp = 1 if _is_attention_data(case) else case.get("dp") or 1
    return int((case.get("tp") or 1) * (case.get("pp") or 1) * dp)


def _is_attention_data(case: Json) -> bool:
    """SGLang's data ranks that split the tensor group: they take no GPUs of their own."""
    tp, pp, dp = case.get("tp") or 1, case.get("pp") or 1, case.get("dp") or 1
    return "sglang" in str(case["engine"]) and dp > 1 and case.get("n_gpus") == tp * pp


def _body(case: Json) -> Json:
    engine, environment, version = _engine(case)
    strategy: Json = {"tensor": case.get("tp") or 1, "pipeline": case.get("pp") or 1, "data": case.get("dp") or 1}
    if _is_attention_data(case):
        strategy["attentionData"] = True
    if case.get("ep") is True:
        if engine == "vllm":
            strategy["expertParallel"] = True
        else:
            strategy["expert"] = strategy["tensor"]
    strategy |= _told_of_split(case)
    stated = {
        "name": engine,
        "version": version,
        "environment": environment or None,
        "maxModelLen": case.get("max_model_len"),
        "maxSequences": case.get("max_num_seqs"),
        "maxBatchedTokens": case.get("max_num_batched_tokens"),
        "memoryUtilization": case.get("gpu_memory_utilization"),
        "enforceEager": case.get("enforce_eager"),
        "args": _arguments(case) if engine == "vllm" else None,
    }
    return {
        "apiVersion": "shardgate.io/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": "launch", "namespace": "accuracy"},
        "spec": {
            "model": _model(case),
            "engine": {key: value for key, value in stated.items() if value is not None},
            "strategy": strategy,
        },
    }


def _told_of_split(case: Json) -> Json:
    """What only a field of this repository's own, or the notes of a file, say of the split."""
    notes = str(case.get("notes") or "")
    told: Json = {}
    context = case.get("decode_context") or _first(r"decode_context_parallel_size ?= ?(\d+)", notes)
    if context:
        told["decodeContext"] = int(context)
    partition = case.get("layers_per_stage") or _first(r"VLLM_PP_LAYER_PARTITION=(\d+(?:,\d+)*)", notes)
    if partition and case.get("pp"):
        layers = [int(each) for each in (partition.split(",") if isinstance(partition, str) else partition)]
        if len(layers) == case["pp"]:
            told["layersPerStage"] = layers
    return told


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1] if found else None


UNSLOTH_LORA_RANK = 32
"""Unsloth starts vLLM with adapter slots unless told otherwise; its notebooks use ranks of 16 to 64."""


def _lora_rank(case: Json) -> int | None:
    """Of adapter slots that the launch allocates: as stated, as the notes say, or as its launcher does by itself."""
    notes = str(case.get("notes") or "")
    if case.get("lora_rank") is not None or "No LoRA" in notes:
        return case.get("lora_rank")
    by_unsloth = str(case.get("source_group") or "").startswith("unsloth")
    return UNSLOTH_LORA_RANK if by_unsloth or "LoRA enabled" in notes else None


def _arguments(case: Json) -> list[str] | None:
    arguments = ["--block-size", str(case["block_size"])] if case.get("block_size") else []
    rank = _lora_rank(case)
    if rank:
        arguments += ["--enable-lora", "--max-lora-rank", str(rank)]
    return arguments or None


def _engine(case: Json) -> tuple[str, dict[str, str], str | None]:
    """(engine, environment, version): forks of vLLM count as vLLM of a version that is not known."""
    text = str(case.get("engine_version") or "")
    name = str(case["engine"])
    known = next(
        (each for each in ("vllm", "sglang", "tensorrt-llm", "lmdeploy", "tgi", "nim") if name.lower().startswith(each)), None
    )
    environment = {}
    if "(V0" in text or "V0 engine" in text:
        environment["VLLM_USE_V1"] = "0"
    elif "(V1" in text or "V1 engine" in text or ", V1" in text:
        environment["VLLM_USE_V1"] = "1"
    found = re.search(r"\d+\.\d+(\.(\d+|x))?(rc\d+|\.post\d+|\.dev\d*)*", text)
    version = found.group() if found and known == name.lower() else None
    if known is None and "vllm" in name.lower():
        known = "vllm"
    return known or "other", environment if known == "vllm" else {}, version


def _model(case: Json) -> Json:
    """The checkpoint by its own id where the catalogue has it, else its architecture with the weights as told."""
    checkpoint, told = case.get("model_id"), case.get("quantization")
    model: Json = {"name": checkpoint}
    known, quantised = is_known(checkpoint) if isinstance(checkpoint, str) else (False, False)
    if not known:
        model["name"] = case.get("arch_key") or checkpoint or "not stated"
    if not known and told is None and case.get("arch_key"):
        model["config"] = {"quantization_config": None}
        model["weights"] = DTYPES.get(str(case.get("dtype")))
    elif told is not None and not quantised:
        model |= _weights(str(told), model["name"])
    if not known and case.get("max_model_len") and case.get("arch_key"):
        # The record is of another checkpoint of these shapes: how far this one's positions reach is not told.
        model["config"] = {
            **model.get("config", {}),
            "max_position_embeddings": max(case["max_model_len"], positions_of(model["name"])),
        }
    if case.get("dtype") in DTYPES:
        model["dtype"] = DTYPES[case["dtype"]]
    cache = str(case.get("kv_cache_dtype") or "auto")
    model["kvCache"] = "fp8" if cache.startswith("fp8") else DTYPES.get(cache, "auto")
    return {key: value for key, value in model.items() if value is not None}


def _weights(told: str, name: str) -> Json:
    text = told.lower()
    layout = next((layout for pattern, layout in WEIGHTS if re.search(pattern, text)), None)
    if layout is None:
        return {"config": {"quantization_config": {"quant_method": text.split()[0]}}}
    group = re.search(r"group[ _-]?(size)?[ =]*(\d+)", text)
    if group and layout in ("gptq-int4", "awq-int4"):
        method = layout.split("-", maxsplit=1)[0]
        return {"config": {"quantization_config": {"quant_method": method, "bits": 4, "group_size": int(group[2])}}}
    if "fbgemm" in text and "405B" in name:
        return {"name": "meta-llama/Llama-3.1-405B-Instruct-FP8"}
    if is_known(name)[1] and any(word in text for word in ("modelopt", "qat", "native")):
        return {}  # the checkpoint's own quantization_config, which the catalogue has
    return {"weights": layout, "config": {"quantization_config": None}}


def _gpu(case: Json) -> Gpu:
    text = str(case.get("gpu") or "")
    product = next((product for pattern, product in GPU_NAMES if re.search(pattern, text)), None)
    if "modded" in text or " + " in text:
        product = None
    gpu = gpu_of(product, None)
    seen = case.get("gpu_memory_total_gib")
    if seen is not None:
        total = Bytes(int(float(seen) * GIBI))
        return _with(gpu, Visible(low=total, high=total, source="printed"), total)
    nominal = case.get("gpu_memory_nominal_gb")
    if gpu.memory is None and nominal is not None:
        low, high = (Bytes(int(float(nominal) * share * GIBI)) for share in NOMINAL_SHARE)
        return _with(gpu, Visible(low=low, high=high, source="nominal"), high)
    return gpu


def _with(gpu: Gpu, visible: Visible, memory: Bytes) -> Gpu:
    return Gpu(
        product=gpu.product or "GPU", memory=gpu.memory or memory, visible=visible, source="case",
        compute_capability=gpu.compute_capability, has_nvlink=gpu.has_nvlink,
    )  # fmt: skip
