"""Makes inputs: ``a_node(gpus=8).tainted()``, ``a_declaration(tensor=2)``."""

from __future__ import annotations

import copy
from typing import Any

from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.nodes import node_from, report_from
from shardgate.adapters.pods import DECLARATION_LABEL, pod_from, read_pod
from shardgate.adapters.referred_workloads import read_declaration
from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import Inventory

GPU = "nvidia.com/gpu"
H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"}
T4 = {"nvidia.com/gpu.product": "Tesla-T4", "nvidia.com/gpu.memory": "15360"}

Json = dict[str, Any]

AWS = "karpenter.k8s.aws/instance-"
"""Labels by which Karpenter knows instance types there."""


def a_report(name: str = "node-a", *gpus: Json, joined: bool | None = True, **status: Any) -> Json:
    """A GpuNodeReport of these GPUs, or of 8 healthy H100; ``joined``: NVLink between any two."""
    found = list(gpus or (a_reported_gpu(index) for index in range(8)))
    pairs = [
        {"first": first["index"], "second": second["index"], "path": "NumaNode"} | ({} if joined is None else {"nvlink": joined})
        for number, first in enumerate(found)
        for second in found[number + 1 :]
    ]
    return {
        "apiVersion": "shardgate.io/v1alpha1",
        "kind": "GpuNodeReport",
        "metadata": {"name": name, "uid": f"uid-{name}"},
        "status": {"changedAt": "2026-11-26T18:00:00Z", "gpus": found, "pairs": pairs, **status},
    }


def a_reported_gpu(index: int, *reasons: str, state: str = "Healthy", **fields: Any) -> Json:
    """A GPU of a report: an H100 of an HGX board, whose driver keeps 0.46 GiB for itself."""
    memory = {"totalBytes": 85520809984, "reservedBytes": 497483776, "usedBytes": 0}
    return {
        "index": index,
        "product": "NVIDIA H100 80GB HBM3",
        "computeCapability": {"major": 9, "minor": 0},
        "memory": memory,
        "health": {"state": state, "reasons": list(reasons)},
        **fields,
    }


class NodeBuilder:
    """A Node object."""

    def __init__(self, name: str, gpus: int, labels: dict[str, str]) -> None:
        amounts = {"cpu": "64", "memory": "1Ti", "pods": "110", GPU: str(gpus)}
        self.body: Json = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
            "spec": {},
            "status": {
                "capacity": dict(amounts),
                "allocatable": dict(amounts),
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }

    def tainted(self, key: str = "team", value: str = "other", effect: str = "NoSchedule") -> NodeBuilder:
        self.body["spec"].setdefault("taints", []).append({"key": key, "value": value, "effect": effect})
        return self

    def cordoned(self) -> NodeBuilder:
        self.body["spec"]["unschedulable"] = True
        return self.tainted("node.kubernetes.io/unschedulable", "")

    def not_ready(self) -> NodeBuilder:
        self.body["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
        return self

    def allocatable(self, gpus: int, resource: str = GPU) -> NodeBuilder:
        self.body["status"]["allocatable"][resource] = str(gpus)
        return self

    def labelled(self, **labels: str) -> NodeBuilder:
        self.body["metadata"]["labels"].update({key.replace("__", "/").replace("_", "-"): value for key, value in labels.items()})
        return self

    def label(self, key: str, value: str) -> NodeBuilder:
        self.body["metadata"]["labels"][key] = value
        return self

    def without_gpu_labels(self) -> NodeBuilder:
        labels = self.body["metadata"]["labels"]
        self.body["metadata"]["labels"] = {key: value for key, value in labels.items() if not key.startswith("nvidia.com/")}
        return self


def a_node(name: str = "node-a", *, gpus: int = 8, labels: dict[str, str] | None = None) -> NodeBuilder:
    """A ready node with GPUs; H100 unless told otherwise."""
    return NodeBuilder(name, gpus, H100 if labels is None else labels)


def a_pod(
    name: str, *, node: str = "", gpus: int = 1, namespace: str = "serving", declaration: str = "", ready: bool = False
) -> Json:
    """A pod that asks for GPUs, bound when a node is named."""
    amounts = {GPU: str(gpus)} if gpus else {"cpu": "100m"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{namespace}-{name}",
            "labels": {DECLARATION_LABEL: declaration} if declaration else {},
        },
        "spec": {
            **({"nodeName": node} if node else {}),
            "containers": [{"name": "main", "image": "none", "resources": {"requests": amounts, "limits": amounts}}],
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


SPEC: Json = {
    "model": {"name": "meta-llama/Meta-Llama-3-70B-Instruct", "weights": "fp16"},
    "engine": {"name": "vllm", "version": "0.19.0", "memoryUtilization": 0.9},
    "strategy": {"tensor": 2, "pipeline": 4, "data": 1},
    "gpus": {"perPod": 8},
}


def a_pool(
    *requirements: tuple[str, str, list[str]], limits: Json | None = None, held: Json | None = None, **template: Any
) -> Json:
    """A NodePool of Karpenter on AWS, by its requirements (key, operator, values)."""
    spec = {
        "requirements": [{"key": key, "operator": operator, "values": values} for key, operator, values in requirements],
        "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
        "taints": template.get("taints", []),
    }
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": "gpu"},
        "spec": {"template": {"metadata": {"labels": template.get("labels", {})}, "spec": spec}, "limits": limits or {}},
        "status": {"resources": held or {}},
    }


def a_body(name: str = "llama", namespace: str = "serving", **changes: Any) -> Json:
    """An InferenceDeployment: the reference one, with parts of its spec replaced; ``None`` takes a part away."""
    spec = copy.deepcopy(SPEC)
    for key, value in changes.items():
        if value is None:
            spec.pop(key, None)
        elif isinstance(value, dict) and isinstance(spec.get(key), dict):
            spec[key] = {**spec[key], **value}
        else:
            spec[key] = value
    return {
        "apiVersion": "shardgate.io/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def a_declaration(name: str = "llama", **changes: Any) -> Declaration:
    """The same, read."""
    return read_declaration(a_body(name, **changes))


def a_book(*objects: NodeBuilder | Json, now: float = 0.0) -> ClusterBook:
    """A cluster of these nodes and pods."""
    book = ClusterBook()
    for each in objects:
        body = each.body if isinstance(each, NodeBuilder) else each
        if body["kind"] == "Node":
            book.put_node(node_from(body), now)
        elif body["kind"] == "GpuNodeReport":
            book.reports.are_heartbeats_needed = False
            book.put_report(report_from(body), now)
        else:
            record = read_pod(pod_from(body))
            if record is not None:
                book.put_pod(record)
    return book


def an_inventory(*objects: NodeBuilder | Json, **freshness: float) -> Inventory:
    """The same, frozen."""
    return a_book(*objects).inventory(0.0, **freshness)


def a_vllm_deployment(
    name: str = "llama", *, tensor: int = 8, gpus: int = 8, replicas: int = 1, model: str = "meta-llama/Meta-Llama-3-70B-Instruct"
) -> Json:
    """A Deployment whose flags say how it serves."""
    command = ["vllm", "serve", model, f"--tensor-parallel-size={tensor}", "--max-model-len=8192"]
    container = {
        "name": "main", "image": "vllm/vllm-openai:v0.19.0", "command": command, "resources": {"limits": {GPU: str(gpus)}},
    }  # fmt: skip
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "serving"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }  # fmt: skip


def standing(body: Json, uid: str = "u") -> Json:
    """The object as the API server keeps it."""
    return {**body, "metadata": {**body["metadata"], "uid": uid, "resourceVersion": "1", "generation": 1}}
