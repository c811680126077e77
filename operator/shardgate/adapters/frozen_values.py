"""Frozen values <-> JSON, whatever they hold: what was judged, so that it can be judged again elsewhere.

Each value stands once, after those that it holds; what holds it names its place. So what is shared stays shared, and
reading needs no recursion. Only classes of the decision are known here: a document makes values, and runs nothing.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from enum import Enum
from types import ModuleType
from typing import Any

import msgspec

from shardgate.adapters.pods import PodRecord
from shardgate.adapters.workload_declarations import GroupDeclaration
from shardgate.domain import (
    calibration,
    declaration,
    engine,
    estimate,
    inventory,
    model,
    pod_rules,
    policy,
    selectors,
    strategy,
    traffic,
)
from shardgate.domain.performance import rates

Json = dict[str, Any]

_MODULES: tuple[ModuleType, ...] = (
    calibration, declaration, engine, estimate, inventory, model, pod_rules, policy, rates, selectors, strategy, traffic,
)  # fmt: skip
_PLAIN = (str, int, float, bool, type(None))


class UnknownForm(Exception):
    """The document is of another version, or none of ours."""


def _is_value(found: object) -> bool:
    is_tuple = isinstance(found, type) and issubclass(found, tuple) and hasattr(found, "_fields")
    return isinstance(found, type) and (dataclasses.is_dataclass(found) or is_tuple or issubclass(found, Enum))


_CLASSES: Mapping[str, type[Any]] = {
    **{name: each for module in _MODULES for name, each in vars(module).items() if _is_value(each) and not name.startswith("_")},
    "GroupDeclaration": GroupDeclaration,
    "PodRecord": PodRecord,
}


def packed(value: Any) -> Json:
    """``{values: [..], root: ..}``. Raises ``TypeError`` for what is no value of the decision."""
    packer = _Packer()
    root = packer.place(value)
    return {"values": packer.values, "root": root}


class _Packer:
    def __init__(self) -> None:
        self.values: list[Json] = []
        self._places: dict[int, int] = {}
        self._kept: list[object] = []
        """Else the next object could get the id of one that went."""

    def place(self, value: Any) -> Any:
        """The value itself where JSON has it, else ``[place]``."""
        if isinstance(value, Enum):
            return [self._put(value, {"enum": type(value).__name__, "value": value.value})]
        if isinstance(value, _PLAIN):
            return str(value) if isinstance(value, str) else value
        if id(value) in self._places:
            return [self._places[id(value)]]
        return [self._put(value, self._form(value))]

    def _put(self, value: object, form: Json) -> int:
        self._places[id(value)] = len(self.values)
        self._kept.append(value)
        self.values.append(form)
        return len(self.values) - 1

    def _form(self, value: Any) -> Json:
        name = type(value).__name__
        if type(value) is _CLASSES.get(name):
            return {"class": name, "fields": {field: self.place(getattr(value, field)) for field in _fields(type(value))}}
        if isinstance(value, Mapping):
            return {"map": [[self.place(key), self.place(each)] for key, each in value.items()]}
        if isinstance(value, (tuple, list)):
            return {"list" if isinstance(value, list) else "tuple": [self.place(each) for each in value]}
        if isinstance(value, (frozenset, set)):
            return {"set": [self.place(each) for each in value]}
        problem = f"{name} is no value of the decision"
        raise TypeError(problem)


def _fields(kind: type[Any]) -> Iterable[str]:
    """What makes a value; names that begin with ``_`` follow from the others."""
    if dataclasses.is_dataclass(kind):
        return [each.name for each in dataclasses.fields(kind) if not each.name.startswith("_")]
    return kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else kind._fields


def unpacked(document: Any) -> Any:
    """The value. Raises ``UnknownForm``."""
    try:
        values: list[Any] = []
        for form in document["values"]:
            values.append(_value(form, values))
        return _at(document["root"], values)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UnknownForm(problem) from error


def _value(form: Json, values: list[Any]) -> Any:
    if "enum" in form:
        return _CLASSES[form["enum"]](form["value"])
    if "class" in form:
        return _CLASSES[form["class"]](**{name: _at(each, values) for name, each in form["fields"].items()})
    if "map" in form:
        return {_at(key, values): _at(each, values) for key, each in form["map"]}
    if "tuple" in form:
        return tuple(_at(each, values) for each in form["tuple"])
    if "list" in form:
        return [_at(each, values) for each in form["list"]]
    return frozenset(_at(each, values) for each in form["set"])


def _at(place: Any, values: list[Any]) -> Any:
    return values[place[0]] if isinstance(place, list) else place
