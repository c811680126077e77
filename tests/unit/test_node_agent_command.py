"""``shardgate agent`` as it is started."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nvml.library import PROFILES, build, environment
from shardgate.shells.agent.recorded_probe import RecordedProbe
from shardgate.shells.nvml.calls import ProbeError


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


def once(library: Path, profile: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "shardgate", "agent", "--once", *options]
    return subprocess.run(command, env=environment(library, profile), capture_output=True, text=True, check=False)


def test_a_table_for_people(library: Path) -> None:
    shown = once(library, PROFILES / "l40s-4x-pcie-pairs.json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines() == [
        "driver 570.86.15, CUDA 12.8: 4 x NVIDIA L40S",
        "GPU  PRODUCT      CC   MEMORY    USED     MIG  NVLINKS  NUMA  PROCESSES  HEALTH",
        "0    NVIDIA L40S  8.9  45.0 GiB  0.0 GiB  -    -        0     0          Healthy",
        "1    NVIDIA L40S  8.9  45.0 GiB  0.0 GiB  -    -        0     0          Healthy",
        "2    NVIDIA L40S  8.9  45.0 GiB  9.1 GiB  -    -        1     2          Healthy",
        "3    NVIDIA L40S  8.9  45.0 GiB  0.0 GiB  -    -        1     0          Healthy",
        "over PCIe: 0-1 OneSwitch, 0-2 System, 0-3 System, 1-2 System, 1-3 System, 2-3 OneSwitch",
    ]


@pytest.mark.parametrize("name", ["h100-8x-lost-gpu", "a100-2x-mig-mixed", "t4"])
def test_every_node_has_a_table(library: Path, name: str) -> None:
    shown = once(library, PROFILES / f"{name}.json")
    assert shown.returncode == 0
    assert {"h100-8x-lost-gpu": "Lost", "a100-2x-mig-mixed": "2g.10gb", "t4": "Tesla T4"}[name] in shown.stdout


def test_what_is_printed_is_a_recording_and_unknown_is_null(library: Path, tmp_path: Path) -> None:
    printed = once(library, PROFILES / "t4.json", "-o", "json", "--node-name", "n1")
    report = json.loads(printed.stdout)
    assert (report["kind"], report["metadata"]["name"], report["status"]["gpus"][0]["nvlink"]) == ("GpuNodeReport", "n1", None)
    recording = tmp_path / "n1.json"
    recording.write_text(printed.stdout)
    replayed = once(library, PROFILES / "none", "-o", "json", "--node-name", "n1", "--recording", str(recording))
    again = json.loads(replayed.stdout)
    assert again["status"].pop("changedAt") != report["status"].pop("changedAt")
    assert again == report


def test_without_a_driver_it_says_why(library: Path, tmp_path: Path) -> None:
    shown = once(library, PROFILES / "none")
    assert (shown.returncode, shown.stdout) == (69, "")
    assert shown.stderr == "the driver cannot be read: NVML_ERROR_DRIVER_NOT_LOADED: Driver Not Loaded\n"
    printed = once(library, PROFILES / "none", "-o", "json")
    status = json.loads(printed.stdout)["status"]
    assert (printed.returncode, status["problem"]["name"], status["gpus"]) == (69, "NVML_ERROR_DRIVER_NOT_LOADED", None)
    recording = tmp_path / "problem.json"
    recording.write_text(printed.stdout)
    with pytest.raises(ProbeError) as raised:
        RecordedProbe(recording).gpus()
    assert raised.value.name == "NVML_ERROR_DRIVER_NOT_LOADED"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"), ("{", "no GpuNodeReport"), ("[]", "no GpuNodeReport"), ("{}", "'status'"),
        ('{"status": 3}', "status is no object"), ('{"status": {}}', "gpus: is not there"),
        ('{"status": {"gpus": [{"index": 0}]}}', "'health'"), ('{"status": {"gpus": 7}}', "TypeError"),
        ('{"status": {"gpus": [{"index": 0, "health": {"state": "Fine"}}]}}', "'Fine' is not a valid GpuState"),
    ],
)  # fmt: skip
def test_a_recording_that_is_none_is_named(tmp_path: Path, content: str | None, problem: str) -> None:
    path = tmp_path / "recording.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ProbeError) as raised:
        RecordedProbe(path).gpus()
    assert raised.value.name == "BAD_RECORDING"
    assert str(path) in raised.value.problem
    assert problem in raised.value.problem


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--interval", "0"), "'0' is no number of seconds from 0.05 to 3600"),
        (("--heartbeat", "soon"), "'soon' is no number of seconds"),
        (("--port", "70000"), "'70000' is no port from 0 to 65535"),
        (("--no-such",), "unrecognized arguments: --no-such"),
        ((), "--node-name is needed outside of a pod"),
        (("--node-name", "n"), "--server is needed outside of a pod"),
    ],
)
def test_usage(options: tuple[str, ...], problem: str) -> None:
    command = [sys.executable, "-m", "shardgate", "agent", *options]
    ended = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert ended.returncode == 64
    assert problem in ended.stderr


def test_it_does_without_what_other_commands_import() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['shardgate', 'agent', '--help']\n"
        "from shardgate.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'kopf', 'kubernetes', 'aiohttp', 'pydantic', 'rich', 'rich_click', 'yaml', 'asyncio', 'msgspec'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_command_line_lists_it() -> None:
    result = subprocess.run([sys.executable, "-m", "shardgate", "--help"], capture_output=True, text=True, check=True)
    assert "agent" in result.stdout
