"""What is deleted and made anew: what runs is let in again, and nothing else comes in by that."""

import asyncio
import copy
from pathlib import Path
from typing import Any

import pytest

from builders import GPU, H100, T4, a_body, a_node, a_pod, a_vllm_deployment, standing
from shardgate.adapters.adopted_pods import runs_of
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.nodes import node_from
from shardgate.adapters.pods import pod_from, read_pod
from shardgate.adapters.policies import read_policy
from shardgate.adapters.standing_workloads import MOST_GONE, OWN_AFTER_SECONDS, StandingWorkloads
from shardgate.domain.inventory import Owner
from shardgate.shells.config import OperatorConfig
from shardgate.shells.judge import Judge
from shardgate.shells.metrics import Metrics
from shardgate.shells.webhook import Admission

Json = dict[str, Any]

SERVES = {"tensor": 8, "gpus": 8, "model": "meta-llama/Meta-Llama-3-70B-Instruct"}
"""141 GB on 8 T4 of 15 GiB: refused, where nothing like it runs."""
OTHER = {"tensor": 7, "gpus": 7, "model": "meta-llama/Llama-3.1-405B-Instruct"}


def made_for(body: Json, *, going: bool = False, ready: bool = True, label: str = "", **container: Any) -> Json:
    """The pod that a Deployment's controllers made for it, on node-a."""
    pod = a_pod("p", node="node-a", gpus=8, ready=ready, declaration=label)
    template = copy.deepcopy(body["spec"]["template"]["spec"]["containers"][0])
    amounts = template["resources"]["limits"]
    pod["spec"]["containers"] = [{**template, "resources": {"limits": amounts, "requests": amounts}, **container}]
    if not label:
        pod["metadata"]["labels"] = {"pod-template-hash": "5f"}
        name = f"{body['metadata']['name']}-5f"
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": "rs", "controller": True}
        pod["metadata"]["ownerReferences"] = [owner]
    if going:
        pod["metadata"]["deletionTimestamp"] = "2026-11-26T18:00:00Z"
    return pod


def answered(
    body: Json, *pods: Json, gone: Json | None = None, stands: Json | None = None, old: Json | None = None, seconds: float = 1.0
) -> Json:
    """The answer to a create on a node of 8 T4, where the policy is Enforce and Closed. ``gone``: deleted so long ago.

    ``old``: to an update of that.
    """
    book, workloads = ClusterBook(), StandingWorkloads()
    book.put_node(node_from(a_node(labels=T4).body), 0.0)
    for each in pods:
        item = pod_from(each)
        record = read_pod(item)
        assert record is not None
        book.put_pod(record, runs_of(item))
    if stands is not None:
        workloads.put(standing(stands, "before"))
    if gone is not None and gone["kind"] == "Deployment":
        workloads.put(standing(gone, "before"))
        workloads.drop("before", 100.0 - seconds)
    elif gone is not None:
        workloads.note_gone(standing(gone, "before"), 100.0 - seconds)
    judge = Judge(book, lambda: (0.0, 0.0), workloads, lambda: 100.0)
    names = {"matchLabels": {"kubernetes.io/metadata.name": "serving"}}
    judge.book.rules.put_namespace("serving", names["matchLabels"])
    spec = {"mode": "Enforce", "capacity": "Closed", "namespaceSelector": names}
    judge.book.rules.put_policy(read_policy({"metadata": {"name": "strict"}, "spec": spec}))
    subject = Admission(judge, OperatorConfig(tls_cert=Path("c"), tls_key=Path("k")), Metrics())
    group, plural = ("apps", "deployments") if body["kind"] == "Deployment" else ("shardgate.io", "inferencedeployments")
    request = {
        "uid": "r", "operation": "CREATE", "userInfo": {"username": "jane"}, "object": standing(body, "new"), "name": "llama",
        "namespace": "serving", "resource": {"group": group, "version": "v1", "resource": plural},
    }  # fmt: skip
    if old is not None:
        request |= {"operation": "UPDATE", "oldObject": standing(old, "new")}
    return asyncio.run(subject.answer(request))


