"""Reads manifests: files, folders and standard input, several documents each, lists taken apart.

What cannot be read is named (file, document, field) and kept aside: the rest goes on.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shardgate.adapters.workloads.embedded_yaml import MOST_NODES
from shardgate.adapters.yaml_size import EndlessYaml, sizes
from shardgate.shells.failures import NotFound

MOST_TIMES = 10
"""As many values as are written may a document have with its aliases put in, beside what is read of any."""
SUFFIXES = (".yaml", ".yml", ".json")


class NoSuchFile(NotFound):
    """A file that was named is not there."""


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a manifest, and where it stands."""

    where: str
    """``serving.yaml, document 2``."""
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What could not be read, and why."""

    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # C where it is built in
    """YAML as kubectl reads it: keys are not given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  # yaml's own signature
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


# Dates stay the strings that they are in a manifest.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def read_documents(paths: Iterable[str]) -> Iterator[Document | Unreadable]:
    """Every object of these files, folders (their .yaml, .yml and .json files, by name) and ``-``.

    Raises ``NoSuchFile``.
    """
    for path in paths:
        for name, text in _texts(path):
            yield from _documents(name, text) if isinstance(text, str) else [Unreadable(name, str(text))]


def _texts(path: str) -> Iterator[tuple[str, str | Exception]]:
    if path == "-":
        try:
            yield "standard input", sys.stdin.read()
        except (OSError, UnicodeDecodeError) as error:
            yield "standard input", error
        return
    place = Path(path)
    if place.is_dir():
        files = sorted(each for each in place.rglob("*") if each.suffix in SUFFIXES and each.is_file())
    elif place.exists():
        files = [place]
    else:
        problem = f"{path}: no such file or folder"
        raise NoSuchFile(problem)
    for each in files:
        try:
            yield str(each), each.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            yield str(each), error


def _documents(name: str, text: str) -> Iterator[Document | Unreadable]:
    values = _as_json(text)
    if values is not None:
        for number, value in enumerate(values, start=1):
            yield from _objects(f"{name}, document {number}", value)
        return
    number = 0
    loader = _Loader(text)
    try:
        while True:
            number += 1
            where = f"{name}, document {number}"
            try:
                if not loader.check_node():
                    return
                value = _value(loader)
            except (yaml.constructor.ConstructorError, EndlessYaml, _TooLarge) as error:
                yield Unreadable(where, _mark(error))
                continue  # the document is known to the end: the next can still be read
            except (yaml.YAMLError, ValueError) as error:
                yield Unreadable(where, _mark(error))
                return
            except RecursionError:
                yield Unreadable(where, "nested too deeply")
                return
            yield from _objects(where, value)
    finally:
        loader.dispose()


class _TooLarge(yaml.YAMLError):
    """Its aliases stand for far more than is written."""


def _value(loader: _Loader) -> object:
    """The next document. Raises ``yaml.YAMLError``, ``ValueError`` and ``RecursionError``."""
    node = loader.get_node()
    size, written = sizes(node)
    most = MOST_NODES + MOST_TIMES * written
    if size > most:
        problem = f"{written} values are written, and with each alias put in they are {_many(size)}: {most} are read at most"
        raise _TooLarge(problem)
    return loader.construct_document(node)


def _many(size: int) -> str:
    return str(size) if size < 10**9 else f"more than {10**9}"


class _NotJson(ValueError):
    """It is read as YAML then, which tells what is wrong and where."""


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BLANKS = re.compile(r"\s*")


def _as_json(text: str) -> list[Any] | None:
    """The documents of a text that is JSON, twenty times as fast as by YAML; ``None`` where it is not, as kubectl would read it."""
    if text[_BLANKS.match(text).end() :][:1] not in ("{", "["):  # type: ignore[union-attr]  # it matches everything
        return None
    decoder = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
    values = []
    at = 0
    try:
        while (at := _BLANKS.match(text, at).end()) < len(text):  # type: ignore[union-attr]  # same
            value, at = decoder.raw_decode(text, at)
            values.append(value)
        if _SURROGATE.search(text):
            json.dumps(values, ensure_ascii=False).encode()  # half of a pair is no character
    except (ValueError, RecursionError):
        return None
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _NotJson
    return found


def _no_constant(_: str) -> None:
    """``NaN`` and its like are no JSON."""
    raise _NotJson


def _objects(where: str, value: object) -> Iterator[Document | Unreadable]:
    if value is None:
        return
    if not isinstance(value, dict):
        yield Unreadable(where, f"needs an object with apiVersion and kind, not {type(value).__name__}")
        return
    kind = value.get("kind")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(value.get("items"), list):
        inherited = {} if kind == "List" else {"apiVersion": value.get("apiVersion"), "kind": kind.removesuffix("List")}
        for index, item in enumerate(value["items"]):  # a NodeList's items need not say that they are Nodes
            yield from _objects(f"{where}, item {index + 1}", {**inherited, **item} if isinstance(item, dict) else item)
        return
    if not isinstance(kind, str) or not isinstance(value.get("apiVersion"), str):
        missing = " and ".join(key for key in ("apiVersion", "kind") if not isinstance(value.get(key), str))
        yield Unreadable(where, f"{missing} missing")
        return
    metadata = value.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        yield Unreadable(where, "metadata: needs an object")
        return
    yield Document(where, value)


def _mark(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
