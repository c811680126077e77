"""What workloads of every kind declare: manifests of our own, after the patterns that people use."""

import copy
import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import a_vllm_deployment
from shardgate.adapters.extracts import extract
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.registry import READERS, asks_for_gpus, read_workload, read_workloads

Json = dict[str, Any]
GPUS = "resources: {limits: {nvidia.com/gpu: '%s'}}"


def read(text: str) -> list[Json]:
    bodies = [each for each in yaml.safe_load_all(text) if each]
    return [extract(each) for each in read_workloads(bodies, Library.of(bodies))]


def groups(text: str) -> list[Json]:
    return [group for each in read(text) for group in each["groups"]]


def deployment(container: str, spec: str = "", kind: str = "Deployment") -> str:
    return f"""
apiVersion: apps/v1
kind: {kind}
metadata: {{name: llama, namespace: serving}}
spec:
  replicas: 2
  template:
    spec:
      {spec or "nodeSelector: {pool: h100}"}
      containers:
      - {{name: sidecar, image: proxy}}
      - {container}
"""


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        (
            "{name: a, image: 'vllm/vllm-openai:v0.11.0', args: [--model=meta-llama/Llama-3.1-8B, -tp, '4', --max_model_len, 8k], %s}"
            % (GPUS % 4),
            {
                "engine": "vllm",
                "engineVersion": "0.11.0",
                "model": "meta-llama/Llama-3.1-8B",
                "tensor": 4,
                "pipeline": 1,
                "maxModelLen": 8000,
            },
        ),
        (
            "{name: a, image: x, command: [vllm, serve, org/m], args: ['--tensor-parallel-size=$(TP)'], env: [{name: TP, value: '2'}], %s}"
            % (GPUS % 2),
            {"engine": "vllm", "model": "org/m", "tensor": 2},
        ),
        (
            "{name: a, image: x, command: [python3, -m, sglang.launch_server, --model-path, org/m, --tp, '8', --dp, '8', --enable-dp-attention], %s}"
            % (GPUS % 8),
            {"engine": "sglang", "tensor": 8, "data": 8, "expert": 1, "worldSize": 8},
        ),
        (
            "{name: a, image: 'ghcr.io/huggingface/text-generation-inference:3.0.1', env: [{name: MODEL_ID, value: org/m}, {name: NUM_SHARD, value: '2'}, {name: QUANTIZE, value: awq}], %s}"
            % (GPUS % 2),
            {"engine": "tgi", "engineVersion": "3.0.1", "model": "org/m", "tensor": 2, "quantization": "awq", "worldSize": 2},
        ),
        (
            "{name: a, image: 'ghcr.io/huggingface/text-generation-inference:3.0.1', args: [--model-id, org/m], %s}" % (GPUS % 4),
            {"engine": "tgi", "tensor": None, "worldSize": 4},
        ),
        (
            "{name: a, image: x, command: [sh, -c], args: ['exec trtllm-serve org/m --tp_size 4 --max_batch_size 16 2>&1 | tee log'], %s}"
            % (GPUS % 4),
            {"engine": "tensorrt-llm", "model": "org/m", "tensor": 4, "maxSequences": 16},
        ),
        (
            "{name: a, image: x, command: [lmdeploy, serve, api_server, org/m, --tp, '2'], %s}" % (GPUS % 2),
            {"engine": "lmdeploy", "model": "org/m", "tensor": 2},
        ),
        (
            "{name: a, image: 'nvcr.io/nim/meta/llama-3.1-8b-instruct:1.8', %s}" % (GPUS % 1),
            {"engine": "nim", "tensor": None, "pipeline": None, "worldSize": None},
        ),
        (
            "{name: a, image: x, command: [vllm, serve, org/m, --tensor-parallel-size, $(TP)], %s}" % (GPUS % 4),
            {"engine": "vllm", "tensor": None, "pipeline": 1, "worldSize": None},
        ),
        (
            "{name: a, image: x, command: [bash, -c, 'vllm serve org/m $EXTRA'], %s}" % (GPUS % 4),
            {"engine": "vllm", "model": "org/m", "tensor": None, "pipeline": None},
        ),
        (
            "{name: a, image: 'vllm/vllm-openai-cpu:v0.11', command: [vllm, serve, org/m]}",
            {"engine": "vllm", "worldSize": 0},
        ),
        (
            "{name: a, image: x, command: [vllm, serve, org/m, --tensor-parallel-size, '2', --tensor-parallel-size, '8'], %s}"
            % (GPUS % 4),
            {"tensor": 8, "mismatch": "world_gt_gpus"},
        ),
    ],
)
def test_a_container(container: str, expected: Json) -> None:
    (group,) = groups(deployment(container))
    told = {**group, **group["strategy"]}
    assert {name: told[name] for name in expected} == expected
    assert group["replicas"] == 2
    assert group["nodeSelector"] == {"pool": "h100"}


