"""``ResourceQuota`` objects -> what a namespace may still request."""

from collections.abc import Mapping
from typing import Any

import msgspec

from shardgate.adapters.quantities import resources
from shardgate.domain.inventory import Quota

_REQUESTS = "requests."
_PLAIN = {"cpu": "cpu", "memory": "memory", "pods": "pods", "count/pods": "pods"}
_HOLD_FOR_SERVING = ("NotTerminating", "NotBestEffort")
"""Scopes that serving pods with requests and without a deadline are in."""

Amounts = dict[str, str | int | float]


class QuotaMetadata(msgspec.Struct, gc=False):
    """The part of ObjectMeta that is read."""

    name: str = ""
    namespace: str = ""
    resourceVersion: str = ""  # noqa: N815  # as the API spells it


class _ScopeExpression(msgspec.Struct, gc=False):
    scopeName: str = ""  # noqa: N815
    operator: str = ""
    values: list[str] | None = None


class _ScopeSelector(msgspec.Struct, gc=False):
    matchExpressions: list[_ScopeExpression] | None = None  # noqa: N815


class _QuotaSpec(msgspec.Struct, gc=False):
    hard: Amounts | None = None
    scopes: list[str] | None = None
    scopeSelector: _ScopeSelector | None = None  # noqa: N815


class _QuotaStatus(msgspec.Struct, gc=False):
    hard: Amounts | None = None
    used: Amounts | None = None


class QuotaObject(msgspec.Struct, gc=False):
    """A ResourceQuota, decoded no further than it is read."""

    metadata: QuotaMetadata
    spec: _QuotaSpec | None = None
    status: _QuotaStatus | None = None


def read_quota(item: QuotaObject) -> Quota | None:
    """What it limits of pods' requests; ``None`` where serving pods are none of its own.

    ``used`` is empty where the status does not tell it. Raises ``QuantityError``.
    """
    spec, status = item.spec or _QuotaSpec(), item.status or _QuotaStatus()
    selector = (spec.scopeSelector.matchExpressions if spec.scopeSelector else None) or []
    scopes = [*(_ScopeExpression(scopeName=scope, operator="Exists") for scope in spec.scopes or ()), *selector]
    priorities: list[tuple[str, tuple[str, ...]]] = []
    for scope in scopes:
        if scope.scopeName == "PriorityClass":
            priorities.append((scope.operator, tuple(scope.values or ())))
        elif scope.scopeName not in _HOLD_FOR_SERVING:
            return None
    hard, used = (_of_requests(each) for each in (status.hard or spec.hard, status.used))
    if not hard:
        return None
    return Quota(name=item.metadata.name, hard=hard, used=used, priority_classes=tuple(priorities), is_used_known=bool(status.used))


def _of_requests(amounts: Amounts | None) -> dict[str, int]:
    """Resource -> amount, of what limits requests; limits of limits and of other objects are left out."""
    stated = resources({name: value for name, value in (amounts or {}).items() if name.startswith(_REQUESTS) or name in _PLAIN})
    found: dict[str, int] = {}
    for name, amount in stated.items():
        resource = name.removeprefix(_REQUESTS) if name.startswith(_REQUESTS) else _PLAIN[name]
        found[resource] = min(amount, found.get(resource, amount))  # a quota may limit one thing under two names
    return found


def quota_from(body: Mapping[str, Any]) -> QuotaObject:
    """A ResourceQuota from plain values. Raises ``msgspec.ValidationError`` naming the field."""
    return msgspec.convert(body, QuotaObject, strict=False)
