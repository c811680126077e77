from fractions import Fraction

import pytest

from shardgate.adapters.models import layout_of, model_of
from shardgate.adapters.tables import table
from shardgate.domain.memory import WeightsEstimate, weights_of
from shardgate.domain.model import ModelArchitecture
from shardgate.domain.strategy import ParallelStrategy

LLAMA_70B = "meta-llama/Meta-Llama-3-70B-Instruct"


def architecture(name: str) -> ModelArchitecture:
    model, _ = model_of(name, None)
    assert isinstance(model, ModelArchitecture)
    return model


def weights(name: str, kind: str = "fp16", **widths: int) -> WeightsEstimate:
    layout, _, _ = layout_of(kind, None, {})
    assert layout is not None
    return weights_of(architecture(name), layout, ParallelStrategy(**widths))  # type: ignore[arg-type]


@pytest.mark.parametrize("entry", table("models")["models"], ids=lambda entry: entry["id"])
def test_parameter_totals_are_the_published_ones(entry: dict[str, int | str]) -> None:
    published = int(entry["publishedParameters"])
    assert abs(architecture(str(entry["id"])).parameters - published) / published < 0.001


def test_the_reference_report_weights() -> None:
    """141.1 GB in all, 36.3 GB on the outer stages, 17.1 to 18.2 GB on a rank: figures of the corrected report."""
    estimate = weights(LLAMA_70B, tensor=2, pipeline=4)
    assert estimate.parameters == 70_553_706_496
    assert estimate.total == 141_107_412_992
    assert [round(stage.total / 1e9, 1) for stage in estimate.stages] == [36.3, 34.2, 34.2, 36.3]
    assert [round(stage.per_rank / 1e9, 1) for stage in estimate.stages] == [18.2, 17.1, 17.1, 18.2]
    assert sum(stage.total for stage in estimate.stages) == estimate.total


def test_one_rank_holds_everything() -> None:
    estimate = weights("meta-llama/Meta-Llama-3-8B")
    assert estimate.fullest.per_rank == estimate.total == 16_060_522_496


def test_kv_heads_are_replicated_when_there_are_fewer_than_ranks() -> None:
    sixteen, eight = weights(LLAMA_70B, tensor=16), weights(LLAMA_70B, tensor=8)
    assert sixteen.fullest.per_rank * 2 > eight.fullest.per_rank


def test_a_tied_head_is_counted_once_on_one_stage_and_held_twice_over_several() -> None:
    tied = "meta-llama/Llama-3.2-1B-Instruct"
    assert weights(tied, "bf16").fullest.per_rank == weights(tied, "bf16").total
    two = weights(tied, "bf16", pipeline=2)
    assert sum(stage.total for stage in two.stages) - two.total == 128_256 * 2048 * 2


def test_an_odd_vocabulary_is_padded_to_64_before_it_is_split() -> None:
    config = {"vocab_size": 32_001, "architectures": ["LlamaForCausalLM"]}
    model, _ = model_of("meta-llama/Meta-Llama-3-8B", config)
    assert isinstance(model, ModelArchitecture)
    layout, _, _ = layout_of("fp16", None, {})
    assert layout is not None
    two = weights_of(model, layout, ParallelStrategy(tensor=2))
    padded = 2 * (32_064 // 2) * 4096 * 2
    unpadded = 2 * 32_001 * 4096 * 2 // 2
    alone = weights_of(model, layout, ParallelStrategy())
    linear = model.layers * model.linear_parameters_per_layer * 2 // 2
    norms = (model.layers * model.norm_parameters_per_layer + model.hidden_size) * 2
    assert two.fullest.per_rank == linear + norms + padded
    assert padded > unpadded
    assert alone.total == model.parameters * 2


@pytest.mark.parametrize(
    ("kind", "bytes_per_element"),
    [("fp32", 4), ("bf16", 2), ("fp8", 1), ("awq-int4", Fraction(4 + Fraction(20, 128), 8)), ("nvfp4", Fraction(9, 16))],
)
def test_quantised_layouts_count_scales_and_leave_the_rest_in_16_bits(kind: str, bytes_per_element: Fraction) -> None:
    layout, name, _ = layout_of(kind, None, {})
    assert layout is not None
    assert name == kind
    assert layout.linear_bytes == bytes_per_element
    assert layout.other_bytes == (4 if kind == "fp32" else 2)
