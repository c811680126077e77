"""Pods that are here before the object that declares them: which of them run what it declares, as far as they tell."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from shardgate.adapters.models.catalogue import Profile, are_same_model
from shardgate.adapters.pods import OWN_KIND, PodObject, PodRecord
from shardgate.adapters.workload_declarations import declare
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.registry import read_workload
from shardgate.adapters.workloads.values import dicts
from shardgate.domain.declaration import Declaration
from shardgate.domain.verdict import Verdict

_WIDTHS = ("tensor", "pipeline", "data", "expert_parallel", "expert", "prefill_context", "decode_context", "attention_data")
_SETTINGS = ("max_model_len", "max_sequences", "max_batched_tokens", "utilization", "kv_cache", "kv_blocks")
_SIXTEEN_BITS = frozenset({"fp16", "bf16"})
_ELSEWHERE: Mapping[str, Mapping[str, Any]] = {"elsewhere": {}}


def runs_of(pod: PodObject) -> str:
    """What the pod's containers with GPUs run, as JSON; one value for pods of one template. Empty where it does not tell."""
    containers = (pod.spec.containers if pod.spec is not None else None) or ()
    with_gpus = [each for each in containers if each.has_gpus]
    if not with_gpus or any(each.envFrom for each in with_gpus):
        return ""
    runs = msgspec.json.encode(
        [
            {
                "name": each.name, "image": each.image, "command": each.command or [], "args": each.args or [],
                "env": [{**one, "valueFrom": _ELSEWHERE} if "valueFrom" in one else one for one in dicts(each.env)],
                "resources": {"requests": each.amounts},
            }
            for each in with_gpus
        ]
    )  # fmt: skip
    return sys.intern(runs.decode())  # kept once, and for as long as one of them is here


def adopted(
    pods: Iterable[tuple[PodRecord, str]], parts: Sequence[tuple[Declaration, Verdict]], profiles: Sequence[Profile] = (),
    stood: Declaration | None = None,
) -> list[PodRecord]:  # fmt: skip
    """Those that may run one of the declarations: they ask for as many GPUs, and none of what they state is another.

    ``stood``: what was declared before. Pods that may be of that say nothing for what is declared now.
    """
    read: dict[str, Declaration | None] = {"": None}
    found: list[PodRecord] = []
    for pod, runs in pods:
        if runs not in read:
            read[runs] = _declared(runs, pod.namespace, profiles)
        theirs = read[runs]
        if any(
            dict(pod.requests).get(declaration.gpus.resource, 0) in _sizes(declaration, verdict)
            and (theirs is None or not _differs(declaration, theirs))
            and (stood is None or (theirs is not None and _runs(declaration, theirs) and _differs(stood, theirs)))
            for declaration, verdict in parts
        ):
            found.append(pod)
    return found


def _sizes(declaration: Declaration, verdict: Verdict) -> tuple[int | None, ...]:
    leader = declaration.gpus.leader
    return (verdict.required.gpus_per_pod, *(() if leader is None else (leader.gpus,)))


def _declared(runs: str, namespace: str, profiles: Sequence[Profile]) -> Declaration | None:
    """What the pod would declare by itself; ``None`` where that cannot be told."""
    metadata: Mapping[str, Any] = {"namespace": namespace, "name": "adopted"}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": msgspec.json.decode(runs)}}
    workload = read_workload(body, Library())
    groups = [] if workload is None else declare(workload, profiles)
    return groups[0].declaration if groups else None


def _runs(declaration: Declaration, theirs: Declaration) -> bool:
    """Whether the model and the widths that a pod states are surely those that are declared, where nothing differs."""
    return not theirs.unknown_strategy and are_same_model(declaration.model_name, theirs.model_name) is True


def _differs(declaration: Declaration, theirs: Declaration) -> bool:
    """Whether what the pod states is surely not what is declared."""
    if theirs.engine.known and declaration.engine.known and theirs.engine.name != declaration.engine.name:
        return True
    if are_same_model(declaration.model_name, theirs.model_name) is False:
        return True
    is_told = not declaration.unknown_strategy and not theirs.unknown_strategy
    if is_told and any(getattr(declaration.strategy, name) != getattr(theirs.strategy, name) for name in _WIDTHS):
        return True
    # The default of what is not stated is as much a statement where both are flags, and all of them were read.
    is_same_text = declaration.subject.kind != OWN_KIND and not declaration.opaque and not theirs.opaque
    pairs = [(getattr(declaration.engine.settings, name), getattr(theirs.engine.settings, name)) for name in _SETTINGS]
    pairs.append((_unless(declaration.kv_cache, "auto"), _unless(theirs.kv_cache, "auto")))
    if any(one != other and (is_same_text or (one is not None and other is not None)) for one, other in pairs):
        return True
    weights = {declaration.weights_name, theirs.weights_name}
    return len(weights) > 1 and "" not in weights and not weights <= _SIXTEEN_BITS


def _unless(stated: str, default: str) -> str | None:
    return None if stated == default else stated
