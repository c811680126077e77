"""Pod objects -> what they hold: node, effective requests, whose they are."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import msgspec

from shardgate.adapters.affinity import read_node_affinity, read_pod_terms
from shardgate.adapters.quantities import resources
from shardgate.domain.declaration import DEFAULT_SCHEDULER
from shardgate.domain.inventory import HeldPod, Owner, PendingPods, Toleration, is_device
from shardgate.domain.selectors import ANY_ADDRESS, HostPort, PodTerm

DECLARATION_LABEL = "shardgate.io/inference-deployment"
OWN_KIND = "InferenceDeployment"
_HASH_LABELS = (("rollouts-pod-template-hash", "Rollout"), ("pod-template-hash", "Deployment"))
"""Hashes that controllers give pods, and put at the end of their ReplicaSets' names."""
_OWNER_LABELS = (
    (DECLARATION_LABEL, OWN_KIND),
    ("leaderworkerset.sigs.k8s.io/name", "LeaderWorkerSet"),
    ("serving.kserve.io/inferenceservice", "InferenceService"),
    ("nvidia.com/dynamo-graph-deployment-name", "DynamoGraphDeployment"),
    ("ray.io/cluster", "RayCluster"),
    ("kaito.sh/workspace", "Workspace"),
)
"""By which pods say whose they are, where other objects stand between."""
_TERMINAL = ("Succeeded", "Failed")
WHAT_RUNS = ("image", "command", "args", "env", "envFrom")
"""Fields of a container that say what it runs: nothing that is kept or handed out has them."""

Amounts = dict[str, str | int | float]


class Requirements(msgspec.Struct, gc=False):
    """``resources`` of a container."""

    requests: Amounts | None = None
    limits: Amounts | None = None


class ContainerPort(msgspec.Struct, gc=False):
    """A port of a container."""

    containerPort: int = 0  # noqa: N815  # as the API spells it
    hostPort: int = 0  # noqa: N815
    hostIP: str = ""  # noqa: N815
    protocol: str = "TCP"


class Container(msgspec.Struct, gc=False):
    """The part of a container that is read; of one with GPUs also what it runs, in whatever form a file has it.

    Of the others that is left out: of a large cluster's pods most have none, and variables are most of what a pod says.
    """

    READ_IF: ClassVar[tuple[str, frozenset[str]]] = ("has_gpus", frozenset(WHAT_RUNS))
    """What has to hold, and which fields are read only then."""

    name: str = ""
    image: Any = None
    command: Any = None
    args: Any = None
    env: Any = None
    envFrom: Any = None  # noqa: N815  # as the API spells it
    ports: list[ContainerPort] | None = None
    resources: Requirements | None = None
    restartPolicy: str = ""  # noqa: N815  # as the API spells it

    def __post_init__(self) -> None:
        if self.image is not None and not self.has_gpus:  # from JSON
            self.image = self.command = self.args = self.env = self.envFrom = None

    @property
    def amounts(self) -> Amounts:
        """What it asks for: its requests, and limits where it states no request."""
        stated = self.resources
        return {} if stated is None else {**(stated.limits or {}), **(stated.requests or {})}

    @property
    def has_gpus(self) -> bool:
        """Whether it asks for any."""
        stated = self.resources
        return stated is not None and (any(map(is_device, stated.limits or ())) or any(map(is_device, stated.requests or ())))


class OwnerReference(msgspec.Struct, gc=False):
    """An owner."""

    kind: str = ""
    name: str = ""
    controller: bool = False


class PodMetadata(msgspec.Struct, gc=False):
    """The part of ObjectMeta that is read."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815
    labels: dict[str, str] | None = None
    deletionTimestamp: str = ""  # noqa: N815
    ownerReferences: list[OwnerReference] | None = None  # noqa: N815


class PodToleration(msgspec.Struct, gc=False):
    """A toleration."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class PodSpec(msgspec.Struct, gc=False):
    """The part of a pod's spec that is read."""

    nodeName: str = ""  # noqa: N815
    priority: int = 0
    schedulerName: str = "default-scheduler"  # noqa: N815
    hostNetwork: bool = False  # noqa: N815
    schedulingGates: list[Any] | None = None  # noqa: N815
    nodeSelector: dict[str, str] | None = None  # noqa: N815
    tolerations: list[PodToleration] | None = None
    affinity: dict[str, Any] | None = None
    containers: list[Container] | None = None
    initContainers: list[Container] | None = None  # noqa: N815
    overhead: Amounts | None = None
    resources: Requirements | None = None
    """Of the pod as a whole: instead of its containers' sums, where it names a resource."""


class PodCondition(msgspec.Struct, gc=False):
    """A condition."""

    type: str = ""
    status: str = ""
    reason: str = ""


class ContainerStatus(msgspec.Struct, gc=False):
    """What a container was given: differs from its spec while it is resized in place."""

    name: str = ""
    allocatedResources: Amounts | None = None  # noqa: N815
    resources: Requirements | None = None


