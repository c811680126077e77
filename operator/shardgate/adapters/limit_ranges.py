"""``LimitRange`` objects -> what a namespace's pods may ask for at most, and what they ask for where they say nothing."""

from collections.abc import Mapping
from typing import Any

import msgspec

from shardgate.adapters.quantities import resources
from shardgate.domain.inventory import LimitRange

Amounts = dict[str, str | int | float]


class LimitRangeMetadata(msgspec.Struct, gc=False):
    """The part of ObjectMeta that is read."""

    name: str = ""
    namespace: str = ""
    resourceVersion: str = ""  # noqa: N815  # as the API spells it


class _Limit(msgspec.Struct, gc=False):
    type: str = ""
    max: Amounts | None = None
    min: Amounts | None = None
    default: Amounts | None = None
    defaultRequest: Amounts | None = None  # noqa: N815


class _LimitRangeSpec(msgspec.Struct, gc=False):
    limits: list[_Limit] | None = None


class LimitRangeObject(msgspec.Struct, gc=False):
    """A LimitRange, decoded no further than it is read."""

    metadata: LimitRangeMetadata
    spec: _LimitRangeSpec | None = None


def read_limit_range(item: LimitRangeObject) -> LimitRange | None:
    """What bears on pods' requests; ``None`` where nothing does. Raises ``QuantityError``."""
    most: dict[str, dict[str, int]] = {"Pod": {}, "Container": {}}
    defaults: dict[str, int] = {}
    for limit in (item.spec.limits if item.spec is not None else None) or ():
        if limit.type in most:
            for name, amount in resources(limit.max).items():
                most[limit.type][name] = min(amount, most[limit.type].get(name, amount))
        if limit.type == "Container":
            # The API server takes the first that is there: the default request, the default limit, the maximum, the minimum.
            told = {**(limit.min or {}), **(limit.max or {}), **(limit.default or {}), **(limit.defaultRequest or {})}
            defaults |= resources(told, up=True)
    if not any(most.values()) and not defaults:
        return None
    return LimitRange(
        name=item.metadata.name, most_of_pod=most["Pod"], most_of_container=most["Container"], default_requests=defaults
    )


def limit_range_from(body: Mapping[str, Any]) -> LimitRangeObject:
    """A LimitRange from plain values. Raises ``msgspec.ValidationError`` naming the field."""
    return msgspec.convert(body, LimitRangeObject, strict=False)
