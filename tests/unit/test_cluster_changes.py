"""What a cluster's objects are after a change that somebody only thinks of."""

import copy
from typing import Any

import pytest

from builders import GPU, H100, T4, Json, a_node, a_pod, an_inventory
from shardgate.adapters.cluster_additions import Addition, AdditionError
from shardgate.adapters.cluster_changes import (
    Change,
    ChangedCluster,
    Labelling,
    NoSuchNode,
    OnNodes,
    Tainting,
    Verb,
    changed,
)
from shardgate.domain.inventory import NodeState


def owned(pod: Json, kind: str) -> Json:
    owner = {"apiVersion": "apps/v1", "kind": kind, "name": "x", "uid": f"uid-{kind}", "controller": True}
    return {**pod, "metadata": {**pod["metadata"], "ownerReferences": [owner]}}


def on(verb: Verb, *nodes: str) -> OnNodes:
    return OnNodes(verb=verb, nodes=nodes)


def names(cluster: ChangedCluster, kind: str) -> list[str]:
    return [each["metadata"]["name"] for each in cluster.objects if each["kind"] == kind]


def the_cluster() -> list[Json]:
    mirror = a_pod("mirror", node="node-a", gpus=0)
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    going = owned(a_pod("going", node="node-a"), "ReplicaSet")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    ended = owned(a_pod("ended", node="node-a"), "Job") | {"status": {"phase": "Succeeded"}}
    return [
        a_node().body, a_node("node-b").body, owned(a_pod("serves", node="node-a", gpus=4, ready=True), "ReplicaSet"),
        owned(a_pod("watches", node="node-a", gpus=0), "DaemonSet"), a_pod("bare", node="node-a"), mirror, going, ended,
        owned(a_pod("elsewhere", node="node-b", gpus=2), "ReplicaSet"),
    ]  # fmt: skip


def test_nothing_is_changed_in_place() -> None:
    objects = the_cluster()
    before = copy.deepcopy(objects)
    changed(
        objects,
        [
            on(Verb.DRAIN, "node-a"), on(Verb.REMOVE, "node-a"), Addition(nodes=1, product="H100-80GB-HBM3", gpus=None),
            Labelling(nodes=("node-b",), labels={"a": "b"}), Tainting(nodes=("node-b",), taints=(("k", "v", "NoSchedule"),)),
        ],
    )  # fmt: skip
    assert objects == before


def test_a_drained_node_keeps_daemons_and_what_the_kubelet_runs() -> None:
    cluster = changed(the_cluster(), [on(Verb.DRAIN, "node-a")])
    assert names(cluster, "Pod") == ["watches", "mirror", "elsewhere"]
    assert [each["metadata"]["name"] for each in cluster.moved] == ["serves"]
    assert [each["metadata"]["name"] for each in cluster.ended] == ["bare"]
    inventory = an_inventory(*cluster.objects, *cluster.moved)
    states = {node.name: (node.state, node.free(GPU)) for node in inventory.nodes}
    assert states == {"node-a": (NodeState.CORDONED, 8), "node-b": (NodeState.USABLE, 6)}
    assert [(pod.count, pod.requests[GPU]) for pod in inventory.pending] == [(1, 4)]


def test_a_pod_made_anew_wishes_the_same_and_runs_nowhere() -> None:
    pod = owned(a_pod("p", node="node-a", gpus=4, ready=True), "ReplicaSet")
    pod["spec"]["nodeSelector"] = {"zone": "a"}
    (new,) = changed([a_node().body, pod], [on(Verb.DRAIN, "node-a")]).moved
    assert new["metadata"]["uid"] != pod["metadata"]["uid"]
    assert new["metadata"]["ownerReferences"] == pod["metadata"]["ownerReferences"]
    assert new["spec"] == {key: value for key, value in pod["spec"].items() if key != "nodeName"}
    assert new["status"] == {"phase": "Pending"}


def test_a_removed_node_goes_with_all_that_is_on_it_and_what_names_it() -> None:
    objects = [
        *the_cluster(),
        {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "s"}, "spec": {"nodeName": "node-a"}},
        {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "t"}, "spec": {"nodeName": "node-b"}},
        {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": "c"}, "status": {"nodeName": "node-a"}},
        {"apiVersion": "shardgate.io/v1alpha1", "kind": "GpuNodeReport", "metadata": {"name": "node-a"}},
        {"apiVersion": "shardgate.io/v1alpha1", "kind": "GpuNodeReport", "metadata": {"name": "node-b"}},
    ]
    cluster = changed(objects, [on(Verb.REMOVE, "node-a")])
    assert (names(cluster, "Node"), names(cluster, "Pod")) == (["node-b"], ["elsewhere"])
    assert (names(cluster, "ResourceSlice"), names(cluster, "NodeClaim")) == (["t"], [])
    assert names(cluster, "GpuNodeReport") == ["node-b"]
    assert [each["metadata"]["name"] for each in cluster.moved] == ["serves"]


