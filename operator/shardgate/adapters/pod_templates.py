"""A pod template, as workloads of every kind have one -> what its pods ask for, and where they may go."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from shardgate.adapters.affinity import read_node_affinity, read_pod_terms
from shardgate.adapters.errors import DeclarationError, group
from shardgate.adapters.gpu_resources import is_gpu
from shardgate.adapters.gpus import normalised
from shardgate.adapters.pods import Container, PodSpec, effective_requests, host_ports
from shardgate.adapters.quantities import QuantityError
from shardgate.adapters.topology_spread import read_spread
from shardgate.domain.declaration import DEFAULT_SCHEDULER, PlacementWish
from shardgate.domain.inventory import Owner, Toleration
from shardgate.domain.pod_rules import PodRules

PRODUCT_LABEL = "nvidia.com/gpu.product"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTemplate:
    """What pods of one template ask for. ``gpus``: resource -> units of one pod; the rest stands in ``wish.requests``."""

    gpus: Mapping[str, int]
    wish: PlacementWish


class _Metadata(msgspec.Struct, gc=False):
    """The part of a template's ObjectMeta that is read."""

    labels: dict[str, str] | None = None


def read_pod_template(
    template: Mapping[str, Any], namespace: str, where: str, owners: frozenset[Owner] = frozenset()
) -> PodTemplate:
    """Of ``metadata`` and ``spec``; ``owners``: by whom its pods say that they are declared.

    Raises an ``ExceptionGroup`` of ``DeclarationError``, each naming its field.
    """
    body = template.get("spec") or {}
    try:
        labels = msgspec.convert(template.get("metadata") or {}, _Metadata).labels or {}
    except msgspec.ValidationError as error:
        raise group([DeclarationError(f"{where}.metadata", str(error))]) from None
    try:
        spec = msgspec.convert(body, PodSpec, strict=False)
        requests = effective_requests(spec)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise group([DeclarationError(f"{where}.spec{path.rstrip('`')}", problem)]) from None
    except QuantityError as error:
        raise group([DeclarationError(f"{where}.spec", str(error))]) from None
    affinity, at = spec.affinity or {}, f"{where}.spec.affinity"
    terms = {kind: read_pod_terms(affinity, kind, namespace, at) for kind in ("podAffinity", "podAntiAffinity")}
    rules = PodRules(
        namespace=namespace,
        labels=labels,
        owners=owners,
        affinity=terms["podAffinity"].terms,
        anti_affinity=terms["podAntiAffinity"].terms,
        spread=read_spread(body.get("topologySpreadConstraints"), labels, f"{where}.spec.topologySpreadConstraints"),
        host_ports=host_ports(spec),
    )
    selector = dict(spec.nodeSelector or {})
    requests.pop("pods", None)
    gpus = {name: amount for name, amount in requests.items() if is_gpu(name) and amount > 0}
    wish = PlacementWish(
        node_selector=selector,
        node_terms=read_node_affinity(affinity, at),
        node_name=spec.nodeName,
        tolerations=tuple(
            Toleration(key=each.key, operator=each.operator or "Equal", value=each.value, effect=each.effect)
            for each in spec.tolerations or ()
        ),
        requests={name: amount for name, amount in requests.items() if name not in gpus},
        largest_container=_largest_container(spec),
        unstated={name: sum(_states_none(each, name) for each in spec.containers or ()) for name in ("cpu", "memory")},
        priority_class=str(body.get("priorityClassName") or ""),
        scheduler=spec.schedulerName or DEFAULT_SCHEDULER,
        rules=rules,
        product=normalised(selector[PRODUCT_LABEL]) if PRODUCT_LABEL in selector else None,
        unmodelled=tuple(f"required {kind} with label keys" for kind, read in terms.items() if not read.is_complete),
    )
    return PodTemplate(gpus=gpus, wish=wish)


def _states_none(container: Container, resource: str) -> bool:
    stated = container.resources
    return stated is None or resource not in {**(stated.limits or {}), **(stated.requests or {})}


def _largest_container(spec: PodSpec) -> dict[str, int]:
    each = [
        effective_requests(PodSpec(containers=[container]))
        for container in (*(spec.containers or ()), *(spec.initContainers or ()))
    ]
    return {name: max(asks.get(name, 0) for asks in each) for name in {name for asks in each for name in asks} - {"pods"}}
