"""A pod template of any kind -> a serving group: the engine's container, its flags, the GPUs, where it may go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shardgate.adapters.engines.arguments import read_arguments
from shardgate.adapters.gpu_resources import is_accelerator
from shardgate.adapters.quantities import QuantityError, resources
from shardgate.adapters.unknown import Unknown
from shardgate.adapters.workloads.containers import started
from shardgate.adapters.workloads.engine_process import EngineProcess, engine_of_image, engine_process
from shardgate.adapters.workloads.extraction import DECODE, PREFILL, SERVER, Opaque, PodGroup, ServingGroup
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.values import dicts, mapping, value_of, whole, words

Json = Mapping[str, Any]

NAMES = {
    "strategy.tensor": "tensor",
    "strategy.pipeline": "pipeline",
    "strategy.data": "data",
    "strategy.dataLocal": "dataLocal",
    "strategy.expert": "expert",
    "strategy.expertParallel": "expert",
    "model.name": "model",
    "model.dtype": "dtype",
    "model.kvCache": "kvCache",
    "setting.quantization": "quantization",
    "setting.quantize": "quantization",
    "engine.memoryUtilization": "memoryUtilization",
    "engine.maxModelLen": "maxModelLen",
    "engine.maxSequences": "maxSequences",
}
"""Field -> its name in what is extracted."""
_UNTOLD_LABELS = (
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
)
_UNTOLD_PARTS = ("spot", "capacity-type", "preemptible")
_ROLE_OF_MODE = {"prefill": PREFILL, "context": PREFILL, "decode": DECODE, "generation": DECODE, "encode": "encode"}
_ROLE_OF_FLAG = {"--is-prefill-worker": PREFILL, "--is-decode-worker": DECODE}
_ROLE_OF_TRANSFER = {"kv_producer": PREFILL, "kv_consumer": DECODE}
_ROLE_LABELS = ("llm-d.ai/role", "llm-d.ai/inference-role", "role")


@dataclass(frozen=True, slots=True)
class Found:
    """The container of a pod that starts an engine."""

    container: Json
    process: EngineProcess


@dataclass(slots=True)
class Reading:
    """What reading a workload needs besides its object."""

    library: Library
    namespace: str
    given: dict[str, str] = field(default_factory=dict)
    """Variables that the workload's controller sets in every container."""


def find_engine(spec: Json, reading: Reading, *, by_program: bool = False) -> Found | None:
    """The container that starts an engine; of several, one with GPUs. ``by_program``: an image alone tells none."""
    found: list[Found] = []
    for container in dicts(spec.get("containers")):
        if by_program and not container.get("command") and not container.get("args"):
            continue
        ran = started(container, spec, reading.library, reading.namespace, reading.given)
        process = engine_process(ran, str(container.get("image") or ""))
        if process is not None:
            found.append(Found(container, process))
    with_gpus = [each for each in found if gpus_of(each.container)]
    return next(iter(with_gpus or found), None)


def gpus_of(container: Json) -> dict[str, int]:
    """GPU resource -> units, by limits and requests."""
    stated = mapping(container.get("resources"))
    devices = {
        str(name).strip(): amount
        for name, amount in {**mapping(stated.get("requests")), **mapping(stated.get("limits"))}.items()
        if isinstance(amount, (str, int, float)) and is_accelerator(str(name).strip())
    }
    try:
        return resources(devices, up=True)
    except QuantityError:
        return {}


def pod_gpus(spec: Json, reading: Reading) -> tuple[str | None, int | None]:
    """(resource, units) of a pod: ``None`` units where it does not say, 0 where it asks for other things alone."""
    total: dict[str, int] = {}
    says = False
    first = dicts(spec.get("initContainers"))
    sidecars = [each for each in first if each.get("restartPolicy") == "Always"]
    for container in (*sidecars, *dicts(spec.get("containers"))):
        for name, amount in gpus_of(container).items():
            total[name] = total.get(name, 0) + amount
        stated = mapping(container.get("resources"))
        says = says or bool(mapping(stated.get("limits")) or mapping(stated.get("requests")))
    for container in first:  # they are gone before the others start: a pod needs the most of both
        for name, amount in gpus_of(container).items():
            total[name] = max(total.get(name, 0), amount)
    held = {name: amount for name, amount in total.items() if amount > 0}
    if held:
        name = max(held, key=lambda each: held[each])
        return name, held[name]
    claims = _claimed(spec, reading)
    if claims is not None:
        return claims
    return next(iter(total), None), 0 if says or total else None


