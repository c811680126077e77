"""A running agent on a real GPU, that writes to a real API server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.live import until
from controlplane.installation import Installation
from controlplane.plane import ControlPlane
from nvml.agents import AgentProcess, reaching
from shardgate.domain.units import GIBI

Json = dict[str, Any]

NODE = "this-machine"
PROGRAM = str(Path(__file__).with_name("cuda_program.py"))
ERRORS_OF_A_PROGRAM = {13, 31, 43}
"""Xids that a program's bad write may leave, by NVIDIA's list of them: graphics exception, page fault, stopped processing."""


@pytest.fixture(scope="module")
def agent(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    Installation(plane).install()
    plane.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    folder = tmp_path_factory.mktemp("agent")
    running = AgentProcess(folder, NODE, [*reaching(plane, folder, "default"), "--interval=0.5", "--heartbeat=2"])
    until("a report stands", lambda: bool(first(plane)))
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


def first(plane: ControlPlane) -> Json:
    """What the report says of the first GPU."""
    shown = plane.kubectl("get", "gpunodereport", NODE, "-o", "json", check=False)
    gpus = json.loads(shown.stdout).get("status", {}).get("gpus") if shown.returncode == 0 else None
    return gpus[0] if gpus else {}


@pytest.mark.usefixtures("agent")
def test_memory_that_a_program_holds_is_told_and_that_it_is_free_again(plane: ControlPlane) -> None:
    before = first(plane)["memory"]["usedBytes"]
    command = [sys.executable, PROGRAM, "hold", str(8 * GIBI)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        # The report is written every 10 s at most for memory.
        until("it is told", lambda: first(plane)["memory"]["usedBytes"] >= before + 8 * GIBI, 30)
        told = first(plane)
        assert told["memory"]["usedBytes"] < before + 10 * GIBI  # its context takes some hundred MiB
        assert len(told["processes"]) == 1
    assert holder.returncode == 0
    until("it is free again", lambda: first(plane)["memory"]["usedBytes"] < before + GIBI, 30)
    until("no process is left", lambda: first(plane)["processes"] == [], 30)


def test_an_error_that_only_a_program_makes_is_told_and_the_gpu_stays_healthy(agent: AgentProcess, plane: ControlPlane) -> None:
    ended = subprocess.run([sys.executable, PROGRAM, "fault"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    until("the error is told", lambda: bool(first(plane).get("xids")), 30)
    told = first(plane)
    assert set(told["xids"]) <= ERRORS_OF_A_PROGRAM
    assert told["health"] == {"state": "Healthy"}
    assert agent.metric('shardgate_node_gpus{state="Healthy"}') == 1
