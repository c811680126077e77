"""The cluster's GPUs as they are for these pods: nodes, what is free, and how old the picture is.

Amounts are whole numbers per resource name: GPUs and pods in pieces, memory in bytes, CPU in millicores.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeAlias

from shardgate.domain.calibration import Accuracy
from shardgate.domain.performance.rates import GpuRates
from shardgate.domain.selectors import HOST_LABEL, HostPort, NodeTerm, PodTerm, compares
from shardgate.domain.units import Bytes

Resources: TypeAlias = Mapping[str, int]

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"

PASSING_TAINT_PREFIXES = (
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "karpenter.sh/",
    "aws-node-termination-handler/",
    "ToBeDeletedByClusterAutoscaler",
    "DeletionCandidateOfClusterAutoscaler",
)
PASSING_TAINT_WORDS = ("not-ready", "notready", "startup", "start-up", "initializ", "impending", "termination")
"""Taints that controllers set and lift by themselves as a node starts, fails, drains or goes: Kubernetes' well-known
ones, Karpenter's and Cluster Autoscaler's, and those that say so in their key, as ``node.cilium.io/agent-not-ready``,
``ebs.csi.aws.com/agent-not-ready`` and ``cloud.google.com/impending-node-termination`` do."""


class NodeState(StrEnum):
    """Whether a node takes pods now, and if not, why it still counts as what the cluster may get."""

    USABLE = "usable"
    CORDONED = "cordoned"
    NOT_READY = "not ready"
    IN_TRANSITION = "in transition"
    """Its device plugin, driver or partitioning is being changed: counts are the last known ones."""
    GONE = "gone"
    """Deleted a short while ago."""
    PROVISIONABLE = "may be provisioned"


REMEMBERED_LABELS = "remembered labels"
"""``source`` of a GPU whose node has lost its labels a short while ago."""


class Sharing(StrEnum):
    """How a schedulable unit relates to a physical GPU."""

    NONE = "none"
    MIG_SINGLE = "mig-single"
    MIG_MIXED = "mig-mixed"
    TIME_SLICING = "time-slicing"
    MPS = "mps"
    VGPU = "vgpu"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """A node's taint; ``effect`` is NoSchedule, PreferNoSchedule or NoExecute."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"

    @property
    def is_passing(self) -> bool:
        """Set and lifted by controllers, not a decision of the node's owner."""
        key = self.key.lower()
        return self.key.startswith(PASSING_TAINT_PREFIXES) or any(word in key for word in PASSING_TAINT_WORDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """A pod's toleration, with the API's meaning of empty fields."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """As ``Toleration.ToleratesTaint`` of Kubernetes (Lt and Gt compare whole numbers)."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == "Exists":
            return True
        if not self.key:
            return False
        if self.operator in ("Lt", "Gt"):
            return compares(taint.value, self.operator, self.value)
        return self.value == taint.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """What an engine sees of a GPU's memory (the CUDA total), as a range of measurements."""

    low: Bytes
    high: Bytes
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """How the healthy GPUs of one node are joined, by their local indices, as its driver tells.

    Each grouping has every healthy GPU once; one that is joined to no other stands alone.
    """

    islands: tuple[tuple[int, ...], ...]
    """GPUs that reach each other over NVLink."""
    switches: tuple[tuple[int, ...], ...] = ()
    """GPUs that reach each other over PCIe without passing through the CPU; empty where that is not told."""

    def widest(self) -> int:
        """GPUs of the largest island."""
        return max(map(len, self.islands), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A schedulable GPU unit of a node: product (vendor prefix and sharing suffix taken off) and memory.

    ``None`` is a fact that nobody stated.
    """

    product: str | None
    memory: Bytes | None
    visible: Visible | None
    sharing: Sharing = Sharing.NONE
    units_per_card: int | None = None
    """Schedulable units of one physical card that is shared in time."""
    part: str = ""
    """Of a GPU that is cut: the part (``mig-3g.20gb``)."""
    source: str = ""
    compute_capability: tuple[int, int] | None = None
    """CUDA's (major, minor): compared as numbers."""
    has_nvlink: bool | None = None
    """Whether the GPUs of a node are joined by NVLink (or their vendor's like); ``None`` where nothing tells, or some are."""
    links: Links | None = None
    """How they are joined, where the node's driver tells."""
    held: Bytes = Bytes(0)  # noqa: RUF009  # a NewType of int: immutable
    """Memory that processes of no pod hold, of the node's GPU where that is most: a rank may land on any."""
    report_problem: str = ""
    """Why the report of its node's agent does not count, where there is one: ``its agent has not been heard``."""
    doubts: tuple[str, ...] = ()
    """What the driver of the node leaves open of its GPUs: whether one is healthy, whose processes hold memory."""
    contradictions: tuple[tuple[str, str], ...] = ()
    """What two sources say that cannot both be right: (which fact, in words)."""
    alternatives: "tuple[Gpu, ...]" = ()
    """What else it could be by what is stated: more memory."""
    rates: GpuRates | None = field(default=None, compare=False)
    """How fast it is; follows from the product. ``None`` where that is not known, and for parts of a GPU."""

    @property
    def contradiction(self) -> str:
        """All of them in words; empty where there is none."""
        return "; ".join(message for _, message in self.contradictions)

    def are_joined(self, number: int) -> bool | None:
        """Whether so many GPUs of the node can reach each other over NVLink; ``None`` where nothing tells."""
        return self.has_nvlink if self.links is None else self.links.widest() >= number


class Owner(NamedTuple):
    """An object that pods are declared by."""

    namespace: str
    kind: str
    name: str


class BoundPod(Protocol):
    """What rules between pods look at, of a pod that is bound to a node."""

    @property
    def namespace(self) -> str:
        """Where it is."""

    @property
    def labels(self) -> Mapping[str, str]:
        """All of them."""

    @property
    def owners(self) -> tuple[Owner, ...]:
        """What declares it."""

    @property
    def repels(self) -> tuple[PodTerm, ...]:
        """Whom it will not have beside it."""

    @property
    def host_ports(self) -> tuple[HostPort, ...]:
        """Ports of the host that it holds."""

    @property
    def is_terminating(self) -> bool:
        """It is being deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShape:
    """What many nodes share, whatever their labels: taints and GPUs. Compared by identity in loops."""

    taints: tuple[Taint, ...]
    gpu: Gpu
    units: Mapping[str, Gpu] = field(default_factory=dict)
    """Resources whose unit is not ``gpu``: MIG profiles, GPUs that are not cut beside them."""

    def unit(self, resource: str) -> Gpu:
        """What one unit of a resource is."""
        return self.units.get(resource, self.gpu)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node, or ``count`` like ones that may come."""

    name: str
    shape: NodeShape
    state: NodeState
    allocatable: Resources
    unavailable_gpus: Resources = field(default_factory=dict)
    """Capacity less allocatable, per GPU resource: devices that are registered and not healthy."""
    used: Resources = field(default_factory=dict)
    """Requests of the pods bound here."""
    daemons: Resources = field(default_factory=dict)
    """Of ``used``: DaemonSets' pods, which are there whatever else is."""
    used_by_priority: Mapping[int, Resources] = field(default_factory=dict)
    """``used``, by the pods' priority: what pods of a higher one could have by preemption."""
    coming_free: Resources = field(default_factory=dict)
    """Of ``used``: pods that are terminating."""
    pods: "tuple[BoundPod, ...]" = ()
    """All that are bound here."""
    repelling: "tuple[BoundPod, ...]" = ()
    """Those of them that will not have some others beside them."""
    with_ports: "tuple[BoundPod, ...]" = ()
    """Those of them that hold ports of the host."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """But for those that differ on every node; one object where nodes share them all."""
    hostname: str = ""
    """Value of the label ``kubernetes.io/hostname``, which need not be the name."""
    count: int = 1
    origin: str = ""
    """Of a node that may come: what would bring it (``NodePool gpu``)."""
    delay: str = ""
    """And why that has not, as it says itself."""
    takes_turns: bool = False
    """It can come only once others that the same pool brought have left: its limits allow no more at a time."""
    gone_seconds: float | None = None
    """Of one that may come because such were here: how long ago as many were."""

    def free(self, resource: str) -> int:
        """May be negative where more is requested than is left."""
        return self.allocatable.get(resource, 0) - self.used.get(resource, 0)

    def idle(self, resource: str) -> int:
        """What is left were nothing running but DaemonSets' pods."""
        return self.allocatable.get(resource, 0) - self.daemons.get(resource, 0)

    def is_selected(self, node_selector: Mapping[str, str], node_terms: tuple[NodeTerm, ...] | None) -> bool:
        """Whether a selector and a required affinity (``None``: none) let pods on."""
        told = {**self.labels, HOST_LABEL: self.hostname}
        if any(told.get(key) != value for key, value in node_selector.items()):
            return False
        return node_terms is None or any(term.matches(self.labels, self.name, self.hostname) for term in node_terms)


GroupKey: TypeAlias = tuple[object, ...]


DEVICE_CLASS_DOMAIN = "deviceclass.resource.kubernetes.io"
"""Of the extended resource that every DeviceClass is, under its own name (KEP-5004)."""


@lru_cache(maxsize=4096)
def is_device(resource: str) -> bool:
    """Extended resources: GPUs under any vendor's name. Kubernetes' own names are none."""
    domain, slash, _ = resource.partition("/")
    return bool(slash) and (domain == DEVICE_CLASS_DOMAIN or not domain.endswith("kubernetes.io"))


def group_key(node: Node) -> GroupKey:
    """Equal for nodes that differ in name, labels, CPU and memory alone."""
    return (
        id(node.shape),
        node.state,
        node.takes_turns,
        *(
            tuple(sorted((name, amount) for name, amount in amounts.items() if is_device(name)))
            for amounts in (node.allocatable, node.unavailable_gpus, node.used, node.daemons)
        ),
    )


HIGHEST_PRIORITY = 2**31 - 1
"""Of any pod: the API's own limit."""


def _lowest_priority(node: Node, _resource: str = "") -> int:
    """Of the pods that hold something on the node."""
    return min(node.used_by_priority, default=HIGHEST_PRIORITY)


@dataclass(frozen=True, slots=True, eq=False)
class NodeGroup:
    """Nodes that are alike in shape, state and GPUs (``group_key``): a cluster of thousands has few of them.

    What is asked of GPUs is asked once a group; labels, CPU, memory and pod room differ from node to node.
    """

    nodes: tuple[Node, ...]
    _by_labels: list[tuple[Node, ...]] = field(default_factory=list)
    _least_free: dict[str, int] = field(default_factory=dict)
    _least_allocatable: dict[str, int] = field(default_factory=dict)
    _lowest_priority: dict[str, int] = field(default_factory=dict)
    _coming_free: dict[str, int] = field(default_factory=dict)
    """All worked out when first asked for; they follow from the nodes alone."""

    def take_over(self, before: "NodeGroup", left: Sequence[Node], joined: Sequence[Node]) -> None:
        """What is known of the group as it was: a sum moves with the nodes, a least holds unless a node that had it has left."""
        for resource, total in before._coming_free.items():  # noqa: SLF001  # of its own kind
            more, less = (sum(node.coming_free.get(resource, 0) for node in nodes) for nodes in (joined, left))
            self._coming_free[resource] = total + more - less
        for known, old, amount_of in (
            (self._least_free, before._least_free, Node.free),  # noqa: SLF001
            (self._least_allocatable, before._least_allocatable, Node.idle),  # noqa: SLF001
            (self._lowest_priority, before._lowest_priority, _lowest_priority),  # noqa: SLF001
        ):
            for resource, least in old.items():
                another = amount_of(self.nodes[0], resource) == least  # in a uniform cluster nearly all have the least
                if another or all(amount_of(node, resource) > least for node in left):
                    known[resource] = min([least, *(amount_of(node, resource) for node in joined)])

    @property
    def like(self) -> Node:
        """Any of them: for shape, state and GPUs."""
        return self.nodes[0]

    @property
    def shape(self) -> NodeShape:
        """The shape of all of them."""
        return self.nodes[0].shape

    @property
    def count(self) -> int:
        """How many nodes."""
        return len(self.nodes) if self.nodes[0].count == 1 else sum(node.count for node in self.nodes)

    def installed(self, resource: str) -> int:
        """GPUs of one node, unhealthy ones included."""
        node = self.nodes[0]
        return node.allocatable.get(resource, 0) + node.unavailable_gpus.get(resource, 0)

    @property
    def by_labels(self) -> list[tuple[Node, ...]]:
        """Its nodes, those that share all labels together: a selector is asked once for each."""
        if not self._by_labels:
            shared: dict[int, list[Node]] = {}
            for node in self.nodes:
                shared.setdefault(id(node.labels), []).append(node)
            self._by_labels.extend(map(tuple, shared.values()))
        return self._by_labels

    def least_free(self, resource: str) -> int:
        """What the fullest node has free of a resource."""
        if resource not in self._least_free:
            self._least_free[resource] = min(node.free(resource) for node in self.nodes)
        return self._least_free[resource]

    def coming_free(self, resource: str) -> int:
        """What pods that are terminating hold of a resource, on all nodes together."""
        if resource not in self._coming_free:
            self._coming_free[resource] = sum(node.coming_free.get(resource, 0) for node in self.nodes)
        return self._coming_free[resource]

    def has_pods_below(self, priority: int) -> bool:
        """Whether pods of a lower priority hold anything here."""
        if not self._lowest_priority:
            self._lowest_priority[""] = min(_lowest_priority(node) for node in self.nodes)
        return self._lowest_priority[""] < priority

    def least_allocatable(self, resource: str) -> int:
        """What the smallest node has of a resource, were nothing running there."""
        if resource not in self._least_allocatable:
            self._least_allocatable[resource] = min(node.idle(resource) for node in self.nodes)
        return self._least_allocatable[resource]


def grouped(nodes: Iterable[Node]) -> tuple[NodeGroup, ...]:
    """Nodes by ``group_key``, in the order of their first."""
    groups: dict[GroupKey, list[Node]] = {}
    for node in nodes:
        groups.setdefault(group_key(node), []).append(node)
    return tuple(NodeGroup(tuple(each)) for each in groups.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPod:
    """A pod of a declaration: bound to ``node`` (empty when pending)."""

    uid: str
    node: str
    requests: Resources
    ready: bool
    priority: int = 0
    is_promised: bool = False
    """It is not there yet: its place is claimed for it."""
    is_terminating: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingPods:
    """Pods of others that wait for a node: so many that ask for the same, in the same places."""

    requests: Resources
    priority: int
    count: int
    owners: frozenset[Owner] = frozenset()
    """What declares them."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    node_terms: tuple[NodeTerm, ...] | None = None
    tolerations: tuple[Toleration, ...] = ()

    def may_go_to(self, node: Node, *, passing: bool = True) -> bool:
        """Whether the filters that look at one node alone let them on. ``passing``: taints count that controllers lift again."""
        if not node.is_selected(self.node_selector, self.node_terms):
            return False
        barring = (
            taint
            for taint in node.shape.taints
            if taint.effect in ("NoSchedule", "NoExecute") and (passing or not taint.is_passing)
        )
        return all(any(each.tolerates(taint) for each in self.tolerations) for taint in barring)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a namespace may request in all, and what its pods request already."""

    name: str
    hard: Resources
    used: Resources
    priority_classes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(operator, names) that a pod's PriorityClass must satisfy for the quota to count it."""
    is_used_known: bool = True

    def counts(self, priority_class: str) -> bool:
        """Whether it is for pods of this PriorityClass (empty: none)."""
        return all(
            {"In": priority_class in names, "NotIn": priority_class not in names, "Exists": bool(priority_class)}.get(
                operator, not priority_class
            )
            for operator, names in self.priority_classes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRange:
    """What one pod or container of a namespace may ask for, and what one asks for that says nothing."""

    name: str
    most_of_pod: Resources
    most_of_container: Resources
    default_requests: Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All GPU nodes by groups, frozen at one moment.

    ``nodes_seen`` counts every node of the cluster, with GPUs or without. ``age_seconds`` is the time since the
    stalest watch last heard from the API server, ``broken_seconds`` since a watch was known to be broken.
    """

    groups: tuple[NodeGroup, ...]
    nodes_seen: int
    held: Mapping[Owner, tuple[HeldPod, ...]] = field(default_factory=dict)
    """What declares pods -> its pods."""
    repelling: tuple[Node, ...] = ()
    """Nodes with pods that will not have others beside them."""
    without_gpus: tuple[Node, ...] = ()
    """The cluster's other nodes: rules between pods look at them as well."""
    provisionable: tuple[NodeGroup, ...] = ()
    """Nodes that autoscalers' objects say may come, or are on their way."""
    remembered: tuple[Node, ...] = ()
    """Nodes that were here in the last 30 days: evidence, where anything may come."""
    exhausted: tuple[tuple[str, str], ...] = ()
    """Autoscalers' pools of GPU nodes that bring no more, each with why: (``NodePool gpu``, ``8 of 8 nvidia.com/gpu are used``)."""
    pending: tuple[PendingPods, ...] = ()
    priorities: Mapping[str, int] = field(default_factory=dict)
    """PriorityClass -> its value; the empty name is that of pods without one."""
    not_preempting: frozenset[str] = frozenset()
    """PriorityClasses whose pods preempt nobody."""
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Namespace -> its labels."""
    unreadable_nodes: tuple[str, ...] = ()
    """Nodes that could not be read, each with why: they may have GPUs."""
    quotas: Mapping[str, tuple[Quota, ...]] = field(default_factory=dict)
    """Namespace -> its quotas."""
    limit_ranges: Mapping[str, tuple[LimitRange, ...]] = field(default_factory=dict)
    """Namespace -> its limit ranges."""
    known_gpus: tuple[Gpu, ...] = ()
    """The table of GPU products: what could ever come."""
    distrusted: tuple[Accuracy, ...] = ()
    """Engine versions on products whose memory was predicted badly here: they refuse nothing for memory."""
    age_seconds: float = 0.0
    broken_seconds: float = 0.0

    def promised(self, resource: str, but: Iterable[Owner]) -> int:
        """How much of it is claimed for pods that have not come, of others than these."""
        mine = {pod.uid for owner in but for pod in self.held.get(owner, ())}
        others = {pod.uid: pod.requests.get(resource, 0) for pods in self.held.values() for pod in pods if pod.is_promised}
        return sum(amount for uid, amount in others.items() if uid not in mine)

    def promised_by_node(self) -> dict[tuple[str, str], int]:
        """(node, resource) -> how much of it is claimed there for pods that have not come."""
        found: dict[tuple[str, str], int] = {}
        for pod in {pod.uid: pod for pods in self.held.values() for pod in pods if pod.is_promised}.values():
            for resource, amount in pod.requests.items():
                found[pod.node, resource] = found.get((pod.node, resource), 0) + amount
        return found

    def held_by(self, owners: Iterable[Owner]) -> tuple[HeldPod, ...]:
        """Pods that any of them declares."""
        return tuple({pod.uid: pod for owner in owners for pod in self.held.get(owner, ())}.values())

    @property
    def present(self) -> tuple[Node, ...]:
        """All nodes that are there, one by one, with GPUs or without."""
        here = tuple(node for node in self.nodes if node.state is not NodeState.GONE)
        names = {node.name for node in here}
        return (*here, *(node for node in self.without_gpus if node.name not in names))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All GPU nodes, one by one."""
        return tuple(node for group in self.groups for node in group.nodes)
