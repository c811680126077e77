"""``shardgate why``: decisions of admission by their reference, and live objects."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleet import fleet_on
from live import create, create_node, until

from builders import T4, a_body, a_node, a_pod, a_vllm_deployment
from command_line import Ended, run
from controlplane.installation import Installation
from controlplane.plane import ControlPlane, control_plane

Start = Callable[..., Installation]
Json = dict[str, Any]

TENANT = "team-a"


def a_tenant(plane: ControlPlane, *namespaces: str) -> Path:
    """A ServiceAccount that may edit in these namespaces; its kubeconfig."""
    plane.kubectl("create", "serviceaccount", TENANT, "-n", "serving")
    for namespace in namespaces:
        name = f"{TENANT}-{namespace}"
        plane.kubectl("create", "rolebinding", name, "-n", namespace, "--clusterrole=edit", f"--serviceaccount=serving:{TENANT}")
    token = plane.kubectl("create", "token", TENANT, "-n", "serving").stdout.strip()
    return plane.token_kubeconfig(token, TENANT)


def no_tenant(plane: ControlPlane, *namespaces: str) -> None:
    for namespace in namespaces:
        plane.kubectl("delete", "rolebinding", f"{TENANT}-{namespace}", "-n", namespace)
    plane.kubectl("delete", "serviceaccount", TENANT, "-n", "serving")


def why(plane: ControlPlane, *arguments: str, kubeconfig: Path | None = None) -> Ended:
    return run("why", *arguments, KUBECONFIG=str(kubeconfig or plane.kubeconfig))


def reference_in(text: str) -> str:
    found = re.search(r"\(ref ([0-9a-f]{4})\)", text)
    assert found is not None, text
    return found[1]


def test_a_refusal_is_shown_and_judged_again(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node("node-secret", gpus=1, labels=T4).body)
    start()
    refusal = clean.apply(a_body(), check=False).stderr
    reference = reference_in(refusal)
    ended = why(clean, "--ref", reference, "-n", "serving", "-o", "json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["answer"], found["outcome"], found["operation"], found["dryRun"]) == ("refused", "Unsound", "CREATE", False)
    assert found["said"][0] in refusal
    assert found["replay"]["agrees"] is True
    assert found["report"]["ref"] == reference
    assert [each["code"] for each in found["report"]["findings"]] == found["replay"]["codes"]
    shown = why(clean, "--ref", reference, "-n", "serving").stdout
    for text in ("refused", "GpuCountTooLow", "by the facts of then: the same answer", "Tesla-T4"):
        assert text in shown
    facts = json.loads(why(clean, "--ref", reference, "-n", "serving", "--facts").stdout)["facts"]
    assert "node-secret" in json.dumps(facts)
    unknown = why(clean, "--ref", "ffff", "-n", "serving")
    assert (unknown.returncode, "no decision ffff of namespace serving is kept" in unknown.stderr) == (66, True)
    stored = clean.kubectl("get", "decisionreviews", "-A", "-o", "name")
    assert stored.stdout == ""
    question = {
        "apiVersion": "shardgate.io/v1alpha1", "kind": "DecisionReview", "metadata": {"name": "x", "namespace": "serving"},
        "spec": {"ref": reference},
    }  # fmt: skip
    assert "is answered, never stored" in clean.apply(question, check=False).stderr


def test_a_tenant_sees_its_own_decisions_and_no_node(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node("node-secret").body)
    start()
    kubeconfig = a_tenant(clean, "serving")
    try:
        clean.kubectl("create", "namespace", "rivals")
        refused = clean.apply(a_body(strategy={"tensor": 5}), a_body("rival", "rivals", strategy={"tensor": 5}), check=False).stderr
        own, theirs = re.findall(r"\(ref ([0-9a-f]{4})\)", refused)
        ended = why(clean, "--ref", own, "-n", "serving", "-o", "json", kubeconfig=kubeconfig)
        assert ended.returncode == 0, ended.stderr
        found = json.loads(ended.stdout)
        assert (found["facts"], found["noFacts"]) == (None, "they name nodes, and you may not list nodes")
        assert found["replay"]["agrees"] is True
        assert "node-secret" not in ended.stdout
        other = why(clean, "--ref", theirs, "-n", "rivals", kubeconfig=kubeconfig)
        assert (other.returncode, "403 Forbidden" in other.stderr) == (69, True)
        assert "cannot create resource" in other.stderr
        nothing = why(clean, "--ref", "ffff", "-n", "serving", kubeconfig=kubeconfig)
        assert nothing.returncode == 66
        clean.apply(a_body(replicas=0))
        until("it is judged", lambda: evidence(answered(clean, "infd/llama", kubeconfig), "verdict") != [])
        stands = answered(clean, "infd/llama", kubeconfig)
        assert (stands["cause"], stands["report"]) == ("ScaledToZero", None)
        assert evidence(stands, "verdict")[0] == "Sound (as of generation 1), nothing found"
    finally:
        no_tenant(clean, "serving")
        clean.kubectl("delete", "namespace", "rivals", "--wait=false")


def test_whichever_replica_decided_is_found(request: pytest.FixtureRequest) -> None:
    with control_plane(failed=lambda: request.session.testsfailed > 0) as plane, fleet_on(plane, 3):
        for number in range(6):
            refusal = plane.apply(a_body(strategy={"tensor": 11 + number}), options=("--dry-run=server",), check=False).stderr
            ended = why(plane, "--ref", reference_in(refusal), "-n", "serving", "-o", "json")
            assert ended.returncode == 0, ended.stderr
            assert json.loads(ended.stdout)["dryRun"] is True
        assert len(re.findall("kept", why(plane, "--ref", "ffff", "-n", "serving").stderr)) == 3 + 1, "all three were asked"


# ---- live objects


def answered(plane: ControlPlane, subject: str, kubeconfig: Path | None = None) -> Json:
    ended = why(plane, subject, "-n", "serving", "-o", "json", kubeconfig=kubeconfig)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


def evidence(found: Json, part: str) -> list[str]:
    return [each["text"] for each in found["evidence"] if each["part"] == part]


def patch_pod(plane: ControlPlane, name: str, status: Json) -> None:
    plane.kubectl(
        "patch", "pod", name, "-n", "serving", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
    )


def llama_pod(name: str = "llama-0", gpus: int = 8) -> Json:
    body = a_pod(name, gpus=gpus, declaration="llama")
    body["metadata"].pop("uid")
    body.pop("status")
    return body


def test_a_declaration_by_its_pods(clean: ControlPlane) -> None:
    """Waiting by the scheduler's own words, then crashed, then running; no operator is needed."""
    create_node(clean, a_node().body)
    clean.apply(a_pod("other", node="node-a", gpus=2) | {"status": {}})
    clean.apply(a_body())
    assert answered(clean, "infd/llama")["cause"] == "Verdict"
    clean.apply(llama_pod())
    until("the scheduler says why", lambda: answered(clean, "infd/llama")["cause"] == "Unschedulable", timeout=30)
    found = answered(clean, "infd/llama")
    assert (
        "1 of 1 pod waits for a node; the scheduler says: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu" in found["answer"]
    )
    assert found["report"]["outcome"] == "Waiting"
    assert evidence(found, "pods") == ["1 of 1 wanted, 0 bound, 0 ready"]
    assert evidence(found, "verdict")[0] == "Waiting (judged now)"

    clean.kubectl("delete", "pod", "other", "-n", "serving", "--grace-period=0", "--force")
    until("it is bound", lambda: "nodeName" in clean.get("pod", "llama-0", "-n", "serving")["spec"])
    ended = {
        "terminated": {
            "exitCode": 137,
            "reason": "OOMKilled",
            "finishedAt": "2026-01-01T00:00:00Z",
            "startedAt": "2026-01-01T00:00:00Z",
        }
    }
    crashed = {
        "name": "main", "ready": False, "restartCount": 3, "image": "none", "imageID": "", "lastState": ended,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
    }  # fmt: skip
    patch_pod(clean, "llama-0", {"phase": "Running", "containerStatuses": [crashed]})
    found = answered(clean, "inferencedeployment.shardgate.io/llama")
    assert (found["cause"], "ended with exit code 137 (OOMKilled: out of the host's memory" in found["answer"]) == ("Crashed", True)
    assert "after 3 restarts" in found["answer"]
    assert any("CrashLoopBackOff" in each for each in evidence(found, "containers"))

    runs = {
        "name": "main",
        "ready": True,
        "restartCount": 3,
        "image": "none",
        "imageID": "",
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }
    conditions = [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]
    patch_pod(clean, "llama-0", {"phase": "Running", "conditions": conditions, "containerStatuses": [runs]})
    assert answered(clean, "infd/llama")["answer"] == "it runs: 1 of 1 pod ready"
    shown = why(clean, "infd/llama", "-n", "serving").stdout
    for text in ("InferenceDeployment serving/llama", "Runs", "it runs: 1 of 1 pod ready", "Sound (judged now), nothing found"):
        assert text in shown


