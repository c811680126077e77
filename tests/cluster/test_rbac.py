"""The operator's rights: enough, and no more. What it asks for is read from the API server's audit log."""

from collections.abc import Callable

import pytest
from audit import audited, granted, used
from live import create_node, patch_status, until, wait_for_outcome

from builders import a_body, a_node, a_vllm_deployment
from controlplane.installation import Installation
from controlplane.plane import ControlPlane
from operator_user import OPERATOR_USER

Start = Callable[..., Installation]


UNSEEN = {
    # Where two replicas meet in the ledger: test_races.
    ("shardgate.io", "capacityledgers", "get"),
}


@pytest.mark.usefixtures("karpenter", "referred_to", "other_kinds")
def test_rights_are_sufficient_and_minimal(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node().body)
    clean.kubectl("delete", "capacityledger", "shardgate", "--ignore-not-found")  # it is to be made anew
    since = len(clean.audit_log.read_text().splitlines())
    start()
    clean.apply(a_body())
    wait_for_outcome(clean, "llama", "serving", "Sound")
    patch_status(clean, "node-a", {"allocatable": {"nvidia.com/gpu": "7"}})
    wait_for_outcome(clean, "llama", "serving", "Waiting")
    for gpus, outcome in ((8, "Sound"), (7, "Waiting")):  # an event that comes again counts
        patch_status(clean, "node-a", {"allocatable": {"nvidia.com/gpu": str(gpus)}})
        wait_for_outcome(clean, "llama", "serving", outcome)
    wrong = a_vllm_deployment(gpus=4)
    wrong["spec"]["template"]["spec"]["volumes"] = [{"name": "a", "configMap": {"name": "a"}}]
    clean.apply(wrong)
    until("a verdict stands", lambda: len(clean.get("workloadverdicts", "-A")["items"]) == 1)
    wrong["spec"]["replicas"] = 2
    clean.apply(wrong)
    until("it is kept true", lambda: ("shardgate.io", "workloadverdicts", "patch") in used(clean, since))
    clean.apply(a_vllm_deployment(tensor=4, gpus=4))
    until("it is gone", lambda: clean.get("workloadverdicts", "-A")["items"] == [])
    alone = {**a_vllm_deployment("alone", tensor=4, gpus=4, replicas=0), "kind": "ReplicaSet"}
    clean.apply(alone)
    assert "GpuCountTooLow" in clean.kubectl("scale", "replicaset", "alone", "-n", "serving", "--replicas=9").stderr
    refusing = {"mode": "Enforce", "refuse": {"waiting": True}}
    clean.apply({
        "apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationPolicy", "metadata": {"name": "no-waiting"}, "spec": refusing,
    })  # fmt: skip
    small = a_body(
        "small", model={"name": "Qwen/Qwen3-8B", "weights": "bf16"}, strategy={"tensor": 2, "pipeline": 1}, gpus={"perPod": 2}
    )

    def is_claimed() -> bool:
        clean.kubectl("delete", "infd", "small", "-n", "serving", "--ignore-not-found")
        clean.apply(small)
        return ("shardgate.io", "capacityledgers", "patch") in used(clean, since)

    until("a claim is written", is_claimed)
    clean.apply({
        "apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationException", "metadata": {"name": "one", "namespace": "serving"},
        "spec": {
            "target": {"kind": "InferenceDeployment", "name": "none"}, "codes": ["HeadsUneven"], "reason": "a test",
            "expires": "2020-01-01T00:00:00Z",
        },
    })  # fmt: skip
    clean.kubectl("delete", "verificationexception", "one", "-n", "serving")
    until("every right was used", lambda: granted() - used(clean, since) == UNSEEN, timeout=20)
    assert used(clean, since) == granted() - UNSEEN
    forbidden = [entry for entry in audited(clean, since) if entry.get("responseStatus", {}).get("code") == 403]  # type: ignore[attr-defined]
    assert forbidden == []


def test_the_operator_may_not_do_what_it_need_not(installed: ControlPlane) -> None:
    for verb, resource in (
        ("get", "secrets"),
        ("delete", "inferencedeployments.shardgate.io"),
        ("patch", "nodes"),
        ("create", "pods"),
    ):
        asked = installed.kubectl("auth", "can-i", verb, resource, "--all-namespaces", "--as", OPERATOR_USER, check=False)
        assert asked.stdout.strip() == "no", (verb, resource)
