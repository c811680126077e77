"""RayService and RayCluster: engines by Ray Serve's configuration, or started in a container."""

from collections.abc import Mapping
from typing import Any

import yaml

from shardgate.adapters.engines.arguments import read_arguments
from shardgate.adapters.workloads.embedded_yaml import read_yaml
from shardgate.adapters.workloads.extraction import LEADER_WORKER, SERVER, Opaque, PodGroup, ServingGroup
from shardgate.adapters.workloads.serving import (
    Found,
    Reading,
    find_engine,
    note_arguments,
    pod_gpus,
    read_group,
    state,
    told_labels,
)
from shardgate.adapters.workloads.values import dicts, mapping, whole

KINDS = (("ray.io", "RayService"), ("ray.io", "RayCluster"))


def read(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """A group for each language model that Serve runs; else one for an engine that the pods start themselves."""
    spec = mapping(body.get("spec"))
    cluster = mapping(spec.get("rayClusterConfig")) if body.get("kind") == "RayService" else spec
    groups = []
    for application in _applications(spec.get("serveConfigV2")):
        configs = dicts(mapping(application.get("args")).get("llm_configs"))
        groups += [_of_config(each, cluster, reading) for each in configs]
        if not configs and "vllm" in str(application).lower():
            groups.append(_of_code(application, cluster, reading))
    return groups or _of_containers(cluster, reading)


def _applications(text: object) -> list[dict[str, Any]]:
    if not isinstance(text, str):
        return []
    try:
        return dicts(mapping(read_yaml(text)).get("applications"))
    except yaml.YAMLError:
        return []


_VARIABLES = {
    "TENSOR_PARALLELISM": "strategy.tensor", "TENSOR_PARALLEL_SIZE": "strategy.tensor", "PIPELINE_PARALLELISM": "strategy.pipeline",
    "PIPELINE_PARALLEL_SIZE": "strategy.pipeline",
}  # fmt: skip


def _of_code(application: Mapping[str, Any], cluster: Mapping[str, Any], reading: Reading) -> ServingGroup:
    """An application of its own code that runs vLLM: what it does with its variables is in the code."""
    why = f"the code of {application.get('import_path') or 'the application'} decides how vllm is started"
    group = ServingGroup(
        role=SERVER, where="spec.serveConfigV2", engine="vllm", hidden=why, opaque=[Opaque("spec.serveConfigV2", why)]
    )
    variables = {key: str(value) for key, value in mapping(mapping(application.get("runtime_env")).get("env_vars")).items()}
    for name, path in _VARIABLES.items():
        state(group, path, whole(variables.get(name), None))
    if model := variables.get("MODEL_ID"):
        group.model = model
        group.explicit.add("model")
    _with_pods(group, cluster, reading)
    deployments = dicts(application.get("deployments"))
    group.replicas = (
        whole(deployments[0].get("num_replicas"), None if deployments[0].get("num_replicas") == "auto" else 1) if deployments else 1
    )
    if deployments and "num_replicas" in deployments[0]:
        group.explicit.add("replicas")
    if group.width("tensor") and group.width("tensor") == group.pods[-1].gpus:
        group.pods[-1].count = 1
    return group


def _of_config(config: Mapping[str, Any], cluster: Mapping[str, Any], reading: Reading) -> ServingGroup:
    engine = mapping(config.get("engine_kwargs"))
    loading = mapping(config.get("model_loading_config"))
    deployment = mapping(config.get("deployment_config"))
    scaling = mapping(deployment.get("autoscaling_config"))
    group = ServingGroup(role=SERVER, where="spec.serveConfigV2", engine="vllm")
    group.flags = [word for key, value in engine.items() for word in _flag(str(key), value)]
    group.arguments = read_arguments("vllm", group.flags, {})
    note_arguments(group)
    group.model = str(loading.get("model_source") or loading.get("model_id") or "") or None
    group.model_also = tuple(str(each) for each in (loading.get("model_id"),) if each and each != group.model)
    if group.model:
        group.explicit.add("model")
    _with_pods(group, cluster, reading)
    stated = deployment.get("num_replicas", scaling.get("min_replicas"))
    group.replicas = whole(stated, None if stated == "auto" else 1)
    group.replicas_maximum = whole(scaling.get("max_replicas"), None)
    if stated is not None and stated != "auto":
        group.explicit.add("replicas")
    if config.get("accelerator_type"):
        group.node_selector["accelerator_type"] = str(config["accelerator_type"])
    world, worker = group.world_size, group.pods[-1]
    if world and worker.gpus and worker.gpus > world:
        # Ray packs several replicas into one pod.
        group.gpus_per_replica_stated = world
        worker.count = None
    elif world and worker.gpus:
        worker.count = -(-world // worker.gpus)
    return group


def _flag(name: str, value: object) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if value is None or isinstance(value, (dict, list)):
        return []
    if isinstance(value, bool):
        return [flag] if value else [f"{flag}=false"]
    return [f"{flag}={value}"]


def _of_containers(cluster: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    head = mapping(mapping(mapping(cluster.get("headGroupSpec")).get("template")).get("spec"))
    found = find_engine(head, reading, by_program=True)
    if found is None:
        return []
    group = read_group(
        {"spec": head}, reading, where="spec.headGroupSpec.template.spec", found=Found(found.container, found.process)
    )
    if group is None:
        return []
    _with_pods(group, cluster, reading)
    worker = group.pods[-1]
    if group.pods_per_replica and group.pods_per_replica > 1:
        group.role = LEADER_WORKER
    group.replicas = 1
    if worker.gpus:
        group.explicit.add("gpusPerPod")
    return [group]


def _with_pods(group: ServingGroup, cluster: Mapping[str, Any], reading: Reading) -> None:
    """The head, which may hold no GPUs, and the workers of the first group that does."""
    head = mapping(mapping(mapping(cluster.get("headGroupSpec")).get("template")).get("spec"))
    resource, of_head = pod_gpus(head, reading)
    group.pods = [PodGroup(role="head", count=1 if of_head else 0, gpus=of_head or 0, template={"spec": head})]
    group.gpu_resource = resource if of_head else None
    for each in dicts(cluster.get("workerGroupSpecs")):
        spec = mapping(mapping(each.get("template")).get("spec"))
        resource, gpus = pod_gpus(spec, reading)
        if gpus:
            hosts = (whole(each.get("replicas"), 1) or 1) * (whole(each.get("numOfHosts"), 1) or 1)
            group.pods.append(PodGroup(role="worker", count=hosts, gpus=gpus, template={"spec": spec}))
            group.gpu_resource = resource
            group.node_selector = told_labels(spec)
            group.explicit.add("gpusPerPod")
            break
