"""Labels that NVIDIA's own GPU Feature Discovery made of the emulated drivers: our reading of both is the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from nvml import expected
from nvml.agents import profile
from shardgate.adapters.node_report import node_report
from shardgate.adapters.nodes import node_from

Json = dict[str, Any]
DATA = Path(__file__).parents[1] / "data/nvml"
KEPT: Json = json.loads((DATA / "gfd-labels.json").read_text())
WHOLE = [(name, strategy) for name in ("h100-8x-nvswitch", "l40s-4x-pcie-pairs", "t4") for strategy in ("none", "single", "mixed")]
OF_THE_MACHINE = ("nvidia.com/gpu.mode", "nvidia.com/gpu.machine")


def read(labels: Json, resources: dict[str, int]) -> Json:
    amounts = {name: str(number) for name, number in resources.items()}
    node = {
        "metadata": {"name": "node", "labels": labels}, "spec": {},
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip
    found: Json = node_report(node_from(node), ())
    return found


@pytest.mark.parametrize(("name", "strategy"), WHOLE)
def test_labels_and_driver_tell_the_same(name: str, strategy: str) -> None:
    gpus = expected.status(profile(name))["gpus"]
    report = read(KEPT[name][strategy]["labels"], {"nvidia.com/gpu": len(gpus)})
    assert report["product"] == gpus[0]["product"].replace(" ", "-")
    assert report["memoryMib"] == gpus[0]["memory"]["totalBytes"] // 2**20
    assert report["computeCapability"] == gpus[0]["computeCapability"]
    assert (report["gpusPhysical"], report["gpusSchedulable"], report["sharing"]) == (len(gpus), len(gpus), "none")
    assert report["findings"] == []


def test_parts_of_a_gpu_are_told_the_same() -> None:
    labels = KEPT["a100-2x-mig-mixed"]["mixed"]["labels"]
    (cut, whole) = expected.status(profile("a100-2x-mig-mixed"))["gpus"]
    profiles = [device["profile"] for device in cut["mig"]["devices"]]
    resources = {f"nvidia.com/mig-{each}": profiles.count(each) for each in set(profiles)}
    report = read(labels, {**resources, "nvidia.com/gpu": 1})
    assert (report["sharing"], report["gpusPhysical"]) == ("mig-mixed", 2)
    assert report["memoryMib"] == whole["memory"]["totalBytes"] // 2**20
    sizes = {f"nvidia.com/mig-{each['profile']}": each["memory"]["totalBytes"] // 2**20 for each in cut["mig"]["devices"]}
    assert {name: size for name, size in report["unitMemoryMib"].items() if name in sizes} == sizes
    for device in cut["mig"]["devices"]:
        prefix = f"nvidia.com/mig-{device['profile']}"
        assert labels[f"{prefix}.multiprocessors"] == str(device["multiprocessors"])
        assert labels[f"{prefix}.memory"] == str(device["memory"]["totalBytes"] // 2**20)
        assert labels[f"{prefix}.count"] == str(profiles.count(device["profile"]))


def test_the_emulated_h100_is_labelled_as_the_real_one() -> None:
    real = json.loads((DATA / "h100-sxm.json").read_text())["gfdLabels"]
    emulated = dict(KEPT["h100-8x-nvswitch"]["none"]["labels"])
    assert emulated.pop("nvidia.com/gpu.count") == "8"
    differs = {key for key in real.keys() | emulated.keys() if real.get(key) != emulated.get(key)}
    assert differs <= {*OF_THE_MACHINE, "nvidia.com/gpu.count", "nvidia.com/mig.strategy"}


@pytest.mark.parametrize("strategy", ["none", "single", "mixed"])
def test_where_a_gpu_is_lost_labels_are_not_made_at_all(strategy: str) -> None:
    """The old ones stay: that is why a report is believed over them."""
    assert KEPT["h100-8x-lost-gpu"][strategy]["error"].endswith("error getting device handle for index '5': GPU is lost")
