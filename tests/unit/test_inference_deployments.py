from typing import Any

import pytest

from builders import a_body
from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.referred_workloads import read_declaration
from shardgate.domain.declaration import ModelUnknown
from shardgate.domain.model import ModelArchitecture


def mistakes(**changes: Any) -> dict[str, str]:
    with pytest.raises(ExceptionGroup) as caught:
        read_declaration(a_body(**changes))
    return {each.where: each.problem for each in mistakes_in(caught.value)}


def test_all_mistakes_come_at_once_with_paths_as_written() -> None:
    found = mistakes(
        model={"name": "x", "weights": "fp17"},
        strategy={"tensor": 0, "pipelines": 2},
        engine={"name": "vllm", "memoryUtilization": 90},
    )
    assert set(found) == {"spec.model.weights", "spec.strategy.tensor", "spec.strategy.pipelines", "spec.engine.memoryUtilization"}


def test_rules_over_several_fields_name_theirs() -> None:
    found = mistakes(strategy={"tensor": 2, "pipeline": 4, "layersPerStage": [1, 2], "decodeContext": 3})
    assert set(found) == {"spec.strategy.layersPerStage", "spec.strategy.decodeContext"}


def test_a_model_is_needed() -> None:
    assert mistakes(model=None) == {"spec.model": "model is required, unless workloadRef names a workload to read it from"}


@pytest.mark.parametrize("value", ["80", 0, -1, True, 1.5, [80], 2**40])
def test_config_fields_are_checked(value: object) -> None:
    found = mistakes(model={"config": {"num_hidden_layers": value}})
    assert set(found) == {"spec.model.config.num_hidden_layers"}


def test_requests_must_be_quantities() -> None:
    assert set(mistakes(placement={"requests": {"cpu": "eight"}})) == {"spec.placement.requests.cpu"}


@pytest.mark.parametrize("spec", [None, [], "x", 1])
def test_a_spec_that_is_none(spec: object) -> None:
    with pytest.raises(ExceptionGroup):
        read_declaration({**a_body(), "spec": spec})


def test_config_wins_over_the_catalogue() -> None:
    declaration = read_declaration(a_body(model={"config": {"num_hidden_layers": 40}}))
    assert isinstance(declaration.model, ModelArchitecture)
    assert declaration.model.layers == 40


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"architectures": ["MixtralForCausalLM"]}, "lacks hidden_size"),
        ({"architectures": ["LlamaForCausalLM"], "hidden_size": 64}, "lacks num_hidden_layers"),
        ({"architectures": "LlamaForCausalLM"}, "lacks hidden_size"),
        ({"architectures": ["JambaForCausalLM"]}, "not modelled"),
    ],
)
def test_an_architecture_that_cannot_be_read_is_unknown(config: dict[str, Any], problem: str) -> None:
    declaration = read_declaration(a_body(model={"name": "acme/x", "config": config}))
    assert isinstance(declaration.model, ModelUnknown)
    assert problem in declaration.model.problem


def test_weights_default_to_the_configs_dtype_and_say_so() -> None:
    body = a_body()
    del body["spec"]["model"]["weights"]
    declaration = read_declaration(body)
    assert declaration.weights_name == "bf16"
    assert ("spec.model.weights", "bf16", "unset: the config's dtype") in declaration.assumptions


def test_a_quantization_config_that_is_not_read_yet_is_opaque_not_16_bits() -> None:
    declaration = read_declaration(a_body(model={"config": {"quantization_config": {"quant_method": "aqlm"}}}))
    assert not declaration.weights_name
    assert declaration.opaque


def test_pods_of_unset_size_keep_theirs_until_the_spec_changes() -> None:
    body = a_body(gpus=None)
    body["metadata"]["generation"] = 2
    body["status"] = {"observedGeneration": 2, "required": {"gpus": 16, "gpusPerReplica": 8, "pods": 4}}
    assert read_declaration(body).gpus.per_pod == 4
    body["metadata"]["generation"] = 3
    assert read_declaration(body).gpus.per_pod is None


def test_aliases_are_the_same_model() -> None:
    for name in ("meta-llama/Meta-Llama-3-70B", "Llama3-70B-Instruct", "META-LLAMA/meta-llama-3-70b-instruct"):
        model = read_declaration(a_body(model={"name": name})).model
        assert isinstance(model, ModelArchitecture)
        assert model.parameters == 70_553_706_496


@pytest.mark.parametrize("status", ["x", [], {"required": [1]}, {"required": {"pods": 1}}, {"required": {"gpus": "8", "pods": 0}}])
def test_a_status_that_makes_no_sense_is_none(status: object) -> None:
    body = a_body(gpus=None)
    body["status"] = status
    assert read_declaration(body).gpus.per_pod is None


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"strategy": {"tensor": "2"}}, "spec.strategy.tensor"),
        ({"strategy": {"pipeline": True}}, "spec.strategy.pipeline"),
        ({"strategy": {"expertParallel": "no"}}, "spec.strategy.expertParallel"),
        ({"engine": {"memoryUtilization": "0.9"}}, "spec.engine.memoryUtilization"),
        ({"placement": {"requests": {"cpu": 1.5}}}, "spec.placement.requests.cpu"),
    ],
)
def test_values_of_another_type_are_mistakes_as_on_the_api_server(changes: dict[str, Any], path: str) -> None:
    assert set(mistakes(**changes)) == {path}


def test_null_is_not_there() -> None:
    assert read_declaration(a_body(strategy={"tensor": None, "expert": None})).strategy.tensor == 1
