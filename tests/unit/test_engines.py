"""Versions, rules and memory rows of engines."""

import pytest

from shardgate.adapters.engines.arguments import generation_of, read_arguments
from shardgate.adapters.engines.table import engine_of
from shardgate.adapters.engines.versions import release, span_of
from shardgate.adapters.tables import table
from shardgate.domain.engine import BudgetBasis, Holds, LoraSlots, Settings, StaticReserve, StepBySize
from shardgate.domain.units import GIBI

# ---- versions


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.19.0", (0, 19)), ("v0.8.5.post1", (0, 8, 5)), ("0.15.2rc1.dev93", (0, 15, 2)), ("1.3", (1, 3)), ("0", (0,))],
)
def test_versions_compare_by_their_release(text: str, expected: tuple[int, ...]) -> None:
    assert release(text) == expected


def test_ten_is_more_than_nine() -> None:
    assert release("0.10.0") > release("0.9.2")


def test_what_a_version_could_be() -> None:
    any_version, understood = span_of(None, "0.31")
    assert understood
    assert any_version.within((0,), (0, 32))
    series, _ = span_of("0.7.x", "0.31")
    assert series.within((0, 7), (0, 8))
    assert series.meets((0, 7, 3), (0, 9))
    assert not series.meets((0, 8), (0, 9))
    exact, _ = span_of("0.19.0", "0.31")
    assert exact.is_one
    assert exact.within((0, 18), (0, 20))
    assert not exact.within((0, 18), (0, 19))
    assert span_of("nightly", "0.31") == (any_version, False)


# ---- rules


@pytest.mark.parametrize(
    ("version", "rule", "holds"),
    [
        ("0.19.0", "heads", Holds.YES),
        (None, "heads", Holds.YES),
        ("99.0", "heads", Holds.YES),  # part of the design
        ("0.19.0", "quantisationBlocks", Holds.YES),
        (None, "quantisationBlocks", Holds.IN_SOME_VERSIONS),
        ("99.0", "quantisationBlocks", Holds.NOT_CONFIRMED),
        ("0.6.0", "quantisationBlocks", None),
        ("0.5.0", "pipelineUnsupported", Holds.YES),
        ("0.5.1", "pipelineUnsupported", None),
        ("0.8.5", "quantisationGroupsOfExperts", Holds.YES),
        ("0.19.0", "quantisationGroupsOfExperts", Holds.NOT_CONFIRMED),
        ("0.7.x", "bfloat16ByDefault", Holds.YES),
        ("0.19.0", "bfloat16ByDefault", None),
    ],
)
def test_a_rule_holds_for_versions(version: str | None, rule: str, holds: Holds | None) -> None:
    found = engine_of("vllm", version)[0].rules.get(rule)
    assert (found.holds if found else None) is holds


def test_every_rule_says_what_a_user_would_meet_and_where_it_was_read() -> None:
    for row in table("engine_rules")["rules"]:
        assert row["message"]
        assert row["source"]
        assert row["engine"] in ("vllm", "sglang", "tensorrt-llm", "lmdeploy", "tgi", "nim")


def test_an_unknown_engine_has_no_rules() -> None:
    engine, _ = engine_of("other", None)
    assert (engine.known, engine.rules, engine.memory) == (False, {}, ())


# ---- memory


@pytest.mark.parametrize(
    ("version", "copies", "utilization", "budgeted", "grouped"),
    [
        ("0.7.3", 9.7, 0.9, False, False),
        ("0.15.1", 9.6, 0.9, False, True),
        ("0.19.0", 3.65, 0.9, False, True),
        ("0.20.0", 3.65, 0.92, True, True),
        ("0.30.0", 2.0, 0.92, True, True),
    ],
)
def test_memory_follows_the_version(version: str, copies: float, utilization: float, budgeted: bool, grouped: bool) -> None:
    rules = engine_of("vllm", version)[0].memory[0]
    assert rules.sampler_copies.value == copies
    assert rules.utilization_low == utilization
    assert (rules.are_graphs_budgeted, rules.groups_hybrid_layers) == (budgeted, grouped)


def test_a_version_with_two_engines_could_be_either_unless_the_variable_says() -> None:
    both = engine_of("vllm", "0.8.5")[0].memory
    assert [rules.sequences.large for rules in both] == [1024, 256]
    assert [rules.sequences.large for rules in engine_of("vllm", "0.8.5", "V0")[0].memory] == [256]
    assert generation_of({"VLLM_USE_V1": "0"}) == "V0"
    assert generation_of({}) is None


def test_an_unset_version_could_be_any_and_figures_are_the_newests() -> None:
    memory = engine_of("vllm", None)[0].memory
    assert "0.29" in memory[0].versions
    assert len(memory) > 10


def test_a_newer_version_than_was_read_takes_the_newest_figures_and_says_so() -> None:
    engine, _ = engine_of("vllm", "2.0")
    assert engine.is_newer_than_known
    assert len(engine.memory) == 1


def test_bases_of_the_fraction() -> None:
    bases = {name: engine_of(name, None)[0].memory[0].basis for name in ("vllm", "sglang", "tensorrt-llm")}
    assert list(bases.values()) == [BudgetBasis.TOTAL, BudgetBasis.STATIC, BudgetBasis.FREE_AFTER_LOAD]
    for name in ("lmdeploy", "tgi", "nim"):
        assert engine_of(name, None)[0].memory == ()


