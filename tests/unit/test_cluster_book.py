"""The life of a cluster: what nodes go through must not look like GPUs that are not there."""

from typing import Any

import pytest

from builders import GPU, H100, NodeBuilder, a_book, a_node, a_pod
from shardgate.adapters.cluster_book import GONE_COUNTS_SECONDS, LABELS_KEPT_SECONDS, TRANSITION_SECONDS, ClusterBook
from shardgate.adapters.nodes import node_from
from shardgate.adapters.pods import pod_from, read_pod
from shardgate.domain.inventory import Node, NodeState, Owner

Json = dict[str, Any]


def put(book: ClusterBook, builder: NodeBuilder, now: float) -> None:
    book.put_node(node_from(builder.body), now)


def only(book: ClusterBook, now: float) -> Node:
    (node,) = book.inventory(now).nodes
    return node


def test_pods_hold_what_they_request_and_give_it_back() -> None:
    book = a_book(a_node(), a_pod("p", node="node-a", gpus=3))
    assert only(book, 0).free(GPU) == 5
    book.drop_pod("uid-serving-p")
    assert only(book, 0).free(GPU) == 8


def test_more_requested_than_is_left_is_negative() -> None:
    book = a_book(a_node().allocatable(2), a_pod("p", node="node-a", gpus=3))
    assert only(book, 0).free(GPU) == -1


def test_a_pod_that_came_before_its_node_counts() -> None:
    book = a_book(a_pod("p", node="node-a", gpus=3), a_node())
    assert only(book, 0).free(GPU) == 5


def test_a_bound_pod_moves_nothing_twice() -> None:
    book = a_book(a_node())
    record = read_pod(pod_from(a_pod("p", node="node-a", gpus=3)))
    assert record is not None
    book.put_pod(record)
    book.put_pod(record)
    assert only(book, 0).free(GPU) == 5


def test_a_list_takes_away_what_it_does_not_have() -> None:
    book = a_book(a_node(), a_pod("p", node="node-a", gpus=3), a_pod("q", node="node-a", gpus=1))
    book.retain_pods({"uid-serving-q"})
    assert only(book, 0).free(GPU) == 7


def test_heartbeats_change_nothing() -> None:
    book = a_book(a_node())
    book.inventory(0)
    version = book.version
    put(book, a_node(), 1)
    assert book.version == version


def test_groups_that_did_not_change_are_the_same() -> None:
    book = a_book(a_node(), a_node("node-b"))
    book.put_pod(read_pod(pod_from(a_pod("q", node="node-b", gpus=2))))  # type: ignore[arg-type]
    before = book.inventory(0).groups
    book.put_pod(read_pod(pod_from(a_pod("p", node="node-b", gpus=1))))  # type: ignore[arg-type]
    after = book.inventory(0).groups
    assert before[0] is after[0]
    assert before[1] is not after[1]


@pytest.mark.parametrize("capacity", ["8", "0"])
def test_a_restarting_device_plugin_keeps_the_last_known_count_for_a_while(capacity: str) -> None:
    book = a_book(a_node())
    down = a_node().allocatable(0)
    down.body["status"]["capacity"][GPU] = capacity
    put(book, down, 100)
    node = only(book, 101)
    assert node.state is NodeState.IN_TRANSITION
    assert node.allocatable[GPU] == 8
    later = only(book, 100 + TRANSITION_SECONDS)
    assert later.allocatable[GPU] == 0
    put(book, a_node(), 2000)
    assert only(book, 2000).state is NodeState.USABLE


def test_a_restart_is_noticed_beside_other_devices() -> None:
    """The GPUs are gone, the network devices of another plugin are not."""
    whole, down = a_node(), a_node().allocatable(0)
    for each in (whole, down):
        for amounts in ("allocatable", "capacity"):
            each.body["status"][amounts]["rdma/hca"] = "8"
    down.body["status"]["capacity"][GPU] = "0"
    book = a_book(whole)
    put(book, down, 10)
    assert only(book, 11).state is NodeState.IN_TRANSITION
    assert only(book, 11).allocatable[GPU] == 8


def test_another_mig_geometry_is_no_restart() -> None:
    book = a_book(a_node())
    put(book, a_node().allocatable(0).allocatable(14, "nvidia.com/mig-1g.10gb"), 10)
    node = only(book, 11)
    assert (node.state, node.allocatable["nvidia.com/mig-1g.10gb"]) == (NodeState.USABLE, 14)


def test_a_node_that_says_it_is_being_worked_on_is_believed_however_long() -> None:
    book = a_book(a_node())
    down = a_node().allocatable(0).label("nvidia.com/gpu-driver-upgrade-state", "validation-required")
    down.body["status"]["capacity"][GPU] = "0"
    put(book, down, 10)
    node = only(book, 10 + 2 * TRANSITION_SECONDS)
    assert (node.state, node.allocatable[GPU]) == (NodeState.IN_TRANSITION, 8)


