"""Logging to where nobody reads."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from shardgate.shells import log_queue as module
from shardgate.shells.log_queue import LogQueue


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers[:] = []
    root.setLevel("INFO")
    yield root
    root.handlers[:] = before[0]
    root.setLevel(before[1])


def through(root: logging.Logger, stream: TextIO, lines: list[str]) -> list[int]:
    root.addHandler(logging.StreamHandler(stream))
    lost: list[int] = []
    handler = LogQueue(lambda: lost.append(1))
    handler.install()
    for line in lines:
        root.info(line)
    handler.uninstall()
    return lost


def test_what_is_logged_is_written_in_order(root: logging.Logger, tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(500)]
    with (tmp_path / "log").open("w") as file:
        assert through(root, file, lines) == []
    assert (tmp_path / "log").read_text().splitlines() == lines


def test_nobody_reads(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that is full takes nothing more, and whoever writes into it waits for ever: we do not."""
    monkeypatch.setattr(module, "LAST_SECONDS", 0.05)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))  # put back after the test
    reading, writing = os.pipe()
    total = module.MOST_LINES + 500
    with contextlib.suppress(OSError), os.fdopen(writing, "w") as pipe:  # what is left cannot be written at its end
        lost = len(through(root, pipe, ["x" * 1000] * total))
        assert not [each for each in root.handlers if type(each) is logging.StreamHandler], "whoever logs now would hang"
        assert sys.stdout.name == sys.stderr.name == os.devnull, "and so would Python's own end"
        sys.stdout.close()
        os.close(reading)
    assert total - module.MOST_LINES - 200 < lost < total - module.MOST_LINES


def test_no_room_on_the_disk(root: logging.Logger) -> None:
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as full:
        lost = through(root, full, ["one", "two", "three"])
    assert len(lost) == 3


def test_a_traceback_is_kept(root: logging.Logger, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        root.addHandler(logging.StreamHandler(file))
        handler = LogQueue(lambda: None)
        handler.install()
        try:
            raise ValueError("as asked")  # noqa: TRY301  # for its traceback
        except ValueError:
            root.exception("it failed")
        handler.uninstall()
    assert "ValueError: as asked" in (tmp_path / "log").read_text()
