"""``InferenceDeployment`` objects -> declarations."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from shardgate.adapters.engines import engine_of
from shardgate.adapters.errors import DeclarationError, group, mistakes_in, problems_of
from shardgate.adapters.gpus import normalised
from shardgate.adapters.models import layout_of, model_of
from shardgate.adapters.quantities import QuantityError, resources
from shardgate.api import API_VERSION
from shardgate.api.inference_deployment import (
    Gpus,
    InferenceDeployment,
    InferenceDeploymentSpec,
    LoadBalancing,
    PodPlacement,
    Strategy,
)
from shardgate.domain.declaration import Declaration, Engine, GpuWish, ModelUnknown, PlacementWish, Subject
from shardgate.domain.inventory import Toleration
from shardgate.domain.model import ModelArchitecture, WeightLayout
from shardgate.domain.strategy import ParallelStrategy

KIND = "InferenceDeployment"
PRODUCT_LABEL = "nvidia.com/gpu.product"


def is_inference_deployment(body: Mapping[str, Any]) -> bool:
    """Whether the object is of our kind, in the version that we read."""
    return body.get("kind") == KIND and body.get("apiVersion") == API_VERSION


def read_inference_deployment(body: Mapping[str, Any]) -> Declaration:
    """The declaration that the object makes.

    Raises an ``ExceptionGroup`` of ``DeclarationError``, all mistakes at once.
    """
    try:
        stated = InferenceDeployment.read(body.get("spec"))
    except ValidationError as error:
        raise problems_of(error) from None
    spec = stated.spec
    reading = _Reading()
    subject = _subject(body, reading)
    model_name, model, layout, weights_name = _read_model(spec, reading)
    engine = _read_engine(spec, reading)
    placement = _read_placement(spec.placement or PodPlacement(), reading)
    if spec.engine is not None and (spec.engine.args or spec.engine.environment):
        unread = " and ".join(name for name in ("args", "environment") if getattr(spec.engine, name))
        reading.opaque.append(f"spec.engine.{unread} is not read by this version, and may bear on shape and memory")
    if spec.workload_ref is not None:
        ref = spec.workload_ref
        reading.opaque.append(f"workloadRef {ref.kind} {ref.name} is not read by this version: only what stands here is judged")
    if reading.errors:
        raise group(reading.errors)
    return Declaration(
        subject=subject,
        model_name=model_name,
        model=model,
        weights=layout,
        weights_name=weights_name,
        kv_cache=spec.model.kv_cache.value if spec.model and spec.model.kv_cache else "auto",
        engine=engine,
        strategy=_strategy(spec.strategy or Strategy()),
        replicas=spec.replicas,
        gpus=_gpus(spec.gpus or Gpus(), body),
        placement=placement,
        opaque=tuple(reading.opaque),
        is_partial=spec.workload_ref is not None,
        assumptions=tuple(reading.assumptions),
    )


@dataclass(slots=True)
class _Reading:
    """What comes up while reading: mistakes, what was filled in, what stays opaque."""

    errors: list[DeclarationError] = field(default_factory=list)
    assumptions: list[tuple[str, str, str]] = field(default_factory=list)
    opaque: list[str] = field(default_factory=list)


def _subject(body: Mapping[str, Any], reading: _Reading) -> Subject:
    metadata = body.get("metadata") or {}
    for name in ("name", "namespace"):
        if not isinstance(metadata.get(name) or "", str):
            reading.errors.append(DeclarationError(f"metadata.{name}", f"needs text, not {metadata[name]!r}"))
    return Subject(
        api_version=API_VERSION, kind=KIND, namespace=metadata.get("namespace") or "default", name=metadata.get("name") or ""
    )


def _read_model(
    spec: InferenceDeploymentSpec, reading: _Reading
) -> tuple[str, ModelArchitecture | ModelUnknown, WeightLayout | None, str]:
    """(name, architecture, layout of the weights, its name)."""
    stated = spec.model
    if stated is None:
        unknown = ModelUnknown(problem="no model is declared here", remedy="name it in spec.model")
        return "(from workloadRef)", unknown, None, ""
    try:
        model, fields = model_of(stated.name, stated.config)
    except ExceptionGroup as problems:
        reading.errors += mistakes_in(problems)
        return stated.name, ModelUnknown(problem="", remedy=""), None, ""
    layout, name, why = layout_of(
        stated.weights.value if stated.weights else None, stated.dtype.value if stated.dtype else None, fields
    )
    if layout is None and not isinstance(model, ModelUnknown):
        reading.opaque.append(why)
    elif layout is not None and stated.weights is None:
        reading.assumptions.append(("spec.model.weights", name, f"unset: {why}"))
    return stated.name, model, layout, name


def _read_engine(spec: InferenceDeploymentSpec, reading: _Reading) -> Engine:
    stated = spec.engine
    if stated is None:
        return engine_of(None, None, None)
    engine = engine_of(stated.name.value, stated.version, stated.memory_utilization)
    settings = stated.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"name", "version", "memory_utilization"})
    engine = replace(engine, settings=tuple((name, json.dumps(value, sort_keys=True)) for name, value in sorted(settings.items())))
    if engine.known and engine.version is None:
        reading.assumptions.append(("spec.engine.version", "any", "unset: a rule refuses only if every version has it"))
    if engine.known and not engine.utilization_declared:
        shown = f"{engine.utilization_low:g} to {engine.utilization_high:g}"
        why = f"unset: {engine.name}'s default over its versions"
        reading.assumptions.append(("spec.engine.memoryUtilization", shown, why))
    return engine


def _read_placement(stated: PodPlacement, reading: _Reading) -> PlacementWish:
    if stated.scheduler_name != "default-scheduler":
        why = "judged by kube-scheduler's filters; others can only restrict"
        reading.assumptions.append(("spec.placement.schedulerName", stated.scheduler_name, why))
    try:
        return _placement(stated)
    except QuantityError as error:
        reading.errors.append(DeclarationError("spec.placement.requests", str(error)))
        return PlacementWish()


def _strategy(stated: Strategy) -> ParallelStrategy:
    return ParallelStrategy(
        tensor=stated.tensor,
        pipeline=stated.pipeline,
        data=stated.data,
        data_local=stated.data_local,
        expert_parallel=bool(stated.expert_parallel),
        expert=stated.expert,
        prefill_context=stated.prefill_context,
        decode_context=stated.decode_context,
        attention_data=bool(stated.attention_data),
        load_balancing=(stated.load_balancing or LoadBalancing.INTERNAL).value,
        layers_per_stage=tuple(stated.layers_per_stage) if stated.layers_per_stage else None,
    )


def _gpus(stated: Gpus, body: Mapping[str, Any]) -> GpuWish:
    return GpuWish(
        resource=stated.resource,
        per_pod=stated.per_pod or _kept_per_pod(body),
        products=tuple(normalised(pattern) for pattern in stated.products or ()),
    )


def _kept_per_pod(body: Mapping[str, Any]) -> int | None:
    """An unset ``perPod`` keeps the value that was chosen first, until the spec changes."""
    status, metadata = body.get("status"), body.get("metadata") or {}
    if not isinstance(status, Mapping):
        return None
    required = status.get("required")
    if not isinstance(required, Mapping) or status.get("observedGeneration") != metadata.get("generation"):
        return None
    gpus, pods = required.get("gpus"), required.get("pods")
    if not isinstance(gpus, int) or not isinstance(pods, int) or pods < 1:
        return None
    return gpus // pods or None


def _placement(stated: PodPlacement) -> PlacementWish:
    selector = dict(stated.node_selector or {})
    unmodelled = [
        f"required {kind}"
        for kind, terms in (stated.affinity or {}).items()
        if isinstance(terms, dict) and terms.get("requiredDuringSchedulingIgnoredDuringExecution")
    ]
    return PlacementWish(
        node_selector=selector,
        tolerations=tuple(
            Toleration(
                key=each.key or "",
                operator=each.operator.value if each.operator else "Equal",
                value=each.value or "",
                effect=each.effect.value if each.effect else "",
            )
            for each in stated.tolerations or ()
        ),
        requests=resources(stated.requests, up=True),
        product=normalised(selector[PRODUCT_LABEL]) if PRODUCT_LABEL in selector else None,
        unmodelled=tuple(unmodelled),
    )
