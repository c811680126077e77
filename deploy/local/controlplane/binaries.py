"""Finds the control plane's programs, or builds them from pinned Go modules.

Order of look-up: ``$KUBEBUILDER_ASSETS``, the cache, the official envtest archive where the network allows it (it has
no scheduler and no controller-manager: those are always built), a build. The cache is keyed by everything that the
result depends on, filled by renaming, and guarded by a lock, so that a build may be interrupted, repeated, or asked
for twice at once. Standard library only: this runs before anything is installed.
"""

import hashlib
import http.client
import io
import json
import os
import platform
import re
import sys
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from controlplane.go_build import BuildError, Say, build, kept, key_of

MODULE = Path(__file__).resolve().parent.parent
KUBERNETES = re.search(r"k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text())[1]  # type: ignore[index]  # always there
RECIPE = 1
"""Counts changes of how the programs are built."""
ENVTEST_ARCHIVE = os.environ.get(
    "SHARDGATE_ENVTEST_ARCHIVE",
    "https://github.com/kubernetes-sigs/controller-tools/releases/download/envtest-{version}/envtest-{version}-{os}-{arch}.tar.gz",
)
TYPICAL_BUILD_SECONDS = 400
"""On 2 cores from an empty cache; only the first guess of the time left."""

PACKAGES = {
    "etcd": "./etcd",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
}


@dataclass(frozen=True)
class Binaries:
    """Name -> path of each program, and where they came from."""

    paths: dict[str, Path]
    origin: str

    def __getitem__(self, name: str) -> str:
        return str(self.paths[name])


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
    home = kept("control-plane", _key(), PACKAGES, lambda target: _fill(target, say), say)
    paths = {name: home / name for name in PACKAGES}
    return Binaries(paths | found, f"cache ({home})" if not found else f"cache ({home}) and $KUBEBUILDER_ASSETS")


def _fill(target: Path, say: Say) -> None:
    _from_archive(target, say)
    _build(target, [name for name in PACKAGES if not (target / name).exists()], say)


def _key() -> str:
    return key_of([MODULE / file for file in ("go.mod", "go.sum", "etcd/main.go")], RECIPE)


def _build(target: Path, names: list[str], say: Say) -> None:
    if not names:
        return
    minor = KUBERNETES.split(".")[1]
    stamp = {
        f"{package}.{name}": value
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for name, value in (("gitVersion", KUBERNETES), ("gitMajor", "1"), ("gitMinor", minor))
    }
    packages, what = {name: PACKAGES[name] for name in names}, f"Kubernetes {KUBERNETES} and etcd"
    build(MODULE, packages, target, say, what=what, stamp=stamp, typical_seconds=TYPICAL_BUILD_SECONDS)


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
