"""The labels that NVIDIA's GPU Feature Discovery makes of the emulated drivers, kept in ``tests/data/nvml/gfd-labels.json``.

It is built from its Go module (with cgo, some minutes the first time) and loads the emulated library as it would NVIDIA's.
Run by hand: ``python tests/nvml/gfd.py``, ``--binary PATH`` for one that is built already.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deploy/local"), str(ROOT / "tests")]

from controlplane.go_build import cache_home, go_command
from nvml.library import BEFORE_450, NAMES, PROFILES, build, environment

VERSION = "v0.18.0"
MODULE, COMMAND = "github.com/NVIDIA/k8s-device-plugin", "cmd/gpu-feature-discovery"
KEPT = ROOT / "tests/data/nvml/gfd-labels.json"
STRATEGIES = ("none", "single", "mixed")


def built() -> Path:
    """The program, from the cache or its module. NVML's symbols are looked up when they are called, so binding is lazy.

    A module of our own requires it: ``go install`` of a version would ask for all versions that there are.
    """
    program = cache_home() / f"gpu-feature-discovery-{VERSION}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "go.mod").write_text(f"module local\n\ngo 1.26\n\nrequire {MODULE} {VERSION}\n")
            command = [
                go_command(print),
                "build",
                "-mod=mod",
                "-ldflags=-extldflags=-Wl,-z,lazy",
                "-o",
                program,
                f"{MODULE}/{COMMAND}",
            ]
            subprocess.run(command, check=True, cwd=folder, env={**os.environ, "CGO_ENABLED": "1"})
    return program


def labels_of(binary: Path, library: Path, name: str, strategy: str, folder: Path) -> dict[str, Any]:
    """Labels, or how it ended."""
    output = folder / "labels"
    output.unlink(missing_ok=True)
    result = subprocess.run(
        [
            binary, "--oneshot", "--no-timestamp", f"--mig-strategy={strategy}", f"--output-file={output}",
            "--driver-root-ctr-path=/", f"--machine-type-file={folder}/none",
        ],
        env=environment(library, PROFILES / f"{name}.json"), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if result.returncode:
        said = result.stderr.strip().splitlines()[-1]
        return {"exitCode": result.returncode, "error": said.partition("] ")[2] or said}
    return {"labels": dict(sorted(line.split("=", 1) for line in output.read_text().splitlines()))}


def main() -> int:
    """Writes the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", type=Path)
    options = parser.parse_args()
    binary = (options.binary or built()).resolve()
    kept: dict[str, Any] = {
        "about": (
            f"What gpu-feature-discovery of NVIDIA/k8s-device-plugin {VERSION} made of the profiles in tests/nvml/profiles, by MIG "
            "strategy: written by tests/nvml/gfd.py. gpu.machine and gpu.mode come from the machine, not from NVML."
        )
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            library = build(Path(folder), before_450=name in BEFORE_450)
            kept[name] = {each: labels_of(binary, library, name, each, Path(folder)) for each in STRATEGIES}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
