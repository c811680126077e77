"""Catalogue, config.json, names."""

import contextlib
import json
from typing import Any

import pytest

from shardgate.adapters.models.catalogue import Found, Profile, Question, find_model
from shardgate.adapters.tables import table
from shardgate.domain.declaration import ModelUnknown
from shardgate.domain.model import CacheKind, ModelArchitecture, Part

ENTRIES = table("models")["models"]
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "torch_dtype": "bfloat16",
}  # fmt: skip


def found(name: str, config: dict[str, Any] | None = None, weights: str | None = None, **profiles: Any) -> Found:
    return find_model(Question(name=name, config=config, weights=weights, dtype=None), **profiles)


def architecture(name: str, config: dict[str, Any] | None = None, weights: str | None = None) -> ModelArchitecture:
    model = found(name, config, weights).model
    assert isinstance(model, ModelArchitecture), model
    return model


def mistakes(config: dict[str, Any]) -> list[str]:
    with pytest.raises(ExceptionGroup) as raised:
        found("acme/x", config)
    return [str(each) for each in raised.value.exceptions]


# ---- the catalogue


@pytest.mark.parametrize("entry", [each for each in ENTRIES if each["publishedParameters"]], ids=lambda entry: entry["id"])
def test_parameter_totals_are_the_published_ones(entry: dict[str, Any]) -> None:
    model = found(entry["id"]).model
    if isinstance(model, ModelUnknown):
        assert "is not modelled" in model.problem
        return
    assert abs(model.parameters / entry["publishedParameters"] - 1) < 0.001


def test_most_of_the_catalogue_is_modelled() -> None:
    unknown = [entry["id"] for entry in ENTRIES if isinstance(found(entry["id"]).model, ModelUnknown)]
    assert len(ENTRIES) - len(unknown) > 300


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["id"])
def test_every_entry_names_its_source(entry: dict[str, Any]) -> None:
    assert entry["source"]
    assert entry["config"]["architectures"]
    assert all(isinstance(alias, str) for alias in entry["aliases"])
    assert not found(entry["id"]).opaque


def test_names_are_unique() -> None:
    names = [name.lower() for entry in ENTRIES for name in (entry["id"], *entry["aliases"])]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "same_as", "weights"),
    [
        ("/models/Qwen3-8B", "Qwen/Qwen3-8B", "bf16"),
        ("/models/Qwen3-8B/", "Qwen/Qwen3-8B", "bf16"),
        ("s3://bucket/llms/Qwen3-8B", "Qwen/Qwen3-8B", "bf16"),
        ("someone/Meta-Llama-3-70B-Instruct-AWQ", "meta-llama/Meta-Llama-3-70B-Instruct", "awq-int4"),
        ("neuralmagic/Qwen2.5-7B-Instruct-quantized.w8a8", "Qwen/Qwen2.5-7B-Instruct", "int8"),
        ("x/Llama-3.3-70B-Instruct-FP8-dynamic", "meta-llama/Llama-3.3-70B-Instruct", "fp8"),
        ("unsloth/DeepSeek-R1-BF16", "deepseek-ai/DeepSeek-R1", "bf16"),
        ("unsloth/phi-4-bnb-4bit", "microsoft/phi-4", "bnb-int4"),
    ],
)
def test_a_path_or_a_repository_resolves_by_its_last_part_as_an_assumption(name: str, same_as: str, weights: str) -> None:
    result = found(name)
    assert isinstance(result.model, ModelArchitecture)
    assert result.model.parameters == architecture(same_as).parameters
    assert result.weights_name == weights
    assert any(field == "spec.model.name" for field, _, _ in result.assumptions)


def test_what_no_name_tells_is_unknown_and_says_what_to_add() -> None:
    model = found("acme/secret-70b").model
    assert isinstance(model, ModelUnknown)
    for way_out in ("spec.model.config", "ModelProfile", "catalogue id"):
        assert way_out in model.remedy


def test_declared_weights_win_over_the_catalogues_own_layout() -> None:
    assert found("deepseek-ai/DeepSeek-R1").weights_name == "fp8-block"
    assert found("deepseek-ai/DeepSeek-R1", weights="awq-int4").weights_name == "awq-int4"
    stated = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    assert found("deepseek-ai/DeepSeek-R1", stated, "awq-int4").weights_name == "fp8-block"


# ---- kinds of models


def kinds_of(model: ModelArchitecture) -> list[str]:
    return [" ".join(sorted(cache.kind.value for cache in model.kinds[kind].caches)) for kind in model.pattern]


