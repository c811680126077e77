"""``shardgate doctor`` against a live installation: healthy, and broken in one way at a time."""

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live import create_node, until, wait_for_rest

from builders import a_node
from command_line import run
from conftest import register
from controlplane.installation import NAMESPACE, Installation
from controlplane.plane import Authority, ControlPlane

Json = dict[str, Any]
Start = Callable[..., Installation]
CLUSTER_WIDE = ("validatingwebhookconfigurations", "mutatingwebhookconfigurations")


def doctor(plane: ControlPlane, namespace: str = "serving", kubeconfig: Path | None = None) -> tuple[int, dict[str, Json], str]:
    """(exit code, check by name, the table)."""
    path = str(kubeconfig or plane.kubeconfig)
    ended = run("doctor", "-n", namespace, "-o", "json", KUBECONFIG=path)
    found = json.loads(ended.stdout)
    assert all(each["repair"] for each in found["checks"] if each["state"] in ("warning", "failed")), found
    assert all("\n" not in each["message"] for each in found["checks"]), found
    shown = run("doctor", "-n", namespace, KUBECONFIG=path)
    return ended.returncode, {each["name"]: each for each in found["checks"]}, shown.stdout


def states(checks: dict[str, Json], state: str) -> set[str]:
    return {name for name, each in checks.items() if each["state"] == state}


@pytest.fixture
def healthy(clean: ControlPlane, start: Start) -> Installation:
    create_node(clean, a_node().body)
    installation = start()
    wait_for_rest(clean, "True")
    return installation


def test_a_healthy_installation(clean: ControlPlane, healthy: Installation) -> None:
    code, checks, shown = doctor(clean)
    assert code == 0, shown
    assert states(checks, "failed") == set()
    assert states(checks, "unknown") == {"deployment", "alerts"}, "a process, and a cluster without the Prometheus operator"
    assert states(checks, "warning") - {"failingOpen"} == {"servingCertificate"}, "it is for two days; and what other tests left"
    assert "healthy: " in shown
    for name, part in (
        ("kubernetes", "v1."), ("crds", "all 8 are served"), ("answer", "answers the API server"), ("refusal", "HeadsUneven"),
        ("certificate", "is of an authority in every caBundle"), ("rbac", f"{NAMESPACE}/shardgate has all"), ("lease", " leads, seen"),
        ("nodes", "8 GPUs on 1 node"), ("policies", "none"),
    ):  # fmt: skip
        assert part in checks[name]["message"], checks[name]
    stored = clean.kubectl("get", "inferencedeployments,decisionreviews", "-A", "-o", "name")
    assert stored.stdout == "", "nothing is written"


def test_a_webhook_configuration_is_missing(clean: ControlPlane, healthy: Installation) -> None:
    clean.kubectl("delete", "validatingwebhookconfiguration", "shardgate")
    until("the API server has taken notice", lambda: doctor(clean)[1]["refusal"]["state"] != "ok")
    code, checks, _ = doctor(clean)
    assert code == 1
    assert "the ValidatingWebhookConfiguration shardgate is missing" in checks["webhooks"]["message"]
    assert checks["answer"]["state"] == "ok"
    assert "let in without a word" in checks["refusal"]["message"]
    register(healthy)
    assert doctor(clean)[1]["webhooks"]["state"] == "ok"


def test_the_ca_bundle_is_a_strangers(clean: ControlPlane, healthy: Installation, tmp_path: Path) -> None:
    bundle = base64.b64encode(Authority(tmp_path).pem).decode()
    for plural in CLUSTER_WIDE:
        body = clean.get(plural, "shardgate")
        patch = [
            {"op": "replace", "path": f"/webhooks/{number}/clientConfig/caBundle", "value": bundle}
            for number, _ in enumerate(body["webhooks"])
        ]
        clean.kubectl("patch", plural, "shardgate", "--type=json", "-p", json.dumps(patch))
    until("the API server has taken notice", lambda: doctor(clean)[1]["answer"]["state"] == "failed")
    code, checks, _ = doctor(clean)
    assert code == 1
    assert {"answer", "certificate", "refusal", "admission"} <= states(checks, "failed")
    assert "x509" in checks["answer"]["message"]
    assert "caBundle" in checks["answer"]["repair"]
    assert "is not of the authority of the serving certificate" in checks["certificate"]["message"]
    assert checks["lease"]["state"] == "ok"


