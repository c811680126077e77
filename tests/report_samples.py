"""Report documents of every kind, made by the tool: both references, unknowns, several groups, none judged, large, hostile.

Figures that the tool leaves unknown are filled in, so that forms are tried on all of them; what the tool gives wins.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

from builders import T4, a_declaration, a_node, an_inventory
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


def filled(document: Json, known: Json) -> Json:
    """With what it leaves unknown; lists and values that it has stay."""
    for key, value in known.items():
        if isinstance(value, dict) and isinstance(document.get(key), dict):
            filled(document[key], value)
        elif document.get(key) in (None, []):
            document[key] = copy.deepcopy(value)
    return document


def figure(value: float, low: float, high: float) -> Json:
    return {"value": value, "low": low, "high": high}


def edges(nodes: list[Json], tensor: int, size: int = 16384) -> Json:
    """Tensor rings within a stage, pipeline edges from a stage to the next, as the report has them."""
    at = {(node["data"], node["stage"], node["tensor"]): node["rank"] for node in nodes}
    return {
        "tensor": [
            {"from": rank, "to": at[data, stage, (place + 1) % tensor], "bytesPerToken": 40 * size}
            for (data, stage, place), rank in at.items()
            if tensor > 1
        ],
        "pipeline": [
            {"from": rank, "to": at[data, stage + 1, place], "bytesPerToken": size}
            for (data, stage, place), rank in at.items()
            if (data, stage + 1, place) in at
        ],
        "expert": [],
    }


def reference(**changes: Any) -> Json:
    """The compatible reference, TP2 x PP4 of Llama 3 70B on 8 x H100, with every figure known."""
    declaration = a_declaration("llama3-70b", **{"traffic": TRAFFIC, "objectives": OBJECTIVES, **changes})
    document = report(declaration, verify(declaration, an_inventory(a_node("h100-node-1")), OWN_KIND), reference="3f9c")
    return filled(
        document,
        {
            "score": 97,
            "declared": {"traffic": TRAFFIC, "objectives": OBJECTIVES},
            "performance": {
                "requestsPerSecond": figure(8.3, 7.4, 9.2),
                "capacityRequestsPerSecond": figure(8.5, 7.6, 9.4),
                "outputTokensPerSecond": figure(4250, 3790, 4710),
                "totalTokensPerSecond": figure(12750, 11370, 14130),
                "timeToFirstTokenMilliseconds": figure(940, 610, 1680),
                "timePerOutputTokenMilliseconds": figure(56, 47, 68),
                "endToEndMilliseconds": figure(29600, 25100, 36200),
                "gpuUtilization": figure(0.72, 0.64, 0.78),
                "concurrency": 256,
                "capacityShare": figure(0.94, 0.85, 1.05),
                "bound": "memory",
            },
            "balance": {
                "stageSeconds": [0.01321, 0.01298, 0.01298, 0.01392], "epsilon": 0.0487, "bubble": 0.05,
                "bubbleMeasured": figure(0.2, 0.12, 0.21), "microBatches": 57,
            },
            "communication": {
                "tensorBytesPerToken": 2621440, "pipelineBytesPerToken": 49152, "expertBytesPerToken": 0,
                "linkUtilization": figure(0.019, 0.017, 0.021), "timeShare": figure(0.074, 0.05, 0.1),
            },
            "graph": {"edges": edges(document["graph"]["nodes"], declaration.strategy.tensor)},
            "risks": [
                {
                    "name": "One node", "likelihood": "medium", "effect": "all 8 ranks are lost with h100-node-1",
                    "mitigation": "a second replica on another node: 8 more GPUs",
                },
                {
                    "name": "Pipeline bubble", "likelihood": "high",
                    "effect": "engines lose 12 to 21 % at PP4 on decode-heavy loads: about 7 requests/s instead of 8.3",
                    "mitigation": "TP4 with 2 replicas has no pipeline",
                },
                {
                    "name": "No spare GPU", "likelihood": "low", "effect": "one failed GPU stops the only replica",
                    "mitigation": "keep a node of 8 GPUs free",
                },
            ],
            "alternatives": [
                {
                    "change": "TP4, 2 replicas", "strategy": {"tensor": 4, "pipeline": 1, "data": 1}, "weights": "fp16",
                    "patch": {"spec": {"strategy": {"tensor": 4, "pipeline": 1}, "replicas": 2, "gpus": {"perPod": 4}}},
                    "model": "meta-llama/Meta-Llama-3-70B-Instruct", "gpus": 8, "nodes": ["h100-node-1"], "score": 99,
                    "requestsPerSecond": figure(11.2, 9.8, 12.7),
                },
                {
                    "change": "TP8", "strategy": {"tensor": 8, "pipeline": 1, "data": 1}, "weights": "fp16",
                    "patch": {"spec": {"strategy": {"tensor": 8, "pipeline": 1}}},
                    "model": "meta-llama/Meta-Llama-3-70B-Instruct", "gpus": 8, "nodes": ["h100-node-1"], "score": 98,
                    "requestsPerSecond": figure(9.95, 8.6, 11.4),
                },
            ],
            "scoreTerms": [
                {"name": "throughput", "points": 28, "of": 30, "why": "8.5 of 8 requests/s asked: a margin of 6 %, 10 % gives all"},
                {"name": "latency", "points": 30, "of": 30, "why": "first token 940 of 1500 ms, each token 56 of 80 ms"},
                {"name": "memory headroom", "points": 15, "of": 15, "why": "50.0 GiB of 71.3 GiB are left on the fullest rank"},
                {"name": "balance and bubble", "points": 9, "of": 10, "why": "the slowest stage is 4.9 % above the mean, bubble 5 %"},
                {"name": "link", "points": 10, "of": 10, "why": "NVLink, 7.4 % of the time"},
                {"name": "utilisation", "points": 5, "of": 5, "why": "72 % busy, 70 % asked"},
            ],
        },
    )  # fmt: skip


def incompatible() -> Json:
    """The other reference: the same on one T4."""
    declaration = a_declaration("llama3-70b", traffic=TRAFFIC, objectives=OBJECTIVES)
    document = report(
        declaration, verify(declaration, an_inventory(a_node("t4-node", gpus=1, labels=T4)), OWN_KIND), reference="606b"
    )
    return filled(
        document,
        {
            "alternatives": [
                {
                    "change": "Meta-Llama-3-8B-Instruct as awq-int4, TP1", "strategy": {"tensor": 1, "pipeline": 1, "data": 1},
                    "patch": {
                        "spec": {
                            "model": {"name": "meta-llama/Meta-Llama-3-8B-Instruct", "weights": "awq-int4"},
                            "strategy": {"tensor": 1, "pipeline": 1}, "gpus": {"perPod": 1},
                        },
                    },
                    "weights": "awq-int4", "model": "meta-llama/Meta-Llama-3-8B-Instruct", "gpus": 1, "nodes": ["t4-node"],
                    "score": 71, "requestsPerSecond": figure(1.2, 0.8, 1.7),
                },
            ],
        },
    )  # fmt: skip


def with_unknowns() -> Json:
    """A model that nobody knows, on GPUs that say nothing of themselves."""
    changes = {"model": {"name": "acme/unknown"}, "engine": None}
    declaration = a_declaration("mystery", **changes)
    verdict = verify(declaration, an_inventory(a_node().without_gpu_labels()), OWN_KIND)
    return report(declaration, verdict, reference="0a1b")


def waiting() -> Json:
    """Three replicas of which one has a place."""
    declaration = a_declaration("llama3-70b", replicas=3)
    nodes = [a_node("h100-node-1"), a_node("h100-node-2").cordoned(), a_node("h100-node-3").not_ready()]
    return report(declaration, verify(declaration, an_inventory(*nodes), OWN_KIND), reference="77de")


def over_nodes() -> Json:
    """Tensor ranks of one stage on two nodes, stages on several."""
    changes = {"strategy": {"tensor": 8, "pipeline": 2, "data": 2}, "gpus": {"perPod": 8}}
    declaration = a_declaration("wide", **changes)
    nodes = [a_node(f"h100-node-{number}") for number in range(4)]
    document = report(declaration, verify(declaration, an_inventory(*nodes), OWN_KIND), reference="5c2e")
    return filled(document, {"graph": {"edges": edges(document["graph"]["nodes"], 8)}})


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
    declaration = a_declaration("large", strategy={"tensor": 8, "pipeline": 8, "data": 8}, gpus={"perPod": 8})
    nodes = [a_node(f"h100-node-{number:04}") for number in range(64)] + [
        a_node(f"other-node-{number:04}").tainted() for number in range(4936)
    ]
    document = report(declaration, verify(declaration, an_inventory(*nodes), OWN_KIND), reference="1a2e")
    return filled(document, {"graph": {"edges": edges(document["graph"]["nodes"], 8)}})


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
