"""What of a verdict a tenant may read: messages name products, so a policy that discloses nothing has them taken out."""

from collections.abc import Callable
from dataclasses import replace

from shardgate.domain.inventory import Inventory
from shardgate.domain.policy import Disclosure, Policy
from shardgate.domain.verdict import Verdict


def told(verdict: Verdict, inventory: Inventory, policy: Policy) -> Verdict:
    """The verdict as users may read it; the same one unless nothing may be disclosed. Messages name a node only where that may."""
    if policy.disclosure is not Disclosure.NONE:
        return verdict
    without = _without_names(inventory, policy)
    findings = (replace(each, message=without(each.message), remedy=without(each.remedy)) for each in verdict.findings)
    return replace(verdict, findings=tuple(findings))


def text_told(text: str, inventory: Inventory, policy: Policy) -> str:
    """A line of ours, the same way."""
    return text if policy.disclosure is not Disclosure.NONE else _without_names(inventory, policy)(text)


def _without_names(inventory: Inventory, policy: Policy) -> Callable[[str], str]:
    """Takes products and pools out of a text."""
    may_come = [node for group in inventory.provisionable for node in group.nodes] + [*inventory.remembered, *policy.provisionable]
    shapes = [*(group.shape for group in inventory.groups), *(node.shape for node in may_come)]
    instead = dict.fromkeys((shape.gpu.product or "" for shape in shapes), "GPU")
    instead |= dict.fromkeys((*(node.origin for node in may_come), *(origin for origin, _ in inventory.exhausted)), "a pool")
    instead |= dict.fromkeys((node.delay for node in may_come), "for a reason of its own")
    longest_first = sorted((name for name in instead if name), key=len, reverse=True)

    def without(text: str) -> str:
        for name in longest_first:
            text = text.replace(name, instead[name])
        return text

    return without
