"""What the inventory makes of the emulated drivers' reports: one test a profile."""

from typing import Any

import pytest

from builders import GPU, a_node, an_inventory
from nvml import expected
from nvml.agents import profile
from nvml.library import BEFORE_450, NAMES
from shardgate.adapters.nodes import NodeFacts, report_from
from shardgate.domain.inventory import Node, Sharing

Json = dict[str, Any]


def a_report_of(name: str) -> Json:
    status = expected.written_down(name) if name in BEFORE_450 else expected.status(profile(name))
    return {"apiVersion": "shardgate.io/v1alpha1", "kind": "GpuNodeReport", "metadata": {"name": "node-a"}, "status": status}


def facts(name: str) -> NodeFacts:
    return report_from(a_report_of(name)).read()


def node(name: str, gpus: int, **resources: int) -> Node:
    found = a_node(gpus=gpus, labels={})
    for amounts in (found.body["status"]["capacity"], found.body["status"]["allocatable"]):
        amounts |= {each.replace("mig_", "nvidia.com/mig-").replace("_", "."): str(amount) for each, amount in resources.items()}
    (read,) = an_inventory(a_report_of(name), found).nodes
    return read


def test_every_profile_is_here() -> None:
    assert {each.removeprefix("test_").replace("_", "-") for each in globals() if each.startswith("test_")} >= {
        "a100-cut-in-part", "h100-that-lost-a-gpu", "h100", "an-insane-driver", "l40s", "t4",
    }  # fmt: skip
    assert len(NAMES) == 6


def test_t4() -> None:
    gpu = node("t4", 1).shape.gpu
    assert (gpu.product, gpu.compute_capability, gpu.has_nvlink) == ("Tesla-T4", (7, 5), None)
    assert gpu.memory is not None
    assert gpu.visible is not None
    assert gpu.visible.high <= gpu.memory


def test_h100() -> None:
    found = facts("h100-8x-nvswitch")
    assert (found.gpus, found.whole, found.out_of_use, found.memory_mib) == (8, 8, 0, 81559)
    gpu = node("h100-8x-nvswitch", 8).shape.gpu
    assert (gpu.has_nvlink, gpu.are_joined(8)) == (True, True)
    assert gpu.contradictions == ()


def test_h100_that_lost_a_gpu() -> None:
    found = node("h100-8x-lost-gpu", 8)
    reasons = facts("h100-8x-lost-gpu").reasons
    assert any(each.startswith("GPU 5 Lost") for each in reasons)
    assert any("RowRemapPending" in each for each in reasons)
    assert (found.allocatable[GPU], found.unavailable_gpus[GPU]) == (8 - len(reasons), len(reasons))
    links = found.shape.gpu.links
    assert links is not None
    assert 5 not in {index for island in links.islands for index in island}


def test_a100_cut_in_part() -> None:
    found = node("a100-2x-mig-mixed", 1, mig_1g_5gb=3, mig_2g_10gb=1)
    assert found.shape.gpu.sharing is Sharing.MIG_MIXED
    assert found.shape.unit(GPU).sharing is Sharing.NONE
    parts = {name: unit.memory for name, unit in found.shape.units.items() if name != GPU}
    assert set(parts) == {"nvidia.com/mig-1g.5gb", "nvidia.com/mig-2g.10gb"}
    assert parts["nvidia.com/mig-1g.5gb"] == 4864 * 2**20
    assert not any(kind in ("mig", "count") for kind, _ in found.shape.gpu.contradictions), found.shape.gpu.contradictions


def test_l40s() -> None:
    gpu = node("l40s-4x-pcie-pairs", 4).shape.gpu
    assert (gpu.product, gpu.has_nvlink, gpu.are_joined(2)) == ("L40S", False, False)
    assert gpu.links is not None
    assert gpu.links.switches == ((0, 1), (2, 3))


def test_an_insane_driver() -> None:
    found = facts("insane-418")
    assert found.gpus == 3
    assert found.links is not None
    assert found.links.islands == ((2,),), "the other two are out of use"
    read = node("insane-418", 3)
    assert read.shape.gpu.memory is None or read.shape.gpu.memory > 0


@pytest.mark.parametrize("name", NAMES)
def test_no_report_makes_a_node_offer_more_than_the_kubelet_counts(name: str) -> None:
    for gpus in range(9):
        assert node(name, gpus).allocatable[GPU] <= gpus
