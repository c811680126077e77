"""Real node agents with an emulated driver, on the control plane."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live import until

from controlplane.plane import ControlPlane
from nvml import expected
from nvml.agents import EmulatedAgent, EmulatedDriver, profile, reaching
from nvml.library import build

Json = dict[str, Any]
Start = Callable[..., EmulatedAgent]
NAMESPACE = "agents"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def agents_plane(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> tuple[ControlPlane, list[str]]:
    """And how agents reach it."""
    installed.kubectl("create", "namespace", NAMESPACE)
    options = reaching(installed, tmp_path_factory.mktemp("token"), NAMESPACE)
    return installed, [*options, "--interval=0.2", "--heartbeat=1"]


@pytest.fixture
def start(agents_plane: tuple[ControlPlane, list[str]], library: Path, tmp_path: Path) -> Iterator[Start]:
    plane, options = agents_plane
    started: list[EmulatedAgent] = []

    def begin(name: str = "h100-8x-nvswitch", node: str = "gpu-node", *more: str) -> EmulatedAgent:
        plane.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
        started.append(EmulatedAgent(library, EmulatedDriver(tmp_path, name), node, [*options, *more]))
        return started[-1]

    yield begin
    codes = [agent.stop() for agent in started]
    plane.kubectl("delete", "nodes", "--all")
    plane.kubectl("delete", "gpunodereports", "--all")
    plane.kubectl("delete", "leases", "--all", "-n", NAMESPACE)
    assert codes == [0] * len(codes)
    for agent in started:
        assert "Traceback" not in agent.log.read_text()


def report_of(plane: ControlPlane, node: str = "gpu-node") -> Json:
    shown = plane.kubectl("get", "gpunodereport", node, "-o", "json", check=False)
    return json.loads(shown.stdout) if shown.returncode == 0 else {}


def status_of(plane: ControlPlane, node: str = "gpu-node") -> Json:
    found: Json = report_of(plane, node).get("status") or {}
    return found


def states(plane: ControlPlane) -> list[str]:
    return [gpu["health"]["state"] for gpu in status_of(plane).get("gpus", ())]


def problem_of(plane: ControlPlane) -> str:
    return str(status_of(plane).get("problem", {}).get("name", ""))


def renewed(plane: ControlPlane) -> str:
    return str(plane.get("lease", "gpu-node", "-n", NAMESPACE)["spec"]["renewTime"])


@pytest.mark.parametrize("name", ["a100-2x-mig-mixed", "h100-8x-lost-gpu", "l40s-4x-pcie-pairs", "t4"])
def test_a_report_keeps_every_field(agents_plane: tuple[ControlPlane, list[str]], start: Start, name: str) -> None:
    plane, _ = agents_plane
    agent = start(name)
    until("a report stands", lambda: bool(status_of(plane)))
    report = report_of(plane)
    wanted = expected.status(profile(name))
    if name == "h100-8x-lost-gpu":
        wanted["gpus"][7].pop("xids")  # told of after the first reading
        until("the error is told", lambda: status_of(plane)["gpus"][7].get("xids") == [31])
        report["status"]["gpus"][7].pop("xids", None)
    for gpu in (gpu for told in (wanted, report["status"]) for gpu in told["gpus"]):
        for process in gpu.get("processes", ()):  # of numbers that are nobody's, or anybody's, on this machine
            process.pop("command", None)
            process.pop("ownership")
    assert {key: value for key, value in report["status"].items() if key in wanted} == wanted
    (owner,) = report["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", "gpu-node", plane.get("node", "gpu-node")["metadata"]["uid"])
    assert agent.get("/healthz")[0] == agent.get("/readyz")[0] == 200


def test_at_rest_it_only_lives(agents_plane: tuple[ControlPlane, list[str]], start: Start) -> None:
    plane, _ = agents_plane
    agent = start()
    until("a report stands", lambda: states(plane) == ["Healthy"] * 8)
    version, beat = report_of(plane)["metadata"]["resourceVersion"], renewed(plane)
    until("it has told that it lives", lambda: renewed(plane) > beat)
    until("it has told so again", lambda: (agent.metric('shardgate_node_heartbeats_total{result="written"}') or 0) >= 3)
    assert report_of(plane)["metadata"]["resourceVersion"] == version
    assert agent.metric('shardgate_node_report_writes_total{result="written"}') == 1


def test_a_lost_gpu_is_told_of_and_its_return(agents_plane: tuple[ControlPlane, list[str]], start: Start) -> None:
    plane, _ = agents_plane
    agent = start()
    until("a report stands", lambda: states(plane) == ["Healthy"] * 8)
    agent.driver.lose(5)
    until("it is told of", lambda: states(plane) == [*["Healthy"] * 5, "Lost", "Healthy", "Healthy"])
    assert agent.metric('shardgate_node_gpus{state="Lost"}') == 1
    agent.driver.find_again(5)
    until("it is back", lambda: states(plane) == ["Healthy"] * 8)


def test_a_hung_driver_leaves_it_alive_with_one_thread_in_it(agents_plane: tuple[ControlPlane, list[str]], start: Start) -> None:
    plane, _ = agents_plane
    agent = start("h100-8x-nvswitch", "gpu-node", "--hung-after=0.5")
    until("a report stands", lambda: states(plane) == ["Healthy"] * 8)
    # Pages are written by threads of their own, which end a moment after their reader has the answer.
    until("its two threads and the driver's are all", lambda: len(agent.threads) == 3)
    beat = renewed(plane)
    agent.driver.change(lambda said: said.update(hang=["nvmlDeviceGetMemoryInfo_v2"]))
    until("it is told of", lambda: problem_of(plane) == "CALL_HUNG")
    until("it goes on telling that it lives", lambda: renewed(plane) > beat)
    until(
        "readings go on being asked for",
        lambda: (agent.metric('shardgate_node_driver_read_failures_total{error="CALL_HUNG"}') or 0) > 5,
    )
    assert (agent.metric("shardgate_node_driver_call_stuck_seconds") or 0) > 0
    until("one thread is stuck, of the same three", lambda: len(agent.threads) == 3)
    assert agent.get("/healthz")[0] == 200
    agent.driver.change(lambda said: said.pop("hang"))
    until("it is read again", lambda: states(plane) == ["Healthy"] * 8)
    assert problem_of(plane) == ""
    assert agent.metric("shardgate_node_driver_call_stuck_seconds") == 0


def test_it_ends_while_a_call_hangs(agents_plane: tuple[ControlPlane, list[str]], start: Start) -> None:
    plane, _ = agents_plane
    agent = start("t4", "gpu-node", "--hung-after=0.5")
    until("a report stands", lambda: states(plane) == ["Healthy"])
    agent.driver.change(lambda said: said.update(hang=["nvmlDeviceGetCount_v2"]))
    until("it is told of", lambda: problem_of(plane) == "CALL_HUNG")
    # The fixture stops it.


def test_a_driver_is_replaced_under_it(agents_plane: tuple[ControlPlane, list[str]], start: Start) -> None:
    plane, _ = agents_plane
    agent = start()
    until("a report stands", lambda: states(plane) == ["Healthy"] * 8)
    agent.driver.change(lambda said: said.update(failure=9))
    until("that there is none is told", lambda: problem_of(plane) == "NVML_ERROR_DRIVER_NOT_LOADED")
    assert "gpus" not in status_of(plane)
    agent.driver.change(lambda said: (said.pop("failure"), said.update(boot=2, driver="590.48.01")))
    until("the new one is read", lambda: status_of(plane).get("driver", {}).get("version") == "590.48.01")
    assert states(plane) == ["Healthy"] * 8


def test_an_api_server_goes_and_comes_back(agents_plane: tuple[ControlPlane, list[str]], start: Start) -> None:
    plane, _ = agents_plane
    agent = start()
    until("a report stands", lambda: states(plane) == ["Healthy"] * 8)
    plane.stop_api_server()
    try:
        agent.driver.lose(5)
        until("a write fails", lambda: (agent.metric('shardgate_node_report_writes_total{result="failed"}') or 0) > 0)
        assert (agent.get("/healthz")[0], agent.get("/readyz")[0]) == (200, 503)
    finally:
        plane.start_api_server()
    until("what happened meanwhile is told", lambda: states(plane).count("Lost") == 1, 60)
    until("it is ready", lambda: agent.get("/readyz")[0] == 200)


def test_a_node_of_the_same_name_is_another_node(agents_plane: tuple[ControlPlane, list[str]], start: Start) -> None:
    plane, _ = agents_plane
    start()
    until("a report stands", lambda: states(plane) == ["Healthy"] * 8)
    plane.kubectl("delete", "node", "gpu-node")
    until("the report went with its node", lambda: report_of(plane) == {}, 60)
    plane.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-node"}})
    until("there is a new one", lambda: states(plane) == ["Healthy"] * 8, 90)
    assert report_of(plane)["metadata"]["ownerReferences"][0]["uid"] == plane.get("node", "gpu-node")["metadata"]["uid"]


def test_its_kind_is_installed_after_it(agents_plane: tuple[ControlPlane, list[str]], start: Start) -> None:
    plane, _ = agents_plane
    definition = plane.get("crd", "gpunodereports.shardgate.io")
    plane.kubectl("delete", "crd", "gpunodereports.shardgate.io")
    try:
        agent = start()
        until("a write fails", lambda: (agent.metric('shardgate_node_report_writes_total{result="failed"}') or 0) > 0)
        assert agent.get("/readyz")[0] == 503
        assert "404" in agent.log.read_text()
    finally:
        plane.apply({**definition, "metadata": {"name": definition["metadata"]["name"]}, "status": None})
    until("a report stands", lambda: states(plane) == ["Healthy"] * 8, 90)
