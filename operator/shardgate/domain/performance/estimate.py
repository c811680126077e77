"""A declaration's replicas on a GPU -> how fast they would serve, as ranges."""

from __future__ import annotations

from dataclasses import dataclass

from shardgate.domain.declaration import Declaration
from shardgate.domain.estimate import Estimate
from shardgate.domain.fitting import Weighed
from shardgate.domain.inventory import Gpu
from shardgate.domain.memory import MemoryEstimate
from shardgate.domain.performance.passes import Hardware
from shardgate.domain.performance.rates import Spread
from shardgate.domain.performance.serving import Lengths, Limits, Replica
from shardgate.domain.performance.work import Work, work_of


def limits_of(memory: MemoryEstimate, declaration: Declaration) -> Limits:
    """What the engine takes at once on such a GPU, by its KV cache and its own limits."""
    strategy = declaration.strategy
    data = strategy.data if strategy.attention_data else strategy.data_ranks_per_replica
    return Limits(
        sequences=float(memory.sequences * data),
        cache_tokens=max(0.0, memory.kv_tokens.value) * data,
        step_tokens=float(memory.step_tokens),
    )


def replica_of(
    weighed: Weighed, gpu: Gpu, lengths: Lengths, limits: Limits, micro_batches: int | None, *, tensor_crosses_nodes: bool = False,
    pipeline_crosses_nodes: bool = False,
) -> Replica | None:  # fmt: skip
    """``None`` where rates of the GPU or constants of the engine are not known."""
    pace = weighed.load.engine.pace
    if pace is None or gpu.rates is None:
        return None
    memory = weighed.load.engine.memory
    hardware = Hardware(
        rates=gpu.rates, pace=pace, is_linked=is_linked(gpu, weighed.load.strategy.tensor),
        tensor_crosses_nodes=tensor_crosses_nodes, pipeline_crosses_nodes=pipeline_crosses_nodes,
    )  # fmt: skip
    remainder = memory[0].remainder if memory else None
    if remainder is None:
        return None
    return Replica(work_of(weighed.load, remainder), hardware, lengths, limits, micro_batches)


def is_linked(gpu: Gpu, ranks: int) -> bool:
    """Whether so many tensor ranks on such GPUs talk over NVLink or its like: as told, else as the product is made."""
    if gpu.rates is None or gpu.rates.link_bytes_per_second <= 0:
        return False
    joined = gpu.are_joined(ranks)
    return gpu.rates.is_made_joined if joined is None else joined


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """Values with the range that measurements of their kind lie in."""

    spread: Spread

    def rate(self, value: float) -> Estimate:
        """Of a throughput."""
        return Estimate(value / self.spread.rate, value, value * self.spread.rate)

    def token(self, value: float) -> Estimate:
        """Of the time per output token, and what is made of them."""
        return Estimate(value / self.spread.token, value, value * self.spread.token)

    def first_token(self, value: float) -> Estimate:
        """Of the time to the first token."""
        return Estimate(value * self.spread.first_token_low, value, value * self.spread.first_token_high)


def ranged(hardware: Hardware, work: Work) -> Ranges:
    """By what is served, and where."""
    pace = hardware.pace
    if hardware.rates.compute_share != 1 or pace.rate_share != 1 or hardware.tensor_crosses_nodes:
        return Ranges(spread=pace.unusual)
    if work.has_routed_ranks:
        return Ranges(spread=pace.dealt_out)
    return Ranges(spread=pace.mixture if work.is_mixture else pace.dense)
