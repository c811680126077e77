"""The engines' own rules, one declaration each: refused where the version refuses, and where it survives, not."""

from typing import Any

import pytest

from builders import T4, a_declaration, a_node, an_inventory
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND
from shardgate.domain.verdict import Outcome, Verdict
from shardgate.domain.verify import verify

QWEN_235B_FP8 = {"name": "Qwen/Qwen3-235B-A22B-FP8"}
QWEN_30B = {"name": "Qwen/Qwen3-30B-A3B"}
R1 = {"name": "deepseek-ai/DeepSeek-R1"}
NEW, BEYOND = "0.19.0", "99.0"


def judged(model: dict[str, Any], version: str | None = NEW, named: str = "vllm", gpus: int = 64, **changes: Any) -> Verdict:
    settings = {"name": named, "version": version, "memoryUtilization": None, **changes.pop("engine", {})}
    declared = a_declaration(model={"weights": None, **model}, engine=settings, gpus=None, **changes)
    return verify(declared, an_inventory(a_node(gpus=gpus)), OWN_KIND)


def strategy(tensor: int = 1, **more: Any) -> dict[str, Any]:
    return {"tensor": tensor, "pipeline": 1, "data": 1, **more}


def outcome(verdict: Verdict, code: str) -> Outcome | None:
    return next((each.outcome for each in verdict.findings if each.code == code), None)


def source(verdict: Verdict, code: str) -> str:
    return next(each.source for each in verdict.findings if each.code == code)


@pytest.mark.parametrize(("tensor", "expected"), [(5, Outcome.UNSOUND), (8, None), (2, None)])
def test_the_padded_vocabulary_divides(tensor: int, expected: Outcome | None) -> None:
    """Qwen3-14B at TP5: 40 heads divide by 5, its vocabulary of 151,936 does not."""
    verdict = judged({"name": "Qwen/Qwen3-14B"}, strategy=strategy(tensor))
    assert outcome(verdict, "VocabularyUneven") is expected


def test_an_odd_vocabulary_is_fine_for_a_power_of_two() -> None:
    """Granite's 49,155 is padded to 49,216 first."""
    verdict = judged({"name": "ibm-granite/granite-3.1-8b-instruct"}, strategy=strategy(8))
    assert verdict.outcome is Outcome.SOUND


@pytest.mark.parametrize(
    ("version", "expected"),
    [(NEW, Outcome.UNSOUND), ("0.6.0", None), (None, Outcome.UNDECIDED), (BEYOND, Outcome.UNDECIDED)],
)
def test_blocks_of_fp8_are_not_cut(version: str | None, expected: Outcome | None) -> None:
    """Qwen3-235B at TP8: experts of 1536 leave 192 a rank, blocks are of 128."""
    verdict = judged(QWEN_235B_FP8, version, strategy=strategy(8))
    assert outcome(verdict, "QuantizationBlockUneven") is expected
    if expected is Outcome.UNSOUND:
        assert "block_n = 128" in source(verdict, "QuantizationBlockUneven")


@pytest.mark.parametrize("changes", [{"strategy": strategy(8, expertParallel=True)}, {"strategy": strategy(4)}])
def test_whole_experts_or_wider_shares_are_not_cut(changes: dict[str, Any]) -> None:
    assert outcome(judged(QWEN_235B_FP8, **changes), "QuantizationBlockUneven") is None


def test_groups_of_4_bit_weights_are_not_cut() -> None:
    """DeepSeek-Coder-33B's MLP of 19,200 in groups of 128: TP8 leaves 2,400, which is no multiple."""
    verdict = judged({"name": "deepseek-ai/deepseek-coder-33b-instruct", "weights": "awq-int4"}, strategy=strategy(8))
    assert outcome(verdict, "QuantizationBlockUneven") is Outcome.UNSOUND
    even = judged({"name": "deepseek-ai/deepseek-coder-33b-instruct", "weights": "awq-int4"}, strategy=strategy(2))
    assert outcome(even, "QuantizationBlockUneven") is None


@pytest.mark.parametrize(("version", "expected"), [("0.5.0", Outcome.UNSOUND), ("0.5.4", Outcome.UNSOUND), ("0.6.4", None)])
def test_pipelines_of_a_class_that_a_version_cannot_cut(version: str, expected: Outcome | None) -> None:
    model = {"name": "mistralai/Mixtral-8x7B-Instruct-v0.1", "weights": "awq-int4"}
    verdict = judged(model, version, strategy={"tensor": 2, "pipeline": 2})
    assert outcome(verdict, "PipelineUnsupported") is expected


