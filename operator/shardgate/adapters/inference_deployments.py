"""``InferenceDeployment`` objects -> declarations."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from pydantic import ValidationError

from shardgate.adapters.affinity import read_node_affinity, read_pod_terms
from shardgate.adapters.engines.arguments import Arguments, generation_of, read_arguments
from shardgate.adapters.engines.speculation import draft_of
from shardgate.adapters.engines.table import engine_of
from shardgate.adapters.errors import DeclarationError, group, mistakes_in, problems_of
from shardgate.adapters.gpu_resources import vendor_of
from shardgate.adapters.gpus import normalised
from shardgate.adapters.models.catalogue import Found, Profile, Question, are_same_model, find_model
from shardgate.adapters.models.quantization import UNQUANTISED
from shardgate.adapters.pods import DECLARATION_LABEL
from shardgate.adapters.pods import OWN_KIND as KIND
from shardgate.adapters.quantities import QuantityError, resources
from shardgate.api import API_VERSION
from shardgate.api.inference_deployment import (
    Dtype,
    Gpus,
    InferenceDeployment,
    InferenceDeploymentSpec,
    LoadBalancing,
    PodPlacement,
    Strategy,
)
from shardgate.api.inference_deployment import Objectives as StatedObjectives
from shardgate.api.inference_deployment import Traffic as StatedTraffic
from shardgate.domain.declaration import Declaration, GpuWish, ModelUnknown, PlacementWish, Subject
from shardgate.domain.engine import Draft, Engine, Settings
from shardgate.domain.inventory import DEVICE_CLASS_DOMAIN, Owner, Toleration
from shardgate.domain.model import ModelArchitecture
from shardgate.domain.pod_rules import PodRules
from shardgate.domain.selectors import PodTerm
from shardgate.domain.strategy import ParallelStrategy
from shardgate.domain.traffic import Objectives, Traffic

PRODUCT_LABEL = "nvidia.com/gpu.product"


def is_inference_deployment(body: Mapping[str, Any]) -> bool:
    """Whether the object is of our kind, in the version that we read."""
    return body.get("kind") == KIND and body.get("apiVersion") == API_VERSION


def content_of(body: Mapping[str, Any]) -> bytes | None:
    """All that ``read_stated`` reads of the object, as bytes to compare; ``None`` where more is read than the object says.

    That is so with a ``workloadRef``, and for values that JSON cannot carry.
    """
    spec, metadata, status = body.get("spec"), body.get("metadata"), body.get("status")
    if not isinstance(spec, Mapping) or spec.get("workloadRef") is not None or not isinstance(metadata, Mapping):
        return None
    required = status.get("required") if isinstance(status, Mapping) else None
    # A create has no generation yet when it is mutated, and has one when it is validated: it matters beside a status alone.
    kept = None if required is None else [required, (status or {}).get("observedGeneration"), metadata.get("generation")]
    said = [metadata.get("namespace"), metadata.get("name"), spec, kept]
    try:
        return msgspec.json.encode(said)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return None


def read_stated(body: Mapping[str, Any], profiles: Sequence[Profile] = ()) -> tuple[Declaration, InferenceDeploymentSpec]:
    """What the object itself declares, and the spec that says it; ``referred_workloads`` has what ``workloadRef`` adds.

    Raises an ``ExceptionGroup`` of ``DeclarationError``, all mistakes at once.
    """
    try:
        stated = InferenceDeployment.read(body.get("spec"))
    except ValidationError as error:
        raise problems_of(error) from None
    reading = _Reading()
    engine = stated.spec.engine
    arguments = Arguments() if engine is None else read_arguments(engine.name.value, engine.args or [], engine.environment or {})
    subject = _subject(body, reading)
    spec = _with_arguments(stated.spec, arguments, reading)
    return _declaration(spec, arguments, subject, profiles, reading, body), spec


def declaration_of_group(
    spec: Mapping[str, Any], arguments: Arguments, subject: Subject, profiles: Sequence[Profile]
) -> Declaration:
    """The declaration that a serving group of another kind makes: ``spec`` as ours would say it, and its engine's flags.

    Raises an ``ExceptionGroup`` of ``DeclarationError``.
    """
    try:
        stated = InferenceDeployment.read(spec)
    except ValidationError as error:
        raise problems_of(error) from None
    reading = _Reading()
    return _declaration(_with_arguments(stated.spec, arguments, reading), arguments, subject, profiles, reading, {})


def _declaration(
    spec: InferenceDeploymentSpec, arguments: Arguments, subject: Subject, profiles: Sequence[Profile], reading: "_Reading",
    body: Mapping[str, Any],
) -> Declaration:  # fmt: skip
    found = _read_model(spec, arguments.online_layout, profiles, reading)
    engine = _read_engine(spec, arguments, profiles, reading)
    placement = _read_placement(spec.placement or PodPlacement(), subject, reading)
    ref = spec.workload_ref
    _check_vendor(spec, reading)
    if reading.errors:
        raise group(reading.errors)
    kv_cache = spec.model.kv_cache.value if spec.model and spec.model.kv_cache else "auto"
    return Declaration(
        subject=subject,
        model_name=spec.model.name if spec.model else "(from workloadRef)",
        model=found.model,
        weights_name=found.weights_name,
        dtype=found.dtype,
        is_dtype_declared=bool(spec.model and spec.model.dtype and spec.model.dtype is not Dtype.AUTO),
        kv_cache=kv_cache,
        kv_cache_bits=cache_bits(kv_cache, found, engine),
        engine=engine,
        strategy=_strategy(spec.strategy or Strategy()),
        contradictions=tuple(reading.contradictions),
        replicas=spec.replicas,
        gpus=_gpus(spec.gpus or Gpus(), body),
        placement=placement,
        traffic=_traffic(spec.traffic or StatedTraffic()),
        objectives=_objectives(spec.objectives or StatedObjectives()),
        opaque=tuple(reading.opaque),
        is_partial=ref is not None,
        workload=None if ref is None else Owner(subject.namespace, ref.kind, ref.name),
        assumptions=tuple(reading.assumptions),
    )


@dataclass(slots=True)
class _Reading:
    """What comes up while reading: mistakes, what was filled in, what stays opaque."""

    errors: list[DeclarationError] = field(default_factory=list)
    assumptions: list[tuple[str, str, str]] = field(default_factory=list)
    opaque: list[str] = field(default_factory=list)
    contradictions: list[tuple[str, str]] = field(default_factory=list)


_NVIDIA_ALONE = frozenset({"tensorrt-llm", "nim"})
"""Engines that are built on TensorRT or CUDA and run on nothing else."""


def _check_vendor(spec: InferenceDeploymentSpec, reading: _Reading) -> None:
    """The engine runs on the GPUs that are asked for, and they are GPUs."""
    resource = (spec.gpus or Gpus()).resource
    vendor = vendor_of(resource)
    engine = spec.engine.name.value if spec.engine is not None else ""
    if vendor is None and not resource.startswith(f"{DEVICE_CLASS_DOMAIN}/"):
        reading.opaque.append(f"{resource} is no GPU resource that is known here")
    elif engine in _NVIDIA_ALONE and vendor not in ("nvidia", "", None):
        reading.contradictions.append(("spec.gpus.resource", f"{engine} runs on NVIDIA GPUs alone, {resource} is another vendor's"))


def _with_arguments(spec: InferenceDeploymentSpec, arguments: Arguments, reading: _Reading) -> InferenceDeploymentSpec:
    """The spec with what the engine's flags and variables say where it says nothing; both and different contradict."""
    if not (arguments.fields or arguments.settings or arguments.opaque):
        return spec
    reading.opaque += arguments.opaque
    contradictions, assumptions = len(reading.contradictions), len(reading.assumptions)
    told = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for path, value in arguments.fields.items():
        part, name = path.split(".", 1)
        at = told.setdefault(part, {}) or {}
        told[part] = at
        if at.get(name) in (None, "auto"):  # what is left to the engine is what its flags say
            at[name] = value
        elif at[name] == value or value == "auto":
            continue
        elif path == "model.name" and (is_same := are_same_model(at[name], value)) is not False:
            if is_same is None:
                reading.assumptions.append(("spec.model.name", at[name], f"{value} by {arguments.spelled[path]} is taken for it"))
        else:
            reading.contradictions.append((f"spec.{path}", f"{at[name]} here, {value} by {arguments.spelled[path]} in spec.engine"))
    strategy = told.setdefault("strategy", {}) or {}
    if arguments.settings.get("expert_backend", "none") != "none" and strategy.get("expert") is None:
        told["strategy"] = {**strategy, "expert": strategy.get("tensor", 1)}  # SGLang: these backends set it to the tensor width
    try:
        return InferenceDeployment.read({**told}).spec
    except ValidationError as error:
        problems = problems_of(error)
        by_path = {f"spec.{path}": path for path in arguments.fields}
        unknown = {by_path[each.where]: each for each in mistakes_in(problems) if each.is_unknown and each.where in by_path}
        if len(unknown) < len(problems.exceptions):
            raise problems from None
        # What stands here was read: a value of a flag that is no value of ours makes nothing of it a newer version's.
        fields = {path: value for path, value in arguments.fields.items() if path not in unknown}
        named = [f"{arguments.spelled.get(path, path)}: {each.problem}" for path, each in unknown.items()]
        del reading.contradictions[contradictions:], reading.assumptions[assumptions:]
        return _with_arguments(spec, replace(arguments, fields=fields, opaque=named), reading)


