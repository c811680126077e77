from dataclasses import replace
from typing import Any

import pytest

from builders import a_declaration
from shardgate.adapters.engines.table import engine_of
from shardgate.adapters.gpus import gpu_of
from shardgate.adapters.models.catalogue import Question, find_model
from shardgate.domain.engine import Engine, Settings
from shardgate.domain.fitting import Fit, GpuFit, Weighed, fit_of
from shardgate.domain.inventory import Gpu
from shardgate.domain.memory import MemoryEstimate, memory_of, visible_memory
from shardgate.domain.model import ModelArchitecture
from shardgate.domain.strategy import ParallelStrategy
from shardgate.domain.units import GIBI, Bytes
from shardgate.domain.weights import Load, WeightsEstimate, weights_of

LLAMA_70B = "meta-llama/Meta-Llama-3-70B-Instruct"
H100 = gpu_of("NVIDIA-H100-80GB-HBM3", None)


def a_load(
    name: str, kind: str | None = None, engine: Engine | None = None, config: dict[str, Any] | None = None, **widths: Any
) -> Load:
    found = find_model(Question(name=name, config=config, weights=kind, dtype=None))
    assert isinstance(found.model, ModelArchitecture)
    engine = engine or engine_of("vllm", "0.19.0")[0]
    return Load(model=found.model, strategy=ParallelStrategy(**widths), engine=engine, dtype=found.dtype, kv_cache_bits=16)


def weights(name: str, kind: str | None = "fp16", **widths: Any) -> WeightsEstimate:
    return weights_of(a_load(name, kind, **widths), None)


def estimate(
    name: str, gpu: Gpu = H100, version: str = "0.19.0", settings: Settings | None = None, **widths: Any
) -> MemoryEstimate:
    engine = replace(engine_of("vllm", version)[0], settings=settings or Settings())
    load = a_load(name, None, engine, **widths)
    return on(load, gpu)


def on(load: Load, gpu: Gpu) -> MemoryEstimate:
    rules, seen = load.engine.memory[0], visible_memory(gpu)
    assert seen is not None
    return memory_of(load, weights_of(load, rules), rules, gpu, seen)


# ---- weights


def test_the_reference_report_weights() -> None:
    """141.1 GB in all, 36.3 GB on the outer stages, 17.1 to 18.2 GB on a rank: figures of the corrected report."""
    found = weights(LLAMA_70B, tensor=2, pipeline=4)
    assert found.parameters == 70_553_706_496
    assert found.total == 141_107_412_992
    assert [round(stage.total / 1e9, 1) for stage in found.stages] == [36.3, 34.2, 34.2, 36.3]
    assert [round(stage.per_rank / 1e9, 1) for stage in found.stages] == [18.2, 17.1, 17.1, 18.2]
    assert sum(stage.total for stage in found.stages) == found.total


def test_one_rank_holds_everything() -> None:
    found = weights("meta-llama/Meta-Llama-3-8B")
    assert found.fullest.per_rank == found.total == 16_060_522_496


def test_kv_heads_are_replicated_when_there_are_fewer_than_ranks() -> None:
    assert weights(LLAMA_70B, tensor=16).fullest.per_rank * 2 > weights(LLAMA_70B, tensor=8).fullest.per_rank


def test_a_tied_head_is_counted_once_on_one_stage_and_held_twice_over_several() -> None:
    tied = "meta-llama/Llama-3.2-1B-Instruct"
    one = weights(tied, "bf16")
    assert one.fullest.per_rank == one.total
    two = weights(tied, "bf16", pipeline=2)
    assert sum(stage.total for stage in two.stages) - two.total == 128_256 * 2048 * 2


def test_an_odd_vocabulary_is_padded_to_64_before_it_is_split() -> None:
    even = weights_of(a_load("meta-llama/Meta-Llama-3-8B", config={"vocab_size": 32_064}, tensor=2), None)
    odd = weights_of(a_load("meta-llama/Meta-Llama-3-8B", config={"vocab_size": 32_001}, tensor=2), None)
    assert odd.fullest.per_rank == even.fullest.per_rank
    assert odd.total == even.total - 2 * 63 * 4096 * 2


