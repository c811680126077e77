"""The real kube-scheduler as a witness: arenas of nodes that only their own pods can use, many at a time."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from shardgate.shells.cluster import Cluster

Json = dict[str, Any]

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
NAMESPACE, ARENA = "oracle", "oracle.example.com/arena"
IN_FLIGHT = 32
SETTLE_SECONDS, PATIENCE_SECONDS = 0.7, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """A copy of a question's cluster, and pods that the scheduler is to place there, in this order."""

    name: str
    nodes: list[Json]
    held: list[Json]
    pods: list[Json]
    agrees: Callable[[int], bool]
    """Whether so many bound pods are what was said; where not, the scheduler is given more time."""


async def place(cluster: Cluster, arenas: list[Arena]) -> dict[str, list[str]]:
    """Arena -> nodes that its pods were bound to, in the order of the pods; empty text for a pod that was not."""
    await _each(_create_node(cluster, arena, node) for arena in arenas for node in arena.nodes)
    await _each(_create_pod(cluster, arena, pod, {}) for arena in arenas for pod in arena.held)
    await asyncio.sleep(SETTLE_SECONDS)  # until the scheduler has seen them
    await _each(_in_order(cluster, arena) for arena in arenas)
    found = await _settled(cluster, arenas)
    await asyncio.gather(
        cluster.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods", body={"gracePeriodSeconds": 0}),
        cluster.request("DELETE", "/api/v1/nodes"),
    )
    return found


async def _each(jobs: Iterable[Callable[[], Awaitable[Any]]]) -> None:
    queue = list(jobs)
    queue.reverse()

    async def worker() -> None:
        while queue:
            await queue.pop()()

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


def named(arena: Arena, name: str) -> str:
    """An object's name in an arena."""
    return f"{arena.name}-{name}"


def _create_node(cluster: Cluster, arena: Arena, node: Json) -> Callable[[], Awaitable[Any]]:
    body = copy.deepcopy(node)
    body["metadata"]["name"] = named(arena, node["metadata"]["name"])
    body["metadata"]["labels"][ARENA] = arena.name
    return lambda: cluster.request("POST", "/api/v1/nodes", body=body)


def _create_pod(cluster: Cluster, arena: Arena, pod: Json, labels: Json) -> Callable[[], Awaitable[Any]]:
    body = copy.deepcopy(pod)
    stated = pod["metadata"].get("labels") or {}
    body["metadata"] = {"name": named(arena, pod["metadata"]["name"]), "labels": {**_of_arena(arena, stated), **labels}}
    for terms in (body["spec"].get("affinity") or {}).values():
        for term in terms.get(REQUIRED, ()) if isinstance(terms.get(REQUIRED), list) else ():
            term["labelSelector"]["matchLabels"] = _of_arena(arena, term["labelSelector"]["matchLabels"])
    for constraint in body["spec"].get("topologySpreadConstraints", ()):
        constraint["labelSelector"]["matchLabels"] = _of_arena(arena, constraint["labelSelector"]["matchLabels"])
    if "nodeName" in body["spec"]:
        body["spec"]["nodeName"] = named(arena, body["spec"]["nodeName"])
    else:
        body["spec"]["nodeSelector"] = {**body["spec"].get("nodeSelector", {}), ARENA: arena.name}
    return lambda: cluster.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", body=body)


def _of_arena(arena: Arena, labels: Json) -> Json:
    """Labels by which pods find each other, made an arena's own: others' pods are in the same namespace."""
    return {key: f"{arena.name}-{value}" for key, value in labels.items()}


def _in_order(cluster: Cluster, arena: Arena) -> Callable[[], Awaitable[Any]]:
    async def create() -> None:
        for pod in arena.pods:
            await _create_pod(cluster, arena, pod, {ARENA: arena.name})()

    return create


async def _settled(cluster: Cluster, arenas: list[Arena]) -> dict[str, list[str]]:
    """Read until every pod has its answer, and those that surprise have kept it for a while."""
    wanted = {arena.name: [named(arena, pod["metadata"]["name"]) for pod in arena.pods] for arena in arenas}
    waited = 0.0
    while True:
        items = await cluster.list_all(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={ARENA}")
        node_of: dict[str, str] = {}
        answered: set[str] = set()
        for item in items:
            name, node = item["metadata"]["name"], item["spec"].get("nodeName", "")
            node_of[name] = node
            conditions = (item.get("status") or {}).get("conditions") or ()
            if node or any(each["type"] == "PodScheduled" and each.get("reason") == "Unschedulable" for each in conditions):
                answered.add(name)
        bound = {arena: [node_of.get(name, "") for name in names] for arena, names in wanted.items()}
        surprising = [arena.name for arena in arenas if not arena.agrees(sum(map(bool, bound[arena.name])))]
        everyone = all(name in answered for names in wanted.values() for name in names)
        if (everyone and not surprising) or waited > PATIENCE_SECONDS:
            return bound
        await asyncio.sleep(0.3)
        waited += 0.3
