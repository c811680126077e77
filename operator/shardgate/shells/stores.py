"""What reflectors fill: each resource's part of the cluster book."""

import logging
import time
from typing import Any, Generic, Protocol

import msgspec

from shardgate.adapters.adopted_pods import runs_of
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.exceptions import read_exception
from shardgate.adapters.karpenter import NodeClaimObject, NodePoolObject
from shardgate.adapters.model_profiles import read_profile
from shardgate.adapters.namespace_rules import ByNamespace, Item
from shardgate.adapters.nodes import ClaimObject, DeviceClassObject, NodeObject, SliceObject
from shardgate.adapters.pods import PodObject, read_pod
from shardgate.adapters.policies import read_policy
from shardgate.adapters.quantities import QuantityError
from shardgate.adapters.workloads.kinds import JudgedKind
from shardgate.adapters.workloads.registry import names_a_template, template_asks_for_gpus
from shardgate.api import API_VERSION

log = logging.getLogger(__name__)


class NamedObject(msgspec.Struct, gc=False):
    """Metadata by name and labels: a Namespace needs no more."""

    name: str = ""
    labels: dict[str, str] | None = None


class NamespaceObject(msgspec.Struct, gc=False):
    """A Namespace."""

    metadata: NamedObject


class PriorityClassObject(msgspec.Struct, gc=False):
    """A PriorityClass."""

    metadata: NamedObject
    value: int = 0
    globalDefault: bool = False  # noqa: N815  # as the API spells it
    preemptionPolicy: str = ""  # noqa: N815


class PolicyMetadata(msgspec.Struct, gc=False):
    """The part of ObjectMeta that is read."""

    name: str = ""
    generation: int = 0
    resourceVersion: str = ""  # noqa: N815  # as the API spells it


class PolicyObject(msgspec.Struct):
    """A VerificationPolicy, its spec as it stands."""

    metadata: PolicyMetadata
    spec: dict[str, Any]
    status: dict[str, Any] | None = None


class SeenPolicies(Protocol):
    """Who is told of policies as they stand."""

    def seen(self, name: str, generation: int, version: str, status: dict[str, Any] | None, problem: str = "") -> None:
        """Added or changed; ``problem``: why it is not read."""

    def gone(self, name: str) -> None:
        """Deleted."""


class Nodes:
    """Nodes into the book."""

    def __init__(self, book: ClusterBook) -> None:
        self._book = book

    def key(self, item: NodeObject) -> str:
        """By name."""
        return item.metadata.name

    def put(self, item: NodeObject) -> None:
        """Added or changed."""
        self._book.put_node(item, time.monotonic())

    def drop(self, item: NodeObject) -> None:
        """Deleted."""
        self._book.drop_node(item.metadata.name, time.monotonic())

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        self._book.retain_nodes(keys, time.monotonic())


class Slices:
    """ResourceSlices into the book."""

    def __init__(self, book: ClusterBook) -> None:
        self._book = book

    def key(self, item: SliceObject) -> str:
        """By name."""
        return item.metadata.name

    def put(self, item: SliceObject) -> None:
        """Added or changed."""
        self._book.put_slice(item, time.monotonic())

    def drop(self, item: SliceObject) -> None:
        """Deleted."""
        self._book.drop_slice(item.metadata.name, time.monotonic())

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        self._book.retain_slices(keys, time.monotonic())


class DeviceClasses:
    """DeviceClasses into the book."""

    def __init__(self, book: ClusterBook) -> None:
        self._book = book

    def key(self, item: DeviceClassObject) -> str:
        """By name."""
        return item.metadata.name

    def put(self, item: DeviceClassObject) -> None:
        """Added or changed."""
        self._book.put_device_class(item, time.monotonic())

    def drop(self, item: DeviceClassObject) -> None:
        """Deleted."""
        self._book.drop_device_class(item.metadata.name, time.monotonic())

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        for name in [name for name in self._book.device_classes if name not in keys]:
            self._book.drop_device_class(name, time.monotonic())


class Claims:
    """ResourceClaims into the book."""

    def __init__(self, book: ClusterBook) -> None:
        self._book = book

    def key(self, item: ClaimObject) -> str:
        """By uid."""
        return item.metadata.uid

    def put(self, item: ClaimObject) -> None:
        """Added or changed."""
        self._book.put_claim(item)

    def drop(self, item: ClaimObject) -> None:
        """Deleted."""
        self._book.drop_claim(item.metadata.uid)

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        self._book.retain_claims(keys)


