"""What happens to a driver while it is read."""

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from nvml.agents import EmulatedDriver
from nvml.library import PROFILE_VARIABLE, SONAME, build
from shardgate.domain.driver_reading import DriverReading, GpuState, ProbeError
from shardgate.shells.agent.processes import Processes
from shardgate.shells.nvml.probe import CONDITION_SECONDS, NvmlProbe


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return ctypes.CDLL(str(build(tmp_path_factory.mktemp("nvml")) / SONAME))


@pytest.fixture
def driver(request: pytest.FixtureRequest, library: ctypes.CDLL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmulatedDriver:
    found = EmulatedDriver(tmp_path, getattr(request, "param", "h100-8x-nvswitch"))
    monkeypatch.setenv(PROFILE_VARIABLE, str(found.path))
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return found


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Read:
    """A probe with a clock of its own, and what it counted."""

    def __init__(self) -> None:
        self.clock, self.errors = Clock(), list[tuple[str, str]]()
        self.probe = NvmlProbe(
            Processes(is_host=False), on_error=lambda function, error: self.errors.append((function, error)), clock=self.clock
        )

    def __call__(self) -> DriverReading:
        return self.probe.gpus()


@pytest.fixture
def read(driver: EmulatedDriver) -> Iterator[Read]:
    found = Read()
    yield found
    found.probe.close()


def test_a_lost_gpu_keeps_its_name_and_comes_back(driver: EmulatedDriver, read: Read) -> None:
    before = read()
    driver.lose(5)
    gpus = read().gpus
    assert [gpu.health.state for gpu in gpus].count(GpuState.HEALTHY) == 7
    lost = gpus[5]
    assert (lost.health.state, lost.uuid, lost.product) == (GpuState.LOST, before.gpus[5].uuid, "NVIDIA H100 80GB HBM3")
    assert (lost.memory.total, lost.nvlink, lost.processes, lost.compute_capability) == (None, None, None, None)
    assert all(5 not in (pair.first, pair.second) for pair in read().pairs)
    assert ("nvmlDeviceGetHandleByIndex", "NVML_ERROR_GPU_IS_LOST") in read.errors
    driver.find_again(5)
    assert read() == before


def test_a_gpu_that_is_lost_between_two_calls_is_lost(driver: EmulatedDriver, read: Read) -> None:
    read()
    driver.change(lambda profile: profile["gpus"][5].update(errors={"nvmlDeviceGetMemoryInfo_v2": 15}))
    assert read().gpus[5].health.state is GpuState.LOST


def test_one_that_was_lost_from_the_start_has_no_name(driver: EmulatedDriver, read: Read) -> None:
    driver.lose(5)
    lost = read().gpus[5]
    assert (lost.index, lost.uuid, lost.product, lost.health.state) == (5, None, None, GpuState.LOST)
    driver.find_again(5)
    assert read().gpus[5].product == "NVIDIA H100 80GB HBM3"


def test_one_that_needs_a_reset_is_not_healthy(driver: EmulatedDriver, read: Read) -> None:
    driver.change(lambda profile: profile["gpus"][1].update(failure=16))
    gpu = read().gpus[1]
    assert (gpu.health.state, gpu.health.reasons, gpu.memory.total) == (GpuState.UNHEALTHY, ("ResetRequired",), None)


def test_one_that_has_been_reset_is_healthy_again(driver: EmulatedDriver, read: Read) -> None:
    before = read()
    driver.change(lambda profile: profile["gpus"][1].update(errors={"nvmlDeviceGetMemoryInfo_v2": 16}))
    assert read().gpus[1].health.reasons == ("ResetRequired",)
    driver.change(lambda profile: profile["gpus"][1].pop("errors"))
    assert read().gpus[1].health.reasons == ("ResetRequired",), "until all of it has been asked"
    read.clock.now += CONDITION_SECONDS
    assert read() == before


@pytest.mark.parametrize("code", [9, 18, 1])
def test_a_driver_that_is_unloaded_is_an_error_with_its_name_and_is_opened_anew(
    driver: EmulatedDriver, read: Read, code: int
) -> None:
    before = read()
    driver.change(lambda profile: profile.update(failure=code))
    names = {9: "NVML_ERROR_DRIVER_NOT_LOADED", 18: "NVML_ERROR_LIB_RM_VERSION_MISMATCH", 1: "NVML_ERROR_UNINITIALIZED"}
    for _ in range(2):
        with pytest.raises(ProbeError) as raised:
            read()
        assert raised.value.name == names[code]
    driver.change(lambda profile: (profile.pop("failure"), profile.update(boot=2, driver="590.1")))
    after = read()
    assert after.driver_version == "590.1"
    assert after.gpus == before.gpus


def test_a_driver_that_was_reset_between_two_readings_is_opened_anew(driver: EmulatedDriver, read: Read) -> None:
    before = read()
    driver.change(lambda profile: profile.update(boot=2))
    with pytest.raises(ProbeError) as raised:
        read()
    assert raised.value.name == "NVML_ERROR_UNINITIALIZED"
    assert read() == before


def test_no_gpus_is_a_reading_and_no_count_is_none(driver: EmulatedDriver, read: Read) -> None:
    driver.change(lambda profile: profile.update(gpus=[]))
    assert read() == DriverReading(driver_version="580.159.04", nvml_version="13.580.159.04", cuda_version=(13, 0))
    driver.change(lambda profile: profile.update(count=1_000_000_000))
    with pytest.raises(ProbeError, match="1000000000 GPUs"):
        read()
    driver.change(lambda profile: (profile.pop("count"), profile.update(errors={"nvmlDeviceGetCount_v2": 999})))
    with pytest.raises(ProbeError) as raised:
        read()
    assert raised.value.name == "NVML_ERROR_UNKNOWN"


def test_without_a_library_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlLib", None)

    def none(_name: str) -> None:
        raise OSError

    monkeypatch.setattr(pynvml, "CDLL", none)
    with pytest.raises(ProbeError) as raised:
        Read()()
    assert raised.value.name == "NVML_ERROR_LIBRARY_NOT_FOUND"


def test_memory_and_processes_are_asked_for_each_time_and_links_now_and_then(driver: EmulatedDriver, read: Read) -> None:
    assert read().gpus[1].memory.used == 0

    def change(profile: dict[str, Any]) -> None:
        profile["gpus"][1]["memory"] = {"total": 85520809984, "reserved": 503316480, "used": 1 << 30}
        profile["gpus"][1]["processes"] = {"compute": [{"pid": 9, "used": 1 << 30}], "graphics": []}
        profile["gpus"][1]["remappedRows"] = [0, 1, 1, 0]

    driver.change(change)
    gpu = read().gpus[1]
    assert (gpu.memory.used, [each.pid for each in gpu.processes or ()]) == (1 << 30, [9])
    assert gpu.health.state is GpuState.HEALTHY, "rows are not asked for each time"
    read.clock.now += CONDITION_SECONDS
    assert read().gpus[1].health.reasons == ("RowRemapPending",)


def test_an_xid_is_noticed_and_has_the_gpu_looked_at_at_once(driver: EmulatedDriver, read: Read) -> None:
    read()
    driver.change(lambda profile: profile["gpus"][3].update(xids=[79, 31, 79], fields={"91": 18, "230": 2}))
    gpu = read().gpus[3]
    assert gpu.xids == (31, 79)
    assert (gpu.health.state, gpu.health.reasons) == (GpuState.UNHEALTHY, ("RecoveryActionNodeReboot", "Xid79"))
    read.clock.now += CONDITION_SECONDS
    driver.change(lambda profile: profile["gpus"][3].update(fields={"91": 18, "230": 0}))
    gpu = read().gpus[3]
    assert (gpu.health.state, gpu.xids) == (GpuState.HEALTHY, (31, 79)), "the driver asks for nothing any more"


@pytest.mark.parametrize("state", [1, 2], ids=["not started", "in progress"])
def test_a_gpu_whose_switches_are_not_set_up_is_not_healthy(driver: EmulatedDriver, read: Read, state: int) -> None:
    fabric = {"state": state, "status": 0, "clique": 0}
    driver.change(lambda profile: profile["gpus"][3].update(fabric=fabric))
    found = read().gpus
    assert (found[3].health.state, found[3].health.reasons) == (GpuState.UNHEALTHY, ("FabricNotReady",))
    assert found[2].health.state is GpuState.HEALTHY


@pytest.mark.parametrize("driver", ["l40s-4x-pcie-pairs"], indirect=True)
def test_a_gpu_without_switches_waits_for_no_fabric(driver: EmulatedDriver, read: Read) -> None:
    fabric = {"state": 1, "status": 0, "clique": 0}
    driver.change(lambda profile: profile["gpus"][1].update(fabric=fabric))
    assert read().gpus[1].health.state is GpuState.HEALTHY


def test_a_programs_error_leaves_a_gpu_healthy(driver: EmulatedDriver, read: Read) -> None:
    def change(profile: dict[str, Any]) -> None:
        profile["gpus"][3].update(xids=[13, 31, 43, 45, 68, 109], fields={"91": 18})

    read()
    driver.change(change)
    assert read().gpus[3].health.state is GpuState.HEALTHY


@pytest.mark.parametrize("driver", ["a100-2x-mig-mixed"], indirect=True)
def test_a_gpu_is_cut_anew(driver: EmulatedDriver, read: Read) -> None:
    assert len((read().gpus[0].mig or pytest.fail("no MIG")).devices) == 4
    driver.change(lambda profile: profile["gpus"][0]["mig"]["devices"].pop(0))
    read.clock.now += CONDITION_SECONDS
    assert [each.profile for each in (read().gpus[0].mig or pytest.fail("no MIG")).devices] == ["1g.5gb", "1g.5gb", "2g.10gb"]


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetNvLinkState", "nvlink"), ("nvmlDeviceGetGpuFabricInfoV", "fabric"), ("nvmlDeviceGetMigMode", "mig"),
        ("nvmlDeviceGetFieldValues", "recovery_action"), ("nvmlDeviceGetMemoryAffinity", "numa_node"),
        ("nvmlDeviceGetPciInfo_v3", "pci_bus_id"), ("nvmlDeviceGetCudaComputeCapability", "compute_capability"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("code", [3, 4, 13, 999])
def test_a_call_that_fails_leaves_one_fact_unknown(
    driver: EmulatedDriver, read: Read, function: str, field: str, code: int
) -> None:
    driver.change(lambda profile: profile.update(errors={function: code, "nvmlDeviceGetGpuFabricInfo": code}))
    gpu = read().gpus[0]
    assert getattr(gpu, field) is None
    assert (gpu.health.state, gpu.memory.total) == (GpuState.HEALTHY, 85520809984)
    told = {name for name, _ in read.errors}
    assert (function.removesuffix("_v3") in {name.removesuffix("_v3") for name in told}) == (code in (4, 999))


def test_memory_is_asked_for_by_the_first_version_where_there_is_no_second(driver: EmulatedDriver, read: Read) -> None:
    driver.change(lambda profile: profile.update(errors={"nvmlDeviceGetMemoryInfo_v2": 13}))
    memory = read().gpus[0].memory
    assert (memory.total, memory.used, memory.reserved) == (85520809984, 73014444032 + 503316480, None)


def test_a_thousand_processes_are_cut_to_the_largest(driver: EmulatedDriver, read: Read) -> None:
    many = [{"pid": 100 + number, "used": number << 20} for number in range(1000)]
    driver.change(lambda profile: profile["gpus"][0].update(processes={"compute": many, "graphics": []}))
    processes = read().gpus[0].processes or ()
    assert [len(processes), processes[0].pid, processes[-1].pid] == [64, 1099, 1036]
