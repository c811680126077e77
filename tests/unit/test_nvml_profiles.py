"""Six nodes as their drivers tell them, through the real pynvml and a library that it loads as it loads NVIDIA's: every field."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pynvml
import pytest

from nvml import expected, readings
from nvml.agents import profile
from nvml.library import BEFORE_450, NAMES, PROFILES, build, environment
from shardgate.adapters.gpu_node_reports import reading_of, status_of
from shardgate.api.gpu_node_report import GpuNodeReportStatus

Json = dict[str, Any]
SANE = [name for name in NAMES if name not in BEFORE_450]
WRITTEN = {"changed_at": "2026-11-26T08:00:00.000000Z", "agent_version": "0.1.0"}
BESIDES = ("changedAt", "agentVersion", "summary")


@pytest.fixture(scope="session")
def statuses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    folder = tmp_path_factory.mktemp("nvml")
    found = {}
    for name in NAMES:
        library = build(folder, before_450=name in BEFORE_450)
        command = [sys.executable, readings.__file__]
        result = subprocess.run(
            command, env=environment(library, PROFILES / f"{name}.json"), capture_output=True, text=True, check=True
        )
        found[name] = json.loads(result.stdout)
    return found


def test_there_are_six_nodes() -> None:
    assert NAMES == [
        "a100-2x-mig-mixed", "h100-8x-lost-gpu", "h100-8x-nvswitch", "insane-418", "l40s-4x-pcie-pairs", "t4",
    ]  # fmt: skip


@pytest.mark.parametrize("name", SANE)
def test_every_field_is_read_as_the_driver_says_it(statuses: dict[str, Json], name: str) -> None:
    assert without(statuses[name]) == expected.status(profile(name))


def test_of_an_insane_driver_what_makes_sense_is_kept(statuses: dict[str, Json]) -> None:
    assert without(statuses["insane-418"]) == expected.written_down("insane-418")


def without(status: Json) -> Json:
    return {key: value for key, value in status.items() if key not in BESIDES}


def test_a_summary_is_a_few_words(statuses: dict[str, Json]) -> None:
    assert {name: status["summary"] for name, status in statuses.items()} == {
        "a100-2x-mig-mixed": "2 x NVIDIA A100-SXM4-40GB",
        "h100-8x-lost-gpu": "7 x NVIDIA H100 80GB HBM3 + 1 x unknown GPU, 6 healthy",
        "h100-8x-nvswitch": "8 x NVIDIA H100 80GB HBM3",
        "insane-418": "1 x Tesla V100-SXM2-16GB + 2 x unknown GPU, 0 healthy",
        "l40s-4x-pcie-pairs": "4 x NVIDIA L40S",
        "t4": "1 x Tesla T4",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_report_is_read_back_as_it_was_read(statuses: dict[str, Json], name: str) -> None:
    status = {**statuses[name], "changedAt": WRITTEN["changed_at"]}
    reading = reading_of(status)
    assert status_of(reading, changed_at=WRITTEN["changed_at"], agent_version="") == status
    printed = GpuNodeReportStatus.model_validate_json(json.dumps(status), strict=True).model_dump(mode="json", by_alias=True)
    assert reading_of(printed) == reading, "null is as good as absent"


def test_structs_are_laid_out_as_on_real_hardware() -> None:
    """The library's sizes are asserted as it is compiled; these are pynvml's, against a real driver's machine."""
    recorded = json.loads((Path(__file__).parents[1] / "data/nvml/h100-sxm.json").read_text())["structSizes"]
    for name in (
        "c_nvmlMemory_v2_t",
        "c_nvmlProcessInfo_v3_t",
        "c_nvmlGpuFabricInfoV_t",
        "c_nvmlFieldValue_t",
        "c_nvmlEventData_t",
    ):
        assert ctypes.sizeof(getattr(pynvml, name)) == recorded[name]