RUNNING = a_vllm_deployment(**SERVES)


def test_without_pods_it_is_refused() -> None:
    assert not answered(RUNNING)["allowed"]


@pytest.mark.parametrize("going", [False, True])
def test_something_else_under_the_name_of_what_ran_is_refused(going: bool) -> None:
    """``kubectl replace --force`` lets in no more than an update would."""
    refused = answered(a_vllm_deployment(**OTHER), made_for(RUNNING, going=going))
    assert not refused["allowed"]
    assert all(code in refused["status"]["message"] for code in ("HeadsUneven", "WeightsDoNotFit"))
    known = answered(a_vllm_deployment(**OTHER), made_for(RUNNING, going=going), gone=RUNNING)
    assert "HeadsUneven" in known["status"]["message"]
    assert "HeadsUneven" in answered(a_vllm_deployment(**OTHER), made_for(RUNNING), stands=RUNNING)["status"]["message"]


def test_pods_on_their_way_out_are_nobodys_new_pods() -> None:
    assert not answered(RUNNING, made_for(RUNNING, going=True))["allowed"]


@pytest.mark.parametrize("seen", ["gone", "stands"])
def test_what_runs_is_made_anew(seen: str) -> None:
    """GitOps replaces it: its pods may be on their way out, and its end on its way to us."""
    again = answered(RUNNING, made_for(RUNNING, going=True), **{seen: RUNNING})  # type: ignore[arg-type]  # an object
    assert again == {"allowed": True}


def test_only_while_its_pods_run_and_not_for_ever() -> None:
    assert not answered(RUNNING, gone=RUNNING)["allowed"]
    assert not answered(RUNNING, made_for(RUNNING, ready=False, going=True), gone=RUNNING)["allowed"]
    assert not answered(RUNNING, made_for(RUNNING, going=True), gone=RUNNING, seconds=OWN_AFTER_SECONDS)["allowed"]


def test_a_new_owner_adopts_what_runs() -> None:
    """``kubectl delete --cascade=orphan``, a backup, another GitOps tool: nobody here knows what stood."""
    assert answered(RUNNING, made_for(RUNNING))["allowed"]
    assert not answered(RUNNING, made_for(RUNNING, ready=False))["allowed"]


def test_what_its_pods_do_not_tell_is_no_other_thing() -> None:
    """A script of a ConfigMap, a variable of a Secret: what is started there may be what is declared."""
    assert answered(RUNNING, made_for(RUNNING, command=["/scripts/start.sh"]))["allowed"]
    secret = [{"name": "TP", "valueFrom": {"secretKeyRef": {"name": "s", "key": "tp"}}}]
    command = ["vllm", "serve", SERVES["model"], "--tensor-parallel-size=$(TP)", "--max-model-len=8192"]
    assert answered(RUNNING, made_for(RUNNING, command=command, env=secret))["allowed"]
    command[3] = "--tensor-parallel-size=2"
    assert answered(RUNNING, made_for(RUNNING, command=command, envFrom=[{"configMapRef": {"name": "c"}}]))["allowed"]


@pytest.mark.parametrize(
    "command",
    [
        ["vllm", "serve", "meta-llama/Llama-3.2-1B-Instruct", "--tensor-parallel-size=8", "--max-model-len=8192"],
        ["vllm", "serve", SERVES["model"], "--tensor-parallel-size=4", "--max-model-len=8192"],
        ["vllm", "serve", SERVES["model"], "--tensor-parallel-size=8", "--max-model-len=4096"],
        ["vllm", "serve", SERVES["model"], "--tensor-parallel-size=8", "--max-model-len=8192", "--gpu-memory-utilization=0.8"],
        ["vllm", "serve", SERVES["model"], "--tensor-parallel-size=8", "--max-model-len=8192", "--kv-cache-dtype=fp8"],
        ["vllm", "serve", SERVES["model"], "--tensor-parallel-size=$(TP)", "--max-model-len=8192"],
    ],
    ids=["model", "width", "length", "fraction", "cache", "variable"],
)
def test_pods_that_run_something_else_are_not_adopted(command: list[str]) -> None:
    pod = made_for(RUNNING, command=command, env=[{"name": "TP", "value": "2"}])
    assert not answered(RUNNING, pod)["allowed"]