@pytest.mark.parametrize(
    ("engine", "widths", "expected"),
    [
        ("vllm", strategy(1, data=3, expertParallel=True), None),  # plain expert parallelism tolerates a remainder
        ("sglang", strategy(3, expert=3), Outcome.UNSOUND),
        ("sglang", strategy(4, expert=3), Outcome.UNSOUND),
        ("tensorrt-llm", strategy(8, expert=8), None),
    ],
)
def test_experts_are_dealt_out(engine: str, widths: dict[str, Any], expected: Outcome | None) -> None:
    version = {"vllm": NEW, "sglang": "0.5.5", "tensorrt-llm": "1.0"}[engine]
    assert outcome(judged(QWEN_30B, version, engine, strategy=widths), "ExpertsUneven") is expected


def test_balancing_experts_needs_equal_shares() -> None:
    verdict = judged(QWEN_30B, strategy=strategy(1, data=3, expertParallel=True), engine={"args": ["--enable-eplb"]})
    assert outcome(verdict, "ExpertsUneven") is Outcome.UNSOUND


@pytest.mark.parametrize(
    ("model", "widths", "expected"),
    [
        ({"name": "meta-llama/Llama-3.3-70B-Instruct"}, strategy(16, decodeContext=2), None),
        ({"name": "meta-llama/Llama-3.3-70B-Instruct"}, strategy(8, decodeContext=2), Outcome.UNSOUND),
        ({"name": "meta-llama/Llama-3.3-70B-Instruct"}, strategy(16, decodeContext=4), Outcome.UNSOUND),
        (R1, strategy(16, decodeContext=16), None),  # one latent on every rank
    ],
)
def test_decode_context_against_kv_heads(model: dict[str, Any], widths: dict[str, Any], expected: Outcome | None) -> None:
    assert outcome(judged(model, strategy=widths), "WidthUnsupported") is expected


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        (strategy(8, prefillContext=2, data=2), Outcome.UNSOUND),
        (strategy(8, prefillContext=2), None),
        (strategy(8, prefillContext=2, decodeContext=2), None),
        (strategy(8, prefillContext=2, decodeContext=4), Outcome.UNSOUND),
    ],
)
def test_prefill_context(widths: dict[str, Any], expected: Outcome | None) -> None:
    assert outcome(judged(R1, "0.30.0", strategy=widths), "WidthUnsupported") is expected


@pytest.mark.parametrize(("model", "expected"), [({"name": "Qwen/Qwen3-8B"}, Outcome.UNSOUND), (QWEN_30B, None)])
def test_external_balancing_is_for_mixtures(model: dict[str, Any], expected: Outcome | None) -> None:
    verdict = judged(model, "0.21.0", strategy=strategy(1, data=4, loadBalancing="external"))
    assert outcome(verdict, "WidthUnsupported") is expected


@pytest.mark.parametrize(("tensor", "expected"), [(6, Outcome.UNSOUND), (8, None)])
def test_an_engine_of_powers_of_two(tensor: int, expected: Outcome | None) -> None:
    verdict = judged({"name": "Qwen/Qwen3-8B"}, None, "lmdeploy", strategy=strategy(tensor))
    assert outcome(verdict, "WidthUnsupported") is expected


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({"maxModelLen": 8192}, Outcome.UNSOUND),
        ({"maxModelLen": 2048}, None),
        ({"maxModelLen": -1}, None),
        ({"maxModelLen": 8192, "environment": {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}}, None),
        ({"maxModelLen": 8192, "args": ["--hf-overrides", "{}"]}, Outcome.UNDECIDED),
        ({"maxModelLen": 8192, "args": ["--attention-backend", "FLASHINFER"]}, Outcome.UNSOUND),
    ],
)
def test_a_longer_context_than_the_models(engine: dict[str, Any], expected: Outcome | None) -> None:
    """phi-2 has 2,048 positions."""
    assert outcome(judged({"name": "microsoft/phi-2"}, engine=engine, strategy=strategy()), "ContextTooLong") is expected


