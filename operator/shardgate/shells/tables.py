"""Tables in a terminal of any width, of which nothing is cut.

Where columns do not fit, cells wrap between words; where words do not fit either, each row becomes a list.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

UNBOUND_COLUMNS = 1000
"""Of what is no terminal: lines are as long as they are, for whatever reads them."""
GAP = 2
"""Columns between two cells."""
LEAST_ROOM = 8
"""Columns of a value in a list: on a narrower terminal, the terminal itself breaks the line."""


@dataclass(frozen=True, slots=True)
class Column:
    """Of a table."""

    name: str
    is_number: bool = False
    """Aligned to the right."""


def print_table(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], *, indent: int = 0) -> None:
    """One line a row where that fits the console; nothing where there is no row. Nothing in a cell is taken for markup."""
    if not rows:
        return
    cells = [[Text(each) if isinstance(each, str) else each for each in row] for row in rows]
    room = console.width - indent - GAP * (len(columns) - 1)
    whole, least = (
        [max((measure(row[number]) for row in cells), default=0) for number in range(len(columns))]
        for measure in (_longest_line, _longest_word)
    )
    whole = [max(width, cell_len(column.name)) for width, column in zip(whole, columns, strict=True)]
    least = [max(width, _longest_word(Text(column.name))) for width, column in zip(least, columns, strict=True)]
    if sum(least) > room:
        _print_lists(console, columns, cells, indent)
        return
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column, width in zip(columns, _shared(least, whole, room), strict=True):
        table.add_column(column.name, justify="right" if column.is_number else "left", width=width, overflow="fold")
    for row in cells:
        table.add_row(*row)
    console.print(Padding(table, (0, 0, 0, indent), expand=False), highlight=False)


def _shared(least: Sequence[int], whole: Sequence[int], room: int) -> list[int]:
    """Each column as wide as its longest word, and what is left for those that have more to say.

    Given to rich as they are: what it works out by itself may come out wider than the terminal, and be cut there.
    """
    widths = list(least)
    while (left := room - sum(widths)) > 0 and (short := [at for at, most in enumerate(whole) if widths[at] < most]):
        part = max(1, left // len(short))
        for at in short[:left]:
            widths[at] += min(part, whole[at] - widths[at])
    return widths


def _longest_line(text: Text) -> int:
    return max((cell_len(line) for line in text.plain.splitlines()), default=0)


def _longest_word(text: Text) -> int:
    return max((cell_len(word) for word in text.plain.split()), default=0)


def _print_lists(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[Text]], indent: int) -> None:
    """Each row as lines of name and value; nothing is said of a cell that is empty."""
    widest = max(cell_len(column.name) for column in columns)
    room = max(LEAST_ROOM, console.width - indent - widest - GAP)
    for number, row in enumerate(rows):
        if number:
            console.print()
        for column, cell in zip(columns, row, strict=True):
            names = iter([column.name])
            for line in cell.wrap(console, room, overflow="fold") if cell.plain else ():
                line.rstrip()
                name = set_cell_size(next(names, ""), widest)
                console.print(Text.assemble(" " * indent, (name, "bold"), " " * GAP, line), highlight=False, soft_wrap=True)
