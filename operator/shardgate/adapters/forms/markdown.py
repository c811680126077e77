"""The report as Markdown: CommonMark with tables (GitHub's). Text from outside never becomes markup."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from shardgate.adapters.forms.content import Block, Card, Cards, Cell, Content, Facts, Items, Note, Section, Table, Tone, printable
from shardgate.adapters.forms.sections import content

_WIDEST = 140
"""Columns up to which a table's cells are padded: beyond, alignment helps nobody."""
_MARKS = {
    Tone.GOOD: "✅", Tone.WARNING: "⚠️", Tone.WAITING: "⏳", Tone.UNKNOWN: "❔", Tone.BAD: "❌",
}  # fmt: skip


def markdown(reports: Sequence[Mapping[str, Any]]) -> str:
    """All of them, one after the other."""
    return "\n\n---\n\n".join("\n\n".join(_content(content(report))) for report in reports) + "\n"


def _content(whole: Content) -> Iterator[str]:
    yield f"# {inside(whole.title)}"
    yield " ".join(filter(None, ("##", _MARKS.get(whole.outcome.tone), inside(whole.outcome.text))))
    for section in whole.sections:
        yield from _section(section, 2)


def _section(section: Section, level: int) -> Iterator[str]:
    yield f"{'#' * level} {inside(section.title)}"
    for block in section.blocks:
        yield from _block(block, level)
    for each in section.sections:
        yield from _section(each, level + 1)


def _block(block: Block, level: int) -> Iterator[str]:
    match block:
        case Facts(items):
            if items:
                yield "\n".join(f"- **{inside(label)}**: {_cell(cell)}" for label, cell in items)
        case Table():
            yield f"**{inside(block.caption)}**"
            yield _table(block)
        case Cards(cards):
            for each in cards:
                yield from _card(each, level + 1)
        case Items(items, is_ordered=is_ordered):
            yield "\n".join(f"{f'{at}.' if is_ordered else '-'} {_cell(each, escaped)}" for at, each in enumerate(items, 1))
        case Note(text, tone):
            yield f"**{escaped(text)}**" if tone is Tone.BAD else escaped(text)


def _card(card: Card, level: int) -> Iterator[str]:
    badge = f" ({inside(card.badge.text)})" if card.badge else ""
    yield f"{'#' * level} {inside(card.title)}{badge}"
    if card.text:
        yield escaped(card.text)
    if card.details:
        yield "\n".join(f"- **{inside(label)}**: {inside(text)}" for label, text in card.details)
    if card.code:
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", card.code)), default=0))
        yield f"{fence}yaml\n{printable(card.code)}\n{fence}"


def _cell(cell: Cell, escape: Callable[[str], str] | None = None) -> str:
    text = (escape or inside)(cell.text)
    return f"**{text}**" if cell.tone is Tone.BAD and text else text


def _table(of: Table) -> str:
    head = [inside(column.name) for column in of.columns]
    rows = [[_cell(cell) for cell in row] for row in of.rows]
    sizes = [max(3, *(cell_len(row[at]) for row in [head, *rows])) for at in range(len(head))]
    if sum(sizes) + 3 * len(sizes) > _WIDEST:
        sizes = [3] * len(sizes)
    rule = [f"{'-' * (size - 1)}:" if column.is_number else "-" * size for size, column in zip(sizes, of.columns, strict=True)]
    return "\n".join(_row(cells, sizes, of) for cells in [head, rule, *rows])


def _row(cells: Sequence[str], sizes: Sequence[int], of: Table) -> str:
    padded = [
        f"{' ' * (size - cell_len(cell))}{cell}" if column.is_number else f"{cell}{' ' * (size - cell_len(cell))}"
        for cell, size, column in zip(cells, sizes, of.columns, strict=True)
    ]
    return f"| {' | '.join(padded)} |"


_ANYWHERE = re.compile(r"[\\`*<>|~$]|\](?=[(\[:])|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|&(?=#?\w{1,31};)|#(?=#*$)")
"""What is markup wherever it stands: an underscore at the edge of a word, brackets that make a link, what would end a heading."""
_START = re.compile(r"^(?:[-+](?=\s|-|\+|$)|#(?=#*(?:\s|$))|=|\[(?=[ xX]\])|(?P<digits>\d{1,9})(?=[.)](?:\s|$)))")
"""What is markup at the start of a line."""


def inside(text: str) -> str:
    """Text that reads as it is within a line: no part of it markup, HTML or an entity."""
    return _ANYWHERE.sub(r"\\\g<0>", " ".join(printable(text).split()))


def escaped(text: str) -> str:
    """The same where it begins a line."""
    text = inside(text)
    return _START.sub(lambda found: f"{found[0]}\\" if found["digits"] else f"\\{found[0]}", text)
