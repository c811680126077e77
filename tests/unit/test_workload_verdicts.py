"""Workloads of other kinds, judged."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from builders import a_book, a_node, a_pod
from shardgate.adapters.workload_verdicts import JudgedWorkload, judged, workload_report
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.registry import read_workload
from shardgate.domain.enforce import Stored, enforce
from shardgate.domain.policy import FOREIGN_KIND, Capacity, Mode
from shardgate.domain.verdict import Outcome

Json = dict[str, Any]


def judge(text: str, *objects: Any, **policy: Any) -> JudgedWorkload | None:
    bodies = [each for each in yaml.safe_load_all(text) if each]
    workload = read_workload(bodies[-1], Library.of(bodies))
    assert workload is not None
    return judged(workload, (), a_book(*objects).inventory(0.0), replace(FOREIGN_KIND, **policy))


def deployment(command: str, gpus: int = 8, replicas: int = 1, spec: str = "nodeSelector: {}") -> str:
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: llama, namespace: serving}}
spec:
  replicas: {replicas}
  template:
    metadata: {{labels: {{app: llama}}}}
    spec:
      {spec}
      containers:
      - {{name: a, image: 'vllm/vllm-openai:v0.19.0', command: [sh, -c, "{command}"], resources: {{limits: {{nvidia.com/gpu: '{gpus}'}}}}}}
"""


SERVE = "vllm serve meta-llama/Meta-Llama-3-70B-Instruct --tensor-parallel-size 8 --max-model-len 8192"


@pytest.mark.parametrize(
    ("command", "gpus", "codes"),
    [
        (SERVE, 8, ()),
        (SERVE, 4, ("WorldSizeMismatch",)),
        (SERVE.replace("8 --max", "4 --max"), 8, ("GpusLeftOver",)),
        (SERVE.replace("8 --max", "3 --max"), 3, ("HeadsUneven",)),
        (SERVE.replace("8 --max", "1 --max"), 1, ("WeightsDoNotFit",)),
        (SERVE + " --unheard-of 1", 8, ("DeclarationOpaque",)),
        (SERVE.replace("8 --max", "$TP --max"), 8, ("DeclarationOpaque",)),
    ],
)
def test_a_deployment_by_its_flags(command: str, gpus: int, codes: tuple[str, ...]) -> None:
    found = judge(deployment(command, gpus), a_node())
    assert found is not None
    assert found.verdict.codes[: len(codes)] == codes
    assert {each.where.partition(".")[0] for each in found.verdict.findings} <= {"spec"}


def test_capacity_refuses_other_kinds_only_where_nothing_more_may_come() -> None:
    text = deployment(SERVE, replicas=2)
    for policy, outcome in (({}, Outcome.WAITING), ({"capacity": Capacity.CLOSED}, Outcome.WAITING)):
        found = judge(text, a_node(), **policy)
        assert found is not None
        assert (found.verdict.outcome, found.verdict.codes) == (outcome, ("GpuCountTooLow",))


def test_pods_of_its_replica_sets_are_its_own() -> None:
    own = a_pod("llama-5d-x", node="node-a", gpus=8)
    own["metadata"] |= {
        "labels": {"app": "llama", "pod-template-hash": "5d"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "llama-5d", "controller": True}],
    }
    found = judge(deployment(SERVE), a_node(), own)
    assert found is not None
    assert found.verdict.outcome is Outcome.SOUND
    other = {
        **own,
        "metadata": {
            **own["metadata"],
            "uid": "u",
            "ownerReferences": [{"kind": "ReplicaSet", "name": "other-5d", "controller": True}],
        },
    }
    busy = judge(deployment(SERVE), a_node(), other)
    assert busy is not None
    assert busy.verdict.codes == ("GpusBusy",)


GRAPH = """
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata: {name: graph, namespace: serving}
spec:
  services:
    Decode:
      componentType: worker
      resources: {limits: {gpu: "8"}}
      extraPodSpec: {mainContainer: {image: x, command: [python3, -m, dynamo.vllm, --model, Qwen/Qwen3-32B, -tp, "8"]}}
    Prefill:
      componentType: worker
      resources: {limits: {gpu: "4"}}
      extraPodSpec: {mainContainer: {image: x, command: [python3, -m, dynamo.vllm, --model, Qwen/Qwen3-32B, -tp, "4", --is-prefill-worker]}}
"""


