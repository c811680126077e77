from typing import Any

import pytest

from builders import GPU, NodeBuilder, a_node
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.gpus import gpu_of, normalised
from shardgate.adapters.node_report import node_report
from shardgate.adapters.nodes import Shapes, node_from, read_node
from shardgate.domain.inventory import Node, NodeState, Sharing
from shardgate.domain.units import MEBI, Bytes


def read(builder: NodeBuilder) -> Node:
    node = read_node(node_from(builder.body), Shapes())
    assert node is not None
    return node


@pytest.mark.parametrize(
    ("label", "product"),
    [
        ("NVIDIA-H100-80GB-HBM3", "H100-80GB-HBM3"),
        ("A100-SXM4-40GB", "A100-SXM4-40GB"),
        ("NVIDIA-A100-SXM4-40GB-MIG-3g.20gb", "A100-SXM4-40GB"),
        ("NVIDIA-A100-SXM4-40GB-MIG-INVALID", "A100-SXM4-40GB"),
        ("Tesla-T4-SHARED", "Tesla-T4"),
        ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED", "A100-SXM4-40GB"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB-HBM3"),
        ("AMD_Instinct_MI300X_OAM", "Instinct_MI300X_OAM"),
    ],
)
def test_products_are_compared_without_vendor_and_sharing(label: str, product: str) -> None:
    assert normalised(label) == product


def test_a_whole_h100() -> None:
    node = read(a_node())
    assert node.shape.gpu.product == "H100-80GB-HBM3"
    assert node.shape.gpu.memory == 81559 * MEBI
    assert node.allocatable[GPU] == 8
    assert node.state is NodeState.USABLE
    visible = node.shape.gpu.visible
    assert visible is not None
    assert visible.low <= visible.high < (node.shape.gpu.memory or 0)


def test_a_failed_gpu_is_unavailable_at_once() -> None:
    node = read(a_node().allocatable(7))
    assert node.allocatable[GPU] == 7
    assert node.unavailable_gpus == {GPU: 1}


def test_a_missing_label_is_unknown_never_zero() -> None:
    gpu = read(a_node().without_gpu_labels()).shape.gpu
    assert gpu.product is None
    assert gpu.memory is None