def _subject(body: Mapping[str, Any], reading: _Reading) -> Subject:
    metadata = body.get("metadata") or {}
    for name in ("name", "namespace"):
        if not isinstance(metadata.get(name) or "", str):
            reading.errors.append(DeclarationError(f"metadata.{name}", f"needs text, not {metadata[name]!r}"))
    return Subject(
        api_version=API_VERSION, kind=KIND, namespace=metadata.get("namespace") or "default", name=metadata.get("name") or ""
    )


def _read_model(spec: InferenceDeploymentSpec, online_layout: str | None, profiles: Sequence[Profile], reading: _Reading) -> Found:
    stated = spec.model
    if stated is None:
        return Found(model=ModelUnknown(problem="no model is declared here", remedy="name it in spec.model"))
    asked = Question(
        name=stated.name,
        config=stated.config,
        weights=stated.weights.value if stated.weights else None,
        dtype=stated.dtype.value if stated.dtype else None,
        online_layout=online_layout,
    )
    try:
        found = find_model(asked, profiles)
    except ExceptionGroup as problems:
        reading.errors += mistakes_in(problems)
        return Found(model=ModelUnknown(problem="", remedy=""))
    reading.assumptions += found.assumptions
    reading.opaque += found.opaque
    return found


_CACHES_AS_CHECKPOINT = "tensorrt-llm"
"""Engine whose "auto" follows what a checkpoint says of the KV cache; the others' is the model's own type."""


