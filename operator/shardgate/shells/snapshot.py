"""Clusters for the command line: from files, from a list of GPUs, or live; all end in the same book."""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from shardgate.adapters.accuracy import accuracies_in
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.gpu_node_reports import KIND as REPORT
from shardgate.adapters.gpu_resources import is_gpu
from shardgate.adapters.gpus import gpu_of, label_of, normalised, similar_products
from shardgate.adapters.karpenter import GROUP as KARPENTER
from shardgate.adapters.karpenter import claim_from, pool_from
from shardgate.adapters.limit_ranges import limit_range_from
from shardgate.adapters.model_profiles import describes_model, profile_of
from shardgate.adapters.node_report import node_report
from shardgate.adapters.node_reports import renewed_at
from shardgate.adapters.nodes import (
    ClaimObject,
    DeviceClassObject,
    HeartbeatObject,
    NodeObject,
    heartbeat_from,
    node_from,
    report_from,
    slice_from,
)
from shardgate.adapters.pods import pod_from, read_pod
from shardgate.adapters.policies import is_policy, read_policy
from shardgate.adapters.quantities import AMPLE, QuantityError, whole
from shardgate.adapters.quotas import quota_from
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.references import REFERENCE_KINDS
from shardgate.domain.inventory import Gpu, Inventory, Node, NodeShape, NodeState, Visible
from shardgate.domain.units import Bytes, gib
from shardgate.shells.cluster import Cluster
from shardgate.shells.documents import Document, Unreadable
from shardgate.shells.live_objects import LEDGER, live_facts
from shardgate.shells.live_references import referred
from shardgate.shells.stores import NamespaceObject, PriorityClassObject

KUBELETS_LEASES = "kube-node-lease"
"""Namespace of Leases by which kubelets tell that they live: nothing of agents."""
_ITEM = re.compile(r"^(?P<count>[0-9]{1,4})x(?P<product>[^@,]+?)(@(?P<memory>[^@,]+))?$")


MOST_MEMORY = Bytes(2**50)
"""Of one GPU: more is a mistake."""


class GpusError(Exception):
    """``--gpus`` is not written as it should be."""


