"""Kinds that declare a model and leave the pods to their operator: LLMKube, ModelBooster, KubeAI, production-stack, llmaz."""

from collections.abc import Mapping
from typing import Any

from shardgate.adapters.engines.arguments import read_arguments
from shardgate.adapters.gpu_resources import PLAIN
from shardgate.adapters.workloads.engine_process import version_of_image
from shardgate.adapters.workloads.extraction import SERVER, PodGroup, ServingGroup
from shardgate.adapters.workloads.serving import Reading, gpus_of, note_arguments, state, told_labels
from shardgate.adapters.workloads.values import dicts, mapping, whole, words

_ENGINES = {"vllm": "vllm", "sglang": "sglang", "tgi": "tgi", "tensorrt-llm": "tensorrt-llm"}


def _group(
    where: str, engine: str | None, *, model: object, replicas: object, gpus: int | None, resource: str | None,
    flags: list[str] | None = None, image: object = "", environment: Mapping[str, str] | None = None,
) -> ServingGroup:  # fmt: skip
    group = ServingGroup(role=SERVER, where=where, engine=engine, engine_version=version_of_image(str(image or "")))
    group.flags, group.environment = list(flags or ()), dict(environment or {})
    if engine:
        group.arguments = read_arguments(engine, group.flags, group.environment)
        note_arguments(group)
    if model:
        group.model = str(model)
        group.explicit.add("model")
    group.replicas = whole(replicas, 1)
    if replicas is not None:
        group.explicit.add("replicas")
    group.pods = [PodGroup(role="server", count=1, gpus=gpus)]
    group.gpu_resource = resource if gpus else None
    if gpus:
        group.explicit.add("gpusPerPod")
    return group