def _claimed(spec: Json, reading: Reading) -> tuple[str | None, int | None] | None:
    """Devices by ResourceClaims; ``None`` where there are none of GPUs."""
    for claim in dicts(spec.get("resourceClaims")):
        template = claim.get("resourceClaimTemplateName")
        body = reading.library.find("ResourceClaimTemplate", template, reading.namespace)
        inner = mapping(mapping(body).get("spec")).get("spec") if body else None
        if body is None:
            body = reading.library.find("ResourceClaim", claim.get("resourceClaimName"), reading.namespace)
            inner = mapping(body).get("spec") if body else None
        if inner is None:
            name = str(template or claim.get("resourceClaimName") or "")
            if any(each in name.lower() for each in ("gpu", "xpu", "cuda", "gaudi", "neuron", "tpu")):
                return f"dra:{name}", None
            continue
        total: int | None = 0
        device_class = ""
        for request in dicts(mapping(mapping(inner).get("devices")).get("requests")):
            exactly = mapping(request.get("exactly")) or request
            if "deviceClassName" not in exactly:
                total = None
                continue
            device_class = device_class or str(exactly["deviceClassName"])
            if exactly.get("allocationMode") == "All":
                total = None
            elif total is not None:
                total += whole(exactly.get("count"), 1) or 0
        if "gpu" in device_class or "tpu" in device_class or "gaudi" in device_class:
            return f"dra:{device_class}", total
    return None


def told_labels(spec: Json) -> dict[str, str]:
    """Labels of nodes that selector and required affinity ask for, but for hosts, systems and how a node is paid."""
    labels: dict[str, str] = {}
    required = mapping(
        mapping(mapping(spec.get("affinity")).get("nodeAffinity")).get("requiredDuringSchedulingIgnoredDuringExecution")
    )
    for term in dicts(required.get("nodeSelectorTerms")):
        for expression in dicts(term.get("matchExpressions")):
            if expression.get("operator") == "In":
                labels[str(expression.get("key"))] = "|".join(words(expression.get("values")))
    labels |= {str(key): str(value) for key, value in mapping(spec.get("nodeSelector")).items()}
    return {
        key: value
        for key, value in labels.items()
        if key not in _UNTOLD_LABELS and not any(part in key.lower() for part in _UNTOLD_PARTS)
    }


def role_of(process: EngineProcess | None, template: Json, default: str) -> str:
    """Prefill or decode where flags or labels say so."""
    line = list(process.arguments) if process is not None else []
    modes = [(value_of(line, flag) or "").lower() for flag in ("--disaggregation-mode", "--server_role", "--server-role")]
    labels = mapping(mapping(template.get("metadata")).get("labels"))
    transfer = value_of(line, "--kv-transfer-config") or value_of(line, "--kv_transfer_config") or ""
    told = [_ROLE_OF_MODE.get(mode) for mode in modes]
    told += [role for flag, role in _ROLE_OF_FLAG.items() if flag in line]
    told += [_ROLE_OF_MODE.get(str(labels.get(label))) for label in _ROLE_LABELS]
    told += [role for part, role in _ROLE_OF_TRANSFER.items() if part in transfer]
    return next((role for role in told if role), default)


def read_group(
    template: Json, reading: Reading, *, where: str, found: Found | None = None, role: str = SERVER, pod_role: str = "server",
    pods: int | None = 1,
) -> ServingGroup | None:  # fmt: skip
    """The group that a pod template serves; ``None`` where it starts no engine."""
    spec = mapping(template.get("spec"))
    found = found or find_engine(spec, reading)
    if found is None:
        return None
    process = found.process
    resource, gpus = pod_gpus(spec, reading)
    if process.is_on_cpu and gpus is None:
        gpus = 0
    group = ServingGroup(
        role=role_of(process, template, role),
        where=where,
        engine=process.engine,
        engine_version=process.version,
        arguments=read_arguments(process.engine, process.arguments, process.environment),
        pods=[PodGroup(role=pod_role, count=pods, gpus=gpus, template=template)],
        gpu_resource=resource,
        node_selector=told_labels(spec),
        flags=list(process.arguments),
        environment=dict(process.environment),
        hidden=process.flags_are_hidden,
        is_on_cpu=process.is_on_cpu and not gpus,
        opaque=[Opaque(where, why) for why in process.opaque],
    )
    if gpus:
        group.explicit.add("gpusPerPod")
    note_arguments(group)
    return group


def note_arguments(group: ServingGroup) -> None:
    """What flags and variables state is explicit, and the model is theirs."""
    arguments = group.arguments
    group.explicit |= {
        NAMES[path] for path in (*arguments.fields, *arguments.texts) if path in NAMES and path not in arguments.unknown
    }
    named = arguments.fields.get("model.name") or arguments.texts.get("model.name")
    if named:
        group.model = named
        served = arguments.texts.get("setting.served_name")
        group.model_also = tuple(each for each in (served,) if each)
    group.opaque += [Opaque(group.where, why) for why in arguments.opaque]
    if arguments.more:
        group.opaque.append(Opaque(group.where, f"more flags may come: {arguments.more}"))


def state(group: ServingGroup, path: str, value: object, *, text: str | None = None) -> None:
    """A field that the object states itself, over what flags say."""
    if value is None:
        return
    if isinstance(value, Unknown):
        group.arguments.fields.pop(path, None)
        group.arguments.unknown[path] = value.why
        return
    group.arguments.fields[path] = value
    group.arguments.texts[path] = str(value) if text is None else text
    group.arguments.unknown.pop(path, None)
    if path in NAMES:
        group.explicit.add(NAMES[path])


def is_engine_image(image: object) -> str:
    """The engine that an image is for; empty for others."""
    return engine_of_image(str(image or ""))[0]
