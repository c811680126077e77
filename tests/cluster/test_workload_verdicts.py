"""What stands beside workloads of other kinds: nothing while nothing is found, a WorkloadVerdict while something is."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from audit import writes
from faults import fault
from live import create_node, patch_status, until, wait_for_rest

from builders import a_body, a_node, a_vllm_deployment
from command_line import run
from controlplane.installation import Installation
from controlplane.plane import ControlPlane

Start = Callable[..., Installation]
Json = dict[str, Any]

REFERENCE = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"}


def verdict(plane: ControlPlane, name: str = "deployment-llama", namespace: str = "serving") -> Json:
    """The object, or nothing."""
    shown = plane.kubectl("get", "workloadverdict", name, "-n", namespace, "-o", "json", check=False)
    return dict(json.loads(shown.stdout)) if shown.returncode == 0 else {}


def codes(plane: ControlPlane, name: str = "deployment-llama", namespace: str = "serving") -> list[str]:
    return [each["code"] for each in verdict(plane, name, namespace).get("status", {}).get("findings", [])]


def events(plane: ControlPlane, namespace: str = "serving") -> list[tuple[str, str, str]]:
    shown = plane.kubectl("get", "events.events.k8s.io", "-n", namespace, "-o", "json")
    return [
        (each["regarding"]["kind"], each["type"], each["reason"])
        for each in json.loads(shown.stdout)["items"]
        if each.get("reportingController") == "shardgate.io/operator"
    ]


def test_a_verdict_comes_with_the_finding_and_goes_with_it(clean: ControlPlane, start: Start) -> None:
    plane = clean
    create_node(plane, a_node().body)
    installation = start()
    plane.apply(a_vllm_deployment())
    until("it is judged", lambda: installation.metric('shardgate_declarations{kind="Deployment",outcome="Sound"}') == 1)
    assert verdict(plane) == {}
    patch_status(plane, "node-a", {"allocatable": {"nvidia.com/gpu": "7"}})
    until("it is found", lambda: codes(plane) == ["NodesUnavailable"])
    found = verdict(plane)
    assert found["status"]["outcome"] == "Waiting"
    assert found["status"]["lastGoodOutcome"] == "Sound"
    assert found["metadata"]["ownerReferences"][0]["uid"] == plane.get("deployment", "llama", "-n", "serving")["metadata"]["uid"]
    mismatch = 'shardgate_declaration_mismatches{code="NodesUnavailable",kind="Deployment"}'
    until("the metric says so", lambda: installation.metric(mismatch) == 1)
    patch_status(plane, "node-a", {"allocatable": {"nvidia.com/gpu": "8"}})
    until("it is gone", lambda: verdict(plane) == {})
    until("the metric says so", lambda: installation.metric(mismatch) == 0)
    assert sorted(events(plane)) == [("Deployment", "Normal", "Sound"), ("Deployment", "Warning", "NodesUnavailable")]


def test_what_slipped_through_is_found_and_counted(clean: ControlPlane, start: Start) -> None:
    plane = clean
    create_node(plane, a_node(gpus=4).body)
    slipped = a_vllm_deployment(gpus=4)
    slipped["metadata"]["namespace"] = "unseen"  # no webhook is called for it
    plane.apply(slipped)
    installation = start()
    until("it is found", lambda: codes(plane, namespace="unseen") == ["WorldSizeMismatch"])
    assert installation.metric('shardgate_policy_violations{kind="Deployment"}') == 0
    plane.apply({
        "apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationPolicy", "metadata": {"name": "strict"},
        "spec": {"mode": "Enforce", "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "unseen"}}},
    })  # fmt: skip
    until("it is counted", lambda: installation.metric('shardgate_policy_violations{kind="Deployment"}') == 1)
    until("its policy says so", lambda: plane.get("verificationpolicy", "strict").get("status", {}).get("refused") == 1)
    (violation,) = plane.get("verificationpolicy", "strict")["status"]["violations"]
    assert (violation["kind"], violation["name"], violation["codes"]) == ("Deployment", "llama", ["WorldSizeMismatch"])
    plane.kubectl("delete", "workloadverdict", "deployment-llama", "-n", "unseen")
    until("it is back", lambda: codes(plane, namespace="unseen") == ["WorldSizeMismatch"])
    plane.kubectl("delete", "deployment", "llama", "-n", "unseen")
    until("it went with its workload", lambda: verdict(plane, namespace="unseen") == {}, timeout=30)


def test_a_storm_of_reapplies_writes_nothing(clean: ControlPlane, start: Start) -> None:
    plane = clean
    create_node(plane, a_node(gpus=4).body)
    start()
    bodies = [a_vllm_deployment(f"llama-{number}", gpus=4) for number in range(20)]
    for body in bodies:
        body["spec"]["replicas"] = 0
    plane.apply(*bodies)
    until("all are found", lambda: all(codes(plane, f"deployment-llama-{number}") for number in range(20)), timeout=30)
    wait_for_rest(plane, "True")
    time.sleep(2)
    before = len(writes(plane))
    for options in ((), ("--dry-run=server",), (), ("--server-side", "--force-conflicts", "--dry-run=server")):
        shown = plane.apply(*bodies, options=options)
        assert "Shardgate" not in shown.stderr
        assert "WorldSizeMismatch" not in shown.stderr
    time.sleep(3)
    assert [each["objectRef"] for each in writes(plane)[before:]] == []


def test_a_declaration_is_judged_in_the_stead_of_its_workload(clean: ControlPlane, start: Start) -> None:
    plane = clean
    create_node(plane, a_node().body)
    start()
    mine = {**a_body("mine"), "spec": {"workloadRef": REFERENCE}}

    def found() -> list[str]:
        status = plane.get("infd", "mine", "-n", "serving").get("status", {})
        return [each["code"] for each in status.get("findings", [])]

    plane.apply(mine)
    until("its workload is missed", lambda: "DeclarationOpaque" in found())
    plane.apply(a_vllm_deployment())
    until("it is read", lambda: found() == [])
    wrong = a_vllm_deployment(gpus=4)
    wrong["spec"]["replicas"] = 0
    plane.apply(wrong)
    until("it is judged", lambda: found() == ["WorldSizeMismatch"])
    time.sleep(1)
    assert verdict(plane) == {}
    plane.kubectl("delete", "infd", "mine", "-n", "serving")
    until("the workload is judged itself", lambda: codes(plane) == ["WorldSizeMismatch"])


STRICT = {
    "apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationPolicy", "metadata": {"name": "strict"},
    "spec": {
        "mode": "Enforce", "refuse": {"waiting": True},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "serving"}},
    },
}  # fmt: skip


def of_kind(kind: str) -> Json:
    """The same eight GPUs."""
    body = a_vllm_deployment()
    return body if kind == "Deployment" else {**body, "kind": kind, "spec": {**body["spec"], "serviceName": "llama"}}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
@fault(
    26, what="replicas raised through deployments/scale and statefulsets/scale, as kubectl scale does",
    criterion="the verdict of an update of its spec; 0 bypass",
)  # fmt: skip
def test_a_scale_up_is_warned_and_refused_and_a_scale_down_passes(clean: ControlPlane, start: Start, kind: str) -> None:
    plane = clean
    create_node(plane, a_node().body)
    installation = start()
    plane.apply(of_kind(kind))
    until("it is judged", lambda: installation.metric(f'shardgate_declarations{{kind="{kind}",outcome="Sound"}}') == 1)
    warned = plane.kubectl("scale", kind, "llama", "-n", "serving", "--replicas=3")
    assert "GpuCountTooLow" in warned.stderr
    down = plane.kubectl("scale", kind, "llama", "-n", "serving", "--replicas=1")
    assert down.stderr == ""
    plane.apply(STRICT)

    def refused() -> bool:
        answer = plane.kubectl("scale", kind, "llama", "-n", "serving", "--replicas=3", check=False)
        return answer.returncode == 1 and f"{kind} serving/llama cannot run here" in answer.stderr

    until("it is refused", refused)
    assert plane.kubectl("scale", kind, "llama", "-n", "serving", "--replicas=0").stderr == ""


@fault(
    26, what="a HorizontalPodAutoscaler asks for more copies than the cluster can run",
    criterion="refused as anybody is, and its own status says why; it scales once they fit",
)  # fmt: skip
def test_an_autoscaler_is_refused_and_says_why(clean: ControlPlane, start: Start) -> None:
    plane = clean
    create_node(plane, a_node().body)
    installation = start()
    plane.apply(a_vllm_deployment(), STRICT)
    until("it is judged", lambda: installation.metric('shardgate_declarations{kind="Deployment",outcome="Sound"}') == 1)
    plane.apply({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "llama", "namespace": "serving"},
        "spec": {"scaleTargetRef": REFERENCE, "minReplicas": 2, "maxReplicas": 2},  # below its minimum it asks for no metric
    })  # fmt: skip

    def says() -> str:
        status = plane.get("hpa", "llama", "-n", "serving").get("status") or {}
        return next((each["message"] for each in status.get("conditions") or () if each["type"] == "AbleToScale"), "")

    until("it says why", lambda: "Deployment serving/llama cannot run here" in says(), 60)
    assert plane.get("deployment", "llama", "-n", "serving")["spec"]["replicas"] == 1
    create_node(plane, a_node("node-b").body)
    until("it scales", lambda: plane.get("deployment", "llama", "-n", "serving")["spec"]["replicas"] == 2, 60)
    plane.kubectl("delete", "hpa", "llama", "-n", "serving")


def test_a_config_map_is_read_when_it_comes(clean: ControlPlane, start: Start) -> None:
    plane = clean
    create_node(plane, a_node(gpus=4).body)
    start()
    body = a_vllm_deployment(gpus=4)
    body["spec"]["replicas"] = 0
    (container,) = body["spec"]["template"]["spec"]["containers"]
    container["command"][3] = "--tensor-parallel-size=$(TP)"
    container["envFrom"] = [{"configMapRef": {"name": "settings"}}]
    plane.apply(body)
    until("the width is missed", lambda: codes(plane) == ["DeclarationOpaque"])
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "serving"}}
    plane.apply({**settings, "data": {"TP": "8"}})
    body["spec"]["template"]["metadata"]["labels"]["rev"] = "2"
    plane.apply(body)
    until("it is read", lambda: codes(plane) == ["WorldSizeMismatch"])
    body["spec"]["template"]["metadata"]["labels"]["rev"] = "3"
    assert plane.apply(body).stderr == "", "it had that already"
    plane.kubectl("delete", "configmap", "settings", "-n", "serving")


def test_the_command_line_reads_what_the_cluster_has(clean: ControlPlane) -> None:
    plane = clean
    create_node(plane, a_node(gpus=4).body)
    body = a_vllm_deployment(gpus=4)
    body["spec"]["replicas"] = 0
    (container,) = body["spec"]["template"]["spec"]["containers"]
    container["command"][3] = "--tensor-parallel-size=$(TP)"
    container["envFrom"] = [{"configMapRef": {"name": "settings"}}]
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "serving"}}
    plane.apply({**settings, "data": {"TP": "8"}})
    ended = run("verify", "-f", "-", "-o", "json", stdin=json.dumps(body), KUBECONFIG=str(plane.kubeconfig))
    assert (ended.returncode, json.loads(ended.stdout)["outcome"]) == (1, "Unsound"), ended.stderr
    plane.apply(body)
    mine = {**a_body("mine"), "spec": {"workloadRef": REFERENCE}}
    ended = run("verify", "-f", "-", "-o", "json", stdin=json.dumps(mine), KUBECONFIG=str(plane.kubeconfig))
    found = json.loads(ended.stdout)
    assert [each["code"] for each in found["findings"]] == ["WorldSizeMismatch"]
    plane.kubectl("delete", "configmap", "settings", "-n", "serving")
