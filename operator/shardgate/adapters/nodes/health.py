"""A node as its driver finds it: what is unhealthy is not free, and what is held beside Kubernetes is not there for a rank."""

from collections.abc import Iterator
from dataclasses import replace

from shardgate.adapters.gpu_resources import MIG, PLAIN, RENAMED, is_gpu, vendor_of
from shardgate.adapters.nodes.reports import NodeFacts
from shardgate.adapters.nodes.shapes import Shapes
from shardgate.domain.inventory import DEVICE_CLASS_DOMAIN, Gpu, Node, NodeState, Sharing
from shardgate.domain.units import Bytes, gib

_WHOLE = (Sharing.NONE, Sharing.TIME_SLICING, Sharing.MPS)


def with_health(node: Node, facts: NodeFacts, shapes: Shapes) -> Node:
    """The node with what its driver says of health, of GPUs that are not there and of processes counted in.

    The kubelet's own word stands besides: what it counts as unhealthy already is not taken away twice.
    """
    if node.state in (NodeState.GONE, NodeState.IN_TRANSITION) or not facts.is_read:
        return node
    found = _with_held(node, facts, shapes)
    units = _units(node, facts)
    if not units:
        return found
    allocatable, unavailable = dict(node.allocatable), dict(node.unavailable_gpus)
    for resource, (seen, out_of_use) in units.items():
        offered = allocatable.get(resource, 0)
        registered = offered + unavailable.get(resource, 0)
        taken = max(0, min(offered, out_of_use - (max(seen, registered) - offered)))
        allocatable[resource] = offered - taken
        unavailable[resource] = max(unavailable.get(resource, 0) + taken, out_of_use)
    return replace(
        found, allocatable=allocatable, unavailable_gpus={name: amount for name, amount in unavailable.items() if amount > 0}
    )


def _units(node: Node, facts: NodeFacts) -> dict[str, tuple[int, int]]:
    """Resource -> (units that the driver has, those that are out of use), of resources with any of the latter.

    Out of use is also what the kubelet offers and the driver does not have, where it is known how units are made of GPUs.
    """
    found: dict[str, tuple[int, int]] = {}
    for resource, offered in node.allocatable.items():
        registered = offered + node.unavailable_gpus.get(resource, 0)
        if not facts.gpus:
            if vendor_of(resource) == "nvidia" or _is_device_class(resource):
                found[resource] = 0, registered
            continue
        unit = node.shape.unit(resource)
        times = unit.units_per_card or 1
        if resource in (PLAIN, RENAMED) and unit.sharing is Sharing.MIG_SINGLE:
            found[resource] = sum(each.number for each in facts.parts), sum(each.out_of_use for each in facts.parts)
        elif _is_whole(resource, unit):
            seen, bad = facts.whole * times, facts.whole_out_of_use * times
            are_counted = unit.sharing is Sharing.NONE or unit.units_per_card is not None
            found[resource] = seen, bad + (max(0, registered - seen) if are_counted else 0)
    for each in facts.parts:
        name = f"{MIG}{each.profile}"
        for resource in (name, f"{name}.shared"):
            if resource in node.allocatable:
                registered = node.allocatable[resource] + node.unavailable_gpus.get(resource, 0)
                times = _replicas(registered, each.number)
                found[resource] = each.number * times, each.out_of_use * times
    return {resource: amounts for resource, amounts in found.items() if amounts[1]}


def _is_whole(resource: str, unit: Gpu) -> bool:
    """Whether its units are GPUs, or cards shared in time."""
    return unit.sharing in _WHOLE and (resource in (PLAIN, RENAMED) or (_is_device_class(resource) and unit.product is not None))


def _is_device_class(resource: str) -> bool:
    return resource.startswith(f"{DEVICE_CLASS_DOMAIN}/")


def _replicas(registered: int, parts: int) -> int:
    """Units of one MIG device that is shared in time: nothing but the kubelet's count tells."""
    return registered // parts if registered and registered % parts == 0 else 1


def _with_held(node: Node, facts: NodeFacts, shapes: Shapes) -> Node:
    given = sum(amount for name, amount in node.used.items() if amount > 0 and (is_gpu(name) or _is_device_class(name)))
    # Pods hold so many GPUs at most: what is held on more is no pod's.
    beside_pods = facts.unowned[given] if given < len(facts.unowned) else Bytes(0)
    held = max(facts.held, beside_pods)
    doubts = tuple(_doubts(facts, given))
    if not held and not doubts:
        return node

    def beside(gpu: Gpu) -> Gpu:
        if gpu.sharing not in _WHOLE:
            return replace(gpu, doubts=doubts)
        alternatives = tuple(replace(each, held=held) for each in gpu.alternatives)
        return replace(gpu, held=held, doubts=doubts, alternatives=alternatives)

    return replace(node, shape=shapes.changed(node.shape, (held, doubts), beside))


def _doubts(facts: NodeFacts, given: int) -> Iterator[str]:
    """``given``: units that pods have. Where they have all GPUs, nobody comes to those that hold memory."""
    if facts.of_unknown_health:
        yield f"the driver does not tell whether {len(facts.of_unknown_health)} of {facts.gpus} GPUs of a node are healthy"
    if facts.power_share < 1:
        share = f"{100 * facts.power_share:.0f} %"
        yield f"a GPU of a node may draw {share} of its default power; figures of performance assume all of it"
    if facts.unowned and given < facts.gpus:
        yield f"{gib(facts.unowned[0])} of a GPU are held by processes whose owner is not known"
