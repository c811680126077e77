"""What a declaration's replicas would serve at its traffic, and the most that still meets its objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from shardgate.domain.declaration import Declaration
from shardgate.domain.estimate import Estimate
from shardgate.domain.fitting import Fit, GpuFit, Weighed
from shardgate.domain.performance.communication import Communication, communication_of
from shardgate.domain.performance.estimate import limits_of, ranged, replica_of
from shardgate.domain.performance.serving import Lengths, Replica, Service
from shardgate.domain.traffic import Objectives

ASSUMED_LENGTHS = Lengths(prompt=1024, output=512)
"""Where none are declared: figures need some, findings rest on none."""

BUSY_ERROR = 0.15
"""Relative uncertainty of the share of time that GPUs are busy."""


class Bound(StrEnum):
    """What most of a decode step's time goes to."""

    COMPUTE = "compute"
    MEMORY = "memory"
    COMMUNICATION = "communication"
    HOST = "host"
    CAPACITY = "capacity"
    """Requests wait: the rate is near to what is served at most, or beyond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """How evenly the pipeline's stages are filled, and what they lose to each other."""

    stage_seconds: tuple[float, ...]
    """Of a decode step, the host's work aside."""
    bubble: float | None
    """By the declared micro-batches: ``(p - 1) / (m + p - 1)``; ``None`` where none are declared, 0 of one stage."""
    bubble_measured: float
    """By what was measured of pipelines' losses."""
    micro_batches: int | None

    @property
    def epsilon(self) -> float:
        """By how much the slowest stage exceeds the mean: max / mean - 1."""
        mean = sum(self.stage_seconds) / len(self.stage_seconds)
        return max(self.stage_seconds) / mean - 1 if mean else 0.0

    @property
    def loss(self) -> float:
        """What is counted on."""
        return self.bubble_measured if self.bubble is None else self.bubble


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """All replicas together; seconds and rates per second. Ranges hold in about 8 of 10 cases."""

    product: str
    """Of the GPU that figures are for."""
    lengths: Lengths
    are_lengths_declared: bool
    concurrency: float
    """Requests in flight."""
    requests_per_second: Estimate
    """At the declared traffic."""
    output_tokens_per_second: Estimate
    total_tokens_per_second: Estimate
    time_to_first_token: Estimate | None
    """``None`` at capacity: it cannot be told there."""
    time_per_output_token: Estimate | None
    end_to_end: Estimate | None
    gpu_utilization: Estimate
    """Share of time that GPUs are busy."""
    capacity: Estimate
    """Requests: the largest rate that meets the objectives, within the declared concurrency; 0 where none does."""
    capacity_measured: Estimate
    """The same with pipelines' losses as they were measured, whatever micro-batches are declared."""
    capacity_concurrency: float
    """Requests in flight at that rate."""
    capacity_share: float | None
    """The rate that is aimed at, of the capacity."""
    is_at_capacity: bool
    bound: Bound
    balance: Balance
    communication: Communication

    @property
    def label(self) -> str:
        """``1024 prompt and 512 output tokens, 256 in flight``."""
        return f"{self.lengths.prompt:.0f} prompt and {self.lengths.output:.0f} output tokens, {self.concurrency:.0f} in flight"


