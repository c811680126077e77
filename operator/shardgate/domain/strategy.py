"""The parallel strategy, and the grid of ranks that it makes."""

from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple


class Rank(NamedTuple):
    """One process on one GPU. ``number`` counts in vLLM's order: tensor fastest, then stage, then data."""

    number: int
    data: int
    stage: int
    tensor: int


class Remainder(StrEnum):
    """Which pipeline stages take the layers that do not divide over them."""

    BEFORE_LAST = "before last"
    """One each, from the stage before the last backwards: the last also holds the output head."""
    LAST = "last"
    """All of them the last stage."""
    FIRST = "first"
    """One each, from the first stage on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelStrategy:
    """How one replica is split over GPUs. Every width is at least 1."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    data_local: int | None = None
    """Data ranks per pod; unset: as many as a pod's GPUs hold."""
    expert_parallel: bool = False
    expert: int | None = None
    prefill_context: int = 1
    decode_context: int = 1
    attention_data: bool = False
    load_balancing: str = "internal"
    layers_per_stage: tuple[int, ...] | None = None

    @property
    def data_ranks_per_replica(self) -> int:
        """Data ranks that need GPUs of their own.

        Attention data ranks split the tensor group, and behind an external load balancer each data rank is
        an object of its own.
        """
        return 1 if self.attention_data or self.load_balancing == "external" else self.data

    @property
    def attention_ranks(self) -> int:
        """Tensor ranks that share one copy of attention: attention data ranks split the tensor group."""
        return self.tensor // self.data if self.attention_data else self.tensor

    def expert_widths(self, *, over_data: bool) -> tuple[int, int]:
        """(ranks that experts are dealt out to, ranks that each expert is cut over).

        ``expert_parallel`` deals them out to all ranks of a stage; a declared ``expert`` width to as many, and cuts
        them over the rest of the tensor group. Otherwise every expert is cut over the tensor group, and over data
        ranks too where the engine does so (``over_data``).
        """
        if self.expert is not None:
            return self.expert, max(1, self.tensor // self.expert)
        data = 1 if self.attention_data else self.data
        if self.expert_parallel:
            return self.tensor * self.prefill_context * data, 1
        return 1, self.tensor * (self.prefill_context * data if over_data else 1)

    @property
    def ranks_per_replica(self) -> int:
        """GPUs that one replica takes; decode context and expert parallelism re-use the same ranks."""
        return self.tensor * self.pipeline * self.prefill_context * self.data_ranks_per_replica

    @property
    def label(self) -> str:
        """``TP2 x PP4 x DP1``, with the rarer widths only where they are used."""
        return label_of(
            self.tensor, self.pipeline, self.data, expert_parallel=self.expert_parallel, expert=self.expert,
            prefill_context=self.prefill_context, decode_context=self.decode_context,
        )  # fmt: skip

    def ranks(self) -> tuple[Rank, ...]:
        """All ranks of one replica, numbered."""
        width = self.tensor * self.prefill_context
        return tuple(
            Rank(((data * self.pipeline) + stage) * width + tensor, data, stage, tensor)
            for data in range(self.data_ranks_per_replica)
            for stage in range(self.pipeline)
            for tensor in range(width)
        )


def label_of(
    tensor: int, pipeline: int, data: int, *, expert_parallel: bool = False, expert: int | None = None, prefill_context: int = 1,
    decode_context: int = 1,
) -> str:  # fmt: skip
    """``TP2 x PP4 x DP1``; ``EP`` without a width deals experts out to all ranks of a stage."""
    parts = [f"TP{tensor}", f"PP{pipeline}", f"DP{data}"]
    if expert_parallel:
        parts.append("EP")
    if expert is not None:
        parts.append(f"EP{expert}")
    if prefill_context > 1:
        parts.append(f"PCP{prefill_context}")
    if decode_context > 1:
        parts.append(f"DCP{decode_context}")
    return " x ".join(parts)


def layers_of_stages(layers: int, strategy: ParallelStrategy, remainder: Remainder = Remainder.BEFORE_LAST) -> tuple[range, ...]:
    """Which layers each pipeline stage holds: a declared split as it is, else an even one with the engine's remainder."""
    stages = strategy.pipeline
    if strategy.layers_per_stage is not None:
        sizes = list(strategy.layers_per_stage)
    else:
        sizes, over = [layers // stages] * stages, layers % stages
        match remainder:
            case Remainder.LAST:
                sizes[-1] += over
            case Remainder.FIRST:
                sizes[:over] = [size + 1 for size in sizes[:over]]
            case Remainder.BEFORE_LAST:
                for step in range(over):
                    sizes[-2 - step] += 1
    return tuple(range(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True))
