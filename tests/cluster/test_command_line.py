"""The command line against a live cluster: what it keeps of it, counts in it, and thinks of changing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from live import create, create_node, until

from builders import T4, a_body, a_node, a_pod, a_vllm_deployment
from command_line import Ended, run
from controlplane.plane import ControlPlane

BIN = Path(sys.executable).parent
Json = dict[str, Any]


def ask(plane: ControlPlane, *arguments: str) -> Ended:
    return run(*arguments, KUBECONFIG=str(plane.kubeconfig))


@pytest.fixture
def busy(clean: ControlPlane) -> ControlPlane:
    """Two large nodes, one of them half taken, and a small one; a declaration without pods, and a Deployment with one."""
    for node in (a_node(), a_node("node-b"), a_node("t4", gpus=4, labels=T4)):
        create_node(clean, node.body)
    secret = a_vllm_deployment("runs", tensor=4, gpus=4, model="meta-llama/Llama-3.1-8B-Instruct")
    secret["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "HF_TOKEN", "value": "hf_hush"}]
    create(clean, [a_body("planned", namespace="unseen"), a_pod("half", node="node-b", gpus=4), secret])
    until("the Deployment's pod is bound", lambda: len(bound(clean)) == 2, timeout=30)
    return clean


def bound(plane: ControlPlane) -> list[str]:
    return [each["metadata"]["name"] for each in plane.get("pods", "-A")["items"] if each["spec"].get("nodeName")]


def test_a_snapshot_answers_as_the_cluster_does(busy: ControlPlane, tmp_path: Path) -> None:
    taken = ask(busy, "snapshot", "--workloads")
    assert taken.returncode == 0, taken.stderr
    kept = tmp_path / "cluster.json"
    kept.write_text(taken.stdout)
    for command in (["capacity", "-o", "json"], ["nodes", "-o", "json"], ["whatif", "drain", "node-b", "-o", "json"]):
        live, again = ask(busy, *command), run(*command, "--cluster", str(kept))
        assert (live.returncode, again.returncode) in ((0, 0), (1, 1)), live.stderr + again.stderr
        assert json.loads(live.stdout) == json.loads(again.stdout)
    kinds = {each["kind"] for each in json.loads(taken.stdout)["items"]}
    assert {"Node", "Pod", "Namespace", "PriorityClass", "InferenceDeployment", "Deployment"} <= kinds
    assert "hf_hush" not in taken.stdout
    assert "managedFields" not in taken.stdout


def test_without_workloads_a_snapshot_has_none(busy: ControlPlane) -> None:
    taken = ask(busy, "snapshot")
    kinds = {each["kind"] for each in json.loads(taken.stdout)["items"]}
    assert "InferenceDeployment" in kinds
    assert "Deployment" not in kinds


def test_capacity_counts_what_is_bound_and_what_waits(busy: ControlPlane) -> None:
    create(busy, [a_pod("queued", gpus=16)])
    document = json.loads(ask(busy, "capacity", "-o", "json").stdout)
    rows = {each["product"]: each for each in document["products"]}
    h100 = rows["H100-80GB-HBM3"]
    assert (h100["gpusInstalled"], rows["Tesla-T4"]["gpusInstalled"]) == (16, 4)
    assert h100["gpusFree"] + rows["Tesla-T4"]["gpusFree"] == 12, "4 of the pod, 4 of the Deployment"
    assert h100["pending"] == {"pods": 1, "gpus": 16}
    assert document["pending"]["gpus"] == 16


def test_whatif_judges_what_stands_in_the_cluster(busy: ControlPlane) -> None:
    ended = ask(busy, "whatif", "remove", "node-*", "remove", "t4", "-o", "json")
    assert ended.returncode == 1, ended.stderr
    found = json.loads(ended.stdout)
    moves = {each["subject"]["name"]: (each["before"]["outcome"], each["after"]["outcome"]) for each in found["changed"]}
    assert moves["planned"][1] == "Undecided", "no node at all: how many GPUs there could be is not known"
    assert found["moved"] == {"pods": 1, "gpus": 4}, "the Deployment's; the other has no controller"
    assert found["ended"] == {"pods": 1, "gpus": 4}
    assert found["declarations"]["judged"] == 2
    assert ask(busy, "whatif", "drain", "nowhere").returncode == 66
    added = json.loads(ask(busy, "whatif", "add", "2xH100-80GB-HBM3", "-o", "json").stdout)
    assert added["added"] == ["added-1", "added-2"]


def kubectl(plane: ControlPlane, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The real one, with the package's programs on the PATH."""
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": "/nonexistent", "KUBECONFIG": str(plane.kubeconfig)}
    return subprocess.run(
        [str(plane.binaries["kubectl"]), *arguments], capture_output=True, text=True, check=False, env=environment
    )


def test_it_is_a_plugin_of_kubectl_and_is_completed_by_it(busy: ControlPlane) -> None:
    shown = kubectl(busy, "shardgate", "nodes", "-o", "json")
    assert shown.returncode == 0, shown.stderr
    assert {each["name"] for each in json.loads(shown.stdout)["nodes"] if each["gpusSchedulable"]} == {"node-a", "node-b", "t4"}
    assert kubectl(busy, "shardgate", "verify").returncode == 64
    completed = kubectl(busy, "__complete", "shardgate", "what").stdout.splitlines()
    assert completed[0].startswith("whatif")
    assert completed[-1] == ":4"
