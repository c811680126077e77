"""Workloads that stand: whose they are, who names them, how they are scaled."""

import asyncio
import copy
from pathlib import Path
from typing import Any

import pytest

from builders import a_body, a_book, a_node, a_vllm_deployment, standing
from shardgate.adapters.policies import read_policy
from shardgate.adapters.standing_workloads import OWN_AFTER_SECONDS, StandingWorkloads, key_of, referred_to
from shardgate.domain.inventory import Owner
from shardgate.shells import webhook
from shardgate.shells.cluster import ApiError
from shardgate.shells.config import OperatorConfig
from shardgate.shells.judge import Judge
from shardgate.shells.metrics import Metrics
from shardgate.shells.webhook import Admission, Refusal

Json = dict[str, Any]


def owned(body: Json, owner: Json, *, uid: str = "") -> Json:
    reference = {
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": uid or owner["metadata"]["uid"], "controller": True,
    }  # fmt: skip
    return {**body, "metadata": {**body["metadata"], "ownerReferences": [reference]}}


SERVICE = standing(
    {
        "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
        "metadata": {"name": "isvc", "namespace": "serving"},
        "spec": {"predictor": {"containers": a_vllm_deployment()["spec"]["template"]["spec"]["containers"]}},
    },
    "service",
)  # fmt: skip
GRAPH = standing(
    {
        "apiVersion": "nvidia.com/v1alpha1", "kind": "DynamoGraphDeployment", "metadata": {"name": "graph", "namespace": "serving"},
        "spec": {"services": {"Worker": {
            "componentType": "worker", "resources": {"limits": {"gpu": "4"}},
            "extraPodSpec": {"mainContainer": {"image": "x", "command": ["python3", "-m", "dynamo.vllm", "--model", "Qwen/Qwen3-32B"]}},
        }}},
    },
    "graph",
)  # fmt: skip
COMPONENT = {"apiVersion": "nvidia.com/v1alpha1", "kind": "DynamoComponentDeployment", "metadata": {"name": "c", "uid": "z"}}
IDLE = standing(
    {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "idle", "namespace": "serving"}, "spec": {}},
    "idle",
)  # fmt: skip
ELSEWHERE = {**SERVICE, "metadata": {**SERVICE["metadata"], "namespace": "other", "uid": "elsewhere"}}


class Claimed:
    """A ledger with a claim of one object."""

    def has_claim_of(self, *owner: str) -> bool:
        return owner == ("service", "InferenceService", "serving", "isvc")


