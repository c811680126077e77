"""A workload's serving groups -> declarations, as far as the object tells; what it does not tell is opaque, never 1."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.inference_deployments import declaration_of_group
from shardgate.adapters.models.catalogue import Profile, Question, find_model
from shardgate.adapters.pod_templates import PodTemplate, read_pod_template
from shardgate.adapters.pods import DECLARATION_LABEL, OWN_KIND, promised_to
from shardgate.adapters.workloads.extraction import PodGroup, ServingGroup, Workload
from shardgate.adapters.workloads.values import mapping
from shardgate.domain.declaration import Declaration, GpuWish, LeaderWish, ModelUnknown, PlacementWish
from shardgate.domain.inventory import DEVICE_CLASS_DOMAIN, Owner
from shardgate.domain.model import ModelArchitecture

_WIDTHS = ("tensor", "pipeline", "data")
_STATED = ("dataLocal", "expertParallel", "expert", "prefillContext", "decodeContext", "attentionData", "loadBalancing")
_ENGINES = frozenset({"vllm", "sglang", "tensorrt-llm", "lmdeploy", "tgi", "nim"})
_CLAIMED = "dra:"
_HALVES = frozenset({"prefill", "decode", "encode", "processor", "cache"})
"""Roles that serve a part of each request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDeclaration:
    """One group: its role, and what it declares; or why nothing can be judged of it."""

    role: str
    where: str
    declaration: Declaration | None
    problem: str = ""
    model: ModelArchitecture | ModelUnknown | None = None
    """As it was found, also where an unknown strategy leaves it unjudged."""


def declare(workload: Workload, profiles: Sequence[Profile] = (), *, rolls_out: bool = False) -> list[GroupDeclaration]:
    """A declaration for each group that asks for GPUs. ``rolls_out``: its pods are replaced by an update."""
    found = [_declared(workload, group, profiles) for group in workload.groups if not group.is_on_cpu]
    if not rolls_out:
        return found
    surges = [group.surge for group in workload.groups if not group.is_on_cpu]
    return [
        replace(each, declaration=replace(each.declaration, surge=surge)) if each.declaration is not None else each
        for each, surge in zip(found, surges, strict=True)
    ]


def _declared(workload: Workload, group: ServingGroup, profiles: Sequence[Profile]) -> GroupDeclaration:
    with_gpus = [each for each in group.pods if each.gpus]
    if not with_gpus or any(each.count is None or each.count < 1 for each in with_gpus):
        problem = f"how many GPUs its pods ask for, or how many pods there are, is not stated here{_why(group)}"
        return GroupDeclaration(role=group.role, where=group.where, declaration=None, problem=problem)
    try:
        declaration, model = _declaration(workload, group, with_gpus, profiles)
    except ExceptionGroup as problems:
        told = "; ".join(str(each) for each in mistakes_in(problems))
        return GroupDeclaration(role=group.role, where=group.where, declaration=None, problem=told)
    if group.role in _HALVES:  # a request's other half is served elsewhere: no figures of whole requests hold
        declaration = replace(declaration, engine=replace(declaration.engine, pace=None))
    return GroupDeclaration(role=group.role, where=group.where, declaration=declaration, model=model)


def _why(group: ServingGroup) -> str:
    """Of a group whose GPUs are not known: what it refers to that is not here."""
    missing = [each.why for each in group.opaque if each.why.endswith("is not here")]
    missing += [group.hidden] if group.hidden and not missing else []
    if (group.gpu_resource or "").startswith(_CLAIMED) and all(each.gpus is None for each in group.pods):
        missing.append(f"claim {str(group.gpu_resource).removeprefix(_CLAIMED)} is not here, or states no number")
    return f" ({'; '.join(dict.fromkeys(missing))})" if missing else ""


