"""Findings, outcomes and the verdict that they add up to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from shardgate.domain.fitting import GpuFit, RankNeed
from shardgate.domain.performance.figures import Performance
from shardgate.domain.placement import Placement
from shardgate.domain.units import Bytes
from shardgate.domain.weights import WeightsEstimate


class Outcome(IntEnum):
    """The worst finding decides."""

    SOUND = 0
    WASTEFUL = 1
    """It runs, but wastes hardware or misses an objective."""
    RISKY = 2
    """It can run, and often fails or crawls in a known way."""
    WAITING = 3
    """It could run on what the cluster has or may get; not now."""
    UNDECIDED = 4
    """A fact is missing, and we do not guess."""
    UNSOUND = 5
    """Its engine would refuse it, or it can never fit."""

    @property
    def label(self) -> str:
        """``Sound``, as the API spells it."""
        return self.name.capitalize()


STATUS: Mapping[Outcome, tuple[str, str]] = {
    Outcome.SOUND: ("PASSED", "PROCEED_WITH_CONFIDENCE"),
    Outcome.WASTEFUL: ("PASSED_WITH_WARNINGS", "PROCEED_WITH_CAUTION"),
    Outcome.RISKY: ("PASSED_WITH_WARNINGS", "PROCEED_WITH_CAUTION"),
    Outcome.WAITING: ("WAITING", "WAIT"),
    Outcome.UNDECIDED: ("UNDECIDED", "INVESTIGATE"),
    Outcome.UNSOUND: ("FAILED", "DO_NOT_PROCEED"),
}
"""Outcome -> (status, recommendation)."""


class FindingClass(StrEnum):
    """What a finding is about; the class bounds what it may do (``codes.py``)."""

    SHAPE = "shape"
    MEMORY = "memory"
    CAPACITY = "capacity"
    HOST = "host"
    QUALITY = "quality"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing noticed, that can be acted on without reading our source."""

    code: str
    finding_class: FindingClass
    where: str
    """The field, as the user spelled it: ``spec.strategy.tensor``."""
    outcome: Outcome
    message: str
    """Both sides, with units."""
    remedy: str = ""
    source: str = ""
    """The rule's origin: engine, versions, the message that the user would have met."""
    bears_on: tuple[FindingClass, ...] = ()
    """For an unknown: the aspects that it leaves open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumption:
    """A default or an estimate that the verdict rests on."""

    field: str
    value: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductCount:
    """GPUs of one product among those that were looked at."""

    product: str
    gpus: int
    memory: Bytes | None
    nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What the cluster has for this declaration: nodes whose GPUs it accepts."""

    gpus_installed: int
    gpus_free: int
    memory_installed: Bytes | None
    products: tuple[ProductCount, ...]
    inventory_age_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """GPUs and pods that the declaration needs."""

    gpus_per_replica: int
    gpus: int
    pods_per_replica: int | None
    gpus_per_pod: int | None
    """Both unknown where the size is left to us and no node is there to choose it by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTerm:
    """One term of the score; ``points`` is ``None`` where it does not apply, and the others are scaled up."""

    name: str
    points: float | None
    of: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All findings, worst first, with the figures that they rest on."""

    findings: tuple[Finding, ...]
    required: Requirement
    hardware: Hardware | None = None
    weights: WeightsEstimate | None = None
    best_gpu: GpuFit | None = None
    """Of the GPUs that the pods may land on, the one that does best, with what a rank needs there."""
    rank_needs: tuple[RankNeed | None, ...] = ()
    """What a rank of each serving group takes of its GPU; ``None`` where weights are not known."""
    placement: Placement | None = None
    assumptions: tuple[Assumption, ...] = ()
    aspects: Mapping[FindingClass, Outcome] = field(default_factory=dict)
    performance: Performance | None = None
    """Of all replicas on the best of the GPUs that the pods may land on; ``None`` where it would not run or is not modelled."""
    score_terms: tuple[ScoreTerm, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The worst finding's."""
        return max((finding.outcome for finding in self.findings), default=Outcome.SOUND)

    @property
    def codes(self) -> tuple[str, ...]:
        """Finding codes, worst first, each once."""
        return tuple(dict.fromkeys(finding.code for finding in self.findings))

    @property
    def has_room(self) -> bool:
        """All of it could start now, as far as is known, and its engine would not surely refuse."""
        if self.outcome in (Outcome.WAITING, Outcome.UNSOUND) or self.placement is None:
            return False
        return self.placement.feasible

    @property
    def score(self) -> int | None:
        """0 when Unsound, ``None`` when Undecided or nothing can be scored: for reports, nothing is let in or refused by it."""
        if self.outcome in (Outcome.UNSOUND, Outcome.UNDECIDED):
            return 0 if self.outcome is Outcome.UNSOUND else None
        if self.performance is None:  # a score of memory alone would tell nothing
            return None
        applied = [each for each in self.score_terms if each.points is not None]
        possible = sum(each.of for each in applied)
        return round(100 * sum(each.points or 0.0 for each in applied) / possible) if possible else None


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings in their fixed order: outcome, then the order in which the checks stand."""
    return tuple(sorted(findings, key=lambda finding: -finding.outcome))


def aspects_of(findings: Iterable[Finding]) -> dict[FindingClass, Outcome]:
    """The worst outcome of each class; an unknown counts where it bears."""
    aspects: dict[FindingClass, Outcome] = {each: Outcome.SOUND for each in FindingClass if each is not FindingClass.UNKNOWN}
    for finding in findings:
        for aspect in finding.bears_on or (finding.finding_class,):
            if aspect in aspects:
                aspects[aspect] = max(aspects[aspect], finding.outcome)
    return aspects