class NodePools:
    """Karpenter's NodePools into the book."""

    def __init__(self, book: ClusterBook) -> None:
        self._book = book

    def key(self, item: NodePoolObject) -> str:
        """By name."""
        return item.metadata.name

    def put(self, item: NodePoolObject) -> None:
        """Added or changed."""
        self._book.put_pool(item)

    def drop(self, item: NodePoolObject) -> None:
        """Deleted."""
        self._book.drop_autoscaled("NodePool", item.metadata.name)

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        self._book.retain_autoscaled("NodePool", keys)


class NodeClaims:
    """Karpenter's NodeClaims into the book."""

    def __init__(self, book: ClusterBook) -> None:
        self._book = book

    def key(self, item: NodeClaimObject) -> str:
        """By name."""
        return item.metadata.name

    def put(self, item: NodeClaimObject) -> None:
        """Added or changed."""
        self._book.put_node_claim(item)

    def drop(self, item: NodeClaimObject) -> None:
        """Deleted."""
        self._book.drop_autoscaled("NodeClaim", item.metadata.name)

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        self._book.retain_autoscaled("NodeClaim", keys)


class ReferenceMetadata(msgspec.Struct, gc=False):
    """Where an object stands."""

    name: str = ""
    namespace: str = ""


class ReferenceObject(msgspec.Struct):
    """An object that workloads refer to, its spec as it stands."""

    metadata: ReferenceMetadata
    spec: dict[str, Any] | None = None


class References:
    """Runtimes, presets, caches and claim templates of one kind into the book's library."""

    def __init__(self, book: ClusterBook, kind: str) -> None:
        self._book, self._kind = book, kind

    def _body(self, item: ReferenceObject) -> dict[str, Any]:
        metadata = {"name": item.metadata.name, "namespace": item.metadata.namespace}
        return {"kind": self._kind, "metadata": metadata, "spec": item.spec}

    def key(self, item: ReferenceObject) -> str:
        """By namespace and name."""
        return f"{item.metadata.namespace}/{item.metadata.name}"

    def put(self, item: ReferenceObject) -> None:
        """Added or changed."""
        self._book.references.put(self._body(item))

    def drop(self, item: ReferenceObject) -> None:
        """Deleted."""
        self._book.references.drop(self._body(item))

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        for body in self._book.references.all(self._kind):
            if f"{body['metadata']['namespace']}/{body['metadata']['name']}" not in keys:
                self._book.references.drop(body)


class Namespaced(Generic[Item]):
    """ResourceQuotas or LimitRanges into the book."""

    def __init__(self, kept: ByNamespace[Item, Any]) -> None:
        self._kept: ByNamespace[Item, Any] = kept

    def key(self, item: Item) -> str:
        """By namespace and name."""
        return f"{item.metadata.namespace}/{item.metadata.name}"

    def put(self, item: Item) -> None:
        """Added or changed."""
        self._kept.put(item)

    def drop(self, item: Item) -> None:
        """Deleted."""
        self._kept.drop((item.metadata.namespace, item.metadata.name))

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        self._kept.retain(keys)


class Pods:
    """Pods into the book; the API server is asked for those that have not ended."""

    def __init__(self, book: ClusterBook) -> None:
        self._book = book

    def key(self, item: PodObject) -> str:
        """By uid."""
        return item.metadata.uid

    def put(self, item: PodObject) -> None:
        """Added or changed."""
        try:
            record = read_pod(item)
        except QuantityError as error:
            log.warning("pod %s/%s is left out: %s", item.metadata.namespace, item.metadata.name, error)
            record = None
        if record is None:
            self._book.drop_pod(item.metadata.uid)
        else:
            self._book.put_pod(record, runs_of(item))

    def drop(self, item: PodObject) -> None:
        """Deleted, or ended."""
        self._book.drop_pod(item.metadata.uid)

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        self._book.retain_pods(keys)


class Namespaces:
    """Namespaces into the book."""

    def __init__(self, book: ClusterBook) -> None:
        self._book = book

    def key(self, item: NamespaceObject) -> str:
        """By name."""
        return item.metadata.name

    def put(self, item: NamespaceObject) -> None:
        """Added or changed."""
        self._book.rules.put_namespace(item.metadata.name, item.metadata.labels or {})

    def drop(self, item: NamespaceObject) -> None:
        """Deleted."""
        self._book.rules.drop_namespace(item.metadata.name)

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        self._book.rules.retain_namespaces(keys)


