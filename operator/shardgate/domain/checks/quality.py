"""It runs, and wastes hardware or misses an objective."""

from collections.abc import Iterator

from shardgate.domain.codes import finding
from shardgate.domain.fitting import Fit
from shardgate.domain.performance.estimate import is_linked
from shardgate.domain.performance.figures import Performance
from shardgate.domain.situation import Situation
from shardgate.domain.units import count, number
from shardgate.domain.verdict import Finding, Outcome

MOST_UNEVEN = 0.25
"""By how much the slowest stage may exceed the mean."""
MOST_BUBBLE = 0.25
"""Share of time that a pipeline may lose at the declared micro-batches."""
MOST_TALK = 0.25
"""Share of a decode step that may go to communication over PCIe where joined GPUs are accepted as well."""
MOST_UNUSED = 20
"""Times what the declared concurrency can fill that a KV cache may hold."""


def gpus_are_used(situation: Situation) -> Iterator[Finding]:
    """Every GPU that a replica takes holds a rank."""
    pod, required = situation.pod, situation.required
    over = required.gpus_per_replica - pod.ranks_per_replica
    wish = situation.declaration.gpus
    if situation.declaration.unknown_strategy:
        return
    if over > 0 and (wish.pods_per_replica is not None or pod.ranks_per_replica % pod.pods_per_replica == 0):
        yield finding(
            "GpusLeftOver",
            where="spec.gpus.perPod",
            outcome=Outcome.WASTEFUL,
            message=f"each replica takes {count(required.gpus_per_replica, 'GPU')} for {count(pod.ranks_per_replica, 'rank')}; "
            f"{over} stay idle",
            remedy=f"ask for {count(pod.ranks_per_pod, 'GPU')} per pod",
        )


def memory_is_used(situation: Situation) -> Iterator[Finding]:
    """The KV cache is not many times what the declared traffic can fill, where fewer or smaller GPUs could be had."""
    found, best, traffic = situation.performance, situation.best_found, situation.declaration.traffic
    if found is None or best is None or best.estimate is None or traffic.concurrency is None or not found.are_lengths_declared:
        return
    ranks = situation.declaration.strategy.data_ranks_per_replica * situation.declaration.replicas
    held = best.estimate.kv_tokens.low * ranks
    filled = traffic.concurrency * (found.lengths.prompt + found.lengths.output)
    if held > MOST_UNUSED * filled and _could_be_less(situation):
        yield finding(
            "MemoryMostlyUnused",
            where="spec.traffic.concurrency",
            outcome=Outcome.WASTEFUL,
            message=f"the KV caches hold {held:,.0f} tokens, {traffic.concurrency} requests of {filled / traffic.concurrency:,.0f} "
            f"tokens fill {filled:,.0f} ({held / filled:.0f} times)",
            remedy="take fewer or smaller GPUs, or serve more at once",
        )


def _could_be_less(situation: Situation) -> bool:
    """Fewer replicas, half the ranks or a smaller product would hold the weights."""
    best, weights = situation.best_found, situation.weights
    if best is None or best.estimate is None or weights is None:
        return False
    smaller = any(
        each.fit is Fit.FITS and (each.gpu.memory or 0) < (best.gpu.memory or 0) for each in situation.found_of_shape.values()
    )
    halved = 2 * weights.fullest.per_rank <= HALVED_SHARE * best.estimate.fullest.budget.low
    is_split = situation.declaration.strategy.tensor * situation.declaration.strategy.pipeline > 1
    return smaller or situation.declaration.replicas > 1 or (is_split and halved)


HALVED_SHARE = 0.9
"""Of the budget that weights may take on half the ranks, so that fewer are surely enough."""


def stages_are_even(situation: Situation) -> Iterator[Finding]:
    """No pipeline stage takes much longer than the others."""
    found = situation.performance
    if found is None or situation.declaration.strategy.pipeline == 1:
        return
    balance = found.balance
    if balance.epsilon > MOST_UNEVEN:
        slowest = max(range(len(balance.stage_seconds)), key=lambda stage: balance.stage_seconds[stage])
        mean = sum(balance.stage_seconds) / len(balance.stage_seconds)
        yield finding(
            "StagesUneven",
            where="spec.strategy.layersPerStage",
            outcome=Outcome.WASTEFUL,
            message=f"stage {slowest} takes {1000 * balance.stage_seconds[slowest]:.1f} ms of a decode step, the mean is "
            f"{1000 * mean:.1f} ms ({100 * balance.epsilon:.0f} % more): the others wait for it",
            remedy="share the layers more evenly, or leave spec.strategy.layersPerStage unset",
        )


def pipeline_is_filled(situation: Situation) -> Iterator[Finding]:
    """The declared micro-batches keep the pipeline's stages busy."""
    found, traffic, stages = situation.performance, situation.declaration.traffic, situation.declaration.strategy.pipeline
    if found is None or traffic.micro_batches is None or found.balance.bubble is None or found.balance.bubble <= MOST_BUBBLE:
        return
    bubble = found.balance.bubble
    yield finding(
        "PipelineBubble",
        where="spec.traffic.microBatches",
        outcome=Outcome.WASTEFUL,
        message=f"{count(traffic.micro_batches, 'micro-batch', 'micro-batches')} in {stages} stages leave each idle "
        f"{100 * bubble:.0f} % of the time",
        remedy=f"keep {3 * (stages - 1)} micro-batches or more in flight, or take fewer stages",
    )


