"""Builds the emulated ``libnvidia-ml.so.1``: with the PATH's C compiler, else with the wheel ``ziglang``."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

from controlplane.go_build import cache_home

HERE = Path(__file__).resolve().parent
PROFILES = HERE / "profiles"
NAMES = sorted(path.stem for path in PROFILES.glob("*.json"))
BEFORE_450 = frozenset({"insane-418"})
ZIG_WHEEL = "ziglang==0.15.2"
SONAME = "libnvidia-ml.so.1"
PROFILE_VARIABLE = "SHARDGATE_NVML_PROFILE"


class NoCompiler(Exception):
    """There is no C compiler, and none can be fetched."""


def compiler() -> list[str]:
    """``$CC``, ``cc``, ``gcc`` or ``clang`` of the PATH, else zig, which is kept in the cache."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return [found]
    home = cache_home() / ZIG_WHEEL.replace("==", "-")
    python = home / "bin" / "python"
    if not (home / ".complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ZIG_WHEEL]
        result = subprocess.run(pip, capture_output=True, text=True, check=False)
        if result.returncode:
            raise NoCompiler(f"no C compiler on the PATH, and installing {ZIG_WHEEL} failed:\n{result.stderr}")
        (home / ".complete").touch()
    return [str(python), "-m", "ziglang", "cc"]


def build(folder: Path, *, before_450: bool = False) -> Path:
    """The library in a folder of its own, which is returned: it is what goes into ``LD_LIBRARY_PATH``."""
    made = folder / ("before-450" if before_450 else "current")
    made.mkdir(parents=True, exist_ok=True)
    command = [
        *compiler(), "-std=gnu11", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror",
        f"-Wl,-soname,{SONAME}", *(["-DNVML_BEFORE_450"] if before_450 else []), "-o", str(made / SONAME),
        str(HERE / "nvml.c"), str(HERE / "json.c"), "-lpthread",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise NoCompiler(f"{' '.join(command)}:\n{result.stderr}")
    return made


def environment(library: Path, profile: Path) -> Mapping[str, str]:
    """For a process that is to see a node as the profile tells it."""
    return {**os.environ, "LD_LIBRARY_PATH": str(library), PROFILE_VARIABLE: str(profile)}


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), before_450="--before-450" in sys.argv))
