"""What drivers of real GPUs said, and the labels that the real GPU Feature Discovery made of it, against our reading."""

import json
from pathlib import Path
from typing import Any

import pytest

from builders import a_node
from shardgate.adapters.gpus import gpu_of, normalised
from shardgate.adapters.node_report import node_report
from shardgate.adapters.nodes import node_from

RECORDED = Path(__file__).parents[1] / "data" / "nvml"


def recorded(name: str) -> Any:
    return json.loads((RECORDED / f"{name}.json").read_text())


@pytest.mark.parametrize(("name", "product"), [("h100-sxm", "NVIDIA-H100-80GB-HBM3"), ("h200-sxm", "NVIDIA-H200")])
def test_labels_of_the_real_discovery_are_read_as_the_driver_said(name: str, product: str) -> None:
    found, calls = recorded(name), recorded(name)["calls"]
    report = node_report(node_from(a_node(gpus=1, labels=found["gfdLabels"]).body), ())
    memory = calls["nvmlDeviceGetMemoryInfo(v2)"]["value"]
    major, minor = calls["nvmlDeviceGetCudaComputeCapability"]["value"]
    assert (report["product"], report["family"], report["sharing"]) == (product, "hopper", "none")
    assert report["memoryMib"] == memory["total"] // 2**20
    assert report["computeCapability"] == {"major": major, "minor": minor}
    assert (report["gpusPhysical"], report["gpusSchedulable"]) == (1, 1)
    assert report["findings"] == []


@pytest.mark.parametrize("name", ["h100-sxm", "h200-sxm"])
def test_what_an_engine_sees_is_all_but_what_the_driver_reserves(name: str) -> None:
    found = recorded(name)
    memory = found["calls"]["nvmlDeviceGetMemoryInfo(v2)"]["value"]
    seen = memory["total"] - memory["reserved"]
    assert found.get("cudaTotalBytes", seen) == seen, "cudaMemGetInfo's total"
    product = normalised(found["gfdLabels"]["nvidia.com/gpu.product"])
    visible = gpu_of(product, memory["total"] // 2**20 * 2**20).visible
    assert visible is not None
    rounding = 0.006 * 2**30  # the table has two decimals of a GiB
    assert visible.low - rounding <= seen <= visible.high + rounding
