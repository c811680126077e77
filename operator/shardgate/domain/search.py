"""Which other strategies, precisions and models would do better, or do at all: what verifies Sound, ranked.

A search in two steps: figures for every candidate, which cost little, then a whole verdict for the best of them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import groupby
from math import ceil

from shardgate.domain.declaration import Declaration
from shardgate.domain.fitting import Fit, GpuFit, Weighed, fit_of
from shardgate.domain.inventory import Gpu, NodeState
from shardgate.domain.model import ModelArchitecture
from shardgate.domain.performance.figures import Performance, performance_of
from shardgate.domain.situation import Situation
from shardgate.domain.strategy import ParallelStrategy
from shardgate.domain.units import count, number, rounded
from shardgate.domain.verdict import Outcome, Verdict
from shardgate.domain.verify import verify

Figures = Callable[[int], Performance | None]
"""Replicas -> how fast they would be."""


class Nearness(IntEnum):
    """How much of the declaration stays."""

    STRATEGY = 0
    """The same weights on other ranks."""
    PRECISION = 1
    """The same model in another precision."""
    MODEL = 2
    """A smaller model of the family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A model as it may be served instead: the declaration with it."""

    declaration: Declaration
    nearness: Nearness
    name: str
    """The checkpoint's id."""
    step: int = 0
    """How far it is from what was declared: other precisions of one model are equally far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A variant on given ranks, with the figures that it is ranked by."""

    variant: Variant
    declaration: Declaration
    gpu: Gpu
    performance: Performance | None
    meets_objectives: bool
    is_shortened: bool
    """The longest sequence is less than was declared, so that it fits."""
    sequences_at_once: float
    """Of the full length, that the KV cache of one data rank holds."""

    @property
    def gpus(self) -> int:
        """Of all replicas."""
        return self.declaration.strategy.ranks_per_replica * self.declaration.replicas

    @property
    def rate_per_gpu(self) -> float:
        """Requests per second and GPU; 0 where that is not modelled."""
        return 0.0 if self.performance is None else self.performance.capacity.value / self.gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A candidate that verifies Sound here."""

    candidate: Candidate
    verdict: Verdict

    @property
    def declaration(self) -> Declaration:
        """What would be declared."""
        return self.candidate.declaration


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the pods may use now of one product: GPUs free to them in all, and on the node that has most."""

    gpus: int
    largest_node: int
    product: Gpu
    is_named: bool = False
    """Whether the pods are to name the product, because others are there as well."""


WIDTHS, STAGES = (1, 2, 4, 8, 16), (1, 2, 4, 8)
"""Tensor ranks and pipeline stages that are tried."""
MOST_JUDGED = 16
"""Whole verdicts that one search asks for."""
MOST_OF_SMALLER = 2
"""Strategies that are tried of a smaller model, the fewest ranks first: those serve most per GPU."""
MOST_PRODUCTS = 3
"""That a search looks at."""
SIZINGS = 4
"""Numbers of replicas that are tried for a rate: each replica's share of the concurrency shrinks as there are more."""
MISSED = frozenset({"ThroughputTooLow", "LatencyTooHigh", "MemoryMostlyUnused"})
"""Codes of a declaration that runs, and does not reach what is aimed at."""
LEAST_LENGTH = 2048
"""Tokens; nobody is offered a shorter context, nor one too short for the declared traffic."""
LENGTH_STEP = 1024
"""Shortened lengths are multiples of it."""


def rooms_of(situation: Situation) -> tuple[Room, ...]:
    """Of each product, the fastest first, by the nodes that selector, affinity and lasting taints let the pods on."""
    resource = situation.pod.resource
    held = {pod.node: pod.requests.get(resource, 0) for pod in situation.inventory.held_by(situation.declaration.owners)}
    found: dict[Gpu, list[int]] = {}
    for group in situation.candidates:
        if group.like.state is not NodeState.USABLE:
            continue
        for node in group.nodes:
            free = node.free(resource) + held.get(node.name, 0)
            if free > 0:
                found.setdefault(group.shape.unit(resource), []).append(free)
    rooms = (Room(gpus=sum(each), largest_node=max(each), product=gpu) for gpu, each in found.items())
    fastest_first = sorted(rooms, key=lambda each: -(each.product.rates.bytes_per_second if each.product.rates else 0))
    return tuple(fastest_first[:MOST_PRODUCTS])


