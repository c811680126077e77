"""What the drivers of two real GPUs answered, call by call, read by ``NvmlProbe``."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from shardgate.domain.driver_reading import (
    Clocks,
    DriverReading,
    Fabric,
    GpuState,
    Health,
    Memory,
    MemoryErrors,
    Mig,
    PcieLink,
    PowerLimits,
    RowRemap,
)
from shardgate.domain.units import Bytes
from shardgate.shells.agent.processes import Processes
from shardgate.shells.nvml.probe import NvmlProbe

Json = dict[str, Any]


class Replayed:
    """pynvml's functions as a recording answers them; what was not recorded is not there."""

    def __init__(self, calls: Json) -> None:
        self.calls = calls

    def __call__(self, name: str, *arguments: Any) -> Any:
        plain = [str(each) for each in arguments if isinstance(each, int)]
        if name == "nvmlDeviceGetMemoryAffinity":
            plain[0] = "4"  # words that were asked for then
        if arguments[-1:] == (pynvml.nvmlMemory_v2,):
            plain = ["v2"]
        answer = (
            self.calls.get(f"{name}({','.join(plain)})") or self.calls.get(name) or {"error": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}
        )
        if "error" in answer:
            raise pynvml.NVMLError(answer["error"])
        return self.shaped(answer["value"])

    def shaped(self, value: Any) -> Any:
        if isinstance(value, dict):
            return SimpleNamespace(**{key: self.shaped(each) for key, each in value.items()})
        return [self.shaped(each) for each in value] if isinstance(value, list) else value


def reading_of(name: str, monkeypatch: pytest.MonkeyPatch) -> DriverReading:
    calls = json.loads((Path(__file__).parents[1] / f"data/nvml/{name}.json").read_text())["calls"]
    replayed = Replayed(calls)
    for function in [each for each in vars(pynvml) if each.startswith("nvml") and callable(getattr(pynvml, each))]:
        if not isinstance(getattr(pynvml, function), type):
            monkeypatch.setattr(pynvml, function, lambda *arguments, _name=function: replayed(_name, *arguments))
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda _index: pynvml.c_nvmlDevice_t())
    return NvmlProbe(Processes(is_host=False)).gpus()


@pytest.mark.parametrize(
    ("name", "product", "total", "reserved", "memory_clock"),
    [
        ("h100-sxm", "NVIDIA H100 80GB HBM3", 85520809984, 503316480, 2619),
        ("h200-sxm", "NVIDIA H200", 150754820096, 644939776, 3201),
    ],
)
def test_a_real_gpu_is_read(
    monkeypatch: pytest.MonkeyPatch, name: str, product: str, total: int, reserved: int, memory_clock: int
) -> None:
    reading = reading_of(name, monkeypatch)
    assert (reading.driver_version, reading.cuda_version) == ("580.159.04", (13, 0))
    (gpu,) = reading.gpus
    assert (gpu.product, gpu.compute_capability, gpu.numa_node) == (product, (9, 0), 0)
    assert gpu.memory == Memory(total=Bytes(total), used=Bytes(0), reserved=Bytes(reserved))
    assert gpu.mig == Mig(is_enabled=False, is_enabled_after_reset=False)
    assert gpu.memory_errors == MemoryErrors(
        is_ecc_enabled=True, uncorrected=0, uncorrected_ever=0,
        row_remap=RowRemap(correctable=0, uncorrectable=0, is_pending=False, has_failed=False),
    )  # fmt: skip
    assert gpu.clocks == Clocks(graphics=1980, multiprocessor=1980, memory=memory_clock)
    assert gpu.power == PowerLimits(enforced=700000, default=700000, least=200000, most=700000)
    assert gpu.pcie == PcieLink(generation=5, width=16, current_width=16)
    assert (gpu.nvlink, gpu.processes, gpu.fabric) == (None, (), Fabric(state="NotSupported")), "one GPU of a board, passed through"
    assert gpu.health == Health(state=GpuState.HEALTHY)