def admission(
    *stands: Json, ledger: Any = None, read: Any = None, is_behind: Any = lambda _kind, _version: False, **spec: Any
) -> Admission:
    workloads = StandingWorkloads()
    for each in stands:
        workloads.put(each)
    judge = Judge(a_book(a_node()), lambda: (0.0, 0.0), workloads)
    policy = {"mode": "Enforce", "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "serving"}}, **spec}
    judge.book.rules.put_namespace("serving", {"kubernetes.io/metadata.name": "serving"})
    judge.book.rules.put_policy(read_policy({"metadata": {"name": "strict"}, "spec": policy}))
    return Admission(judge, OperatorConfig(tls_cert=Path("c"), tls_key=Path("k")), Metrics(), ledger, read, is_behind=is_behind)


def answered(subject: Admission, request: Json) -> Json:
    return asyncio.run(subject.answer(request))


def review(body: Json, *, user: str = "jane", resource: str = "deployments", **more: Any) -> Json:
    return {
        "uid": "r", "operation": "CREATE", "userInfo": {"username": user}, "object": body, "name": body["metadata"]["name"],
        "namespace": "serving", "resource": {"group": "apps", "version": "v1", "resource": resource}, **more,
    }  # fmt: skip


WRONG = a_vllm_deployment(gpus=4)
CONTROLLER = "system:serviceaccount:kserve:controller"


@pytest.mark.parametrize(
    ("body", "user", "allowed"),
    [
        (WRONG, "jane", False),
        (owned(WRONG, SERVICE), CONTROLLER, True),
        (owned(WRONG, SERVICE), "jane", False),
        (owned(WRONG, SERVICE), "system:serviceaccount:serving:ci", False),
        (owned(WRONG, SERVICE, uid="another"), CONTROLLER, False),
        (owned(WRONG, IDLE), CONTROLLER, False),
        (owned(WRONG, ELSEWHERE), CONTROLLER, False),
        (owned(WRONG, standing(a_vllm_deployment("right"), "right")), CONTROLLER, False),
        (owned(WRONG, {**SERVICE, "kind": "Unheard", "apiVersion": "x/v1"}, uid="z"), CONTROLLER, False),
        (owned(WRONG, COMPONENT), CONTROLLER, True),
    ],
    ids=[
        "a person's own", "an owner that stands", "a person names an owner", "so does an account beside it", "another uid",
        "an owner that is not judged", "of another namespace", "that makes no such object", "of a kind that is not judged", "between",
    ],
)  # fmt: skip
def test_an_owner_counts_if_it_stands_and_a_controller_asks(body: Json, user: str, allowed: bool) -> None:
    answer = answered(
        admission(SERVICE, GRAPH, IDLE, ELSEWHERE, standing(a_vllm_deployment("right"), "right")), review(body, user=user)
    )
    assert answer["allowed"] is allowed
    assert ("status" in answer) is not allowed


@pytest.mark.parametrize(
    ("body", "user", "allowed"),
    [
        (owned(WRONG, SERVICE), CONTROLLER, True),
        (owned(WRONG, SERVICE), "jane", False),
        (owned(WRONG, SERVICE, uid="another"), CONTROLLER, False),
        (owned(WRONG, {**SERVICE, "kind": "NIMCache"}), CONTROLLER, False),
    ],
)
def test_an_owner_that_was_let_in_a_moment_ago_counts_by_its_claim(body: Json, user: str, allowed: bool) -> None:
    assert answered(admission(ledger=Claimed()), review(body, user=user))["allowed"] is allowed
    assert not answered(admission(), review(body, user=user))["allowed"]


def scale(replicas: int, before: int, **more: Any) -> Json:
    made = {"metadata": {"name": "llama", "namespace": "serving"}, "spec": {"replicas": replicas}}
    old = {**made, "spec": {"replicas": before} if before else {}}
    return review(made, operation="UPDATE", oldObject=old, subResource="scale", **more)


def test_a_scale_is_judged_as_the_workload_that_it_makes() -> None:
    subject = admission(standing(a_vllm_deployment()))
    assert "warnings" not in answered(subject, scale(1, 0))
    warned = answered(subject, scale(2, 1))
    assert warned["allowed"]
    assert "GpuCountTooLow" in warned["warnings"][0]
    assert answered(subject, scale(1, 2)) == {"allowed": True}


def reading(*stands: Json) -> Any:
    """An API server with these Deployments."""

    async def read(path: str) -> Json:
        of = "/apis/apps/v1/namespaces/serving/deployments?fieldSelector=metadata.name%3D"
        found = {f"{of}{each['metadata']['name']}": each for each in stands}
        if path not in found:
            raise ApiError(403, "Forbidden", path)
        return {"items": [{name: value for name, value in found[path].items() if name not in ("apiVersion", "kind")}]}

    return read


def test_a_scale_of_what_is_not_followed_closely_is_judged_by_what_stands() -> None:
    now = standing(a_vllm_deployment())
    then = copy.deepcopy(now)
    then["spec"]["template"]["spec"]["containers"][0]["resources"] = {}
    for seen in ((), (then,)):
        behind = admission(*seen, read=reading(now), is_behind=lambda kind, _: kind.kind == "Deployment")
        assert "GpuCountTooLow" in answered(behind, scale(2, 1))["warnings"][0]
        assert "warnings" not in answered(admission(*seen, read=reading(now)), scale(2, 1))


def test_a_scale_of_a_later_version_than_was_seen_is_judged_by_what_stands() -> None:
    now = standing(a_vllm_deployment())
    request = scale(2, 1)
    request["oldObject"]["metadata"] = {**request["oldObject"]["metadata"], "resourceVersion": "12"}
    asked: list[str] = []

    def is_behind(_: Any, version: str) -> bool:
        asked.append(version)
        return version == "12"

    assert "GpuCountTooLow" in answered(admission(read=reading(now), is_behind=is_behind), request)["warnings"][0]
    assert asked == ["12"]


@pytest.mark.parametrize(("owner", "is_judged"), [(None, True), ("ConfigMap", True), ("Deployment", False)])
def test_an_owner_that_is_not_judged_hides_no_scale_of_a_replica_set(owner: str | None, is_judged: bool) -> None:
    deployment = standing(a_vllm_deployment())
    found = {**a_vllm_deployment("rs"), "kind": "ReplicaSet"}
    if owner is not None:
        found = owned(found, {**deployment, "kind": owner, "apiVersion": "apps/v1" if owner == "Deployment" else "v1"})

    async def read(_: str) -> Json:
        return {name: value for name, value in found.items() if name not in ("apiVersion", "kind")}

    answer = answered(admission(deployment, read=read), scale(2, 1, resource="replicasets"))
    assert ("warnings" in answer) is is_judged


def test_a_scale_that_cannot_be_read_goes_by_what_was_seen_last_and_else_is_counted() -> None:
    known = admission(standing(a_vllm_deployment()), read=reading(), is_behind=lambda _kind, _version: True)
    assert "GpuCountTooLow" in answered(known, scale(2, 1))["warnings"][0]
    unknown = admission(read=reading(), is_behind=lambda _kind, _version: True)
    assert answered(unknown, scale(2, 1)) == {"allowed": True}
    assert counted(unknown) == {("Deployment", "SCALE", "", "unread", "false"): 1}


def test_a_scale_does_not_wait_for_an_api_server_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "LOOK_SECONDS", 0.01)

    async def read(_: str) -> Json:
        await asyncio.sleep(30)
        raise AssertionError

    slow = admission(standing(a_vllm_deployment()), read=read, is_behind=lambda _kind, _version: True)
    assert "GpuCountTooLow" in answered(slow, scale(2, 1))["warnings"][0]