def test_pods_of_another_size_are_not_adopted() -> None:
    amounts = {GPU: "16"}
    pod = made_for(RUNNING, command=["/scripts/start.sh"], resources={"requests": amounts, "limits": amounts})
    assert not answered(RUNNING, pod)["allowed"]


def test_a_declaration_of_our_own_adopts_what_is_labelled_with_it() -> None:
    declared = a_body(strategy={"tensor": 8, "pipeline": 1, "data": 1})
    assert not answered(declared)["allowed"]
    assert answered(declared, made_for(RUNNING, label="llama"))["allowed"]
    assert not answered(a_body(strategy={"tensor": 7}, gpus={"perPod": 7}), made_for(RUNNING, label="llama"))["allowed"]
    going = made_for(RUNNING, label="llama", going=True)
    assert not answered(declared, going)["allowed"]
    assert answered(declared, going, gone=declared) == {"allowed": True}


def test_an_update_to_what_its_pods_run_already_is_let_in() -> None:
    """Its workload was changed before it: these very pods are Ready with what it says from now on."""
    wide = {"tensor": 8, "pipeline": 1, "data": 1}
    small = a_body(model={"name": "meta-llama/Llama-3.2-1B-Instruct"}, strategy={**wide, "tensor": 1}, gpus={"perPod": 1})
    changed = a_body(strategy=wide)
    assert "WeightsDoNotFit" in answered(changed, old=small)["status"]["message"]
    assert answered(changed, made_for(RUNNING, label="llama"), old=small)["allowed"]
    assert not answered(changed, made_for(RUNNING, label="llama", ready=False), old=small)["allowed"]
    untold = made_for(RUNNING, label="llama", command=["/scripts/start.sh"])
    assert not answered(changed, untold, old=small)["allowed"], "it may run what was declared before"
    unnamed = made_for(RUNNING, label="llama", command=["vllm", "serve", "/models/x", "--tensor-parallel-size=8"])
    assert not answered(changed, unnamed, old=small)["allowed"], "which model it runs is not known"
    of_before = made_for(a_vllm_deployment(tensor=1, gpus=8, model="meta-llama/Llama-3.2-1B-Instruct"), label="llama")
    assert not answered(changed, of_before, old=small)["allowed"]


def test_what_is_remembered_is_bounded() -> None:
    workloads = StandingWorkloads()
    for number in range(MOST_GONE + 5):
        workloads.note_gone(standing(a_vllm_deployment(f"d{number}"), f"u{number}"), 0.0)
    assert workloads.predecessor(a_vllm_deployment("d4"), 1.0) is None
    assert workloads.predecessor(a_vllm_deployment("d5"), 1.0) is not None
    workloads.note_gone(standing(a_vllm_deployment("last"), "last"), OWN_AFTER_SECONDS)
    assert workloads.predecessor(a_vllm_deployment("d5"), 1.0) is None
    assert workloads.predecessor(a_vllm_deployment("last"), OWN_AFTER_SECONDS + 1.0) is not None


def test_the_book_forgets_what_pods_ran() -> None:
    book = ClusterBook()
    item = pod_from(made_for(RUNNING))
    record = read_pod(item)
    assert record is not None
    book.put_node(node_from(a_node(labels=H100).body), 0.0)
    book.put_pod(record, runs_of(item))
    assert [each.uid for each in book.own_pods(Owner("serving", "Deployment", "llama"))] == [record.uid]
    assert book.runs(record.uid)
    book.drop_pod(record.uid)
    assert book.runs(record.uid) == ""
