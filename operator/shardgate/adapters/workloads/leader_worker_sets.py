"""LeaderWorkerSet: groups of a leader and workers, from one or two templates."""

from collections.abc import Mapping
from typing import Any

from shardgate.adapters.unknown import Unknown
from shardgate.adapters.workloads.extraction import LEADER_WORKER, SERVER, PodGroup, ServingGroup
from shardgate.adapters.workloads.serving import Found, Reading, find_engine, pod_gpus, read_group
from shardgate.adapters.workloads.values import mapping, whole

KINDS = (("leaderworkerset.x-k8s.io", "LeaderWorkerSet"),)


def read(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """One group: the flags are the leader's, where only that starts an engine."""
    spec = mapping(body.get("spec"))
    inner = mapping(spec.get("leaderWorkerTemplate"))
    worker = mapping(inner.get("workerTemplate"))
    leader = mapping(inner.get("leaderTemplate"))
    size = whole(inner.get("size"), None)
    reading.given |= _variables(size)
    lead, where = (leader, "leaderTemplate") if leader else (worker, "workerTemplate")
    found = find_engine(mapping(lead.get("spec")), reading)
    if found is None and leader:
        lead, where, found = worker, "workerTemplate", find_engine(mapping(worker.get("spec")), reading)
    group = _group(lead, found, f"spec.leaderWorkerTemplate.{where}.spec", reading, size)
    if group is None:
        return []
    group.replicas = whole(spec.get("replicas"), None if size is None else 1)
    if "replicas" in spec:
        group.explicit.add("replicas")
    if size is not None:
        group.explicit.add("podsPerReplica")
    if leader:
        resource, gpus = pod_gpus(mapping(worker.get("spec")), reading)
        leads = pod_gpus(mapping(leader.get("spec")), reading)
        workers = None if size is None else size - 1
        group.pods = [
            PodGroup(role="leader", count=None if size is None else 1, gpus=leads[1], template=leader),
            *([] if workers == 0 else [PodGroup(role="worker", count=workers, gpus=gpus, template=worker)]),
        ]
        group.gpu_resource = leads[0] or resource
        if gpus or leads[1]:
            group.explicit.add("gpusPerPod")
    return [group]


def _group(lead: Mapping[str, Any], found: Found | None, where: str, reading: Reading, size: int | None) -> ServingGroup | None:
    role = SERVER if size == 1 else LEADER_WORKER
    return read_group(lead, reading, where=where, found=found, role=role, pod_role="worker", pods=size)


def _variables(size: int | None) -> dict[str, str]:
    """What the controller sets in every container."""
    address = Unknown("$(LWS_LEADER_ADDRESS)", "LWS_LEADER_ADDRESS is known at run time alone")
    group = Unknown("$(LWS_GROUP_SIZE)", "the size is not stated here") if size is None else str(size)
    return {"LWS_GROUP_SIZE": group, "LWS_WORKER_INDEX": "0", "LWS_LEADER_ADDRESS": address}
