"""The schema on the real API server: what it refuses, with which path, all at once; and that pydantic agrees."""

import copy
import json
from typing import Any

import pytest

from builders import a_body
from controlplane.plane import ControlPlane
from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.model_profiles import read_profile
from shardgate.adapters.policies import read_policy
from shardgate.adapters.referred_workloads import read_declaration

DRY = ("--dry-run=server",)


def refused(plane: ControlPlane, body: dict[str, Any]) -> str:
    result = plane.apply(body, options=DRY, check=False)
    assert result.returncode, "admitted"
    return result.stderr


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("enum", {"model": {"weights": "fp17"}}, "spec.model.weights"),
    ("enum of engines", {"engine": {"name": "vlm"}}, "spec.engine.name"),
    ("width of zero", {"strategy": {"tensor": 0}}, "spec.strategy.tensor"),
    ("width of a word", {"strategy": {"tensor": "two"}}, "spec.strategy.tensor"),
    ("absurd width", {"strategy": {"tensor": 10**18}}, "spec.strategy.tensor"),
    ("negative replicas", {"replicas": -1}, "spec.replicas"),
    ("utilisation in percent", {"engine": {"memoryUtilization": 90}}, "spec.engine.memoryUtilization"),
    ("resource without domain", {"gpus": {"resource": "gpu"}}, "spec.gpus.resource"),
    ("no pods of zero GPUs", {"gpus": {"perPod": 0}}, "spec.gpus.perPod"),
    ("operator of a toleration", {"placement": {"tolerations": [{"operator": "Like"}]}}, "spec.placement.tolerations[0].operator"),
    ("empty model name", {"model": {"name": ""}}, "spec.model.name"),
    ("percent above 100", {"objectives": {"gpuUtilizationPercent": 101}}, "spec.objectives.gpuUtilizationPercent"),
    ("reference without kind", {"workloadRef": {"apiVersion": "apps/v1", "name": "x"}}, "spec.workloadRef.kind"),
    ("request that is no quantity", {"placement": {"requests": {"cpu": "eight"}}}, "spec.placement.requests.cpu"),
    ("model or reference", {"model": None}, "spec.model"),
    ("zero tokens", {"engine": {"maxModelLen": 0}}, "spec.engine.maxModelLen"),
    ("dataLocal divides data", {"strategy": {"data": 4, "dataLocal": 3}}, "spec.strategy.dataLocal"),
    ("one entry a stage", {"strategy": {"layersPerStage": [40, 40]}}, "spec.strategy.layersPerStage"),
    ("decodeContext divides tensor", {"strategy": {"tensor": 4, "decodeContext": 3}}, "spec.strategy.decodeContext"),
    ("attention data divide tensor", {"strategy": {"tensor": 4, "data": 3, "attentionData": True}}, "spec.strategy.data"),
    ("one way to say experts", {"strategy": {"expertParallel": True, "expert": 2}}, "spec.strategy.expert"),
]

PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"

RIGHT: list[dict[str, Any]] = [
    {},
    {"strategy": {"expert": None}},
    {"strategy": {"expert": 4}},
    {"strategy": {"expertParallel": True}},
    {"engine": {"maxModelLen": -1}},
    {"strategy": {"data": 4, "dataLocal": 2}},
    {"strategy": {"layersPerStage": [20, 20, 21, 19]}},
    {"strategy": {"tensor": 4, "decodeContext": 2}},
    {"strategy": {"tensor": 4, "data": 2, "attentionData": True}},
    {"replicas": 0},
    {"gpus": {"resource": "amd.com/gpu", "products": ["MI300X*"]}},
    {"placement": {"requests": {"cpu": 8, "memory": "64Gi"}, "affinity": {"podAffinity": {PREFERRED: [{"weight": 1}]}}}},
    {"model": {"config": {"architectures": ["X"], "rope_scaling": {"factor": 8.0}}}},
    {"model": None, "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}},
]


@pytest.mark.parametrize(("changes", "path"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG])
def test_a_wrong_spec_is_refused_by_path_and_by_pydantic_alike(installed: ControlPlane, changes: dict[str, Any], path: str) -> None:
    body = a_body(**changes)
    assert f"{path}: " in refused(installed, body)
    with pytest.raises(ExceptionGroup) as caught:
        read_declaration(body)
    assert path in {each.where for each in mistakes_in(caught.value)}


@pytest.mark.parametrize("changes", RIGHT, ids=str)
def test_a_right_spec_is_accepted_by_both(installed: ControlPlane, changes: dict[str, Any]) -> None:
    body = a_body(**changes)
    installed.apply(body, options=DRY)
    read_declaration(body)


def test_all_schema_mistakes_come_at_once(installed: ControlPlane) -> None:
    said = refused(installed, a_body(model={"weights": "fp17"}, strategy={"tensor": 0, "pipeline": "x"}, replicas=-1))
    for path in ("spec.model.weights", "spec.strategy.tensor", "spec.strategy.pipeline", "spec.replicas"):
        assert f"{path}: " in said


def test_all_rules_come_at_once_when_the_schema_passes(installed: ControlPlane) -> None:
    body = a_body(model=None, engine={"maxModelLen": 0}, strategy={"layersPerStage": [1], "decodeContext": 3})
    said = refused(installed, body)
    for path in ("spec.model", "spec.engine.maxModelLen", "spec.strategy.layersPerStage", "spec.strategy.decodeContext"):
        assert f"{path}: " in said


def test_an_unknown_field_is_refused_by_name(installed: ControlPlane) -> None:
    assert 'unknown field "spec.strategy.tensors"' in refused(installed, a_body(strategy={"tensors": 2}))


def test_defaults_are_set_for_widths_replicas_resource_and_scheduler_and_for_nothing_of_the_engine(installed: ControlPlane) -> None:
    body = a_body(strategy={}, gpus={}, placement={}, engine={"name": "vllm"})
    body["spec"]["engine"] = {"name": "vllm"}
    body["spec"]["strategy"], body["spec"]["gpus"] = {}, {}
    spec = _applied(installed, body)
    assert spec["strategy"] == {
        "tensor": 1, "pipeline": 1, "data": 1, "prefillContext": 1, "decodeContext": 1,
    }  # fmt: skip
    assert spec["replicas"] == 1
    assert spec["gpus"] == {"resource": "nvidia.com/gpu"}
    assert spec["placement"] == {"schedulerName": "default-scheduler"}
    assert spec["engine"] == {"name": "vllm"}


def _applied(plane: ControlPlane, body: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(plane.apply(body, options=(*DRY, "-o", "json")).stdout)["spec"])


POLICY: dict[str, Any] = {
    "apiVersion": "shardgate.io/v1alpha1",
    "kind": "VerificationPolicy",
    "metadata": {"name": "p"},
    "spec": {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "research"}},
        "kinds": ["InferenceDeployment.shardgate.io"],
        "mode": "Enforce",
        "capacity": "Open",
        "refuse": {"waiting": False},
        "codes": {"TensorOverPcie": "Ignore"},
        "disclosure": "Pools",
        "staleAfterSeconds": 90,
        "claimSeconds": 900,
        "provisionable": [
            {
                "name": "h100", "product": "NVIDIA-H100-80GB-HBM3", "gpusPerNode": 8, "maxNodes": 4, "labels": {},
                "taints": [{"key": "gpu", "effect": "NoSchedule"}], "allocatable": {"cpu": "190", "memory": "1900Gi"},
            }
        ],
    },
}  # fmt: skip