def test_experts_are_dealt_out_or_cut_and_attention_is_not_pooled() -> None:
    """Qwen3-30B-A3B: 128 experts of 4.7 M parameters in 48 layers; EP4 deals out 32 whole ones, TP4 cuts each."""
    name = "Qwen/Qwen3-30B-A3B"
    cut = weights(name, "bf16", tensor=4)
    dealt = weights(name, "bf16", tensor=4, expert_parallel=True)
    assert cut.fullest.per_rank == dealt.fullest.per_rank
    over_data = weights(name, "bf16", tensor=1, data=4, expert_parallel=True)
    assert over_data.fullest.per_rank > dealt.fullest.per_rank  # attention is whole on each data rank
    assert over_data.fullest.per_rank < weights(name, "bf16").fullest.per_rank / 3


def test_a_remainder_of_experts_goes_to_some_ranks() -> None:
    three = weights("Qwen/Qwen3-30B-A3B", "bf16", tensor=1, data=3, expert_parallel=True)
    experts = 48 * 43 * 3 * 2048 * 768 * 2
    assert three.fullest.per_rank > experts


def test_the_latents_projections_are_on_every_rank() -> None:
    """DeepSeek-V3: down-projections of 1536 and 576 outputs are replicated, up-projections are split."""
    eight, sixteen = (weights("deepseek-ai/DeepSeek-R1", "bf16", tensor=width) for width in (8, 16))
    replicated = 61 * 7168 * (1536 + 576) * 2
    assert sixteen.fullest.per_rank - replicated < (eight.fullest.per_rank - replicated) * 0.52
    assert sixteen.fullest.per_rank > eight.fullest.per_rank / 2 + replicated / 2


def test_attention_data_ranks_hold_attention_of_their_own() -> None:
    split = weights("deepseek-ai/DeepSeek-R1", "fp8-block", tensor=8)
    own = weights("deepseek-ai/DeepSeek-R1", "fp8-block", tensor=8, data=8, attention_data=True)
    assert own.fullest.per_rank > split.fullest.per_rank + 9 * GIBI


@pytest.mark.parametrize(
    ("name", "version", "widths", "printed_gib"),
    [
        ("meta-llama/Meta-Llama-3-8B", "0.7.0", {"tensor": 4}, 3.7418),
        ("meta-llama/Llama-3.1-8B-Instruct", "0.7.0", {"tensor": 4}, 3.7710),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "0.19.0", {"tensor": 2}, 43.51),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "0.19.0", {"tensor": 4}, 53.12),
        ("Qwen/Qwen3-30B-A3B", "0.19.0", {"tensor": 4}, 14.25),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", "0.19.0", {}, 29.43),
        ("microsoft/phi-4", "0.19.0", {}, 27.39),
    ],
)
def test_weights_are_what_engines_printed(name: str, version: str, widths: dict[str, int], printed_gib: float) -> None:
    """Sources: tests/data/memory_cases.json; rotary tables and absorbed matrices are part of what is printed."""
    engine = engine_of("vllm", version)[0]
    found = weights_of(a_load(name, None, engine, **widths), engine.memory[0])
    assert found.fullest.per_rank / GIBI == pytest.approx(printed_gib, rel=0.004)


@pytest.mark.parametrize(("version", "layers"), [("0.7.3", [20, 20, 21]), ("0.8.0", [20, 21, 20]), ("0.19.0", [20, 21, 20])])
def test_where_the_remainder_of_layers_goes(version: str, layers: list[int]) -> None:
    engine = engine_of("vllm", version)[0]
    found = weights_of(a_load("deepseek-ai/DeepSeek-R1", None, engine, pipeline=3), engine.memory[0])
    assert [len(stage.layers) for stage in found.stages] == layers


# ---- the budget


def test_a_budget_is_a_share_of_the_total_less_what_is_used() -> None:
    found = estimate("mistralai/Mixtral-8x7B-Instruct-v0.1", tensor=2, settings=Settings(utilization=0.95, max_model_len=8192))
    rank = found.fullest
    assert rank.kv_cache.value == pytest.approx(
        rank.budget.value - rank.weights.value - rank.activation.value - rank.overhead.value
    )
    assert rank.kv_cache.low < rank.kv_cache.value < rank.kv_cache.high
    assert rank.kv_cache.value / GIBI == pytest.approx(28.44, rel=0.01)


def test_the_sampler_runs_on_the_last_stage_only() -> None:
    found = estimate("Qwen/Qwen3-14B", pipeline=2, settings=Settings(max_model_len=8192))
    first, last = found.stages
    assert last.activation.value > 2 * first.activation.value


