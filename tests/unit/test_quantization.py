"""How checkpoints store each matrix."""

from fractions import Fraction
from typing import Any

import pytest

from shardgate.adapters.models.quantization import MOST_COST, UnreadQuantizationError, layout_of, shorthand
from shardgate.domain.model import Packing, Part

Q, GATE, HEAD = ("layers.3.self_attn.q_proj", Part.ATTENTION), ("layers.3.mlp.gate", Part.ROUTER), ("lm_head", Part.HEAD)


@pytest.mark.parametrize(
    ("name", "bytes_per_element"),
    [
        ("fp32", 4), ("bf16", 2), ("fp8", 1 + Fraction(4, 4096)), ("fp8-block", 1 + Fraction(4, 128 * 128)),
        ("int8", 1 + Fraction(4, 4096)), ("awq-int4", Fraction(4 * 128 + 20, 8 * 128)), ("gptq-int8", Fraction(8 * 128 + 24, 8 * 128)),
        ("compressed-int4", Fraction(4 * 128 + 16, 8 * 128)), ("nvfp4", Fraction(9, 16)), ("mxfp4", Fraction(4 * 32 + 8, 8 * 32)),
    ],
)  # fmt: skip
def test_an_element_takes_its_bits_and_its_share_of_scales(name: str, bytes_per_element: Fraction) -> None:
    layout = shorthand(name)
    packing = layout.packed or layout.plain
    assert packing.bits_of(4096, 4096) == 8 * 4096 * 4096 * bytes_per_element


def test_blocks_that_are_cut_off_count_whole() -> None:
    packing = Packing(name="x", element_bits=8, block_outputs=128, block_inputs=128, block_bits=32)
    assert packing.bits_of(192, 128) == 8 * (192 * 128 + 2 * 4)


def test_routers_embeddings_and_heads_stay_as_they_are() -> None:
    layout = shorthand("awq-int4")
    assert layout.packer()(*Q).element_bits == 4
    for kept in (GATE, HEAD, ("embed_tokens", Part.EMBEDDING), ("vision_tower", Part.TOWER)):
        assert layout.packer()(*kept).element_bits == 16


@pytest.mark.parametrize(
    ("config", "name", "bits", "block"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8-block", 8, (128, 128)),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8", 8, (1, 0)),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "awq-int4", 4, (1, 64)),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, "gptq-int4", 4, (1, 0)),
        ({"quant_method": "gptq", "bits": 8, "group_size": 32}, "gptq-int8", 8, (1, 32)),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bnb-int4", 4, (1, 64)),
        ({"quant_method": "mxfp4"}, "mxfp4", 4, (1, 32)),
        ({"quant_method": "fbgemm_fp8"}, "fp8", 8, (1, 0)),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "NVFP4"}}, "nvfp4", 4, (1, 16)),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "g": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group"}}
                },
            },
            "compressed-int4",
            4,
            (1, 32),
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}},
            },
            "fp8",
            8,
            (1, 0),
        ),
    ],
)
def test_quantization_configs(config: dict[str, Any], name: str, bits: int, block: tuple[int, int]) -> None:
    layout = layout_of(config, "llama")
    assert layout.name == name
    assert layout.packed is not None
    assert layout.packed.element_bits == bits
    assert (layout.packed.block_outputs, layout.packed.block_inputs) == block


@pytest.mark.parametrize(
    ("pattern", "keeps", "quantises"),
    [
        ("lm_head", "lm_head", "layers.0.mlp.up_proj"),
        ("self_attn", "layers.7.self_attn.q_proj", "layers.7.mlp.up_proj"),
        ("model.layers.0.self_attn", "layers.0.self_attn.q_proj", "layers.10.self_attn.q_proj"),
        ("model.layers.0.self_attn.q_proj", "layers.0.self_attn.q_proj", "layers.0.self_attn.k_proj"),
        ("model.layers.61*", "layers.61.mlp.up_proj", "layers.6.mlp.up_proj"),
        ("model.layers.*.self_attn", "layers.5.self_attn.o_proj", "layers.5.mlp.up_proj"),
        ("re:.*shared_experts.*", "layers.3.mlp.shared_experts.up_proj", "layers.3.mlp.up_proj"),
        ("language_model.model.layers.2.mlp", "layers.2.mlp.up_proj", "layers.2.self_attn.q_proj"),
    ],
)
def test_modules_that_stay_in_16_bits(pattern: str, keeps: str, quantises: str) -> None:
    layout = layout_of({"quant_method": "fp8", "modules_to_not_convert": [pattern]}, "llama")
    assert layout.packer()(keeps, Part.MLP).element_bits == 16
    assert layout.packer()(quantises, Part.MLP).element_bits == 8


@pytest.mark.parametrize("pattern", ["re:(a+)+$", "re:(.*)*x", "re:.*.*.*.*.*x", "re:(", "re:" + "a" * 3000, "re:(?=x)x"])
def test_patterns_that_could_take_for_ever_are_not_tried(pattern: str) -> None:
    layout = layout_of({"quant_method": "fp8", "ignore": [pattern]}, "llama")
    assert layout.unread == (pattern,)
    assert layout.error >= 0.1


@pytest.mark.parametrize(
    ("config", "bits"),
    [
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, 8),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}, 8),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, None),
    ],
)
def test_what_a_checkpoint_says_of_the_kv_cache(config: dict[str, Any], bits: int | None) -> None:
    assert layout_of(config, "llama").kv_cache_bits == bits


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "aqlm"}, {"quant_method": "gptq", "bits": 3}, {"quant_method": "fp8", "weight_block_size": [0, 1]},
        {"quant_method": "compressed-tensors", "config_groups": {}}, {"quant_method": "fp8", "ignore": ["x"] * 5000}, {}, [],
        {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 8}}}},
    ],
)  # fmt: skip
def test_a_kind_that_is_not_read_says_so(config: Any) -> None:
    with pytest.raises(UnreadQuantizationError):
        layout_of(config, "llama")


@pytest.mark.parametrize(
    "patterns",
    [
        ["re:" + ".?" * 20 + "Q"],
        [f"re:.*a{number}.*b.*Q" for number in range(4000)],
        [f"*a*{number}*b" for number in range(4000)],
        ["x" * 1000 + str(number) for number in range(500)],
        [f"model.layers.{number}.self_attn.q_proj" for number in range(4000)],
    ],
)
def test_hostile_patterns_are_not_tried(patterns: list[str]) -> None:
    """Each of these took seconds to minutes; the work is bounded by counting what is tried."""
    layout = layout_of({"quant_method": "fp8", "ignore": patterns}, "llama")
    matched = [each for each in layout.kept if each.startswith("re:") or "*" in each]
    assert len(matched) <= MOST_COST
    assert len(layout.unread) + len(layout.kept) >= len(set(patterns))
    assert layout.packer()("layers.1.mlp.up_proj", Part.MLP).element_bits == 8


@pytest.mark.parametrize("scheme", [{"num_bits": [1], "type": "int"}, {"num_bits": 8, "type": 5}, {}])
def test_a_scheme_that_is_none(scheme: dict[str, object]) -> None:
    with pytest.raises(UnreadQuantizationError):
        layout_of({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": scheme, "targets": 5}}}, "llama")
