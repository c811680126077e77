"""What may come, in words: which pools could bring nodes, why they have not, and why others cannot."""

from collections.abc import Iterator

from shardgate.domain.inventory import Node, NodeGroup
from shardgate.domain.placement import Reason, room_in_total
from shardgate.domain.situation import Situation, is_here
from shardgate.domain.units import ago, count

MOST_SAID = 3
MANY_NODES = 1000
"""From so many on, a pool states no bound."""
ANY_NUMBER_OF_GPUS = 1024
"""Of a node that may come and of which nobody knows how many it has: as many as a pod may ask for."""


def may_come(situation: Situation) -> str:
    """``pool h100 may bring 4 nodes of 8 x H100-80GB-HBM3``, of those that the pods are counted on."""
    resource = situation.pod.resource
    counted = [group for group in situation.selected if id(group.shape) not in situation.left_out]
    needed = waits_for_turns(situation)
    nodes = (node for group in counted for node in _coming(situation, group) if needed or not node.takes_turns)
    return _joined(dict.fromkeys(_of(node, resource) for node in nodes))


def waits_for_turns(situation: Situation) -> bool:
    """Whether the pods do not all fit what is here and what pools may bring before other nodes of theirs have left."""
    soon = [group for group in situation.selected if not group.like.takes_turns]
    return room_in_total(soon, situation.node_filter, situation.pod, situation.left_out) < situation.pod.pods


def why_not(situation: Situation) -> str:
    """``NodePool gpu is tainted nvidia.com/gpu``, of pools with such GPUs that bring none for these pods."""
    selected = {node.name for group in situation.selected for node in group.nodes}
    said = [f"{origin} {why}" for origin, why in situation.inventory.exhausted]
    for group in situation.accepted:
        if is_here(group):
            continue
        barred = situation.node_filter.reason_against(group, passing=False) is Reason.TAINT
        taint = situation.node_filter.barring_taint(group)
        for node in group.nodes:
            if barred:
                said.append(f"{_named(node)} is tainted {taint}, which is not tolerated")
            elif node.name not in selected:
                said.append(f"{_named(node)} is not let in by selector or affinity")
    return _joined(dict.fromkeys(said))


def _coming(situation: Situation, group: NodeGroup) -> Iterator[Node]:
    if not is_here(group) and situation.node_filter.reason_against(group, passing=False) is None:
        yield from (node for node in group.nodes if node.allocatable.get(situation.pod.resource, 0) >= situation.pod.gpus)


def _of(node: Node, resource: str) -> str:
    shape = f"{node.allocatable.get(resource, 0)} x {node.shape.unit(resource).product or 'a product that is not known'}"
    if node.gone_seconds is not None:
        were = "was" if node.count == 1 else "were"
        return f"{count(node.count, 'node')} of {shape} {were} here until {ago(node.gone_seconds)}, such nodes may come again"
    many = "nodes" if node.count >= MANY_NODES else count(node.count, "node")
    verb = "is to bring" if node.origin.startswith("NodeClaim") else "may bring"
    return f"{node.origin or node.name} {verb} {many} of {shape}{f' ({node.delay})' if node.delay else ''}"


def _named(node: Node) -> str:
    return node.origin or "what was here before"


def _joined(said: dict[str, None]) -> str:
    parts = list(said)
    more = f"; and {len(parts) - MOST_SAID} more" if len(parts) > MOST_SAID else ""
    return f"{'; '.join(parts[:MOST_SAID])}{more}"
