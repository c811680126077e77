"""``python -m shardgate`` and the ``shardgate`` command."""

import os
import sys
from pathlib import Path

AGENT = "agent"


def main() -> None:
    """The node agent past everything else: it runs on every GPU node, and does without what the other commands import."""
    _open_what_is_closed()
    if sys.argv[1:2] == [AGENT]:
        from shardgate.shells.agent.command import run  # noqa: PLC0415  # so that neither loads the other

        sys.exit(run(sys.argv[2:]))
    from shardgate.shells.cli import main as command_line  # noqa: PLC0415  # same

    command_line()


def _open_what_is_closed() -> None:
    """A standard stream that a shell closed (``>&-``) is ``None`` to Python: what goes there goes nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # to the end of the process


if __name__ == "__main__":
    main()
