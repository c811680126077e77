"""Finds Chromium for the tests of HTML, or unpacks Debian's into the cache: as any user, and without touching the system.

Order of look-up: ``$SHARDGATE_BROWSER`` (a file), the PATH, Playwright's own, the cache, the packages of the distribution where it
has ``apt-get``. What is found is asked for its version first: a snap's stub, or one that lacks a library, is passed over. Only
what the system lacks is fetched; it is never installed.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from controlplane.go_build import BuildError, Say, cache_home, kept, key_of

RECIPE = 1
"""Counts changes of how it is unpacked."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
PACKAGES = ("chromium", "fonts-dejavu-core")
_APT_SECONDS = 900
_NETWORK_SECONDS = 30
_PATIENCE = tuple(
    word
    for option in (f"http::Timeout={_NETWORK_SECONDS}", f"https::Timeout={_NETWORK_SECONDS}", "Retries=0")
    for word in ("-o", f"Acquire::{option}")
)
"""Without a network it is known soon that there is none."""
_START_SECONDS = 60


def find_browser(say: Say) -> Path:
    """A Chromium: found, or unpacked while ``say`` is told. Raises ``BuildError`` where none can be had."""
    found = found_browser(say)
    if found is not None:
        return found
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        problem = f"no Chromium: the PATH has none of {', '.join(NAMES)}, and there is no {' or '.join(missing)} to fetch one"
        raise BuildError(problem)
    return kept("chromium", _key(), ["chromium"], lambda target: _unpack(target, say), say) / "chromium"


def found_browser(say: Say) -> Path | None:
    """The first that is here and starts; ``say`` is told of each that does not.

    Raises ``BuildError`` where the one that ``$SHARDGATE_BROWSER`` names does not start: nobody else was asked for.
    """
    named = os.environ.get("SHARDGATE_BROWSER")
    if named:
        problem = _trouble_of(Path(named))
        if problem:
            text = f"no Chromium: $SHARDGATE_BROWSER is {named}: {problem}"
            raise BuildError(text)
        return Path(named)
    for path in _candidates():
        problem = _trouble_of(path)
        if not problem:
            return path
        say(f"passed over {path}: {problem}")
    return None


def _candidates() -> Iterator[Path]:
    yield from (Path(found) for name in NAMES if (found := shutil.which(name)))
    own = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    programs = sorted([*own.glob("chromium-*/chrome-linux*/chrome"), *own.glob("chromium_headless_shell-*/*/*headless*shell")])
    yield from (path for path in [*programs, cache_home() / "chromium" / _key() / "chromium"] if os.access(path, os.X_OK))


def _trouble_of(program: Path) -> str:
    """Why it does not start; empty where it tells its version."""
    try:
        done = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, errors="replace", check=False, timeout=_START_SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"--version: {error}"
    said = (done.stderr or done.stdout).strip().splitlines()
    return f"--version ended with {done.returncode}{f': {said[-1]}' if said else ''}" if done.returncode else ""


def _key() -> str:
    release = Path("/etc/os-release")
    return key_of([release] if release.exists() else [], RECIPE)


def _unpack(target: Path, say: Say) -> None:
    """Packages that the system lacks, into ``target/root``; ``target/chromium`` starts it with their libraries."""
    say("fetching Chromium from the distribution's packages into the cache, once: about 125 MB")
    root = target / "root"
    with tempfile.TemporaryDirectory(dir=target) as folder:
        state = Path(folder)
        for each in ("lists/partial", "cache/archives/partial", "packages"):
            (state / each).mkdir(parents=True)
        own = [
            "-q",
            "-o",
            f"Dir::State::lists={state / 'lists'}",
            "-o",
            f"Dir::Cache={state / 'cache'}",
            "-o",
            "Debug::NoLocking=1",
            *_PATIENCE,
        ]
        if os.geteuid() == 0:
            own += ["-o", "APT::Sandbox::User=root"]  # a folder of ours is no place for the user _apt
        _run(["apt-get", *own, "update"])
        listed = _run(["apt-get", *own, "install", "--print-uris", "--yes", "--no-install-recommends", *PACKAGES])
        names = re.findall(r"^'[^']+' ([^_\s]+)_\S+\.deb ", listed, re.MULTILINE)
        if "chromium" not in names:
            problem = f"no Chromium: the distribution's packages offer none that is not there already:\n{listed[-1000:]}"
            raise BuildError(problem)
        _run(["apt-get", *own, "download", *names], cwd=state / "packages")
        for package in sorted((state / "packages").glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(root)])
    _write_start(target, root)
    answer = _run([str(target / "chromium"), "--version"])
    say(f"unpacked {answer.strip()}")


def _write_start(target: Path, root: Path) -> None:
    """A script that finds its libraries and fonts beside itself, wherever the folder is moved."""
    program = next(iter(root.glob("usr/lib/chromium*/chromium")), None)
    if program is None:
        problem = "no Chromium: the distribution's package has no usr/lib/chromium/chromium"
        raise BuildError(problem)
    folders = sorted({path.parent for path in root.rglob("*.so*") if path.is_file()})
    libraries = ":".join(f"$here/{path.relative_to(target)}" for path in folders)
    (target / "fonts.conf").write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
        '<dir>/usr/share/fonts</dir><dir prefix="relative">root/usr/share/fonts</dir>'
        '<cachedir prefix="xdg">fontconfig</cachedir></fontconfig>\n'
    )
    start = target / "chromium"
    start.write_text(
        "#!/bin/sh\n"
        'here=$(dirname "$(readlink -f "$0")")\n'
        f'export LD_LIBRARY_PATH="{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"\n'
        'test -e /etc/fonts/fonts.conf || export FONTCONFIG_FILE="$here/fonts.conf"\n'
        f'exec "$here"/{shlex.quote(str(program.relative_to(target)))} "$@"\n'
    )
    start.chmod(0o755)


def _run(command: list[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=cwd, env=environment, timeout=_APT_SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = f"no Chromium: {' '.join(command[:2])}: {error}"
        raise BuildError(problem) from error
    if done.returncode:
        problem = f"no Chromium: {' '.join(command)} failed ({done.returncode}):\n{(done.stdout + done.stderr)[-2000:]}"
        raise BuildError(problem)
    return done.stdout


def main() -> int:
    """``python -m controlplane.browser``: make sure that it is there, and say where; loudly, without failing, if it cannot be."""
    try:
        print(find_browser(lambda text: print(text, file=sys.stderr, flush=True)))
    except BuildError as error:
        print(f"WARNING: the HTML report will NOT be tested in a browser: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