def performance_of(
    declaration: Declaration, weighed: Weighed | None, best: GpuFit | None, ranks_per_pod: int, pods_per_replica: int
) -> Performance | None:
    """Figures on the best of the GPUs that the pods may land on.

    ``None`` where the ranks do not fit, or the model, the engine's constants or the GPU's rates are not known.
    """
    if weighed is None or best is None or best.estimate is None or best.fit is Fit.UNFIT or declaration.replicas < 1:
        return None
    if not weighed.load.model.has_cache or best.estimate.kv_tokens.value <= 0:
        return None
    traffic, objectives = declaration.traffic, declaration.objectives
    if _are_too_long(declaration, best.estimate.length):
        return None
    replicas = declaration.replicas if traffic.concurrency is None else min(declaration.replicas, traffic.concurrency)
    lengths = Lengths(
        prompt=float(traffic.prompt_tokens or ASSUMED_LENGTHS.prompt), output=float(traffic.output_tokens or ASSUMED_LENGTHS.output)
    )
    limits, strategy = limits_of(best.estimate, declaration), declaration.strategy

    replica = replica_of(
        weighed, best.gpu, lengths, limits, traffic.micro_batches,
        tensor_crosses_nodes=ranks_per_pod < strategy.tensor * strategy.prefill_context,
        pipeline_crosses_nodes=pods_per_replica > 1,
    )  # fmt: skip
    if replica is None:
        return None
    declared = None if traffic.concurrency is None else traffic.concurrency / replicas  # of those that have any
    service = _service(replica, declared, objectives, replicas)
    capacity, at = _largest(replica, objectives, declared)
    measured = capacity
    if traffic.micro_batches is not None and strategy.pipeline > 1:
        measured = _largest(replica.by_measured_losses(), objectives, declared)[0]
    spread = ranged(replica.hardware, replica.work)
    requests = service.requests_per_second * replicas
    busy = service.busy_share * min(1.0, service.load)
    wanted = objectives.requests_per_second
    told = not service.is_at_capacity
    return Performance(
        product=best.gpu.product or "GPU",
        lengths=lengths,
        are_lengths_declared=traffic.prompt_tokens is not None and traffic.output_tokens is not None,
        concurrency=(declared if declared is not None else service.in_flight) * replicas,
        requests_per_second=_served(spread.rate(requests), None if declared is not None else wanted, capacity * replicas),
        output_tokens_per_second=spread.rate(requests * lengths.output),
        total_tokens_per_second=spread.rate(requests * (lengths.prompt + lengths.output)),
        time_to_first_token=spread.first_token(service.time_to_first_token) if told else None,
        time_per_output_token=spread.token(service.time_per_output_token) if told else None,
        end_to_end=spread.token(service.end_to_end) if told else None,
        gpu_utilization=Estimate(busy * (1 - BUSY_ERROR), busy, min(1.0, busy * (1 + BUSY_ERROR))),
        capacity=spread.rate(capacity * replicas),
        capacity_measured=spread.rate(measured * replicas),
        capacity_concurrency=at * replicas,
        capacity_share=None if not wanted or capacity <= 0 else wanted / (capacity * replicas),
        is_at_capacity=service.is_at_capacity,
        bound=_bound(service),
        balance=Balance(
            stage_seconds=service.step.stages,
            bubble=replica.textbook_bubble(),
            bubble_measured=replica.measured_bubble(service.in_flight),
            micro_batches=traffic.micro_batches,
        ),
        communication=communication_of(replica, service),
    )


def _are_too_long(declaration: Declaration, longest: int | None) -> bool:
    """Requests of the declared lengths would be turned away: there is nothing to serve."""
    traffic = declaration.traffic
    return longest is not None and (traffic.prompt_tokens or 0) + (traffic.output_tokens or 0) > longest


def _served(estimate: Estimate, offered: float | None, capacity: float) -> Estimate:
    """Of an open loop, no more than comes; less where that may be beyond what can be served."""
    if not offered:
        return estimate
    least = min(offered, capacity * estimate.low / estimate.value) if estimate.value else 0.0
    return Estimate(least, min(estimate.value, offered), offered)


def _service(replica: Replica, concurrency: float | None, objectives: Objectives, replicas: int) -> Service:
    """At the declared concurrency, else at the rate that is aimed at, else at most."""
    if concurrency is not None:
        return replica.at_concurrency(concurrency)
    if objectives.requests_per_second:
        return replica.at_rate(objectives.requests_per_second / replicas)
    return replica.at_most()


def _largest(replica: Replica, objectives: Objectives, concurrency: float | None) -> tuple[float, float]:
    """(the largest rate that meets the latencies aimed at, requests in flight there); of one replica."""
    first, token = objectives.time_to_first_token_seconds, objectives.time_per_output_token_seconds
    if first is None and token is None and concurrency is None:
        most = replica.at_most()
        return most.requests_per_second, most.in_flight

    def meets(service: Service) -> bool:
        return (first is None or service.time_to_first_token <= first) and (token is None or service.time_per_output_token <= token)

    limit = concurrency if concurrency is not None else float(int(replica.most_in_flight))
    return _last_that(meets, replica, limit)


def _last_that(meets: Callable[[Service], bool], replica: Replica, limit: float) -> tuple[float, float]:
    """By bisection: latencies grow with what is in flight."""
    service = replica.at_concurrency(limit)
    if meets(service):
        return service.requests_per_second, limit
    low, high, found = 0, int(limit), 0.0
    while high - low > max(1, low // 64):
        middle = (low + high) // 2
        service = replica.at_concurrency(float(middle))
        if meets(service):
            low, found = middle, service.requests_per_second
        else:
            high = middle
    return found, float(low)


def _bound(service: Service) -> Bound:
    if service.is_at_capacity:
        return Bound.CAPACITY
    step = service.step
    shares = {
        Bound.COMPUTE: step.compute,
        Bound.MEMORY: step.memory,
        Bound.COMMUNICATION: step.communication,
        Bound.HOST: service.step_seconds - step.seconds + step.small,
    }
    return max(shares, key=lambda each: shares[each])
