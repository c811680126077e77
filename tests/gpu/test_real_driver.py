"""What is read of a real GPU."""

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

from shardgate.api.gpu_node_report import GpuNodeReportStatus
from shardgate.domain.driver_reading import GpuState
from shardgate.shells.agent.processes import Processes
from shardgate.shells.nvml.probe import NvmlProbe

Json = dict[str, Any]


def test_it_reads_what_nvidia_smi_says() -> None:
    if not (smi := shutil.which("nvidia-smi")):
        pytest.skip("no nvidia-smi")
    fields = "index,uuid,name,pci.bus_id,memory.total,driver_version,compute_cap,power.limit,clocks.max.memory,pcie.link.width.max"
    lines = subprocess.run(
        [smi, f"--query-gpu={fields}", "--format=csv,noheader,nounits"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    probe = NvmlProbe(Processes())
    reading = probe.gpus()
    probe.close()
    assert len(reading.gpus) == len(lines)
    for gpu, line in zip(reading.gpus, lines, strict=True):
        index, uuid, name, bus, memory, driver, capability, power, clock, width = (each.strip() for each in line.split(","))
        assert (gpu.index, gpu.uuid, gpu.product, gpu.pci_bus_id) == (int(index), uuid, name, bus)
        assert (gpu.memory.total or 0) // 2**20 == int(memory)
        assert reading.driver_version == driver
        assert ".".join(map(str, gpu.compute_capability or ())) == capability
        assert (gpu.power.enforced or 0) / 1000 == pytest.approx(float(power))
        assert (gpu.clocks.memory, gpu.pcie.width) == (int(clock), int(width))
        assert gpu.health.state is not GpuState.UNKNOWN


def test_it_prints_a_report_that_the_api_takes() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "shardgate", "agent", "--once", "-o", "json"], capture_output=True, text=True, check=True
    )
    status = GpuNodeReportStatus.model_validate(json.loads(printed.stdout)["status"])
    assert status.problem is None
    assert status.gpus
