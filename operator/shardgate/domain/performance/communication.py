"""What ranks send each other for every token, and how much of the link and of the time that takes."""

from __future__ import annotations

from dataclasses import dataclass

from shardgate.domain.performance.serving import Replica, Service
from shardgate.domain.performance.work import StageWork, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Communication:
    """Of one replica. Bytes are sent by one rank per token, prompts' included."""

    tensor_bytes_per_token: float
    """In all-reduces of the stage that has most: a ring sends 2 (n - 1)/n of the message for each."""
    pipeline_bytes_per_token: float
    """Over one boundary between stages; 0 with one stage."""
    expert_bytes_per_token: float
    """To experts on other ranks and back; 0 where none are dealt out."""
    link_utilization: float
    """Of the link's bandwidth in one direction, at the rate that is served."""
    time_share: float
    """Of a decode step."""


def tensor_bytes(work: Work, stage: StageWork) -> float:
    """Sent by one rank of a stage per token, in all-reduces."""
    total = 0.0
    for layer, number in stage.layers:
        if layer.attention_reduces:
            total += number * _ring_share(work.attention_ranks) * work.hidden_bytes
        if layer.mlp_reduces:
            total += number * _ring_share(work.tensor_ranks) * work.hidden_bytes
    return total


def _ring_share(ranks: int) -> float:
    return 2 * (ranks - 1) / ranks


def expert_bytes(stage: StageWork) -> float:
    """Per token of a rank of a stage, to experts elsewhere and back."""
    return sum(number * layer.routed_bytes for layer, number in stage.layers)


def communication_of(replica: Replica, service: Service) -> Communication:
    """At what a replica serves."""
    work, lengths = replica.work, replica.lengths
    tensor = max(tensor_bytes(work, stage) for stage in work.stages)
    expert = max(expert_bytes(stage) for stage in work.stages)
    pipeline = float(work.hidden_bytes) if len(work.stages) > 1 else 0.0
    tokens = service.requests_per_second * (lengths.prompt + lengths.output) / work.data_ranks
    talking = tensor + expert + pipeline
    link = replica.hardware.link_bytes_per_second
    return Communication(
        tensor_bytes_per_token=tensor,
        pipeline_bytes_per_token=pipeline,
        expert_bytes_per_token=expert,
        link_utilization=talking * tokens / link if talking and link else 0.0,
        time_share=service.step.communication / service.step_seconds if service.step_seconds else 0.0,
    )
