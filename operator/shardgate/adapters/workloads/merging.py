"""Presets and overrides merged as their controllers do: objects by key, lists of named things by name."""

from collections.abc import Mapping
from typing import Any


def merged(base: object, over: object) -> Any:  # as the object
    """``over`` on top of ``base``; lists whose items have names are merged by them, other lists are replaced."""
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        keys = [*base, *(key for key in over if key not in base)]
        return {key: merged(base[key], over[key]) if key in base and key in over else over.get(key, base.get(key)) for key in keys}
    if isinstance(base, list) and isinstance(over, list) and _are_named(base) and _are_named(over):
        names = [each["name"] for each in base]
        by_name = {each["name"]: each for each in over}
        return [
            *(merged(each, by_name[each["name"]]) if each["name"] in by_name else each for each in base),
            *(each for each in over if each["name"] not in names),
        ]
    return base if over is None or (over == [] and isinstance(base, list)) else over


def _are_named(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(each, Mapping) and isinstance(each.get("name"), str) for each in items)
