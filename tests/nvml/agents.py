"""Real ``shardgate agent`` processes, most of them on emulated nodes."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from controlplane.plane import ControlPlane
from nvml.library import PROFILES, environment

Json = dict[str, Any]
START_SECONDS = 30


def reaching(plane: ControlPlane, folder: Path, namespace: str) -> list[str]:
    """Options of an agent that writes as an administrator: what agents may do is tested with the chart."""
    plane.kubectl("create", "serviceaccount", "agent", "-n", namespace)
    account = f"--serviceaccount={namespace}:agent"
    plane.kubectl("create", "clusterrolebinding", f"agents-of-{namespace}", "--clusterrole=cluster-admin", account)
    token = folder / "token"
    token.write_text(plane.kubectl("create", "token", "agent", "-n", namespace).stdout.strip())
    return [f"--server={plane.url}", f"--token-file={token}", f"--ca-file={plane.authority.path}", f"--namespace={namespace}"]


def profile(name: str) -> Json:
    """What a driver is told to say."""
    found: Json = json.loads((PROFILES / f"{name}.json").read_text())
    return found


class EmulatedDriver:
    """A profile in a file of its own, which a test changes while somebody reads."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self.profile = folder / f"{name}-{time.monotonic_ns()}.json", profile(name)
        self.write()

    def write(self) -> None:
        """Have it say what ``profile`` says now, all at once."""
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(self.profile))
        beside.replace(self.path)

    def change(self, change: Callable[[Json], object]) -> None:
        """Alter the profile."""
        change(self.profile)
        self.write()

    def lose(self, index: int) -> None:
        """A GPU falls off the bus."""
        gpu = self.profile["gpus"][index]
        gpu["failure"] = 15
        gpu["errors"] = {"nvmlDeviceGetHandleByIndex_v2": 15}
        self.write()

    def find_again(self, index: int) -> None:
        """It is back."""
        gpu = self.profile["gpus"][index]
        gpu.pop("failure", None)
        gpu.pop("errors", None)
        self.write()


class AgentProcess:
    """One agent, whose log is in ``folder``. It reads this machine's driver, unless its environment has it find another one."""

    def __init__(self, folder: Path, node: str, options: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        descriptor, log = tempfile.mkstemp(prefix=f"agent-{node}-", suffix=".log", dir=folder)
        self.node, self.log = node, Path(log)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "shardgate", "agent", f"--node-name={node}", "--bind-address=127.0.0.1", "--port=0", *options],
            env=environment, stderr=descriptor, stdout=descriptor,
        )  # fmt: skip
        os.close(descriptor)
        deadline = time.monotonic() + START_SECONDS
        while not (found := re.search(r"metrics on port (\d+)", self.log.read_text())):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the agent did not start:\n{self.log.read_text()}")
            time.sleep(0.05)
        self.port = int(found[1])

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def threads(self) -> list[str]:
        """Names of its threads."""
        found = []
        for each in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it ended meanwhile
                found.append((each / "comm").read_text().strip())
        return sorted(found)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of one of its pages."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return int(response.status), response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, series: str) -> float | None:
        """A sample of ``/metrics``, by its name and labels as they stand there."""
        for line in self.get("/metrics")[1].splitlines():
            name, _, value = line.rpartition(" ")
            if name == series:
                return float(value)
        return None

    def stop(self) -> int:
        """End it as the kubelet does; returns its exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise


class EmulatedAgent(AgentProcess):
    """One agent on an emulated driver; its log is beside the driver's profile."""

    def __init__(self, library: Path, driver: EmulatedDriver, node: str, options: Sequence[str]) -> None:
        self.driver = driver
        super().__init__(driver.path.parent, node, options, environment(library, driver.path))
