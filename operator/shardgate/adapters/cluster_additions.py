"""Nodes that somebody thinks of adding: like one of that product that is here, else as the product table has it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardgate.adapters.gpu_resources import RESOURCE_OF_VENDOR, counted_once
from shardgate.adapters.gpus import find_product, label_of, normalised, similar_products
from shardgate.adapters.nodes import Shapes, devices_of, node_from, read_node, slice_from
from shardgate.adapters.quantities import QuantityError
from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.domain.inventory import Node, NodeState, Sharing, Taint

Json = dict[str, Any]
HOST_LABEL = "kubernetes.io/hostname"
_OF_ONE_NODE = (HOST_LABEL, "nvidia.com/gfd.timestamp")


class AdditionError(Exception):
    """What such nodes would be cannot be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """``add 2xH100-80GB-HBM3:8``: nodes of one product."""

    nodes: int
    product: str
    """In any spelling, vendor's prefix aside."""
    gpus: int | None
    """Of one node; ``None``: as many as those of the product have that are here."""


def added(objects: Sequence[Json], addition: Addition) -> list[Json]:
    """The Nodes, with ResourceSlices where the node that they are like has some. Raises ``AdditionError``."""
    slices: dict[str, list[Json]] = {}
    for each in objects:
        if each.get("kind") == "ResourceSlice" and mapping(each.get("spec")).get("nodeName"):
            slices.setdefault(str(each["spec"]["nodeName"]), []).append(each)
    here = list(_of_product(objects, slices, addition.product))
    names = _free_names({_name(each) for each in objects if each.get("kind") == "Node"}, addition.nodes)
    if not here:
        return [_made_up(name, addition) for name in names]
    body = _like(here, addition)
    return [new for name in names for new in (_copy(body, name), *_slices_for(slices.get(_name(body), ()), _name(body), name))]


def _of_product(objects: Iterable[Json], slices: Mapping[str, Sequence[Json]], product: str) -> Iterator[tuple[Json, Node]]:
    wanted, shapes = normalised(product).lower(), Shapes()
    for each in objects:
        if each.get("kind") != "Node":
            continue
        try:
            node = read_node(node_from(each), shapes, devices_of(slice_from(body) for body in slices.get(_name(each), ())))
        except (ValueError, QuantityError):
            continue  # it is named among what cannot be read
        if node is not None and (node.shape.gpu.product or "").lower() == wanted:
            yield each, node


def _offered(node: Node) -> dict[str, int]:
    """GPUs of the node in good health."""
    names = counted_once({**node.unavailable_gpus, **node.allocatable})
    found = {name: node.allocatable.get(name, 0) + node.unavailable_gpus.get(name, 0) for name in names}
    return {name: amount for name, amount in found.items() if amount}


def _like(here: Sequence[tuple[Json, Node]], addition: Addition) -> Json:
    """The node that new ones are like: of as many GPUs, one that takes pods rather than one that does not."""
    sizes = Counter(sum(_offered(node).values()) for _, node in here)
    if addition.gpus is None and len(sizes) > 1:
        known = ", ".join(map(str, sorted(sizes)))
        problem = f"nodes of {addition.product} here have {known} GPUs: write {addition.nodes}x{addition.product}:{max(sizes)}, say"
        raise AdditionError(problem)
    wanted = addition.gpus if addition.gpus is not None else next(iter(sizes))
    in_use_first = sorted(here, key=lambda each: each[1].state is not NodeState.USABLE)
    alike = [body for body, node in in_use_first if sum(_offered(node).values()) == wanted]
    return alike[0] if alike else _of_another_size(*in_use_first[0], wanted)


def _of_another_size(body: Json, node: Node, gpus: int) -> Json:
    """A node like this one with another number of GPUs, where each unit is one of them. Raises ``AdditionError``."""
    offered = _offered(node)
    if len(offered) != 1 or node.shape.gpu.sharing is not Sharing.NONE:
        problem = f"GPUs of {_name(body)} are cut or shared: nodes like it have {sum(offered.values())} units, and no other number"
        raise AdditionError(problem)
    (resource,) = offered
    metadata, status = mapping(body.get("metadata")), mapping(body.get("status"))
    counts = {"nvidia.com/gpu.count": str(gpus)} if "nvidia.com/gpu.count" in mapping(metadata.get("labels")) else {}
    amounts = {part: {**mapping(status.get(part)), resource: str(gpus)} for part in ("capacity", "allocatable")}
    return {
        **body,
        "metadata": {**metadata, "labels": {**mapping(metadata.get("labels")), **counts}},
        "status": {**status, **amounts},
    }


def _free_names(taken: set[str], number: int) -> list[str]:
    names: list[str] = []
    counter = 0
    while len(names) < number:
        counter += 1
        name = f"added-{counter}"
        if name not in taken:
            names.append(name)
    return names


def _copy(body: Json, name: str) -> Json:
    """A new node like this one: what is lasting of it, in good health."""
    metadata, spec, status = (mapping(body.get(part)) for part in ("metadata", "spec", "status"))
    labels = {key: value for key, value in mapping(metadata.get("labels")).items() if key not in _OF_ONE_NODE}
    taints = [
        each
        for each in dicts(spec.get("taints"))
        if not Taint(key=str(each.get("key")), effect=str(each.get("effect") or "NoSchedule")).is_passing
    ]
    capacity = mapping(status.get("capacity")) or mapping(status.get("allocatable"))
    allocatable = {**mapping(status.get("allocatable")), **{name: capacity[name] for name in capacity if "/" in name}}
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name, "labels": {**labels, HOST_LABEL: name}, "annotations": mapping(metadata.get("annotations")),
        },
        "spec": {"taints": taints},
        "status": {
            "capacity": dict(capacity), "allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}],
        },
    }  # fmt: skip


def _slices_for(slices: Iterable[Json], like: str, name: str) -> Iterator[Json]:
    for number, each in enumerate(slices):
        spec, pool = mapping(each.get("spec")), mapping(mapping(each.get("spec")).get("pool"))
        renamed = {**pool, "name": str(pool.get("name")).replace(like, name)}
        renamed["name"] = renamed["name"] if renamed["name"] != pool.get("name") else f"{pool.get('name')}-{name}"
        yield {**each, "metadata": {"name": f"{name}-{number}"}, "spec": {**spec, "nodeName": name, "pool": renamed}}


_PRODUCT_LABELS = {"nvidia": "nvidia.com/gpu.product", "amd": "amd.com/gpu.product-name"}


def _made_up(name: str, addition: Addition) -> Json:
    """A node of which nobody said more than its GPUs: it has enough of all else."""
    row = find_product(addition.product)
    if row is None or row.vendor not in _PRODUCT_LABELS:
        near = similar_products(addition.product)
        hint = f"; near it: {', '.join(near)}" if near else ""
        problem = f"product {addition.product} is not known, and no node of it is here to be copied{hint}"
        raise AdditionError(problem)
    if addition.gpus is None:
        problem = f"no node of {addition.product} is here: say how many GPUs one has, as {addition.nodes}x{addition.product}:8"
        raise AdditionError(problem)
    label, resource = _PRODUCT_LABELS[row.vendor], RESOURCE_OF_VENDOR[row.vendor]
    product = label_of(addition.product) if row.vendor == "nvidia" else row.label
    amounts = {resource: str(addition.gpus)}
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {HOST_LABEL: name, label: product}},
        "spec": {},
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip


def _name(body: Json) -> str:
    return str(mapping(body.get("metadata")).get("name"))
