"""Finds helm, promtool and Prometheus, or builds them from pinned Go modules, as the control plane's programs are.

Order of look-up: ``$SHARDGATE_TOOLS`` (a folder), the PATH, the cache, a build. The modules stand beside the control plane's own.
"""

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from controlplane.go_build import BuildError, Say, build, cache_home, kept, key_of

MODULES = Path(__file__).resolve().parent.parent / "tools"
RECIPE = 1
"""Counts changes of how the programs are built."""
Tool = Literal["helm", "promtool", "prometheus"]


@dataclass(frozen=True)
class _Source:
    """Where a program comes from: a folder of ``MODULES``, all that is built there, and how long that takes on 2 cores."""

    module: str
    packages: dict[str, str]
    typical_seconds: float


_PROMETHEUS = _Source(
    "prometheus",
    {name: f"github.com/prometheus/prometheus/cmd/{name}" for name in ("promtool", "prometheus")},
    typical_seconds=300,
)
_SOURCES: dict[Tool, _Source] = {
    "helm": _Source("helm", {"helm": "helm.sh/helm/v3/cmd/helm"}, typical_seconds=90),
    "promtool": _PROMETHEUS,
    "prometheus": _PROMETHEUS,
}


def find_tool(name: Tool, say: Say) -> Path:
    """One of them: found, or built while ``say`` is told how far it is. Raises ``BuildError``."""
    found = found_tool(name)
    if found is not None:
        return found
    source = _SOURCES[name]
    module = MODULES / source.module
    version = _required(module)

    def fill(target: Path) -> None:
        what = f"{source.module} {version}"
        build(module, source.packages, target, say, what=what, stamp=_stamp(module), typical_seconds=source.typical_seconds)

    return kept(source.module, _key(module), source.packages, fill, say) / name


def found_tool(name: Tool) -> Path | None:
    """The same, where nothing has to be built for it."""
    folders = os.pathsep.join(filter(None, (os.environ.get("SHARDGATE_TOOLS"), os.environ.get("PATH"))))
    if path := shutil.which(name, path=folders):
        return Path(path)
    source = _SOURCES[name]
    home = cache_home() / source.module / _key(MODULES / source.module) / name
    return home if os.access(home, os.X_OK) else None


def _key(module: Path) -> str:
    return key_of([module / "go.mod", module / "go.sum"], RECIPE)


def _required(module: Path, package: str = "") -> str:
    """The version that the module pins, of what it is there for or of another."""
    text = (module / "go.mod").read_text()
    found = re.search(rf"^\s*(?:require )?{re.escape(package)} (v\S+)" if package else r"^require \S+ (v\S+)", text, re.MULTILINE)
    if found is None:
        problem = f"{module / 'go.mod'} requires no {package or 'version'}"
        raise BuildError(problem)
    return found[1]


def _stamp(module: Path) -> dict[str, str]:
    """Helm judges a chart's ``kubeVersion`` by the Kubernetes that it was linked for, which its own build sets so."""
    if module.name != "helm":
        return {}
    minor = _required(module, "k8s.io/client-go").split(".")[1]
    stamp = {"helm.sh/helm/v3/internal/version.version": _required(module)}
    for package in ("helm.sh/helm/v3/pkg/lint/rules", "helm.sh/helm/v3/pkg/chartutil"):
        stamp |= {f"{package}.k8sVersionMajor": "1", f"{package}.k8sVersionMinor": minor}
    return stamp


def main() -> int:
    """``python -m controlplane.tools NAME ...``: make sure that they are there, and say where."""
    say: Say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731  # a command's progress
    for name in sys.argv[1:]:
        if name not in _SOURCES:
            say(f"error: {name} is none of {', '.join(_SOURCES)}")
            return 2
        try:
            print(find_tool(name, say))  # a command's output
        except BuildError as error:
            say(f"error: {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
