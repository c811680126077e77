"""Laws of the memory model, for any model of the catalogue, any strategy and any GPU."""

from dataclasses import replace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from builders import a_declaration, a_node, an_inventory
from shardgate.adapters.engines.table import engine_of
from shardgate.adapters.gpus import gpu_of
from shardgate.adapters.models.catalogue import Question, find_model
from shardgate.domain.engine import Engine, MemoryRules
from shardgate.domain.estimate import Estimate, difference, total
from shardgate.domain.memory import memory_of, visible_memory
from shardgate.domain.model import ModelArchitecture
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.strategy import ParallelStrategy
from shardgate.domain.units import GIBI, Bytes
from shardgate.domain.verdict import Outcome
from shardgate.domain.verify import verify
from shardgate.domain.weights import Load, weights_of

MODELS = [
    "meta-llama/Meta-Llama-3-8B", "meta-llama/Llama-3.2-1B-Instruct", "Qwen/Qwen2.5-14B-Instruct", "Qwen/Qwen3-30B-A3B",
    "deepseek-ai/DeepSeek-V2-Lite-Chat", "google/gemma-3-27b-it", "openai/gpt-oss-20b", "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct", "microsoft/phi-4", "ibm-granite/granite-3.1-8b-instruct",
]  # fmt: skip
LAYOUTS = ["bf16", "fp8", "fp8-block", "int8", "awq-int4", "gptq-int8", "bnb-int4", "nvfp4", "mxfp4"]
ENGINES = [("vllm", "0.7.3"), ("vllm", "0.15.1"), ("vllm", "0.19.0"), ("vllm", "0.30.0"), ("vllm", None), ("sglang", "0.5.5"), ("tensorrt-llm", "1.0")]  # fmt: skip


@st.composite
def loads(draw: st.DrawFn, *, tensor: int | None = None) -> Load:
    """A model in some layout, split in some way, under some engine."""
    found = find_model(
        Question(name=draw(st.sampled_from(MODELS)), config=None, weights=draw(st.sampled_from(LAYOUTS)), dtype=None)
    )
    assert isinstance(found.model, ModelArchitecture)
    strategy = ParallelStrategy(
        tensor=tensor or draw(st.sampled_from([1, 2, 3, 4, 8, 16])),
        pipeline=draw(st.integers(1, 4)),
        data=draw(st.integers(1, 4)),
        expert_parallel=draw(st.booleans()),
    )
    engine = engine_of(*draw(st.sampled_from(ENGINES)))[0]
    return Load(model=found.model, strategy=strategy, engine=engine, dtype=found.dtype, kv_cache_bits=16)


def rules_of(engine: Engine) -> MemoryRules:
    return engine.memory[0]


@given(loads())
def test_all_ranks_together_hold_at_least_the_model(load: Load) -> None:
    """Nothing is lost by splitting: replication and padding only add."""
    weights = weights_of(load, rules_of(load.engine))
    strategy = load.strategy
    ranks = strategy.tensor * strategy.data
    held = sum((stage.per_rank - stage.built) * ranks for stage in weights.stages)
    assert held >= weights.total - len(weights.stages)


@given(st.data(), st.sampled_from([1, 2, 4, 8]))
def test_doubling_the_tensor_width_never_raises_a_ranks_weights(data: st.DataObject, tensor: int) -> None:
    load = data.draw(loads(tensor=tensor))
    wider = replace(load, strategy=replace(load.strategy, tensor=2 * tensor))
    narrow, wide = (weights_of(each, rules_of(load.engine)).fullest.per_rank for each in (load, wider))
    assert wide <= narrow


@given(loads(), st.sampled_from(["activation_base", "non_torch_single", "non_torch_linked"]), st.floats(0, 8))
def test_tokens_fall_as_overheads_rise(load: Load, name: str, more_gib: float) -> None:
    rules = rules_of(load.engine)
    heavier = replace(rules, **{name: Estimate(*(figure + more_gib * GIBI for figure in getattr(rules, name)))})
    gpu = gpu_of("NVIDIA-H100-80GB-HBM3", None)
    seen = visible_memory(gpu)
    assert seen is not None
    weights = weights_of(load, rules)
    before, after = (memory_of(load, weights, each, gpu, seen).kv_tokens for each in (rules, heavier))
    assert all(less <= more + 1 for less, more in zip(after, before, strict=True))


LIMITS: dict[str, Any] = {"maxModelLen": 4096, "maxSequences": 64, "maxBatchedTokens": 4096}


@given(
    st.sampled_from(MODELS), st.sampled_from(ENGINES), st.sampled_from([1, 2, 4, 8]), st.floats(0.5, 0.98),
    st.integers(8 * 1024, 200 * 1024), st.integers(1, 64 * 1024),
)  # fmt: skip
def test_more_memory_never_makes_it_worse(
    model: str, engine: tuple[str, str | None], tensor: int, utilization: float, mib: int, more_mib: int
) -> None:
    """With the engine's limits given, a larger GPU of the same kind never turns Sound or Wasteful into Undecided or Unsound."""
    name, version = engine
    declared = a_declaration(
        model={"name": model, "weights": None},
        engine={"name": name, "version": version, "memoryUtilization": round(utilization, 3), **LIMITS},
        strategy={"tensor": tensor, "pipeline": 1}, gpus={"perPod": tensor},
    )  # fmt: skip
    outcomes = [
        verify(
            declared,
            an_inventory(a_node(labels={"nvidia.com/gpu.product": "Some-GPU", "nvidia.com/gpu.memory": str(size)})),
            OWN_KIND,
        )
        for size in (mib, mib + more_mib)
    ]
    before, after = (verdict.outcome for verdict in outcomes)
    assume(before <= Outcome.WASTEFUL)
    assert after <= Outcome.WASTEFUL


amounts = st.tuples(st.floats(0, 1e12), st.floats(0, 1e11), st.floats(0, 1e11)).map(
    lambda t: Estimate(t[0], t[0] + t[1], t[0] + t[1] + t[2])
)


@given(amounts, st.lists(amounts, max_size=5))
def test_uncertainty_adds_up_on_both_sides(whole: Estimate, parts: list[Estimate]) -> None:
    """Never less than that of the least certain part, never more than all errors together."""
    left = difference(whole, parts)
    slack = 1e-3 * (1 + abs(whole.value) + sum(part.value for part in parts))
    assert left.low <= left.value <= left.high
    assert left.value - left.low >= max([whole.value - whole.low, *(part.high - part.value for part in parts)]) - slack
    assert left.low >= whole.low - sum(part.high for part in parts) - slack
    together = total(parts)
    assert together.low - slack <= sum(part.value for part in parts) <= together.high + slack


@given(st.integers(1, 512 * 1024))
def test_what_an_engine_sees_is_never_more_than_what_the_label_says(mib: int) -> None:
    seen = visible_memory(gpu_of("Some-GPU", Bytes(mib * 2**20)))
    assert seen is not None
    assert 0 < seen.low <= seen.high <= mib * 2**20
