"""Report documents of every kind, made by the tool: both references, unknowns, several groups, none read, large, hostile."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

from builders import T4, NodeBuilder, a_declaration, a_node, an_inventory
from shardgate.adapters.alternatives import alternatives_of
from shardgate.adapters.report import report
from shardgate.adapters.workload_verdicts import judged, workload_report
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.registry import read_workload
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND
from shardgate.domain.verify import verify

Json = dict[str, Any]

TRAFFIC = {"promptTokens": 1024, "outputTokens": 512, "concurrency": 256, "microBatches": 57}
OBJECTIVES = {
    "requestsPerSecond": 8, "timeToFirstTokenMilliseconds": 1500, "timePerOutputTokenMilliseconds": 80, "gpuUtilizationPercent": 70,
}  # fmt: skip
HOSTILE = "<script>alert('x')</script> \"a\" | b\n## c `d` [e](javascript:f) &lt; \x1b[31m 中文名前 {{ 7 * 7 }} " + "long" * 60


def figure(value: float, low: float, high: float) -> Json:
    return {"value": value, "low": low, "high": high}


def _own(name: str, *nodes: NodeBuilder, alternatives: bool = False, **changes: Any) -> Json:
    """An InferenceDeployment, judged on these nodes."""
    declaration, inventory = a_declaration(name, **changes), an_inventory(*nodes)
    others = alternatives_of(declaration, inventory, OWN_KIND) if alternatives else ()
    return report(declaration, verify(declaration, inventory, OWN_KIND), reference="3f9c", alternatives=others)


def reference() -> Json:
    """The compatible reference, TP2 x PP4 of Llama 3 70B on 8 x H100."""
    return _own("llama3-70b", a_node("h100-node-1"), alternatives=True, traffic=TRAFFIC, objectives=OBJECTIVES)


def incompatible() -> Json:
    """The other reference: the same on one T4."""
    node = a_node("t4-node", gpus=1, labels=T4)
    return _own("llama3-70b", node, alternatives=True, traffic=TRAFFIC, objectives=OBJECTIVES)


def with_unknowns() -> Json:
    """A model that nobody knows, on GPUs that say nothing of themselves."""
    return _own("mystery", a_node().without_gpu_labels(), model={"name": "acme/unknown"}, engine=None)


def waiting() -> Json:
    """Three replicas of which one has a place."""
    nodes = [a_node("h100-node-1"), a_node("h100-node-2").cordoned(), a_node("h100-node-3").not_ready()]
    return _own("llama3-70b", *nodes, replicas=3)


def over_nodes() -> Json:
    """A stage a node, in two data replicas."""
    nodes = [a_node(f"h100-node-{number}") for number in range(4)]
    return _own("wide", *nodes, strategy={"tensor": 8, "pipeline": 2, "data": 2}, gpus={"perPod": 8})


DISAGGREGATED: Json = {
    "apiVersion": "nvidia.com/v1alpha1",
    "kind": "DynamoGraphDeployment",
    "metadata": {"name": "llama-disagg", "namespace": "serving"},
    "spec": {
        "services": {
            "Frontend": {"componentType": "frontend", "replicas": 1},
            **{
                name: {
                    "componentType": "worker", "subComponentType": role, "replicas": replicas,
                    "resources": {"limits": {"gpu": str(gpus)}},
                    "extraPodSpec": {
                        "mainContainer": {
                            "image": "nvcr.io/nvidia/ai-dynamo/vllm-runtime:0.6.0", "command": ["python3", "-m", "dynamo.vllm"],
                            "args": [
                                "--model", "meta-llama/Llama-3.1-70B-Instruct", "--tensor-parallel-size", str(gpus),
                                *(["--is-prefill-worker"] if role == "prefill" else []),
                            ],
                        },
                    },
                }
                for name, role, replicas, gpus in (("VllmPrefillWorker", "prefill", 1, 4), ("VllmDecodeWorker", "decode", 2, 2))
            },
        },
    },
}  # fmt: skip


def _workload(body: Json, *nodes: Any) -> Json:
    workload = read_workload(body, Library.of([body]))
    assert workload is not None
    found = judged(workload, (), an_inventory(*nodes), FOREIGN_KIND)
    assert found is not None
    return workload_report(found, reference="d15a")


def with_groups() -> Json:
    """Prefill and decode, each a group."""
    return _workload(DISAGGREGATED, a_node("h100-node-1"))


def not_judged() -> Json:
    """A container whose command nobody can read."""
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "opaque", "namespace": "serving"},
        "spec": {
            "template": {
                "spec": {
                    "containers": [
                        {
                            "name": "vllm", "image": "vllm/vllm-openai:v0.19.0", "command": ["sh", "-c", "exec $(cat /run/serve.sh)"],
                            "resources": {"limits": {"nvidia.com/gpu": "2"}},
                        }
                    ]
                }
            }
        },
    }  # fmt: skip
    return _workload(body, a_node())


def nothing_read() -> Json:
    """Groups that say nowhere how many GPUs their pods ask for: no key of the report has anything but the findings."""
    body = copy.deepcopy(DISAGGREGATED)
    for name in ("VllmPrefillWorker", "VllmDecodeWorker"):
        del body["spec"]["services"][name]["resources"]
    return _workload(body, a_node())


def large() -> Json:
    """512 ranks on 64 of 5,000 nodes."""
    nodes = [a_node(f"h100-node-{number:04}") for number in range(64)]
    nodes += [a_node(f"other-node-{number:04}").tainted() for number in range(4936)]
    return _own("large", *nodes, strategy={"tensor": 8, "pipeline": 8, "data": 8}, gpus={"perPod": 8})


def hostile() -> Json:
    """The reference, with every text that a person writes made of what would break a form."""
    document = reference()
    document["subject"]["name"] = HOSTILE
    document["declared"]["model"] = HOSTILE
    for part in ("risks", "alternatives", "scoreTerms", "assumptions"):
        for each in document[part]:
            each.update({key: HOSTILE for key, value in each.items() if isinstance(value, str)})
    document["findings"] = [
        {
            "code": "GpusBusy", "class": "capacity", "where": HOSTILE, "outcome": "Waiting", "message": HOSTILE, "remedy": HOSTILE,
            "source": HOSTILE,
        }
    ]  # fmt: skip
    document["hardware"]["products"][0]["product"] = HOSTILE
    for node in document["graph"]["nodes"]:
        node["node"] = HOSTILE
    for pod in document["placement"]["pods"]:
        pod["node"] = HOSTILE
    document["placement"]["excluded"] = [{"reason": HOSTILE, "count": 3, "nodes": [HOSTILE]}]
    return document


MAKERS = {
    "reference": reference,
    "incompatible": incompatible,
    "unknowns": with_unknowns,
    "waiting": waiting,
    "over-nodes": over_nodes,
    "groups": with_groups,
    "not-judged": not_judged,
    "nothing-read": nothing_read,
    "large": large,
    "hostile": hostile,
}
"""Name -> what makes it."""


@cache
def _made(name: str) -> str:
    return json.dumps(MAKERS[name]())


def sample(name: str) -> Json:
    """One of them, made once, as a document of one's own."""
    document: Json = json.loads(_made(name))
    return document
