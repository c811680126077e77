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
    most: dict[str, int] = {}
    defaults: dict[str, int] = {}
    for limit in (item.spec.limits if item.spec is not None else None) or ():
        if limit.type in ("Pod", "Container"):
            for name, amount in resources(limit.max).items():
                most[name] = min(amount, most.get(name, amount))
        if limit.type == "Container":
            # The API server makes a default limit the default request where there is none, and a maximum the limit.
            defaults |= resources({**(limit.max or {}), **(limit.default or {}), **(limit.defaultRequest or {})}, up=True)
    if not most and not defaults:
        return None
    return LimitRange(name=item.metadata.name, most=most, default_requests=defaults)


def limit_range_from(body: Mapping[str, Any]) -> LimitRangeObject:
    """A LimitRange from plain values. Raises ``msgspec.ValidationError`` naming the field."""
    return msgspec.convert(body, LimitRangeObject, strict=False)
