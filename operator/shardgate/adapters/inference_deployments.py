"""``InferenceDeployment`` objects -> declarations."""

from collections.abc import Mapping
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
    PodPlacement,
    Strategy,
)
from shardgate.domain.declaration import Declaration, GpuWish, ModelUnknown, PlacementWish, Subject
from shardgate.domain.inventory import Toleration
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
        stated = InferenceDeployment.model_validate({"spec": body.get("spec")})
    except ValidationError as error:
        raise problems_of(error) from None
    metadata = body.get("metadata") or {}
    subject = Subject(
        api_version=API_VERSION, kind=KIND, namespace=metadata.get("namespace") or "default", name=metadata.get("name") or ""
    )
    spec, errors = stated.spec, list[DeclarationError]()
    assumptions, opaque = list[tuple[str, str, str]](), list[str]()
    if spec.workload_ref is not None:
        ref = spec.workload_ref
        opaque.append(f"workloadRef {ref.kind} {ref.name} is not read by this version: only what stands here is judged")
    model_name, config, weights, dtype, kv_cache = _model_fields(spec)
    try:
        model, fields = model_of(model_name, config)
    except ExceptionGroup as problems:
        errors += mistakes_in(problems)
        model, fields = ModelUnknown(problem="", remedy=""), {}
    layout, weights_name, why = layout_of(weights, dtype, fields)
    if layout is None and not isinstance(model, ModelUnknown):
        opaque.append(why)
    elif weights is None and layout is not None:
        assumptions.append(("spec.model.weights", weights_name, f"unset: {why}"))
    engine = engine_of(
        spec.engine.name.value if spec.engine else None,
        spec.engine.version if spec.engine else None,
        spec.engine.memory_utilization if spec.engine else None,
    )
    if engine.known and engine.version is None:
        assumptions.append(("spec.engine.version", "any", "unset: a rule refuses only if every version has it"))
    if engine.known and not engine.utilization_declared:
        shown = f"{engine.utilization_low:g} to {engine.utilization_high:g}"
        assumptions.append(("spec.engine.memoryUtilization", shown, f"unset: {engine.name}'s default over its versions"))
    if spec.placement is not None and spec.placement.scheduler_name != "default-scheduler":
        scheduler = spec.placement.scheduler_name
        assumptions.append(("spec.placement.schedulerName", scheduler, "judged by kube-scheduler's filters; others can only restrict"))
    try:
        placement = _placement(spec.placement or PodPlacement())
    except QuantityError as error:
        errors.append(DeclarationError("spec.placement.requests", str(error)))
        placement = PlacementWish()
    if errors:
        raise group(errors)
    return Declaration(
        subject=subject,
        model_name=model_name,
        model=model,
        weights=layout,
        weights_name=weights_name,
        kv_cache=kv_cache or "auto",
        engine=engine,
        strategy=_strategy(spec.strategy or Strategy()),
        replicas=spec.replicas,
        gpus=_gpus(spec.gpus or Gpus(), body),
        placement=placement,
        opaque=tuple(opaque),
        assumptions=tuple(assumptions),
    )


def _model_fields(
    spec: InferenceDeploymentSpec,
) -> tuple[str, Mapping[str, Any] | None, str | None, str | None, str | None]:
    model = spec.model
    if model is None:
        return "(from workloadRef)", None, None, None, None
    return (
        model.name,
        model.config,
        model.weights.value if model.weights else None,
        model.dtype.value if model.dtype else None,
        model.kv_cache.value if model.kv_cache else None,
    )


def _strategy(stated: Strategy) -> ParallelStrategy:
    return ParallelStrategy(
        tensor=stated.tensor,
        pipeline=stated.pipeline,
        data=stated.data,
        data_local=stated.data_local,
        expert_parallel=stated.expert_parallel,
        expert=stated.expert,
        prefill_context=stated.prefill_context,
        decode_context=stated.decode_context,
        attention_data=stated.attention_data,
        load_balancing=stated.load_balancing.value,
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
    status, metadata = body.get("status") or {}, body.get("metadata") or {}
    required = status.get("required") or {}
    if status.get("observedGeneration") != metadata.get("generation") or not required.get("pods"):
        return None
    return int(required["gpus"]) // int(required["pods"]) or None


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
