"""What the cluster has of each kind of GPU; the operator's metrics and ``shardgate capacity`` count alike."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders import AWS, GPU, T4, NodeBuilder, a_node, a_pod, a_pool, an_inventory
from command_line import run
from shardgate.adapters.capacity_report import capacity_report
from shardgate.adapters.gpu_resources import counted_once
from shardgate.domain.capacity import POD_SIZES
from shardgate.shells.metrics import Metrics

Json = dict[str, Any]
P5 = ("node.kubernetes.io/instance-type", "In", ["p5.48xlarge"])
CLAIM: Json = {
    "apiVersion": "karpenter.sh/v1",
    "kind": "NodeClaim",
    "metadata": {"name": "gpu-1", "labels": {"node.kubernetes.io/instance-type": "p5.48xlarge"}},
    "spec": {"nodeClassRef": {"group": "karpenter.k8s.aws"}},
    "status": {},
}
POLICY: Json = {
    "apiVersion": "shardgate.io/v1alpha1",
    "kind": "VerificationPolicy",
    "metadata": {"name": "pools"},
    "spec": {"provisionable": [{"name": "t4-pool", "product": "Tesla-T4", "gpusPerNode": 4, "maxNodes": 3}]},
}


def asked(path: Path, *objects: NodeBuilder | Json) -> Json:
    path.write_text(yaml.safe_dump_all([each.body if isinstance(each, NodeBuilder) else each for each in objects]))
    ended = run("capacity", "--cluster", str(path), "-o", "json")
    assert ended.returncode == 0, ended.stderr
    found: Json = json.loads(ended.stdout)
    return found


def by_product(document: Json) -> dict[str | None, Json]:
    return {each["product"]: each for each in document["products"]}


def test_what_is_free_is_counted_node_by_node(tmp_path: Path) -> None:
    objects = [
        a_node(), a_node("node-b"), a_node("node-c").cordoned(), a_node("node-d").allocatable(7),
        a_node("t4", gpus=4, labels=T4), a_pod("x", node="node-a", gpus=3),
    ]  # fmt: skip
    rows = by_product(asked(tmp_path / "c.yaml", *objects))
    h100 = rows["H100-80GB-HBM3"]
    assert (h100["nodes"], h100["gpusInstalled"], h100["gpusUnavailable"], h100["gpusFree"]) == (4, 31, 1, 20)
    assert h100["placeablePods"] == {"8": 1, "4": 1 + 2 + 1, "2": 2 + 4 + 3, "1": 20}
    assert rows["Tesla-T4"]["placeablePods"] == {"8": 0, "4": 1, "2": 2, "1": 4}


def test_the_operators_metrics_say_the_same() -> None:
    inventory = an_inventory(a_node(), a_node("node-b").allocatable(7), a_node("t4", gpus=4, labels=T4), a_pod("x", node="node-a"))
    metrics = Metrics()
    metrics.observe_inventory(inventory)
    value = metrics.registry.get_sample_value
    rows = capacity_report(inventory)["products"]
    assert len(rows) == 2
    for row in rows:
        for state in ("installed", "unavailable", "free", "claimed"):
            counted = value("shardgate_gpus", {"product": row["product"], "state": state})
            assert counted == row[f"gpus{state.capitalize()}"], (row["product"], state)
        for size in POD_SIZES:
            counted = value("shardgate_placeable_pods", {"product": row["product"], "gpus": str(size)})
            assert counted == row["placeablePods"][str(size)]


def test_what_may_come_names_its_origin_and_its_bound(tmp_path: Path) -> None:
    changing = a_node("changing").label("nvidia.com/mig.config.state", "pending")
    unbound = {**a_pool(P5), "metadata": {"name": "unbound"}}
    limited = a_pool(P5)
    limited["spec"]["limits"] = {GPU: "24"}
    bound = by_product(asked(tmp_path / "a.yaml", limited, CLAIM, POLICY, changing))
    h100, t4 = bound["H100-80GB-HBM3"], bound["Tesla-T4"]
    origins = {each["origin"]: (each["onItsWay"], each["nodes"], each["gpus"]) for each in h100["arriving"]["from"]}
    assert origins == {
        f"NodePool {limited['metadata']['name']}": (False, 3, 24), "NodeClaim gpu-1": (True, 1, 8), "nodes in transition": (True, 1, 8),
    }  # fmt: skip
    assert h100["arriving"]["gpus"] == 40
    assert (t4["arriving"]["nodes"], t4["arriving"]["gpus"], t4["nodes"]) == (3, 12, 0)
    assert h100["gpusFree"] == 0, "a node that changes takes no pods now"
    open_ended = by_product(asked(tmp_path / "b.yaml", unbound, CLAIM))["H100-80GB-HBM3"]["arriving"]
    assert (open_ended["gpus"], open_ended["nodes"]) == (None, None), "no bound is stated: it is not known, and not 8"


def test_shapes_of_one_pool_share_its_room(tmp_path: Path) -> None:
    pool = a_pool((f"{AWS}gpu-name", "In", ["h100"]))
    pool["spec"]["limits"] = {GPU: "16"}
    (arriving,) = by_product(asked(tmp_path / "c.yaml", pool))["H100-80GB-HBM3"]["arriving"]["from"]
    assert arriving["gpus"] == 16


def test_who_waits_is_counted_where_he_could_go(tmp_path: Path) -> None:
    anywhere = a_pod("any", gpus=2)
    choosy = a_pod("choosy", gpus=4)
    choosy["spec"]["nodeSelector"] = {"nvidia.com/gpu.product": "Tesla-T4"}
    nowhere = a_pod("nowhere", gpus=8)
    nowhere["spec"]["nodeSelector"] = {"zone": "mars"}
    found = asked(tmp_path / "c.yaml", a_node().cordoned(), a_node("t4", gpus=4, labels=T4), anywhere, choosy, nowhere)
    rows = by_product(found)
    assert rows["H100-80GB-HBM3"]["pending"] == {"pods": 1, "gpus": 2}, "the cordon passes"
    assert rows["Tesla-T4"]["pending"] == {"pods": 2, "gpus": 6}
    assert found["pending"] == {"pods": 3, "gpus": 14, "nowhere": {"pods": 1, "gpus": 8}}


@pytest.mark.parametrize(
    ("amounts", "names"),
    [
        ({"cpu": 1, GPU: 8}, [GPU]),
        ({"aws.amazon.com/neuron": 16, "aws.amazon.com/neuroncore": 32}, ["aws.amazon.com/neuron"]),
        ({"aws.amazon.com/neuroncore": 32}, ["aws.amazon.com/neuroncore"]),
        ({GPU: 8, "deviceclass.resource.kubernetes.io/gpu.nvidia.com": 8}, [GPU]),
        ({"deviceclass.resource.kubernetes.io/gpu.nvidia.com": 8}, ["deviceclass.resource.kubernetes.io/gpu.nvidia.com"]),
        ({"deviceclass.resource.kubernetes.io/fast-disk": 8}, []),
    ],
)
def test_each_device_is_counted_under_one_name(amounts: dict[str, int], names: list[str]) -> None:
    assert counted_once(amounts) == names


def test_the_table_and_its_remarks(tmp_path: Path) -> None:
    stuck = a_pod("nowhere", gpus=8)
    stuck["spec"]["nodeSelector"] = {"zone": "mars"}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump_all([a_node().allocatable(7).body, CLAIM, stuck]))
    shown = run("capacity", "--cluster", str(path)).stdout
    assert "Pods of 8" in shown.splitlines()[0]
    assert shown.splitlines()[1].split() == ["H100-80GB-HBM3", "1", "7", "7", "0", "0", "1", "3", "7", "8", "0"]
    for text in (
        "1 GPU registered and not healthy", "on the way by NodeClaim gpu-1: 1 node, 8 GPUs", "(not registered yet)",
        "1 pending pod that ask for 8 GPUs in all could go to none of these",
    ):  # fmt: skip
        assert text in shown


def test_a_cluster_without_gpus_and_a_made_up_one(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("")
    ended = run("capacity", "--cluster", str(path))
    assert (ended.returncode, ended.stdout.strip()) == (0, "No node with GPUs is here, and nothing is known that could bring one.")
    made_up = json.loads(run("capacity", "--gpus", "8xH100-80GB-HBM3,4xTesla-T4", "-o", "json").stdout)
    assert {each["product"]: each["gpusFree"] for each in made_up["products"]} == {"H100-80GB-HBM3": 8, "Tesla-T4": 4}


def test_what_cannot_be_read_is_named_and_the_rest_counts(tmp_path: Path) -> None:
    bad = a_node("bad")
    bad.body["status"]["allocatable"][GPU] = "eight"
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump_all([bad.body, a_node().body]))
    ended = run("capacity", "--cluster", str(path), "-o", "json")
    assert (ended.returncode, json.loads(ended.stdout)["products"][0]["gpusFree"]) == (65, 8)
    assert "Node bad" in ended.stderr
