"""Alternatives of a declaration: the family's models and their checkpoints, and each as a patch and a line of the report."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from shardgate.adapters.inference_deployments import cache_bits
from shardgate.adapters.models.catalogue import Found, Question, find_model
from shardgate.adapters.performance_report import ranged
from shardgate.adapters.tables import table
from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import Inventory
from shardgate.domain.model import ModelArchitecture
from shardgate.domain.performance.figures import Performance
from shardgate.domain.policy import Policy
from shardgate.domain.search import Alternative, Nearness, Quota, Variant, alternatives, change_of, nearest, rooms_of
from shardgate.domain.situation import Situation, look_at
from shardgate.domain.strategy import ParallelStrategy
from shardgate.domain.units import count

Json = dict[str, Any]

BF16_FROM = (8, 0)
"""Compute capability from which GPUs have 16-bit brain floats."""


def variants_of(declaration: Declaration, *, is_old: bool, with_smaller: bool = True) -> Iterator[Variant]:
    """The declaration itself, then published checkpoints of its model in other precisions, then smaller models.

    ``is_old``: none of the GPUs has bf16, so that models are loaded as fp16.
    """
    yield Variant(declaration=declaration, nearness=Nearness.STRATEGY, name=declaration.model_name)
    family, place = _family_of(declaration.model_name)
    if family is None or not isinstance(declaration.model, ModelArchitecture) or _is_told_apart(declaration):
        return
    for index, model in enumerate(family["models"][place:]):
        nearness = Nearness.PRECISION if index == 0 else Nearness.MODEL
        if index and not with_smaller:
            return
        entries = [*([] if index == 0 else [{"id": model["id"], "weights": None}]), *model["checkpoints"]]
        for entry in entries:
            if index == 0 and entry["weights"] == declaration.weights_name:
                continue
            found = _found(entry["id"], "fp16" if is_old else None)
            if isinstance(found.model, ModelArchitecture):
                yield Variant(
                    declaration=_with(declaration, entry["id"], found), nearness=nearness, name=entry["id"], step=index + 1
                )


def _is_told_apart(declaration: Declaration) -> bool:
    """Its own config or its engine's flags say what it is: another checkpoint of the name's family need not be like it."""
    model = declaration.model
    own = isinstance(model, ModelArchitecture) and model.source.startswith(("spec.model.config", "ModelProfile"))
    return own or declaration.engine.settings.quantises_while_loading


@cache
def _found(name: str, dtype: str | None) -> Found:
    return find_model(Question(name=name, config=None, weights=None, dtype=dtype))


def _with(declaration: Declaration, name: str, found: Found) -> Declaration:
    if not isinstance(found.model, ModelArchitecture):
        raise TypeError(name)
    stated = declaration.engine.settings.max_model_len
    limit = found.model.max_context_tokens
    settings = declaration.engine.settings
    if stated is not None and limit is not None and stated > limit:
        settings = replace(settings, max_model_len=limit)
    return replace(
        declaration, model_name=name, model=found.model, weights_name=found.weights_name, dtype=found.dtype,
        kv_cache_bits=cache_bits(declaration.kv_cache, found, declaration.engine),
        engine=replace(declaration.engine, settings=settings), assumptions=(), contradictions=(),
    )  # fmt: skip


def _family_of(name: str) -> tuple[Mapping[str, Any] | None, int]:
    """(the family, which of its models this is)."""
    for family in table("model_families")["families"]:
        for place, model in enumerate(family["models"]):
            if _plain(name) in {_plain(model["id"]), *(_plain(each["id"]) for each in model["checkpoints"])}:
                return family, place
    return None, 0


def _plain(name: str) -> str:
    """A repository's name without its owner, as people write it: base models and those for chats stay apart."""
    return name.rstrip("/").rpartition("/")[2].lower().removeprefix("meta-")


def nearest_of(declaration: Declaration, inventory: Inventory, policy: Policy) -> Alternative | None:
    """What would pass here and is nearest to what was declared: for a refusal, so few are judged."""
    started = _start(declaration, inventory, policy)
    if started is None:
        return None
    situation, is_old = started
    return nearest(situation, variants_of(declaration, is_old=is_old), most_judged=MOST_JUDGED_FOR_A_REFUSAL)


MOST_JUDGED_FOR_A_REFUSAL = 6


