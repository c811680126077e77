"""NVIDIA Dynamo's DynamoGraphDeployment: v1alpha1 with services by name, v1beta1 with a list of components."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shardgate.adapters.workloads.extraction import DECODE, PREFILL, SERVER, PodGroup, ServingGroup
from shardgate.adapters.workloads.merging import merged
from shardgate.adapters.workloads.serving import Reading, pod_gpus, read_group
from shardgate.adapters.workloads.values import dicts, mapping, whole

KINDS = (("nvidia.com", "DynamoGraphDeployment"),)
_ROLES = {"prefill": PREFILL, "decode": DECODE, "encode": "encode", "encoder": "encode", "processor": "processor"}
_WITHOUT_ENGINE = frozenset({"frontend", "planner", "router", "epp"})
_GPU = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class _Component:
    where: str
    name: str
    kind: str
    role: str
    replicas: object
    nodes: int | None
    spec: dict[str, Any]


def read(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """A group for each component that starts an engine; front ends and routers start none."""
    groups = []
    for component in _components(body):
        if component.kind in _WITHOUT_ENGINE:
            continue
        group = read_group({"spec": component.spec}, reading, where=component.where, role=component.role)
        if group is None:
            continue
        group.replicas = whole(component.replicas, 1)
        if component.replicas is not None:
            group.explicit.add("replicas")
        nodes = component.nodes or 1
        resource, gpus = pod_gpus(component.spec, reading)
        group.gpu_resource = resource
        group.pods = [PodGroup(role="server", count=nodes, gpus=gpus, template={"spec": component.spec})]
        if component.nodes is not None:
            group.explicit.add("podsPerReplica")
        groups.append(group)
    _settle_roles(groups)
    return groups


def _settle_roles(groups: list[ServingGroup]) -> None:
    """Where nothing prefills, what is called decode serves all; where something does, the rest decodes."""
    prefills = any(each.role == PREFILL for each in groups)
    for each in groups:
        if each.role == DECODE and not prefills:
            each.role = SERVER
        elif each.role == SERVER and prefills:
            each.role = DECODE


def _components(body: Mapping[str, Any]) -> Iterator[_Component]:
    spec = mapping(body.get("spec"))
    for name, service in mapping(spec.get("services")).items():
        if isinstance(service, dict):
            yield _of_service(str(name), service, spec)
    for index, component in enumerate(dicts(spec.get("components"))):
        kind = str(component.get("type") or "")
        yield _Component(
            where=f"spec.components[{index}]", name=str(component.get("name") or ""), kind=kind, role=_ROLES.get(kind, SERVER),
            replicas=component.get("replicas"), nodes=whole(mapping(component.get("multinode")).get("nodeCount"), None),
            spec=mapping(mapping(component.get("podTemplate")).get("spec")),
        )  # fmt: skip


def _of_service(name: str, service: Mapping[str, Any], graph: Mapping[str, Any]) -> _Component:
    """The pod that the operator makes of a service: resources and variables stand beside the container."""
    extra = mapping(service.get("extraPodSpec"))
    container = {"name": "main", **mapping(extra.get("mainContainer"))}
    resources = mapping(merged(container.get("resources"), _resources(mapping(service.get("resources")))))
    if resources:
        container["resources"] = resources
    container["env"] = [*dicts(graph.get("envs")), *dicts(service.get("envs")), *dicts(container.get("env"))]
    pod = {key: value for key, value in extra.items() if key != "mainContainer"}
    pod["containers"] = [container, *dicts(extra.get("containers"))]
    role = _ROLES.get(str(service.get("subComponentType") or ""), _ROLES.get(str(service.get("componentType") or ""), SERVER))
    return _Component(
        where=f"spec.services.{name}", name=name, kind=str(service.get("componentType") or ""), role=role,
        replicas=service.get("replicas"), nodes=whole(mapping(service.get("multinode")).get("nodeCount"), None), spec=pod,
    )  # fmt: skip


def _resources(stated: Mapping[str, Any]) -> dict[str, Any]:
    """``gpu: "8"`` is the operator's spelling; ``custom`` holds other resources."""
    found: dict[str, Any] = {}
    for kind in ("limits", "requests"):
        amounts = mapping(stated.get(kind))
        gpu_type = str(amounts.get("gpuType") or _GPU)
        told = {key: value for key, value in amounts.items() if key not in ("gpu", "gpuType", "custom")}
        if "gpu" in amounts:
            told[gpu_type] = amounts["gpu"]
        told |= mapping(amounts.get("custom"))
        if told:
            found[kind] = told
    return found