@pytest.mark.parametrize(
    ("engine", "expected"), [({"args": ["--distributed-executor-backend=mp"]}, Outcome.UNSOUND), ({"args": ["--distributed-executor-backend=ray"]}, None),
                             ({"args": ["--distributed-executor-backend=mp", "--nnodes=2"]}, None), ({}, None)]
)  # fmt: skip
def test_more_ranks_than_a_pods_gpus_need_ray_or_nodes(engine: dict[str, Any], expected: Outcome | None) -> None:
    nodes = [a_node(f"n{index}") for index in range(2)]
    declared = a_declaration(strategy=strategy(16), engine=engine, gpus={"perPod": 8})
    assert outcome(verify(declared, an_inventory(*nodes), OWN_KIND), "WorldSizeMismatch") is expected


def test_an_engine_of_one_pod() -> None:
    nodes = [a_node(f"n{index}") for index in range(2)]
    declared = a_declaration(strategy=strategy(16), engine={"name": "tgi"}, gpus={"perPod": 8})
    assert outcome(verify(declared, an_inventory(*nodes), OWN_KIND), "WorldSizeMismatch") is Outcome.UNSOUND


@pytest.mark.parametrize(
    ("model", "engine", "expected"),
    [
        ({"dtype": "bf16"}, {"version": NEW}, Outcome.UNSOUND),
        ({"dtype": "fp16"}, {"version": NEW}, None),
        ({}, {"version": NEW}, None),  # falls back to fp16 by itself
        ({}, {"version": "0.8.5"}, Outcome.UNSOUND),
        ({}, {"version": None}, Outcome.UNDECIDED),
        ({"weights": "fp8", "dtype": "fp16"}, {"version": "0.8.5"}, Outcome.UNSOUND),
        ({"weights": "awq-int4", "dtype": "fp16"}, {"version": "0.8.5"}, None),
    ],
)
def test_precision_against_the_gpus_generation(model: dict[str, Any], engine: dict[str, Any], expected: Outcome | None) -> None:
    declared = a_declaration(
        model={"name": "Qwen/Qwen2.5-1.5B-Instruct", "weights": None, **model},
        engine={"maxModelLen": 4096, "maxSequences": 64, **engine}, strategy=strategy(), gpus={"perPod": 1},
    )  # fmt: skip
    verdict = verify(declared, an_inventory(a_node(gpus=1, labels=T4)), OWN_KIND)
    assert outcome(verdict, "PrecisionUnsupported") is expected


def test_capabilities_compare_as_numbers() -> None:
    """10.0 is more than 9.0 and 7.5."""
    b200 = {"nvidia.com/gpu.product": "NVIDIA-B200", "nvidia.com/gpu.memory": "183359"}
    declared = a_declaration(
        model={"name": "Qwen/Qwen3-8B", "dtype": "bf16", "weights": None}, strategy=strategy(), gpus={"perPod": 1}
    )
    assert verify(declared, an_inventory(a_node(labels=b200)), OWN_KIND).outcome is Outcome.SOUND


@pytest.mark.parametrize(("utilization", "expected"), [(1.0, Outcome.UNSOUND), (0.95, None)])
def test_a_fraction_that_the_start_up_cannot_leave(utilization: float, expected: Outcome | None) -> None:
    verdict = judged({"name": "Qwen/Qwen3-8B"}, engine={"memoryUtilization": utilization}, strategy=strategy(2))
    assert outcome(verdict, "UtilizationTooHigh") is expected


def test_the_context_that_does_not_fit_says_how_much_would() -> None:
    verdict = judged({"name": "Qwen/Qwen3-32B"}, engine={"memoryUtilization": 0.85}, strategy=strategy())
    assert outcome(verdict, "ContextDoesNotFit") is Outcome.UNSOUND
    (found,) = (each for each in verdict.findings if each.code == "ContextDoesNotFit")
    assert "maxModelLen to at most" in found.remedy
    assert "To serve at least one request" in found.source
    fits = judged({"name": "Qwen/Qwen3-32B"}, engine={"memoryUtilization": 0.85, "maxModelLen": -1}, strategy=strategy())
    assert fits.outcome is Outcome.SOUND


def test_no_room_for_any_cache() -> None:
    verdict = judged({"name": "Qwen/Qwen3-32B"}, engine={"memoryUtilization": 0.79}, strategy=strategy())
    assert outcome(verdict, "NoRoomForKvCache") is Outcome.UNSOUND
    assert "No available memory for the cache blocks" in source(verdict, "NoRoomForKvCache")