def _start(declaration: Declaration, inventory: Inventory, policy: Policy) -> tuple[Situation, bool] | None:
    """(what a search starts from, whether no GPU there has bf16); ``None`` where nothing can be known."""
    if declaration.unknown_strategy or declaration.is_partial or not isinstance(declaration.model, ModelArchitecture):
        return None
    if declaration.strategy.load_balancing == "external":  # one rank of a group that others declare
        return None
    situation = look_at(declaration, inventory, policy)
    if situation.stale or situation.nothing_seen:
        return None
    capabilities = [room.product.compute_capability for room in rooms_of(situation)]
    return situation, bool(capabilities) and all(each is not None and each < BF16_FROM for each in capabilities)


def alternatives_of(
    declaration: Declaration, inventory: Inventory, policy: Policy, *, with_smaller: bool = True, quota: Quota | None = None,
    most_judged: int = 16, with_declared: bool = False,
) -> tuple[Alternative, ...]:  # fmt: skip
    """What would verify Sound on this inventory instead, or do better; none where nothing can be known."""
    started = _start(declaration, inventory, policy)
    if started is None:
        return ()
    situation, is_old = started
    variants = list(variants_of(declaration, is_old=is_old, with_smaller=with_smaller))
    return alternatives(situation, variants, quota=quota, most_judged=most_judged, with_declared=with_declared)


def alternative_json(alternative: Alternative, declared: Declaration, performance: Performance | None) -> Json:
    """As the report has it; ``patch`` is a merge patch of the object as written, ``null`` for other kinds than our own.

    ``performance``: of the declaration as it stands.
    """
    declaration, candidate, verdict = alternative.declaration, alternative.candidate, alternative.verdict
    found = candidate.performance
    nodes = sorted({pod.node for pod in verdict.placement.pods}) if verdict.placement is not None else []
    return {
        "change": change_of(alternative, performance),
        "patch": patch_of(alternative, declared),
        "strategy": declaration.strategy.label,
        "weights": declaration.weights_name,
        "model": declaration.model_name,
        "replicas": declaration.replicas,
        "gpus": verdict.required.gpus,
        "nodes": nodes,
        "score": verdict.score,
        "meetsObjectives": candidate.meets_objectives if declared.objectives.any and found is not None else None,
        "requestsPerSecond": None if found is None else ranged(found.capacity),
    }


def patch_of(alternative: Alternative, declared: Declaration) -> Json | None:
    """JSON merge patch."""
    if declared.subject.kind != "InferenceDeployment" or declared.workload is not None:
        return None
    if any(name in ("args", "environment") and value not in ("[]", "{}") for name, value in declared.engine.stated):
        return None  # flags and variables may say again what the patch changes
    declaration, candidate = alternative.declaration, alternative.candidate
    strategy = declaration.strategy
    own, plain = declared.strategy, ParallelStrategy()
    undone = {
        key: None
        for key, name in (
            ("dataLocal", "data_local"),
            ("attentionData", "attention_data"),
            ("expert", "expert"),
            ("loadBalancing", "load_balancing"),
            ("layersPerStage", "layers_per_stage"),
            ("prefillContext", "prefill_context"),
            ("decodeContext", "decode_context"),
        )
        if getattr(own, name) != getattr(plain, name)
    }
    spec: Json = {
        "strategy": {"tensor": strategy.tensor, "pipeline": strategy.pipeline, "data": 1, **undone},
        "replicas": declaration.replicas,
        "gpus": {"perPod": declaration.gpus.per_pod},
    }  # fmt: skip
    if declaration.gpus.products != declared.gpus.products:
        spec["gpus"]["products"] = list(declaration.gpus.products)
    if candidate.variant.nearness is not Nearness.STRATEGY:
        dtype = declaration.dtype if declaration.dtype == "fp16" else None
        spec["model"] = {"name": declaration.model_name, "weights": None, "config": None, "dtype": dtype}
    if declaration.engine.settings.max_model_len != declared.engine.settings.max_model_len:
        spec["engine"] = {"maxModelLen": declaration.engine.settings.max_model_len}
    return {"spec": spec}


def nearest_line(alternative: Alternative) -> str:
    """``Meta-Llama-3-8B-Instruct as awq-int4, TP1 x PP1 x DP1 on a Tesla-T4``: of a refusal."""
    declaration, candidate = alternative.declaration, alternative.candidate
    name = declaration.model_name.rpartition("/")[2]
    replicas = "" if declaration.replicas == 1 else f"{count(declaration.replicas, 'replica')} of "
    gpus = alternative.verdict.required.gpus
    where = f"a {candidate.gpu.product}" if gpus == 1 else f"{gpus} x {candidate.gpu.product}"
    length = f", up to {declaration.engine.settings.max_model_len} tokens" if candidate.is_shortened else ""
    return f"{name} as {declaration.weights_name}, {replicas}{declaration.strategy.label} on {where}{length}"