def test_a_deployment_over_its_quota_as_its_tenant_sees_it(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node("node-secret").body)
    start()
    quota = {
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpus", "namespace": "serving"},
        "spec": {"hard": {"requests.nvidia.com/gpu": "4"}},
    }  # fmt: skip
    create(clean, [quota])
    clean.apply(a_vllm_deployment())
    kubeconfig = a_tenant(clean, "serving")
    try:
        until("its pod was refused", lambda: answered(clean, "deploy/llama", kubeconfig)["cause"] == "QuotaExceeded", timeout=30)
        found = answered(clean, "deploy/llama", kubeconfig)
        assert found["answer"].startswith("its pods may not be created: exceeded quota: gpus, requested: requests.nvidia.com/gpu=8")
        assert evidence(found, "quota")[0] == "gpus: 0 of 4 requests.nvidia.com/gpu used"
        assert [each["part"] for each in found["unread"] if "not judged now" in each["why"]] == ["verdict"]
        assert found["report"] is None
        assert "node-secret" not in json.dumps(found)
        now = answered(clean, "deployment.apps/llama")
        assert (now["cause"], now["report"]["outcome"]) == ("QuotaExceeded", "Waiting")
        assert [each["code"] for each in now["report"]["findings"]] == ["QuotaTooSmall"]
    finally:
        no_tenant(clean, "serving")


def test_what_is_not_there_or_no_kind_of_ours(clean: ControlPlane) -> None:
    for subject, code, words in (
        ("infd/none", 66, "no InferenceDeployment serving/none"),
        ("lws/none", 66, "no LeaderWorkerSet serving/none"),
        ("configmap/x", 66, "configmap is no kind that is judged"),
        ("llama", 64, "write KIND/NAME"),
    ):
        ended = why(clean, subject, "-n", "serving")
        assert (ended.returncode, words in ended.stderr) == (code, True), ended.stderr
