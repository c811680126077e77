"""OME's ServingRuntime and ClusterServingRuntime: what their services will run."""

from collections.abc import Mapping
from typing import Any

from shardgate.adapters.unknown import Unknown
from shardgate.adapters.workloads.extraction import DECODE, LEADER_WORKER, PREFILL, SERVER, PodGroup, ServingGroup
from shardgate.adapters.workloads.serving import Reading, pod_gpus, read_group
from shardgate.adapters.workloads.values import mapping, whole

_INJECTED = ("PARALLELISM_SIZE", "MODEL_PATH", "LWS_LEADER_ADDRESS")


def read(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """A group for the engine, and one for the decoder where it stands apart."""
    spec = mapping(body.get("spec"))
    engine, decoder = mapping(spec.get("engineConfig")), mapping(spec.get("decoderConfig"))
    groups = []
    for part, where, role in (
        (engine, "spec.engineConfig", PREFILL if decoder else SERVER),
        (decoder, "spec.decoderConfig", DECODE),
    ):
        group = _group(part, where, role, reading) if part else None
        if group is not None:
            groups.append(group)
    return groups


def _group(part: Mapping[str, Any], where: str, role: str, reading: Reading) -> ServingGroup | None:
    leader, worker = mapping(part.get("leader")), mapping(part.get("worker"))
    workers = whole(worker.get("size"), 1 if worker else 0) or 0
    reading.given |= {name: Unknown(f"$({name})", f"OME sets {name}") for name in _INJECTED}
    reading.given |= {"LWS_GROUP_SIZE": str(workers + 1), "LWS_WORKER_INDEX": "0"}
    pod = _pod(leader or part)
    group = read_group({"spec": pod}, reading, where=where, role=LEADER_WORKER if worker and role == SERVER else role)
    if group is None:
        return None
    group.replicas = None
    if worker:
        gpus = pod_gpus(_pod(worker), reading)[1]
        group.pods = [
            PodGroup(role="leader", count=1, gpus=group.pods[0].gpus, template={"spec": pod}),
            PodGroup(role="worker", count=workers, gpus=gpus, template={"spec": _pod(worker)}),
        ]
        group.explicit.add("podsPerReplica")
    return group


def _pod(part: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in part.items() if key not in ("runner", "leader", "worker", "size")}
    return {**kept, "containers": [mapping(part.get("runner"))] if part.get("runner") else []}


READERS = {("ome.io", "ClusterServingRuntime"): read, ("ome.io", "ServingRuntime"): read}
