"""Standard output whose reader may go: what is written then is lost, and the command still ends with its own exit code."""

import os
from typing import Any, TextIO


class LastingOutput:
    """A stream that goes on where its pipe is broken (``shardgate verify .. | head``): a refusal stays exit code 1."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As the stream does."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """As the stream does."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._give_up()

    def _give_up(self) -> None:
        """Whatever is written from now on, and what Python still holds back, goes nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:  # the stream's own
        return getattr(self._stream, name)