def test_a_scale_down_is_never_refused() -> None:
    body = standing(a_vllm_deployment(replicas=2))
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}, "matchLabelKeys": ["pod-template-hash"]}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    body["spec"]["template"]["spec"]["affinity"] = affinity
    subject = admission(body, refuse={"undecided": True})
    less = {**body, "spec": {**body["spec"], "replicas": 1}}
    assert (
        "ConstraintNotModelled"
        in answered(subject, review({**less, "metadata": {**body["metadata"], "name": "new"}}))["status"]["message"]
    )
    assert answered(subject, scale(1, 2))["allowed"]
    assert answered(subject, review(less, operation="UPDATE", oldObject=body))["allowed"]


def test_nor_is_one_whose_size_of_pods_was_left_to_us() -> None:
    """The size that was chosen is kept in the status until the spec changes, and its replicas are a part of that."""
    slow = {
        "engine": {"version": "0.19.0", "maxModelLen": 8192}, "gpus": {"perPod": None}, "objectives": {"requestsPerSecond": 10},
        "traffic": {"promptTokens": 1024, "outputTokens": 512, "concurrency": 256},
    }  # fmt: skip
    status = {"observedGeneration": 1, "required": {"gpus": 16, "pods": 2, "gpusPerReplica": 8}}
    before = {**standing(a_body(**slow, replicas=2)), "status": status}
    subject = admission(codes={"ThroughputTooLow": "Refuse"})
    own = {"resource": {"group": "shardgate.io", "version": "v1alpha1", "resource": "inferencedeployments"}}
    less = {**before, "spec": {**before["spec"], "replicas": 1}}
    assert "ThroughputTooLow" in answered(subject, {**review(less), **own})["status"]["message"]
    assert answered(subject, {**review(less, operation="UPDATE", oldObject=before), **own})["allowed"]


