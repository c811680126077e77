"""What a workload declares: model, engine, strategy, GPUs, placement wishes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from shardgate.domain.inventory import Resources, Toleration
from shardgate.domain.model import ModelArchitecture, WeightLayout
from shardgate.domain.strategy import ParallelStrategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The object that declares."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @property
    def label(self) -> str:
        """``InferenceDeployment serving/llama3-70b``."""
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRule:
    """A start-up rule that an engine has: the message a user would meet, and where it was read."""

    message: str
    source: str


class BudgetBasis(StrEnum):
    """What an engine's memory fraction is a fraction of."""

    TOTAL = "total"
    FREE_AFTER_LOAD = "freeAfterLoad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An inference engine, as far as its rules are known here."""

    name: str
    version: str | None
    known: bool
    rules: Mapping[str, EngineRule]
    """Finding code -> the rule behind it. A code that is not here is not a rule of this engine."""
    budget_basis: BudgetBasis
    utilization_low: float
    utilization_high: float
    """The declared memory fraction, or the range of the engine's defaults where none is declared."""
    utilization_declared: bool
    settings: tuple[tuple[str, str], ...] = ()
    """What else is declared of it, as written: a change of it is a change of the declaration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuWish:
    """GPUs as the pods will ask for them."""

    resource: str
    per_pod: int | None
    """Unset: the fewest equal pods of which one fits the largest accepted node."""
    products: tuple[str, ...] = ()
    """Accepted products, shell patterns on the normalised name; empty accepts any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementWish:
    """Where the pods may go, and what they ask for besides GPUs."""

    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    requests: Resources = field(default_factory=dict)
    product: str | None = None
    """The normalised product that the node selector names."""
    unmodelled: tuple[str, ...] = ()
    """Constraints that are declared and not modelled; they can only restrict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUnknown:
    """Why there is no architecture to judge, and what would help."""

    problem: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One serving group, as declared."""

    subject: Subject
    model_name: str
    model: ModelArchitecture | ModelUnknown
    weights: WeightLayout | None
    weights_name: str
    kv_cache: str
    engine: Engine
    strategy: ParallelStrategy
    replicas: int
    gpus: GpuWish
    placement: PlacementWish
    opaque: tuple[str, ...] = ()
    """What could not be read, and why."""
    is_partial: bool = False
    """Facts are stated elsewhere that was not read: nothing that rests on what stands here can be refused."""
    assumptions: tuple[tuple[str, str, str], ...] = ()
    """(field, value, why) of what was filled in while reading."""

    @property
    def may_keep_weights_elsewhere(self) -> bool:
        """A flag that is not read, or an engine that is not known, might offload weights."""
        return bool(self.opaque) or not self.engine.known
