"""Why a live object runs or does not: the most decisive cause, from what the API serves."""

from typing import Any

import pytest

from shardgate.adapters.explanation import Explanation, Observed, explain
from shardgate.adapters.pod_troubles import MOST_TEXT, cut_short, last_words

Json = dict[str, Any]
DEPLOYMENT: Json = {
    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "llama", "namespace": "serving", "uid": "d"},
    "spec": {"replicas": 1},
}  # fmt: skip
OWN: Json = {**DEPLOYMENT, "apiVersion": "shardgate.io/v1alpha1", "kind": "InferenceDeployment"}
UNSOUND: Json = {
    "outcome": "Unsound",
    "findings": [
        {
            "code": "HeadsUneven",
            "outcome": "Unsound",
            "where": "spec.strategy.tensor",
            "message": "64 heads, 3 ranks",
            "remedy": "choose a divisor",
        }
    ],
}
WAITING: Json = {
    "outcome": "Waiting",
    "findings": [{"code": "GpusBusy", "outcome": "Waiting", "where": "spec", "message": "8 needed, 2 free"}],
}
SOUND: Json = {"outcome": "Sound", "findings": [], "required": {"pods": 1}}
WORDS = "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint(s)."
OVER = 'Error creating: pods "llama-7d4f-x2x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=8, used: requests.nvidia.com/gpu=0, limited: requests.nvidia.com/gpu=4'


def a_pod(
    name: str = "llama-0",
    *,
    node: str = "node-a",
    conditions: dict[str, str] | None = None,
    words: str = "",
    phase: str = "Running",
    **status: Any,
) -> Json:
    stated = {"PodScheduled": "True" if node else "False", **(conditions or {})}
    told = [
        {
            "type": kind,
            "status": value,
            **({"reason": "Unschedulable", "message": words} if kind == "PodScheduled" and words else {}),
        }
        for kind, value in stated.items()
    ]
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-11-26T10:00:00Z"}, "spec": {"nodeName": node} if node else {},
        "status": {"phase": phase, "conditions": told, **status},
    }  # fmt: skip


def ready(name: str = "llama-0") -> Json:
    return a_pod(name, conditions={"Ready": "True"})


def waits(name: str = "llama-0", words: str = WORDS) -> Json:
    return a_pod(name, node="", words=words, phase="Pending")


def crashed(code: int, reason: str = "Error", message: str = "", restarts: int = 0, state: str = "lastState") -> Json:
    ended = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return a_pod(containerStatuses=[{"name": "main", "ready": False, "restartCount": restarts, state: ended}])


def an_event(reason: str, message: str, at: str = "2026-11-26T11:00:00Z", kind: str = "Warning", by: str = "") -> Json:
    return {"reason": reason, "message": message, "lastTimestamp": at, "type": kind, "reportingComponent": by}


def why(body: Json = DEPLOYMENT, **seen: Any) -> Explanation:
    return explain(Observed(body=body, **seen))


REPLICAS_0 = {**DEPLOYMENT, "spec": {"replicas": 0}}
GOING = {**DEPLOYMENT, "metadata": {"name": "llama", "deletionTimestamp": "2026-11-26T10:00:00Z"}}
KUEUE = {
    "status": {
        "conditions": [{"type": "QuotaReserved", "status": "False", "message": "couldn't assign flavors: insufficient quota"}]
    }
}
ADMITTED = {"status": {"conditions": [{"type": "QuotaReserved", "status": "True"}, {"type": "Admitted", "status": "True"}]}}