def test_prefill_and_decode_share_one_cluster() -> None:
    both = judge(GRAPH, a_node("a"), a_node("b"))
    assert both is not None
    assert both.verdict.outcome is Outcome.SOUND
    assert both.verdict.required.gpus == 12
    report = workload_report(both, reference="0000")
    assert {(pod["group"], pod["node"]) for pod in report["placement"]["pods"]} == {("decode", "a"), ("prefill", "b")}
    assert [each["role"] for each in report["groups"]] == ["decode", "prefill"]
    one = judge(GRAPH, a_node("a"))
    assert one is not None
    (found,) = one.verdict.findings
    assert (found.code, found.outcome) == ("GpusBusy", Outcome.WAITING)
    assert found.message.startswith("prefill: ")


@pytest.mark.parametrize(("change", "codes"), [("", []), (", --gpu-memory-utilization, '1.0'", ["UtilizationTooHigh"])])
def test_every_group_must_need_no_more_memory(change: str, codes: list[str]) -> None:
    policy = {"mode": Mode.ENFORCE, "capacity": Capacity.CLOSED}
    before, now = (judge(text, a_node(), **policy) for text in (GRAPH, GRAPH.replace(", --is-prefill", f"{change}, --is-prefill")))
    assert before is not None
    assert now is not None
    stored = Stored(declaration=before.declarations[0], verdict=before.verdict, is_changed=True)
    answer = enforce(now.declarations[0], now.verdict, replace(FOREIGN_KIND, **policy), stored)
    assert [each.code for each in answer.refusing] == codes


def test_a_nim_service_is_judged_by_its_pods_and_says_what_is_not_known() -> None:
    text = """
apiVersion: apps.nvidia.com/v1alpha1
kind: NIMService
metadata: {name: nim, namespace: serving}
spec: {image: {repository: nvcr.io/nim/meta/llama-3.1-70b-instruct, tag: "1.8"}, replicas: 3, resources: {limits: {nvidia.com/gpu: 4}}}
"""
    found = judge(text, a_node())
    assert found is not None
    assert set(found.verdict.codes) == {"DeclarationOpaque", "GpuCountTooLow"}
    assert found.verdict.required.gpus == 12


def test_what_does_not_say_its_gpus_is_undecided() -> None:
    text = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: ws, namespace: serving}
resource: {instanceType: Standard_NC48ads_A100_v4}
inference: {preset: {name: phi-4}}
"""
    found = judge(text, a_node())
    assert found is not None
    assert found.verdict.codes == ("DeclarationOpaque",)
    assert workload_report(found, reference="0000")["declared"] is None


def test_a_leader_that_differs_from_its_workers() -> None:
    text = """
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: big, namespace: serving}
spec:
  replicas: 1
  leaderWorkerTemplate:
    size: 3
    leaderTemplate: {spec: {containers: [{name: a, image: x, command: [vllm, serve, Qwen/Qwen3-32B, -tp=4, -pp=4], resources: {limits: {nvidia.com/gpu: 8}}}]}}
    workerTemplate: {spec: {containers: [{name: w, image: x, command: [ray, start], resources: {limits: {nvidia.com/gpu: 4}}}]}}
"""
    found = judge(text, a_node("a"), a_node("b"))
    assert found is not None
    verdict = found.verdict
    assert verdict.outcome is Outcome.SOUND
    assert verdict.placement is not None
    assert [(pod.pod, len(pod.local_gpus), len(pod.ranks)) for pod in verdict.placement.pods] == [(0, 8, 8), (1, 4, 4), (2, 4, 4)]
    short = judge(text, a_node("a"), a_node("b", gpus=4))
    assert short is not None
    assert short.verdict.codes == ("GpuCountTooLow",)


def rolled(text: str, *objects: Any) -> tuple[str, ...]:
    workload = read_workload(yaml.safe_load(text), Library())
    assert workload is not None
    found = judged(workload, (), a_book(*objects).inventory(0.0), FOREIGN_KIND, rolls_out=True)
    assert found is not None
    return found.verdict.codes


def test_a_roll_out_that_would_hang() -> None:
    own = a_pod("llama-5d-x", node="node-a", gpus=8)
    own["metadata"] |= {
        "labels": {"app": "llama", "pod-template-hash": "5d"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "llama-5d", "controller": True}],
    }
    text = deployment(SERVE)
    assert rolled(text, a_node(), own) == ("SurgeDoesNotFit",)
    assert rolled(text, a_node(), a_node("b"), own) == ()
    assert rolled(text, a_node()) == ()  # nothing runs yet
    first = text.replace("replicas: 1", "replicas: 1\n  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}")
    assert rolled(first, a_node(), own) == ()
    recreated = text.replace("replicas: 1", "replicas: 1\n  strategy: {type: Recreate}")
    assert rolled(recreated, a_node(), own) == ()


@pytest.mark.parametrize(
    ("replicas", "strategy", "surge"),
    [
        (1, {}, 1),
        (4, {}, None),
        (3, {}, 1),
        (10, {"maxUnavailable": 0}, 3),
        (2, {"maxSurge": "100%", "maxUnavailable": "0%"}, 2),
        (2, {"maxSurge": 0, "maxUnavailable": 1}, None),
    ],
)
def test_percentages_are_rounded_as_the_api_does(replicas: int, strategy: Json, surge: int | None) -> None:
    body = yaml.safe_load(deployment(SERVE, replicas=replicas))
    body["spec"]["strategy"] = {"rollingUpdate": strategy}
    workload = read_workload(body, Library())
    assert workload is not None
    assert workload.groups[0].surge == surge


def test_an_autoscalers_maximum_is_looked_at() -> None:
    service = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: llama, namespace: serving}
spec: {predictor: {minReplicas: 1, maxReplicas: %d, containers: [{name: a, image: 'vllm/vllm-openai:v0.19.0', args: [--model=Qwen/Qwen3-32B, -tp=8], resources: {limits: {nvidia.com/gpu: 8}}}]}}
"""
    fits, over = judge(service % 2, a_node("a"), a_node("b")), judge(service % 3, a_node("a"), a_node("b"))
    assert fits is not None
    assert over is not None
    assert (fits.verdict.codes, over.verdict.codes) == ((), ("AutoscaleMaximumDoesNotFit",))