def strategies(model: ModelArchitecture, room: Room, declared: ParallelStrategy) -> Iterator[ParallelStrategy]:
    """Ways to split one replica: tensor ranks inside a node, stages inside it or, of whole nodes, across.

    Data ranks are left to replicas; experts stay dealt out or cut as declared.
    """
    widths = [each for each in WIDTHS if each <= room.largest_node and model.attention_heads % each == 0]
    for tensor in widths:
        for pipeline in STAGES:
            ranks = tensor * pipeline
            fits_node = ranks <= room.largest_node
            spans_nodes = tensor == widths[-1] and ranks <= room.gpus
            if pipeline <= model.layers and (fits_node or spans_nodes):
                yield ParallelStrategy(
                    tensor=tensor, pipeline=pipeline, expert_parallel=declared.expert_parallel and model.is_mixture
                )


def candidates(variants: Iterable[Variant], room: Room, declared: Declaration) -> Iterator[Candidate]:
    """Every variant on every strategy that its weights leave hope for, with as many replicas as it takes or as there is room."""
    largest = room.product.memory or 0
    for variant in variants:
        model = variant.declaration.model
        if not isinstance(model, ModelArchitecture):
            continue
        size, fitting = model.stored_bits(16) / 8, 0
        for strategy in sorted(strategies(model, room, declared.strategy), key=lambda each: each.ranks_per_replica):
            if largest and size / strategy.ranks_per_replica > largest:
                continue
            if variant.nearness is Nearness.MODEL and fitting == MOST_OF_SMALLER:
                break
            found = _candidate(variant, strategy, room, declared)
            if found is not None:
                fitting += 1
                yield found