@pytest.mark.parametrize(
    "container",
    [
        "{name: a, image: nvidia/cuda, command: [nvidia-smi], %s}" % (GPUS % 1),
        "{name: a, image: vllm/vllm-openai, command: [sleep, infinity], %s}" % (GPUS % 1),
        "{name: a, image: pytorch, command: [torchrun, train.py, --tensor-parallel-size, '8'], %s}" % (GPUS % 8),
        "{name: a, image: jupyter/notebook, args: [--port=8888], %s}" % (GPUS % 1),
        "{name: a, image: nginx, %s}" % (GPUS % 1),
        "{name: a, image: x, command: [bash, -c, 'echo vllm serve org/m'], %s}" % (GPUS % 1),
    ],
)
def test_what_serves_nothing_is_left_alone(container: str) -> None:
    text = deployment(container)
    assert read(text) == []
    assert asks_for_gpus(yaml.safe_load(text))


def test_an_engine_over_several_pods_of_a_stateful_set_is_one_replica() -> None:
    (group,) = groups(
        deployment(
            "{name: a, image: x, command: [python, -m, sglang.launch_server, --model, org/m, --tp, '16', --nnodes, '2'], %s}"
            % (GPUS % 8),
            kind="StatefulSet",
        )
    )
    assert (group["replicas"], group["podsPerReplica"], group["gpusPerReplica"], group["worldSize"]) == (1, 2, 16, 16)


CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: serving}
data:
  TP: "4"
  run.sh: |
    #!/bin/bash
    vllm serve org/m --tensor-parallel-size $TP --pipeline-parallel-size ${PP:-2}
  vllm.yaml: |
    tensor-parallel-size: 8
    enable-expert-parallel: true
---
"""


def test_config_maps_of_the_same_input_are_read() -> None:
    by_script = deployment(
        "{name: a, image: x, command: [/scripts/run.sh], envFrom: [{configMapRef: {name: settings}}], volumeMounts: [{name: s, mountPath: /scripts}], %s}"
        % (GPUS % 8),
        "volumes: [{name: s, configMap: {name: settings}}]",
    )
    (group,) = groups(CONFIG + by_script)
    assert (group["strategy"]["tensor"], group["strategy"]["pipeline"]) == (4, 2)
    by_file = deployment(
        "{name: a, image: x, command: [vllm, serve, org/m, --config, /etc/vllm.yaml], volumeMounts: [{name: s, mountPath: /etc/vllm.yaml, subPath: vllm.yaml}], %s}"
        % (GPUS % 8),
        "volumes: [{name: s, configMap: {name: settings}}]",
    )
    (group,) = groups(CONFIG + by_file)
    assert (group["strategy"]["tensor"], group["strategy"]["expertParallel"], group["model"]) == (8, True, "org/m")
    (without,) = read(by_file)
    assert without["groups"][0]["strategy"]["tensor"] is None
    assert any("vllm.yaml" in each["why"] for each in without["opaque"])


LWS = """
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: big}
spec:
  replicas: 3
  leaderWorkerTemplate:
    size: 2
    leaderTemplate:
      spec:
        containers:
        - name: leader
          image: vllm/vllm-openai:v0.9.0
          command: [sh, -c]
          args:
          - |
            if [ "$LWS_WORKER_INDEX" = "0" ]; then
              ray start --head && vllm serve org/m -tp 8 -pp $LWS_GROUP_SIZE
            else
              ray start --block
            fi
          resources: {limits: {nvidia.com/gpu: 8}}
    workerTemplate:
      spec:
        containers:
        - {name: worker, image: x, command: [ray, start], resources: {limits: {nvidia.com/gpu: 8}}}
"""


def test_a_leader_and_its_workers() -> None:
    (group,) = groups(LWS)
    assert (group["role"], group["replicas"], group["podsPerReplica"]) == ("leader-worker", 3, 2)
    assert group["gpusPerPod"] == {"leader": 8, "worker": 8}
    assert (group["strategy"]["tensor"], group["strategy"]["pipeline"], group["worldSize"], group["mismatch"]) == (8, 2, 16, None)


LLM = """
apiVersion: serving.kserve.io/v1alpha2
kind: LLMInferenceServiceConfig
metadata: {name: base, namespace: kserve}
spec:
  replicas: 3
  template: {containers: [{name: main, image: ghcr.io/llm-d/llm-d-cuda:v0.4.0, resources: {limits: {nvidia.com/gpu: '8'}}}]}
