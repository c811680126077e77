"""Kueue: what the ClusterQueue behind a workload's LocalQueue could ever grant."""

from collections.abc import Mapping
from typing import Any

from shardgate.adapters.quantities import QuantityError, resources
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.domain.declaration import QueueGrant

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
Json = Mapping[str, Any]
Amounts = dict[tuple[str, str], int]
"""(flavor, resource) -> amount."""


def grant_of(body: Json, library: Library, namespace: str) -> QueueGrant | None:
    """``None`` where no queue is named, or what it leads to is not here or not bounded."""
    name = mapping(mapping(body.get("metadata")).get("labels")).get(QUEUE_LABEL)
    local = library.find("LocalQueue", name, namespace)
    behind = mapping(mapping(local).get("spec")).get("clusterQueue")
    queue = library.find("ClusterQueue", behind, "")
    if local is None or queue is None:
        return None
    try:
        most = _most(mapping(queue.get("spec")), library)
    except QuantityError:
        return None
    return None if most is None else QueueGrant(queue=str(name), cluster_queue=str(behind), most=most)


def _most(spec: Json, library: Library) -> dict[str, int] | None:
    """Resource -> the most of it, over all flavors; ``None`` where a cohort lends what is not told here."""
    nominal, borrowing, _ = _quotas(spec)
    others = _lent(spec, library)
    if others is None:
        return None
    total: dict[str, int] = {}
    for key, amount in nominal.items():
        borrowed = min(borrowing.get(key, others.get(key, 0)), others.get(key, 0))
        total[key[1]] = total.get(key[1], 0) + amount + borrowed
    return total


def _cohort(spec: Json) -> str:
    """Its name, in either version of the API."""
    return str(spec.get("cohortName") or spec.get("cohort") or "")


def _lent(spec: Json, library: Library) -> Amounts | None:
    """What the other queues of the cohort may lend; ``None`` for a cohort with quotas or a parent of its own."""
    cohort = _cohort(spec)
    if not cohort:
        return {}
    if library.find("Cohort", cohort, "") is not None:
        return None
    total: Amounts = {}
    for each in library.all("ClusterQueue"):
        other = mapping(each.get("spec"))
        if other is spec or _cohort(other) != cohort:
            continue
        nominal, _, lending = _quotas(other)
        for key, amount in nominal.items():
            total[key] = total.get(key, 0) + min(lending.get(key, amount), amount)
    return total


def _quotas(spec: Json) -> tuple[Amounts, Amounts, Amounts]:
    """(nominal quotas, borrowing limits, lending limits) of a ClusterQueue."""
    found: tuple[Amounts, Amounts, Amounts] = ({}, {}, {})
    for group in dicts(spec.get("resourceGroups")):
        for flavor in dicts(group.get("flavors")):
            for each in dicts(flavor.get("resources")):
                key = (str(flavor.get("name")), str(each.get("name")))
                for amounts, name in zip(found, ("nominalQuota", "borrowingLimit", "lendingLimit"), strict=True):
                    if each.get(name) is not None:
                        amounts[key] = resources({key[1]: each[name]})[key[1]]
    return found
