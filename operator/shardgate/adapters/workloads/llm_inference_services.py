"""KServe LLMInferenceService (v1alpha1, v1alpha2): presets merged under the object, a decode and a prefill group."""

from collections.abc import Mapping
from typing import Any

from shardgate.adapters.engines.arguments import read_arguments
from shardgate.adapters.unknown import Unknown
from shardgate.adapters.workloads.containers import environment_of
from shardgate.adapters.workloads.engine_process import version_of_image
from shardgate.adapters.workloads.extraction import DECODE, LEADER_WORKER, PREFILL, SERVER, Opaque, PodGroup, ServingGroup
from shardgate.adapters.workloads.merging import merged
from shardgate.adapters.workloads.serving import Reading, find_engine, note_arguments, pod_gpus, read_group, state, told_labels
from shardgate.adapters.workloads.shell import read_script
from shardgate.adapters.workloads.shell_words import ShellSyntaxError
from shardgate.adapters.workloads.values import dicts, mapping, whole

KINDS = (("serving.kserve.io", "LLMInferenceService"),)
_ADDITIONAL = "VLLM_ADDITIONAL_ARGS"
_DRA_CLASS = "serving.kserve.io/exp-dra-device-class"
_DRA_COUNT = "serving.kserve.io/exp-dra-device-count"
_WIDTHS = ("tensor", "pipeline", "data", "dataLocal")


def read(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """A group that decodes (or serves all), and one that prefills where there is one."""
    spec, missing = _effective(body, reading)
    metadata = mapping(body.get("metadata"))
    model = mapping(spec.get("model"))
    prefill = mapping(spec.get("prefill"))
    groups = []
    for part, where, role in ((spec, "spec", DECODE if prefill else SERVER), (prefill, "spec.prefill", PREFILL)):
        if part is not spec and not prefill:
            continue
        group = _group(part, where, role, mapping(metadata.get("annotations")), reading)
        uri, name = (str(model.get(key) or "") for key in ("uri", "name"))
        if uri or name:
            group.model, group.model_also = uri or name, tuple(each for each in (name, group.model or "") if each and each != uri)
            group.explicit.add("model")
        elif not (group.model and not group.model.startswith("/mnt/models")):
            group.model = None
        if missing:
            group.hidden = f"{', '.join(missing)}: not here"
            group.opaque += [Opaque("spec.baseRefs", f"LLMInferenceServiceConfig {name} is not here") for name in missing]
        groups.append(group)
    return groups


def _effective(body: Mapping[str, Any], reading: Reading) -> tuple[dict[str, Any], list[str]]:
    """(the spec with its presets under it, names of presets that are not here)."""
    spec: Any = {}
    missing = []
    own = mapping(body.get("spec"))
    for reference in dicts(own.get("baseRefs")):
        preset = reading.library.find("LLMInferenceServiceConfig", reference.get("name"), reading.namespace)
        if preset is None:
            missing.append(str(reference.get("name")))
        else:
            spec = merged(spec, mapping(preset.get("spec")))
    return mapping(merged(spec, own)), missing


def _group(part: Mapping[str, Any], where: str, role: str, annotations: Mapping[str, Any], reading: Reading) -> ServingGroup:
    template, worker = mapping(part.get("template")), mapping(part.get("worker"))
    parallelism = mapping(part.get("parallelism"))
    group = _of_template(template, f"{where}.template", role, reading)
    for name in _WIDTHS:
        width = whole(parallelism.get(name), None)
        if width is not None:
            state(group, f"strategy.{name}", width)
    if "expert" in parallelism:
        state(group, "strategy.expertParallel", bool(parallelism["expert"]))
    pods = _pods_per_replica(parallelism) if worker else 1
    resource, gpus = pod_gpus(template, reading)
    if not gpus and _DRA_CLASS in annotations:
        resource, gpus = f"dra:{annotations[_DRA_CLASS]}", whole(annotations.get(_DRA_COUNT), 1)
    elif gpus:
        group.explicit.add("gpusPerPod")
    group.gpu_resource = resource
    if worker:
        of_worker = pod_gpus(worker, reading)[1]
        group.pods = [
            PodGroup(role="leader", count=None if pods is None else 1, gpus=gpus, template={"spec": template}),
            PodGroup(role="worker", count=None if pods is None else pods - 1, gpus=of_worker, template={"spec": worker}),
        ]
        group.role = LEADER_WORKER if role == SERVER else role
    else:
        group.pods = [PodGroup(role="server", count=1, gpus=gpus, template={"spec": template})]
    scaling = mapping(part.get("scaling"))
    stated = part.get("replicas")
    group.replicas = whole(stated if stated is not None else scaling.get("minReplicas"), 1)
    group.replicas_maximum = whole(scaling.get("maxReplicas"), None)
    if stated is not None:
        group.explicit.add("replicas")
    return group


def _of_template(template: Mapping[str, Any], where: str, role: str, reading: Reading) -> ServingGroup:
    """By the container ``main``: its own command, or the preset's, which adds the flags of a variable."""
    container: Mapping[str, Any] = next((each for each in dicts(template.get("containers")) if each.get("name") == "main"), {})
    found = find_engine(template, reading) if container.get("command") or container.get("args") else None
    group = read_group({"spec": template}, reading, where=where, found=found, role=role) if found is not None else None
    environment = environment_of(container, reading.library, reading.namespace, reading.given)
    added = _split(environment.get(_ADDITIONAL, ""))
    if group is None:
        group = ServingGroup(
            role=role, where=where, engine="vllm", engine_version=version_of_image(str(container.get("image") or "")),
            node_selector=told_labels(template), environment=environment,
        )  # fmt: skip
        group.flags = added
        group.arguments = read_arguments("vllm", group.flags, environment)
        note_arguments(group)
    group.role = role
    return group


def _split(text: str) -> list[str]:
    if not text:
        return []
    if isinstance(text, Unknown):
        return [Unknown(text, text.why, may_be_many=True)]
    try:
        commands = read_script(f"flags {text}", {}).commands
    except ShellSyntaxError:
        return [Unknown(text, f"{_ADDITIONAL} cannot be read", may_be_many=True)]
    return list(commands[0].words[1:]) if commands else []


def _pods_per_replica(parallelism: Mapping[str, Any]) -> int | None:
    """By the data ranks of each pod, or a pod for each stage; KServe takes no object with both."""
    data, local, pipeline = (whole(parallelism.get(name), None) for name in ("data", "dataLocal", "pipeline"))
    if data is not None and pipeline is not None:
        return None
    if data is not None:
        return -(-data // local) if local else None
    return pipeline