class PodStatus(msgspec.Struct, gc=False):
    """The part of a pod's status that is read."""

    phase: str = ""
    containerStatuses: list[ContainerStatus] | None = None  # noqa: N815
    initContainerStatuses: list[ContainerStatus] | None = None  # noqa: N815
    conditions: list[PodCondition] | None = None


class PodObject(msgspec.Struct, gc=False):
    """A Pod, decoded no further than it is read."""

    metadata: PodMetadata
    spec: PodSpec | None = None
    status: PodStatus | None = None


class PodRecord(msgspec.Struct, gc=False, frozen=True):
    """What is kept of a pod."""

    uid: str
    namespace: str
    name: str
    node: str
    requests: tuple[tuple[str, int], ...]
    ready: bool
    owners: tuple[Owner, ...] = ()
    """What declares it."""
    priority: int = 0
    daemon: str = ""
    """The DaemonSet whose it is: one such pod is on the node whatever else is."""
    is_terminating: bool = False
    labels: Mapping[str, str] = MappingProxyType({})
    """One object for pods that share them all."""
    repels: tuple[PodTerm, ...] = ()
    """Its required anti-affinity: whom it will not have beside it."""
    host_ports: tuple[HostPort, ...] = ()
    waiting: PendingPods | None = None
    """Of a pod that waits for a node: where it may go."""
    is_promised: bool = False
    """It is not there yet: its place is claimed for it."""

    def held(self) -> HeldPod:
        """As a declaration's own pod."""
        return HeldPod(
            uid=self.uid, node=self.node, requests=dict(self.requests), ready=self.ready, priority=self.priority,
            is_promised=self.is_promised, is_terminating=self.is_terminating,
        )  # fmt: skip


def read_pod(pod: PodObject) -> PodRecord | None:
    """What the pod holds or will hold; ``None`` for one that has ended.

    Raises ``QuantityError`` for an amount that is no quantity.
    """
    if pod.status is not None and pod.status.phase in _TERMINAL:
        return None
    metadata = pod.metadata
    ready = any(each.type == "Ready" and each.status == "True" for each in (pod.status and pod.status.conditions) or ())
    return PodRecord(
        uid=metadata.uid or f"{metadata.namespace}/{metadata.name}",
        namespace=sys.intern(metadata.namespace),
        name=metadata.name,
        node=sys.intern(pod.spec.nodeName if pod.spec else ""),
        requests=_shared(tuple(sorted(effective_requests(pod.spec, pod.status).items()))),
        ready=ready,
        owners=owners_of(metadata),
        priority=pod.spec.priority if pod.spec else 0,
        daemon=next((each.name for each in metadata.ownerReferences or () if each.kind == "DaemonSet" and each.controller), ""),
        is_terminating=bool(metadata.deletionTimestamp),
        labels=_shared_labels(metadata.labels or {}),
        repels=_repels(pod),
        host_ports=host_ports(pod.spec),
        waiting=_waiting(pod),
    )


def owners_of(metadata: PodMetadata) -> tuple[Owner, ...]:
    """Who may have declared the pod: by our label, and by its controller.

    A ReplicaSet is a Deployment's where its name ends in the hash that the Deployment gave the pods, so no ReplicaSet
    need be looked at.
    """
    labels = metadata.labels or {}
    owners = [Owner(metadata.namespace, kind, labels[label]) for label, kind in _OWNER_LABELS if labels.get(label)]
    made_by = [each for each in metadata.ownerReferences or () if each.controller and each.kind != "DaemonSet"]
    owners += [Owner(metadata.namespace, *_behind(each, labels)) for each in made_by]
    return tuple(dict.fromkeys(owners))


def promised_to(owner: Owner) -> Owner:
    """Whose the pods are that are promised to an owner and have not come: of these alone, not of its pods that are there."""
    return owner._replace(kind=f"{owner.kind} (promised)")


def _behind(owner: OwnerReference, labels: Mapping[str, str]) -> tuple[str, str]:
    """(kind, name) of the controller, or of what made that."""
    for label, kind in _HASH_LABELS:
        suffix = f"-{labels[label]}" if label in labels else ""
        if owner.kind == "ReplicaSet" and suffix and owner.name.endswith(suffix):
            return kind, owner.name.removesuffix(suffix)
    return owner.kind, owner.name


def _repels(pod: PodObject) -> tuple[PodTerm, ...]:
    affinity = pod.spec.affinity if pod.spec is not None else None
    if not affinity or "podAntiAffinity" not in affinity:
        return ()
    try:
        return read_pod_terms(affinity, "podAntiAffinity", pod.metadata.namespace, "spec.affinity", is_admitted=True).terms
    except ExceptionGroup:  # of no form that the API server would have let in
        return ()


