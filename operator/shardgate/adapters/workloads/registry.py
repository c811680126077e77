"""An object of any kind -> the workload that it declares; ``None`` where it serves no model."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from shardgate.adapters.workloads import (
    dynamo,
    inference_services,
    kaito,
    leader_worker_sets,
    llm_inference_services,
    model_objects,
    nim,
    ome,
    plain_workloads,
    ray,
    role_based,
)
from shardgate.adapters.workloads.extraction import ServingGroup, Workload
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.queues import QUEUE_LABEL, grant_of
from shardgate.adapters.workloads.serving import Reading, gpus_of
from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.domain.declaration import Subject

Reader = Callable[[Mapping[str, Any], Reading], list[ServingGroup]]

_MODULES = (
    plain_workloads, leader_worker_sets, llm_inference_services, inference_services, dynamo, nim, ray, kaito,
)  # fmt: skip
EXTRACTED_ONLY: dict[tuple[str, str], Reader] = {**role_based.READERS, **ome.READERS, **model_objects.READERS}
"""Kinds that are read and not judged."""
READERS: dict[tuple[str, str], Reader] = {
    **EXTRACTED_ONLY,
    **{kind: module.read for module in _MODULES for kind in module.KINDS},
    **dict.fromkeys(inference_services.RUNTIME_KINDS, inference_services.read_runtime),
}
"""(API group, kind) -> how it is read."""


def read_workload(body: Mapping[str, Any], library: Library) -> Workload | None:
    """What the object serves. ``library`` has what it refers to."""
    api_version, kind = str(body.get("apiVersion") or ""), str(body.get("kind") or "")
    group = api_version.rpartition("/")[0]
    reader = READERS.get((group, kind))
    if reader is None:
        return None
    metadata = mapping(body.get("metadata"))
    namespace = str(metadata.get("namespace") or "")
    groups = reader(body, Reading(library=library, namespace=namespace))
    if not groups:
        return None
    subject = Subject(
        api_version=api_version, kind=kind, namespace=namespace or "default",
        name=str(metadata.get("name") or metadata.get("generateName") or ""),
    )  # fmt: skip
    queued = bool(mapping(metadata.get("labels")).get(QUEUE_LABEL)) or mapping(body.get("spec")).get("suspend") is True
    return Workload(
        subject=subject, groups=groups, is_judged=(group, kind) not in EXTRACTED_ONLY, is_queued=queued,
        grant=grant_of(body, library, namespace),
    )  # fmt: skip


def asks_for_gpus(body: Mapping[str, Any]) -> bool:
    """Whether an object is of a kind that is read, and some container in it asks for GPUs."""
    kind = (str(body.get("apiVersion") or "").rpartition("/")[0], str(body.get("kind") or ""))
    return kind in READERS and _holds_gpus(body.get("spec"), 0)


def template_asks_for_gpus(body: Mapping[str, Any]) -> bool:
    """Whether ``spec.template`` asks for GPUs or claims devices, as the webhook's own condition asks."""
    pod = mapping(mapping(mapping(body.get("spec")).get("template")).get("spec"))
    containers = (*dicts(pod.get("containers")), *dicts(pod.get("initContainers")))
    return bool(pod.get("resourceClaims")) or any(gpus_of(each) for each in containers)


def names_a_template(body: Mapping[str, Any]) -> bool:
    """Whether it takes its pods from another object, as Argo's Rollout may."""
    return bool(mapping(body.get("spec")).get("workloadRef"))


def _holds_gpus(value: object, depth: int) -> bool:
    if depth > MOST_DEPTH:
        return False
    if isinstance(value, dict):
        return any(isinstance(each, dict) and gpus_of(each) for each in dicts(value.get("containers"))) or any(
            _holds_gpus(each, depth + 1) for each in value.values()
        )
    return isinstance(value, list) and any(_holds_gpus(each, depth + 1) for each in value)


MOST_DEPTH = 12
"""Containers stand no deeper in any kind."""


def read_workloads(bodies: Iterable[Mapping[str, Any]], library: Library) -> list[Workload]:
    """All that serve a model, in their order."""
    return [workload for body in bodies if (workload := read_workload(body, library)) is not None]
