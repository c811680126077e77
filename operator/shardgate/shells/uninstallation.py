"""``uninstall``: the webhook configurations before the operator goes, and what it left behind after."""

import asyncio
from collections.abc import Sequence
from itertools import starmap

from shardgate.adapters.gpu_node_reports import KIND as REPORT
from shardgate.adapters.gpu_node_reports import PLURAL as REPORTS
from shardgate.adapters.manifests import NAME, SECRET
from shardgate.api import GROUP, VERSION
from shardgate.shells.cluster import ApiError, Cluster
from shardgate.shells.live_objects import AGENTS_LEASES

HTTP_NOT_FOUND = 404
OURS = f"/apis/{GROUP}/{VERSION}"
REGISTRATIONS = "/apis/admissionregistration.k8s.io/v1"


def removed_webhooks() -> list[str]:
    """A line for each configuration. Raises ``ClusterUnreachable`` and ``ApiError``."""
    kinds = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
    return asyncio.run(_removed([(f"{kind} {NAME}", f"{REGISTRATIONS}/{kind.lower()}s/{NAME}") for kind in kinds]))


def removed_leftovers(namespace: str) -> list[str]:
    """A line for each object. Raises ``ClusterUnreachable`` and ``ApiError``."""
    return asyncio.run(_removed_leftovers(namespace))


async def _removed_leftovers(namespace: str) -> list[str]:
    async with Cluster.from_environment() as cluster:
        found = [
            (f"Lease {namespace}/{NAME}", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{NAME}"),
            (f"Secret {namespace}/{SECRET}", f"/api/v1/namespaces/{namespace}/secrets/{SECRET}"),
            (f"CapacityLedger {NAME}", f"{OURS}/capacityledgers/{NAME}"),
        ]
        for _, name in await _listed(cluster, f"{OURS}/{REPORTS}"):
            found.append((f"{REPORT} {name}", f"{OURS}/{REPORTS}/{name}"))
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        for _, name in await _listed(cluster, leases, AGENTS_LEASES):
            found.append((f"Lease {namespace}/{name}", f"{leases}/{name}"))
        for place, name in await _listed(cluster, f"{OURS}/workloadverdicts"):
            found.append((f"WorkloadVerdict {place}/{name}", f"{OURS}/namespaces/{place}/workloadverdicts/{name}"))
        return await _all(cluster, found)


async def _listed(cluster: Cluster, path: str, selector: str = "") -> list[tuple[str, str]]:
    """Namespace and name of each."""
    try:
        listed = await cluster.list_all(path, selector=selector)
    except ApiError as error:
        if error.status != HTTP_NOT_FOUND:
            raise
        return []  # the kind is gone, and they with it
    return [(each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in listed]


async def _removed(objects: Sequence[tuple[str, str]]) -> list[str]:
    async with Cluster.from_environment() as cluster:
        return await _all(cluster, objects)


async def _all(cluster: Cluster, objects: Sequence[tuple[str, str]]) -> list[str]:
    async def remove(what: str, path: str) -> str:
        try:
            await cluster.request("DELETE", path)
        except ApiError as error:
            if error.status != HTTP_NOT_FOUND:
                raise
            return f"{what} was gone already"
        return f"{what} removed"

    return [await each for each in starmap(remove, objects)]