def test_what_a_queue_starts_is_not_judged_by_what_is_free_now() -> None:
    busy = a_pod("busy", node="node-a", gpus=8, namespace="other")
    text = deployment(SERVE).replace("name: llama, ", "name: llama, labels: {kueue.x-k8s.io/queue-name: q}, ")
    waiting, queued = judge(deployment(SERVE), a_node(), busy), judge(text, a_node(), busy)
    assert waiting is not None
    assert queued is not None
    assert (waiting.verdict.codes, queued.verdict.codes) == (("GpusBusy",), ())
    never = judge(text, a_node(gpus=4))
    assert never is not None
    assert never.verdict.codes == ("GpuCountTooLow",)


SERVICE = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: llama, namespace: serving}
spec: {predictor: {model: {modelFormat: {name: vLLM}, runtime: rt}}}
"""
PRESET = """
apiVersion: serving.kserve.io/v1alpha2
kind: LLMInferenceService
metadata: {name: llama, namespace: serving}
spec: {model: {uri: "hf://Qwen/Qwen3-32B"}, baseRefs: [{name: eight}]}
"""
MAP = """
apiVersion: v1
kind: Pod
metadata: {name: llama, namespace: serving}
spec:
  containers:
  - name: main
    image: x
    command: [vllm, serve, Qwen/Qwen3-32B, "--tensor-parallel-size=$(TP)"]
    envFrom: [{configMapRef: {name: settings}}, {configMapRef: {name: more, optional: true}}]
    resources: {limits: {nvidia.com/gpu: 8}}
"""
CLAIM = """
apiVersion: v1
kind: Pod
metadata: {name: llama, namespace: serving}
spec:
  resourceClaims: [{name: gpus, resourceClaimTemplateName: eight-gpus}]
  containers:
  - name: main
    image: x
    command: [vllm, serve, Qwen/Qwen3-32B, --tensor-parallel-size=8]
    resources: {claims: [{name: gpus}]}
"""


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (SERVICE, "the ServingRuntime rt is not here"),
        (PRESET, "LLMInferenceServiceConfig eight is not here"),
        (MAP, "TP is not set here (ConfigMap settings is not)"),
        (CLAIM, "claim eight-gpus is not here, or states no number"),
    ],
)
def test_a_part_that_is_not_here_is_named(text: str, missing: str) -> None:
    workload = judge(text, a_node())
    assert workload is not None
    assert workload.verdict.outcome is Outcome.UNDECIDED
    assert missing in workload.verdict.findings[0].message


@pytest.mark.parametrize("spec", ["nodeSelector: {team: x}", "nodeSelector: {}"])
def test_a_taint_or_a_selector_alone_makes_pods_of_others_wait_at_worst(spec: str) -> None:
    """Pod admission may add tolerations and selectors: what is seen of the object is not all."""
    text = deployment("vllm serve Qwen/Qwen3-32B --tensor-parallel-size=8", spec=spec)
    barred = a_node() if "team" in spec else a_node().tainted("nvidia.com/gpu", "present")
    workload = judge(text, barred, capacity=Capacity.CLOSED)
    assert workload is not None
    assert (workload.verdict.outcome, workload.verdict.codes) == (Outcome.WAITING, ("NodesDoNotFit",))
    smaller = judge(text, a_node(gpus=4).tainted("nvidia.com/gpu", "present"), capacity=Capacity.CLOSED)
    assert smaller is not None
    assert smaller.verdict.outcome is Outcome.UNSOUND, "with no taint it would not fit either"
