"""Parts of an object that may be of any form: those of the right one, nothing else."""

from collections.abc import Sequence
from typing import Any


def dicts(value: object) -> list[dict[str, Any]]:
    """Those items that are objects."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def mapping(value: object) -> dict[str, Any]:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else {}


def words(value: object) -> list[str]:
    """A list's items as text."""
    return [each if isinstance(each, str) else str(each) for each in value if each is not None] if isinstance(value, list) else []


def whole(value: object, default: int | None) -> int | None:
    """A whole number, written as one or as text; ``None`` for what is none."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    try:
        return int(value)
    except ValueError:
        return None


def value_of(line: Sequence[str], flag: str) -> str | None:
    """What a command line gives a flag, the last time that it stands there; ``None`` where it does not."""
    found = None
    for index, word in enumerate(line):
        if word == flag and index + 1 < len(line):
            found = line[index + 1]
        elif word.startswith(f"{flag}="):
            found = word[len(flag) + 1 :]
    return found
