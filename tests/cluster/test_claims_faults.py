"""Promises and annotations when admission is not the end of it: refused later, asked twice, asked in vain, asked again."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

from audit import writes
from faults import LENGTH, Measured, at_length, fault, only_at_length
from live import create_node, find, patch_status, until, wait_for_outcome
from reviews import Hook, review

from builders import a_body, a_node, a_vllm_deployment
from controlplane.installation import Installation
from controlplane.plane import ControlPlane

Start = Callable[..., Installation]
Json = dict[str, Any]

REFUSING_WAITING = {
    "apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationPolicy", "metadata": {"name": "no-waiting"},
    "spec": {"refuse": {"waiting": True}},
}  # fmt: skip
DRY = ("--dry-run=server",)


def claims(plane: ControlPlane) -> list[Json]:
    shown = plane.kubectl("get", "capacityledger", "shardgate", "-o", "json", check=False)
    return [] if shown.returncode else list(json.loads(shown.stdout)["spec"].get("claims") or ())


def refusing_waiting(plane: ControlPlane, *, replicas: int = 1) -> None:
    """Once the policy holds: what would wait is refused. ``replicas`` take all that there is."""
    probe = a_body("probe", replicas=replicas)
    plane.apply(a_body("first", replicas=replicas))
    wait_for_outcome(plane, "first", "serving", "Sound")
    plane.apply(REFUSING_WAITING)
    until("the policy holds", lambda: plane.apply(probe, options=DRY, check=False).returncode == 1)
    plane.kubectl("delete", "infd", "first", "-n", "serving")
    until("nothing is promised", lambda: plane.apply(probe, options=DRY, check=False).returncode == 0, timeout=30)


def of_uid(uid: str, **changes: Any) -> Json:
    body = a_body()
    body["metadata"] |= {"uid": uid, "generation": 1}
    return review(body, uid=uid, **changes)


@fault(
    21, what="a declaration is let in by us, and then refused by another webhook: it never appears",
    criterion="its claim is gone within 30 s (and a pass); the next create is admitted",
)  # fmt: skip
@only_at_length
def test_a_claim_whose_object_never_came_ends(clean: ControlPlane, start: Start, measured: Measured) -> None:
    plane = clean
    create_node(plane, a_node().body)
    installation = start()
    refusing_waiting(plane)
    hook = Hook(installation)
    assert json.loads(hook.post("/validate", of_uid("lost-1"))[1])["response"]["allowed"] is True
    assert [each["uid"] for each in claims(plane)] == ["lost-1"]
    assert "GpusBusy" in plane.apply(a_body("next"), options=DRY, check=False).stderr
    took = until("the next is admitted", lambda: plane.apply(a_body("next"), check=False).returncode == 0, timeout=60)
    assert took <= (40 if LENGTH else 60)
    assert all(each["uid"] != "lost-1" for each in claims(plane))
    assert installation.metric("shardgate_claims_expired_total") == 1
    measured(f"the next create was admitted after {took:.0f} s")


@fault(
    21, what="an update and a scale are let in by us, and refused by another webhook or taken back before pods came",
    criterion="what the standing object does not ask for is gone within 45 s; the next create is admitted",
)  # fmt: skip
@only_at_length
def test_a_claim_of_an_update_that_never_came_ends(clean: ControlPlane, start: Start, measured: Measured) -> None:
    plane = clean
    for name in ("node-a", "node-b"):
        create_node(plane, a_node(name).body)
    installation = start()
    refusing_waiting(plane, replicas=2)
    hook = Hook(installation)
    plane.apply(a_body("kept"))
    wait_for_outcome(plane, "kept", "serving", "Sound")
    stands = plane.get("infd", "kept", "-n", "serving")
    wider = {**stands, "metadata": {**stands["metadata"], "generation": 2}, "spec": {**stands["spec"], "replicas": 2}}
    until("its first claim is over", lambda: claims(plane) == [], timeout=30)
    lost = review(wider, operation="UPDATE", oldObject=stands)
    assert json.loads(hook.post("/validate", lost)[1])["response"]["allowed"] is True
    assert [len(each["pods"]) for each in claims(plane)] == [2]
    assert "GpusBusy" in plane.apply(a_body("next"), options=DRY, check=False).stderr
    update = until(
        "the next is admitted", lambda: plane.apply(a_body("next"), options=DRY, check=False).returncode == 0, timeout=60
    )
    until("the claim is gone", lambda: claims(plane) == [], timeout=10)
    plane.kubectl("delete", "infd", "kept", "-n", "serving")
    plane.apply({
        "apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationPolicy", "metadata": {"name": "no-waiting"},
        "spec": {"mode": "Enforce", "refuse": {"waiting": True}},
    })  # fmt: skip
    workload = a_vllm_deployment("web", replicas=0)
    workload["spec"]["paused"] = True  # no controller makes pods
    plane.apply(workload)
    scale_web = ("scale", "deployment", "web", "-n", "serving")
    until("it is followed", lambda: plane.kubectl(*scale_web, "--replicas=3", check=False).returncode != 0)
    for replicas in (2, 0):
        plane.kubectl(*scale_web, f"--replicas={replicas}")
    assert [len(each["pods"]) for each in claims(plane)] == [2]
    assert "GpusBusy" in plane.apply(a_body("next"), options=DRY, check=False).stderr
    scale = until("the next is admitted", lambda: plane.apply(a_body("next"), check=False).returncode == 0, timeout=60)
    assert max(update, scale) <= 45
    measured(f"the next create was admitted {update:.0f} s after the update, {scale:.0f} s after the scale")


@fault(
    22,
    23,
    what="the same review ten times over; and ten dry runs",
    criterion="identical bytes and one claim; a dry run: none, and no write",
)
def test_a_replay_and_a_dry_run_take_nothing_more(clean: ControlPlane, start: Start, measured: Measured) -> None:
    plane = clean
    create_node(plane, a_node().body)
    installation = start()
    refusing_waiting(plane)
    hook = Hook(installation)
    time.sleep(1)
    before = len(writes(plane))
    dry = [hook.post("/validate", of_uid(f"dry-{number}", dryRun=True)) for number in range(10)]
    assert {json.loads(answer)["response"]["allowed"] for _, answer in dry} == {True}
    refused = json.loads(hook.post("/validate", {**of_uid("dry-11", dryRun=True), "request": {
        **of_uid("dry-11", dryRun=True)["request"], "object": {**a_body(strategy={"tensor": 3}), "metadata": {"name": "llama", "namespace": "serving", "uid": "dry-11"}},
    }})[1])["response"]  # fmt: skip
    assert "HeadsUneven" in refused["status"]["message"], "the same verdict"
    assert (claims(plane), len(writes(plane))) == ([], before)
    once = [hook.post("/validate", of_uid("once")) for _ in range(10)]
    assert len(set(once)) == 1, "identical bytes"
    assert [each["uid"] for each in claims(plane)] == ["once"]
    plane.kubectl("delete", "capacityledger", "shardgate")  # nobody else is to wait for what never comes
    measured("10 identical answers and 1 claim; 11 dry runs: 0 claims, 0 writes")


@fault(
    24,
    what="mutate is asked again, with what it answered before",
    criterion="the second patch is empty; the annotations stay the same",
)
def test_reinvocation_changes_nothing(clean: ControlPlane, start: Start, measured: Measured) -> None:
    create_node(clean, a_node().allocatable(7).body)
    hook = Hook(start(webhooks=False))
    body = a_body()
    first = json.loads(hook.post("/mutate", review(body))[1])["response"]
    (patch,) = json.loads(base64.b64decode(first["patch"]))
    assert patch["path"] == "/metadata/annotations"
    body["metadata"]["annotations"] = patch["value"]
    for _ in range(3):
        again = json.loads(hook.post("/mutate", review(body))[1])["response"]
        assert json.loads(base64.b64decode(again.get("patch") or base64.b64encode(b"[]"))) == []
    measured(f"three times no patch; {json.dumps(patch['value'])} stayed")


@fault(
    25, what="a cluster without a free GPU: delete, finalizers, labels, status, scale down, scale to 0",
    criterion="always allowed, in silence, under a policy that refuses all it can",
)  # fmt: skip
def test_what_makes_nothing_worse_always_passes(clean: ControlPlane, start: Start, measured: Measured) -> None:
    plane = clean
    create_node(plane, a_node(gpus=24).body)
    start()
    one = {"strategy": {"tensor": 2, "pipeline": 1}, "model": {"name": "Qwen/Qwen3-8B", "weights": "bf16"}, "gpus": {"perPod": 2}}
    bodies = [a_body("going", **one), a_body("held", **one), a_body("scaled", replicas=2, **one)]
    bodies[1]["metadata"]["finalizers"] = ["example.com/hold"]
    workload = a_vllm_deployment("web", tensor=4, gpus=4, replicas=2)
    plane.apply(*bodies, workload)
    for name in ("going", "held", "scaled"):
        wait_for_outcome(plane, name, "serving", "Sound")
    everything = {"mode": "Enforce", "capacity": "Closed", "refuse": {"waiting": True, "undecided": True}}
    plane.apply({**REFUSING_WAITING, "spec": everything})
    patch_status(plane, "node-a", {"allocatable": {"nvidia.com/gpu": "0"}, "capacity": {"nvidia.com/gpu": "0"}})
    until("nothing more is let in", lambda: plane.apply(a_body("new", **one), options=DRY, check=False).returncode == 1)
    said = []

    def kubectl(*arguments: str) -> None:
        said.append(plane.kubectl(*arguments, "-n", "serving").stderr)

    kubectl("label", "infd", "scaled", "team=mine")
    kubectl("annotate", "infd", "scaled", "note=text")
    kubectl("patch", "infd", "scaled", "--subresource=status", "--type=merge", "-p", '{"status": {"score": 1}}')
    kubectl("patch", "infd", "scaled", "--type=merge", "-p", '{"spec": {"replicas": 1}}')
    kubectl("patch", "infd", "scaled", "--type=merge", "-p", '{"spec": {"replicas": 0}}')
    kubectl("delete", "infd", "going")
    kubectl("delete", "infd", "held", "--wait=false")
    kubectl("patch", "infd", "held", "--type=merge", "-p", '{"metadata": {"finalizers": []}}')
    kubectl("label", "deployment", "web", "team=mine")
    kubectl("scale", "deployment", "web", "--replicas=1")
    kubectl("scale", "deployment", "web", "--replicas=0")
    kubectl("delete", "deployment", "web")
    assert set(said) == {""}
    until("they are gone", lambda: not find(plane, "held", "serving") and not find(plane, "going", "serving"))
    measured(f"{len(said)} of {len(said)} allowed, without a warning")


REST_SECONDS, AT_REST = at_length(10, long=600), at_length(25, long=500)


@fault(
    41,
    what=f"{AT_REST} declarations at rest for {REST_SECONDS} s",
    criterion="0 writes by the operator but its lease, by the audit log",
)
def test_at_rest_the_audit_log_has_no_write_of_ours(clean: ControlPlane, start: Start, measured: Measured) -> None:
    plane = clean
    create_node(plane, a_node(gpus=8).body)
    installation = start()
    bodies = [a_body(f"r{number}", replicas=0) for number in range(AT_REST - 2)]
    plane.apply(*bodies, a_body("sound"), a_body("waits"))
    sound = 'shardgate_declarations{kind="InferenceDeployment",outcome="Sound"}'
    until("all are judged", lambda: (installation.metric(sound) or 0) >= AT_REST - 1, timeout=120)
    until("all is told of the operator", lambda: is_told(plane), timeout=60)
    time.sleep(3)
    before = len(writes(plane))
    began = time.monotonic()
    while time.monotonic() - began < REST_SECONDS:
        patch_status(plane, "node-a", {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat()}]})
        time.sleep(2)
    assert [each["objectRef"] for each in writes(plane)[before:]] == []
    measured(f"0 writes in {REST_SECONDS} s, node heartbeats going on")


def heartbeat() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def is_told(plane: ControlPlane) -> bool:
    """The last of the operator's conditions: its webhooks come after it, and are seen a moment later."""
    found = plane.get("capacityledger", "shardgate").get("status", {}).get("conditions", [])
    return ("WebhooksInPlace", "True") in {(each["type"], each["status"]) for each in found}
