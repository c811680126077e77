"""Deployment, StatefulSet, ReplicaSet, Job, Pod and Argo's Rollout: one pod template."""

from collections.abc import Mapping
from typing import Any

from shardgate.adapters.workloads.extraction import Opaque, ServingGroup
from shardgate.adapters.workloads.serving import Reading, read_group
from shardgate.adapters.workloads.values import mapping, whole

KINDS = (
    ("apps", "Deployment"),
    ("apps", "StatefulSet"),
    ("apps", "ReplicaSet"),
    ("batch", "Job"),
    ("", "Pod"),
    ("argoproj.io", "Rollout"),
)


def read(body: Mapping[str, Any], reading: Reading) -> list[ServingGroup]:
    """One group, where the template starts an engine."""
    spec = mapping(body.get("spec"))
    if body.get("kind") == "Pod":
        template: Mapping[str, Any] = {"metadata": body.get("metadata"), "spec": spec}
        where = "spec"
    else:
        template, where = mapping(spec.get("template")), "spec.template.spec"
        reference = mapping(spec.get("workloadRef"))
        if not template and reference:  # Argo's Rollout may take its pods from a Deployment
            named = reading.library.find(str(reference.get("kind")), reference.get("name"), reading.namespace)
            template, where = mapping(mapping(mapping(named).get("spec")).get("template")), "spec.workloadRef"
    group = read_group(template, reading, where=where)
    if group is None:
        return []
    stated = spec.get("replicas") if body.get("kind") not in ("Job", "Pod") else spec.get("parallelism")
    group.replicas = whole(stated, 1)
    if stated is not None or body.get("kind") == "Pod":
        group.explicit.add("replicas")
    if body.get("kind") == "Deployment":
        group.surge = _surge(spec, group.replicas)
    nodes = group.arguments.settings.get("nodes")
    if nodes and nodes > 1 and group.replicas and group.replicas >= nodes:
        # One engine over several pods: each is a node of it.
        if group.replicas % nodes:
            group.opaque.append(Opaque(where, f"{group.replicas} pods are no multiple of the {nodes} nodes that the engine spans"))
        group.pods[0].count = nodes
        group.replicas //= nodes
        group.explicit |= {"podsPerReplica"}
        group.explicit.discard("replicas")
    return [group]


DEFAULT_SHARE = "25%"


def _surge(spec: Mapping[str, Any], replicas: int | None) -> int | None:
    """How many pods a roll-out starts before it stops any; ``None`` where it may stop one first.

    As the API defaults and rounds: ``maxSurge`` up, ``maxUnavailable`` down, and one of them at least 1.
    """
    strategy = mapping(spec.get("strategy"))
    if not replicas or strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return None
    rolling = mapping(strategy.get("rollingUpdate"))
    surge = _share(rolling.get("maxSurge", DEFAULT_SHARE), replicas, up=True)
    unavailable = _share(rolling.get("maxUnavailable", DEFAULT_SHARE), replicas, up=False)
    return surge if unavailable == 0 and surge else None


def _share(stated: object, replicas: int, *, up: bool) -> int | None:
    if isinstance(stated, str) and stated.endswith("%"):
        percent = whole(stated.removesuffix("%"), None)
        return None if percent is None else -(-percent * replicas // 100) if up else percent * replicas // 100
    return whole(stated, None)
