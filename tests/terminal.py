"""A command in a pseudo-terminal of a given width: what a person would see there."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[=>]")
COLOURS = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7])(?:;\d+)*m")


@dataclass(frozen=True)
class Shown:
    """What came to the terminal, and the exit code."""

    returncode: int
    raw: str

    @property
    def text(self) -> str:
        """Without colours and the like."""
        return ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    @property
    def has_colours(self) -> bool:
        return COLOURS.search(self.raw) is not None


def on_terminal(
    *arguments: str, columns: int = 100, program: Sequence[str] = (sys.executable, "-m", "shardgate"), **environment: str
) -> Shown:
    """Standard output and error both on one terminal."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    clean = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TERM": "xterm-256color", "LANG": "C.UTF-8", **environment}
    process = subprocess.Popen([*program, *arguments], stdin=follower, stdout=follower, stderr=follower, env=clean, cwd=Path("/"))
    os.close(follower)
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux's way of saying that nobody holds the other end any more
            break
        if not part:
            break
        parts.append(part)
    os.close(leader)
    return Shown(process.wait(timeout=60), b"".join(parts).decode())