def host_ports(spec: PodSpec | None) -> tuple[HostPort, ...]:
    """Ports of the host that a pod takes: on the host's network, every port that its containers name."""
    if spec is None:
        return ()
    containers = (*(spec.containers or ()), *(each for each in spec.initContainers or () if each.restartPolicy == "Always"))
    return tuple(
        HostPort(port=number, protocol=port.protocol or "TCP", address=port.hostIP or ANY_ADDRESS)
        for container in containers
        for port in container.ports or ()
        if (number := port.hostPort or (port.containerPort if spec.hostNetwork else 0))
    )


_LABELS: dict[frozenset[tuple[str, str]], dict[str, str]] = {}


def _shared_labels(labels: dict[str, str]) -> dict[str, str]:
    """Pods of one template share theirs."""
    if len(_LABELS) > 100_000:  # noqa: PLR2004  # bounded, whatever tenants write
        _LABELS.clear()
    return _LABELS.setdefault(frozenset(labels.items()), labels)


def _waiting(pod: PodObject) -> PendingPods | None:
    """What kube-scheduler will look at; ``None`` for pods that it does not look at (now)."""
    spec, metadata = pod.spec, pod.metadata
    if spec is None or spec.nodeName or spec.schedulingGates or spec.schedulerName != DEFAULT_SCHEDULER:
        return None
    try:
        terms = read_node_affinity(spec.affinity or {}, "spec.affinity")
    except ExceptionGroup:  # of no form that the API server would have let in
        return None
    return PendingPods(
        requests=effective_requests(spec),
        priority=spec.priority,
        count=1,
        owners=frozenset(owners_of(metadata)),
        node_selector=spec.nodeSelector or {},
        node_terms=terms,
        tolerations=tuple(
            Toleration(key=each.key, operator=each.operator, value=each.value, effect=each.effect)
            for each in spec.tolerations or ()
        ),
    )


_REQUESTS: dict[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]] = {}


def _shared(requests: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """Most pods of a cluster ask for the same few amounts."""
    if len(_REQUESTS) > 100_000:  # noqa: PLR2004  # bounded, whatever tenants ask for
        _REQUESTS.clear()
    return _REQUESTS.setdefault(requests, requests)


@dataclass(frozen=True, slots=True)
class _Held:
    """What containers were given, and whether the node can never give what they ask for now."""

    given: Mapping[str, ContainerStatus]
    is_infeasible: bool

    @classmethod
    def of(cls, status: PodStatus | None) -> "_Held":
        if status is None:
            return cls({}, is_infeasible=False)
        statuses = (*(status.containerStatuses or ()), *(status.initContainerStatuses or ()))
        pending = (each for each in status.conditions or () if each.type == "PodResizePending")
        return cls({each.name: each for each in statuses}, any(each.reason == "Infeasible" for each in pending))

    def requests(self, container: Container) -> dict[str, int]:
        asked = _stated(container.resources)
        held = self.given.get(container.name)
        if held is None:
            return asked
        if self.is_infeasible and held.allocatedResources:
            asked = {}
        for amounts in (resources(held.allocatedResources, up=True), _stated(held.resources)):
            for name, amount in amounts.items():
                asked[name] = max(asked.get(name, 0), amount)
        return asked


def effective_requests(spec: PodSpec | None, status: PodStatus | None = None) -> dict[str, int]:
    """As kube-scheduler counts: containers and sidecars together, or the largest start-up step; overhead; one pod.

    A container that is resized in place holds the larger of what it asks for and what it was given; the latter where
    the node can never give what is asked.
    """
    total: dict[str, int] = {}
    if spec is None:
        return {"pods": 1}
    held = _Held.of(status)
    for container in spec.containers or ():
        _add(total, held.requests(container))
    start_up: dict[str, int] = {}
    sidecars: dict[str, int] = {}
    for container in spec.initContainers or ():
        asked = held.requests(container)
        if container.restartPolicy == "Always":
            _add(sidecars, asked)
            step = dict(sidecars)
        else:
            step = dict(sidecars)
            _add(step, asked)
        for name, amount in step.items():
            start_up[name] = max(start_up.get(name, 0), amount)
    _add(total, sidecars)
    for name, amount in start_up.items():
        total[name] = max(total.get(name, 0), amount)
    total |= _stated(spec.resources)
    _add(total, resources(spec.overhead, up=True))
    total["pods"] = 1
    return total


def _stated(stated: Requirements | None) -> dict[str, int]:
    """A limit without a request is a request, as the API server defaults it."""
    return {} if stated is None else resources({**(stated.limits or {}), **(stated.requests or {})}, up=True)


def _add(to: dict[str, int], amounts: Mapping[str, int]) -> None:
    for name, amount in amounts.items():
        to[name] = to.get(name, 0) + amount


def pod_from(body: Mapping[str, Any]) -> PodObject:
    """A Pod from plain values. Raises ``msgspec.ValidationError`` naming the field."""
    return msgspec.convert(body, PodObject, strict=False)