def test_graphs_come_out_of_the_budget_from_0_20_on() -> None:
    older, newer = (
        estimate("Qwen/Qwen3-14B", version=version, settings=Settings(utilization=0.9)) for version in ("0.19.0", "0.20.0")
    )
    assert newer.fullest.overhead.value - older.fullest.overhead.value > 0.5 * GIBI
    eager = estimate("Qwen/Qwen3-14B", version="0.20.0", settings=Settings(utilization=0.9, enforce_eager=True))
    assert eager.fullest.overhead.value == pytest.approx(older.fullest.overhead.value)


def test_the_defaults_of_a_version_and_a_gpu() -> None:
    """256 sequences below 70 GiB and on an A100, 1024 from there up: the sampler's trial run shows it."""
    settings = Settings(max_model_len=4096)
    large = estimate("Qwen/Qwen3-14B", settings=settings).fullest.activation.value
    a100 = estimate("Qwen/Qwen3-14B", gpu_of("NVIDIA-A100-SXM4-80GB", None), settings=settings).fullest.activation.value
    assert large > 2 * a100


def test_a_pool_of_a_given_size_ignores_the_fraction() -> None:
    found = estimate("Qwen/Qwen3-14B", settings=Settings(kv_cache=8 * GIBI))
    assert found.fullest.kv_cache.value == 8 * GIBI
    blocks = estimate("Qwen/Qwen3-14B", settings=Settings(kv_blocks=100))
    assert blocks.kv_tokens.value == 1600


def test_offloaded_weights_are_not_on_the_gpu() -> None:
    kept = estimate("Qwen/Qwen3-14B", settings=Settings(offload=10 * GIBI))
    assert kept.fullest.weights.value == pytest.approx(estimate("Qwen/Qwen3-14B").fullest.weights.value - 10 * GIBI)


def test_a_deficit_is_shown_never_clamped() -> None:
    found = estimate(LLAMA_70B)
    assert found.fullest.kv_cache.value < -60 * GIBI
    assert found.kv_tokens.value == 0


def test_concurrency_at_full_length() -> None:
    found = estimate("Qwen/Qwen3-14B", settings=Settings(max_model_len=1000, kv_blocks=630))
    assert found.concurrency_at_full_length is not None
    assert found.concurrency_at_full_length.value == pytest.approx(10.0)  # 63 blocks of 16 tokens each
    encoder = on(a_load("BAAI/bge-m3"), H100)
    assert encoder.concurrency_at_full_length is None  # it keeps nothing


