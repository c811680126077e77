"""Laws of what drivers say: whatever it is, a report of it can be written, and is read back the same."""

import ctypes
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvml.agents import profile
from nvml.library import NAMES, PROFILE_VARIABLE, SONAME, build
from shardgate.adapters.gpu_node_reports import reading_of, status_of, status_of_problem
from shardgate.adapters.report_changes import Change, change
from shardgate.api.gpu_node_report import GpuNodeReportStatus
from shardgate.api.report_limits import MOST_NAME, MOST_TEXT
from shardgate.domain.driver_reading import DriverReading, GpuReading, GpuState, Health, Mig, MigDevice, ProbeError
from shardgate.shells.agent.processes import Processes
from shardgate.shells.agent.table import table
from shardgate.shells.nvml.probe import NvmlProbe

Json = dict[str, Any]
WRITTEN = {"changed_at": "2026-11-26T08:00:00Z", "agent_version": "0.1.0"}
REASONS = st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=MOST_NAME), max_size=8)
st.register_type_strategy(Health, st.builds(Health, state=st.sampled_from(GpuState), reasons=REASONS.map(tuple)))
READINGS = st.from_type(DriverReading)
NONSENSE = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.sampled_from([0, 1, 2, 3, 7, 15, 16, 255, 999, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1]),
    st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=120), st.booleans(), st.just([]), st.just({}),
)  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """pynvml with the emulated driver, and the file that it reads."""
    folder = tmp_path_factory.mktemp("nvml")
    path = folder / "profile.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PROFILE_VARIABLE, str(path))
        patch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(build(folder) / SONAME)))
        patch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        yield path


@settings(max_examples=40)
@given(READINGS)
def test_a_reading_is_read_back_as_it_was_written(reading: DriverReading) -> None:
    written = json.loads(json.dumps(status_of(reading, **WRITTEN)))
    assert reading_of(written) == reading


NAMES_OF_NVML = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=MOST_TEXT)


@settings(max_examples=40)
@given(
    NAMES_OF_NVML,
    st.lists(st.integers(0, 10_000), max_size=200, unique=True),
    st.lists(st.text(max_size=200), max_size=200),
    st.text(max_size=1000),
)
def test_whatever_an_agent_makes_of_it_the_crd_takes(text: str, xids: list[int], reasons: list[str], problem: str) -> None:
    health = Health(state=GpuState.UNHEALTHY, reasons=tuple(reasons))
    gpu = GpuReading(index=0, uuid=text, product=text, mig=Mig(
        is_enabled=True, is_enabled_after_reset=True, devices=(MigDevice(uuid=text, profile=text),)
    ), xids=tuple(xids), health=health)  # fmt: skip
    reading = DriverReading(driver_version=text, nvml_version=text, gpus=(gpu,))
    failed = ProbeError(problem, problem)
    for status in (
        status_of(reading, **WRITTEN),
        status_of_problem(failed, since=WRITTEN["changed_at"], **WRITTEN),
    ):
        GpuNodeReportStatus.model_validate_json(json.dumps(status), strict=True)


@settings(max_examples=20)
@given(READINGS, READINGS)
def test_a_change_is_one_both_ways_and_the_same_is_none(one: DriverReading, other: DriverReading) -> None:
    assert change(one, one) is Change.NONE
    assert change(one, other) is change(other, one)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a value stands in a profile, lists and objects among them."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in inner for found in leaves(each, (*path, key)))] if path else [
        found for key, each in inner for found in leaves(each, (key,))
    ]  # fmt: skip


def replace(said: Any, place: tuple[Any, ...], value: Any) -> None:
    """Put it there, unless an earlier one took the place away."""
    for key in place[:-1]:
        if not holds(said, key):
            return
        said = said[key]
    if holds(said, place[-1]):
        said[place[-1]] = value


def holds(said: Any, key: Any) -> bool:
    return key in said if isinstance(said, dict) else isinstance(said, list) and isinstance(key, int) and key < len(said)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_whatever_a_driver_says_a_report_can_be_written(library: Path, data: st.DataObject) -> None:
    said = profile(data.draw(st.sampled_from([name for name in NAMES if name != "insane-418"])))
    places = [each for each in leaves(said) if each[0] not in ("about", "sources")]
    for place in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=6)):
        replace(said, place, data.draw(NONSENSE))
    beside = library.with_suffix(".new")
    beside.write_text(json.dumps(said))
    beside.replace(library)
    probe = NvmlProbe(Processes(is_host=False))
    names = ["NVML_ERROR_"]
    try:
        status = status_of(probe.gpus(), **WRITTEN)
        GpuNodeReportStatus.model_validate_json(json.dumps(status), strict=True)
        assert table(status)
        probe.gpus()
    except ProbeError as error:
        names.append(error.name)
    finally:
        probe.close()
    assert all(name.startswith("NVML_ERROR_") for name in names)
