"""Standard output as commands print on it: a terminal's width and colours where it is one, else neither."""

import os
import sys

from rich.console import Console

from shardgate.shells.tables import UNBOUND_COLUMNS


def console() -> Console:
    """Colours only on a terminal, unless NO_COLOR or FORCE_COLOR say otherwise; COLUMNS sets a width.

    What goes to a file or a pipe is not wrapped: whatever reads it takes lines as they are.
    """
    is_bound = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return Console(emoji=False, highlight=False, width=None if is_bound else UNBOUND_COLUMNS)
