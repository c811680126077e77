"""Several serving groups of one object, judged as one: each on what those before it have left."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import Inventory, Node, grouped
from shardgate.domain.placement import Placement
from shardgate.domain.policy import Policy
from shardgate.domain.verdict import Verdict
from shardgate.domain.verify import verify


def verify_together(declarations: Sequence[Declaration], inventory: Inventory, policy: Policy) -> tuple[Verdict, ...]:
    """A verdict for each, in their order."""
    verdicts: list[Verdict] = []
    for declaration in declarations:
        verdict = verify(declaration, inventory, policy)
        verdicts.append(verdict)
        if verdict.placement is not None and len(verdicts) < len(declarations):
            inventory = _after(inventory, declaration, verdict.placement)
    return tuple(verdicts)


def _after(inventory: Inventory, declaration: Declaration, placement: Placement) -> Inventory:
    """The cluster once these pods run where the example puts them; pods of its own that run already stay counted once."""
    if not placement.pods:
        return inventory
    held = inventory.held_by(declaration.owners)
    taken: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for pod in placement.pods:
        leads = declaration.gpus.leader is not None and pod.pod == 0
        other = declaration.gpus.leader.requests if leads and declaration.gpus.leader else declaration.placement.requests
        for name, amount in {**other, declaration.gpus.resource: len(pod.local_gpus), "pods": 1}.items():
            taken[pod.node][name] += amount
    for each in held:
        for name, amount in each.requests.items():
            taken[each.node][name] -= amount
    nodes = tuple(_with(node, taken[node.name]) if node.name in taken else node for node in inventory.nodes)
    return replace(inventory, groups=grouped(nodes))


def _with(node: Node, amounts: dict[str, int]) -> Node:
    used = {name: node.used.get(name, 0) + amounts.get(name, 0) for name in {**node.used, **amounts}}
    return replace(node, used={name: amount for name, amount in used.items() if amount})