def cache_bits(declared: str, found: Found, engine: Engine) -> int:
    """Bits of one element of the KV cache: as declared, as the checkpoint says, or the model's own."""
    if declared == "fp8":
        return 8
    if declared in ("fp16", "bf16"):
        return 16
    if engine.name == _CACHES_AS_CHECKPOINT and found.kv_cache_bits is not None:
        return found.kv_cache_bits
    return UNQUANTISED[found.dtype]


def _read_engine(spec: InferenceDeploymentSpec, arguments: Arguments, profiles: Sequence[Profile], reading: _Reading) -> Engine:
    stated = spec.engine
    if stated is None:
        return engine_of(None, None)[0]
    environment = stated.environment or {}
    engine, understood = engine_of(stated.name.value, stated.version, generation_of(environment))
    told = stated.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"name", "version"})
    settings = Settings(
        max_model_len=stated.max_model_len,
        max_sequences=stated.max_sequences,
        max_batched_tokens=stated.max_batched_tokens,
        utilization=stated.memory_utilization,
        enforce_eager=bool(stated.enforce_eager),
    )
    engine = replace(
        engine,
        settings=replace(arguments.over(settings), draft=_read_draft(arguments, profiles)),
        stated=tuple((name, json.dumps(value, sort_keys=True)) for name, value in sorted(told.items())),
    )
    if not understood:
        why = f"{stated.version} is no version that was understood: it could be any"
        reading.assumptions.append(("spec.engine.version", "any", why))
    elif engine.known and engine.version is None:
        newest = f", figures are those of {engine.memory[0].versions}" if engine.memory else ""
        reading.assumptions.append(("spec.engine.version", "any", f"unset: a rule refuses only if every version has it{newest}"))
    if engine.memory and settings.utilization is None:
        rules = engine.memory[0]
        low, high = rules.utilization_low, rules.utilization_high
        shown = "by its own formula" if rules.reserve else f"{low:g}" if low == high else f"{low:g} to {high:g}"
        reading.assumptions.append(("spec.engine.memoryUtilization", shown, f"unset: the default of {rules.versions}"))
    return engine


