"""What others do to our objects: edited configurations, stripped annotations, forged verdicts, namespaces that would be exempt."""

import copy
import json
import time
from collections.abc import Callable
from typing import Any

from audit import writes_to
from faults import LENGTH, Measured, at_length, fault, only_at_length
from live import create_node, find, status, until, wait_for_outcome

from builders import T4, a_body, a_node, a_vllm_deployment
from controlplane.installation import Installation
from controlplane.plane import ControlPlane

Start = Callable[..., Installation]
Json = dict[str, Any]

STRIPS = at_length(5, long=60)
TOLD_SECONDS = 60
HONEST = {"shardgate.io/verdict": "Waiting", "shardgate.io/score": "95", "shardgate.io/findings": "NodesUnavailable"}


def in_place(plane: ControlPlane) -> Json:
    """The condition WebhooksInPlace; empty while there is none."""
    found = plane.kubectl("get", "capacityledger", "shardgate", "-o", "json", check=False)
    conditions = (json.loads(found.stdout).get("status") or {}).get("conditions", []) if found.returncode == 0 else []
    return next((each for each in conditions if each["type"] == "WebhooksInPlace"), {})


def told(plane: ControlPlane) -> list[str]:
    """Notes of events on the ledger."""
    items = plane.get("events.events.k8s.io", "-n", "default")["items"]
    return [each["note"] for each in items if each["regarding"]["kind"] == "CapacityLedger"]


def problems(installation: Installation, kind: str) -> float:
    return installation.metric(f'shardgate_webhook_configuration_problems{{kind="{kind}WebhookConfiguration"}}') or 0


@fault(
    48, what="a webhook configuration is edited (rules, policy, URL), then deleted",
    criterion="metric, condition and event within 60 s; nothing is healed but the caBundle",
)  # fmt: skip
def test_an_edited_and_a_deleted_webhook_configuration_are_told(clean: ControlPlane, start: Start, measured: Measured) -> None:
    plane = clean
    unused = Installation(plane)  # the webhooks are there first, as after an upgrade
    unused.webhook_port = 9
    plane.apply(*unused.webhooks())
    installation = start(webhooks=False)
    until("all is in place", lambda: in_place(plane).get("status") == "True", timeout=60)
    body = plane.get("validatingwebhookconfiguration", "shardgate")
    by_name = {each["name"]: each for each in body["webhooks"]}
    by_name["validate.shardgate.io"]["rules"][0]["operations"] = ["UPDATE"]
    by_name["templates.shardgate.io"]["failurePolicy"] = "Fail"
    by_name["serving.shardgate.io"]["clientConfig"]["url"] += "/elsewhere"
    edited = copy.deepcopy(body)
    for field in ("resourceVersion", "managedFields"):
        edited["metadata"].pop(field, None)
    plane.kubectl("replace", "-f", "-", stdin=json.dumps(edited))
    said = ("validate.shardgate.io: rules", "templates.shardgate.io: failurePolicy", "serving.shardgate.io: clientConfig")
    edited_seconds = until(
        "the edits are told", lambda: all(each in in_place(plane).get("message", "") for each in said), timeout=TOLD_SECONDS
    )
    assert (in_place(plane)["status"], in_place(plane)["reason"]) == ("False", "Changed")
    assert problems(installation, "Validating") == len(said)
    until("an event tells it", lambda: any("templates.shardgate.io: failurePolicy" in each for each in told(plane)))

    plane.kubectl("delete", "validatingwebhookconfiguration", "shardgate")
    deleted_seconds = until("its end is told", lambda: in_place(plane).get("reason") == "Missing", timeout=TOLD_SECONDS)
    until("an event tells it", lambda: any("ValidatingWebhookConfiguration shardgate is missing" in each for each in told(plane)))
    assert (problems(installation, "Validating"), problems(installation, "Mutating")) == (1, 0)
    measured(f"three edits told after {edited_seconds:.0f} s, the deletion after {deleted_seconds:.0f} s")
    plane.kubectl("delete", "events.events.k8s.io", "--all", "-n", "default")


