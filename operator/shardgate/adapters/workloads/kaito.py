"""KAITO's Workspace: a preset whose widths its controller derives, or a pod template."""

from collections.abc import Mapping
from typing import Any

import yaml

from shardgate.adapters.engines.arguments import read_arguments
from shardgate.adapters.workloads.embedded_yaml import read_yaml
from shardgate.adapters.workloads.extraction import SERVER, Opaque, PodGroup, ServingGroup
from shardgate.adapters.workloads.serving import Reading, note_arguments, pod_gpus, read_group, told_labels
from shardgate.adapters.workloads.values import dicts, mapping, value_of, words

KINDS = (("kaito.sh", "Workspace"),)
_RUNTIME = "kaito.sh/runtime"


def read(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """One group; a workspace that tunes serves nothing."""
    inference = mapping(body.get("inference"))
    resource = mapping(body.get("resource"))
    if not inference:
        return []
    instance = str(resource.get("instanceType") or "")
    template = mapping(inference.get("template"))
    group = _of_template(template, reading) if template else _of_preset(body, inference, reading)
    if group is None:
        return []
    if instance:
        group.node_selector["instanceType"] = instance
    return [group]


def _of_template(template: Mapping[str, Any], reading: Reading) -> ServingGroup | None:
    group = read_group(template, reading, where="inference.template.spec")
    if group is not None:
        return group
    spec = mapping(template.get("spec"))
    device, gpus = pod_gpus(spec, reading)
    if not gpus:
        return None
    why = "the container starts no engine that is known"
    group = ServingGroup(
        role=SERVER, where="inference.template.spec", gpu_resource=device, hidden=why, node_selector=told_labels(spec),
        opaque=[Opaque("inference.template.spec", why)], pods=[PodGroup(role="server", count=1, gpus=gpus, template=template)],
    )  # fmt: skip
    group.explicit.add("gpusPerPod")
    _name_model(group, spec)
    return group


def _name_model(group: ServingGroup, spec: Mapping[str, Any]) -> None:
    """Transformers' own server names its model by a flag."""
    for container in dicts(spec.get("containers")):
        line = [*words(container.get("command")), *words(container.get("args"))]
        if model := value_of(line, "--pretrained_model_name_or_path"):
            group.model = model.strip('"')
            group.explicit.add("model")
        if dtype := value_of(line, "--torch_dtype"):
            group.arguments.texts["model.dtype"] = dtype.strip('"')
            group.explicit.add("dtype")


def _of_preset(body: Mapping[str, Any], inference: Mapping[str, Any], reading: Reading) -> ServingGroup:
    annotations = mapping(mapping(body.get("metadata")).get("annotations"))
    engine = None if annotations.get(_RUNTIME) == "transformers" else "vllm"
    preset = mapping(inference.get("preset"))
    why = "KAITO's controller derives it from the preset and the nodes"
    group = ServingGroup(
        role=SERVER, where="inference.preset", engine=engine, model=str(preset.get("name") or "") or None, hidden=why
    )
    group.opaque.append(Opaque("inference.preset", f"tensor, pipeline and GPUs of a pod: {why}"))
    if group.model:
        group.explicit.add("model")
    group.pods = [PodGroup(role="server", count=None, gpus=None)]
    config = reading.library.find("ConfigMap", inference.get("config"), reading.namespace)
    if inference.get("config") and config is None:
        group.opaque.append(Opaque("inference.config", f"ConfigMap {inference['config']} is not here"))
    text = mapping(mapping(config).get("data")).get("inference_config.yaml")
    if engine and isinstance(text, str):
        try:
            stated = mapping(mapping(read_yaml(text)).get("vllm"))
        except yaml.YAMLError:
            group.opaque.append(Opaque("inference.config", "inference_config.yaml is no YAML"))
            return group
        model = group.model
        group.flags = [f"--{key}={value}" for key, value in stated.items() if not isinstance(value, (dict, list))]
        group.arguments = read_arguments(engine, group.flags, {})
        note_arguments(group)
        group.model = model
        if "strategy.tensor" in group.arguments.fields:
            # Stated widths are the engine's: those that are not stated are its defaults.
            group.hidden = ""
    return group
