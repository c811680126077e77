"""``accuracy``: what the operator found of engines that run here, from the ``CapacityLedger``."""

import asyncio
from typing import Any

from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.api import API_VERSION
from shardgate.shells.cluster import ApiError, Cluster
from shardgate.shells.ledger import NAME, PATH
from shardgate.shells.why import NoSuchObject

Json = dict[str, Any]
HTTP_NOT_FOUND = 404


def live_accuracy() -> Json:
    """Raises ``NoSuchObject``, ``ClusterUnreachable``, and ``ApiError`` where it may not be read."""
    return asyncio.run(_read())


async def _read() -> Json:
    async with Cluster.from_environment() as cluster:
        try:
            body = await cluster.request("GET", f"{PATH}/{NAME}")
        except ApiError as error:
            if error.status != HTTP_NOT_FOUND:
                raise
            problem = f"no CapacityLedger {NAME}: the operator has not led yet, or is not installed"
            raise NoSuchObject(problem) from error
    return {"apiVersion": API_VERSION, "kind": "Accuracy", "accuracy": dicts(mapping(body.get("status")).get("accuracy"))}