def test_a_scale_of_what_is_not_ours_is_let_in_and_an_owner_hides_none() -> None:
    subject = admission(standing(owned(a_vllm_deployment(), SERVICE)), SERVICE)
    for resource in ("statefulsets", "unheardofs"):
        assert answered(subject, scale(9, 0, resource={"group": "apps", "version": "v1", "resource": resource})) == {
            "allowed": True
        }
    assert "GpuCountTooLow" in answered(subject, scale(9, 0))["warnings"][0]


def counted(subject: Admission) -> dict[tuple[str, ...], float]:
    """(kind, operation, outcome, answer, whether a dry run) -> how many requests, where there was one."""
    return {
        tuple(sample.labels.values()): sample.value
        for metric in subject._metrics.registry.collect()
        if metric.name == "shardgate_admission_requests"
        for sample in metric.samples
        if sample.value
    }


def test_a_kind_that_is_not_read_is_let_in_and_counted() -> None:
    subject = admission()
    for more in ({}, {"dryRun": True}, {"dryRun": True}):
        assert answered(subject, review(WRONG, resource="daemonsets", **more))["allowed"]
    assert counted(subject) == {
        ("other", "CREATE", "", "unsupported", "false"): 1,
        ("other", "CREATE", "", "unsupported", "true"): 2,
    }


def test_dry_runs_are_judged_alike_and_counted_apart() -> None:
    subject = admission()
    for more in ({}, {"dryRun": True}, {"dryRun": True}, {"dryRun": False}, {"dryRun": None}, {"dryRun": True}, {"dryRun": True}):
        assert not answered(subject, review(WRONG, **more))["allowed"]
    exempt = {**WRONG, "kind": "Deployment", "metadata": {**WRONG["metadata"], "namespace": "kube-system"}}
    assert answered(subject, review(exempt, dryRun=True))["allowed"]
    assert counted(subject) == {
        ("Deployment", "CREATE", "Unsound", "refused", "false"): 3,
        ("Deployment", "CREATE", "Unsound", "refused", "true"): 4,
        ("Deployment", "", "", "exempt", "true"): 1,
    }


def test_one_that_came_again_under_its_name_is_another() -> None:
    workloads = StandingWorkloads()
    first, second = standing(a_vllm_deployment(), "1"), standing(a_vllm_deployment(tensor=4), "2")
    workloads.put(first)
    workloads.put(second)
    workloads.drop("1")
    assert workloads.named("apps", "Deployment", "serving", "llama") is second
    workloads.drop("2")
    assert workloads.named("apps", "Deployment", "serving", "llama") is None


def test_what_was_made_anew_while_nobody_looked_is_no_ghost() -> None:
    workloads = StandingWorkloads()
    workloads.put(standing(a_vllm_deployment(), "1"))
    workloads.put(standing(a_vllm_deployment(), "2"))
    assert list(workloads.all_uids()) == workloads.uids("apps", "Deployment") == ["2"]


def test_pods_of_what_was_made_for_it_are_its_own() -> None:
    workloads = StandingWorkloads()
    workloads.put(SERVICE)
    made = standing(owned(a_vllm_deployment("made"), SERVICE), "made")
    workloads.put(made)
    assert workloads.owners_made_for("service") == (Owner("serving", "Deployment", "made"),)
    workloads.put({**made, "metadata": {**made["metadata"], "ownerReferences": []}})
    assert workloads.owners_made_for("service") == ()


