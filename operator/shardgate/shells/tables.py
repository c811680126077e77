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
    for column, width in zip(columns, _shared_out(room, least, whole), strict=True):
        # Widths of our own: rich would narrow a column below its longest word, and cut that.
        table.add_column(column.name, justify="right" if column.is_number else "left", width=width)
    for row in cells:
        table.add_row(*row)
    console.print(Padding(table, (0, 0, 0, indent), expand=False), highlight=False)


def _shared_out(room: int, least: Sequence[int], whole: Sequence[int]) -> list[int]:
    """Each column's width: all of its words, and of what room is left as much of its lines as the others leave."""
    widths = list(least)
    spare = room - sum(least)
    by_need = sorted(range(len(widths)), key=lambda number: whole[number] - least[number])
    for place, number in enumerate(by_need):
        more = min(whole[number] - least[number], spare // (len(by_need) - place))
        widths[number] += more
        spare -= more
    return widths


def _longest_line(text: Text) -> int:
    return max((cell_len(line) for line in text.plain.splitlines()), default=0)


def _longest_word(text: Text) -> int:
    return max((cell_len(word) for word in text.plain.split()), default=0)


def _print_lists(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[Text]], indent: int) -> None:
    """Each row as lines of name and value."""
    widest = max(cell_len(column.name) for column in columns)
    room = max(LEAST_ROOM, console.width - indent - widest - GAP)
    for number, row in enumerate(rows):
        if number:
            console.print()
        for column, cell in zip(columns, row, strict=True):
            names = [column.name]
            for line in cell.wrap(console, room, overflow="fold") or [Text()]:
                name = set_cell_size("".join(names), widest)
                names.clear()
                line.rstrip()
                console.print(Text.assemble(" " * indent, (name, "bold"), " " * GAP, line), highlight=False, soft_wrap=True)
