"""Runs a program until it ends or until our standard input closes: then it is stopped. See ``processes.py``.

The first argument is the file that takes the program's standard output; ``-`` for where its errors go.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE_SECONDS = 15


def main() -> int:
    """Start it, print its process id, watch."""
    output, *command = sys.argv[1:]
    with Path(output).open("wb") if output != "-" else contextlib.nullcontext(sys.stderr) as stdout:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # after the start: the program has them as usual
        signal.signal(number, signal.SIG_IGN)
    sys.stdout.write(f"{program.pid}\n")
    sys.stdout.flush()
    while program.poll() is None:
        readable, _, _ = select.select([0], [], [], 0.2)
        if readable and not os.read(0, 4096):
            break
    deadline = time.monotonic() + GRACE_SECONDS
    with contextlib.suppress(ProcessLookupError):
        program.terminate()
    while program.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if program.poll() is None:
        program.kill()
    return program.wait()


if __name__ == "__main__":
    code = main()
    sys.exit(code if code >= 0 else 128 - code)
