"""Logging that nothing waits for: whoever takes our output may be slow, hang, or have no room on its disk.

The handlers that were there write in a thread of their own. Lines that find no room before them, or cannot be written,
are counted and lost.
"""

import atexit
import contextlib
import logging
import logging.handlers
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path

MOST_LINES = 2000
"""That wait to be written; at 1 kB a line, 2 MB."""
LAST_SECONDS = 1.0
"""For what is left when the process ends."""


class LogQueue(logging.handlers.QueueHandler):
    """Stands in the root logger in place of its handlers."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._lines: queue.Queue[logging.LogRecord | None] = queue.Queue(MOST_LINES)
        super().__init__(self._lines)
        self._on_lost = on_lost
        self._handlers: list[logging.Handler] = []
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)

    def install(self) -> None:
        """Take the place of the root logger's handlers."""
        root = logging.getLogger()
        self._handlers = list(root.handlers)
        for each in self._handlers:
            each.handleError = self.handleError  # type: ignore[method-assign]  # the default writes to where writing failed
        root.handlers[:] = [self]
        self._thread.start()

    def uninstall(self) -> None:
        """Give it back, and wait a moment until what was logged is written.

        Handlers that hang are not given back: whoever logs, or ends the process, would wait for them for ever.
        """
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(LAST_SECONDS)
        if not self._thread.is_alive():
            logging.getLogger().handlers[:] = self._handlers
            return
        atexit.unregister(logging.shutdown)
        sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # Python flushes them at its end

    def enqueue(self, record: logging.LogRecord) -> None:
        """Never waits."""
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._on_lost()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802  # as logging names it
        """A line could not be written."""
        self._on_lost()

    def _write(self) -> None:
        while (record := self._lines.get()) is not None:
            for each in self._handlers:
                if record.levelno >= each.level:
                    each.handle(record)
