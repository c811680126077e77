"""It runs, and wastes hardware."""

from collections.abc import Iterator

from shardgate.domain.codes import finding
from shardgate.domain.situation import Situation
from shardgate.domain.units import count
from shardgate.domain.verdict import Finding, Outcome


def gpus_are_used(situation: Situation) -> Iterator[Finding]:
    """Every GPU that a replica takes holds a rank."""
    pod, required = situation.pod, situation.required
    over = required.gpus_per_replica - pod.ranks_per_replica
    wish = situation.declaration.gpus
    if situation.declaration.unknown_strategy:
        return
    if over > 0 and (wish.pods_per_replica is not None or pod.ranks_per_replica % pod.pods_per_replica == 0):
        yield finding(
            "GpusLeftOver",
            where="spec.gpus.perPod",
            outcome=Outcome.WASTEFUL,
            message=f"each replica takes {count(required.gpus_per_replica, 'GPU')} for {count(pod.ranks_per_replica, 'rank')}; "
            f"{over} stay idle",
            remedy=f"ask for {count(pod.ranks_per_pod, 'GPU')} per pod",
        )


CHECKS = (gpus_are_used,)
