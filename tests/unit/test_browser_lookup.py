"""Where Chromium is looked for: programs that really run stand for it."""

from pathlib import Path

import pytest

from controlplane.browser import found_browser
from controlplane.go_build import BuildError


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHARDGATE_BROWSER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "playwright"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_one_that_does_not_start_is_passed_over_and_named(tmp_path: Path) -> None:
    stub = program(tmp_path / "bin" / "chromium", "echo install the snap >&2; exit 1")
    good = program(tmp_path / "playwright" / "chromium-1" / "chrome-linux" / "chrome", "echo Chromium 1")
    told: list[str] = []
    assert found_browser(told.append) == good
    assert told == [f"passed over {stub}: --version ended with 1: install the snap"]


def test_the_path_comes_first(tmp_path: Path) -> None:
    program(tmp_path / "playwright" / "chromium-1" / "chrome-linux" / "chrome", "echo Chromium 1")
    first = program(tmp_path / "bin" / "google-chrome", "echo Chromium 2")
    assert found_browser(print) == first


def test_none_is_none(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "chromium", "exit 127")
    assert found_browser(print) is None


@pytest.mark.parametrize(("script", "says"), [("exit 3", "--version ended with 3"), (None, "No such file")])
def test_the_one_that_is_named_must_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, says: str) -> None:
    named = tmp_path / "named"
    if script is not None:
        program(named, script)
    monkeypatch.setenv("SHARDGATE_BROWSER", str(named))
    with pytest.raises(BuildError, match=says):
        found_browser(print)
