"""A model's folder, as downloaded -> a ``ModelProfile``. Reads config.json and the index, never a weight."""

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.model_profiles import KIND, read_profile
from shardgate.adapters.models.catalogue import Question, find_model
from shardgate.api import API_VERSION
from shardgate.domain.declaration import ModelUnknown
from shardgate.shells.documents import NoSuchFile
from shardgate.shells.failures import NotReadable

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
LONGEST_FILE = 64 * 2**20
"""Of the JSON files that are read whole."""
HEADER_LENGTH = 8


@dataclass(eq=False)  # not frozen: Python itself sets an exception's traceback
class UnreadableFolder(NotReadable):
    """A file of the folder cannot be read, and why."""

    path: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def profile_of_folder(folder: str, match: Sequence[str], name: str | None) -> dict[str, Any]:
    """The ModelProfile. Raises ``NoSuchFile`` and ``UnreadableFolder``."""
    place = Path(folder)
    if not (place / CONFIG).is_file():
        problem = f"{place / CONFIG}: no such file"
        raise NoSuchFile(problem)
    spec: dict[str, Any] = {"match": list(match) or [str(place.resolve())], "config": _json(place / CONFIG)}
    total = _tensor_bytes(place)
    if total is not None:
        spec["safetensors"] = {"totalBytes": total}
    disk = sum(each.stat().st_size for each in place.iterdir() if each.is_file())
    spec["diskBytes"] = disk
    label = re.sub(r"[^a-z0-9]+", "-", (name or place.resolve().name).lower()).strip("-")[:63].strip("-") or "model"
    profile = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": label}, "spec": spec}
    _check(profile, place)
    return profile


def _check(profile: dict[str, Any], place: Path) -> None:
    """What would not be read later is said now."""
    try:
        found = find_model(
            Question(name=profile["spec"]["match"][0].replace("*", ""), config=None, weights=None, dtype=None),
            [read_profile(profile)],
        )
    except ExceptionGroup as problems:
        raise UnreadableFolder(place / CONFIG, "; ".join(str(each) for each in mistakes_in(problems))) from None
    if isinstance(found.model, ModelUnknown):
        raise UnreadableFolder(place / CONFIG, found.model.problem)


def _tensor_bytes(place: Path) -> int | None:
    """What the index says, or the lone file's size without its header; ``None`` where there is neither."""
    if (place / INDEX).is_file():
        metadata = _json(place / INDEX).get("metadata")
        total = metadata.get("total_size") if isinstance(metadata, dict) else None
        if not isinstance(total, int) or isinstance(total, bool) or total < 1:
            raise UnreadableFolder(place / INDEX, f"metadata.total_size needs a number of bytes, not {total!r}")
        return total
    single = place / SINGLE
    if not single.is_file():
        return None
    size = single.stat().st_size
    with single.open("rb") as file:
        start = file.read(HEADER_LENGTH)
    header = struct.unpack("<Q", start)[0] if len(start) == HEADER_LENGTH else size
    if HEADER_LENGTH + header >= size:
        raise UnreadableFolder(single, "is no safetensors file")
    return int(size - HEADER_LENGTH - header)


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LONGEST_FILE:
            raise UnreadableFolder(path, f"{path.stat().st_size} bytes, more than {LONGEST_FILE} are not read")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UnreadableFolder(path, str(error)) from None
    if not isinstance(found, dict):
        raise UnreadableFolder(path, f"needs an object, not {type(found).__name__}")
    return found
