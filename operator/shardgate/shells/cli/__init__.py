"""The command line, also ``kubectl shardgate``: one small module a command, loaded when it is asked for.

A new command is a module with a click command of its name, and a line in ``entry.COMMANDS``. Belongs here: options, exit
codes, and which form is printed. Does not belong here: what a command finds out (``shells``), and how it is drawn
(``shells.terminal``).
"""

from shardgate.shells.cli.entry import cli, main

__all__ = ["cli", "main"]
