"""Workloads -> the document of ``shardgate extract``. What is not known is null, never a guess."""

from typing import Any

from shardgate.adapters.workloads.extraction import ServingGroup, Workload
from shardgate.domain.declaration import Declaration, Subject

Json = dict[str, Any]

_STRATEGY = (
    "tensor", "pipeline", "data", "dataLocal", "expertParallel", "expert", "prefillContext", "decodeContext", "attentionData",
    "loadBalancing",
)  # fmt: skip


def extract(workload: Workload) -> Json:
    """One workload: its serving groups, and what in it could not be read."""
    return {
        "subject": subject_of(workload.subject),
        "groups": [_group(each) for each in workload.groups],
        "opaque": [
            {"where": each.where, "why": each.why}
            for each in (*workload.opaque, *(what for group in workload.groups for what in group.opaque))
        ],
    }  # fmt: skip


def subject_of(subject: Subject) -> Json:
    """The object that declares."""
    return {
        "apiVersion": subject.api_version, "kind": subject.kind, "namespace": subject.namespace, "name": subject.name,
    }  # fmt: skip


def extract_own(declaration: Declaration) -> Json:
    """The same of our own kind."""
    strategy, settings = declaration.strategy, declaration.engine.settings
    per_pod = declaration.gpus.per_pod
    world = strategy.ranks_per_replica
    pods = None if per_pod is None else -(-world // per_pod)
    gpus = None if pods is None or per_pod is None else pods * per_pod
    group: Json = {
        "role": "server",
        "engine": declaration.engine.name or None,
        "engineVersion": str(declaration.engine.version) if declaration.engine.version is not None else None,
        "model": declaration.model_name,
        "modelAlso": [],
        "weights": declaration.weights_name or None,
        "kvCache": declaration.kv_cache,
        "maxModelLen": settings.max_model_len,
        "maxSequences": settings.max_sequences,
        "memoryUtilization": settings.utilization,
        "replicas": declaration.replicas,
        "strategy": {
            "tensor": strategy.tensor, "pipeline": strategy.pipeline, "data": strategy.data, "dataLocal": strategy.data_local,
            "expertParallel": strategy.expert_parallel, "expert": strategy.expert, "prefillContext": strategy.prefill_context,
            "decodeContext": strategy.decode_context, "attentionData": strategy.attention_data,
            "loadBalancing": strategy.load_balancing,
        },
        "podsPerReplica": pods,
        "gpusPerPod": {"server": per_pod},
        "gpusPerReplica": gpus,
        "worldSize": world,
        "gpuResource": declaration.gpus.resource,
        "dtype": declaration.dtype,
        "quantization": None,
        "nodeSelector": dict(declaration.placement.node_selector),
        "mismatch": None if gpus in (None, world) else "world_lt_gpus",
        "explicit": [],
    }  # fmt: skip
    opaque = [{"where": "spec", "why": why} for why in declaration.opaque]
    return {"subject": subject_of(declaration.subject), "groups": [group], "opaque": opaque}


def _group(group: ServingGroup) -> Json:
    return {
        "role": group.role,
        "engine": group.engine,
        "engineVersion": group.engine_version or None,
        "model": group.model,
        "modelAlso": list(group.model_also),
        "weights": None,
        "kvCache": group.text("model.kvCache"),
        "maxModelLen": group.stated("engine.maxModelLen"),
        "maxSequences": group.stated("engine.maxSequences"),
        "memoryUtilization": group.stated("engine.memoryUtilization"),
        "replicas": group.replicas,
        "strategy": {name: group.width(name) for name in _STRATEGY},
        "podsPerReplica": group.pods_per_replica,
        "gpusPerPod": {each.role: each.gpus for each in group.pods},
        "gpusPerReplica": group.gpus_per_replica,
        "worldSize": group.world_size,
        "gpuResource": group.gpu_resource,
        "dtype": group.text("model.dtype"),
        "quantization": group.text("setting.quantization") or group.text("setting.quantize"),
        "nodeSelector": group.node_selector,
        "mismatch": group.mismatch,
        "explicit": sorted(group.explicit),
    }
