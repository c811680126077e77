"""What of an inventory verdicts rest on: the rest left out, they come out the same."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import HeldPod, Inventory, Node, NodeGroup, Owner


def used_facts(inventory: Inventory, declarations: Sequence[Declaration]) -> Inventory:
    """The inventory as far as these declarations are judged by it.

    Other declarations' pods go, but for promised ones; single pods on nodes and nodes without GPUs go where no rule
    between pods looks at them; quotas and limits of other namespaces go. ``verify`` of these gives the same verdicts.
    """
    namespaces = {each.subject.namespace for each in declarations}
    found = replace(
        inventory,
        held=_held(inventory, declarations),
        quotas={name: each for name, each in inventory.quotas.items() if name in namespaces},
        limit_ranges={name: each for name, each in inventory.limit_ranges.items() if name in namespaces},
        groups=tuple(NodeGroup(group.nodes) for group in inventory.groups),
    )
    if inventory.repelling or any(each.placement.rules.demands for each in declarations):
        return found
    return replace(found, groups=tuple(map(_without_pods, found.groups)), without_gpus=(), namespaces={})


def _held(inventory: Inventory, declarations: Sequence[Declaration]) -> Mapping[Owner, tuple[HeldPod, ...]]:
    """Their own pods, and what is promised to anybody."""
    own = {owner for each in declarations for owner in each.owners}
    return {
        owner: pods for owner, pods in inventory.held.items() if owner in own or any(pod.is_promised for pod in pods)
    }  # fmt: skip


def _without_pods(group: NodeGroup) -> NodeGroup:
    return NodeGroup(tuple(_plain(node) for node in group.nodes))


def _plain(node: Node) -> Node:
    return replace(node, pods=(), with_ports=()) if node.pods else node
