"""``workloadRef``: an InferenceDeployment that is about another object reads from that what it does not say itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from shardgate.adapters.engines.versions import span_of
from shardgate.adapters.inference_deployments import read_stated
from shardgate.adapters.models.catalogue import Profile, are_same_model
from shardgate.adapters.workload_declarations import GroupDeclaration, declare
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.registry import read_workload
from shardgate.api.fields import ApiModel
from shardgate.api.inference_deployment import InferenceDeploymentSpec
from shardgate.domain.declaration import Declaration, GpuWish, PlacementWish
from shardgate.domain.engine import Engine, Settings
from shardgate.domain.strategy import ParallelStrategy

FindGroups = Callable[[str, str, str, str], Sequence[GroupDeclaration] | None]
"""API version, kind, namespace and name of a workload -> what it declares; ``None`` where it is not here."""
Contradictions = list[tuple[str, str]]

_OF_THE_MODEL = ("model_name", "model", "weights_name", "dtype", "is_dtype_declared", "kv_cache", "kv_cache_bits")


def read_declaration(body: Mapping[str, Any], profiles: Sequence[Profile] = (), find: FindGroups = lambda *_: None) -> Declaration:
    """What an InferenceDeployment declares, the workload that it names included; ``find`` gives what that one declares.

    Raises an ``ExceptionGroup`` of ``DeclarationError``.
    """
    own, stated = read_stated(body, profiles)
    reference = stated.workload_ref
    if reference is None:
        return own
    return joined(own, stated, find(reference.api_version, reference.kind, own.subject.namespace, reference.name))


def groups_in(library: Library, profiles: Sequence[Profile] = ()) -> FindGroups:
    """Workloads are looked for among these objects."""

    def find(api_version: str, kind: str, namespace: str, name: str) -> Sequence[GroupDeclaration] | None:
        body = library.find(kind, name, namespace)
        group = str((body or {}).get("apiVersion") or api_version).rpartition("/")[0]
        workload = None if body is None or group != api_version.rpartition("/")[0] else read_workload(body, library)
        return None if workload is None else declare(workload, profiles)

    return find


def joined(own: Declaration, stated: InferenceDeploymentSpec, groups: Sequence[GroupDeclaration] | None) -> Declaration:
    """The declaration with what its workload says; both and different contradict.

    ``groups``: what the workload declares; ``None`` where it is not here. It is judged when it comes.
    """
    reference = stated.workload_ref
    if reference is None:
        return own
    label = f"{reference.kind} {reference.name}"
    if groups is None:
        return _partial(own, f"workloadRef {label} is not here, or serves nothing that is read")
    if len(groups) != 1:
        return _partial(own, f"workloadRef {label} has {len(groups)} serving groups, and a declaration is about one")
    theirs = groups[0].declaration
    if theirs is None:
        return _partial(own, f"workloadRef {label}: {groups[0].problem}")
    found: Contradictions = []
    told = set(_told(stated.strategy)) if stated.strategy is not None else set()
    is_told = bool(theirs.unknown_strategy) and not told.isdisjoint(_WIDTHS)
    if is_told and groups[0].model is not None:
        theirs = replace(theirs, model=groups[0].model, unknown_strategy="")
    joint = _with_model(own, stated, theirs, label, found)
    return replace(
        joint,
        engine=_engine(own.engine, theirs.engine, stated, label, found),
        strategy=own.strategy if is_told else _with_strategy(own, stated, theirs, label, found),
        replicas=_replicas(stated, theirs, label, found),
        gpus=_with_gpus(own, stated, theirs, label, found),
        placement=_with_placement(stated, theirs, label, found),
        unknown_strategy=theirs.unknown_strategy,
        opaque=(*own.opaque, *theirs.opaque),
        contradictions=(*own.contradictions, *theirs.contradictions),
        disagreements=tuple(found),
        assumptions=tuple(dict.fromkeys((*own.assumptions, *theirs.assumptions))),
        replicas_maximum=theirs.replicas_maximum,
        is_queued=theirs.is_queued,
        grant=theirs.grant,
        makes=theirs.makes,
        is_partial=False,
    )


_WIDTHS = ("tensor", "pipeline", "data")


def _partial(own: Declaration, why: str) -> Declaration:
    return replace(own, opaque=(*own.opaque, f"{why}: only what stands here is judged"), is_partial=True)


def _told(part: ApiModel) -> list[str]:
    """Fields that a person has stated: the API server writes defaults into an object, so what equals one is not told apart."""
    fields_of = type(part).model_fields
    return [name for name in fields_of if getattr(part, name) not in (None, fields_of[name].default)]


def _differs(where: str, here: object, there: object, label: str, found: Contradictions) -> None:
    if here != there:
        found.append((where, f"{here} here, {there} in {label}"))


def _with_model(
    own: Declaration, stated: InferenceDeploymentSpec, theirs: Declaration, label: str, found: Contradictions
) -> Declaration:
    said = stated.model
    of_theirs: dict[str, Any] = {name: getattr(theirs, name) for name in _OF_THE_MODEL}
    if said is None:
        return replace(own, **of_theirs)
    same = are_same_model(own.model_name, theirs.model_name)
    if same is False:
        _differs("spec.model.name", own.model_name, theirs.model_name, label, found)
    elif own.weights_name and theirs.weights_name and said.weights is not None:
        _differs("spec.model.weights", own.weights_name, theirs.weights_name, label, found)
    if same and not said.model_fields_set - {"name"}:
        return replace(own, **of_theirs)  # their flags may say more of it: its type, its quantisation
    if theirs.kv_cache != "auto":
        if own.kv_cache == "auto":
            return replace(own, kv_cache=theirs.kv_cache, kv_cache_bits=theirs.kv_cache_bits)
        _differs("spec.model.kvCache", own.kv_cache, theirs.kv_cache, label, found)
    return own


def _engine(own: Engine, theirs: Engine, stated: InferenceDeploymentSpec, label: str, found: Contradictions) -> Engine:
    said = stated.engine
    if said is None:
        return theirs
    if own.name != theirs.name:
        _differs("spec.engine.name", own.name, theirs.name or "none that is known", label, found)
        return own
    if own.version and theirs.version and not _may_be_one(own.version, theirs.version):
        _differs("spec.engine.version", own.version, theirs.version, label, found)
    base = own if own.version and not theirs.version else theirs
    values: dict[str, Any] = {}
    default = Settings()
    for each in fields(Settings):
        here, there, unset = (getattr(settings, each.name) for settings in (own.settings, theirs.settings, default))
        values[each.name] = there if here == unset else here
        if unset not in (here, there):
            _differs(f"spec.engine ({each.name.replace('_', ' ')})", here, there, label, found)
    return replace(base, settings=Settings(**values), stated=tuple(dict.fromkeys((*own.stated, *theirs.stated))))


def _may_be_one(here: str, there: str) -> bool:
    """Whether two versions agree as far as both are told: 0.19, v0.19.0 and 0.19.x do."""
    spans = [span_of(each, "1") for each in (here, there)]
    if not all(understood for _, understood in spans):
        return True
    (one, _), (other, _) = spans
    short = min(len(one.low), len(other.low))
    return one.low[:short] == other.low[:short]


def _with_strategy(
    own: Declaration, stated: InferenceDeploymentSpec, theirs: Declaration, label: str, found: Contradictions
) -> ParallelStrategy:
    said = stated.strategy
    if said is None:
        return theirs.strategy
    told = _told(said)
    for name in told:
        there = getattr(theirs.strategy, name)
        if there is not None:
            alias = type(said).model_fields[name].alias or name
            _differs(f"spec.strategy.{alias}", getattr(own.strategy, name), there, label, found)
    return replace(theirs.strategy, **{name: getattr(own.strategy, name) for name in told})


def _replicas(stated: InferenceDeploymentSpec, theirs: Declaration, label: str, found: Contradictions) -> int:
    if "replicas" not in _told(stated):
        return theirs.replicas
    _differs("spec.replicas", stated.replicas, theirs.replicas, label, found)
    return stated.replicas


def _with_gpus(
    own: Declaration, stated: InferenceDeploymentSpec, theirs: Declaration, label: str, found: Contradictions
) -> GpuWish:
    said = stated.gpus
    if said is None:
        return theirs.gpus
    if said.per_pod is not None:
        _differs("spec.gpus.perPod", said.per_pod, theirs.gpus.per_pod, label, found)
    if "resource" in _told(said):
        _differs("spec.gpus.resource", own.gpus.resource, theirs.gpus.resource, label, found)
    return replace(theirs.gpus, products=own.gpus.products)


def _with_placement(stated: InferenceDeploymentSpec, theirs: Declaration, label: str, found: Contradictions) -> PlacementWish:
    """Theirs: it is their pods that the scheduler sees. A label or a class that both ask for and differently is said."""
    said = stated.placement
    if said is not None:
        for key, value in (said.node_selector or {}).items():
            there = theirs.placement.node_selector.get(key)
            if there is not None:
                _differs(f"spec.placement.nodeSelector[{key}]", value, there, label, found)
        if said.priority_class_name and theirs.placement.priority_class:
            _differs("spec.placement.priorityClassName", said.priority_class_name, theirs.placement.priority_class, label, found)
    return theirs.placement
