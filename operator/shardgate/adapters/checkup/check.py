"""One check of a live installation, and the forms that what was read comes in."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]


class State(StrEnum):
    """How a check came out, worst last."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It could not be told; the message says why."""
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line, and what to do about it."""

    name: str
    """Stable: ``webhooks``, ``refusal``, ``rbac``."""
    state: State
    message: str
    repair: str = ""

    def json(self) -> Json:
        """As it is printed."""
        return {"name": self.name, "state": self.state.value, "message": self.message, "repair": self.repair or None}


@dataclass(frozen=True, slots=True)
class Unread:
    """Something that could not be read."""

    why: str


Found: TypeAlias = Json | Unread | None
"""An object; ``None`` where there is none."""
Listed: TypeAlias = list[Json] | Unread
"""All objects of a kind; none where the kind is not served."""

ESSENTIAL = ("webhooks", "answer", "refusal", "lease")
"""Without these nothing can be said of whether admission works."""


def is_healthy(checks: Iterable[Check]) -> bool | None:
    """``None`` where nothing failed, and something essential could not be told."""
    found = list(checks)
    if any(each.state is State.FAILED for each in found):
        return False
    return None if any(each.state is State.UNKNOWN and each.name in ESSENTIAL for each in found) else True


def _line(text: str) -> str:
    """Others' words may have several."""
    return " ".join(text.split())


def ok(name: str, message: str) -> Check:
    """All is well."""
    return Check(name=name, state=State.OK, message=_line(message))


def warning(name: str, message: str, repair: str) -> Check:
    """It works, and somebody should look at it."""
    return Check(name=name, state=State.WARNING, message=_line(message), repair=repair)


def failed(name: str, message: str, repair: str) -> Check:
    """It does not work."""
    return Check(name=name, state=State.FAILED, message=_line(message), repair=repair)


def unknown(name: str, why: str, repair: str = "") -> Check:
    """It could not be told."""
    return Check(name=name, state=State.UNKNOWN, message=_line(why), repair=repair)
