"""What every form draws: sections of facts, tables, items and notes, as plain text with a tone. No markup of any form."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum


class Tone(StrEnum):
    """How good a value is for whoever reads it. Never said by colour alone: the text says it as well."""

    PLAIN = "plain"
    GOOD = "good"
    WARNING = "warning"
    WAITING = "waiting"
    UNKNOWN = "unknown"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Cell:
    """A value as it is shown."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Column:
    """Of a table; ``is_number``: aligned to the right."""

    name: str
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Labels and their values."""

    items: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one kind; every row has as many cells as there are columns. The first cell names the row."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Card:
    """One thing with a name, a badge, what it says, and labelled lines below."""

    title: str
    text: str
    badge: Cell | None = None
    details: tuple[tuple[str, str], ...] = ()
    code: str = ""
    """A patch, to be shown as it is, line by line."""


@dataclass(frozen=True, slots=True)
class Cards:
    """Cards, in their order."""

    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Items:
    """A list; ``is_ordered`` where the order says something."""

    items: tuple[Cell, ...]
    is_ordered: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """A paragraph."""

    text: str
    tone: Tone = Tone.PLAIN


Block = Facts | Table | Cards | Items | Note


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report. ``key`` is stable, and unique within one."""

    key: str
    title: str
    blocks: tuple[Block, ...] = ()
    sections: tuple["Section", ...] = ()

    def walk(self) -> Iterator["Section"]:
        """This one, and those in it."""
        yield self
        for each in self.sections:
            yield from each.walk()


@dataclass(frozen=True, slots=True)
class Content:
    """A whole report."""

    title: str
    outcome: Cell
    sections: tuple[Section, ...] = field(default=())


def facts(items: Iterable[tuple[str, Cell | str]]) -> Facts:
    """Labels and values, plain ones as text."""
    return Facts(tuple((label, plain(value)) for label, value in items))


def table(caption: str, columns: Iterable[Column | str], rows: Iterable[Iterable[Cell | str]]) -> Table:
    """Columns by name hold text; a name that ends in ``#`` is of numbers."""
    named = tuple(Column(each.removesuffix("#"), each.endswith("#")) if isinstance(each, str) else each for each in columns)
    return Table(caption, named, tuple(tuple(plain(cell) for cell in row) for row in rows))


def plain(value: Cell | str) -> Cell:
    """Text as a cell."""
    return value if isinstance(value, Cell) else Cell(value)


def printable(text: str) -> str:
    """Without control characters, which move a terminal's cursor, turn a line round, or hide what is there."""
    return "".join(each if each.isprintable() or each.isspace() else "\N{REPLACEMENT CHARACTER}" for each in text)
