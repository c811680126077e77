"""Admission on the real API server: let in, warned, refused, and what never may be held up."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from faults import fault
from live import create, create_node, find, patch_status, status, until, wait_for_outcome
from reviews import Hook, broken_reviews, review

from builders import T4, a_body, a_node, a_vllm_deployment
from command_line import run
from controlplane.installation import NAMESPACE, Installation
from controlplane.plane import ControlPlane

Start = Callable[..., Installation]


def annotations(plane: ControlPlane, name: str = "llama") -> dict[str, str]:
    found = find(plane, name, "serving")["metadata"].get("annotations") or {}
    return {key: value for key, value in found.items() if key.startswith("shardgate.io/")}


def test_allowed_and_annotated(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node().body)
    start()
    result = clean.apply(a_body())
    assert result.stderr == ""
    assert annotations(clean) == {"shardgate.io/verdict": "Sound", "shardgate.io/score": "95"}


def test_refused_with_everything_at_once(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node(gpus=1, labels=T4).body)
    start()
    result = clean.apply(a_body(strategy={"tensor": 3}, gpus=None), check=False)
    assert result.returncode == 1
    assert (
        'admission webhook "validate.shardgate.io" denied the request: InferenceDeployment serving/llama cannot run here'
        in result.stderr
    )
    for code in ("HeadsUneven", "KvHeadsUneven", "GpuCountTooLow", "ModelExceedsCluster"):
        assert f"\n  {code} " in result.stderr
    assert "score 0/100" in result.stderr
    assert find(clean, "llama", "serving") == {}


def test_warned_once_and_silent_on_an_unchanged_reapply(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node().allocatable(7).body)
    start()
    first = clean.apply(a_body())
    assert first.stderr.startswith("Warning: NodesUnavailable: ")
    assert all(len(line) <= len("Warning: ") + 120 for line in first.stderr.splitlines())
    assert clean.apply(a_body()).stderr == ""


@fault(23, what="apply with --dry-run=server", criterion="the same verdict; no object, no event")
def test_a_dry_run_answers_alike_and_leaves_nothing(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node().body)
    start()
    clean.apply(a_body(), options=("--dry-run=server",))
    refused = clean.apply(a_body("big", strategy={"tensor": 16}), options=("--dry-run=server",), check=False)
    assert "GpuCountTooLow" in refused.stderr
    assert find(clean, "llama", "serving") == {}
    assert (
        clean.kubectl("get", "events", "-n", "serving", "--field-selector", "reportingComponent=shardgate.io/operator").stdout == ""
    )


def test_config_fields_are_refused_by_path_once_schema_and_rules_pass(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node().body)
    start()
    body = a_body(model={"config": {"num_hidden_layers": "80", "vocab_size": -1}})
    said = clean.apply(body, check=False).stderr
    assert "InferenceDeployment serving/llama is not valid, 2 mistakes:" in said
    for path in ("spec.model.config.num_hidden_layers", "spec.model.config.vocab_size"):
        assert f"\n  {path}: " in said


def test_forged_annotations_are_replaced_on_create_and_update(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node().allocatable(7).body)
    start()
    body = a_body()
    body["metadata"]["annotations"] = {"shardgate.io/verdict": "Sound", "shardgate.io/score": "100", "team": "mine"}
    clean.apply(body)
    honest = {"shardgate.io/verdict": "Waiting", "shardgate.io/score": "95", "shardgate.io/findings": "NodesUnavailable"}
    assert annotations(clean) == honest
    clean.kubectl(
        "annotate", "infd", "llama", "-n", "serving", "--overwrite", "shardgate.io/verdict=Sound", "shardgate.io/score=98"
    )
    assert annotations(clean) == honest
    assert find(clean, "llama", "serving")["metadata"]["annotations"]["team"] == "mine"


def test_updates_are_refused_only_for_what_they_bring(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node().body)
    installation = start()
    clean.apply(a_body())
    worse = clean.apply(a_body(strategy={"tensor": 16}), check=False)
    assert "GpuCountTooLow" in worse.stderr
    installation.stop()
    clean.kubectl("delete", "node", "node-a")
    create_node(clean, a_node("small", gpus=1, labels=T4).body)
    installation.start()  # one that remembers no other node
    wait_for_outcome(clean, "llama", "serving", "Unsound")
    assert clean.apply(a_body(engine={"maxModelLen": 4096})).returncode == 0
    assert clean.apply(a_body(traffic={"concurrency": 8}, engine={"maxModelLen": 4096})).returncode == 0
    assert "HeadsUneven" in clean.apply(a_body(strategy={"tensor": 3}, gpus=None), check=False).stderr
    assert clean.kubectl("delete", "infd", "llama", "-n", "serving").returncode == 0


def test_exempt_namespaces_are_not_judged(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node(gpus=1, labels=T4).body)
    start()
    for namespace in ("kube-system", NAMESPACE):
        assert clean.apply(a_body(namespace=namespace)).stderr == ""
        assert status(clean, "llama", namespace) == {}


def test_a_policy_changes_the_answer_and_rejudges_what_stands(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node(gpus=1, labels=T4).body)
    start()
    policy = {
        "apiVersion": "shardgate.io/v1alpha1",
        "kind": "VerificationPolicy",
        "metadata": {"name": "research"},
        "spec": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "serving"}}, "mode": "Warn"},
    }
    clean.apply(policy)
    until("the policy holds", lambda: clean.apply(a_body(), options=("--dry-run=server",), check=False).returncode == 0)
    assert "Warning: GpuCountTooLow" in clean.apply(a_body()).stderr
    wait_for_outcome(clean, "llama", "serving", "Unsound")
    policy["spec"]["capacity"] = "Open"  # type: ignore[index]
    clean.apply(policy)
    wait_for_outcome(clean, "llama", "serving", "Waiting")


# ---- the webhook as a server


UNSUPPORTED = 'shardgate_admission_requests_total{answer="unsupported",dry_run="false",kind="other",operation="CREATE",outcome=""}'


def test_the_webhook_server(clean: ControlPlane, start: Start) -> None:
    """One operator for all of it: these requests change nothing."""
    create_node(clean, a_node().body)
    installation = start(webhooks=False)
    hook = Hook(installation)

    code, answer = hook.post("/validate?timeout=3s", review(a_body()))
    let_in = json.loads(answer)["response"]
    assert (code, let_in["allowed"], let_in["auditAnnotations"]["verdict"]) == (200, True, "Sound")
    code, answer = hook.post("/validate", review(a_body(strategy={"tensor": 16})))
    refused = json.loads(answer)["response"]
    assert (code, refused["allowed"], refused["status"]["code"]) == (200, False, 422)
    code, answer = hook.post("/mutate", review(a_body()))
    patch = json.loads(base64.b64decode(json.loads(answer)["response"]["patch"]))
    assert [each["path"] for each in patch] == ["/metadata/annotations"]

    for path in ("/", "/typo", "/validate/x", "/mutate2"):
        assert hook.post(path, review(a_body()))[0] == 404, path
    for name, content in broken_reviews().items():
        code, answer = hook.post("/validate", content)
        assert (name, code) == (name, 400), answer
    other = review(a_body(), resource={"group": "apps", "version": "v1", "resource": "daemonsets"})
    assert hook.post("/validate", other)[0] == 200  # a webhook of somebody's own making: let in, and counted
    assert installation.metric(UNSUPPORTED) == 1
    broken = review(
        {"metadata": {"name": "x", "namespace": "serving"}, "spec": 7},
        resource={"group": "apps", "version": "v1", "resource": "deployments"},
    )
    assert hook.post("/validate", broken)[0] == 200

    padded = a_body()
    padded["metadata"]["annotations"] = {"padding": "x" * (2 << 20)}
    assert hook.post("/validate", review(padded))[0] == 200
    padded["metadata"]["annotations"]["padding"] = "x" * (9 << 20)
    assert hook.post("/validate", review(padded))[0] == 413

    unreadable = a_body()
    unreadable["spec"] = {"model": {"name": "x"}, "strategy": {"tensor": 10**30}}
    assert json.loads(hook.post("/validate", review(unreadable))[1])["response"]["allowed"] is False
    deleting = a_body(strategy={"tensor": 16})
    deleting["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert json.loads(hook.post("/validate", review(deleting))[1])["response"]["allowed"] is True
    assert installation.metric("shardgate_internal_errors_total") == 0
    assert installation.is_ready()


# ---- when the operator is dead


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
def test_with_the_operator_dead_nothing_but_a_changed_declaration_waits_for_it(
    clean: ControlPlane, start: Start, policy: str
) -> None:
    create_node(clean, a_node().body)
    installation = start(failure_policy=policy)
    names = ("plain", "foreground", "finalized", "edited")
    for index, name in enumerate(names):
        body = a_body(name, strategy={"tensor": 1, "pipeline": 2}, gpus={"perPod": 2})
        if name == "finalized":
            body["metadata"]["finalizers"] = ["example.com/hold"]
        clean.apply(body)
        assert index == 0 or find(clean, names[0], "serving")
    installation.kill()

    def kubectl(*arguments: str) -> None:
        clean.kubectl(*arguments, "-n", "serving")

    kubectl("label", "infd", "edited", "team=mine")
    kubectl("annotate", "infd", "edited", "note=text")
    kubectl("delete", "infd", "plain")
    kubectl("delete", "infd", "foreground", "--cascade=foreground")
    kubectl("delete", "infd", "finalized", "--wait=false")
    kubectl("patch", "infd", "finalized", "--type=merge", "-p", '{"metadata": {"finalizers": []}}')
    until("all are gone", lambda: not any(find(clean, name, "serving") for name in names[:3]))
    kubectl("patch", "infd", "edited", "--subresource=status", "--type=merge", "-p", '{"status": {"score": 1}}')
    kubectl("create", "configmap", f"other-{policy.lower()}", "--from-literal=a=b")

    created = clean.apply(a_body("new"), check=False)
    changed = clean.apply(a_body("edited"), check=False)
    for result in (created, changed):
        assert bool(result.returncode) is (policy == "Fail"), result.stderr
        if policy == "Fail":
            assert "failed calling webhook" in result.stderr


def test_what_slipped_through_is_judged_when_the_operator_is_back(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node(gpus=1, labels=T4).body)
    installation = start()
    installation.stop()
    clean.apply(a_body())
    installation.start()
    assert wait_for_outcome(clean, "llama", "serving", "Unsound")["score"] == 0
    assert annotations(clean)["shardgate.io/verdict"] == "Unsound"


def test_an_update_of_a_node_reaches_admission(clean: ControlPlane, start: Start) -> None:
    create(clean, [a_node().body])
    start()
    assert clean.apply(a_body(), options=("--dry-run=server",)).stderr == ""
    patch_status(clean, "node-a", {"allocatable": {"nvidia.com/gpu": "7"}})
    until("a warning", lambda: "NodesUnavailable" in clean.apply(a_body(), options=("--dry-run=server",)).stderr, timeout=2)


def test_verify_by_the_server_says_what_apply_would(clean: ControlPlane, start: Start) -> None:
    plane = clean
    create_node(plane, a_node().body)
    start()
    cluster = {"KUBECONFIG": str(plane.kubeconfig)}

    def asked(*bodies: Any) -> tuple[int, Any]:
        ended = run(
            "verify", "--server", "-f", "-", "-o", "json", stdin="\n---\n".join(json.dumps(each) for each in bodies), **cluster
        )
        return ended.returncode, json.loads(ended.stdout)

    code, found = asked(a_body())
    assert (code, found["outcome"], found["refused"], found["findings"]) == (0, "Sound", False, [])
    code, found = asked(a_body(strategy={"tensor": 3}))
    assert (code, found["refused"]) == (1, True)
    assert found["message"].startswith("InferenceDeployment serving/llama cannot run here")
    code, found = asked(a_vllm_deployment(gpus=4), {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})
    assert (code, found["outcome"], len(found["warnings"])) == (0, None, 1)
    assert "WorldSizeMismatch" in found["warnings"][0]
    assert find(plane, "llama", "serving") == {}, "nothing was written"
    shown = run("verify", "--server", "-f", "-", stdin=json.dumps(a_body(strategy={"tensor": 3})), **cluster)
    assert "refused" in shown.stdout
    assert run("verify", "--server", "--gpus", "8xH100-80GB-HBM3", "-f", "-", stdin="", **cluster).returncode == 64
