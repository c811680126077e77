"""What vLLM engines say of their KV cache (``vllm:cache_config_info``), beside what is predicted for them.

An engine of which something is not known, or that runs with other settings than it declares, is left out with the reason:
a comparison with something else would say nothing of the prediction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardgate.adapters.models.quantization import UNQUANTISED
from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.domain.calibration import Comparison, engine_version_of
from shardgate.domain.declaration import Declaration
from shardgate.domain.fitting import Weighed, fit_of
from shardgate.domain.inventory import Gpu, Sharing
from shardgate.domain.memory import MemoryEstimate

METRIC = "vllm:cache_config_info"
"""Its labels are vLLM's CacheConfig as it stands after the trial run; its value is always 1."""
UTILIZATION_DIGITS = 3
MOST_SERIES = 5000
MOST_BLOCKS = 2**40
MOST_DIGITS = 13
"""Of ``MOST_BLOCKS``; longer text is not made a number of."""
MOST_TOKENS = 2**53
"""Beyond this a JSON number is not exact; far below what the CapacityLedger's int64 takes."""


class UnreadableAnswer(ValueError):
    """What Prometheus answered is no instant vector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSeries:
    """One engine, as Prometheus tells of it."""

    namespace: str
    pod: str
    labels: Mapping[str, str]


def series_in(answer: Any) -> list[CacheSeries]:
    """Of the answer to an instant query; series that name no pod are left out. Raises ``UnreadableAnswer``."""
    body = mapping(answer)
    data = mapping(body.get("data"))
    if body.get("status") != "success" or data.get("resultType") != "vector":
        problem = f"status {body.get('status')!r}, {body.get('error') or data.get('resultType') or 'no data'}"
        raise UnreadableAnswer(problem)
    found = []
    for each in dicts(data.get("result"))[:MOST_SERIES]:
        labels = {str(name): str(value) for name, value in mapping(each.get("metric")).items()}
        namespace, pod = labels.get("namespace", ""), labels.get("pod", "")
        if namespace and pod:
            found.append(CacheSeries(namespace=namespace, pod=pod, labels=labels))
    return found


def compared(series: CacheSeries, declaration: Declaration, gpu: Gpu) -> Comparison | str:
    """What was predicted for this engine on this GPU beside what it has; or why that cannot be said."""
    labels = series.labels
    blocks, block_tokens = _count(labels.get("num_gpu_blocks")), _count(labels.get("block_size"))
    if blocks is None or block_tokens is None:
        return f"{METRIC} does not tell num_gpu_blocks and block_size"
    obstacle = _differs(labels, declaration)
    if obstacle:
        return obstacle
    estimate = _estimate(declaration, gpu)
    if isinstance(estimate, str):
        return estimate
    groups = min(len(rank.layout.groups) for rank in estimate.stages)
    measured = blocks // max(groups, 1) * block_tokens * estimate.fullest.layout.widths
    if not measured:
        return "it holds no token"
    if measured > MOST_TOKENS:
        return "no engine holds as many tokens as it tells of"
    version = engine_version_of(declaration.engine)
    return Comparison(engine_version=version, product=gpu.product or "", predicted=_predicted(estimate), measured=measured)


def _differs(labels: Mapping[str, str], declaration: Declaration) -> str:
    """In what an engine is not what its declaration says, or is given what would be predicted; empty where neither."""
    if declaration.engine.name != "vllm":
        return f"its declaration is of {declaration.engine.name}"
    if _is_given(labels.get("num_gpu_blocks_override")) or _is_given(labels.get("kv_cache_memory_bytes")):
        return "its KV cache was given a size: nothing is predicted"
    declared, runs_with = declaration.engine.settings.utilization, _number(labels.get("gpu_memory_utilization"))
    if declared is not None and runs_with is not None and round(declared - runs_with, UTILIZATION_DIGITS):
        return f"it runs with gpu_memory_utilization {runs_with:g}, {declared:g} is declared"
    return _caches_otherwise(labels.get("cache_dtype"), declaration)


_CACHE_BITS = {"bfloat16": 16, "float16": 16, "half": 16, "float32": 32, "float": 32}
"""vLLM's words for an element of the KV cache, besides ``auto`` and those that begin with ``fp8``."""


def _caches_otherwise(runs_with: str | None, declaration: Declaration) -> str:
    """Elements of another size hold another number of tokens; an old engine may say nothing of them."""
    if not _is_given(runs_with) or runs_with is None:
        return ""
    bits = 8 if runs_with.startswith("fp8") else _CACHE_BITS.get(runs_with)
    if runs_with == "auto":
        bits = UNQUANTISED.get(declaration.dtype)
    if bits is None:
        return "its cache_dtype is none that is known"
    if bits == declaration.kv_cache_bits:
        return ""
    name = "fp8" if bits == 8 else runs_with  # noqa: PLR2004  # one reason for all forms of it
    return f"it runs with cache_dtype {name}, {declaration.kv_cache} is declared"


def _estimate(declaration: Declaration, gpu: Gpu) -> MemoryEstimate | str:
    """Or why there is none."""
    if gpu.product is None or gpu.sharing is not Sharing.NONE or gpu.alternatives:
        return "it is not known what its GPU is, or it has only a part of it"
    weighed = Weighed.of(declaration)
    estimate = None if weighed is None else fit_of(gpu, declaration, weighed).estimate
    if estimate is None or estimate.is_pool_given or estimate.has_unknown_draft or declaration.is_memory_uncertain:
        return "its memory is not modelled, or something that it is declared with is not"
    return estimate


def _predicted(estimate: MemoryEstimate) -> int:
    """Counted as blocks are: every rank of vLLM makes as many as the one with the least room."""
    return min(rank.layout.tokens(rank.kv_cache.value) for rank in estimate.stages)


def _count(text: str | None) -> int | None:
    if text is None or not text.isdecimal() or len(text) > MOST_DIGITS:
        return None
    return int(text) if 0 < int(text) < MOST_BLOCKS else None


def _is_given(text: str | None) -> bool:
    return text not in (None, "", "None")


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def left_out_text(left_out: Sequence[str], most: int = 3) -> str:
    """The reasons, each with how many engines it kept out, the commonest first."""
    counted = sorted({why: left_out.count(why) for why in left_out}.items(), key=lambda each: (-each[1], each[0]))
    more = f"; {len(counted) - most} more reasons" if len(counted) > most else ""
    return "; ".join(f"{number} because {why}" for why, number in counted[:most]) + more
