"""GPUs that a DRA driver lists: counted by DeviceClass, held by claims, never twice."""

from typing import Any

import msgspec

from builders import GPU, a_node, a_report, a_reported_gpu
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.node_memory import TRANSITION_SECONDS
from shardgate.adapters.nodes import node_from, report_from, slice_from
from shardgate.adapters.nodes.slices import ClaimObject, DeviceClassObject
from shardgate.domain.inventory import Node, NodeState

Json = dict[str, Any]
CLASS = "deviceclass.resource.kubernetes.io/gpu.nvidia.com"


def a_slice(name: str = "s", gpus: int = 8, generation: int = 1, count: int = 1, **of_first: Any) -> Json:
    def device(index: int) -> Json:
        attributes = {
            "type": {"string": "gpu"},
            "productName": {"string": "NVIDIA H100 80GB HBM3"},
            "cudaComputeCapability": {"version": "9.0.0"},
        }
        body = {"name": f"gpu-{index}", "attributes": attributes, "capacity": {"memory": {"value": "81559Mi"}}}
        return {**body, **(of_first if index == 0 else {})}

    pool = {"name": "node-a", "generation": generation, "resourceSliceCount": count}
    devices = [device(index) for index in range(gpus)]
    return {
        "metadata": {"name": name},
        "spec": {"driver": "gpu.nvidia.com", "nodeName": "node-a", "pool": pool, "devices": devices},
    }


def a_claim(uid: str, *devices: str) -> ClaimObject:
    results = [{"driver": "gpu.nvidia.com", "pool": "node-a", "device": each} for each in devices]
    return msgspec.convert({"metadata": {"uid": uid}, "status": {"allocation": {"devices": {"results": results}}}}, ClaimObject)


def a_book(*slices: Json, extended: str = GPU, plugin: bool = False) -> ClusterBook:
    book = ClusterBook()
    for each in slices:
        book.put_slice(slice_from(each), 0.0)
    node = a_node().without_gpu_labels()
    if not plugin:
        for amounts in (node.body["status"]["capacity"], node.body["status"]["allocatable"]):
            del amounts[GPU]
    book.put_node(node_from(node.body), 0.0)
    if extended:
        book.put_device_class(
            msgspec.convert(
                {"metadata": {"name": "gpu.nvidia.com"}, "spec": {"extendedResourceName": extended}}, DeviceClassObject
            ),
            0.0,
        )
    return book


def only(book: ClusterBook) -> Node:
    (node,) = book.inventory(0.0).nodes
    return node


def test_a_class_stands_for_an_extended_resource() -> None:
    node = only(a_book(a_slice()))
    assert (node.allocatable[GPU], node.allocatable[CLASS]) == (8, 8)
    assert node.shape.gpu.product == "H100-80GB-HBM3"
    assert GPU not in only(a_book(a_slice(), extended="")).allocatable


def test_what_a_device_plugin_offers_is_not_counted_again() -> None:
    node = only(a_book(a_slice(), plugin=True))
    assert (node.allocatable[GPU], CLASS in node.allocatable) == (8, False)


def test_claims_hold_devices_until_they_are_gone() -> None:
    book = a_book(a_slice())
    book.put_claim(a_claim("one", "gpu-0", "gpu-1"))
    book.put_claim(a_claim("two", "gpu-7"))
    assert (only(book).free(GPU), only(book).free(CLASS)) == (5, 5)
    book.put_claim(a_claim("one"))
    assert only(book).free(GPU) == 7
    book.retain_claims(set())
    assert only(book).free(GPU) == 8


def test_a_tainted_device_is_not_to_be_had() -> None:
    taints = [{"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoSchedule"}]
    assert only(a_book(a_slice(taints=taints))).allocatable[GPU] == 7
    informed = [{"key": "gpu.nvidia.com/xid", "value": "43", "effect": "None"}]
    assert only(a_book(a_slice(taints=informed))).allocatable[GPU] == 8


