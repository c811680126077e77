"""What may go wrong although it runs: from findings and from margins."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import REMEMBERED_LABELS
from shardgate.domain.performance.serving import KNEE
from shardgate.domain.units import count, gib
from shardgate.domain.verdict import Outcome, Verdict

TIGHT_SHARE = 0.05
"""Of the budget: a rank with less to spare is tight."""

SLOW_TALK = 0.3
"""Share of a decode step beyond which communication is a risk for latency."""


class Likelihood(StrEnum):
    """How often it happens."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"
    RARE = "rare"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """One thing that may go wrong."""

    name: str
    likelihood: Likelihood
    effect: str
    mitigation: str


_LIKELIHOOD = {
    Outcome.UNSOUND: Likelihood.CERTAIN,
    Outcome.UNDECIDED: Likelihood.UNKNOWN,
    Outcome.WAITING: Likelihood.CERTAIN,
    Outcome.RISKY: Likelihood.LIKELY,
    Outcome.WASTEFUL: Likelihood.CERTAIN,
}


def risks_of(declaration: Declaration, verdict: Verdict) -> tuple[Risk, ...]:
    """Findings first, worst first; then margins that are small."""
    found = [
        Risk(
            name=each.code, likelihood=_LIKELIHOOD[each.outcome], effect=each.message,
            mitigation=each.remedy or "see shardgate explain",
        )
        for each in verdict.findings
    ]  # fmt: skip
    if verdict.outcome is not Outcome.UNSOUND:
        found += [*_of_places(declaration, verdict), *_of_memory(verdict), *_of_performance(declaration, verdict)]
    found += _of_facts(verdict)
    return tuple(found)


def _of_places(declaration: Declaration, verdict: Verdict) -> Iterator[Risk]:
    placement, hardware = verdict.placement, verdict.hardware
    if placement is None or not placement.pods or hardware is None:
        return
    nodes = {pod.node for pod in placement.pods}
    if declaration.replicas == 1:
        where = "its node fails, drains" if len(nodes) == 1 else "any of its nodes fails, drains"
        yield Risk(
            name="SingleNode" if len(nodes) == 1 else "SingleReplica", likelihood=Likelihood.RARE,
            effect=f"the only replica stops when {where} or is upgraded", mitigation="run two replicas, spread over nodes",
        )  # fmt: skip
    elif len(nodes) == 1:
        yield Risk(
            name="SingleNode", likelihood=Likelihood.RARE,
            effect=f"all {declaration.replicas} replicas stop when their node fails, drains or is upgraded",
            mitigation="spread the replicas over nodes",
        )  # fmt: skip
    needed, free, pod = verdict.required.gpus, hardware.gpus_free, verdict.required.gpus_per_pod or 1
    spare = free - needed if free >= needed else free  # fewer than needed: its own pods hold the rest
    if spare < pod:
        yield Risk(
            name="NoSpareGpu", likelihood=Likelihood.POSSIBLE,
            effect=f"besides its own {count(needed, 'GPU')} {max(spare, 0)} are free: when one fails, its pod finds no place",
            mitigation=f"keep {count(pod, 'GPU')} free on a node, or have a node that may come",
        )  # fmt: skip


def _of_memory(verdict: Verdict) -> Iterator[Risk]:
    best = verdict.best_gpu
    if best is None or best.estimate is None:
        return
    fullest, margin = best.estimate.fullest, best.estimate.margin
    if 0 <= margin.value < TIGHT_SHARE * fullest.budget.value:
        yield Risk(
            name="TightMemory", likelihood=Likelihood.POSSIBLE,
            effect=f"the fullest rank has {gib(int(margin.value))} to spare of {gib(int(fullest.budget.value))}: "
            "few sequences at once, and another version may need more",
            mitigation="shorten spec.engine.maxModelLen, or take more ranks",
        )  # fmt: skip


def _of_performance(declaration: Declaration, verdict: Verdict) -> Iterator[Risk]:
    found, wanted = verdict.performance, declaration.objectives.requests_per_second
    if found is None:
        return
    if wanted and found.capacity.low < wanted <= found.capacity.high:
        yield Risk(
            name="ThroughputUncertain",
            likelihood=Likelihood.POSSIBLE if found.capacity.value >= wanted else Likelihood.LIKELY,
            effect=f"{wanted:g} requests/s lie inside the estimate's range of {found.capacity.low:.1f} to "
            f"{found.capacity.high:.1f} ({found.label})",
            mitigation="measure with a load test before the traffic comes, or plan for the low end",
        )  # fmt: skip
    if wanted and found.balance.bubble is not None and found.capacity_measured.value < wanted <= found.capacity.value:
        yield Risk(
            name="PipelineLoss", likelihood=Likelihood.LIKELY,
            effect=f"pipelines of {len(found.balance.stage_seconds)} stages were measured to lose "
            f"{100 * found.balance.bubble_measured:.0f} %, not the {100 * found.balance.bubble:.0f} % of "
            f"{found.balance.micro_batches} micro-batches: that leaves {found.capacity_measured.value:.1f} of {wanted:g} a second",
            mitigation="use tensor ranks instead of stages inside a node",
        )  # fmt: skip
    if wanted and found.capacity_share is not None and found.capacity_share >= KNEE:
        yield Risk(
            name="AtCapacity", likelihood=Likelihood.LIKELY,
            effect=f"{wanted:g} requests/s are {100 * found.capacity_share:.0f} % of the {found.capacity.value:.1f} that can be "
            "served: requests that come in bursts wait, and latencies cannot be told",
            mitigation=f"plan for {100 * KNEE:.0f} % of capacity: add a replica or take a faster strategy",
        )  # fmt: skip
    if found.communication.time_share > SLOW_TALK:
        yield Risk(
            name="SlowFabric", likelihood=Likelihood.CERTAIN,
            effect=f"{100 * found.communication.time_share:.0f} % of a decode step goes to communication between ranks",
            mitigation="take fewer tensor ranks and more replicas or stages, or GPUs with a faster link",
        )  # fmt: skip


def _of_facts(verdict: Verdict) -> Iterator[Risk]:
    old = [each for each in verdict.assumptions if each.why.startswith(REMEMBERED_LABELS)]
    if old:
        yield Risk(
            name="OldLabels", likelihood=Likelihood.POSSIBLE,
            effect=f"GPUs are told by labels that are gone: {'; '.join(f'{each.value}: {each.why}' for each in old)}",
            mitigation="see why GPU Feature Discovery does not label the nodes",
        )  # fmt: skip
