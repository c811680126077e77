"""Runs the command line in this process, with the exit code, output and errors that a shell would see.

Starting Python and importing everything takes most of a second, and the contract lies in ``main``; that the
installed command works is shown once, in a process of its own.
"""

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from unittest import mock

from shardgate.shells.cli import main


@dataclass(frozen=True)
class Ended:
    """As of ``subprocess.run``."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str, stdin: str = "", **environment: str) -> Ended:
    """``shardgate ARGUMENTS`` with no more environment than this."""
    out, err = io.StringIO(), io.StringIO()
    clean = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "COLUMNS": "120", **environment}
    with (
        mock.patch.dict(os.environ, clean, clear=True),
        mock.patch.object(sys, "argv", ["shardgate", *arguments]),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    assert "Traceback" not in out.getvalue() + err.getvalue()
    return Ended(code, out.getvalue(), err.getvalue())
