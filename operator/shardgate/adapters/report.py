"""Verdict -> the report: one JSON document, that every other form is drawn from.

Every key of the document is always there; a value that is not known is ``null``, never left out and never 0.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from shardgate.adapters.alternatives import alternative_json
from shardgate.adapters.performance_report import (
    balance_json,
    communication_json,
    graph_json,
    performance_json,
    risks_json,
    score_json,
)
from shardgate.domain.declaration import Declaration
from shardgate.domain.fitting import Fit
from shardgate.domain.memory import MemoryEstimate, RankMemory
from shardgate.domain.placement import Placement
from shardgate.domain.policy import Disclosure, Policy
from shardgate.domain.risks import risks_of
from shardgate.domain.search import Alternative
from shardgate.domain.strategy import ParallelStrategy
from shardgate.domain.traffic import Objectives, Traffic
from shardgate.domain.verdict import STATUS, Finding, FindingClass, Outcome, Verdict

Json = dict[str, Any]


def report(declaration: Declaration, verdict: Verdict, *, reference: str, alternatives: Iterable[Alternative] = ()) -> Json:
    """The whole report of one declaration, with node names as they are."""
    status, recommendation = STATUS[verdict.outcome]
    subject = declaration.subject
    return {
        "apiVersion": "shardgate.io/v1alpha1",
        "kind": "VerificationReport",
        "ref": reference,
        "subject": {
            "apiVersion": subject.api_version, "kind": subject.kind, "namespace": subject.namespace, "name": subject.name,
        },
        "outcome": verdict.outcome.label,
        "aspects": aspect_labels(verdict.aspects),
        "status": status,
        "recommendation": recommendation,
        "score": verdict.score,
        "declared": declared_json(declaration, verdict),
        "hardware": _hardware(verdict),
        "memory": memory_json(declaration, verdict),
        "placement": placement_json(verdict.placement),
        "performance": performance_json(verdict.performance),
        "balance": balance_json(declaration, verdict.performance),
        "communication": communication_json(declaration, verdict),
        "graph": graph_json(declaration, verdict),
        "risks": risks_json(risks_of(declaration, verdict)),
        "alternatives": [alternative_json(each, declaration, verdict.performance) for each in alternatives],
        "scoreTerms": score_json(verdict.score_terms),
        "findings": [finding_json(each) for each in verdict.findings],
        "assumptions": [{"field": each.field, "value": each.value, "why": each.why} for each in verdict.assumptions],
    }  # fmt: skip


def finding_json(found: Finding) -> Json:
    """One finding."""
    return {
        "code": found.code,
        "class": found.finding_class.value,
        "where": found.where,
        "outcome": found.outcome.label,
        "message": found.message,
        "remedy": found.remedy or None,
        "source": found.source or None,
    }


def strategy_json(strategy: ParallelStrategy) -> Json:
    """The strategy, as in the spec."""
    return {
        "tensor": strategy.tensor,
        "pipeline": strategy.pipeline,
        "data": strategy.data,
        "dataLocal": strategy.data_local,
        "expertParallel": strategy.expert_parallel,
        "expert": strategy.expert,
        "prefillContext": strategy.prefill_context,
        "decodeContext": strategy.decode_context,
        "attentionData": strategy.attention_data,
        "loadBalancing": strategy.load_balancing,
        "layersPerStage": list(strategy.layers_per_stage) if strategy.layers_per_stage else None,
    }


def declared_json(declaration: Declaration, verdict: Verdict) -> Json:
    """What is declared, with what was chosen where it is not."""
    required = verdict.required
    return {
        "model": declaration.model_name,
        "engine": declaration.engine.name or None,
        "engineVersion": declaration.engine.version,
        "weights": declaration.weights_name or None,
        "kvCache": declaration.kv_cache,
        "strategy": strategy_json(declaration.strategy),
        "replicas": declaration.replicas,
        "gpusPerReplica": required.gpus_per_replica,
        "gpusTotal": required.gpus,
        "podsPerReplica": required.pods_per_replica,
        "gpusPerPod": {"server": required.gpus_per_pod},
        "traffic": _traffic(declaration.traffic),
        "objectives": _objectives(declaration.objectives),
    }


def _traffic(traffic: Traffic) -> Json:
    """As in the spec; null where it is not declared."""
    return {
        "promptTokens": traffic.prompt_tokens, "outputTokens": traffic.output_tokens, "concurrency": traffic.concurrency,
        "microBatches": traffic.micro_batches,
    }  # fmt: skip


def _objectives(objectives: Objectives) -> Json:
    """As in the spec; null where none is set."""
    return {
        "requestsPerSecond": objectives.requests_per_second,
        "timeToFirstTokenMilliseconds": _times(objectives.time_to_first_token_seconds, 1000),
        "timePerOutputTokenMilliseconds": _times(objectives.time_per_output_token_seconds, 1000),
        "gpuUtilizationPercent": _times(objectives.gpu_utilization, 100),
    }


def _times(value: float | None, by: int) -> float | None:
    """In the spec's unit, without the dust of going there and back."""
    return None if value is None else round(value * by, 6)


def _hardware(verdict: Verdict) -> Json:
    hardware = verdict.hardware
    if hardware is None:
        return dict.fromkeys(("gpusInstalled", "gpusFree", "memoryInstalledBytes", "products", "inventoryAgeSeconds"))
    return {
        "gpusInstalled": hardware.gpus_installed,
        "gpusFree": hardware.gpus_free,
        "memoryInstalledBytes": hardware.memory_installed,
        "products": [
            {"product": each.product, "gpus": each.gpus, "memoryBytes": each.memory, "nodes": each.nodes}
            for each in hardware.products
        ],
        "inventoryAgeSeconds": round(hardware.inventory_age_seconds, 3),
    }