def test_first_layers_may_be_dense() -> None:
    model = architecture("deepseek-ai/DeepSeek-R1")
    assert [model.kinds[kind].experts for kind in model.pattern[:5]] == [0, 0, 0, 256, 256]
    assert model.is_latent
    assert model.draft_layers


def test_experts_may_be_in_every_other_layer() -> None:
    model = architecture("meta-llama/Llama-4-Maverick-17B-128E-Instruct")
    assert [model.kinds[kind].experts for kind in model.pattern[:4]] == [0, 128, 0, 128]
    assert kinds_of(model)[:4] == ["chunked", "chunked", "chunked", "full"]


def test_windows_follow_the_classs_pattern_or_the_configs() -> None:
    gemma = kinds_of(architecture("google/gemma-3-27b-it"))
    assert (gemma.count("sliding window"), gemma.count("full")) == (52, 10)
    assert kinds_of(architecture("google/gemma-2-2b-it"))[:2] == ["sliding window", "full"]
    assert set(kinds_of(architecture("Qwen/Qwen2.5-7B-Instruct"))) == {"full"}
    types = ["full_attention", "sliding_attention"] * 16
    stated = kinds_of(architecture("acme/x", {**LLAMA, "layer_types": types, "sliding_window": 128}))
    assert stated[:2] == ["full", "sliding window"]


def test_linear_attention_keeps_a_state_instead_of_tokens() -> None:
    kinds = kinds_of(architecture("Qwen/Qwen3-Next-80B-A3B-Instruct"))
    assert kinds[:4] == ["state of linear attention"] * 3 + ["full"]
    nano = architecture("nvidia/NVIDIA-Nemotron-Nano-9B-v2")
    assert sum(kind == "full" for kind in kinds_of(nano)) == 4


def test_a_sparse_index_is_cached_beside_the_latent() -> None:
    caches = architecture("deepseek-ai/DeepSeek-V3.2").kinds[-1].caches
    assert {cache.kind for cache in caches} == {CacheKind.LATENT, CacheKind.INDEX}


def test_an_encoder_keeps_nothing() -> None:
    model = architecture("BAAI/bge-m3")
    assert not model.has_cache
    assert not any(kind.caches for kind in model.kinds)


def test_a_tower_counts_as_a_part_of_its_own() -> None:
    model = architecture("google/gemma-3-27b-it")
    assert [matrix.part for matrix in model.tower] == [Part.TOWER]
    config = {**LLAMA, "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27, "intermediate_size": 4304}}
    guessed = architecture("acme/vlm", config)
    assert 0.3e9 < sum(matrix.elements for matrix in guessed.tower) < 0.6e9
    assert guessed.weight_error > architecture("acme/llm", LLAMA).weight_error


def test_a_text_config_may_be_nested() -> None:
    nested = {"architectures": ["Mistral3ForConditionalGeneration"], "text_config": {**LLAMA, "architectures": None}}
    assert architecture("acme/x", nested).layers == 32


def test_families_spell_fields_differently() -> None:
    falcon = architecture("tiiuae/falcon-7b-instruct")
    assert (falcon.kv_heads, falcon.layers) == (1, 32)
    assert architecture("databricks/dbrx-instruct").experts == 16
    assert architecture("THUDM/chatglm3-6b").kv_heads == 2


@pytest.mark.parametrize(
    ("scaling", "tokens"),
    [
        (None, 8192),
        ({"rope_type": "llama3", "factor": 8.0}, 8192),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}, 16384),
        ({"type": "linear", "factor": 2.0}, 16384),
    ],
)
def test_rope_scaling_stretches_the_context_as_engines_read_it(scaling: dict[str, Any] | None, tokens: int) -> None:
    config = {**LLAMA, "max_position_embeddings": 8192, "rope_scaling": scaling}
    assert architecture("acme/x", config).max_context_tokens == tokens


def test_a_class_that_was_not_read_is_taken_by_its_usual_fields_and_says_so() -> None:
    result = found("acme/x", {**LLAMA, "architectures": ["AcmeForCausalLM"]})
    assert isinstance(result.model, ModelArchitecture)
    assert not result.model.is_exact
    assert any("not a class that was read" in why for _, _, why in result.assumptions)


def test_a_class_with_parts_that_are_not_modelled_is_unknown() -> None:
    model = found("ai21labs/Jamba-v0.1").model
    assert isinstance(model, ModelUnknown)
    assert "Mamba 1" in model.problem


# ---- profiles