def test_memory_comes_from_the_product_table_when_the_label_is_gone() -> None:
    gpu = read(a_node(labels={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"})).shape.gpu
    assert gpu.memory == 81559 * MEBI
    assert gpu.source == "product table (h100-sxm5-80gb)"


@pytest.mark.parametrize("label", ["85520809984", "81559", "81559MiB"])
def test_memory_labels_of_all_spellings(label: str) -> None:
    gpu = read(a_node(labels={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": label})).shape.gpu
    assert gpu.memory == 81559 * MEBI


@pytest.mark.parametrize("label", ["", "0", "-1", "lots", "٣٤"])
def test_a_memory_label_that_says_nothing(label: str) -> None:
    gpu = read(a_node(labels={"nvidia.com/gpu.product": "Some-Future-GPU", "nvidia.com/gpu.memory": label})).shape.gpu
    assert gpu.memory is None


def test_a_node_without_devices_is_none_of_ours() -> None:
    builder = a_node().without_gpu_labels()
    for amounts in (builder.body["status"]["allocatable"], builder.body["status"]["capacity"]):
        del amounts[GPU]
    assert read_node(node_from(builder.body), Shapes()) is None


@pytest.mark.parametrize(
    ("key", "value", "sharing"),
    [
        ("nvidia.com/gpu.product", "Tesla-T4-SHARED", Sharing.TIME_SLICING),
        ("nvidia.com/gpu.replicas", "4", Sharing.TIME_SLICING),
        ("nvidia.com/gpu.sharing-strategy", "mps", Sharing.MPS),
        ("nvidia.com/gpu.product", "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb", Sharing.MIG_SINGLE),
        ("nvidia.com/vgpu.present", "true", Sharing.VGPU),
        ("nvidia.com/gpu.replicas", "1", Sharing.NONE),
        ("nvidia.com/gpu.sharing-strategy", "none", Sharing.NONE),
        ("nvidia.com/mig.capable", "true", Sharing.NONE),
    ],
)
def test_signs_of_sharing(key: str, value: str, sharing: Sharing) -> None:
    assert read(a_node().label(key, value)).shape.gpu.sharing is sharing


def test_mig_slices_on_a_node_are_sharing() -> None:
    assert read(a_node().allocatable(2, "nvidia.com/mig-1g.10gb")).shape.gpu.sharing is Sharing.MIG_MIXED


@pytest.mark.parametrize(
    ("builder", "state"),
    [
        (a_node().cordoned(), NodeState.CORDONED),
        (a_node().not_ready(), NodeState.NOT_READY),
        (a_node().label("nvidia.com/gpu-driver-upgrade-state", "drain-required"), NodeState.IN_TRANSITION),
        (a_node().label("nvidia.com/gpu-driver-upgrade-state", "upgrade-done"), NodeState.USABLE),
        (a_node().label("nvidia.com/mig.config.state", "rebooting"), NodeState.IN_TRANSITION),
    ],
)
def test_states(builder: NodeBuilder, state: NodeState) -> None:
    assert read(builder).state is state


def test_equal_shapes_are_one() -> None:
    shapes = Shapes()
    one, two = (read_node(node_from(a_node(name).body), shapes) for name in ("a", "b"))
    assert one is not None
    assert two is not None
    assert one.shape is two.shape


def test_measured_visible_memory_never_exceeds_what_the_label_reports() -> None:
    t4 = gpu_of("Tesla-T4", Bytes(15109 * MEBI))
    assert t4.visible is not None
    assert t4.visible.high <= 15109 * MEBI
    assert gpu_of("Tesla-T4", Bytes(16384 * MEBI)).visible is None


# ---- hostile nodes


@pytest.mark.parametrize(
    ("amount", "units"),
    [("1000m", 1), ("8k", 8000), ("8", 8), (8, 8), ("0", 0), ("-1", -1)],
)
def test_quantities_of_all_spellings(amount: str | int, units: int) -> None:
    node = read(NodeBuilder("n", 8, {}).allocatable(amount))
    assert node.allocatable[GPU] == units


@pytest.mark.parametrize("amount", ["1e30", "lots", "", "0x8", "NaN", "inf"])
def test_what_is_no_quantity_is_named(amount: str) -> None:
    book = ClusterBook()
    book.put_node(node_from(a_node("good").body), 0.0)
    book.put_node(node_from(NodeBuilder("bad", 8, {}).allocatable(amount).body), 0.0)
    assert list(book.unreadable) == ["Node bad"]
    assert [node.name for node in book.inventory(0.0).nodes] == ["good"]


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"name": "bare"}},
        {"metadata": {"name": "bare"}, "spec": {}, "status": {}},
        {"metadata": {"name": "bare", "labels": None}, "status": {"allocatable": None, "capacity": None, "conditions": None}},
        {"metadata": {"name": "b\udcff\u202e", "labels": {"\x00": "\ud800"}}},
        {"metadata": {"name": "many", "labels": {f"acme.io/label-{number}": "x" for number in range(10_000)}}},
        {"metadata": {"name": "taints"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}] * 3}},
        {"metadata": {"name": "labels", "labels": dict.fromkeys(("nvidia.com/gpu.count", "nvidia.com/gpu.replicas", "nvidia.com/gpu.memory", "nvidia.com/gpu.compute.major", "amd.com/gpu.vram", "nvidia.com/mig-1g.5gb.count", "cloud.google.com/gke-accelerator"), "٣")}},
    ],
)  # fmt: skip
def test_nothing_crashes_the_reading(body: dict[str, Any]) -> None:
    report = node_report(node_from(body))
    assert report["name"] == body["metadata"]["name"]
    assert report["gpusPhysical"] is None
    assert read_node(node_from(body), Shapes()) is None or "nvidia.com/gpu.count" in body["metadata"]["labels"]