def strip(plane: ControlPlane, namespace: str, times: int) -> None:
    """Take our annotation away, once a second."""
    for _ in range(times):
        began = time.monotonic()
        plane.kubectl("annotate", "infd", "llama", "-n", namespace, "shardgate.io/verdict-")
        time.sleep(max(0.0, 1 - (time.monotonic() - began)))


def kinds_of_conditions(plane: ControlPlane, namespace: str) -> set[str]:
    return {each["type"] for each in status(plane, "llama", namespace).get("conditions", [])}


@fault(
    43, what=f"something takes our annotation away each second, {STRIPS} times, with and without the webhook in between",
    criterion="at most 3 writes a minute; the condition Conflict; no loop",
)  # fmt: skip
def test_who_strips_our_annotation_each_second_costs_three_writes(clean: ControlPlane, start: Start, measured: Measured) -> None:
    plane = clean
    create_node(plane, a_node(gpus=24).body)
    start()
    plane.apply(a_body(), a_body(namespace="unseen"))
    for namespace in ("serving", "unseen"):
        wait_for_outcome(plane, "llama", namespace, "Sound")
    until("it settles", lambda: "shardgate.io/verdict" in find(plane, "llama", "unseen")["metadata"].get("annotations", {}))
    time.sleep(2)
    before = len(writes_to(plane, "inferencedeployments", "llama"))
    strip(plane, "serving", min(STRIPS, 3))
    assert find(plane, "llama", "serving")["metadata"]["annotations"]["shardgate.io/verdict"] == "Sound"
    assert len(writes_to(plane, "inferencedeployments", "llama")) == before, "admission puts it back: nothing is left to write"
    began = time.monotonic()
    strip(plane, "unseen", STRIPS)
    until("it is told", lambda: "Conflict" in kinds_of_conditions(plane, "unseen"))
    minutes = 1 + int((time.monotonic() - began) / 60)
    written = len(writes_to(plane, "inferencedeployments", "llama")) - before
    assert written <= 3 * minutes
    measured(
        f"0 writes where the webhook is asked; {written} in {time.monotonic() - began:.0f} s where it is not; Conflict is told"
    )


@fault(43, what="something deletes a WorkloadVerdict each second for a minute", criterion="at most 3 writes a minute; no loop")
@only_at_length
def test_who_deletes_a_workload_verdict_each_second_costs_two_writes(clean: ControlPlane, start: Start, measured: Measured) -> None:
    plane = clean
    create_node(plane, a_node(gpus=4).body)
    start()
    wrong = a_vllm_deployment(gpus=4)
    wrong["spec"]["replicas"] = 0
    plane.apply(wrong)
    until("it is found", lambda: writes_to(plane, "workloadverdicts", "deployment-llama") != [])
    time.sleep(2)
    before = len(writes_to(plane, "workloadverdicts", "deployment-llama"))
    for _ in range(60):
        plane.kubectl("delete", "workloadverdict", "deployment-llama", "-n", "serving", "--ignore-not-found")
        time.sleep(1)
    written = len(writes_to(plane, "workloadverdicts", "deployment-llama")) - before
    assert 1 <= written <= 6, "sixty deletions by kubectl take up to two minutes"
    measured(f"{written} writes for 60 deletions")


EXEMPTING = (
    "shardgate.io/exempt=true", "shardgate.io/ignore=true", "admission.shardgate.io/ignore=true", "control-plane=shardgate",
    "kubernetes.io/metadata.name=kube-system", "name=shardgate-system",
)  # fmt: skip


def policy(name: str, selector: Json, **spec: Any) -> Json:
    return {
        "apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationPolicy", "metadata": {"name": name},
        "spec": {"namespaceSelector": {"matchLabels": selector}, **spec},
    }  # fmt: skip