def test_an_engine_that_shortens_requests_is_not_refused_for_the_whole_length() -> None:
    verdict = judged({"name": "Qwen/Qwen3-32B"}, "0.5.5", "sglang", engine={"memoryUtilization": 0.85}, strategy=strategy())
    assert verdict.outcome is Outcome.SOUND


def test_quantising_while_loading_holds_16_bits_first_in_older_versions() -> None:
    engine = {"args": ["--quantization=fp8"], "maxModelLen": 4096}
    model = {"name": "meta-llama/Llama-3.3-70B-Instruct", "weights": "fp8"}
    assert outcome(judged(model, "0.10.0", engine=engine, strategy=strategy()), "WeightsDoNotFit") is Outcome.UNSOUND
    assert outcome(judged(model, NEW, engine=engine, strategy=strategy()), "WeightsDoNotFit") is not Outcome.UNSOUND


def test_both_and_different_contradict() -> None:
    verdict = judged({"name": "Qwen/Qwen3-8B"}, engine={"args": ["-tp", "4"]}, strategy=strategy(2))
    assert outcome(verdict, "DeclarationContradicts") is Outcome.UNSOUND
    alike = judged({"name": "Qwen/Qwen3-8B"}, engine={"args": ["-tp", "2"]}, strategy=strategy(2))
    assert alike.outcome is Outcome.SOUND


def test_a_class_that_was_not_read_refuses_nothing() -> None:
    config = {
        "architectures": ["AcmeForCausalLM"], "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 60,
        "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256, "torch_dtype": "bfloat16",
    }  # fmt: skip
    verdict = judged({"name": "acme/x", "config": config}, strategy=strategy(8), gpus=8)
    assert verdict.outcome is Outcome.UNDECIDED
    assert outcome(verdict, "HeadsUneven") is Outcome.UNDECIDED


@pytest.mark.parametrize(("version", "expected"), [("0.13.0", Outcome.UNSOUND), ("0.14.0", None), (None, Outcome.UNDECIDED)])
def test_a_length_left_to_the_engine(version: str | None, expected: Outcome | None) -> None:
    verdict = judged({"name": "Qwen/Qwen3-8B"}, version, engine={"maxModelLen": -1}, strategy=strategy())
    assert outcome(verdict, "DeclarationContradicts") is expected


def test_nodes_that_do_not_divide_the_ranks() -> None:
    verdict = judged({"name": "Qwen/Qwen3-8B"}, engine={"args": ["--nnodes=3"]}, strategy=strategy(8))
    assert outcome(verdict, "WorldSizeMismatch") is Outcome.UNSOUND


@pytest.mark.parametrize(
    ("cards", "tensor", "expected"), [(1, 2, Outcome.UNSOUND), (2, 2, Outcome.UNDECIDED), (1, 1, Outcome.UNDECIDED)]
)
def test_two_ranks_on_one_card_cannot_talk(cards: int, tensor: int, expected: Outcome) -> None:
    """Cards cut into 4 units in time: a pod of two ranks needs two cards."""
    node = a_node(gpus=4 * cards).label("nvidia.com/gpu.replicas", "4")
    declared = a_declaration(model={"name": "Qwen/Qwen3-8B", "weights": None}, strategy=strategy(tensor), gpus={"perPod": tensor})
    assert outcome(verify(declared, an_inventory(node), OWN_KIND), "GpuShared") is expected
    opened = verify(declared, an_inventory(node), FOREIGN_KIND)
    assert outcome(opened, "GpuShared") is Outcome.UNDECIDED


# ---- flags against the spec, and what an engine does not have

LLAMA = {"name": "meta-llama/Llama-3.1-8B-Instruct"}


@pytest.mark.parametrize(
    ("model", "arguments", "expected"),
    [
        ({**LLAMA, "dtype": "auto", "kvCache": "auto"}, ["--dtype", "half", "--kv-cache-dtype", "fp8"], None),
        ({**LLAMA, "dtype": "bf16"}, ["--dtype", "half"], Outcome.UNSOUND),
        (LLAMA, ["--model", "/models/Llama-3.1-8B-Instruct"], None),
        (LLAMA, ["--model", "/mnt/weights"], None),  # it tells nothing: an assumption
        (LLAMA, ["serve", "Qwen/Qwen3-8B"], Outcome.UNSOUND),
    ],
)
def test_what_flags_say_beside_the_spec(model: dict[str, Any], arguments: list[str], expected: Outcome | None) -> None:
    verdict = judged(model, engine={"args": arguments}, strategy=strategy())
    assert outcome(verdict, "DeclarationContradicts") is expected


