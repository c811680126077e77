"""Kinds whose roles have pod templates: RoleBasedGroup, AIBrix' StormService and RayClusterFleet, kthena's ModelServing, Grove."""

from collections.abc import Mapping
from typing import Any

from shardgate.adapters.unknown import Unknown
from shardgate.adapters.workloads import ray
from shardgate.adapters.workloads.extraction import DECODE, LEADER_WORKER, PREFILL, SERVER, PodGroup, ServingGroup
from shardgate.adapters.workloads.merging import merged
from shardgate.adapters.workloads.serving import Reading, pod_gpus, read_group
from shardgate.adapters.workloads.values import dicts, mapping, whole

_LEADER_VARIABLES = ("LWS_LEADER_ADDRESS", "RBG_LWP_LEADER_ADDRESS", "ENTRY_ADDRESS")
_SIZE_VARIABLES = ("LWS_GROUP_SIZE", "RBG_LWP_GROUP_SIZE", "GROUP_SIZE")
_INDEX_VARIABLES = ("LWS_WORKER_INDEX", "RBG_LWP_WORKER_INDEX", "WORKER_INDEX")


def _role(name: object, default: str = SERVER) -> str:
    told = str(name or "").lower()
    return PREFILL if "prefill" in told else DECODE if "decode" in told else default


def _with_size(reading: Reading, size: int | None) -> Reading:
    """What controllers of groups set in every container, the leader's view."""
    given = dict.fromkeys(_INDEX_VARIABLES, "0")
    given |= {name: Unknown(f"$({name})", f"{name} is known at run time alone") for name in _LEADER_VARIABLES}
    given |= {name: Unknown(f"$({name})", "the size is not stated here") if size is None else str(size) for name in _SIZE_VARIABLES}
    return Reading(library=reading.library, namespace=reading.namespace, given={**reading.given, **given})


def read_role_based_group(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """A group for each role that starts an engine; a leader's patch holds the flags."""
    groups = []
    for index, role in enumerate(dicts(mapping(body.get("spec")).get("roles"))):
        sets = mapping(role.get("leaderWorkerSet"))
        pattern = mapping(role.get("leaderWorkerPattern"))
        alone = mapping(mapping(role.get("standalonePattern")).get("template"))
        size = whole((sets or pattern).get("size"), 1) or 1
        template = mapping(role.get("template")) or mapping(pattern.get("template")) or alone
        patch = mapping(sets.get("patchLeaderTemplate")) or mapping(pattern.get("leaderTemplatePatch"))
        template = mapping(merged(template, patch))
        default = SERVER if size == 1 else LEADER_WORKER
        group = read_group(
            template, _with_size(reading, size), where=f"spec.roles[{index}]", role=_role(role.get("name"), default), pods=size
        )
        if group is None:
            continue
        group.replicas = whole(role.get("replicas"), 1)
        group.explicit |= {"replicas"} if "replicas" in role else set()
        group.explicit |= {"podsPerReplica"} if sets or pattern else set()
        groups.append(group)
    return groups


def read_storm_service(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """A group for each role; a role's pod group is one replica."""
    groups = []
    for index, role in enumerate(dicts(mapping(mapping(mapping(body.get("spec")).get("template")).get("spec")).get("roles"))):
        size = whole(role.get("podGroupSize"), 1) or 1
        group = read_group(
            mapping(role.get("template")), _with_size(reading, size), where=f"spec.template.spec.roles[{index}]",
            role=_role(role.get("name")), pods=size,
        )  # fmt: skip
        if group is None:
            continue
        group.replicas = whole(role.get("replicas"), 1)
        group.explicit |= {"replicas"} if "replicas" in role else set()
        group.explicit |= {"podsPerReplica"} if "podGroupSize" in role else set()
        groups.append(group)
    return groups


def read_model_serving(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """kthena: an entry pod and so many workers a role."""
    spec = mapping(body.get("spec"))
    groups = []
    for index, role in enumerate(dicts(mapping(spec.get("template")).get("roles"))):
        workers = whole(role.get("workerReplicas"), 0) or 0
        entry = mapping(role.get("entryTemplate"))
        group = read_group(
            entry, _with_size(reading, workers + 1), where=f"spec.template.roles[{index}]",
            role=_role(role.get("name"), LEADER_WORKER if workers else SERVER),
        )  # fmt: skip
        if group is None:
            continue
        group.replicas = whole(role.get("replicas"), 1)
        group.explicit |= {"replicas"} if "replicas" in role else set()
        if workers:
            gpus = pod_gpus(mapping(mapping(role.get("workerTemplate")).get("spec")), reading)[1]
            group.pods = [
                PodGroup(role="leader", count=1, gpus=group.pods[0].gpus, template=entry),
                PodGroup(role="worker", count=workers, gpus=gpus, template=mapping(role.get("workerTemplate"))),
            ]
            group.explicit.add("podsPerReplica")
        groups.append(group)
    return groups


def read_ray_cluster_fleet(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """AIBrix: RayClusters from one template."""
    spec = mapping(body.get("spec"))
    cluster = mapping(mapping(spec.get("template")).get("spec"))
    groups = ray.read({"kind": "RayCluster", "spec": cluster}, reading)
    for group in groups:
        group.where = f"spec.template.{group.where}"
        group.replicas = whole(spec.get("replicas"), 1)
        group.explicit |= {"replicas"} if "replicas" in spec else set()
    return groups


def read_pod_clique_set(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """Grove: a group for each clique that starts an engine."""
    spec = mapping(body.get("spec"))
    groups = []
    for index, clique in enumerate(dicts(mapping(spec.get("template")).get("cliques"))):
        inner = mapping(clique.get("spec"))
        group = read_group(
            {"spec": inner.get("podSpec")}, reading, where=f"spec.template.cliques[{index}]", role=_role(clique.get("name"))
        )
        if group is not None:
            group.replicas = whole(inner.get("replicas"), 1)
            group.explicit |= {"replicas"} if "replicas" in inner else set()
            groups.append(group)
    return groups


READERS = {
    ("workloads.x-k8s.io", "RoleBasedGroup"): read_role_based_group,
    ("orchestration.aibrix.ai", "StormService"): read_storm_service,
    ("orchestration.aibrix.ai", "RayClusterFleet"): read_ray_cluster_fleet,
    ("workload.serving.volcano.sh", "ModelServing"): read_model_serving,
    ("grove.io", "PodCliqueSet"): read_pod_clique_set,
}