def test_sglangs_default_share() -> None:
    """H100 (81,559 MiB) at TP1: 512 + 1.5 x 8192 + 2 x 256 + 128 MiB reserved, so 0.835."""
    reserve = engine_of("sglang", "0.5.5")[0].memory[0].reserve
    assert reserve is not None
    assert reserve.fraction(81_559, 1, 1, 0) == pytest.approx(0.835, abs=0.001)
    assert reserve.fraction(81_559, 8, 1, 8) < 0.7
    least = StaticReserve(steps=(StepBySize(up_to_mib=1e12, chunk_tokens=2048, graph_batch=8, graph_batch_wide=8),))
    assert least.fraction(80_000, 1, 1, 0) == pytest.approx(1 - 10_240 / 80_000)


# ---- flags


@pytest.mark.parametrize(
    "arguments",
    [["--tensor-parallel-size", "4"], ["--tensor-parallel-size=4"], ["--tensor_parallel_size=4"], ["-tp", "4"], ["-tp=2", "-tp=4"]],
)
def test_spellings_of_a_flag(arguments: list[str]) -> None:
    assert read_arguments("vllm", arguments, {}).fields == {"strategy.tensor": 4}


@pytest.mark.parametrize(
    ("engine", "arguments", "fields"),
    [
        ("vllm", ["--max-model-len", "8k"], {"engine.maxModelLen": 8000}),
        ("vllm", ["--max-model-len=8K"], {"engine.maxModelLen": 8192}),
        ("vllm", ["--max-model-len", "-1"], {"engine.maxModelLen": -1}),
        ("vllm", ["--max-model-len=auto"], {"engine.maxModelLen": -1}),
        ("vllm", ["--enable-expert-parallel", "--enforce-eager"], {"strategy.expertParallel": True, "engine.enforceEager": True}),
        ("vllm", ["--data-parallel-rank", "3"], {"strategy.loadBalancing": "external"}),
        ("vllm", ["--kv-cache-dtype", "fp8_e5m2", "--dtype=half"], {"model.kvCache": "fp8", "model.dtype": "fp16"}),
        ("vllm", ["--enforce-eager", "--no-enforce-eager"], {}),
        (
            "sglang",
            ["--tp", "8", "--enable-dp-attention", "--dp=8"],
            {"strategy.tensor": 8, "strategy.attentionData": True, "strategy.data": 8},
        ),
        ("tensorrt-llm", ["--tp_size", "4", "--ep_size=2"], {"strategy.tensor": 4, "strategy.expert": 2}),
        ("tgi", ["--num-shard", "2"], {"strategy.tensor": 2}),
        ("vllm", ["serve", "Qwen/Qwen3-8B", "--port", "8000"], {"model.name": "Qwen/Qwen3-8B"}),
        ("tensorrt-llm", ["Qwen/Qwen3-8B", "--tp_size=2"], {"model.name": "Qwen/Qwen3-8B", "strategy.tensor": 2}),
        ("sglang", ["--chunked-prefill-size", "-1"], {"engine.maxBatchedTokens": None}),
    ],
)
def test_flags_set_fields_of_the_spec(engine: str, arguments: list[str], fields: dict[str, object]) -> None:
    read = read_arguments(engine, arguments, {})
    assert read.fields == fields
    assert not read.opaque


def test_variables_count_where_the_flag_does_not() -> None:
    read = read_arguments("vllm", [], {"VLLM_PP_LAYER_PARTITION": "20,20,20,20"})
    assert read.fields == {"strategy.layersPerStage": [20, 20, 20, 20]}
    assert read_arguments("vllm", ["-dp=2"], {"VLLM_DP_SIZE": "4"}).fields == {"strategy.data": 2}


def test_settings_that_only_flags_have() -> None:
    arguments = [
        "--cpu-offload-gb=10", "--kv-cache-memory-bytes", "8G", "--block-size=32", "--enable-lora", "--max-loras=4",
        "--max-lora-rank", "64", "--disable-hybrid-kv-cache-manager", "--limit-mm-per-prompt", '{"image": 0, "video": 0}',
        "--enable-eplb",
    ]  # fmt: skip
    settings = read_arguments("vllm", arguments, {}).over(Settings())
    assert (settings.offload, settings.kv_cache, settings.block_tokens) == (10 * GIBI, 8 * GIBI, 32)
    assert settings.lora == LoraSlots(slots=4, rank=64)
    assert (settings.groups_hybrid_layers, settings.is_text_only) == (False, True)
    assert settings.balances_experts


@pytest.mark.parametrize("flag", ["--kv-transfer-config={}", "--hf-overrides", "--performance-mode=throughput"])
def test_what_bears_on_memory_and_is_not_modelled_is_named(flag: str) -> None:
    assert read_arguments("vllm", [flag], {}).over(Settings()).unmodelled


@pytest.mark.parametrize(
    "flag",
    [
        "--no-such-flag",
        "--tensor-parallel-size=two",
        "--cpu-offload-gb=x",
        "--max-model-len=1e999G",
        "--kv-cache-dtype=float32",
        "--block-size=-16",
        "--max-loras=-5",
        "--cpu-offload-gb=-50",
        f"--max-lora-rank={'9' * 400}",
        f"--kv-cache-memory-bytes={'9' * 400}",
        f"--speculative-config={'[' * 100_000}",
    ],
)
def test_what_is_not_known_or_not_read_is_kept_and_named(flag: str) -> None:
    (told,) = read_arguments("vllm", [flag], {}).opaque
    assert flag.split("=", maxsplit=1)[0] in told


def test_flags_are_of_one_meaning_each() -> None:
    for engine, rows in table("engine_flags")["engines"].items():
        names = [name for row in rows["flags"] for name in row["names"]] + rows["bearing"] + rows["harmless"]
        assert len(names) == len(set(names)), (engine, [name for name in names if names.count(name) > 1])