def test_a_profile_stands_for_private_names_and_its_index_beats_any_formula() -> None:
    profile = Profile(name="legal", match=("s3://models/legal-8b/*",), config=LLAMA, checkpoint_bytes=16_200_000_000)
    result = found("s3://models/legal-8b/v2", profiles=[profile])
    assert isinstance(result.model, ModelArchitecture)
    assert result.model.stored_bits(16) / 8 * result.model.weight_scale == pytest.approx(16_200_000_000)
    assert isinstance(found("s3://models/other", profiles=[profile]).model, ModelUnknown)


def test_an_index_far_from_the_config_is_not_believed_in_silence() -> None:
    profile = Profile(name="legal", match=("legal",), config=LLAMA, checkpoint_bytes=4_000_000_000)
    assert "the checkpoint's index says 4.0 GB" in found("legal", profiles=[profile]).opaque[0]


def test_an_index_with_a_tied_head_stored_twice_or_draft_layers_is_no_difference() -> None:
    tied = {**LLAMA, "tie_word_embeddings": True}
    head = 128256 * 4096 * 2
    for total in (15_009_849_344, 15_009_849_344 + head):
        model = found("legal", profiles=[Profile(name="p", match=("legal",), config=tied, checkpoint_bytes=total)]).model
        assert isinstance(model, ModelArchitecture)
        assert model.weight_scale == pytest.approx(1.0, abs=0.001)


def test_a_profiles_mistake_is_not_the_declarations() -> None:
    profile = Profile(name="legal", match=("legal",), config={**LLAMA, "num_attention_heads": -1})
    model = found("legal", profiles=[profile]).model
    assert isinstance(model, ModelUnknown)
    assert "ModelProfile legal: spec.config.num_attention_heads" in model.problem


# ---- bad input


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"num_attention_heads": -4}, "num_attention_heads"),
        ({"hidden_size": float("nan")}, "hidden_size"),
        ({"hidden_size": 10**18}, "hidden_size"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_key_value_heads": 64}, "num_key_value_heads"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types"),
        ({"layer_types": [1] * 32}, "layer_types"),
        ({"num_local_experts": 8, "num_experts_per_tok": 9}, "num_experts_per_tok"),
        ({"num_local_experts": 10**9}, "experts"),
        ({"partial_rotary_factor": 7}, "partial_rotary_factor"),
    ],
)
def test_a_wrong_field_is_named_with_its_path(changes: dict[str, Any], path: str) -> None:
    assert any(each.startswith(f"spec.model.config.{path}") for each in mistakes({**LLAMA, **changes})), mistakes(
        {**LLAMA, **changes}
    )


def test_all_mistakes_come_at_once() -> None:
    assert len(mistakes({**LLAMA, "hidden_size": 0, "vocab_size": -1, "num_hidden_layers": 2.5})) == 3


@pytest.mark.parametrize(
    "strange",
    [
        {"architectures": [None]}, {"architectures": "x"}, {"rope_scaling": 7}, {"rope_scaling": {"factor": float("inf")}},
        {"text_config": []}, {"vision_config": {"hidden_size": []}}, {"moe_layers": ["a"]}, {"quantization_config": []},
        {"quantization_config": {"quant_method": 4}}, {"sliding_window": None}, {"num_experts": None}, {"mlp_only_layers": 3},
        {"ffn_config": {"ffn_hidden_size": "x"}},
    ],
)  # fmt: skip
def test_strange_fields_are_a_mistake_opaque_or_nothing_never_a_crash(strange: dict[str, Any]) -> None:
    with contextlib.suppress(ExceptionGroup):
        found("acme/x", {**LLAMA, **strange})


def test_a_config_of_a_megabyte_is_read() -> None:
    config = {**LLAMA, **{f"field_{number}": "x" * 100 for number in range(10_000)}}
    assert len(json.dumps(config)) > 2**20
    assert architecture("acme/x", config).layers == 32


def test_a_profile_that_tells_only_a_size_is_held_against_the_catalogue() -> None:
    sized = Profile(name="p", match=("/models/Qwen3-8B",), config={}, checkpoint_bytes=16_400_000_000)
    found = find_model(Question(name="/models/Qwen3-8B", config=None, weights=None, dtype=None), [sized])
    assert isinstance(found.model, ModelArchitecture)
    assert found.model.layers == 36


def test_stated_fields_win_over_nested_ones_of_the_catalogue() -> None:
    asked = Question(name="Qwen/Qwen3-VL-30B-A3B-Instruct", config={"max_position_embeddings": 8192}, weights=None, dtype=None)
    model = find_model(asked).model
    assert isinstance(model, ModelArchitecture)
    assert model.max_context_tokens == 8192