def test_a_pool_counts_once_all_slices_of_its_newest_generation_are_here() -> None:
    book = a_book(a_slice("old", gpus=8), a_slice("new-1", gpus=4, generation=2, count=2))
    assert (only(book).allocatable[GPU], only(book).unavailable_gpus[GPU]) == (0, 4)
    second = a_slice("new-2", gpus=6, generation=2, count=2)
    second["spec"]["devices"] = second["spec"]["devices"][4:]
    book.put_slice(slice_from(second), 1.0)
    assert only(book).allocatable[GPU] == 6
    book.drop_slice("new-2", 2.0)  # the driver restarts: what it listed is remembered for a while
    assert (only(book).allocatable[GPU], only(book).state) == (6, NodeState.IN_TRANSITION)
    assert book.inventory(2.0 + TRANSITION_SECONDS).nodes[0].allocatable[GPU] == 0


def test_channels_of_compute_domains_are_no_gpus() -> None:
    channels = a_slice("c", gpus=4)
    channels["spec"]["driver"] = "compute-domain.nvidia.com"
    assert only(a_book(channels, a_slice("s", gpus=2))).allocatable[GPU] == 2


def test_slices_that_come_after_their_node_count_at_once() -> None:
    book = a_book()
    assert book.inventory(0.0).nodes == ()
    book.put_slice(slice_from(a_slice()), 1.0)
    assert (only(book).allocatable[GPU], only(book).allocatable[CLASS]) == (8, 8)


def device_class(name: str, extended: str, *conditions: str) -> DeviceClassObject:
    selectors = [{"cel": {"expression": " && ".join(conditions)}}] if conditions else []
    return msgspec.convert(
        {"metadata": {"name": name}, "spec": {"extendedResourceName": extended, "selectors": selectors}}, DeviceClassObject
    )


def test_a_class_of_another_name_takes_the_devices_that_its_selectors_say() -> None:
    book = a_book(a_slice(), extended="")
    product = "device.attributes['gpu.nvidia.com'].productName == 'NVIDIA H100 80GB HBM3'"
    book.put_device_class(device_class("h100.example.com", GPU, "device.driver == 'gpu.nvidia.com'", product), 0.0)
    assert only(book).allocatable[GPU] == 8
    book.put_device_class(device_class("h100.example.com", GPU, product.replace("H100", "A100")), 0.0)
    assert GPU not in only(book).allocatable


def test_parts_have_memory_of_their_own_and_what_is_not_read_has_none() -> None:
    parts = a_slice()
    for device in parts["spec"]["devices"]:
        device["attributes"] |= {"type": {"string": "mig"}, "profile": {"string": "1g.10gb"}}
        device["capacity"] = {"memory": {"value": "9856Mi"}}
    book = a_book(parts, extended="")
    name = "nvidia.com/mig-1g.10gb"
    is_mig = "device.attributes['gpu.nvidia.com'].type == 'mig'"
    book.put_device_class(device_class("mig.nvidia.com", name, "device.driver == 'gpu.nvidia.com'", is_mig), 0.0)
    assert (only(book).allocatable[name], only(book).shape.unit(name).memory) == (8, 9856 * 2**20)
    book.put_device_class(device_class("mig.nvidia.com", name, is_mig, "device.capacity['x'].memory.isGreaterThan(1)"), 0.0)
    assert (only(book).allocatable[name], only(book).shape.unit(name).memory) == (8, None)


def test_a_lost_gpu_is_free_under_none_of_its_names() -> None:
    book = a_book(a_slice())
    book.reports.are_heartbeats_needed = False
    gpus = (a_reported_gpu(index, state="Lost" if index == 7 else "Healthy") for index in range(8))
    book.put_report(report_from(a_report("node-a", *gpus)), 0.0)
    node = only(book)
    assert {node.allocatable[name] for name in (GPU, CLASS)} == {7}