def test_what_a_product_shows_is_not_what_its_label_says() -> None:
    seen = visible_memory(gpu_of("Some-New-GPU", Bytes(80 * GIBI)))
    assert seen is not None
    assert (80 * GIBI - seen.low, seen.high) == (3 * GIBI // 4, 80 * GIBI)
    measured = visible_memory(H100)
    assert measured is not None
    assert 79 * GIBI < measured.low <= measured.high < 79.5 * GIBI
    assert visible_memory(gpu_of("Some-New-GPU", None)) is None


def test_an_sglang_share_is_of_what_is_free_before_loading() -> None:
    """DeepSeek-R1 at TP8 on H200 with 0.82: about 509k tokens (AISIM 263)."""
    engine = replace(engine_of("sglang", "0.4.6")[0], settings=Settings(utilization=0.82))
    load = a_load("deepseek-ai/DeepSeek-R1", None, engine, tensor=8)
    found = on(load, gpu_of("NVIDIA-H200", None))
    assert found.kv_tokens.value == pytest.approx(509_000, rel=0.05)


def test_a_tensorrt_share_is_of_what_loading_leaves() -> None:
    engine = replace(engine_of("tensorrt-llm", "1.0")[0], settings=Settings(utilization=0.9, max_model_len=4096))
    load = a_load("meta-llama/Llama-2-70b-hf", "nvfp4", engine)
    found = on(load, gpu_of("NVIDIA-B200", None))
    assert found.fullest.kv_cache.value / GIBI == pytest.approx(122.6, rel=0.05)


# ---- versions that it could be


def test_an_unset_version_is_unfit_only_if_every_version_is() -> None:
    """Qwen3-14B on a 31 GB card: older versions' sampler leaves no room for the whole length, newer ones' does."""
    for version, fit in (("0.15.0", Fit.UNFIT), ("0.19.0", Fit.FITS)):
        declaration = a_declaration(
            model={"name": "Qwen/Qwen3-14B", "weights": "bf16"}, strategy={"tensor": 1, "pipeline": 1},
            engine={"version": version, "maxModelLen": 4096, "memoryUtilization": 0.95, "maxSequences": 1024},
        )  # fmt: skip
        weighed = Weighed.of(declaration)
        assert weighed is not None
        gpu = replace(gpu_of("Some-GPU", Bytes(int(33.4 * GIBI))), visible=None)
        assert fit_of(gpu, declaration, weighed).fit is fit


# ---- pools of a declared size, speculation, adapters, quantising while loading


def judged(args: list[str], gpu: Gpu, model: str = "meta-llama/Llama-3.1-8B-Instruct", tensor: int = 1, **engine: Any) -> GpuFit:
    declaration = a_declaration(
        model={"name": model, "weights": None}, strategy={"tensor": tensor, "pipeline": 1},
        engine={"name": "vllm", "version": "0.19.0", "args": args, **engine},
    )  # fmt: skip
    weighed = Weighed.of(declaration)
    assert weighed is not None
    return fit_of(gpu, declaration, weighed)


L4 = gpu_of("NVIDIA-L4", None)


@pytest.mark.parametrize(
    ("args", "fit"),
    [
        (["--kv-cache-memory-bytes", "60G"], Fit.UNFIT),
        (["--num-gpu-blocks-override", "200000"], Fit.UNFIT),
        (["--kv-cache-memory-bytes", "4G", "--max-model-len", "8192"], Fit.FITS),
    ],
)
def test_a_pool_of_a_given_size_is_held_against_the_gpu(args: list[str], fit: Fit) -> None:
    assert judged(args, L4).fit is fit


@pytest.mark.parametrize(
    ("speculation", "gpu", "fit"),
    [
        ('{"method": "draft_model", "model": "meta-llama/Llama-3.1-8B-Instruct"}', L4, Fit.UNFIT),  # two of them: 30 of 22 GiB
        ('{"model": "me/draft"}', H100, Fit.TIGHT),  # of any size
        ('{"method": "eagle3", "model": "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B"}', H100, Fit.FITS),
        ('{"method": "ngram"}', H100, Fit.FITS),
    ],
)
def test_what_speculation_loads(speculation: str, gpu: Gpu, fit: Fit) -> None:
    assert judged(["--speculative-config", speculation], gpu).fit is fit


def test_a_head_takes_more_than_nothing_and_caches_too() -> None:
    plain, eagle = (judged(args, H100).estimate for args in ([], ["--speculative-config", '{"method": "eagle", "model": "a/b"}']))
    assert plain is not None
    assert eagle is not None
    assert eagle.fullest.weights.high > plain.fullest.weights.high
    assert eagle.kv_tokens.value < plain.kv_tokens.value


def test_adapters_cover_experts_from_0_11_1_on() -> None:
    args = ["--enable-lora", "--max-loras", "8", "--max-lora-rank", "256"]
    old, new = (judged(args, H100, "Qwen/Qwen3-30B-A3B", 2, version=version).estimate for version in ("0.11.0", "0.19.0"))
    assert old is not None
    assert new is not None
    assert new.fullest.weights.value - old.fullest.weights.value > 150 * GIBI


def test_a_flag_quantises_while_loading() -> None:
    found = judged(["--quantization", "fp8", "--max-model-len", "4096"], gpu_of("NVIDIA-L40S", None), "Qwen/Qwen2.5-32B-Instruct")
    assert found.fit is Fit.FITS
    assert found.estimate is not None
    assert found.estimate.fullest.weights.value / GIBI == pytest.approx(32, rel=0.02)


def test_experts_in_mxfp4_may_be_padded() -> None:
    load = a_load("openai/gpt-oss-120b")
    found = on(load, H100).fullest.weights
    assert found.high - found.value > 5 * GIBI
    assert found.value - found.low < 3 * GIBI


def test_data_ranks_of_a_mixture_communicate() -> None:
    alone, together = (
        on(a_load("deepseek-ai/DeepSeek-V3", data=data, expert_parallel=True), gpu_of("NVIDIA-H200", None)) for data in (1, 8)
    )
    assert together.fullest.overhead.value > alone.fullest.overhead.value + GIBI
