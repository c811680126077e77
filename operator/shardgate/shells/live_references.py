"""What objects of files refer to in the live cluster; what is not there, or may not be read, stays unknown."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from shardgate.adapters.standing_workloads import referred_to
from shardgate.adapters.workloads.config_map_names import config_maps_named
from shardgate.adapters.workloads.kinds import JUDGED_KINDS
from shardgate.adapters.workloads.references import REFERENCES
from shardgate.shells.cluster import ApiError, Cluster
from shardgate.shells.config_maps import MOST_OF_A_WORKLOAD

Json = dict[str, Any]


async def referred(cluster: Cluster, declared: Sequence[Mapping[str, Any]]) -> AsyncIterator[Json]:
    """Runtimes, presets and their like, ConfigMaps by name, workloads that declarations are about.

    Raises ``ClusterUnreachable``.
    """
    if not declared:
        return
    for versions, plural, kind in REFERENCES:
        for item in await _first(cluster, [f"/apis/{version}/{plural}" for version in versions]):
            yield {"kind": kind, **item}
    bodies = list(declared)
    for body in bodies:
        namespace = (body.get("metadata") or {}).get("namespace") or "default"
        for name in itertools.islice(config_maps_named(body), MOST_OF_A_WORKLOAD):
            found = await _one(cluster, [f"/api/v1/namespaces/{namespace}/configmaps/{name}"])
            if found is not None:
                yield {"kind": "ConfigMap", **found}
        group, kind, _, name = referred_to(body) or ("", "", "", "")
        roots = [each.rpartition("/") for each in _paths(group, kind)]
        found = await _one(cluster, [f"{root}/namespaces/{namespace}/{plural}/{name}" for root, _, plural in roots])
        if found is not None:
            yield {"kind": kind, **found}
            bodies.append(found)  # it has ConfigMaps of its own


async def _first(cluster: Cluster, paths: Sequence[str]) -> list[Json]:
    for path in paths:
        with contextlib.suppress(ApiError):
            return await cluster.list_all(path)
    return []


async def _one(cluster: Cluster, paths: Sequence[str]) -> Json | None:
    for path in paths:
        with contextlib.suppress(ApiError):
            found: Json = await cluster.request("GET", path)
            return found
    return None


def _paths(group: str, kind: str) -> tuple[str, ...]:
    """Where objects of a judged kind are, by version."""
    return next((each.paths for each in JUDGED_KINDS if (each.group, each.kind) == (group, kind)), ())