def _declaration(
    workload: Workload, group: ServingGroup, pods: list[PodGroup], profiles: Sequence[Profile]
) -> tuple[Declaration, ModelArchitecture | ModelUnknown]:
    """What the group declares, and its model as it was found."""
    subject = workload.subject
    owners = frozenset({subject.owner})
    templates = [read_pod_template(each.template, subject.namespace, group.where, owners) for each in pods]
    unknown = _unknown_strategy(group)
    strategy = {name: 1 if unknown else group.width(name) for name in _WIDTHS}
    if not unknown:
        strategy |= {name: group.width(name) for name in _STATED if group.width(name) is not None}
    spec = {
        "model": {"name": _model_name(group, profiles) or "(not stated)"},
        "engine": {
            "name": group.engine if group.engine in _ENGINES else "other",
            **({"version": group.engine_version} if group.engine_version else {}),
            "environment": {name: str(value) for name, value in group.environment.items() if name.startswith(_BEARING)},
        },
        "strategy": strategy,
        "replicas": 1 if group.replicas is None else group.replicas,
    }
    declared = declaration_of_group(spec, replace(group.arguments, fields=_fields(group)), subject, profiles)
    opaque = tuple(f"{each.where}: {each.why}" for each in group.opaque if each.why not in group.arguments.opaque)
    if unknown and not opaque and not any(each in unknown for each in declared.opaque):
        opaque = (f"{group.where}: {unknown}",)
    if group.replicas is None:
        opaque = (*opaque, f"{group.where}: how many replicas is not stated here; one is judged")
    found = replace(
        declared,
        gpus=_gpus(group, pods, templates),
        placement=replace(_placement(templates), is_added_to=True),
        opaque=tuple(dict.fromkeys((*declared.opaque, *opaque))),
        unknown_strategy=unknown,
        replicas_maximum=group.replicas_maximum,
        is_queued=workload.is_queued,
        grant=workload.grant,
        makes=_declared_by(pods, subject.namespace),
        model=ModelUnknown(problem=f"not judged: {unknown}", remedy="") if unknown else declared.model,
        engine=replace(declared.engine, settings=replace(declared.engine.settings, executor="", nodes=None)),
    )
    return found, declared.model


_BEARING = ("VLLM_", "SGLANG_", "TRTLLM_", "NIM_")


def _fields(group: ServingGroup) -> dict[str, Any]:
    """What flags say of other things than model and strategy, which the spec has already."""
    return {path: value for path, value in group.arguments.fields.items() if not path.startswith(("strategy.", "model.name"))}


def _unknown_strategy(group: ServingGroup) -> str:
    """Why a width is not known; empty where all are."""
    missing = [name for name in _WIDTHS if group.width(name) is None]
    if not missing:
        return ""
    if group.engine == "tgi" and group.world_size:
        group.arguments.fields["strategy.tensor"] = group.world_size  # it takes the GPUs that it sees
        return _unknown_strategy(group) if missing != ["tensor"] else ""
    why = (
        group.hidden
        or group.arguments.more
        or next(
            (group.arguments.unknown[f"strategy.{name}"] for name in missing if f"strategy.{name}" in group.arguments.unknown), ""
        )
    )
    return f"the {' and '.join(missing)} width of {group.engine or 'the engine'} is not known" + (f" ({why})" if why else "")


def _declared_by(pods: list[PodGroup], namespace: str) -> tuple[Owner, ...]:
    """What is promised to InferenceDeployments that the pods are labelled with: it is promised to these pods.

    Pods of theirs that are there already are not its own for that: anybody may write the label.
    """
    labels = (mapping(mapping(each.template.get("metadata")).get("labels")).get(DECLARATION_LABEL) for each in pods)
    return tuple(dict.fromkeys(promised_to(Owner(namespace, OWN_KIND, str(name))) for name in labels if name))


def _model_name(group: ServingGroup, profiles: Sequence[Profile]) -> str:
    """Of the names that stand here, one that is known; else the first."""
    names = [name.removeprefix("hf://") for name in (group.model, *group.model_also) if name]
    for name in names:
        try:
            found = find_model(Question(name=name, config=None, weights=None, dtype=None), profiles).model
        except ExceptionGroup:
            continue
        if isinstance(found, ModelArchitecture):
            return name
    return names[0] if names else ""


def _gpus(group: ServingGroup, pods: list[PodGroup], templates: list[PodTemplate]) -> GpuWish:
    resource = group.gpu_resource or ""
    if resource.startswith(_CLAIMED):
        resource = f"{DEVICE_CLASS_DOMAIN}/{resource.removeprefix(_CLAIMED)}"
    first, rest = pods[0], pods[-1]
    total = sum(each.count or 0 for each in pods)
    alike = len(pods) == 1 or (first.gpus == rest.gpus and templates[0].wish.requests == templates[-1].wish.requests)
    if alike or first.count != 1:
        return GpuWish(resource=resource, per_pod=first.gpus, pods_per_replica=total)
    leader = LeaderWish(gpus=first.gpus or 0, requests=templates[0].wish.requests)
    return GpuWish(resource=resource, per_pod=rest.gpus, pods_per_replica=total, leader=leader)


def _placement(templates: list[PodTemplate]) -> PlacementWish:
    """Of the workers; where the leader's wishes are others, that is said."""
    wish = templates[-1].wish
    differs = any(
        (each.wish.node_selector, each.wish.node_terms, each.wish.tolerations)
        != (wish.node_selector, wish.node_terms, wish.tolerations)
        for each in templates
    )
    return replace(wish, unmodelled=(*wish.unmodelled, "the leader's own selector or tolerations")) if differs else wish
