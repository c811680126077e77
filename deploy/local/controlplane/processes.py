"""Programs that do not outlive us, and free ports.

Each program runs under ``guard.py``, whose standard input is a pipe from this process: when the pipe closes, however
this process ended, the guard stops the program.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GUARD = Path(__file__).with_name("guard.py")


class StartError(Exception):
    """A program did not come up; the message has the end of its log."""


def free_ports(how_many: int) -> list[int]:
    """Ports on 127.0.0.1 that were free a moment ago, each another one."""
    sockets = [socket.socket() for _ in range(how_many)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Guarded:
    """A program under a guard, its output in a log file."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.name, self.log = name, log
        with log.open("ab") as output:
            self._guard = subprocess.Popen(
                [sys.executable, "-S", "-E", str(GUARD), "-", *command],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output,
                env=dict(environment) if environment is not None else None, start_new_session=True,
            )  # fmt: skip
        with self._guard.stdout as output:  # type: ignore[union-attr]  # it is a pipe
            line = output.readline()
        self.pid = int(line) if line.strip() else None

    def is_running(self) -> bool:
        """Whether the program still runs."""
        return self._guard.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the program itself."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, timeout: float = 20) -> int | None:
        """SIGTERM, then SIGKILL; returns the exit code."""
        if self._guard.stdin and not self._guard.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
        try:
            return self._guard.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self) -> None:
        """SIGKILL at once."""
        self.signal(signal.SIGKILL)
        self._guard.wait(10)
        if self._guard.stdin and not self._guard.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()

    def wait(self, timeout: float) -> int:
        """Wait for the program to end by itself."""
        return self._guard.wait(timeout)

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_until(self, ready: Callable[[], bool], timeout: float) -> None:
        """Poll until ready; raises ``StartError`` when the program ends or time is up."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.is_running():
                problem = f"{self.name} ended with {self._guard.returncode}; the end of {self.log}:\n{self.tail()}"
                raise StartError(problem)
            if time.monotonic() > deadline:
                problem = f"{self.name} was not ready after {timeout:.0f} s; the end of {self.log}:\n{self.tail()}"
                raise StartError(problem)
            time.sleep(0.05)
