"""What is wrong with an input, said so that its author can mend it."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError


@dataclass(eq=False)  # not frozen: Python itself sets an exception's traceback
class DeclarationError(Exception):
    """One mistake in a declaration: the field as the user spelled it, and the problem."""

    where: str
    problem: str
    is_unknown: bool = False
    """A field, or one of a list of values, that this version does not know: of a newer schema, it is no mistake."""

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


def problems_of(error: ValidationError) -> ExceptionGroup[DeclarationError]:
    """All of pydantic's errors, with field paths as in the manifest."""
    return group(
        [
            DeclarationError(_path(each["loc"]) or "document", _sentence(each["msg"]), is_unknown=each["type"] in _UNKNOWN)
            for each in error.errors(include_url=False)
        ]
    )


_UNKNOWN = ("extra_forbidden", "enum")
"""Pydantic's names of what an API server with our own schema would have refused already."""


def group(errors: Sequence[DeclarationError]) -> ExceptionGroup[DeclarationError]:
    """All mistakes of one declaration."""
    return ExceptionGroup("the declaration has mistakes", list(errors))


def mistakes_in(error: ExceptionGroup[DeclarationError]) -> list[DeclarationError]:
    """The mistakes, flat."""
    return [each for each in error.exceptions if isinstance(each, DeclarationError)]


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.lstrip(".")


def _sentence(message: str) -> str:
    """Pydantic's wording, without its capital."""
    return message[:1].lower() + message[1:] if message[1:2].islower() else message
