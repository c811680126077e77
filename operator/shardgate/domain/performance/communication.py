"""What ranks send each other for every token, and how much of the link and of the time that takes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from shardgate.domain.performance.serving import Replica, Service
from shardgate.domain.performance.work import StageWork, Work


class Link(StrEnum):
    """What joins the tensor ranks of one stage."""

    SCALE_UP = "scaleUp"
    """NVLink or its like."""
    PCIE = "pcie"
    NETWORK = "network"
    """They are on several nodes."""


class BytesPerToken(NamedTuple):
    """That one rank sends, prompts' tokens included; they follow from the model and the strategy alone."""

    tensor: float
    """In all-reduces of the stage that has most: a ring sends 2 (n - 1)/n of the message for each."""
    pipeline: float
    """Over one boundary between stages; 0 with one stage."""
    expert: float
    """To experts on other ranks and back; 0 where none are dealt out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Communication:
    """Of one replica."""

    bytes_per_token: BytesPerToken
    link: Link | None
    """``None`` where one tensor rank has nobody to talk to in its stage."""
    link_bytes_per_second: float
    """Peak of one direction."""
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


def bytes_per_token(work: Work) -> BytesPerToken:
    """What each type of edge carries, of the stage that sends most."""
    return BytesPerToken(
        tensor=max(tensor_bytes(work, stage) for stage in work.stages),
        pipeline=float(work.hidden_bytes) if len(work.stages) > 1 else 0.0,
        expert=max(expert_bytes(stage) for stage in work.stages),
    )


def _link_of(replica: Replica) -> Link | None:
    hardware = replica.hardware
    if replica.work.tensor_ranks == 1:
        return None
    if hardware.tensor_crosses_nodes:
        return Link.NETWORK
    return Link.SCALE_UP if hardware.is_linked else Link.PCIE


def communication_of(replica: Replica, service: Service) -> Communication:
    """At what a replica serves."""
    work, lengths, sent = replica.work, replica.lengths, bytes_per_token(replica.work)
    tokens = service.requests_per_second * (lengths.prompt + lengths.output) / work.data_ranks
    talking = sum(sent)
    link = replica.hardware.link_bytes_per_second
    return Communication(
        bytes_per_token=sent,
        link=_link_of(replica),
        link_bytes_per_second=link,
        link_utilization=talking * tokens / link if talking and link else 0.0,
        time_share=service.step.communication / service.step_seconds if service.step_seconds else 0.0,
    )