def test_a_node_pool_has_the_room_of_a_removed_node_again() -> None:
    node = a_node().label("karpenter.sh/nodepool", "gpu").body
    pool = {
        "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "gpu"}, "spec": {},
        "status": {"resources": {GPU: "16", "cpu": "128", "nodes": "2"}},
    }  # fmt: skip
    other = {**pool, "metadata": {"name": "other"}}
    cluster = changed([node, pool, other], [on(Verb.REMOVE, "node-a")])
    assert [each["status"]["resources"] for each in cluster.objects] == [
        {GPU: "8", "cpu": "64000m", "nodes": "1"}, {GPU: "16", "cpu": "128", "nodes": "2"},
    ]  # fmt: skip


def test_a_claim_that_only_drained_pods_hold_is_free() -> None:
    def claim(name: str, *users: str) -> Json:
        reserved = [{"resource": "pods", "name": user} for user in users]
        return {
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": name, "namespace": "serving"},
            "status": {"allocation": {"devices": {"results": [{"driver": "gpu.nvidia.com", "pool": "node-a", "device": "0"}]}},
                       "reservedFor": reserved},
        }  # fmt: skip

    cluster = changed([*the_cluster(), claim("own", "serves"), claim("shared", "serves", "watches")], [on(Verb.DRAIN, "node-a")])
    held = {each["metadata"]["name"]: bool(each["status"]) for each in cluster.objects if each["kind"] == "ResourceClaim"}
    assert held == {"own": False, "shared": True}


def test_cordon_and_uncordon() -> None:
    once = changed([a_node().body], [on(Verb.CORDON, "node-a"), on(Verb.CORDON, "node-a")])
    assert an_inventory(*once.objects).nodes[0].state is NodeState.CORDONED
    assert len(once.objects[0]["spec"]["taints"]) == 1
    again = changed(once.objects, [on(Verb.UNCORDON, "node-a")])
    assert an_inventory(*again.objects).nodes[0] == an_inventory(a_node()).nodes[0]


def test_labels_and_taints() -> None:
    node = a_node().tainted("old").tainted("old", effect="NoExecute").tainted("team", "a").label("drop", "1")
    changes: list[Change] = [
        Labelling(nodes=("*",), labels={"pool": "b", "drop": None, "absent": None}),
        Tainting(nodes=("*",), taints=(("team", "b", "NoSchedule"),), removed=(("old", "NoExecute"),)),
    ]
    (found,) = changed([node.body], changes).objects
    assert found["metadata"]["labels"].get("pool") == "b"
    assert "drop" not in found["metadata"]["labels"]
    assert [(each["key"], each["value"], each["effect"]) for each in found["spec"]["taints"]] == [
        ("old", "other", "NoSchedule"), ("team", "b", "NoSchedule"),
    ]  # fmt: skip


@pytest.mark.parametrize(("pattern", "says"), [("node-x", "no node is named node-x"), ("x-*", "no node matches x-*")])
def test_a_node_that_is_not_here_is_named(pattern: str, says: str) -> None:
    with pytest.raises(NoSuchNode, match=says.replace("*", r"\*")):
        changed([a_node().body], [on(Verb.DRAIN, "node-a", pattern)])


def test_changes_follow_one_another() -> None:
    cluster = changed(the_cluster(), [on(Verb.DRAIN, "node-a"), on(Verb.REMOVE, "node-a")])
    assert [each["metadata"]["name"] for each in cluster.moved] == ["serves"], "it waits since it was drained"
    with pytest.raises(NoSuchNode):
        changed(the_cluster(), [on(Verb.REMOVE, "node-a"), on(Verb.CORDON, "node-a")])


# ---- nodes that are added


def addition(nodes: int = 1, product: str = "H100-80GB-HBM3", gpus: int | None = None) -> Addition:
    return Addition(nodes=nodes, product=product, gpus=gpus)


@pytest.mark.parametrize("product", ["H100-80GB-HBM3", "NVIDIA-H100-80GB-HBM3", "nvidia-h100-80gb-hbm3"])
def test_a_new_node_is_like_one_that_is_here_and_in_good_health(product: str) -> None:
    like = a_node().allocatable(7).cordoned().tainted("dedicated", "llm").not_ready().label("zone", "b")
    cluster = changed([like.body], [addition(nodes=2, product=product)])
    assert cluster.added == ("added-1", "added-2")
    first, second = [node for node in an_inventory(*cluster.objects).nodes if node.name != "node-a"]
    assert (first.state, first.free(GPU), first.hostname, first.labels["zone"]) == (NodeState.USABLE, 8, "added-1", "b")
    assert [taint.key for taint in first.shape.taints] == ["dedicated"]
    assert second.hostname == "added-2"
    assert first.shape.gpu == an_inventory(a_node()).nodes[0].shape.gpu


def test_names_that_are_taken_are_not_given_again() -> None:
    cluster = changed([a_node("added-1").body], [addition(), addition()])
    assert cluster.added == ("added-2", "added-3")