@dataclass(slots=True)
class Snapshot:
    """A cluster at one moment, and what of it could not be read. Declarations that are admitted take their GPUs."""

    book: ClusterBook = field(default_factory=ClusterBook)
    unreadable: list[Unreadable] = field(default_factory=list)
    references: Library = field(default_factory=Library)
    """Objects of the cluster that workloads refer to."""
    moment: float = 0.0
    """Unix time at which it was taken; unless that is known, when the last Lease in it was renewed."""
    _leases: list[HeartbeatObject] = field(default_factory=list)
    _nodes: dict[str, NodeObject] = field(default_factory=dict)
    _made_up: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.book.reports.are_heartbeats_needed = False  # files may have reports alone

    def offer(self, resources: Iterable[str]) -> None:
        """Made-up nodes have enough of whatever is asked for besides GPUs: nobody said what they have."""
        others = {name: AMPLE for name in resources if not is_gpu(name)}
        for node in self._made_up:
            self.book.put_plain_node(replace(node, allocatable={**others, **node.allocatable}))

    def inventory(self) -> Inventory:
        """Frozen, with what admitted declarations took."""
        return self.book.inventory(0.0)

    def add(self, documents: Iterable[Document | Unreadable]) -> None:
        """Nodes, pods, namespaces, policies and models; other objects are none of ours."""
        for document in sorted(documents, key=_is_node):  # slices say what a node's devices are
            if isinstance(document, Unreadable):
                self.unreadable.append(document)
            else:
                self.unreadable += [Unreadable(document.where, problem) for problem in self._put(document.body)]
        moment = self.moment or max((renewed_at(each) for each in self._leases), default=0.0)
        for each in self._leases:
            self.book.put_heartbeat(each, 0.0, moment)

    def _put(self, body: Any) -> list[str]:  # an object of any kind
        put = self._readers.get(body.get("kind"))
        if body.get("kind") in REFERENCE_KINDS or body.get("kind") == "ConfigMap":
            self.references.put(body)
        if put is None:
            put = self._put_policy if is_policy(body) else self._put_profile if describes_model(body) else None
        try:
            return put(body) if put is not None else []
        except (msgspec.ValidationError, QuantityError) as error:
            return [f"{body.get('kind')} {(body.get('metadata') or {}).get('name')}: {error}"]
        except ExceptionGroup as problems:
            return [f"{body.get('kind')} {(body.get('metadata') or {}).get('name')}: {each}" for each in mistakes_in(problems)]

    @property
    def _readers(self) -> dict[str, Callable[[Any], list[str]]]:
        return {
            "Node": self._put_node,
            "ResourceSlice": self._put_slice,
            "DeviceClass": self._put_device_class,
            "ResourceClaim": self._put_claim,
            REPORT: self._put_report,
            "Lease": self._put_lease,
            "NodePool": self._put_pool,
            "NodeClaim": self._put_node_claim,
            "Pod": self._put_pod,
            "ResourceQuota": self._put_quota,
            "LimitRange": self._put_limit_range,
            "PriorityClass": self._put_priority_class,
            "Namespace": self._put_namespace,
            LEDGER: self._put_ledger,
        }

    def _put_node(self, body: Any) -> list[str]:
        node = node_from(body)
        self._nodes[node.metadata.name] = node
        self.book.put_node(node, 0.0)
        why = self.book.unreadable.get(f"Node {node.metadata.name}")
        return [f"Node {node.metadata.name}: {why}"] if why else []

    def _put_slice(self, body: Any) -> list[str]:
        item = slice_from(body)
        self.book.put_slice(item, 0.0)
        why = self.book.unreadable.get(f"ResourceSlices of {item.spec.nodeName}")
        return [f"ResourceSlice {item.metadata.name}: {why}"] if why else []

    def _put_device_class(self, body: Any) -> list[str]:
        self.book.put_device_class(msgspec.convert(body, DeviceClassObject, strict=False), 0.0)
        return []

    def _put_claim(self, body: Any) -> list[str]:
        claim = msgspec.convert(body, ClaimObject, strict=False)
        claim.metadata.uid = claim.metadata.uid or f"{claim.metadata.namespace}/{claim.metadata.name}"
        self.book.put_claim(claim)
        return []

    def _put_report(self, body: Any) -> list[str]:
        self.book.put_report(report_from(body), 0.0)
        return []

    def _put_lease(self, body: Any) -> list[str]:
        item = heartbeat_from(body)
        if item.metadata.namespace != KUBELETS_LEASES:  # kubelets' are named as nodes, too
            self._leases.append(item)
        return []

    def _put_pool(self, body: Any) -> list[str]:
        if str(body.get("apiVersion") or "").partition("/")[0] != KARPENTER:
            return []
        self.book.put_pool(pool_from(body))
        return self._why("NodePool", body)

    def _put_node_claim(self, body: Any) -> list[str]:
        if str(body.get("apiVersion") or "").partition("/")[0] != KARPENTER:
            return []
        self.book.put_node_claim(claim_from(body))
        return self._why("NodeClaim", body)

    def _why(self, kind: str, body: Any) -> list[str]:
        why = self.book.unreadable.get(f"{kind} {(body.get('metadata') or {}).get('name')}")
        return [f"{kind} {(body.get('metadata') or {}).get('name')}: {why}"] if why else []

    def _put_pod(self, body: Any) -> list[str]:
        record = read_pod(pod_from(body))
        if record is not None:
            self.book.put_pod(record)
        return []

    def _put_quota(self, body: Any) -> list[str]:
        item = quota_from(body)
        self.book.rules.quotas.put(item)
        return self._why_not(f"ResourceQuota {item.metadata.namespace}/{item.metadata.name}")

    def _put_limit_range(self, body: Any) -> list[str]:
        item = limit_range_from(body)
        self.book.rules.limit_ranges.put(item)
        return self._why_not(f"LimitRange {item.metadata.namespace}/{item.metadata.name}")

    def _why_not(self, name: str) -> list[str]:
        why = self.book.unreadable.get(name)
        return [f"{name}: {why}"] if why else []

    def _put_priority_class(self, body: Any) -> list[str]:
        item = msgspec.convert(body, PriorityClassObject, strict=False)
        self.book.put_priority_class(
            item.metadata.name, item.value, is_default=item.globalDefault, preempts=item.preemptionPolicy != "Never"
        )
        return []

    def _put_namespace(self, body: Any) -> list[str]:
        namespace = msgspec.convert(body, NamespaceObject).metadata
        self.book.rules.put_namespace(namespace.name, namespace.labels or {})
        return []

    def _put_ledger(self, body: Any) -> list[str]:
        self.book.put_accuracy(accuracies_in(body.get("status")))
        return []

    def _put_policy(self, body: Any) -> list[str]:
        self.book.rules.put_policy(read_policy(body))
        return []

    def _put_profile(self, body: Any) -> list[str]:
        self.book.rules.put_profile(profile_of(body))
        return []

    def nodes(self) -> list[dict[str, Any]]:
        """How each node's GPUs are read, by name; those that cannot be are among ``unreadable``."""
        readable = [name for name in sorted(self._nodes) if f"Node {name}" not in self.book.unreadable]
        reports = self.book.reports
        return [
            node_report(self._nodes[name], self.book.devices(name), reports.facts(name), reports.problem(name))
            for name in readable
        ]  # fmt: skip


