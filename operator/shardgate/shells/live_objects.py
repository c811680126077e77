"""The objects of the live cluster that verdicts rest on, and those that declare something, as the API serves them."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from shardgate.adapters.gpu_node_reports import KIND as REPORT
from shardgate.adapters.gpu_node_reports import PLURAL as REPORTS
from shardgate.adapters.karpenter import API_VERSION as KARPENTER_VERSION
from shardgate.adapters.nodes import SLICES_VERSION
from shardgate.adapters.pods import OWN_KIND
from shardgate.adapters.workloads.kinds import JUDGED_KINDS
from shardgate.api import GROUP, VERSION
from shardgate.shells.cluster import ApiError, Cluster
from shardgate.shells.documents import Document, Unreadable

HTTP_FORBIDDEN, HTTP_NOT_FOUND = 403, 404
LEDGER, LEASE = "CapacityLedger", "Lease"
AGENTS_LEASES = "app.kubernetes.io/name=shardgate,app.kubernetes.io/component=agent"
"""Labels of the Leases by which node agents tell that they live."""
_OWN = f"/apis/{GROUP}/{VERSION}"
FACTS = (
    (f"/apis/{SLICES_VERSION}/resourceslices", "ResourceSlice", True),
    (f"/apis/{SLICES_VERSION}/deviceclasses", "DeviceClass", True),
    (f"/apis/{SLICES_VERSION}/resourceclaims", "ResourceClaim", True),
    (f"{_OWN}/{REPORTS}", REPORT, True),
    ("/apis/coordination.k8s.io/v1/leases", LEASE, False),
    ("/api/v1/nodes", "Node", False),
    ("/api/v1/pods", "Pod", False),
    (f"/apis/{KARPENTER_VERSION}/nodepools", "NodePool", True),
    (f"/apis/{KARPENTER_VERSION}/nodeclaims", "NodeClaim", True),
    ("/api/v1/namespaces", "Namespace", False),
    ("/api/v1/resourcequotas", "ResourceQuota", False),
    ("/api/v1/limitranges", "LimitRange", False),
    ("/apis/scheduling.k8s.io/v1/priorityclasses", "PriorityClass", False),
    (f"{_OWN}/verificationpolicies", "VerificationPolicy", True),
    (f"{_OWN}/modelprofiles", "ModelProfile", True),
    (f"{_OWN}/capacityledgers", LEDGER, True),
)
"""(where all of them are listed, kind, whether a cluster may do without it: Shardgate, Karpenter or DRA is not installed)."""


async def live_facts(cluster: Cluster) -> AsyncIterator[list[Document]]:
    """Of each kind all objects. Raises ``ClusterUnreachable`` and ``ApiError``."""
    for path, kind, is_optional in FACTS:
        try:
            items = await cluster.list_all(path, selector=AGENTS_LEASES if kind == LEASE else "")
        except ApiError as error:
            if error.status == HTTP_NOT_FOUND and is_optional:
                continue
            if error.status == HTTP_FORBIDDEN and kind in (LEDGER, REPORT, LEASE):
                continue  # what they say decides little, or labels say it too, and only few may read them
            raise
        yield list(_labelled(items, kind, path, cluster.server))


async def live_declarations(cluster: Cluster) -> AsyncIterator[list[Document | Unreadable]]:
    """InferenceDeployments, then workloads of the kinds that are judged where they stand; a kind that may not be read is named.

    Raises ``ClusterUnreachable`` and ``ApiError``.
    """
    own = ((f"{_OWN}/inferencedeployments",), OWN_KIND)
    for paths, kind in (own, *((each.paths, each.kind) for each in JUDGED_KINDS if each.is_followed)):
        for path in paths:
            try:
                items = await cluster.list_all(path)
            except ApiError as error:
                if error.status == HTTP_NOT_FOUND:
                    continue  # of another version, or not installed
                if error.status == HTTP_FORBIDDEN:
                    yield [Unreadable(cluster.server, f"{path.rpartition('/')[2]} may not be read: none of them is judged")]
                    break
                raise
            yield list(_labelled(items, kind, path, cluster.server))
            break


def _labelled(items: list[dict[str, Any]], kind: str, path: str, server: str) -> Iterator[Document]:
    """Items of a list do not say their own kind and version."""
    version = path.removeprefix("/apis/").removeprefix("/api/").rpartition("/")[0]
    for item in items:
        yield Document(server, {"apiVersion": version, "kind": kind, **item})
