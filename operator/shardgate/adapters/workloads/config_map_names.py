"""Which ConfigMaps an object names: as volumes, variables, or a configuration of its own kind."""

from collections.abc import Iterator, Mapping
from typing import Any

from shardgate.adapters.workloads.values import mapping

MOST_DEPTH = 16
_NAMED_BY = ("configMap", "configMapRef", "configMapKeyRef")


def config_maps_named(body: Mapping[str, Any]) -> Iterator[str]:
    """Their names, each once, in the object's namespace."""
    seen: set[str] = set()
    inference = mapping(body.get("inference"))  # KAITO's Workspace
    for name in (*_walk(body.get("spec"), 0), *_walk(inference, 0), inference.get("config")):
        if isinstance(name, str) and name and name not in seen:
            seen.add(name)
            yield name


def _walk(value: object, depth: int) -> Iterator[object]:
    if depth > MOST_DEPTH:
        return
    if isinstance(value, dict):
        for key, each in value.items():
            if key in _NAMED_BY and isinstance(each, dict):
                yield each.get("name")
            else:
                yield from _walk(each, depth + 1)
    elif isinstance(value, list):
        for each in value:
            yield from _walk(each, depth + 1)