def test_another_number_of_gpus() -> None:
    node = a_node().label("nvidia.com/gpu.count", "8")
    (_, new) = changed([node.body], [addition(gpus=4)]).objects
    assert (new["status"]["allocatable"][GPU], new["metadata"]["labels"]["nvidia.com/gpu.count"]) == ("4", "4")
    assert new["status"]["allocatable"]["cpu"] == "64"


def test_nodes_of_several_sizes_leave_open_which_is_meant() -> None:
    both = [a_node().body, a_node("node-b", gpus=4).body]
    with pytest.raises(AdditionError, match="have 4, 8 GPUs: write 2xH100-80GB-HBM3:8"):
        changed(both, [addition(nodes=2)])
    assert changed(both, [addition(gpus=4)]).objects[-1]["status"]["allocatable"][GPU] == "4"


def test_a_product_that_is_not_here_is_as_the_table_has_it() -> None:
    (_, new) = an_inventory(*changed([a_node().body], [addition(product="Tesla-T4", gpus=4)]).objects).nodes
    assert (new.shape.gpu.product, new.free(GPU), new.labels["nvidia.com/gpu.product"]) == ("Tesla-T4", 4, "Tesla-T4")
    with pytest.raises(AdditionError, match="say how many GPUs one has, as 1xTesla-T4:8"):
        changed([a_node().body], [addition(product="Tesla-T4")])


def test_an_amd_product_has_its_vendors_resource() -> None:
    (new,) = an_inventory(*changed([], [addition(product="AMD_Instinct_MI300X_OAM", gpus=8)]).objects).nodes
    assert new.free("amd.com/gpu") == 8
    assert new.shape.gpu.memory is not None


def test_an_unknown_product_is_refused_with_what_is_near() -> None:
    with pytest.raises(AdditionError, match="product H100 is not known.*near it: .*H100"):
        changed([], [addition(product="H100", gpus=8)])


def test_a_product_of_no_table_is_copied_where_it_is_here() -> None:
    strange = a_node(labels={"nvidia.com/gpu.product": "Acme-1", "nvidia.com/gpu.memory": "1000"})
    assert changed([strange.body], [addition(product="Acme-1")]).added == ("added-1",)


def test_cut_gpus_are_added_as_they_are_cut() -> None:
    labels = {
        **H100,
        "nvidia.com/mig.strategy": "mixed",
        "nvidia.com/mig-3g.40gb.count": "2",
        "nvidia.com/mig-3g.40gb.memory": "40448",
    }
    node = a_node(gpus=0, labels=labels).allocatable(2, "nvidia.com/mig-3g.40gb")
    node.body["status"]["capacity"]["nvidia.com/mig-3g.40gb"] = "2"
    (_, new) = changed([node.body], [addition()]).objects
    assert new["status"]["allocatable"]["nvidia.com/mig-3g.40gb"] == "2"
    with pytest.raises(AdditionError, match="cut or shared"):
        changed([node.body], [addition(gpus=8)])


def test_a_new_node_has_slices_where_the_one_that_it_is_like_has_some() -> None:
    attributes: dict[str, Any] = {"productName": {"string": "Tesla T4"}, "type": {"string": "gpu"}}
    piece = {
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "s"},
        "spec": {"driver": "gpu.nvidia.com", "nodeName": "node-a", "pool": {"name": "node-a", "generation": 1, "resourceSliceCount": 1},
                 "devices": [{"name": f"gpu-{number}", "attributes": attributes} for number in range(2)]},
    }  # fmt: skip
    cluster = changed([a_node(gpus=2, labels=T4).body, piece], [addition(product="Tesla-T4")])
    (new,) = [each for each in cluster.objects if each["kind"] == "ResourceSlice" and each["spec"]["nodeName"] == "added-1"]
    assert (new["spec"]["pool"]["name"], len(new["spec"]["devices"])) == ("added-1", 2)


def test_a_taint_that_evicts_takes_the_pods_that_do_not_tolerate_it() -> None:
    objects = the_cluster()
    stays = owned(a_pod("stays", node="node-a"), "ReplicaSet")
    stays["spec"]["tolerations"] = [{"key": "maintenance", "operator": "Exists", "effect": "NoExecute"}]
    later = owned(a_pod("later", node="node-a"), "ReplicaSet")
    later["spec"]["tolerations"] = [{"key": "maintenance", "operator": "Exists", "tolerationSeconds": 300}]
    taint = Tainting(nodes=("node-a",), taints=(("maintenance", "", "NoExecute"),))
    cluster = changed([*objects, stays, later], [taint])
    assert names(cluster, "Pod") == ["mirror", "elsewhere", "stays"]
    assert [each["metadata"]["name"] for each in cluster.moved] == ["serves", "later"]
    assert [each["metadata"]["name"] for each in cluster.ended] == ["bare"]
    mild = Tainting(nodes=("node-a",), taints=(("maintenance", "", "NoSchedule"),))
    assert changed(objects, [mild]).moved == ()