---
apiVersion: serving.kserve.io/v1alpha2
kind: LLMInferenceService
metadata: {name: deepseek}
spec:
  baseRefs: [{name: base}]
  replicas: 2
  model: {uri: hf://org/m, name: org/m}
  parallelism: {data: 16, dataLocal: 8, expert: true}
  template: {containers: [{name: main, env: [{name: VLLM_ADDITIONAL_ARGS, value: "--max-model-len 4096 --kv-cache-dtype=fp8"}]}]}
  worker: {containers: [{name: main, resources: {limits: {nvidia.com/gpu: '8'}}}]}
  prefill:
    parallelism: {tensor: 4}
    template: {containers: [{name: main, resources: {limits: {nvidia.com/gpu: '4'}}}]}
"""


def test_presets_are_merged_under_an_llm_inference_service() -> None:
    decode, prefill = groups(LLM)
    assert (decode["role"], decode["replicas"], decode["podsPerReplica"], decode["worldSize"]) == ("decode", 2, 2, 16)
    assert (decode["model"], decode["maxModelLen"], decode["kvCache"]) == ("hf://org/m", 4096, "fp8")
    assert (prefill["role"], prefill["strategy"]["tensor"], prefill["gpusPerReplica"]) == ("prefill", 4, 4)
    without = LLM[LLM.index("---") + 4 :]
    assert groups(without)[0]["strategy"]["tensor"] is None  # what the preset says is not known


RUNTIME = """
apiVersion: serving.kserve.io/v1alpha1
kind: ClusterServingRuntime
metadata: {name: rt}
spec:
  supportedModelFormats: [{name: vLLM, autoSelect: true}]
  containers: [{name: kserve-container, image: 'vllm/vllm-openai:v0.10.0', args: [--model=/mnt/models, -tp=2], resources: {limits: {nvidia.com/gpu: 2}}}]
---
"""
SERVICE = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: llama}
spec:
  predictor:
    minReplicas: 2
    maxReplicas: 5
    model: {modelFormat: {name: vLLM}, storageUri: 'hf://org/m', args: [--max-model-len=4096], resources: {limits: {nvidia.com/gpu: 4}}}
"""


def test_an_inference_service_stands_on_its_runtime() -> None:
    (group,) = groups(RUNTIME + SERVICE)
    assert (group["model"], group["replicas"], group["strategy"]["tensor"], group["gpusPerReplica"]) == ("hf://org/m", 2, 2, 4)
    assert (group["maxModelLen"], group["mismatch"]) == (4096, "world_lt_gpus")
    (alone,) = groups(RUNTIME)
    assert (alone["replicas"], alone["model"]) == (None, "/mnt/models")


GRAPH = """
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata: {name: graph}
spec:
  services:
    Frontend: {componentType: frontend, replicas: 1, extraPodSpec: {mainContainer: {image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.0}}}
    Decode:
      componentType: worker
      replicas: 2
      multinode: {nodeCount: 2}
      resources: {limits: {gpu: "8", custom: {rdma/ib: "8"}}}
      extraPodSpec: {mainContainer: {image: x, command: [python3, -m, dynamo.vllm], args: [--model, org/m, --tensor-parallel-size=16]}}
    Prefill:
      componentType: worker
      resources: {limits: {gpu: "4"}}
      extraPodSpec: {mainContainer: {image: x, command: [python3, -m, dynamo.vllm, --model, org/m, -tp, "4", --is-prefill-worker]}}
"""


def test_a_graph_of_prefill_and_decode() -> None:
    decode, prefill = groups(GRAPH)
    assert (decode["role"], decode["replicas"], decode["podsPerReplica"], decode["gpusPerReplica"], decode["worldSize"]) == (
        "decode",
        2,
        2,
        16,
        16,
    )
    assert (prefill["role"], prefill["strategy"]["tensor"], prefill["gpuResource"]) == ("prefill", 4, "nvidia.com/gpu")


NIM = """
apiVersion: apps.nvidia.com/v1alpha1
kind: NIMCache
metadata: {name: cache}
spec: {source: {hf: {namespace: org, modelName: m}}}
---
apiVersion: apps.nvidia.com/v1alpha1
kind: NIMService
metadata: {name: nim}
spec:
  image: {repository: nvcr.io/nim/nvidia/llm-nim, tag: "1.12"}
  storage: {nimCache: {name: cache}}
  replicas: 1
  resources: {limits: {nvidia.com/gpu: 8}}
  multiNode: {parallelism: {tensor: 8, pipeline: 2}}
"""
RAY = """
apiVersion: ray.io/v1
kind: RayService
metadata: {name: ray}
spec:
  serveConfigV2: |
    applications:
    - name: llm
      args:
        llm_configs:
        - model_loading_config: {model_id: m, model_source: org/m}
          accelerator_type: H100
          deployment_config: {autoscaling_config: {min_replicas: 2, max_replicas: 4}}
          engine_kwargs: {tensor_parallel_size: 8, pipeline_parallel_size: 2, max_model_len: 8192}
  rayClusterConfig:
    headGroupSpec: {template: {spec: {containers: [{name: head, image: rayproject/ray-llm, resources: {limits: {cpu: 8}}}]}}}
    workerGroupSpecs:
    - {groupName: gpu, replicas: 4, template: {spec: {containers: [{name: worker, image: rayproject/ray-llm, resources: {limits: {nvidia.com/gpu: 8}}}]}}}
"""
KAITO = """
apiVersion: v1
kind: ConfigMap
metadata: {name: params}
data: {inference_config.yaml: "vllm:\\n  tensor-parallel-size: 2\\n  max-model-len: 4096\\n"}
---
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: ws}
resource: {instanceType: Standard_NC48ads_A100_v4}
inference: {preset: {name: phi-4}, config: params}
"""


def test_nim_ray_and_kaito() -> None:
    (nim,) = groups(NIM)
    assert (nim["model"], nim["strategy"]["tensor"], nim["podsPerReplica"], nim["worldSize"]) == ("org/m", 8, 2, 16)
    (ray,) = groups(RAY)
    assert (ray["model"], ray["replicas"], ray["podsPerReplica"], ray["worldSize"], ray["gpusPerPod"]) == (
        "org/m",
        2,
        2,
        16,
        {"head": 0, "worker": 8},
    )
    (kaito,) = groups(KAITO)
    assert (kaito["model"], kaito["strategy"]["tensor"], kaito["podsPerReplica"], kaito["maxModelLen"]) == ("phi-4", 2, None, 4096)
    tuning = KAITO.replace("inference: {preset: {name: phi-4}, config: params}", "tuning: {preset: {name: phi-4}}")
    assert groups(tuning) == []


CLAIM = """
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: two, namespace: serving}
spec: {spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu.nvidia.com, count: 2}}]}}}
---
"""


def test_devices_by_claims() -> None:
    claimed = deployment(
        "{name: a, image: x, command: [vllm, serve, org/m, -tp=2]}", "resourceClaims: [{name: g, resourceClaimTemplateName: two}]"
    )
    (group,) = groups(CLAIM + claimed)
    assert (group["gpuResource"], group["gpusPerPod"], group["mismatch"]) == ("dra:gpu.nvidia.com", {"server": 2}, None)
    everything = CLAIM.replace("count: 2", "allocationMode: All")
    assert groups(everything + claimed)[0]["gpusPerPod"] == {"server": None}


SAMPLES = [
    deployment("{name: a, image: x, command: [bash, -c, 'vllm serve org/m -tp 2'], %s}" % (GPUS % 4)),
    LWS,
    LLM,
    RUNTIME,
    SERVICE,
    GRAPH,
    NIM,
    RAY,
    KAITO,
]
MANY = 300
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 99),
    st.text(max_size=5),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(each for key, item in inner for each in paths(item, (*here, key)))]


