"""The life of a cluster: what nodes go through must not look like GPUs that are not there."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import AWS, GPU, H100, NodeBuilder, a_book, a_declaration, a_node, a_pod
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.disclosure import told as as_told
from shardgate.adapters.node_memory import GONE_COUNTS_SECONDS, LABELS_KEPT_SECONDS, TRANSITION_SECONDS
from shardgate.adapters.nodes import node_from
from shardgate.adapters.pods import pod_from, read_pod
from shardgate.adapters.status import summary
from shardgate.domain.inventory import Inventory, Node, NodeState, Owner
from shardgate.domain.policy import OWN_KIND, Disclosure
from shardgate.domain.verdict import Outcome, Verdict
from shardgate.domain.verify import verify

Json = dict[str, Any]


def put(book: ClusterBook, builder: NodeBuilder, now: float) -> None:
    book.put_node(node_from(builder.body), now)


def judged(book: ClusterBook, now: float = 0.0, **changes: Any) -> Verdict:
    """Of the reference declaration, under the default policy of our own kind."""
    return verify(a_declaration(**changes), book.inventory(now), OWN_KIND)


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


def test_a_verdict_by_remembered_labels_says_so() -> None:
    book = a_book(a_node())
    put(book, a_node().without_gpu_labels(), 10)
    verdict = judged(book, 11)
    assert verdict.outcome is Outcome.SOUND
    assert [each.value for each in verdict.assumptions if each.why.startswith("remembered labels: 1 node")] == ["H100-80GB-HBM3"]
    assert "8 x H100-80GB-HBM3 (remembered labels)" in summary(a_declaration(), verdict)
    put(book, a_node(), 20)
    assert "remembered" not in summary(a_declaration(), judged(book, 21))


@pytest.mark.parametrize(
    ("labels", "resource"),
    [
        ({"node.kubernetes.io/instance-type": "p5.48xlarge"}, GPU),
        ({"cloud.google.com/gke-accelerator": "nvidia-h100-80gb", "cloud.google.com/gke-accelerator-count": "8"}, GPU),
        ({f"{AWS}gpu-name": "h100", f"{AWS}gpu-count": "8", f"{AWS}gpu-manufacturer": "nvidia"}, GPU),
        ({"node.kubernetes.io/instance-type": "Standard_ND96isr_MI300X_v5"}, "amd.com/gpu"),
    ],
)
def test_a_new_node_has_what_its_cloud_sold_and_no_plugin_offers_yet(labels: dict[str, str], resource: str) -> None:
    new = a_node(labels=labels)
    for amounts in ("allocatable", "capacity"):
        del new.body["status"][amounts][GPU]
    node = only(a_book(new), 0.0)
    assert (node.state, node.unavailable_gpus) == (NodeState.IN_TRANSITION, {resource: 8})
    if resource == GPU:
        assert judged(a_book(new)).codes == ("NodesUnavailable",)


@pytest.mark.parametrize(
    ("label", "units"),
    [
        (
            {"cloud.google.com/gke-gpu-sharing-strategy": "time-sharing", "cloud.google.com/gke-max-shared-clients-per-gpu": "4"},
            [4],
        ),
        ({"cloud.google.com/gke-gpu-partition-size": "1g.10gb"}, []),
    ],
)
def test_a_cloud_tells_the_units_of_a_gpu_that_is_shared_in_time_and_not_of_one_that_is_cut(
    label: dict[str, str], units: list[int]
) -> None:
    whole = {"cloud.google.com/gke-accelerator": "nvidia-l4", "cloud.google.com/gke-accelerator-count": "1"}
    new = a_node(labels={**whole, **label})
    for amounts in ("allocatable", "capacity"):
        del new.body["status"][amounts][GPU]
    assert [node.unavailable_gpus[GPU] for node in a_book(new).inventory(0.0).nodes] == units


def test_a_taint_that_passes_is_named_as_what_keeps_gpus_away() -> None:
    (found,) = judged(a_book(a_node().tainted("node.cilium.io/agent-not-ready", ""))).findings
    assert found.message.endswith("0 of 8 are available now (8 GPUs on nodes tainted node.cilium.io/agent-not-ready for now)")
    tolerant = {"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}
    (found,) = judged(
        a_book(a_node(gpus=4).cordoned(), a_node("b", gpus=4).not_ready()), placement=tolerant, gpus={"perPod": 4}
    ).findings
    assert found.message.endswith("4 of 8 are available now (4 GPUs on nodes not ready)")


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


def test_undoing_mig_is_a_change_and_no_lost_plugin() -> None:
    book = ClusterBook()
    cut = a_node(gpus=6)
    for amounts in (cut.body["status"]["capacity"], cut.body["status"]["allocatable"]):
        amounts["nvidia.com/mig-1g.10gb"] = "14"
    put(book, cut, 0.0)
    put(book, a_node(gpus=8), 10.0)
    assert (only(book, 10.0).allocatable[GPU], only(book, 10.0).state) == (8, NodeState.USABLE)
    book.drop_node("node-a", 20.0)
    assert (only(book, 20.0).allocatable[GPU], only(book, 20.0).state) == (8, NodeState.GONE)


def test_a_node_that_can_no_longer_be_read_counts_as_it_was() -> None:
    book = ClusterBook()
    put(book, a_node(gpus=8), 0.0)
    bad = a_node(gpus=8)
    bad.body["status"]["allocatable"]["memory"] = "lots"
    put(book, bad, 10.0)
    assert only(book, 10.0 + TRANSITION_SECONDS).allocatable[GPU] == 8
    assert book.inventory(10.0).unreadable_nodes == ()
    new = a_node("node-b")
    new.body["status"]["allocatable"]["memory"] = "lots"
    put(book, new, 20.0)
    assert book.inventory(20.0).unreadable_nodes == ("node-b: 'lots' is not a quantity",)
    book.drop_node("node-b", 30.0)
    assert book.inventory(30.0).unreadable_nodes == ()


@pytest.mark.parametrize("disclosure", list(Disclosure))
def test_a_node_that_cannot_be_read_is_named_to_those_who_may_know_nodes(disclosure: Disclosure) -> None:
    bad = a_node("node-b")
    bad.body["status"]["allocatable"]["memory"] = "lots"
    book = a_book(a_node("node-a", gpus=1), bad)
    policy = replace(OWN_KIND, disclosure=disclosure)
    inventory = book.inventory(0.0)
    found = as_told(verify(a_declaration(), inventory, policy), inventory, policy)
    text = " ".join(f"{each.message} {each.remedy}" for each in found.findings)
    assert "1 node could not be read" in text
    assert ("node-b" in text, "lots" in text) == (disclosure is Disclosure.NODES,) * 2


def test_two_pods_of_one_daemon_set_are_there_for_a_moment() -> None:
    def daemon(name: str) -> Json:
        body = a_pod(name, node="node-a", gpus=0)
        body["metadata"]["ownerReferences"] = [{"kind": "DaemonSet", "name": "agent", "controller": True}]
        return body

    book = a_book(a_node(), daemon("old"), daemon("new"))
    assert only(book, 0.0).daemons["cpu"] == 100


def test_a_node_that_has_lost_its_gpus_is_one_without() -> None:
    book = ClusterBook()
    put(book, a_node("x"), 0.0)
    bare = a_node("x")
    bare.without_gpu_labels()
    for amounts in (bare.body["status"]["capacity"], bare.body["status"]["allocatable"]):
        del amounts[GPU]
    put(book, bare, 10.0)
    assert [node.name for node in book.inventory(20.0).present] == ["x"]
    later = 20.0 + TRANSITION_SECONDS
    assert book.inventory(later).nodes == ()
    record = read_pod(pod_from(a_pod("p", node="x", gpus=0)))
    assert record is not None
    book.put_pod(record)
    assert [len(node.pods) for node in book.inventory(later).present] == [1]
    book.drop_pod(record.uid)
    assert [len(node.pods) for node in book.inventory(later).present] == [0]


def test_what_is_gone_leaves_nothing_behind() -> None:
    book = ClusterBook()
    for index in range(20):
        put(book, a_node(f"spot-{index}"), float(index))
        record = read_pod(pod_from(a_pod(f"p-{index}", node=f"spot-{index}")))
        assert record is not None
        book.put_pod(record)
        book.drop_pod(record.uid)
        book.drop_node(f"spot-{index}", float(index))
    book.inventory(20.0 + GONE_COUNTS_SECONDS)
    kept = (book._used, book._bound, book._used_by_priority, book._objects, book._memory._known, book._without_gpus)
    assert [len(each) for each in kept] == [0] * len(kept)


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_a_book_kept_by_events_equals_one_made_anew(seed: int) -> None:
    """Once all that is remembered for a while has passed."""
    dice = random.Random(seed)
    book, nodes, pods, now = ClusterBook(), {}, {}, 0.0
    for _ in range(40):
        now += 1000.0
        name, pod = dice.choice("abc"), f"p{dice.randint(0, 5)}"
        match dice.randint(0, 4):
            case 0 | 1:
                node = a_node(name, gpus=dice.choice((0, 2, 8)), labels=dice.choice((H100, {})))
                if dice.random() < 0.3:
                    for amounts in (node.body["status"]["capacity"], node.body["status"]["allocatable"]):
                        del amounts[GPU]
                nodes[name] = node
                put(book, node, now)
            case 2:
                nodes.pop(name, None)
                book.drop_node(name, now)
            case 3:
                pods[pod] = a_pod(pod, node=name, gpus=dice.choice((0, 1)), declaration=dice.choice(("", "llama")))
                record = read_pod(pod_from(pods[pod]))
                assert record is not None
                book.put_pod(record)
            case 4:
                pods.pop(pod, None)
                book.drop_pod(f"uid-serving-{pod}")
        if dice.random() < 0.5:
            book.inventory(now)
    now += 2 * LABELS_KEPT_SECONDS
    kept, anew = book.inventory(now), a_book(*nodes.values(), *pods.values()).inventory(0.0)
    assert [told(each) for each in (kept, anew)] == [told(anew)] * 2


def told(inventory: Inventory) -> Any:
    """What verdicts rest on, in an order of its own."""
    return (
        sorted((node.name, node.state, sorted(node.allocatable.items()), sorted(node.used.items())) for node in inventory.nodes),
        sorted((node.name, sorted(pod.labels.items() for pod in node.pods)) for node in inventory.present),
        {owner: sorted(each.node for each in pods) for owner, pods in inventory.held.items()},
    )
