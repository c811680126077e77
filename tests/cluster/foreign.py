"""Workloads of every other kind, alike in what they ask for, and how many reviews an operator has answered."""

from typing import Any

from controlplane.installation import Installation

Json = dict[str, Any]


def container(command: list[str], gpus: int, **more: Any) -> Json:
    return {"name": "main", "image": "x", "command": command, "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}, **more}


def vllm(tensor: int, *more: str) -> list[str]:
    return ["vllm", "serve", "Qwen/Qwen3-32B", f"--tensor-parallel-size={tensor}", "--max-model-len=8192", *more]


def pod(command: list[str], gpus: int) -> Json:
    return {"containers": [container(command, gpus)]}


def templated(api_version: str, kind: str, command: list[str], gpus: int, **spec: Any) -> Json:
    labels = {"app": "llama"}
    template = {"metadata": {"labels": labels}, "spec": pod(command, gpus)}
    selector = {} if kind == "Job" else {"selector": {"matchLabels": labels}}
    if kind == "Job":
        template["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": api_version, "kind": kind, "metadata": {"name": "llama", "namespace": "serving"},
        "spec": {**selector, "template": template, **spec},
    }  # fmt: skip


def custom(api_version: str, kind: str, **body: Any) -> Json:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "llama", "namespace": "serving"}, **body}


RAY_CONFIG = """
applications:
- name: llm
  args:
    llm_configs:
    - model_loading_config: {model_id: Qwen/Qwen3-32B}
      engine_kwargs: {tensor_parallel_size: %d, max_model_len: 8192}
"""


def ray(gpus: int) -> Json:
    head = {"template": {"spec": {"containers": [{"name": "head", "image": "x"}]}}}
    return {"headGroupSpec": head, "workerGroupSpecs": [{"groupName": "gpu", "template": {"spec": pod(["x"], gpus)}}]}


def of_each_kind(tensor: int, gpus: int) -> dict[str, Json]:
    """A workload of every kind, alike in what it asks for."""
    serve = vllm(tensor)
    head = {"template": {"spec": pod(["sh", "-c", " ".join(serve)], gpus)}}
    return {
        "Deployment": templated("apps/v1", "Deployment", serve, gpus),
        "StatefulSet": templated("apps/v1", "StatefulSet", serve, gpus, serviceName="llama"),
        "ReplicaSet": templated("apps/v1", "ReplicaSet", serve, gpus),
        "Job": templated("batch/v1", "Job", serve, gpus),
        "Rollout": templated("argoproj.io/v1alpha1", "Rollout", serve, gpus),
        "Pod": custom("v1", "Pod", spec=pod(serve, gpus)),
        "LeaderWorkerSet": custom("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", spec={"leaderWorkerTemplate": {"size": 1, "workerTemplate": {"spec": pod(serve, gpus)}}}),
        "LLMInferenceService": custom("serving.kserve.io/v1alpha2", "LLMInferenceService", spec={"model": {"uri": "hf://Qwen/Qwen3-32B"}, "parallelism": {"tensor": tensor}, "template": {"containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}, "env": [{"name": "VLLM_ADDITIONAL_ARGS", "value": "--max-model-len=8192"}]}]}}),
        "InferenceService": custom("serving.kserve.io/v1beta1", "InferenceService", spec={"predictor": {"containers": [container(serve, gpus)]}}),
        "DynamoGraphDeployment": custom("nvidia.com/v1alpha1", "DynamoGraphDeployment", spec={"services": {"Worker": {"componentType": "worker", "resources": {"limits": {"gpu": str(gpus)}}, "extraPodSpec": {"mainContainer": {"image": "x", "command": ["python3", "-m", "dynamo.vllm", "--model", *serve[2:]]}}}}}),
        "NIMService": custom("apps.nvidia.com/v1alpha1", "NIMService", spec={"image": {"repository": "nvcr.io/nim/nvidia/llm-nim", "tag": "1"}, "env": [{"name": "NIM_MODEL_NAME", "value": "hf://Qwen/Qwen3-32B"}], "multiNode": {"parallelism": {"tensor": tensor, "pipeline": 1}}, "resources": {"limits": {"nvidia.com/gpu": gpus}}}),
        "RayService": custom("ray.io/v1", "RayService", spec={"serveConfigV2": RAY_CONFIG % tensor, "rayClusterConfig": ray(gpus)}),
        "RayCluster": custom("ray.io/v1", "RayCluster", spec={**ray(gpus), "headGroupSpec": head, "workerGroupSpecs": []}),
        "Workspace": custom("kaito.sh/v1beta1", "Workspace", resource={}, inference={"template": {"spec": pod(serve, gpus)}}),
    }  # fmt: skip


POLICY = {
    "apiVersion": "shardgate.io/v1alpha1",
    "kind": "VerificationPolicy",
    "metadata": {"name": "strict"},
    "spec": {
        "mode": "Enforce",
        "capacity": "Open",
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "serving"}},
    },
}
DRY = ("--dry-run=server",)


def requests(installation: Installation) -> float:
    """Reviews that were answered so far, of ``shardgate_admission_duration_seconds``."""
    return _sum(installation, "shardgate_admission_duration_seconds_count")


def judged(installation: Installation) -> float:
    """Those of them that were of something with GPUs: the others are let in without a verdict."""
    return _sum(installation, "shardgate_admission_requests_total")


def _sum(installation: Installation, metric: str) -> float:
    _, text = installation.fetch("/metrics")
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(metric))