_MEMORY_OUTCOMES = {Fit.FITS: "fits", Fit.TIGHT: "tight", Fit.UNFIT: "doesNotFit"}


def memory_json(declaration: Declaration, verdict: Verdict) -> Json:
    """Figures of memory; all unknown where they are not known."""
    weights, best = verdict.weights, verdict.best_gpu
    keys = (
        "outcome", "parameters", "weightsBytes", "perStage", "perRank", "kvBytesPerToken", "kvTokens",
        "maxModelLenThatFits", "concurrencyAtFullLength", "deficitBytes", "uncertaintyBytes",
    )  # fmt: skip
    memory: Json = dict.fromkeys(keys)
    if weights is None:
        return memory
    estimate = best.estimate if best is not None else None
    memory["parameters"] = weights.parameters
    memory["weightsBytes"] = weights.total
    memory["perStage"] = [
        {"stage": each.stage, "firstLayer": each.layers.start, "lastLayer": each.layers.stop - 1, "weightsBytes": each.total}
        for each in weights.stages
    ]
    ranks = {rank.stage: rank for rank in estimate.stages} if estimate is not None else {}
    memory["perRank"] = [
        {"stage": each.stage, "tensor": tensor, **_rank(each.per_rank, ranks.get(each.stage), estimate)}
        for each in weights.stages
        for tensor in range(declaration.strategy.tensor)
    ]
    if best is not None and (estimate is not None or best.fit is Fit.UNFIT):
        memory["outcome"] = _MEMORY_OUTCOMES.get(best.fit)
    if estimate is not None:
        fullest = estimate.fullest
        if fullest.layout.block_bytes:  # an encoder keeps nothing between passes
            memory["kvBytesPerToken"] = round(fullest.layout.bytes_per_token)
            memory["kvTokens"] = int(estimate.kv_tokens.value)
        memory["maxModelLenThatFits"] = int(estimate.longest.value)
        at_once = estimate.concurrency_at_full_length
        memory["concurrencyAtFullLength"] = None if at_once is None else round(at_once.value, 2)
        memory["deficitBytes"] = max(0, -int(estimate.margin.value))
        memory["uncertaintyBytes"] = int(
            max(fullest.kv_cache.high - fullest.kv_cache.value, fullest.kv_cache.value - fullest.kv_cache.low)
        )
    return memory


def _rank(weights_bytes: int, rank: RankMemory | None, estimate: MemoryEstimate | None) -> Json:
    """One rank's figures; what is not modelled is null."""
    keys = ("activationBytes", "overheadBytes", "kvCacheBytes", "budgetBytes", "headroomBytes")
    if rank is None or estimate is None:
        return {"weightsBytes": weights_bytes, **dict.fromkeys(keys)}
    headroom = None if estimate.length is None else int(rank.kv_cache.value) - rank.layout.bytes_for(estimate.length)
    return {
        "weightsBytes": int(rank.weights.value), "activationBytes": int(rank.activation.value),
        "overheadBytes": int(rank.overhead.value), "kvCacheBytes": int(rank.kv_cache.value),
        "budgetBytes": int(rank.budget.value), "headroomBytes": headroom,
    }  # fmt: skip


ANY_PLACE_MAY_FAIL = (
    "pods that are bound one by one, in another order or to other nodes, may leave no room for the rest: "
    "this placement is one that holds"
)


def placement_json(placement: Placement | None) -> Json:
    """Where the pods go; all unknown where that was not judged."""
    if placement is None:
        return dict.fromkeys(("feasible", "feasibleWhenIdle", "replicasThatFit", "remark", "pods", "excluded"))
    return {
        "feasible": placement.feasible,
        "feasibleWhenIdle": placement.feasible_when_idle,
        "replicasThatFit": placement.replicas_that_fit,
        "remark": ANY_PLACE_MAY_FAIL if placement.feasible and not placement.in_any_order else None,
        "pods": [
            {
                "group": "server", "replica": each.replica, "pod": each.pod, "node": each.node,
                "gpus": len(each.local_gpus), "localGpus": list(each.local_gpus), "ranks": list(each.ranks),
            }
            for each in placement.pods
        ],
        "excluded": [
            {"reason": each.text, "count": each.count, "nodes": list(each.nodes)} for each in placement.excluded
        ],
    }  # fmt: skip


def digest_of(spec: Mapping[str, Any], verdict: Verdict, policy: Policy) -> str:
    """Over what was judged, the facts that it was judged by, and the policy."""
    facts = {
        "spec": spec,
        "findings": [(each.code, each.where, each.message) for each in verdict.findings],
        "products": [
            (each.product, each.gpus, each.memory, each.nodes) for each in (verdict.hardware.products if verdict.hardware else ())
        ],
        "policy": repr(policy),
    }
    return f"sha256:{hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()}"


def reference_of(spec: Mapping[str, Any], verdict: Verdict, policy: Policy) -> str:
    """A short reference to one decision."""
    return digest_of(spec, verdict, policy).removeprefix("sha256:")[:4]


def aspect_labels(aspects: Mapping[FindingClass, Outcome]) -> dict[str, str]:
    """Class -> outcome, as the API spells them."""
    return {aspect.value: outcome.label for aspect, outcome in aspects.items()}


def disclosed_node(disclosure: Disclosure, node: str, pool: str) -> str:
    """What may be said of a node to users."""
    return {Disclosure.NODES: node, Disclosure.POOLS: pool, Disclosure.NONE: ""}[disclosure]
