"""How a declaration that stands really fares: what its pods do, held against what was found of it."""

from collections.abc import Iterable
from dataclasses import dataclass

from shardgate.domain.inventory import Inventory, NodeState, Owner
from shardgate.domain.verdict import Outcome, Verdict

_MOVING = (NodeState.IN_TRANSITION, NodeState.GONE)
"""Nodes that may be back in a moment: nobody need get up for what waits for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plight:
    """What somebody ought to know of it. False and empty for one that fares as it was judged."""

    is_down: bool = False
    """None of its pods is ready, it is Waiting or Unsound, and no node is on its way back: it does not come back by itself."""
    contradicted: tuple[str, ...] = ()
    """Codes that say that it can never run, and yet all its pods are ready: either we are wrong, or somebody was lucky."""
    is_roll_out_stuck: bool = False
    """New pods find no place beside the old ones, which are not stopped before the new ones are ready."""


def plight(verdict: Verdict, inventory: Inventory, owners: Iterable[Owner]) -> Plight:
    """Of a declaration whose pods ``owners`` declare; the verdict is the one on this inventory."""
    pods = [each for each in inventory.held_by(owners) if not each.is_promised]
    ready, pending = sum(each.ready for each in pods), sum(not each.node for each in pods)
    is_bad = verdict.outcome in (Outcome.WAITING, Outcome.UNSOUND)
    is_moving = is_bad and any(group.like.state in _MOVING for group in inventory.groups)
    unsound = dict.fromkeys(each.code for each in verdict.findings if each.outcome is Outcome.UNSOUND)
    return Plight(
        is_down=is_bad and not ready and not is_moving,
        contradicted=tuple(unsound) if pods and ready == len(pods) else (),
        is_roll_out_stuck=bool(ready and pending and "SurgeDoesNotFit" in verdict.codes),
    )
