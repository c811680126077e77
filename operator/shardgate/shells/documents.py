"""Reads manifests: files, folders and standard input, several documents each, lists taken apart.

What cannot be read is named (file, document, field) and kept aside: the rest goes on.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shardgate.shells.failures import NotFound

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
        yield "standard input", sys.stdin.read()
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
    number = 0
    loader = _Loader(text)
    try:
        while True:
            number += 1
            where = f"{name}, document {number}"
            try:
                if not loader.check_data():
                    return
                value = loader.get_data()
            except yaml.constructor.ConstructorError as error:
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
