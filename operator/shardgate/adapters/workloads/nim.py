"""NVIDIA's NIMService: an image that carries its model, or a cache that names one."""

from collections.abc import Mapping
from typing import Any

from shardgate.adapters.workloads.containers import environment_of
from shardgate.adapters.workloads.engine_process import EngineProcess
from shardgate.adapters.workloads.extraction import LEADER_WORKER, PodGroup, ServingGroup
from shardgate.adapters.workloads.serving import Found, Reading, pod_gpus, read_group, state
from shardgate.adapters.workloads.values import dicts, mapping, whole, words

KINDS = (("apps.nvidia.com", "NIMService"),)


def read(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """One group; widths that the image's profile decides are unknown."""
    spec = mapping(body.get("spec"))
    image = mapping(spec.get("image"))
    name = ":".join(str(each) for each in (image.get("repository"), image.get("tag")) if each)
    container = {
        "name": "main",
        "image": name,
        "env": spec.get("env"),
        "args": spec.get("args"),
        "resources": spec.get("resources"),
    }
    pod = {
        "containers": [container],
        **{key: spec[key] for key in ("nodeSelector", "tolerations", "affinity", "resourceClaims") if spec.get(key)},
    }
    environment = environment_of(container, reading.library, reading.namespace, reading.given)
    process = EngineProcess(engine="nim", arguments=words(spec.get("args")), environment=environment)
    group = read_group({"spec": pod}, reading, where="spec", found=Found(container, process))
    if group is None:
        return []
    cached = _cached_model(spec, reading)
    if not group.model:
        group.model = cached or name or None
        group.explicit.add("model")
    group.model_also = tuple(each for each in (name, cached) if each and each != group.model)
    parallelism = mapping(mapping(spec.get("multiNode")).get("parallelism"))
    for width in ("tensor", "pipeline"):
        state(group, f"strategy.{width}", whole(parallelism.get(width), None))
    stages = whole(parallelism.get("pipeline"), None)
    if stages is not None and stages > 1:
        gpus = group.pods[0].gpus
        group.role = LEADER_WORKER
        group.pods = [
            PodGroup(role="leader", count=1, gpus=gpus, template={"spec": pod}),
            PodGroup(role="worker", count=stages - 1, gpus=gpus, template={"spec": pod}),
        ]
    if parallelism:
        group.arguments.fields.setdefault("strategy.pipeline", 1)
        group.arguments.fields.setdefault("strategy.data", 1)
    if not group.gpu_resource:
        group.gpu_resource, group.pods[0].gpus = _claimed(spec) or pod_gpus(pod, reading)
    group.replicas = whole(spec.get("replicas"), 1)
    if "replicas" in spec:
        group.explicit.add("replicas")
    scaling = mapping(mapping(mapping(spec.get("scale")).get("hpa")))
    group.replicas_maximum = whole(scaling.get("maxReplicas"), None)
    return [group]


def _claimed(spec: Mapping[str, Any]) -> tuple[str, int | None] | None:
    """``draResources``: devices that the operator claims for each pod."""
    for claim in dicts(spec.get("draResources")):
        devices = dicts(mapping(claim.get("claimCreationSpec")).get("devices"))
        if devices:
            first = devices[0]
            return f"dra:{first.get('deviceClassName') or 'gpu.nvidia.com'}", whole(first.get("count"), 1)
        name = claim.get("resourceClaimTemplateName") or claim.get("resourceClaimName")
        if name:
            return f"dra:{name}", None
    return None


def _cached_model(spec: Mapping[str, Any], reading: Reading) -> str:
    """What the NIMCache holds: a model of Hugging Face's, or an image of NVIDIA's."""
    name = mapping(mapping(spec.get("storage")).get("nimCache")).get("name")
    source = mapping(mapping(mapping(reading.library.find("NIMCache", name, reading.namespace)).get("spec")).get("source"))
    of_hub = mapping(source.get("hf"))
    if of_hub.get("modelName"):
        return "/".join(str(each) for each in (of_hub.get("namespace"), of_hub["modelName"]) if each)
    return str(mapping(source.get("ngc")).get("modelPuller") or "")