def test_the_operator_is_dead(clean: ControlPlane, healthy: Installation) -> None:
    healthy.kill()
    time.sleep(16)  # its Lease says so
    code, checks, _ = doctor(clean)
    assert code == 1
    assert {"answer", "refusal", "admission", "lease"} <= states(checks, "failed")
    assert "connection refused" in checks["answer"]["message"]
    assert "has not renewed its Lease for" in checks["lease"]["message"]
    assert "before the operator went" in checks["inventory"]["message"]
    assert checks["failingOpen"]["state"] == "warning"
    assert "validate.shardgate.io" in checks["failingOpen"]["message"]


def test_a_rule_of_its_role_is_missing(clean: ControlPlane, healthy: Installation) -> None:
    role = clean.get("clusterrole", "shardgate")
    less = [each for each in role["rules"] if "inferencedeployments/status" not in each["resources"]]
    try:
        clean.kubectl("patch", "clusterrole", "shardgate", "--type=merge", "-p", json.dumps({"rules": less}))
        until("the authorizer has taken notice", lambda: doctor(clean)[1]["rbac"]["state"] == "failed")
        code, checks, _ = doctor(clean)
        assert (code, states(checks, "failed")) == (1, {"rbac"})
        message = f"ServiceAccount {NAMESPACE}/shardgate may not: patch inferencedeployments/status.shardgate.io"
        assert checks["rbac"]["message"] == message
    finally:
        clean.kubectl("patch", "clusterrole", "shardgate", "--type=merge", "-p", json.dumps({"rules": role["rules"]}))
    until("it is granted again", lambda: doctor(clean)[1]["rbac"]["state"] == "ok")


def test_the_operator_may_ask_for_itself(clean: ControlPlane, healthy: Installation) -> None:
    _, checks, _ = doctor(clean, kubeconfig=healthy.kubeconfig)
    assert "has all" in checks["rbac"]["message"]


def test_a_person_without_rights(clean: ControlPlane, healthy: Installation) -> None:
    clean.kubectl("create", "serviceaccount", "nobody", "-n", "serving")
    token = clean.kubectl("create", "token", "nobody", "-n", "serving").stdout.strip()
    kubeconfig = clean.token_kubeconfig(token, "nobody")
    try:
        code, checks, shown = doctor(clean, kubeconfig=kubeconfig)
    finally:
        clean.kubectl("delete", "serviceaccount", "nobody", "-n", "serving")
    assert (code, states(checks, "failed"), states(checks, "warning")) == (2, set(), set()), shown
    assert states(checks, "ok") == {"kubernetes"}
    for name in ("webhooks", "answer", "refusal", "rbac", "lease", "nodes"):
        assert "you may not" in checks[name]["message"], checks[name]
    assert "could not be told: " in shown


def test_a_deployment_that_is_not_ready_and_a_policy_without_effect(clean: ControlPlane, healthy: Installation) -> None:
    labels = {"app.kubernetes.io/name": "shardgate"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}], "nodeName": ""}}
    body = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shardgate", "namespace": NAMESPACE, "labels": labels},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
    }  # fmt: skip
    policy = {
        "apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationPolicy", "metadata": {"name": "lenient"},
        "spec": {"mode": "Warn"},
    }  # fmt: skip
    clean.apply(body, policy)
    try:
        _, checks, _ = doctor(clean)
    finally:
        clean.kubectl("delete", "deployment", "shardgate", "-n", NAMESPACE)
        clean.kubectl("delete", "verificationpolicy", "lenient")
    assert (checks["deployment"]["state"], "0 of 2 replicas ready" in checks["deployment"]["message"]) == ("failed", True)
    assert checks["policies"]["message"] == "weaker than the default and without effect: lenient (mode)"


def test_a_policy_that_only_warns_and_an_exempt_namespace(clean: ControlPlane, healthy: Installation) -> None:
    policy = {
        "apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationPolicy", "metadata": {"name": "lenient"},
        "spec": {"mode": "Warn", "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "serving"}}},
    }  # fmt: skip
    clean.apply(policy)
    try:
        until("it is in effect", lambda: doctor(clean)[1]["refusal"]["state"] == "warning")
        code, checks, _ = doctor(clean)
    finally:
        clean.kubectl("delete", "verificationpolicy", "lenient")
    assert (code, "warned about" in checks["refusal"]["message"]) == (0, True)
    code, checks, _ = doctor(clean, namespace="unseen")
    assert (code, checks["refusal"]["state"], "is exempt" in checks["refusal"]["message"]) == (2, "unknown", True)