def test_a_job_that_has_ended_is_judged_no_more() -> None:
    body = a_vllm_deployment()
    job = standing({**body, "apiVersion": "batch/v1", "kind": "Job"})
    judge = admission(job)._judge
    assert judge.judge_workload(job) is not None
    ended = {**job, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    assert judge.workloads.put(ended)
    assert judge.judge_workload(ended) is None


def test_a_status_alone_is_no_change() -> None:
    workloads = StandingWorkloads()
    body = standing(a_vllm_deployment())
    assert workloads.put(body)
    assert not workloads.put({**body, "status": {"replicas": 1}})
    assert workloads.put(standing(a_vllm_deployment(tensor=4)))


def test_a_declaration_is_judged_in_the_stead_of_the_workload_that_it_names() -> None:
    body = standing(a_vllm_deployment())
    workloads = StandingWorkloads()
    workloads.put(body)
    mine = a_body("mine", workloadRef={"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"})
    assert referred_to(mine) == key_of(body)
    before = workloads.referrals
    workloads.name("d", referred_to(mine))
    assert not workloads.is_taken_over(body)
    workloads.take_over("d", is_so=True)
    assert workloads.is_taken_over(body)
    assert workloads.referrals > before
    before = workloads.referrals
    workloads.put(standing(a_vllm_deployment(tensor=4)))
    assert workloads.referrals > before
    workloads.name("d", None)
    assert not workloads.is_taken_over(body)


def test_an_internal_error_is_no_answer() -> None:
    subject = admission()
    subject._judge = None  # type: ignore[assignment]
    with pytest.raises(Exception) as raised:  # noqa: PT011  # what it is named is the point
        answered(subject, review(WRONG))
    assert not isinstance(raised.value, Refusal)


def test_pods_of_what_was_made_for_an_object_are_those_of_one_made_anew_in_its_place_for_ten_minutes() -> None:
    workloads = StandingWorkloads()
    workloads.put(SERVICE)
    workloads.put(owned(standing(a_vllm_deployment("made"), "made"), SERVICE))
    anew = {**SERVICE, "metadata": {**SERVICE["metadata"], "uid": "anew"}}
    workloads.drop("service", 100.0)
    assert workloads.owners_left_by(anew, 100.0 + OWN_AFTER_SECONDS - 1) == (Owner("serving", "Deployment", "made"),)
    assert workloads.owners_left_by(anew, 100.0 + OWN_AFTER_SECONDS) == ()
    assert workloads.owners_left_by(ELSEWHERE, 101.0) == ()


def test_of_what_was_made_anew_while_nobody_looked_the_old_pods_are_known_too() -> None:
    workloads = StandingWorkloads()
    workloads.put(SERVICE)
    workloads.put(owned(standing(a_vllm_deployment("made"), "made"), SERVICE))
    anew = {**SERVICE, "metadata": {**SERVICE["metadata"], "uid": "anew"}}
    workloads.put(anew, 100.0)
    assert workloads.owners_left_by(anew, 101.0) == (Owner("serving", "Deployment", "made"),)


def test_what_was_left_is_forgotten() -> None:
    workloads = StandingWorkloads()
    for number in range(3):
        service = {**SERVICE, "metadata": {**SERVICE["metadata"], "name": f"s{number}", "uid": f"s{number}"}}
        workloads.put(service)
        workloads.put(owned(standing(a_vllm_deployment("made"), f"made-{number}"), service))
        workloads.drop(f"s{number}", number * OWN_AFTER_SECONDS)
    assert len(workloads._left) == 1


@pytest.mark.parametrize("named", [{}, {"spec": {}}, {"spec": {"template": None}}])
def test_a_rollout_that_names_an_object_without_a_template_has_its_own(named: Json) -> None:
    """A Workspace has no spec at all."""
    workspace = standing(
        {"apiVersion": "kaito.sh/v1beta1", "kind": "Workspace", "metadata": {"name": "w", "namespace": "serving"}, **named}
    )
    rollout = {**a_vllm_deployment(), "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout"}
    rollout["spec"]["workloadRef"] = {"apiVersion": "kaito.sh/v1beta1", "kind": "Workspace", "name": "w"}
    subject = admission(workspace)
    assert answered(
        subject,
        review(rollout, resource="rollouts")
        | {"resource": {"group": "argoproj.io", "version": "v1alpha1", "resource": "rollouts"}},
    )["allowed"]
    assert subject._judge.asked_by(standing(rollout, "rollout")) == (("nvidia.com/gpu", 8),)