@fault(
    49, what="a tenant labels its namespace as exempt, and as one that a lax policy selects",
    criterion="denied, until an administrator's policy names the namespace",
)  # fmt: skip
def test_no_label_of_a_tenant_exempts_its_namespace(clean: ControlPlane, start: Start, measured: Measured) -> None:
    plane = clean
    create_node(plane, a_node(gpus=1, labels=T4).body)
    start()
    plane.kubectl("create", "namespace", "tenant")
    try:
        for label in EXEMPTING:
            plane.kubectl("label", "namespace", "tenant", label, "--overwrite", check=False)
        plane.kubectl("label", "namespace", "tenant", "lax=yes")
        plane.apply(policy("lax", {"lax": "yes"}, mode="Audit"))
        time.sleep(2)
        for _ in range(3):
            assert "GpuCountTooLow" in plane.apply(a_body(namespace="tenant"), check=False).stderr
        assert find(plane, "llama", "tenant") == {}
        plane.kubectl("delete", "verificationpolicy", "lax")
        plane.apply(policy("by-name", {"kubernetes.io/metadata.name": "tenant"}, mode="Audit"))
        body = a_body(namespace="tenant")
        until("the administrator's counts", lambda: plane.apply(body, options=("--dry-run=server",), check=False).returncode == 0)
        measured(f"denied with {len(EXEMPTING)} labels and a policy by label; let in by a policy by name")
    finally:
        plane.kubectl("delete", "verificationpolicies", "--all")
        plane.kubectl("delete", "namespace", "tenant", "--wait=false")


def of_a_verdict(found: Json) -> Json:
    """A status without the times of its conditions."""
    untimed = [{key: value for key, value in each.items() if key != "lastTransitionTime"} for each in found.get("conditions", [])]
    return {**found, "conditions": untimed}


def annotations(plane: ControlPlane, name: str = "llama") -> Json:
    found = find(plane, name, "serving")["metadata"].get("annotations") or {}
    return {key: value for key, value in found.items() if key.startswith("shardgate.io/")}


@fault(
    50, what="verdict annotations, a status and a condition are forged, and copied from another object",
    criterion="replaced at admission, or rewritten; a copied digest does not stay",
)  # fmt: skip
def test_forged_and_copied_verdicts_do_not_stay(clean: ControlPlane, start: Start, measured: Measured) -> None:
    plane = clean
    create_node(plane, a_node().allocatable(7).body)
    start()
    plane.apply(a_body("small", model={"name": "Qwen/Qwen3-8B", "weights": "bf16"}, strategy={"tensor": 2, "pipeline": 1}, gpus={"perPod": 2}))  # fmt: skip
    small = wait_for_outcome(plane, "small", "serving", "Sound")
    forged = a_body()
    forged["metadata"]["annotations"] = {**annotations(plane, "small"), "shardgate.io/score": "100", "team": "mine"}
    forged["status"] = small
    plane.apply(forged)
    assert annotations(plane) == HONEST, "whatever its author wrote there"
    honest = wait_for_outcome(plane, "llama", "serving", "Waiting")
    plane.kubectl(
        "annotate", "infd", "llama", "-n", "serving", "--overwrite", "shardgate.io/verdict=Sound", "shardgate.io/score=98"
    )
    assert annotations(plane) == HONEST
    assert find(plane, "llama", "serving")["metadata"]["annotations"]["team"] == "mine"

    def forge(text: Json) -> float:
        plane.kubectl(
            "patch", "infd", "llama", "-n", "serving", "--subresource=status", "--type=merge", "-p", json.dumps({"status": text})
        )

        def is_honest() -> bool:
            return of_a_verdict(status(plane, "llama", "serving")) == of_a_verdict(honest)

        return until("it is rewritten", is_honest, timeout=5 if LENGTH else 20)

    feasible = [
        {**each, "status": "True", "reason": "Fits"} if each["type"] == "Feasible" else each for each in honest["conditions"]
    ]
    took = [forge({"conditions": feasible}), forge(small)]
    assert status(plane, "llama", "serving")["digest"] == honest["digest"] != small["digest"]
    measured(f"annotations at once; a condition and a whole copied status rewritten after {took[0]:.1f} and {took[1]:.1f} s")
