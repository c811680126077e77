"""After admission: the verdict follows the cluster, and at rest nothing is written."""

import json
import time
from collections.abc import Callable
from typing import Any

from faults import LENGTH, Measured, fault
from live import create_node, find, patch_status, status, until, wait_for_outcome

from builders import a_body, a_node, a_pod
from controlplane.installation import Installation
from controlplane.plane import ControlPlane

Start = Callable[..., Installation]
PROFILE: dict[str, Any] = {
    "apiVersion": "shardgate.io/v1alpha1",
    "kind": "ModelProfile",
    "metadata": {"name": "legal-8b"},
    "spec": {
        "match": ["s3://models/legal-8b/*"],
        "config": {
            "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "torch_dtype": "bfloat16",
            "max_position_embeddings": 8192,
        },
        "safetensors": {"totalBytes": 16_060_522_496},
    },
}  # fmt: skip


def events(plane: ControlPlane) -> list[tuple[str, str]]:
    shown = json.loads(plane.kubectl("get", "events.events.k8s.io", "-n", "serving", "-o", "json").stdout)
    return sorted((each["reason"], each["type"]) for each in shown["items"])


@fault(10, what="one GPU of a node fails", criterion="status <= 2 s after, with condition, event and metric; and back")
def test_status_conditions_and_events_follow_a_failing_gpu(clean: ControlPlane, start: Start, measured: Measured) -> None:
    create_node(clean, a_node().body)
    installation = start()
    clean.apply(a_body())
    sound = wait_for_outcome(clean, "llama", "serving", "Sound")
    assert sound["strategy"] == "TP2 x PP4 x DP1"
    assert sound["observedGeneration"] == 1
    assert sound["placement"] == [
        {"replica": 0, "pod": 0, "node": "H100-80GB-HBM3", "localGpus": list(range(8)), "ranks": list(range(8))}
    ]

    patch_status(clean, "node-a", {"allocatable": {"nvidia.com/gpu": "7"}})
    took = until("waiting", lambda: status(clean, "llama", "serving").get("outcome") == "Waiting", timeout=2 if LENGTH else 15)
    measured(f"status {took:.1f} s after")
    waiting = status(clean, "llama", "serving")
    feasible = next(each for each in waiting["conditions"] if each["type"] == "Feasible")
    assert (feasible["status"], feasible["reason"]) == ("False", "NodesUnavailable")
    series = 'shardgate_declaration_mismatches{code="NodesUnavailable",kind="InferenceDeployment"}'
    until("the mismatch in the metrics", lambda: installation.metric(series) == 1)
    assert events(clean) == [("NodesUnavailable", "Warning"), ("Sound", "Normal")]
    annotations = find(clean, "llama", "serving")["metadata"]["annotations"]
    assert annotations["shardgate.io/verdict"] == "Waiting"
    assert annotations["shardgate.io/findings"] == "NodesUnavailable"

    patch_status(clean, "node-a", {"allocatable": {"nvidia.com/gpu": "8"}})
    wait_for_outcome(clean, "llama", "serving", "Sound")
    until("no mismatch", lambda: installation.metric(series) == 0)
    assert "shardgate.io/findings" not in find(clean, "llama", "serving")["metadata"]["annotations"]


def test_a_private_name_becomes_known_when_its_profile_comes(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node().body)
    start()
    model = {"name": "s3://models/legal-8b/v3", "weights": None}
    clean.apply(a_body(model=model, strategy={"tensor": 2, "pipeline": 1}, gpus={"perPod": 2}))
    unknown = wait_for_outcome(clean, "llama", "serving", "Undecided")
    assert [each["code"] for each in unknown["findings"]] == ["ModelUnknown"]
    assert "ModelProfile" in unknown["findings"][0]["remedy"]

    clean.apply(PROFILE)
    wait_for_outcome(clean, "llama", "serving", "Sound")
    larger = {
        **PROFILE,
        "spec": {**PROFILE["spec"], "config": {**PROFILE["spec"]["config"], "num_attention_heads": 31, "head_dim": 128}},
    }
    clean.apply(larger)
    wait_for_outcome(clean, "llama", "serving", "Unsound")
    clean.kubectl("delete", "modelprofile", "legal-8b")
    wait_for_outcome(clean, "llama", "serving", "Undecided")


