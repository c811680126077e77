"""A node as its driver finds it: what is unhealthy is not free, and what is held beside Kubernetes is not there for a rank."""

from dataclasses import replace

from shardgate.adapters.gpu_resources import MIG, PLAIN, RENAMED
from shardgate.adapters.nodes.reports import NodeFacts
from shardgate.adapters.nodes.shapes import Shapes
from shardgate.domain.inventory import Gpu, Node, NodeState, Sharing

_WHOLE = (Sharing.NONE, Sharing.TIME_SLICING, Sharing.MPS)


def with_health(node: Node, facts: NodeFacts, shapes: Shapes) -> Node:
    """The node with what its driver says of health and of processes counted in.

    The kubelet's own word stands besides: what it counts as unhealthy already is not taken away twice.
    """
    if node.state in (NodeState.GONE, NodeState.IN_TRANSITION) or not facts.is_read:
        return node
    found = _with_held(node, facts, shapes)
    if not facts.out_of_use:
        return found
    allocatable, unavailable = dict(node.allocatable), dict(node.unavailable_gpus)
    for resource, (seen, out_of_use) in _units(node, facts).items():
        offered = allocatable.get(resource, 0)
        registered = offered + unavailable.get(resource, 0)
        taken = max(0, min(offered, out_of_use - (max(seen, registered) - offered)))
        allocatable[resource] = offered - taken
        unavailable[resource] = max(unavailable.get(resource, 0) + taken, out_of_use)
    return replace(
        found, allocatable=allocatable, unavailable_gpus={name: amount for name, amount in unavailable.items() if amount > 0}
    )


def _units(node: Node, facts: NodeFacts) -> dict[str, tuple[int, int]]:
    """Resource -> (units that the driver has, those of them that are out of use)."""
    found: dict[str, tuple[int, int]] = {}
    for resource in (PLAIN, RENAMED):
        if resource not in node.allocatable:
            continue
        unit = node.shape.unit(resource)
        times = unit.units_per_card or 1
        if unit.sharing in _WHOLE:
            found[resource] = facts.whole * times, facts.whole_out_of_use * times
        elif unit.sharing is Sharing.MIG_SINGLE:
            found[resource] = sum(each.number for each in facts.parts), sum(each.out_of_use for each in facts.parts)
    for each in facts.parts:
        if f"{MIG}{each.profile}" in node.allocatable:
            found[f"{MIG}{each.profile}"] = each.number, each.out_of_use
    return {resource: amounts for resource, amounts in found.items() if amounts[1]}


def _with_held(node: Node, facts: NodeFacts, shapes: Shapes) -> Node:
    if not facts.held:
        return node

    def beside(gpu: Gpu) -> Gpu:
        if gpu.sharing not in _WHOLE:
            return gpu
        return replace(gpu, held=facts.held, alternatives=tuple(replace(each, held=facts.held) for each in gpu.alternatives))

    return replace(node, shape=shapes.changed(node.shape, facts.held, beside))
