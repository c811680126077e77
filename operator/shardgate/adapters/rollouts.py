"""Whether pods of a workload may still be of its former form: by its controller's word, or by how long ago it changed."""

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from shardgate.adapters.workloads.values import mapping, whole
from shardgate.domain.declaration import Declaration, Subject

SETTLED_SECONDS = 30 * 60.0
"""Where no controller counts what it has replaced, it is taken to be done after so long."""
_COUNTING = ("Deployment", "StatefulSet", "Rollout", "LeaderWorkerSet")
"""Kinds whose status counts the replicas of the newest form."""
_FORM = attrgetter(
    "model_name", "model", "weights_name", "dtype", "kv_cache", "kv_cache_bits", "engine", "strategy", "gpus", "opaque"
)
"""What a prediction of memory rests on: replicas may come and go."""


def is_rolling_out(body: Mapping[str, Any]) -> bool | None:
    """Whether old pods may run beside new ones, as the object's status has it; ``None`` where nothing there would tell."""
    spec, status = mapping(body.get("spec")), mapping(body.get("status"))
    observed = whole(status.get("observedGeneration"), None)  # Argo writes it as text, and once wrote a hash
    if observed is not None and observed < (whole(mapping(body.get("metadata")).get("generation"), 0) or 0):
        return True
    if body.get("kind") not in _COUNTING:
        return None
    wanted, there, updated = (
        whole(said, default) or 0
        for said, default in ((spec.get("replicas"), 1), (status.get("replicas"), 0), (status.get("updatedReplicas"), 0))
    )
    return updated < max(wanted, there)


class SeenForms:
    """Since when each object declares what it declares now, as far as this process saw it change."""

    def __init__(self) -> None:
        self._seen: dict[Subject, tuple[list[Any], float]] = {}

    def see(self, declarations: Iterable[Declaration], now: float) -> None:
        """All that stand. ``now``: seconds of a steady clock."""
        forms: dict[Subject, list[Any]] = {}
        for each in declarations:
            forms.setdefault(each.subject, []).append(_FORM(each))
        before, self._seen = self._seen, {}
        for subject, form in forms.items():
            then, since = before.get(subject, (form, now - SETTLED_SECONDS))
            self._seen[subject] = form, since if then == form else now

    def is_new(self, subject: Subject, now: float) -> bool:
        """Whether it was seen to change less than ``SETTLED_SECONDS`` ago."""
        return subject in self._seen and now - self._seen[subject][1] < SETTLED_SECONDS
