"""Performance, balance, communication, graph, score and risks, as the report has them. What is not known is ``null``."""

from collections.abc import Iterable
from typing import Any

from shardgate.domain.declaration import Declaration
from shardgate.domain.estimate import Estimate
from shardgate.domain.fitting import load_of
from shardgate.domain.performance.communication import bytes_per_token
from shardgate.domain.performance.figures import Performance
from shardgate.domain.performance.graph import Edge, edges_of
from shardgate.domain.performance.serving import bubble_of
from shardgate.domain.performance.work import Work, work_of
from shardgate.domain.risks import Risk
from shardgate.domain.units import rounded
from shardgate.domain.verdict import ScoreTerm, Verdict

Json = dict[str, Any]

_PERFORMANCE = (
    "requestsPerSecond", "outputTokensPerSecond", "totalTokensPerSecond", "timeToFirstTokenMilliseconds",
    "timePerOutputTokenMilliseconds", "endToEndMilliseconds", "gpuUtilization", "capacityRequestsPerSecond",
    "capacityMeasuredRequestsPerSecond", "concurrency", "capacityConcurrency", "capacityShare", "bound", "atCapacity", "product",
    "promptTokens", "outputTokens",
)  # fmt: skip
_BALANCE = ("stageSeconds", "epsilon", "bubble", "bubbleMeasured", "microBatches")
_BYTES = ("tensorBytesPerToken", "pipelineBytesPerToken", "expertBytesPerToken")
_COMMUNICATION = (*_BYTES, "link", "linkBytesPerSecond", "linkUtilization", "timeShare")


def ranged(estimate: Estimate | None, factor: float = 1.0) -> Json | None:
    """``{value, low, high}``, in units of which ``factor`` are one of the estimate's."""
    if estimate is None:
        return None
    return {
        "value": rounded(estimate.value * factor), "low": rounded(estimate.low * factor), "high": rounded(estimate.high * factor),
    }  # fmt: skip


def performance_json(found: Performance | None) -> Json:
    """All replicas together, each figure with its range."""
    if found is None:
        return dict.fromkeys(_PERFORMANCE)
    return {
        "requestsPerSecond": ranged(found.requests_per_second),
        "outputTokensPerSecond": ranged(found.output_tokens_per_second),
        "totalTokensPerSecond": ranged(found.total_tokens_per_second),
        "timeToFirstTokenMilliseconds": ranged(found.time_to_first_token, 1000),
        "timePerOutputTokenMilliseconds": ranged(found.time_per_output_token, 1000),
        "endToEndMilliseconds": ranged(found.end_to_end, 1000),
        "gpuUtilization": ranged(found.gpu_utilization),
        "capacityRequestsPerSecond": ranged(found.capacity),
        "capacityMeasuredRequestsPerSecond": ranged(found.capacity_measured),
        "concurrency": round(found.concurrency),
        "capacityConcurrency": round(found.capacity_concurrency),
        "capacityShare": None if found.capacity_share is None else rounded(found.capacity_share),
        "bound": found.bound.value,
        "atCapacity": found.is_at_capacity,
        "product": found.product,
        "promptTokens": round(found.lengths.prompt),
        "outputTokens": round(found.lengths.output),
    }


def balance_json(declaration: Declaration, found: Performance | None) -> Json:
    """How even the stages are; ``bubble`` by the declared micro-batches, whatever the GPUs are, and 0 for one stage."""
    if found is None:
        batches = declaration.traffic.micro_batches
        stages = declaration.strategy.pipeline
        unknown = declaration.unknown_strategy or (batches is None and stages > 1)
        bubble = None if unknown else rounded(bubble_of(stages, batches or 0)) if stages > 1 else 0.0
        return {**dict.fromkeys(_BALANCE), "bubble": bubble, "microBatches": batches}
    balance = found.balance
    return {
        "stageSeconds": [rounded(each) for each in balance.stage_seconds],
        "epsilon": rounded(balance.epsilon),
        "bubble": None if balance.bubble is None else rounded(balance.bubble),
        "bubbleMeasured": rounded(balance.bubble_measured),
        "microBatches": balance.micro_batches,
    }


def communication_json(declaration: Declaration, verdict: Verdict) -> Json:
    """Bytes that one rank sends per token, whatever the GPUs are; how they use the link that is here. Shares are 0..1."""
    shown: Json = dict.fromkeys(_COMMUNICATION)
    work = None if declaration.unknown_strategy else _work(declaration, verdict)
    if work is not None:
        shown |= {key: round(each) for key, each in zip(_BYTES, bytes_per_token(work), strict=True)}
    if verdict.performance is None:
        return shown
    talk = verdict.performance.communication
    return shown | {
        "link": None if talk.link is None else talk.link.value,
        "linkBytesPerSecond": None if talk.link is None else round(talk.link_bytes_per_second),
        "linkUtilization": rounded(talk.link_utilization),
        "timeShare": rounded(talk.time_share),
    }


MOST_EXPERT_EDGES = 4096
"""All-to-all between 64 ranks: more edges tell nobody more."""


def _work(declaration: Declaration, verdict: Verdict) -> Work | None:
    """What a pass does; ``None`` where the model or the engine's memory is not known."""
    load, memory = load_of(declaration), declaration.engine.memory
    return work_of(load, memory[0].remainder) if load is not None and memory and verdict.weights is not None else None


def graph_json(declaration: Declaration, verdict: Verdict) -> Json:
    """The ranks of one replica with the pod and node that the example gives them, and who sends what to whom."""
    where = {}
    for pod in verdict.placement.pods if verdict.placement else ():
        if pod.replica == 0:
            where.update(dict.fromkeys(pod.ranks, (pod.pod, pod.node)))
    nodes = [
        {
            "rank": rank.number, "stage": rank.stage, "tensor": rank.tensor, "data": rank.data,
            "pod": where.get(rank.number, (None, None))[0], "node": where.get(rank.number, (None, None))[1],
        }
        for rank in declaration.strategy.ranks()
    ]  # fmt: skip
    if declaration.unknown_strategy:
        return {"nodes": nodes, "edges": None}
    work = _work(declaration, verdict)
    edges = edges_of(declaration.strategy, work)
    known = work is not None
    return {
        "nodes": nodes,
        "edges": {
            "tensor": _edges(edges.tensor, is_known=known),
            "pipeline": _edges(edges.pipeline, is_known=known),
            "expert": _edges(edges.expert[:MOST_EXPERT_EDGES], is_known=known),
        },
    }


def _edges(edges: Iterable[Edge], *, is_known: bool) -> list[Json]:
    return [
        {"from": each.source, "to": each.target, "bytesPerToken": round(each.bytes_per_token) if is_known else None}
        for each in edges
    ]


def risks_json(risks: Iterable[Risk]) -> list[Json]:
    """What may go wrong."""
    return [
        {"name": each.name, "likelihood": each.likelihood.value, "effect": each.effect, "mitigation": each.mitigation}
        for each in risks
    ]


def score_json(terms: Iterable[ScoreTerm]) -> list[Json]:
    """Each term with its reason; ``points`` is ``null`` where it does not apply."""
    return [
        {"name": each.name, "points": None if each.points is None else round(each.points, 1), "of": each.of, "why": each.why}
        for each in terms
    ]
