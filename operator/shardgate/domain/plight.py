"""How a declaration that stands really fares: what its pods do, held against what was found of it."""

from collections.abc import Iterable
from dataclasses import dataclass

from shardgate.domain.inventory import Inventory, NodeState, Owner
from shardgate.domain.placement import Reason
from shardgate.domain.verdict import Outcome, Verdict

_MOVING = (NodeState.IN_TRANSITION, NodeState.GONE)
"""Nodes that may be back in a moment: nobody need get up for what waits for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plight:
    """What somebody ought to know of it. False and empty for one that fares as it was judged."""

    is_down: bool = False
    """It ran, none of its pods is ready, it is Waiting or Unsound, and no node that it could use is on its way back."""
    contradicted: tuple[str, ...] = ()
    """Codes that say that it can never run, and yet all its pods are ready: either we are wrong, or somebody was lucky."""
    is_roll_out_stuck: bool = False
    """New pods find no place beside the old ones, which are not stopped before the new ones are ready."""


def plight(verdict: Verdict, inventory: Inventory, owners: Iterable[Owner], *, ran: bool) -> Plight:
    """Of a declaration whose pods ``owners`` declare, by the verdict on this inventory. ``ran``: it had a ready pod once."""
    pods = [each for each in inventory.held_by(owners) if not each.is_promised]
    ready, pending = sum(each.ready for each in pods), sum(not each.node for each in pods)
    is_bad = verdict.outcome in (Outcome.WAITING, Outcome.UNSOUND)
    unsound = dict.fromkeys(each.code for each in verdict.findings if each.outcome is Outcome.UNSOUND)
    return Plight(
        is_down=ran and is_bad and not ready and not _may_come_back(verdict, inventory),
        contradicted=tuple(unsound) if pods and ready == len(pods) else (),
        is_roll_out_stuck=bool(ready and pending and "SurgeDoesNotFit" in verdict.codes),
    )


def _may_come_back(verdict: Verdict, inventory: Inventory) -> bool:
    """Whether a node is on its way that it could use; where no place was looked for, any node."""
    if verdict.placement is not None:
        return any(each.reason in (Reason.IN_TRANSITION, Reason.GONE) for each in verdict.placement.excluded)
    return any(group.like.state in _MOVING for group in inventory.groups)