@pytest.mark.parametrize(
    ("model", "context"),
    [
        ({"name": "CohereForAI/c4ai-command-r-plus"}, 131_072),  # model_max_length wins in vLLM
        (
            {
                "name": "Qwen/Qwen3-8B",
                "config": {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
            },
            131_072,
        ),
    ],
)
def test_contexts_that_other_fields_allow(model: dict[str, Any], context: int) -> None:
    assert outcome(judged(model, engine={"maxModelLen": context}, strategy=strategy(8)), "ContextTooLong") is None


@pytest.mark.parametrize(
    ("named", "version", "model", "widths", "code"),
    [
        ("vllm", NEW, LLAMA, strategy(8, data=8, attentionData=True), "WidthUnsupported"),
        ("vllm", "0.8.5", {"name": "deepseek-ai/DeepSeek-V2-Lite"}, strategy(8, decodeContext=8), "WidthUnsupported"),
        ("vllm", NEW, QWEN_30B, strategy(2, expert=2), "WidthUnsupported"),
        ("vllm", NEW, {"name": "BAAI/bge-m3"}, {"tensor": 1, "pipeline": 2, "data": 1}, "PipelineUnsupported"),
        ("tgi", None, LLAMA, {"tensor": 1, "pipeline": 2, "data": 1}, "WidthUnsupported"),
    ],
)
def test_widths_that_an_engine_does_not_have(named: str, version: str, model: Any, widths: Any, code: str) -> None:
    assert outcome(judged(model, version, named, strategy=widths), code) is Outcome.UNSOUND


def test_balancing_experts_needs_expert_parallelism() -> None:
    verdict = judged(QWEN_30B, engine={"args": ["--enable-eplb"]}, strategy=strategy(2))
    assert outcome(verdict, "DeclarationContradicts") is Outcome.UNSOUND


def test_sglangs_expert_backends_keep_experts_whole() -> None:
    arguments = {"args": ["--moe-a2a-backend", "deepep"]}
    verdict = judged(QWEN_235B_FP8, "0.5.3", "sglang", engine=arguments, strategy=strategy(8))
    assert outcome(verdict, "QuantizationBlockUneven") is None


def test_nodes_are_dealt_to_data_groups_first_and_need_an_executor() -> None:
    widths = strategy(1, data=16, dataLocal=8, expertParallel=True)
    assert outcome(judged(QWEN_30B, engine={"args": ["--nnodes", "2"]}, strategy=widths), "WorldSizeMismatch") is None
    ray = {"args": ["--nnodes", "2", "--distributed-executor-backend", "ray"]}
    assert outcome(judged(QWEN_30B, engine=ray, strategy=strategy(2)), "WidthUnsupported") is Outcome.UNSOUND


@pytest.mark.parametrize(
    "model", [{"name": "openai/gpt-oss-120b"}, {"name": "deepseek-ai/deepseek-coder-33b-instruct", "weights": "bnb-int4"}]
)
def test_groups_that_engines_pad_or_do_not_have(model: dict[str, Any]) -> None:
    assert outcome(judged(model, strategy=strategy(8)), "QuantizationBlockUneven") is None


def test_a_published_fp8_of_qwen_has_blocks() -> None:
    verdict = judged({"name": "Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8"}, strategy=strategy(8))
    assert outcome(verdict, "QuantizationBlockUneven") is Outcome.UNSOUND


@pytest.mark.parametrize(
    ("model", "expected"),
    [({"name": "meta-llama/Llama-3.3-70B-Instruct", "weights": "fp8"}, Outcome.UNSOUND), (LLAMA, None)],
)
def test_precision_of_tensorrt_llm_by_generation(model: dict[str, Any], expected: Outcome | None) -> None:
    declared = a_declaration(
        model={"weights": None, **model}, engine={"name": "tensorrt-llm", "version": "1.0.0"}, gpus=None, strategy=strategy(4)
    )
    a100 = a_node(labels={"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "nvidia.com/gpu.memory": "81920"})
    assert outcome(verify(declared, an_inventory(a100), OWN_KIND), "PrecisionUnsupported") is expected
