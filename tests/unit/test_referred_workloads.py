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
        ({"placement": {"nodeSelector": {"a": "b"}}}, "spec.placement.nodeSelector"),
    ],
)
def test_both_and_different_contradict(spec: Any, where: str) -> None:
    found = declared(a_vllm_deployment(), **spec)
    assert [each[0] for each in found.contradictions] == [where]
    assert "in Deployment llama" in found.contradictions[0][1]
    assert "DeclarationContradicts" in judged(found).codes


def test_what_both_say_alike_is_no_finding_and_what_one_says_is_kept() -> None:
    found = declared(
        a_vllm_deployment(), model={"name": "meta-llama/Meta-Llama-3-70B-Instruct"}, strategy={"tensor": 8},
        engine={"name": "vllm", "maxSequences": 64}, replicas=1, gpus={"perPod": 8, "products": ["H100*"]},
    )  # fmt: skip
    assert found.contradictions == ()
    assert (found.engine.settings.max_sequences, found.engine.settings.max_model_len) == (64, 8192)
    assert (found.engine.version, found.gpus.products) == ("0.19.0", ("H100*",))


def test_a_width_that_the_workload_hides_may_be_stated() -> None:
    hides = a_vllm_deployment()
    hides["spec"]["template"]["spec"]["containers"][0]["command"][3] = "--tensor-parallel-size=$(TP)"
    assert "DeclarationOpaque" in judged(declared(hides)).codes
    assert declared(hides, strategy={"tensor": 8}).unknown_strategy == ""


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
    assert (found.contradictions, found.strategy.pipeline) == ((), 2)