class PriorityClasses:
    """PriorityClasses into the book."""

    def __init__(self, book: ClusterBook) -> None:
        self._book = book

    def key(self, item: PriorityClassObject) -> str:
        """By name."""
        return item.metadata.name

    def put(self, item: PriorityClassObject) -> None:
        """Added or changed."""
        self._book.put_priority_class(
            item.metadata.name, item.value, is_default=item.globalDefault, preempts=item.preemptionPolicy != "Never"
        )

    def drop(self, item: PriorityClassObject) -> None:
        """Deleted."""
        self._book.drop_priority_class(item.metadata.name)

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        for name in [name for name in self._book.priorities if name not in keys]:
            self._book.drop_priority_class(name)


class Policies:
    """VerificationPolicies into the book."""

    def __init__(self, book: ClusterBook, seen: SeenPolicies) -> None:
        self._book, self._seen = book, seen

    def key(self, item: PolicyObject) -> str:
        """By name."""
        return item.metadata.name

    def put(self, item: PolicyObject) -> None:
        """Added or changed."""
        problem = ""
        try:
            self._book.rules.put_policy(read_policy({"metadata": {"name": item.metadata.name}, "spec": item.spec}))
        except ExceptionGroup as problems:
            problem = "; ".join(str(each) for each in mistakes_in(problems))
            log.warning("VerificationPolicy %s is not read: %s", item.metadata.name, problem)
        metadata = item.metadata
        self._seen.seen(metadata.name, metadata.generation, metadata.resourceVersion, item.status, problem)

    def drop(self, item: PolicyObject) -> None:
        """Deleted."""
        self._book.rules.drop_policy(item.metadata.name)
        self._seen.gone(item.metadata.name)

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        for name in [name for name in self._book.rules.policies if name not in keys]:
            self._book.rules.drop_policy(name)
            self._seen.gone(name)


class ProfileObject(msgspec.Struct):
    """A ModelProfile, its spec as it stands."""

    metadata: NamedObject
    spec: dict[str, Any]


class Profiles:
    """ModelProfiles into the book."""

    def __init__(self, book: ClusterBook) -> None:
        self._book = book

    def key(self, item: ProfileObject) -> str:
        """By name."""
        return item.metadata.name

    def put(self, item: ProfileObject) -> None:
        """Added or changed."""
        try:
            self._book.rules.put_profile(read_profile({"metadata": {"name": item.metadata.name}, "spec": item.spec}))
        except ExceptionGroup as problems:
            for each in mistakes_in(problems):
                log.warning("ModelProfile %s is not read: %s", item.metadata.name, each)

    def drop(self, item: ProfileObject) -> None:
        """Deleted."""
        self._book.rules.drop_profile(item.metadata.name)

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        for name in [name for name in self._book.rules.profiles if name not in keys]:
            self._book.rules.drop_profile(name)


class FollowedWorkloads(Protocol):
    """Who is told of standing workloads of other kinds, and of the verdicts beside them."""

    def put(self, body: dict[str, Any]) -> None:
        """Added or changed."""

    def drop(self, uid: str) -> None:
        """Deleted."""

    def uids_of(self, kind: JudgedKind) -> list[str]:
        """All that it knows of a kind."""

    def put_verdict(self, body: dict[str, Any]) -> None:
        """Added or changed."""

    def drop_verdict(self, name: tuple[str, str]) -> None:
        """Deleted: namespace and name."""

    def verdict_names(self) -> list[tuple[str, str]]:
        """All that it knows: namespace and name."""


class Workloads:
    """Workloads of one kind; those of templates without GPUs are left out at once."""

    def __init__(self, standing: FollowedWorkloads, kind: JudgedKind) -> None:
        self._standing, self._kind = standing, kind

    def key(self, item: dict[str, Any]) -> str:
        """By uid."""
        return str(item["metadata"]["uid"])

    def put(self, item: dict[str, Any]) -> None:
        """Added or changed."""
        item["metadata"].pop("managedFields", None)
        body = {"apiVersion": self._kind.api_version, "kind": self._kind.kind, **item}
        if self._kind.gpus != "template" or template_asks_for_gpus(body) or names_a_template(body):
            self._standing.put(body)
        else:
            self._standing.drop(self.key(item))  # it may have asked for some before

    def drop(self, item: dict[str, Any]) -> None:
        """Deleted."""
        self._standing.drop(self.key(item))

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        for uid in self._standing.uids_of(self._kind):
            if uid not in keys:
                self._standing.drop(uid)


