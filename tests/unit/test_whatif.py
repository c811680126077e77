"""``shardgate whatif``: which standing verdicts would change."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders import GPU, T4, Json, NodeBuilder, a_body, a_node, a_pod, a_vllm_deployment, standing
from command_line import Ended, run


def serving(name: str, *, created: str = "", priority: str = "", replicas: int = 1, **status: Any) -> Json:
    """A declaration of 8 GPUs a replica that stands."""
    body = a_body(name, replicas=replicas, **({"placement": {"priorityClassName": priority}} if priority else {}))
    body["metadata"]["creationTimestamp"] = created or "2026-01-01T00:00:00Z"
    return {**standing(body, f"uid-{name}"), **({"status": status} if status else {})}


def its_pod(name: str, node: str, *, gpus: int = 8, number: int = 0, priority: int = 0) -> Json:
    """Its pod, made by a controller."""
    pod = a_pod(f"{name}-{number}", node=node, gpus=gpus, declaration=name, ready=True)
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": f"set-{name}", "controller": True}
    pod["metadata"]["ownerReferences"] = [owner]
    pod["spec"]["priority"] = priority
    return pod


def ask(tmp_path: Path, words: str, *objects: NodeBuilder | Json, form: str = "json", files: tuple[Json, ...] = ()) -> Ended:
    cluster, manifest = tmp_path / "cluster.yaml", tmp_path / "files.yaml"
    cluster.write_text(yaml.safe_dump_all([each.body if isinstance(each, NodeBuilder) else each for each in objects]))
    manifest.write_text(yaml.safe_dump_all(files))
    also = ["-f", str(manifest)] if files else []
    return run("whatif", *words.split(), "--cluster", str(cluster), *also, "-o", form)


def moves(ended: Ended) -> dict[str, str]:
    """Name -> ``Sound -> Waiting``."""
    assert ended.returncode in (0, 1), ended.stderr
    found = json.loads(ended.stdout)
    return {each["subject"]["name"]: f"{each['before']['outcome']} -> {each['after']['outcome']}" for each in found["changed"]}


def test_pods_that_find_another_place_change_nothing(tmp_path: Path) -> None:
    objects = (a_node(), a_node("node-b"), serving("a"), its_pod("a", "node-a"))
    ended = ask(tmp_path, "drain node-a", *objects)
    assert (ended.returncode, moves(ended)) == (0, {})
    found = json.loads(ended.stdout)
    assert found["moved"] == {"pods": 1, "gpus": 8}
    assert found["declarations"] == {"judged": 1, "unchanged": 1, "worse": 0, "better": 0, "other": 0}


def test_of_two_that_lose_their_nodes_the_older_finds_the_last_place(tmp_path: Path) -> None:
    objects = (
        a_node(), a_node("node-b"), a_node("node-c"), its_pod("young", "node-a"), its_pod("old", "node-b"),
        serving("young", created="2026-02-02T00:00:00Z"), serving("old", created="2026-01-01T00:00:00Z"),
    )  # fmt: skip
    ended = ask(tmp_path, "drain node-a node-b", *objects)
    assert (ended.returncode, moves(ended)) == (1, {"young": "Sound -> Waiting"})
    (changed,) = json.loads(ended.stdout)["changed"]
    assert changed["after"]["codes"] == ["GpusBusy"]
    assert changed["after"]["worst"]["message"].startswith("TP2 x PP4 x DP1 needs 8 GPUs, 0 of 8 are free")
    assert changed["before"] == {"outcome": "Sound", "codes": [], "replicasThatFit": 2, "worst": None}


def test_the_higher_priority_goes_first(tmp_path: Path) -> None:
    high: Json = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000}
    objects = (
        a_node(), a_node("node-b"), a_node("node-c"), high, its_pod("old", "node-a"), its_pod("urgent", "node-b", priority=1000),
        serving("old", created="2026-01-01T00:00:00Z"), serving("urgent", created="2026-02-02T00:00:00Z", priority="high"),
    )  # fmt: skip
    assert moves(ask(tmp_path, "drain node-a node-b", *objects)) == {"old": "Sound -> Waiting"}


def test_pods_that_stay_keep_their_places(tmp_path: Path) -> None:
    objects = (
        a_node(), a_node("node-b"), a_node("node-c"), serving("a", replicas=2), its_pod("a", "node-a"),
        its_pod("a", "node-b", number=1), serving("planned"),
    )  # fmt: skip
    assert moves(ask(tmp_path, "drain node-a", *objects)) == {"planned": "Sound -> Waiting"}
    assert moves(ask(tmp_path, "drain node-c", *objects)) == {"planned": "Sound -> Waiting"}


def test_pods_of_nobody_who_declares_wait_with_the_others(tmp_path: Path) -> None:
    training = its_pod("training", "node-a")
    training["metadata"]["labels"] = {}
    objects = (a_node(), a_node("node-b"), training, serving("planned"))
    assert moves(ask(tmp_path, "cordon node-a", *objects)) == {}
    assert moves(ask(tmp_path, "drain node-a", *objects)) == {"planned": "Sound -> Waiting"}


def test_a_node_that_is_removed_is_gone_for_good_and_a_cordoned_one_is_not(tmp_path: Path) -> None:
    objects = (a_node(), a_node("t4", gpus=4, labels=T4), serving("a"), its_pod("a", "node-a"))
    assert moves(ask(tmp_path, "drain node-a", *objects)) == {"a": "Sound -> Waiting"}
    assert moves(ask(tmp_path, "remove node-a", *objects)) == {"a": "Sound -> Unsound"}


def test_more_nodes_make_it_better(tmp_path: Path) -> None:
    objects = (a_node(), a_node("t4", gpus=4, labels=T4), serving("a", replicas=2))
    ended = ask(tmp_path, "add H100-80GB-HBM3", *objects)
    assert (ended.returncode, moves(ended)) == (0, {"a": "Waiting -> Sound"})
    assert json.loads(ended.stdout)["added"] == ["added-1"]
    both = ask(tmp_path, "remove node-a add 2xH100-80GB-HBM3:8", *objects)
    assert (both.returncode, moves(both)) == (0, {"a": "Waiting -> Sound"})


def test_a_label_that_pods_select_by(tmp_path: Path) -> None:
    body = serving("a")
    body["spec"]["placement"] = {"nodeSelector": {"pool": "b"}}
    node = a_node().label("pool", "b")
    assert moves(ask(tmp_path, "label node-a pool=c", node, body)) == {"a": "Sound -> Unsound"}
    assert moves(ask(tmp_path, "taint node-a team=x:NoSchedule", node, body)) == {"a": "Sound -> Unsound"}


def test_workloads_of_other_kinds_stand_too_and_what_is_made_for_them_does_not(tmp_path: Path) -> None:
    deployment = {**a_vllm_deployment(), "metadata": {"name": "llama", "namespace": "serving", "uid": "u-d"}}
    pod = a_pod("llama-abc-1", node="node-a", gpus=8, ready=True)
    pod["metadata"]["labels"] = {"app": "llama", "pod-template-hash": "abc"}
    pod["metadata"]["ownerReferences"] = [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "llama-abc", "uid": "u-r", "controller": True}
    ]
    in_system = {**a_vllm_deployment("system"), "metadata": {"name": "system", "namespace": "kube-system"}}
    objects = (a_node(), deployment, pod, in_system)
    assert moves(ask(tmp_path, "drain node-a", *objects)) == {"llama": "Sound -> Waiting"}


def test_a_declaration_is_judged_in_its_workloads_stead(tmp_path: Path) -> None:
    own = serving("about")
    own["spec"] = {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"}}
    found = json.loads(ask(tmp_path, "cordon node-a", a_node(), own, a_vllm_deployment()).stdout)
    assert found["declarations"]["judged"] == 1
    assert [each["subject"]["name"] for each in found["changed"]] == ["about"]


def test_what_is_promised_is_kept_from_others(tmp_path: Path) -> None:
    promised = {
        "observedGeneration": 1, "conditions": [{"type": "Claimed", "status": "True", "reason": "Promised"}],
    }  # fmt: skip
    objects = (a_node(), a_node("node-b"), serving("first", **promised), serving("second"))
    assert moves(ask(tmp_path, "cordon node-b", *objects)) == {"second": "Sound -> Waiting"}


def test_files_stand_as_well_and_in_the_place_of_what_they_name(tmp_path: Path) -> None:
    objects = (a_node(), serving("a"), its_pod("a", "node-a"))
    assert moves(ask(tmp_path, "add H100-80GB-HBM3", *objects, files=(a_body("new"),))) == {"new": "Waiting -> Sound"}
    larger = a_body("a", replicas=2)
    assert moves(ask(tmp_path, "add H100-80GB-HBM3", *objects, files=(larger,))) == {"a": "Waiting -> Sound"}


def test_the_table_and_the_lines(tmp_path: Path) -> None:
    bare = a_pod("bare", node="node-a")
    objects = (a_node(gpus=9), serving("a"), its_pod("a", "node-a"), bare, serving("b", replicas=9))
    shown = ask(tmp_path, "drain node-a", *objects, form="table").stdout
    for text in (
        "1 pod of 8 GPUs loses its node and is", "1 pod of 1 GPU ends for good",
        "InferenceDeployment serving/a  worse  Sound -> Waiting", "new: NodesUnavailable", "2 standing declarations: 1 worse, 1 unchanged",
    ):  # fmt: skip
        assert text in shown
    lines = ask(tmp_path, "drain node-a", *objects, form="jsonl").stdout.splitlines()
    assert [json.loads(line)["subject"]["name"] for line in lines] == ["a"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("drain nowhere", 66, "no node is named nowhere"),
        ("add 1xNothing-9000:8", 64, "product Nothing-9000 is not known"),
        ("node-a", 64, "begin with what is done"),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, words: str, code: int, says: str) -> None:
    ended = ask(tmp_path, words, a_node())
    assert (ended.returncode, ended.stdout) == (code, "")
    assert says in " ".join(ended.stderr.split())


def test_what_cannot_be_read_is_named_once_and_the_rest_is_judged(tmp_path: Path) -> None:
    wrong = standing(a_body("wrong", strategy={"tensor": 0}), "w")
    bad = a_node("bad")
    bad.body["status"]["allocatable"][GPU] = "eight"
    ended = ask(tmp_path, "remove node-a", a_node(), bad, wrong, serving("a"))
    assert ended.returncode == 65
    assert ended.stderr.count("Node bad") == 1
    assert ended.stderr.count("InferenceDeployment wrong: spec.strategy.tensor") == 1
    assert json.loads(ended.stdout)["declarations"]["judged"] == 1


def test_an_unreachable_cluster_is_69() -> None:
    assert run("whatif", "drain", "a").returncode == 69
    assert run("capacity").returncode == 69
    assert run("snapshot").returncode == 69


def test_files_take_their_gpus_one_after_another(tmp_path: Path) -> None:
    files = tuple(a_body(name) for name in ("first", "another", "third"))
    ended = ask(tmp_path, "drain node-a", a_node(), a_node("node-b"), files=files)
    assert moves(ended) == {"another": "Sound -> Waiting"}


def test_the_table_counts_one_and_many(tmp_path: Path) -> None:
    ended = ask(tmp_path, "drain node-a add 12xH100-80GB-HBM3:8", a_node(), serving("a"), its_pod("a", "node-a"), form="table")
    assert "1 pod of 8 GPUs loses its node and is made anew" in ended.stdout
    assert "new node added-10\n  and 2 more new nodes: -o json names all" in ended.stdout
    assert "added-11" not in ended.stdout
