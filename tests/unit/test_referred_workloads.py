"""``workloadRef``: what a declaration reads from the workload that it is about."""

from typing import Any

import pytest

from builders import a_body, a_node, a_vllm_deployment, an_inventory
from shardgate.adapters.referred_workloads import groups_in, read_declaration
from shardgate.adapters.workloads.library import Library
from shardgate.domain.declaration import Declaration
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.verdict import Outcome, Verdict
from shardgate.domain.verify import verify

REFERENCE = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"}


def declared(*others: Any, **spec: Any) -> Declaration:
    body = {**a_body("mine"), "spec": {"workloadRef": REFERENCE, **spec}}
    return read_declaration(body, (), groups_in(Library.of(others)))


def judged(declaration: Declaration) -> Verdict:
    return verify(declaration, an_inventory(a_node()), OWN_KIND)


def test_all_of_it_is_read_from_the_workload() -> None:
    found = declared(a_vllm_deployment(replicas=2))
    assert found.model_name == "meta-llama/Meta-Llama-3-70B-Instruct"
    assert (found.engine.name, found.engine.version) == ("vllm", "0.19.0")
    assert (found.strategy.tensor, found.replicas, found.gpus.per_pod, found.is_partial) == (8, 2, 8, False)
    assert found.engine.settings.max_model_len == 8192
    assert judged(found).codes == ("GpuCountTooLow",)
    assert judged(declared(a_vllm_deployment())).codes == ()


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"strategy": {"tensor": 4}}, "spec.strategy.tensor"),
        ({"model": {"name": "Qwen/Qwen3-32B"}}, "spec.model.name"),
        ({"engine": {"name": "sglang"}}, "spec.engine.name"),
        ({"engine": {"name": "vllm", "version": "0.11.0"}}, "spec.engine.version"),
        ({"engine": {"name": "vllm", "maxModelLen": 4096}}, "spec.engine (max model len)"),
        ({"replicas": 3}, "spec.replicas"),
        ({"gpus": {"perPod": 4}}, "spec.gpus.perPod"),
        ({"placement": {"nodeSelector": {"pool": "b"}}}, "spec.placement.nodeSelector[pool]"),
        ({"model": {"name": "meta-llama/Meta-Llama-3-70B-Instruct", "weights": "int8"}}, "spec.model.weights"),
        ({"engine": {"name": "vllm", "args": ["--tensor-parallel-size=4"]}}, "spec.strategy.tensor"),
    ],
)
def test_both_and_different_contradict(spec: Any, where: str) -> None:
    theirs = a_vllm_deployment()
    theirs["spec"]["template"]["spec"]["nodeSelector"] = {"pool": "a", "zone": "x"}
    theirs["spec"]["template"]["spec"]["containers"][0]["command"].append("--quantization=fp8")
    found = declared(theirs, **spec)
    assert [each[0] for each in found.disagreements] == [where]
    assert "in Deployment llama" in found.disagreements[0][1]
    outcomes = {each.code: each.outcome for each in judged(found).findings}
    assert outcomes["DeclarationContradicts"] is Outcome.UNDECIDED, "the workload may be what is changed next"


def test_what_both_say_alike_is_no_finding_and_what_one_says_is_kept() -> None:
    found = declared(
        a_vllm_deployment(), model={"name": "meta-llama/Meta-Llama-3-70B-Instruct"}, strategy={"tensor": 8},
        engine={"name": "vllm", "maxSequences": 64}, replicas=1, gpus={"perPod": 8, "products": ["H100*"]},
    )  # fmt: skip
    assert found.disagreements == ()
    assert (found.engine.settings.max_sequences, found.engine.settings.max_model_len) == (64, 8192)
    assert (found.engine.version, found.gpus.products) == ("0.19.0", ("H100*",))


def test_a_width_that_the_workload_hides_may_be_stated() -> None:
    hides = a_vllm_deployment()
    hides["spec"]["template"]["spec"]["containers"][0]["command"][3] = "--tensor-parallel-size=$(TP)"
    assert "DeclarationOpaque" in judged(declared(hides)).codes
    told = judged(declared(hides, strategy={"tensor": 8}))
    assert "ModelUnknown" not in told.codes
    assert told.weights is not None, "and its memory is judged"


def test_a_workload_that_is_not_here_leaves_what_stands_here() -> None:
    verdict = judged(declared(strategy={"tensor": 3}, model={"name": "meta-llama/Meta-Llama-3-70B-Instruct"}))
    assert (verdict.outcome, set(verdict.codes)) == (
        Outcome.UNDECIDED, {"HeadsUneven", "KvHeadsUneven", "EngineUnknown", "DeclarationOpaque"},
    )  # fmt: skip
    assert "workloadRef Deployment llama is not here" in next(
        each.message for each in verdict.findings if each.code == "DeclarationOpaque"
    )


def test_what_the_api_server_writes_of_its_own_contradicts_nothing() -> None:
    filled = {"tensor": 8, "pipeline": 1, "data": 1}
    wide = a_vllm_deployment(tensor=4)
    wide["spec"]["template"]["spec"]["containers"][0]["command"].append("--pipeline-parallel-size=2")
    found = declared(wide, replicas=1, strategy={**filled, "tensor": 4}, gpus={"resource": "nvidia.com/gpu"})
    assert (found.disagreements, found.strategy.pipeline) == ((), 2)


@pytest.mark.parametrize(
    "spec",
    [
        {"engine": {"name": "vllm", "version": "v0.19.0"}},
        {"engine": {"name": "vllm", "version": "0.19"}},
        {"strategy": {"dataLocal": 1}},
        {"strategy": {"layersPerStage": [80]}},
        {"placement": {"nodeSelector": {"disk": "ssd"}}},
    ],
)
def test_what_only_one_says_contradicts_nothing(spec: Any) -> None:
    assert declared(a_vllm_deployment(), **spec).disagreements == ()


@pytest.mark.parametrize("strategy", [{}, {"dataLocal": 1}])
def test_a_hidden_width_is_never_one(strategy: Any) -> None:
    hides = a_vllm_deployment()
    hides["spec"]["template"]["spec"]["containers"][0]["command"][3] = "--tensor-parallel-size=$(TP)"
    assert declared(hides, strategy=strategy).unknown_strategy != ""