class Verdicts:
    """WorkloadVerdicts that stand."""

    def __init__(self, standing: FollowedWorkloads) -> None:
        self._standing = standing

    def key(self, item: dict[str, Any]) -> str:
        """By namespace and name."""
        return f"{item['metadata']['namespace']}/{item['metadata']['name']}"

    def put(self, item: dict[str, Any]) -> None:
        """Added or changed."""
        self._standing.put_verdict(item)

    def drop(self, item: dict[str, Any]) -> None:
        """Deleted."""
        self._standing.drop_verdict((item["metadata"]["namespace"], item["metadata"]["name"]))

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        for namespace, name in self._standing.verdict_names():
            if f"{namespace}/{name}" not in keys:
                self._standing.drop_verdict((namespace, name))


class OneObject(Protocol):
    """Who is told of the one Secret."""

    def put(self, body: dict[str, Any]) -> None:
        """It stands, or was changed."""

    def drop(self) -> None:
        """There is none."""


class OneSecret:
    """The Secret of our own certificates."""

    def __init__(self, certificates: OneObject, name: str) -> None:
        self._certificates, self._name = certificates, name

    def key(self, item: dict[str, Any]) -> str:
        """By name."""
        return str(item["metadata"]["name"])

    def put(self, item: dict[str, Any]) -> None:
        """Added or changed."""
        self._certificates.put(item)

    def drop(self, item: dict[str, Any]) -> None:
        """Deleted."""
        if self.key(item) == self._name:
            self._certificates.drop()

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        if self._name not in keys:
            self._certificates.drop()


class OneLedger(Protocol):
    """Who is told of the CapacityLedger."""

    def put(self, body: dict[str, Any]) -> None:
        """It stands, or was changed."""

    def drop(self) -> None:
        """It was deleted."""


class Ledgers:
    """The CapacityLedger that is ours."""

    def __init__(self, ledger: OneLedger, name: str) -> None:
        self._ledger, self._name = ledger, name

    def key(self, item: dict[str, Any]) -> str:
        """By name."""
        return str(item["metadata"]["name"])

    def put(self, item: dict[str, Any]) -> None:
        """Added or changed."""
        if self.key(item) == self._name:
            self._ledger.put(item)

    def drop(self, item: dict[str, Any]) -> None:
        """Deleted."""
        if self.key(item) == self._name:
            self._ledger.drop()

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        if self._name not in keys:
            self._ledger.drop()


class Exceptions:
    """VerificationExceptions into the book."""

    def __init__(self, book: ClusterBook) -> None:
        self._book = book

    def key(self, item: dict[str, Any]) -> str:
        """By namespace and name."""
        return f"{item['metadata']['namespace']}/{item['metadata']['name']}"

    def put(self, item: dict[str, Any]) -> None:
        """Added or changed."""
        try:
            self._book.rules.overrides[self.key(item)] = read_exception(item)
        except ExceptionGroup as problems:
            self._book.rules.overrides.pop(self.key(item), None)
            for each in mistakes_in(problems):
                log.warning("VerificationException %s is not read: %s", self.key(item), each)

    def drop(self, item: dict[str, Any]) -> None:
        """Deleted."""
        self._book.rules.overrides.pop(self.key(item), None)

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        for name in [name for name in self._book.rules.overrides if name not in keys]:
            del self._book.rules.overrides[name]


class DeclarationObject(msgspec.Struct):
    """An InferenceDeployment: known by its uid, kept as it stands."""

    metadata: dict[str, Any]
    spec: Any = None
    status: Any = None

    def body(self) -> dict[str, Any]:
        """As a plain object."""
        body = {"apiVersion": API_VERSION, "kind": "InferenceDeployment", "metadata": self.metadata, "spec": self.spec}
        return body if self.status is None else {**body, "status": self.status}


class Standing(Protocol):
    """Who is told of standing declarations."""

    def put(self, body: dict[str, Any]) -> None:
        """Added or changed."""

    def drop(self, uid: str) -> None:
        """Deleted."""

    def uids(self) -> list[str]:
        """All that it knows."""


class Declarations:
    """Standing declarations to the reconciler."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def key(self, item: DeclarationObject) -> str:
        """By uid."""
        return str(item.metadata.get("uid", ""))

    def put(self, item: DeclarationObject) -> None:
        """Added or changed."""
        self._standing.put(item.body())

    def drop(self, item: DeclarationObject) -> None:
        """Deleted."""
        self._standing.drop(self.key(item))

    def retain(self, keys: set[str]) -> None:
        """Listed: what went while we were away is gone here too."""
        for uid in self._standing.uids():
            if uid not in keys:
                self._standing.drop(uid)
