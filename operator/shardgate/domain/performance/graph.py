"""The graph of one replica: ranks, and who sends what to whom for every token.

A directed multigraph: the tensor ring of a group runs in both directions of a pair, so that only its projection on
stages has no cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from shardgate.domain.performance.communication import expert_bytes, tensor_bytes
from shardgate.domain.performance.work import Work
from shardgate.domain.strategy import ParallelStrategy, Rank


class Edge(NamedTuple):
    """From rank to rank, by their numbers."""

    source: int
    target: int
    bytes_per_token: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """By what is sent."""

    tensor: tuple[Edge, ...]
    """The ring of each tensor group, once around: of two ranks, one edge each way."""
    pipeline: tuple[Edge, ...]
    """From each rank to its like on the next stage."""
    expert: tuple[Edge, ...]
    """Between all ranks that experts are dealt out to, each way."""


def edges_of(strategy: ParallelStrategy, work: Work | None) -> Edges:
    """Of one replica; bytes are 0 where the model is not known (``work`` is ``None``)."""
    ranks = {(rank.data, rank.stage, rank.tensor): rank for rank in strategy.ranks()}
    width = strategy.tensor * strategy.prefill_context
    hidden = float(work.hidden_bytes) if work is not None else 0.0
    tensor, pipeline, expert = [], [], []
    data_ranks = range(strategy.data_ranks_per_replica)
    for stage in range(strategy.pipeline):
        sent = tensor_bytes(work, work.stages[stage]) if work is not None else 0.0
        for data in data_ranks:
            for first in range(0, width, strategy.tensor):
                group = [ranks[data, stage, first + each] for each in range(strategy.tensor)]
                if len(group) > 1:
                    tensor += [Edge(a.number, b.number, sent) for a, b in zip(group, group[1:] + group[:1], strict=True)]
            if stage + 1 < strategy.pipeline:
                pipeline += [
                    Edge(ranks[data, stage, each].number, ranks[data, stage + 1, each].number, hidden) for each in range(width)
                ]
        if work is not None:
            expert += _expert_edges([rank for rank in ranks.values() if rank.stage == stage], expert_bytes(work.stages[stage]))
    return Edges(tensor=tuple(tensor), pipeline=tuple(pipeline), expert=tuple(expert))


def _expert_edges(ranks: list[Rank], sent: float) -> list[Edge]:
    """All to all: each rank sends an equal share to every other."""
    if not sent or len(ranks) < 2:  # noqa: PLR2004  # nobody to send to
        return []
    share = sent / (len(ranks) - 1)
    return [Edge(a.number, b.number, share) for a in ranks for b in ranks if a is not b]
