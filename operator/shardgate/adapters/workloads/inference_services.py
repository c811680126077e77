"""KServe InferenceService (v1beta1) with its (Cluster)ServingRuntime, and runtimes that no service here uses."""

from collections.abc import Mapping
from typing import Any

from shardgate.adapters.workloads.engine_process import EngineProcess, engine_of_image
from shardgate.adapters.workloads.extraction import LEADER_WORKER, SERVER, Opaque, PodGroup, ServingGroup
from shardgate.adapters.workloads.merging import merged
from shardgate.adapters.workloads.serving import Found, Reading, find_engine, pod_gpus, read_group, state, told_labels
from shardgate.adapters.workloads.values import dicts, mapping, whole, words

KINDS = (("serving.kserve.io", "InferenceService"),)
RUNTIME_KINDS = (("serving.kserve.io", "ServingRuntime"), ("serving.kserve.io", "ClusterServingRuntime"))
_MAIN = "kserve-container"
_MOUNT = "/mnt/models"
_ENGINE_OF_FORMAT = {"vllm": "vllm", "huggingface": "vllm", "sglang": "sglang", "tensorrt-llm": "tensorrt-llm"}
"""Formats whose built-in runtime is known (huggingfaceserver runs vLLM where it can)."""


def read(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """One group, by the predictor on top of its runtime."""
    predictor = mapping(mapping(body.get("spec")).get("predictor"))
    model = mapping(predictor.get("model"))
    runtime = _runtime(model, reading)
    pod = _pod(predictor, model, mapping(mapping(runtime).get("spec")))
    group = _group(pod, model, reading)
    if group is None:
        return []
    _state_model(group, model, runtime is not None)
    workers = mapping(merged(mapping(mapping(runtime).get("spec")).get("workerSpec"), predictor.get("workerSpec")))
    if workers:
        _with_workers(group, workers, pod, reading)
    group.replicas = whole(predictor.get("minReplicas"), 1)
    group.replicas_maximum = whole(predictor.get("maxReplicas"), None)
    if "minReplicas" in predictor:
        group.explicit.add("replicas")
    return [group]


def read_runtime(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """A runtime by itself: what its services will run, however many there will be."""
    for service in reading.library.all("InferenceService"):
        model = mapping(mapping(mapping(service.get("spec")).get("predictor")).get("model"))
        runtime = _runtime(model, reading)
        if runtime is not None and mapping(runtime.get("metadata")).get("name") == mapping(body.get("metadata")).get("name"):
            return []
    spec = mapping(body.get("spec"))
    group = read_group({"spec": spec}, reading, where="spec")
    if group is None:
        return []
    group.replicas = None
    return [group]


def _runtime(model: Mapping[str, Any], reading: Reading) -> Mapping[str, Any] | None:
    """The runtime, where it is here: by name, else the one that takes the format by itself."""
    name = model.get("runtime")
    if name:
        return reading.library.find("ServingRuntime", name, reading.namespace) or reading.library.find(
            "ClusterServingRuntime", name, ""
        )
    wanted = str(mapping(model.get("modelFormat")).get("name") or "").lower()
    for kind in ("ServingRuntime", "ClusterServingRuntime"):
        for body in reading.library.all(kind):
            for each in dicts(mapping(body.get("spec")).get("supportedModelFormats")):
                if wanted and str(each.get("name")).lower() == wanted and each.get("autoSelect"):
                    return body
    return None


def _pod(predictor: Mapping[str, Any], model: Mapping[str, Any], runtime: Mapping[str, Any]) -> dict[str, Any]:
    """The pod: the runtime's containers, what the model says over the main one (its flags come behind), the predictor's own."""
    containers = [dict(each) for each in dicts(runtime.get("containers"))]
    own = {key: model[key] for key in ("image", "command", "env", "resources") if model.get(key)}
    if model:
        main = next((each for each in containers if each.get("name") == _MAIN), None)
        if main is None:
            main = {"name": _MAIN}
            containers.append(main)
        flags = [*words(main.get("args")), *words(model.get("args"))]
        main |= merged(main, own)
        if flags:
            main["args"] = flags
    containers = merged(containers, dicts(predictor.get("containers")))
    kept = {
        key: value
        for key, value in {**runtime, **predictor}.items()
        if key in ("nodeSelector", "affinity", "tolerations", "volumes")
    }
    return {**kept, "containers": containers}


def _group(pod: Mapping[str, Any], model: Mapping[str, Any], reading: Reading) -> ServingGroup | None:
    group = read_group({"spec": pod}, reading, where="spec.predictor")
    if group is not None:
        return group
    main: Mapping[str, Any] = next((each for each in dicts(pod.get("containers")) if each.get("name") == _MAIN), {})
    format_name = str(mapping(model.get("modelFormat")).get("name") or "").lower()
    engine = "nim" if format_name.startswith("nvidia-nim") else _ENGINE_OF_FORMAT.get(format_name, "")
    if engine and not main.get("image") and not main.get("command"):
        # The runtime is not here: the flags that stand here are the engine's, and others may stand there.
        why = f"the ServingRuntime {model.get('runtime') or format_name} is not here"
        process = EngineProcess(engine=engine, arguments=words(main.get("args")), opaque=[why])
        found = read_group({"spec": pod}, reading, where="spec.predictor.model", found=Found(main, process))
        if found is not None and (engine == "nim" or not process.arguments):
            found.hidden = why
        return found
    if pod_gpus(pod, reading)[1] and (engine_of_image(str(main.get("image") or ""))[0] or format_name in _ENGINE_OF_FORMAT):
        return _idle(pod, reading)
    return None


def _idle(pod: Mapping[str, Any], reading: Reading) -> ServingGroup:
    """A service whose container starts no engine."""
    resource, gpus = pod_gpus(pod, reading)
    why = "the container starts no engine that is known"
    group = ServingGroup(
        role=SERVER, where="spec.predictor", gpu_resource=resource, hidden=why, opaque=[Opaque("spec.predictor", why)],
        node_selector=told_labels(pod), pods=[PodGroup(role="server", count=1, gpus=gpus, template={"spec": pod})],
    )  # fmt: skip
    group.explicit.add("gpusPerPod")
    return group


def _state_model(group: ServingGroup, model: Mapping[str, Any], has_runtime: bool) -> None:  # noqa: FBT001  # of one caller
    """The storage is the model, unless a flag names another than the place where that is mounted."""
    storage = str(model.get("storageUri") or mapping(model.get("storage")).get("path") or "")
    if storage and group.engine != "nim" and (not group.model or group.model.rstrip("/") == _MOUNT):
        group.model_also = tuple(each for each in (*group.model_also, group.model) if each)
        group.model = storage
        group.explicit.add("model")
    elif group.model and not storage and not has_runtime and group.model == _MOUNT:
        group.explicit.add("model")


def _with_workers(group: ServingGroup, workers: Mapping[str, Any], pod: Mapping[str, Any], reading: Reading) -> None:
    """``pipelineParallelSize`` pods, of which the first leads."""
    for name, path in (("tensorParallelSize", "strategy.tensor"), ("pipelineParallelSize", "strategy.pipeline")):
        state(group, path, whole(workers.get(name), None))
    stages = group.width("pipeline")
    gpus = pod_gpus(workers, reading)[1]
    leads = group.pods[0].gpus
    group.role = LEADER_WORKER
    group.pods = [
        PodGroup(role="leader", count=1, gpus=leads, template={"spec": pod}),
        PodGroup(role="worker", count=None if stages is None else stages - 1, gpus=gpus, template={"spec": workers}),
    ]
    if find_engine(workers, reading) is not None and gpus is None:
        group.pods[1].gpus = leads