def _is_node(document: Document | Unreadable) -> bool:
    return isinstance(document, Document) and isinstance(document.body, dict) and document.body.get("kind") == "Node"


def from_gpus(text: str) -> Snapshot:
    """``8xH100-80GB-HBM3[@79.19Gi][,..]``: one item a node. Raises ``GpusError``."""
    snapshot = Snapshot()
    snapshot._made_up = [_node(number, item.strip()) for number, item in enumerate(text.split(","))]  # noqa: SLF001  # its own
    snapshot.offer(())
    return snapshot


def _node(number: int, item: str) -> Node:
    parts = _ITEM.match(item)
    if parts is None or int(parts["count"]) < 1:
        problem = f"{item!r}: write COUNTxPRODUCT or COUNTxPRODUCT@MEMORY, for example 8xH100-80GB-HBM3@79.19Gi"
        raise GpusError(problem)
    product = normalised(parts["product"])
    gpu = gpu_of(product, None)
    if parts["memory"]:
        try:
            seen = Bytes(whole("memory", parts["memory"]))
        except QuantityError as error:
            problem = f"{item!r}: {error}"
            raise GpusError(problem) from error
        if not 0 < seen <= MOST_MEMORY:
            problem = f"{item!r}: memory must be more than 0, and at most {gib(MOST_MEMORY)}"
            raise GpusError(problem)
        gpu = Gpu(
            product=gpu.product, memory=gpu.memory or seen, visible=Visible(low=seen, high=seen, source="--gpus"), source="--gpus"
        )
    elif gpu.memory is None:
        near = similar_products(product)
        hint = f"; near it: {', '.join(near)}" if near else ""
        problem = f"{item!r}: product {product} is not known, give its memory as the engine sees it (@79.19Gi){hint}"
        raise GpusError(problem)
    resource = {"amd": "amd.com/gpu"}.get(parts["product"].split("_")[0].lower(), "nvidia.com/gpu")
    return Node(
        name=f"node-{number}",
        shape=NodeShape(taints=(), gpu=gpu),
        labels={"nvidia.com/gpu.product": label_of(product)},
        state=NodeState.USABLE,
        allocatable={"cpu": AMPLE, "memory": AMPLE, "ephemeral-storage": AMPLE, "pods": AMPLE, resource: int(parts["count"])},
    )


async def live(declared: Sequence[Mapping[str, Any]] = ()) -> Snapshot:
    """The cluster of the kubeconfig, and what these objects refer to there. Raises ``ClusterUnreachable`` and ``ApiError``."""
    snapshot = Snapshot(moment=time.time())
    snapshot.book.reports.are_heartbeats_needed = True
    async with Cluster.from_environment() as cluster:
        async for documents in live_facts(cluster):
            snapshot.add(documents)
        async for body in referred(cluster, declared):
            snapshot.references.put(body)
    return snapshot


def live_snapshot(declared: Sequence[Mapping[str, Any]] = ()) -> Snapshot:
    """``live``, for callers without an event loop."""
    return asyncio.run(live(declared))
