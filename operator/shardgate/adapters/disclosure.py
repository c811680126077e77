"""What of a verdict a tenant may read: messages name products, so a policy that discloses nothing has them taken out."""

from dataclasses import replace

from shardgate.domain.inventory import Inventory
from shardgate.domain.policy import Disclosure
from shardgate.domain.verdict import Verdict


def told(verdict: Verdict, inventory: Inventory, disclosure: Disclosure) -> Verdict:
    """The verdict as users may read it; the same one unless nothing may be disclosed. Messages never name nodes."""
    if disclosure is not Disclosure.NONE:
        return verdict
    products = {group.shape.gpu.product for group in inventory.groups} - {None}
    longest_first = sorted((str(product) for product in products), key=len, reverse=True)

    def without(text: str) -> str:
        for product in longest_first:
            text = text.replace(product, "GPU")
        return text

    return replace(verdict, findings=tuple(replace(each, message=without(each.message)) for each in verdict.findings))