def _read_draft(arguments: Arguments, profiles: Sequence[Profile]) -> Draft | None:
    said = arguments.settings

    def find(name: str) -> ModelArchitecture | None:
        try:
            found = find_model(Question(name=name, config=None, weights=None, dtype=None), profiles).model
        except ExceptionGroup:
            return None
        return found if isinstance(found, ModelArchitecture) else None

    return draft_of(said.get("speculation"), said.get("speculative_algorithm", ""), said.get("speculative_model", ""), find)


def _read_placement(stated: PodPlacement, subject: Subject, reading: _Reading) -> PlacementWish:
    if stated.scheduler_name != "default-scheduler":
        why = "judged by kube-scheduler's filters; others can only restrict"
        reading.assumptions.append(("spec.placement.schedulerName", stated.scheduler_name, why))
    try:
        return _placement(stated, subject)
    except QuantityError as error:
        reading.errors.append(DeclarationError("spec.placement.requests", str(error)))
        return PlacementWish()
    except ExceptionGroup as problems:
        reading.errors += mistakes_in(problems)
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


def _traffic(stated: StatedTraffic) -> Traffic:
    return Traffic(
        prompt_tokens=stated.prompt_tokens,
        output_tokens=stated.output_tokens,
        concurrency=stated.concurrency,
        micro_batches=stated.micro_batches,
    )


def _objectives(stated: StatedObjectives) -> Objectives:
    first, each, busy = (
        stated.time_to_first_token_milliseconds, stated.time_per_output_token_milliseconds, stated.gpu_utilization_percent,
    )  # fmt: skip
    return Objectives(
        requests_per_second=stated.requests_per_second,
        time_to_first_token_seconds=None if first is None else first / 1000,
        time_per_output_token_seconds=None if each is None else each / 1000,
        gpu_utilization=None if busy is None else busy / 100,
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


def _keys(term: PodTerm) -> set[str]:
    return {each.key for each in term.expressions or ()}


def _pod_rules(affinity: Mapping[str, Any], subject: Subject) -> tuple[PodRules, tuple[str, ...]]:
    """(rules between pods, what of them is not modelled).

    Of the pods' own labels only the one that their use of the declaration demands is known: whether a term on others
    selects them is not.
    """
    labels = {DECLARATION_LABEL: subject.name}
    terms: dict[str, tuple[PodTerm, ...]] = {}
    unmodelled = []
    for kind in ("podAffinity", "podAntiAffinity"):
        read = read_pod_terms(affinity, kind, subject.namespace, "spec.placement.affinity")
        unknown = {key for term in read.terms for key in _keys(term)} - set(labels)
        if unknown or not read.is_complete:
            about = f" on {', '.join(sorted(unknown))}" if unknown else " with label keys"
            unmodelled.append(f"required {kind}{about}")
        # An affinity that may be for these very pods is left out; an anti-affinity keeps them from others at least.
        terms[kind] = tuple(term for term in read.terms if kind == "podAntiAffinity" or _keys(term) <= set(labels))
    rules = PodRules(
        namespace=subject.namespace,
        labels=labels,
        owners=frozenset({subject.owner}),
        affinity=terms["podAffinity"],
        anti_affinity=terms["podAntiAffinity"],
    )
    return rules, tuple(unmodelled)


def _placement(stated: PodPlacement, subject: Subject) -> PlacementWish:
    selector = dict(stated.node_selector or {})
    requests = resources(stated.requests, up=True)
    rules, unmodelled = _pod_rules(stated.affinity or {}, subject)
    return PlacementWish(
        node_selector=selector,
        node_terms=read_node_affinity(stated.affinity or {}, "spec.placement.affinity"),
        tolerations=tuple(
            Toleration(
                key=each.key or "",
                operator=each.operator.value if each.operator else "Equal",
                value=each.value or "",
                effect=each.effect.value if each.effect else "",
            )
            for each in stated.tolerations or ()
        ),
        requests=requests,
        unstated={name: 1 for name in ("cpu", "memory") if name not in requests},
        priority_class=stated.priority_class_name or "",
        scheduler=stated.scheduler_name,
        rules=rules,
        product=normalised(selector[PRODUCT_LABEL]) if PRODUCT_LABEL in selector else None,
        unmodelled=unmodelled,
    )