def test_pods_of_others_make_it_wait_and_own_pods_do_not(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node().body)
    start()
    clean.apply(a_body())
    wait_for_outcome(clean, "llama", "serving", "Sound")
    own = a_pod("own", node="node-a", gpus=8, declaration="llama")
    other = a_pod("other", node="node-a", gpus=8)
    for pod in (own, other):
        pod["metadata"].pop("uid")
        pod.pop("status")
    clean.apply(own)
    time.sleep(2)
    assert status(clean, "llama", "serving")["outcome"] == "Sound"
    clean.kubectl("delete", "pod", "own", "-n", "serving", "--grace-period=0", "--force")
    clean.apply(other)
    waiting = wait_for_outcome(clean, "llama", "serving", "Waiting")
    assert [each["code"] for each in waiting["findings"]] == ["GpusBusy"]
    clean.kubectl("delete", "pod", "other", "-n", "serving", "--grace-period=0", "--force")
    wait_for_outcome(clean, "llama", "serving", "Sound")


def test_the_scheduler_agrees_with_the_example(clean: ControlPlane, start: Start) -> None:
    """The real kube-scheduler binds pods of this shape where we say that they fit."""
    for name, gpus in (("a", 4), ("b", 4), ("c", 2)):
        create_node(clean, a_node(name, gpus=gpus).body)
    start()
    clean.apply(a_body(gpus={"perPod": 4}))
    wait_for_outcome(clean, "llama", "serving", "Sound")
    for name in ("one", "two", "three"):
        pod = a_pod(name, gpus=4, declaration="llama")
        pod["metadata"].pop("uid")
        pod.pop("status")
        clean.apply(pod)
    bound = ("get", "pods", "-n", "serving", "-o", "jsonpath={.items[*].spec.nodeName}")
    until("two pods are bound", lambda: sorted(clean.kubectl(*bound).stdout.split()) == ["a", "b"])


def test_a_vanished_node_is_waited_for_before_it_is_missed(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node().body)
    start()
    clean.apply(a_body())
    wait_for_outcome(clean, "llama", "serving", "Sound")
    clean.kubectl("delete", "node", "node-a")
    waiting = wait_for_outcome(clean, "llama", "serving", "Waiting")
    assert [each["code"] for each in waiting["findings"]] == ["NodesUnavailable"]
    assert clean.apply(a_body("second")).returncode == 0, "a node that has just gone is no reason to refuse"


def test_at_rest_nothing_is_written(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node(gpus=24).body)
    installation = start()
    for name in ("one", "two"):
        clean.apply(a_body(name))
    for name in ("one", "two"):
        wait_for_outcome(clean, name, "serving", "Sound")

    def written() -> list[str]:
        lines = installation.fetch("/metrics")[1].splitlines()
        return [line for line in lines if line.startswith("shardgate_writes_total")]

    def is_settled() -> bool:
        before = written()
        time.sleep(1.5)
        return written() == before

    until("what comes of their creation is written", is_settled, timeout=60)

    def versions() -> list[str]:
        return [find(clean, name, "serving")["metadata"]["resourceVersion"] for name in ("one", "two")]

    before, at = written(), versions()
    patch_status(
        clean, "node-a", {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-25T00:00:00Z"}]}
    )
    free = a_pod("small", node="node-a", gpus=1)
    free["metadata"].pop("uid")
    free.pop("status")
    clean.apply(free)  # fewer GPUs are free, no verdict changes
    time.sleep(6)
    assert (written(), versions()) == (before, at)


def test_a_second_replica_answers_and_does_not_write(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node().body)
    first = start()
    second = start(webhooks=False)
    until("one leader", lambda: {first.metric("shardgate_leader"), second.metric("shardgate_leader")} == {0.0, 1.0})
    leader, follower = (first, second) if first.metric("shardgate_leader") else (second, first)
    clean.apply(a_body())
    wait_for_outcome(clean, "llama", "serving", "Sound")
    assert not any(line.startswith("shardgate_writes_total") for line in follower.fetch("/metrics")[1].splitlines())
    leader.stop()
    until("the other leads", lambda: follower.metric("shardgate_leader") == 1, timeout=6)
    patch_status(clean, "node-a", {"allocatable": {"nvidia.com/gpu": "7"}})
    wait_for_outcome(clean, "llama", "serving", "Waiting")


def test_health_and_readiness(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node().body)
    installation = start(webhooks=False)
    assert installation.fetch("/livez") == (200, "ok\n")
    assert installation.fetch("/readyz") == (200, "ok\n")
    assert installation.fetch("/nonsense")[0] == 404
    assert installation.metric('shardgate_gpus{product="H100-80GB-HBM3",state="installed"}') == 8
    assert installation.metric('shardgate_inventory_synced{resource="pods"}') == 1