PROFILE: dict[str, Any] = {
    "apiVersion": "shardgate.io/v1alpha1",
    "kind": "ModelProfile",
    "metadata": {"name": "legal"},
    "spec": {
        "match": ["s3://models/legal-70b/*", "/models/legal-70b"],
        "config": {"architectures": ["LlamaForCausalLM"], "rope_scaling": None, "nested": {"anything": [1, 2]}},
        "safetensors": {"totalBytes": 141107412992},
        "diskBytes": 141200000000,
    },
}


def test_a_profile_is_accepted_and_its_config_kept(installed: ControlPlane) -> None:
    applied = json.loads(installed.apply(PROFILE, options=(*DRY, "-o", "json")).stdout)["spec"]
    assert applied["config"]["nested"] == {"anything": [1, 2]}
    assert read_profile(PROFILE).checkpoint_bytes == 141107412992


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"match": []}, "spec.match"),
        ({"match": None}, "spec.match"),
        ({"safetensors": {"totalBytes": 0}}, "spec.safetensors.totalBytes"),
        ({"diskBytes": "140Gi"}, "spec.diskBytes"),
        ({"config": "text"}, "spec.config"),
        ({"other": 1}, "other"),
    ],
)
def test_a_wrong_profile_is_refused_by_its_path(installed: ControlPlane, changes: dict[str, Any], path: str) -> None:
    body = {**PROFILE, "spec": {key: value for key, value in {**PROFILE["spec"], **changes}.items() if value is not None}}
    refused = installed.apply(body, options=DRY, check=False)
    assert refused.returncode != 0
    assert path in refused.stderr
    with pytest.raises(ExceptionGroup):
        read_profile(body)


def test_a_policy_is_accepted(installed: ControlPlane) -> None:
    installed.apply(POLICY, options=DRY)
    read_policy(POLICY)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"mode": "Maybe"}, "spec.mode"),
        ({"codes": {"X": "Maybe"}}, "spec.codes.X"),
        ({"staleAfterSeconds": 0}, "spec.staleAfterSeconds"),
        ({"kinds": ["deployment"]}, "spec.kinds[0]"),
        (
            {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "spec.namespaceSelector.matchExpressions[0].values",
        ),
        ({"provisionable": [{"name": "x", "product": "y", "gpusPerNode": 0, "maxNodes": 1}]}, "spec.provisionable[0].gpusPerNode"),
    ],
)
def test_a_wrong_policy_is_refused_by_path_and_by_pydantic_alike(
    installed: ControlPlane, changes: dict[str, Any], path: str
) -> None:
    body = copy.deepcopy(POLICY)
    body["spec"].update(changes)
    assert f"{path}: " in refused(installed, body)
    with pytest.raises(ExceptionGroup) as caught:
        read_policy(body)
    assert path in {each.where for each in mistakes_in(caught.value)}


def test_two_pools_of_one_name_are_refused(installed: ControlPlane) -> None:
    body = copy.deepcopy(POLICY)
    body["spec"]["provisionable"] *= 2
    assert "spec.provisionable[1]: Duplicate value" in refused(installed, body)


def test_kubectl_explains_the_fields(installed: ControlPlane) -> None:
    assert "Pipeline stages" in installed.kubectl("explain", "infd.spec.strategy.pipeline").stdout


def test_kubectl_shows_the_columns(clean: ControlPlane) -> None:
    clean.apply(a_body(), POLICY)
    shown = clean.kubectl("get", "infd", "-n", "serving").stdout.split()
    assert shown[:7] == ["NAME", "OUTCOME", "SCORE", "STRATEGY", "NEEDED", "FREE", "AGE"]
    assert clean.kubectl("get", "verpol").stdout.split()[:6] == ["NAME", "MODE", "CAPACITY", "MATCHED", "REFUSED", "AGE"]