def _candidate(variant: Variant, strategy: ParallelStrategy, room: Room, declared: Declaration) -> Candidate | None:
    ranks = strategy.ranks_per_replica
    per_pod = ranks if ranks <= room.largest_node else strategy.tensor
    wish = replace(variant.declaration.gpus, per_pod=per_pod, pods_per_replica=None, leader=None)
    if room.is_named and room.product.product is not None:
        wish = replace(wish, products=(room.product.product,))
    tried = replace(variant.declaration, strategy=strategy, gpus=wish, replicas=1, unknown_strategy="")
    found = _fitting(tried, room)
    if found is None:
        return None
    tried, weighed, fit, is_shortened = found

    def figures_of(replicas: int) -> Performance | None:
        return performance_of(replace(tried, replicas=replicas), weighed, fit, per_pod, -(-ranks // per_pod))

    declaration = replace(tried, replicas=_fewest_replicas(declared, ranks, room, figures_of))
    figures = figures_of(declaration.replicas)
    return Candidate(
        variant=variant, declaration=declaration, gpu=fit.gpu, performance=figures, is_shortened=is_shortened,
        meets_objectives=figures is not None and _meets(declaration, figures),
        sequences_at_once=_sequences_at_once(fit),
    )  # fmt: skip


def _sequences_at_once(fit: GpuFit) -> float:
    at_once = fit.estimate.concurrency_at_full_length if fit.estimate is not None else None
    return 0.0 if at_once is None else at_once.value


def _fewest_replicas(declared: Declaration, ranks: int, room: Room, figures_of: Figures) -> int:
    """With a rate aimed at: as many as it takes, or as there is room for; else on as many GPUs as are declared."""
    most = room.gpus // ranks
    wanted = declared.objectives.requests_per_second
    if not wanted:
        same = max(1, declared.strategy.ranks_per_replica * declared.replicas // ranks)
        return min(most, same, declared.traffic.concurrency or same)
    replicas = 1
    for _ in range(SIZINGS):
        figures = figures_of(replicas)
        if figures is None or figures.capacity.value >= wanted or replicas >= most:
            break
        served = max(figures.capacity.value / replicas, wanted / most)
        replicas = min(most, max(replicas + 1, ceil(wanted / served)))
    return replicas


def _meets(declaration: Declaration, found: Performance) -> bool:
    aims = declaration.objectives
    if aims.requests_per_second is not None:
        return found.capacity.value >= aims.requests_per_second
    return found.capacity.value > 0


def _fitting(tried: Declaration, room: Room) -> tuple[Declaration, Weighed, GpuFit, bool] | None:
    """The declaration on the product, with a shorter context where only that is missing."""
    shorter = None
    for is_shortened in (False, True):
        declaration = tried if not is_shortened else shorter
        weighed = None if declaration is None else Weighed.of(declaration)
        if declaration is None or weighed is None:
            return None
        fit = fit_of(room.product, declaration, weighed)
        if fit.fit is Fit.FITS:
            return declaration, weighed, fit, is_shortened
        shorter = None if is_shortened else _shortened(tried, fit)
    return None


def _shortened(tried: Declaration, found: GpuFit) -> Declaration | None:
    """With the longest context that surely fits; ``None`` where that is too short to be of use."""
    if found.estimate is None or found.code not in ("ContextDoesNotFit", "MemoryTight", "NoRoomForKvCache"):
        return None
    longest = int(found.estimate.longest.low) // LENGTH_STEP * LENGTH_STEP
    traffic = tried.traffic
    needed = max(LEAST_LENGTH, (traffic.prompt_tokens or 0) + (traffic.output_tokens or 0))
    if longest < needed:
        return None
    settings = replace(tried.engine.settings, max_model_len=longest)
    return replace(tried, engine=replace(tried.engine, settings=settings))


def ranked(found: Iterable[Candidate], declared: Declaration) -> list[Candidate]:
    """Those that meet the objectives first, then by requests per second and GPU, then by what stays as declared."""
    return sorted(
        found,
        key=lambda each: (
            not each.meets_objectives,
            each.is_shortened,
            -round(each.rate_per_gpu, 4),
            each.variant.nearness,
            _distance(each.declaration.strategy, declared.strategy),
            each.gpus,
        ),
    )


def _distance(one: ParallelStrategy, other: ParallelStrategy) -> int:
    return (one.tensor != other.tensor) + (one.pipeline != other.pipeline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How many alternatives of each nearness are wanted at most, and in all."""

    by_nearness: tuple[int, int, int] = (2, 2, 5)
    most: int = 5


def alternatives(
    situation: Situation, variants: Sequence[Variant], *, quota: Quota | None = None, most_judged: int = MOST_JUDGED,
    with_declared: bool = False,
) -> tuple[Alternative, ...]:  # fmt: skip
    """The best of each nearness that verify Sound, the nearest first; smaller models only where nearer ones leave room.

    The declaration itself, as it stands, is none of them, unless asked for (``with_declared``). Where none is Sound: those that
    run, and miss what is aimed at.
    """
    quota, declared = quota or Quota(), situation.declaration
    order = _worth_it(ranked(_all(variants, situation), declared), situation, with_declared=with_declared)
    judged = 0
    found: list[Alternative] = []
    lesser: list[Alternative] = []
    for nearness in Nearness:
        wanted = quota.by_nearness[nearness]
        seen: set[tuple[str, int]] = set()
        for each in order:
            if each.variant.nearness is not nearness or wanted == 0 or len(found) == quota.most or judged == most_judged:
                continue
            is_told_apart = nearness is Nearness.STRATEGY or with_declared
            key = (each.variant.name, each.declaration.strategy.tensor if is_told_apart else 0)
            if key in seen or (not with_declared and _is_declared(each, declared)):
                continue
            judged += 1
            verdict = verify(each.declaration, situation.inventory, situation.policy)
            if verdict.outcome is Outcome.SOUND:
                seen.add(key)
                found.append(Alternative(candidate=each, verdict=verdict))
                wanted -= 1
            elif verdict.outcome is Outcome.WASTEFUL and MISSED.issuperset(verdict.codes):
                seen.add(key)
                lesser.append(Alternative(candidate=each, verdict=verdict))
    return tuple(found or lesser[: quota.most])


def nearest(situation: Situation, variants: Iterable[Variant], *, most_judged: int = MOST_JUDGED) -> Alternative | None:
    """The first that verifies Sound, what stays nearest to the declaration first; no others are looked at then."""
    declared, judged = situation.declaration, 0
    for _, equally_far in groupby(variants, key=lambda each: each.step):
        for each in ranked(_all(list(equally_far), situation), declared):
            if judged == most_judged:
                return None
            if _is_declared(each, declared):
                continue
            judged += 1
            verdict = verify(each.declaration, situation.inventory, situation.policy)
            if verdict.outcome is Outcome.SOUND:
                return Alternative(candidate=each, verdict=verdict)
    return None


def _all(variants: Sequence[Variant], situation: Situation) -> list[Candidate]:
    """On each product by itself: figures of a replica hold for one alone."""
    rooms = rooms_of(situation)
    several = len(rooms) > 1
    same = [each for each in variants if each.nearness is Nearness.STRATEGY]
    found: list[Candidate] = []
    for place, room in enumerate(rooms):  # other checkpoints on the fastest product that any of them fits
        tried = variants if place == 0 or not found else same
        found += candidates(tried, replace(room, is_named=several), situation.declaration)
    return found


BETTER = 1.02
"""By which factor what is offered serves more per GPU, where the declaration runs as it is."""


def _worth_it(order: list[Candidate], situation: Situation, *, with_declared: bool) -> list[Candidate]:
    """Where the declaration runs: only what meets objectives that it misses, or serves more per GPU and misses none for it."""
    declared = situation.declaration
    verdict = verify(declared, situation.inventory, situation.policy)
    found = verdict.performance
    if found is None or with_declared or verdict.outcome > Outcome.RISKY:
        return order
    meets = _meets(declared, found)
    rate = found.capacity.value / max(1, situation.required.gpus)
    return [
        each for each in order
        if each.meets_objectives >= meets and (each.meets_objectives > meets or each.rate_per_gpu > BETTER * rate)
    ]  # fmt: skip


def _is_declared(candidate: Candidate, declared: Declaration) -> bool:
    strategy, own = candidate.declaration.strategy, declared.strategy
    copies = declared.replicas * (1 if own.attention_data else own.data_ranks_per_replica)
    same = (strategy.tensor, strategy.pipeline, candidate.declaration.replicas) == (own.tensor, own.pipeline, copies)
    return candidate.variant.nearness is Nearness.STRATEGY and same and not own.attention_data and not candidate.is_shortened


def change_of(alternative: Alternative, declared: Performance | None) -> str:
    """``2 replicas of TP4 x PP1 x DP1: 11 (8 to 15.2) requests/s against 8.3``, with what else differs."""
    candidate, declaration = alternative.candidate, alternative.declaration
    parts = []
    if candidate.variant.nearness is not Nearness.STRATEGY:
        parts.append(f"{candidate.variant.name} ({declaration.weights_name})")
    replicas = "" if declaration.replicas == 1 else f"{count(declaration.replicas, 'replica')} of "
    parts.append(f"{replicas}{declaration.strategy.label}")
    if candidate.is_shortened:
        parts.append(f"up to {declaration.engine.settings.max_model_len} tokens")
    what, found = ", ".join(parts), candidate.performance
    if found is None:
        return what
    value, low, high = (number(rounded(each)) for each in (found.capacity.value, found.capacity.low, found.capacity.high))
    rate = f"{value} ({low} to {high}) requests/s"
    against = "" if declared is None else f" against {number(rounded(declared.capacity.value))}"
    misses = "" if candidate.meets_objectives or not declaration.objectives.any else ", which misses the objectives"
    return f"{what}: {rate}{against}{misses}"