def tensor_ranks_are_joined(situation: Situation) -> Iterator[Finding]:
    """Tensor ranks do not talk over PCIe where GPUs joined by NVLink are accepted as well."""
    found, best, ranks = situation.performance, situation.best_found, situation.declaration.strategy.tensor
    if found is None or best is None or best.gpu.are_joined(ranks) is not False or ranks == 1:
        return
    share = found.communication.time_share
    resource = situation.pod.resource
    joined = {
        gpu.product or "GPU"
        for group in situation.accepted
        if is_linked(gpu := group.shape.unit(resource), situation.declaration.strategy.tensor)
        and group.installed(resource) >= situation.pod.gpus
        and situation.fit(group) is Fit.FITS
    }
    if joined and share > MOST_TALK:
        yield finding(
            "TensorOverPcie",
            where="spec.strategy.tensor",
            outcome=Outcome.WASTEFUL,
            message=f"{ranks} tensor ranks on {found.product} talk over PCIe for "
            f"{100 * share:.0f} % of a decode step; {', '.join(sorted(joined))} is joined by NVLink",
            remedy=f"name {' or '.join(sorted(joined))} in spec.gpus.products, or use pipeline stages instead of tensor ranks",
        )


def tensor_ranks_share_a_node(situation: Situation) -> Iterator[Finding]:
    """Tensor ranks are not spread over nodes where one node could hold them."""
    strategy, pod = situation.declaration.strategy, situation.pod
    if situation.declaration.unknown_strategy or pod.ranks_per_pod >= strategy.tensor or pod.pods_per_replica == 1:
        return
    largest = max((group.installed(pod.resource) for group in situation.counted), default=0)
    if largest >= strategy.tensor:
        yield finding(
            "TensorAcrossNodes",
            where="spec.gpus.perPod",
            outcome=Outcome.RISKY,
            message=f"{strategy.tensor} tensor ranks are spread over pods of {count(pod.gpus, 'GPU')} and may land on "
            f"several nodes, where every layer waits for the network; a node has {largest}",
            remedy=f"ask for {strategy.tensor} GPUs per pod",
        )


def throughput_is_reached(situation: Situation) -> Iterator[Finding]:
    """The rate that is aimed at can be served, at the best that the estimate allows."""
    found, aims = situation.performance, situation.declaration.objectives
    wanted = aims.requests_per_second
    if found is None or not wanted or not found.are_lengths_declared or found.capacity.high >= wanted:
        return
    served = f"serves {_range(found.capacity.low, found.capacity.high)}"
    if _aims_at_latency(situation):
        none_meets = "misses the latencies aimed at under any load"
        served = f"{served} within the latencies aimed at" if found.capacity.high > 0 else none_meets
    yield finding(
        "ThroughputTooLow",
        where="spec.objectives.requestsPerSecond",
        outcome=Outcome.WASTEFUL,
        message=f"{wanted:g} requests/s are aimed at, {found.product} {served} ({found.label})",
        remedy="add replicas, take a faster strategy, precision or product (shardgate plan), or lower the objective",
    )


def latency_is_reached(situation: Situation) -> Iterator[Finding]:
    """Latencies are as aimed at under the declared traffic, at the best that the estimate allows."""
    found, aims = situation.performance, situation.declaration.objectives
    if found is None or not found.are_lengths_declared or found.is_at_capacity:
        return
    for name, field, wanted, value in (
        ("time to first token", "timeToFirstTokenMilliseconds", aims.time_to_first_token_seconds, found.time_to_first_token),
        (
            "time per output token",
            "timePerOutputTokenMilliseconds",
            aims.time_per_output_token_seconds,
            found.time_per_output_token,
        ),
    ):
        if wanted is None or value is None or value.low <= wanted:
            continue
        yield finding(
            "LatencyTooHigh",
            where=f"spec.objectives.{field}",
            outcome=Outcome.WASTEFUL,
            message=f"a {name} of {1000 * wanted:g} ms is aimed at, {found.product} takes "
            f"{_range(1000 * value.low, 1000 * value.high)} ms ({found.label})",
            remedy=_remedy(found),
        )


def _remedy(found: Performance) -> str:
    if found.capacity.value > 0:
        at = f"{found.capacity_concurrency:.0f} requests in flight ({found.capacity.value:.1f} requests/s)"
        return f"the objectives hold up to about {at}: serve fewer at once, or add replicas"
    return "no rate meets the objectives: take more tensor ranks, a faster product or precision"


def _aims_at_latency(situation: Situation) -> bool:
    aims = situation.declaration.objectives
    return aims.time_to_first_token_seconds is not None or aims.time_per_output_token_seconds is not None


def _range(low: float, high: float) -> str:
    return f"{number(low)} to {number(high)}"


CHECKS = (
    gpus_are_used,
    memory_is_used,
    stages_are_even,
    tensor_ranks_share_a_node,
    tensor_ranks_are_joined,
    pipeline_is_filled,
    throughput_is_reached,
    latency_is_reached,
)