@pytest.mark.parametrize(
    ("seen", "cause", "words"),
    [
        ({"pods": [ready()]}, "Runs", "it runs: 1 of 1 pod ready"),
        ({"pods": [ready()], "verdict": UNSOUND}, "Runs", "the verdict is Unsound, and pods that are ready outrank it"),
        ({"body": GOING, "pods": [ready()]}, "BeingDeleted", "since 2026-11-26T10:00:00Z"),
        ({"body": REPLICAS_0, "verdict": UNSOUND}, "ScaledToZero", "its replicas are 0"),
        ({"pods": [waits()], "verdict": UNSOUND}, "Unsound", "HeadsUneven: 64 heads, 3 ranks; choose a divisor"),
        ({"pods": [crashed(1)], "verdict": UNSOUND}, "Unsound", "HeadsUneven"),
        ({"events": [an_event("FailedCreate", OVER)]}, "QuotaExceeded", "exceeded quota: gpus, requested: requests.nvidia.com/gpu=8"),
        ({"events": [an_event("FailedCreate", OVER)], "verdict": WAITING}, "QuotaExceeded", "limited: requests.nvidia.com/gpu=4"),
        ({"events": [an_event("FailedCreate", OVER)], "pods": [waits()]}, "Unschedulable", WORDS),
        ({"events": [an_event("FailedCreate", 'admission webhook "x" denied the request: no')]}, "PodsRefused", "denied the request: no"),
        ({"queued": [KUEUE], "pods": [waits()]}, "Queued", "Kueue says: couldn't assign flavors"),
        ({"queued": [ADMITTED], "pods": [waits()]}, "Unschedulable", WORDS),
        ({"pods": [waits(), ready("llama-1")], "verdict": WAITING}, "Unschedulable", f"1 of 2 pods waits for a node; the scheduler says: {WORDS}"),
        ({"pods": [waits()], "events": [an_event("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size reached")]}, "Unschedulable", "the autoscaler adds no node: pod didn't trigger scale-up: 1 max node group size reached"),
        ({"pods": [waits()], "events": [an_event("TriggeredScaleUp", "pod triggered scale-up: [{gpu 1->2 (max: 5)}]", kind="Normal")]}, "Unschedulable", "the autoscaler brings one: pod triggered"),
        ({"pods": [waits()], "events": [an_event("FailedScheduling", "no nodepool matched", by="karpenter"), an_event("FailedScheduling", WORDS, by="default-scheduler")]}, "Unschedulable", "adds no node: no nodepool matched"),
        ({"pods": [a_pod(node="", conditions={"PodScheduled": "False"}, phase="Pending") | {"spec": {"schedulingGates": [{"name": "x"}]}}]}, "SchedulingGated", "1 pod held back"),
        ({"pods": [a_pod(containerStatuses=[{"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}])]}, "ImageMissing", "container main of pod llama-0: ImagePullBackOff: Back-off pulling image"),
        ({"pods": [a_pod(containerStatuses=[{"name": "main", "state": {"waiting": {"reason": "CreateContainerConfigError", "message": "secret not found"}}}])]}, "NotConfigured", "secret not found"),
        ({"pods": [crashed(137, "OOMKilled", restarts=4)]}, "Crashed", "container main of pod llama-0 ended with exit code 137 (OOMKilled: out of the host's memory, not the GPU's; its limit is resources.limits.memory), after 4 restarts"),
        ({"pods": [crashed(137)]}, "Crashed", "exit code 137 (killed)"),
        ({"pods": [crashed(1, message="Traceback\n  File x\ntorch.OutOfMemoryError: CUDA out of memory.\n", state="state")]}, "Crashed", "exit code 1; it said last: torch.OutOfMemoryError: CUDA out of memory."),
        ({"pods": [a_pod(phase="Failed", reason="UnexpectedAdmissionError", message="requested devices unavailable")]}, "PodFailed", "UnexpectedAdmissionError: requested devices unavailable"),
        ({"pods": [a_pod()], "events": [an_event("Unhealthy", "Startup probe failed: 503")]}, "Starting", "0 of 1; Startup probe failed: 503"),
        ({"verdict": WAITING}, "Verdict", "it waits: GpusBusy: 8 needed, 2 free"),
        ({"verdict": {**WAITING, "outcome": "Undecided"}}, "Verdict", "whether it can run is not known"),
        ({"body": OWN, "verdict": SOUND}, "NoPods", "no pod has the label shardgate.io/inference-deployment=llama"),
        ({"verdict": SOUND}, "NoPods", "it has no pods"),
        ({"pods": None}, "Unknown", "its pods may not be read"),
        ({"body": {**DEPLOYMENT, "kind": "Job", "status": {"conditions": [{"type": "Complete", "status": "True"}]}}}, "Finished", "it has ended well"),
        ({"body": {**DEPLOYMENT, "kind": "Pod"}, "pods": [waits()]}, "Unschedulable", "1 of 1 pod waits"),
    ],
)  # fmt: skip
def test_one_sentence_by_the_most_decisive_cause(seen: Json, cause: str, words: str) -> None:
    found = why(**{"body": DEPLOYMENT, **seen})
    assert (found.cause, words in found.answer) == (cause, True), found.answer


def test_a_refusal_that_is_over_is_not_the_cause() -> None:
    old = an_event("FailedCreate", OVER, at="2026-11-26T09:00:00Z")
    two = {**DEPLOYMENT, "spec": {"replicas": 2}}
    assert why(two, events=[old], pods=[waits()]).cause == "Unschedulable", "a pod was made since"
    assert why(two, events=[{**old, "lastTimestamp": "2026-11-26T11:00:00Z"}], pods=[waits()]).cause == "QuotaExceeded"
    assert (
        why(
            events=[{**old, "lastTimestamp": None, "eventTime": None, "series": {"lastObservedTime": "2026-11-26T11:00:00Z"}}]
        ).cause
        == "QuotaExceeded"
    )


def test_pods_that_are_going_are_not_looked_at() -> None:
    going = waits("old")
    going["metadata"]["deletionTimestamp"] = "2026-11-26T10:00:00Z"
    assert why(pods=[going, ready()]).cause == "Runs"


def test_the_evidence_is_told_in_order_and_once() -> None:
    quota = {
        "metadata": {"name": "gpus"},
        "status": {
            "hard": {"requests.nvidia.com/gpu": "8", "pods": "10", "cpu": "4"},
            "used": {"requests.nvidia.com/gpu": "2", "pods": "1", "cpu": "4"},
        },
    }
    found = why(
        {**DEPLOYMENT, "spec": {"replicas": 3}}, verdict=WAITING, verdict_is="judged now", quotas=[quota], pods=[waits("a"), waits("b"), ready("c")],
        events=[an_event("BackOff", "restarting"), an_event("BackOff", "restarting", at="2026-11-26T10:59:00Z"), an_event("FailedScheduling", WORDS)],
        unread=(("queue", "workloads may not be read"),),
    )  # fmt: skip
    assert found.evidence == (
        ("verdict", "Waiting (judged now)"),
        ("verdict", "GpusBusy (Waiting) spec: 8 needed, 2 free"),
        ("quota", "gpus: 2 of 8 requests.nvidia.com/gpu used"),
        ("quota", "gpus: 4 of 4 cpu used"),
        ("pods", "3 of 3 wanted, 1 bound, 1 ready"),
        ("scheduler", f"2 pods: {WORDS}"),
        ("events", "BackOff: restarting"),
    )
    assert found.unread == (("queue", "workloads may not be read"),)


def test_objects_of_any_form_are_read() -> None:
    odd: list[Any] = [
        {},
        {"status": 7},
        {"status": {"conditions": "no", "containerStatuses": [None, {"state": "x"}]}, "metadata": None},
    ]
    found = why({}, pods=odd, events=[{}, {"series": 3}], quotas=[{}], queued=[{"status": None}], verdict={"findings": 3})
    assert found.cause == "Unknown"


def test_what_is_long_is_cut() -> None:
    assert len(cut_short("x " * 1000)) == MOST_TEXT
    assert last_words("one\n\n two \n") == "two"
    assert last_words("") == ""
    assert last_words("\x1b]0;title\x07 done\u202e") == "]0;title done"