@settings(max_examples=MANY)
@given(st.data())
def test_no_manifest_breaks_the_reader(data: st.DataObject) -> None:
    bodies = [each for each in yaml.safe_load_all(data.draw(st.sampled_from(SAMPLES))) if each]
    body = copy.deepcopy(data.draw(st.sampled_from(bodies)))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(paths(body)[1:]))
        at: Any = body
        for key in path[:-1]:
            at = at[key] if isinstance(at, dict | list) and (key in at if isinstance(at, dict) else key < len(at)) else None
            if at is None:
                break
        if isinstance(at, dict) or (isinstance(at, list) and path[-1] < len(at)):
            at[path[-1]] = data.draw(JUNK)
    workload = read_workload(body, Library.of([body, *bodies])) if isinstance(body.get("metadata", {}), dict) else None
    if workload is not None:
        json.dumps(extract(workload), allow_nan=False)
    asks_for_gpus(body)


def test_every_kind_reads_an_empty_object() -> None:
    for group, kind in READERS:
        body = {"apiVersion": f"{group}/v1" if group else "v1", "kind": kind, "metadata": {"name": "x"}}
        for spec in ({}, {"spec": None}, {"spec": []}, {"spec": {"template": None}}):
            workload = read_workload({**body, **spec}, Library())
            assert workload is None or extract(workload)["groups"]


def test_a_rollout_may_take_its_pods_from_a_deployment() -> None:
    rollout = {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "r", "namespace": "serving"},
        "spec": {"replicas": 3, "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"}},
    }  # fmt: skip
    workload = read_workload(rollout, Library.of([a_vllm_deployment()]))
    assert workload is not None
    assert (workload.groups[0].width("tensor"), workload.groups[0].replicas) == (8, 3)
    assert read_workload(rollout, Library()) is None