def read_llmkube(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """LLMKube's InferenceService with its Model: the operator makes the tensor width the number of GPUs where none is stated."""
    spec = mapping(body.get("spec"))
    model = mapping(mapping(reading.library.find("Model", spec.get("modelRef"), reading.namespace)).get("spec"))
    runtime = str(spec.get("runtime") or "llamacpp").lower()
    engine = _ENGINES.get(runtime)
    config = mapping(spec.get(f"{runtime}Config"))
    flags = [
        f"--{_dashed(key)}={value}" for key, value in config.items() if isinstance(value, (str, int, float)) and value is not True
    ]
    flags += [f"--{_dashed(key)}" for key, value in config.items() if value is True]
    hardware = mapping(mapping(model.get("hardware")).get("gpu"))
    gpus = whole(mapping(spec.get("resources")).get("gpu"), whole(hardware.get("count"), None))
    vendor = str(hardware.get("vendor") or "nvidia")
    resource = {"nvidia": PLAIN}.get(vendor)
    group = _group(
        "spec", engine, model=model.get("source"), replicas=spec.get("replicas"), gpus=gpus, resource=resource,
        flags=[*flags, *words(spec.get("extraArgs"))], image=spec.get("image"),
    )  # fmt: skip
    if engine == "vllm" and "strategy.tensor" not in group.arguments.fields and gpus:
        group.arguments.fields["strategy.tensor"] = gpus
    state(group, "engine.maxModelLen", whole(spec.get("contextSize"), None))
    if model.get("quantization") and group.text("setting.quantization") is None:
        group.arguments.texts["setting.quantization"] = str(model["quantization"])
        group.explicit.add("quantization")
    if spec.get("cacheTypeK"):
        group.arguments.texts["model.kvCache"] = str(spec["cacheTypeK"])
        group.explicit.add("kvCache")
    group.node_selector = told_labels(spec)
    return [group]


def _dashed(name: str) -> str:
    """``maxModelLen`` -> ``max-model-len``; ``cpuOffloadGB`` -> ``cpu-offload-gb``."""
    parts: list[str] = []
    for index, character in enumerate(name):
        if character.isupper() and index and not name[index - 1].isupper():
            parts.append("-")
        parts.append(character.lower())
    return "".join(parts)


def read_model_booster(body: Mapping[str, Any], _reading: Reading) -> list[ServingGroup]:
    """Kthena's ModelBooster: flags of its workers in a map."""
    spec = mapping(body.get("spec"))
    backend = mapping(spec.get("backend"))
    engine = _ENGINES.get(str(backend.get("type") or "").lower())
    groups = []
    for index, worker in enumerate(dicts(backend.get("workers"))):
        devices = gpus_of(worker)
        resource = max(devices, key=lambda each: devices[each], default=None)
        flags = [f"--{key}={value}" for key, value in mapping(worker.get("config")).items() if not isinstance(value, (dict, list))]
        group = _group(
            f"spec.backend.workers[{index}]", engine, model=backend.get("modelURI"),
            replicas=backend.get("replicas", backend.get("minReplicas")), gpus=devices.get(resource or ""), resource=resource,
            flags=flags, image=worker.get("image"),
        )  # fmt: skip
        group.pods[0].count = whole(worker.get("pods"), 1)
        group.role = {"prefill": "prefill", "decode": "decode"}.get(str(worker.get("type")), SERVER)
        groups.append(group)
    return groups


def read_kubeai(body: Mapping[str, Any], _reading: Reading) -> list[ServingGroup]:
    """KubeAI's Model: its resource profile, times the number behind the colon."""
    spec = mapping(body.get("spec"))
    engine = {"VLLM": "vllm"}.get(str(spec.get("engine") or ""))
    profile, _, times = str(spec.get("resourceProfile") or "").partition(":")
    if "TextGeneration" not in (spec.get("features") or ["TextGeneration"]):
        return []
    gpus = None if not profile or profile.startswith("cpu") else whole(times or 1, None)
    environment = {key: str(value) for key, value in mapping(spec.get("env")).items()}
    group = _group(
        "spec", engine, model=spec.get("url"), replicas=spec.get("replicas", spec.get("minReplicas")), gpus=gpus, resource=None,
        flags=words(spec.get("args")), image=spec.get("image"), environment=environment,
    )  # fmt: skip
    group.replicas_maximum = whole(spec.get("maxReplicas"), None)
    if profile:
        group.node_selector["resourceProfile"] = profile
    return [group]


def read_vllm_runtime(body: Mapping[str, Any], _reading: Reading) -> list[ServingGroup]:
    """production-stack's VLLMRuntime."""
    spec = mapping(body.get("spec"))
    model, config, deployment = mapping(spec.get("model")), mapping(spec.get("vllmConfig")), mapping(spec.get("deploymentConfig"))
    told = {**{key: model.get(key) for key in ("maxModelLen", "dtype", "maxNumSeqs")}, **config}
    flags = [
        f"--{_dashed(key)}={value}"
        for key, value in told.items()
        if isinstance(value, (str, int, float)) and not isinstance(value, bool)
    ]
    flags += [f"--{_dashed(key)}" for key, value in told.items() if value is True]
    flags += words(config.get("extraArgs"))
    devices = mapping(deployment.get("resources"))
    gpus = whole(devices.get("gpu"), None)
    resource = str(devices.get("gpuType") or PLAIN)
    return [
        _group(
            "spec", "vllm", model=model.get("modelURL"), replicas=deployment.get("replicas"), gpus=gpus, resource=resource,
            flags=flags, image=mapping(deployment.get("image")).get("name"),
        )
    ]  # fmt: skip


def read_playground(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """Llmaz' Playground with its main model's flavour."""
    spec = mapping(body.get("spec"))
    claims = dicts(mapping(spec.get("modelClaims")).get("models"))
    name = mapping(spec.get("modelClaim")).get("modelName") or next(
        (each.get("name") for each in claims if each.get("role", "main") == "main"), None
    )
    model = mapping(mapping(reading.library.find("OpenModel", name, reading.namespace)).get("spec"))
    flavors = dicts(mapping(model.get("inferenceConfig")).get("flavors"))
    devices = gpus_of({"resources": {"limits": flavors[0].get("limits")}}) if flavors else {}
    resource = next(iter(devices), None)
    backend = str(mapping(spec.get("backendRuntimeConfig")).get("backendName") or "vllm").lower()
    group = _group(
        "spec", _ENGINES.get(backend), model=mapping(mapping(model.get("source")).get("modelHub")).get("modelID") or name,
        replicas=spec.get("replicas"), gpus=devices.get(resource or ""), resource=resource,
        flags=words(mapping(spec.get("backendRuntimeConfig")).get("args")),
    )  # fmt: skip
    for parameter, path in (("TP", "strategy.tensor"), ("PP", "strategy.pipeline")):
        state(group, path, whole(mapping(flavors[0].get("params")).get(parameter), None) if flavors else None)
    return [group]


READERS = {
    ("inference.llmkube.dev", "InferenceService"): read_llmkube,
    ("workload.serving.volcano.sh", "ModelBooster"): read_model_booster,
    ("kubeai.org", "Model"): read_kubeai,
    ("production-stack.vllm.ai", "VLLMRuntime"): read_vllm_runtime,
    ("inference.llmaz.io", "Playground"): read_playground,
}
