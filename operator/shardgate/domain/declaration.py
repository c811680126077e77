"""What a workload declares: model, engine, strategy, GPUs, placement wishes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shardgate.domain.engine import Engine
from shardgate.domain.inventory import Owner, Resources, Toleration
from shardgate.domain.model import ModelArchitecture
from shardgate.domain.pod_rules import PodRules
from shardgate.domain.selectors import NodeTerm
from shardgate.domain.strategy import ParallelStrategy
from shardgate.domain.traffic import Objectives, Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The object that declares."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @property
    def owner(self) -> Owner:
        """As pods name it."""
        return Owner(self.namespace, self.kind, self.name)

    @property
    def kind_and_group(self) -> str:
        """``Deployment.apps``, as policies name kinds; of the core group the kind alone, as ``Pod``."""
        group = self.api_version.rpartition("/")[0]
        return f"{self.kind}.{group}" if group else self.kind

    @property
    def label(self) -> str:
        """``InferenceDeployment serving/llama3-70b``."""
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuWish:
    """GPUs as the pods will ask for them."""

    resource: str
    per_pod: int | None
    """Unset: the fewest equal pods of which one fits the largest accepted node."""
    pods_per_replica: int | None = None
    """Declared by kinds that state their pods; unset: as many as the ranks need."""
    leader: "LeaderWish | None" = None
    """Where the first pod of each replica asks for other amounts than the rest (``per_pod`` is theirs)."""
    products: tuple[str, ...] = ()
    """Accepted products, shell patterns on the normalised name; empty accepts any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderWish:
    """A replica's first pod, where it differs."""

    gpus: int
    """At least one: pods without GPUs are no matter of placement here."""
    requests: Resources = field(default_factory=dict)
    """What it asks for besides GPUs."""


DEFAULT_SCHEDULER = "default-scheduler"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementWish:
    """Where the pods may go, and what they ask for besides GPUs."""

    node_selector: Mapping[str, str] = field(default_factory=dict)
    node_terms: tuple[NodeTerm, ...] | None = None
    """Required node affinity: one of these must match; ``None`` without a requirement."""
    node_name: str = ""
    """The node that the pods name themselves: they pass the scheduler by."""
    tolerations: tuple[Toleration, ...] = ()
    requests: Resources = field(default_factory=dict)
    largest_container: Resources | None = None
    """The most that one container asks for, where a pod has several; ``None``: one asks for all."""
    unstated: Mapping[str, int] = field(default_factory=lambda: {"cpu": 1, "memory": 1})
    """Resource -> containers of a pod that ask for none of it: a namespace's LimitRange may do so for them. A resource
    that stands in ``requests`` and not here is stated by all."""
    priority_class: str = ""
    scheduler: str = DEFAULT_SCHEDULER
    rules: PodRules = field(default_factory=lambda: PodRules(namespace=""))
    product: str | None = None
    """The normalised product that the node selector names."""
    unmodelled: tuple[str, ...] = ()
    """Constraints that are declared and not modelled; they can only restrict."""
    is_added_to: bool = False
    """Others make the pods: their admission may add tolerations and selectors that do not stand here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueGrant:
    """What a queue that starts pods could ever give to one workload: all of its quota, and all that it may borrow."""

    queue: str
    cluster_queue: str
    most: Mapping[str, int]
    """Resource -> amount; what is not here is not limited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUnknown:
    """Why there is no architecture to judge, and what would help."""

    problem: str
    remedy: str
    is_named: bool = True
    """The catalogue, a profile or the declaration's own config tells of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One serving group, as declared."""

    subject: Subject
    model_name: str
    model: ModelArchitecture | ModelUnknown
    weights_name: str
    """Empty where how the weights are stored is not known."""
    dtype: str
    """fp16, bf16 or fp32: what stays unquantised, and activations."""
    is_dtype_declared: bool
    kv_cache: str
    """auto, fp16, bf16 or fp8, as declared."""
    kv_cache_bits: int
    """Of one element of the KV cache."""
    engine: Engine
    strategy: ParallelStrategy
    replicas: int
    gpus: GpuWish
    placement: PlacementWish
    traffic: Traffic = field(default_factory=Traffic)
    objectives: Objectives = field(default_factory=Objectives)
    opaque: tuple[str, ...] = ()
    """What could not be read, and why."""
    contradictions: tuple[tuple[str, str], ...] = ()
    """(field, what contradicts what) of things that are stated twice and differently."""
    disagreements: tuple[tuple[str, str], ...] = ()
    """The same between this object and the workload that it is about: either may be changed next, and which holds is open."""
    replicas_maximum: int | None = None
    """Up to which an autoscaler may go."""
    surge: int | None = None
    """Replicas that a roll-out of this update starts before it stops any."""
    is_queued: bool = False
    """Something else decides when its pods may start: what is free now is no matter yet."""
    grant: QueueGrant | None = None
    """The most that its queue could ever give, where that is known."""
    unknown_strategy: str = ""
    """Why the widths are not known: neither shape nor memory can be judged then, the pods' own GPUs can."""
    is_partial: bool = False
    """Facts are stated elsewhere that was not read: nothing that rests on what stands here can be refused."""
    assumptions: tuple[tuple[str, str, str], ...] = ()
    """(field, value, why) of what was filled in while reading."""

    workload: Owner | None = None
    """The workload that the declaration is about, where it is another object."""

    makes: tuple[Owner, ...] = ()
    """Objects that controllers made for it: their pods are its own."""

    @property
    def owners(self) -> tuple[Owner, ...]:
        """By whom its own pods say that they are declared."""
        named = (self.subject.owner,) if self.workload is None else (self.subject.owner, self.workload)
        return named + self.makes

    @property
    def is_memory_uncertain(self) -> bool:
        """A flag that is not read or modelled, an engine that is not known or a class that was not read may need less."""
        unread = isinstance(self.model, ModelArchitecture) and not self.model.is_exact
        return bool(self.opaque) or bool(self.engine.settings.unmodelled) or not self.engine.known or unread