def test_labels_of_the_gpu_operator_do_not_pass_for_feature_discoverys() -> None:
    """The operator's own labels stay while GPU Feature Discovery restarts."""
    own = {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.deploy.driver": "true"}
    book = a_book(a_node(labels={**H100, **own}))
    put(book, a_node(labels=own), 10)
    assert only(book, 11).shape.gpu.product == "H100-80GB-HBM3"


def test_another_plugins_restart_is_no_business_of_the_gpus() -> None:
    nodes = [a_node(), a_node()]
    for node, count in zip(nodes, ("1", "0"), strict=True):
        node.body["status"]["allocatable"]["rdma/hca"] = count
    book = a_book(nodes[0])
    put(book, nodes[1].allocatable(7), 10)
    assert (only(book, 11).state, only(book, 11).allocatable[GPU]) == (NodeState.USABLE, 7)


def test_feature_labels_that_vanish_as_a_whole_are_remembered_too() -> None:
    feature = "feature.node.kubernetes.io/pci-10de.present"
    book = a_book(a_node().label(feature, "true"))
    put(book, a_node(), 10)
    assert only(book, 11).labels[feature] == "true"
    assert feature not in only(book, 11 + LABELS_KEPT_SECONDS).labels


def test_one_failed_gpu_is_real_at_once() -> None:
    book = a_book(a_node())
    put(book, a_node().allocatable(7), 1)
    node = only(book, 1)
    assert (node.state, node.allocatable[GPU], node.unavailable_gpus) == (NodeState.USABLE, 7, {GPU: 1})


def test_vanished_labels_are_remembered_for_a_day_and_marked() -> None:
    book = a_book(a_node())
    put(book, a_node().without_gpu_labels(), 10)
    gpu = only(book, 11).shape.gpu
    assert (gpu.product, gpu.source) == ("H100-80GB-HBM3", "remembered labels")
    put(book, a_node().without_gpu_labels().allocatable(7), 20)
    assert only(book, 21).shape.gpu.product == "H100-80GB-HBM3"
    assert only(book, 11 + LABELS_KEPT_SECONDS).shape.gpu.product is None


def test_a_deleted_node_counts_as_gone_for_a_while() -> None:
    book = a_book(a_node())
    book.drop_node("node-a", 100)
    assert only(book, 101).state is NodeState.GONE
    assert book.inventory(100 + GONE_COUNTS_SECONDS).nodes == ()


def test_a_node_that_comes_back_is_itself_again() -> None:
    book = a_book(a_node())
    book.drop_node("node-a", 100)
    put(book, a_node(), 200)
    assert only(book, 200).state is NodeState.USABLE


def test_a_relist_notices_nodes_that_went_meanwhile() -> None:
    book = a_book(a_node(), a_node("node-b"))
    book.retain_nodes({"node-b"}, 5)
    assert {node.name: node.state for node in book.inventory(6).nodes} == {
        "node-a": NodeState.GONE,
        "node-b": NodeState.USABLE,
    }


def test_a_node_with_an_unreadable_amount_is_named_and_left_out() -> None:
    bad = a_node()
    bad.body["status"]["allocatable"][GPU] = "eight"
    book = a_book(bad)
    assert book.inventory(0).nodes == ()
    assert "eight" in book.unreadable["Node node-a"]
    put(book, a_node(), 1)
    assert book.unreadable == {}


def test_own_pods_are_known_by_their_label() -> None:
    book = a_book(a_node(), a_pod("p", node="node-a", gpus=8, declaration="llama", ready=True))
    (held,) = book.inventory(0).held_by([Owner("serving", "InferenceDeployment", "llama")])
    assert (held.node, held.ready) == ("node-a", True)
    book.drop_pod("uid-serving-p")
    assert book.inventory(0).held == {}


@pytest.mark.parametrize(
    ("owner", "labels", "is_own"),
    [
        ({"kind": "ReplicaSet", "name": "llama-6f7d9c"}, {"pod-template-hash": "6f7d9c"}, True),
        ({"kind": "ReplicaSet", "name": "other-6f7d9c"}, {"pod-template-hash": "6f7d9c"}, False),
        ({"kind": "ReplicaSet", "name": "llama-6f7d9c"}, {}, False),
        ({"kind": "StatefulSet", "name": "llama"}, {}, False),
    ],
)
def test_pods_of_a_deployments_replica_sets_are_the_deployments(owner: Json, labels: Json, is_own: bool) -> None:  # of the table
    pod = a_pod("p", node="node-a", gpus=4)
    pod["metadata"] |= {"labels": labels, "ownerReferences": [{**owner, "controller": True}]}
    inventory = a_book(a_node(), pod).inventory(0.0)
    assert bool(inventory.held_by([Owner("serving", "Deployment", "llama")])) is is_own


def test_an_inventory_that_was_handed_out_keeps_its_pods() -> None:
    book = a_book(a_node(), a_pod("p", node="node-a", declaration="llama"))
    before = book.inventory(0.0)
    book.drop_pod("uid-serving-p")
    owner = [Owner("serving", "InferenceDeployment", "llama")]
    assert (len(before.held_by(owner)), len(book.inventory(0.0).held_by(owner))) == (1, 0)
