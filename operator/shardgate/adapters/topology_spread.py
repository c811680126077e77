"""``topologySpreadConstraints`` as in a pod -> those that must hold."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shardgate.adapters.affinity import LabelSelector, read_label_selector
from shardgate.adapters.errors import DeclarationError, group
from shardgate.domain.pod_rules import SpreadConstraint
from shardgate.domain.selectors import Expression

REVISION_LABELS = frozenset({"pod-template-hash", "controller-revision-hash", "leaderworkerset.sigs.k8s.io/template-revision-hash"})
"""Labels that a controller gives all pods of one revision: a constraint that follows one counts these pods alone."""


class _Constraint(msgspec.Struct, forbid_unknown_fields=True):
    maxSkew: int  # noqa: N815  # as the API spells it
    topologyKey: str  # noqa: N815
    whenUnsatisfiable: str  # noqa: N815
    labelSelector: LabelSelector | None = None  # noqa: N815
    minDomains: int | None = None  # noqa: N815
    nodeAffinityPolicy: str = "Honor"  # noqa: N815
    nodeTaintsPolicy: str = "Ignore"  # noqa: N815
    matchLabelKeys: list[str] | None = None  # noqa: N815


def read_spread(stated: Sequence[Any] | None, labels: Mapping[str, str], where: str) -> tuple[SpreadConstraint, ...]:
    """Constraints with ``DoNotSchedule``, for pods with these labels. Raises an ``ExceptionGroup`` of ``DeclarationError``."""
    try:
        read = msgspec.convert(stated or [], list[_Constraint])
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise group([DeclarationError(f"{where}{path.rstrip('`')}", problem)]) from None
    problems: list[DeclarationError] = []
    constraints = []
    for index, each in enumerate(read):
        if each.whenUnsatisfiable != "DoNotSchedule":
            continue
        expressions = read_label_selector(each.labelSelector, f"{where}[{index}]", problems)
        keys = each.matchLabelKeys or ()
        followed = tuple(Expression(key=key, operator="In", values=(labels[key],)) for key in keys if key in labels)
        constraints.append(
            SpreadConstraint(
                topology_key=each.topologyKey,
                max_skew=each.maxSkew,
                expressions=None if expressions is None else (*expressions, *followed),
                min_domains=each.minDomains or 1,
                honors_affinity=each.nodeAffinityPolicy != "Ignore",
                honors_taints=each.nodeTaintsPolicy == "Honor",
                counts_own_revision=any(key in REVISION_LABELS and key not in labels for key in keys),
            )
        )
    if problems:
        raise group(problems)
    return tuple(constraints)
