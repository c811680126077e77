"""Admission of workloads of other kinds on the real API server."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from faults import fault
from foreign import DRY, POLICY, container, custom, of_each_kind, requests, templated, vllm
from live import create_node, until

from builders import a_node
from controlplane.installation import Installation
from controlplane.plane import ControlPlane

Start = Callable[..., Installation]
Json = dict[str, Any]


def test_each_kind_is_admitted_warned_and_refused(other_kinds: ControlPlane, start: Start) -> None:
    """One operator for all kinds: right ones pass in silence, wrong ones are warned about, and refused under a policy."""
    plane = other_kinds
    create_node(plane, a_node().body)
    start()
    right, wrong = of_each_kind(4, 4), of_each_kind(8, 4)
    for kind, body in right.items():
        assert (kind, plane.apply(body, options=DRY).stderr) == (kind, "")
    for kind, body in wrong.items():
        if kind in WIDTHS_NEED_NO_GPUS:
            continue
        warned = plane.apply(body, options=DRY).stderr
        assert (kind, warned.partition(":")[0], "WorldSizeMismatch" in warned) == (kind, "Warning", True)
    plane.apply(POLICY)
    for kind, body in wrong.items():
        if kind in WIDTHS_NEED_NO_GPUS:
            continue
        refused = plane.apply(body, options=DRY, check=False)
        assert (kind, refused.returncode, f"{kind} serving/llama cannot run here" in refused.stderr) == (kind, 1, True), (
            refused.stderr
        )


def of_many(kind: str, count: int) -> Json:
    """The right workload of a kind, so many times over."""
    body = of_each_kind(4, 4)[kind]
    spec: Json = body.get("spec", {})
    match kind:
        case "Job":
            spec["parallelism"] = count
        case "InferenceService":
            spec["predictor"]["minReplicas"] = count
        case "DynamoGraphDeployment":
            spec["services"]["Worker"]["replicas"] = count
        case "RayService":
            deployment = f"deployment_config: {{num_replicas: {count}}}"
            spec["serveConfigV2"] = spec["serveConfigV2"].replace("engine_kwargs", f"{deployment}\n      engine_kwargs")
        case _:
            spec["replicas"] = count
    return body


ALONE = ("Pod", "RayCluster", "Workspace")
"""There is one of each: the object says nothing of copies."""


@fault(26, what="more copies by an update of each kind's spec", criterion="the verdict of a create; fewer pass in silence")
def test_each_kind_is_scaled(other_kinds: ControlPlane, start: Start) -> None:
    """More copies than the cluster could hold are warned about; fewer pass in silence."""
    plane = other_kinds
    create_node(plane, a_node().body)
    start()
    for kind in of_each_kind(4, 4):
        if kind in ALONE:
            continue
        assert (kind, plane.apply(of_many(kind, 0)).stderr) == (kind, "")
        assert (kind, plane.apply(of_many(kind, 1), options=DRY).stderr) == (kind, "")
        assert (kind, "GpuCountTooLow" in plane.apply(of_many(kind, 5), options=DRY).stderr) == (kind, True)


CLAIM = {
    "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": "four", "namespace": "serving"},
    "spec": {"spec": {"devices": {"requests": [{"name": "gpus", "exactly": {"deviceClassName": "gpu.nvidia.com", "count": 4}}]}}},
}  # fmt: skip


def uncommon() -> dict[str, Json]:
    """Objects that ask for GPUs in ways that are easily missed; each has eight ranks on four GPUs."""
    sidecar = of_each_kind(8, 4)["Deployment"]
    inner = sidecar["spec"]["template"]["spec"]
    gpus = inner["containers"][0].pop("resources")
    inner["initContainers"] = [{"name": "holds", "image": "x", "restartPolicy": "Always", "resources": gpus}]
    claimed = of_each_kind(8, 4)["Deployment"]
    inner = claimed["spec"]["template"]["spec"]
    inner["containers"][0]["resources"] = {"claims": [{"name": "gpus"}]}
    inner["resourceClaims"] = [{"name": "gpus", "resourceClaimTemplateName": "four"}]
    older = of_each_kind(8, 4)["LLMInferenceService"]
    older["apiVersion"] = "serving.kserve.io/v1alpha1"
    return {"a sidecar's GPUs": sidecar, "devices by claims": claimed, "an older version": older}


@fault(
    27, what="GPUs of a sidecar, by a claim, of an older version; debug containers, pods/resize; 14 other kinds",
    criterion="each judged, or impossible in the API; kinds that are not read are counted",
)  # fmt: skip
def test_what_is_easily_missed_is_judged(other_kinds: ControlPlane, start: Start) -> None:
    """F27; bare Pods, Jobs and RayClusters are among the kinds above, kinds that are not read are counted in test_admission."""
    plane = other_kinds
    plane.apply(CLAIM)
    create_node(plane, a_node().body)
    installation = start()
    until(
        "the claim template is read",
        lambda: "WorldSizeMismatch" in plane.apply(uncommon()["devices by claims"], options=DRY).stderr,
    )
    for name, body in uncommon().items():
        assert (name, "WorldSizeMismatch" in plane.apply(body, options=DRY).stderr) == (name, True)
    plane.apply(of_each_kind(4, 4)["Pod"])
    before = requests(installation)
    debug = plane.kubectl(
        "patch", "pod", "llama", "-n", "serving", "--subresource=ephemeralcontainers", "-p",
        json.dumps({"spec": {"ephemeralContainers": [{"name": "d", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]}}),
        check=False,
    )  # fmt: skip
    assert "must not be set" in debug.stderr.lower() or "forbidden" in debug.stderr.lower(), "the API has none with resources"
    resized = plane.kubectl(
        "patch", "pod", "llama", "-n", "serving", "--subresource=resize", "-p",
        json.dumps({"spec": {"containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "8"}}}]}}), check=False,
    )  # fmt: skip
    assert resized.returncode == 1, "the API resizes no GPUs"
    assert requests(installation) == before
    plane.kubectl("delete", "resourceclaimtemplate", "four", "-n", "serving")


WIDTHS_NEED_NO_GPUS = frozenset({"RayService"})
"""Its pods are as many as the width needs: a wider one needs more of them."""


def test_what_asks_for_no_gpus_never_reaches_us(other_kinds: ControlPlane, start: Start) -> None:
    plane = other_kinds
    installation = start()
    plain = templated("apps/v1", "Deployment", ["nginx"], 1)
    del plain["spec"]["template"]["spec"]["containers"][0]["resources"]
    before = requests(installation)
    for number in range(20):
        body = copy.deepcopy(plain)
        body["metadata"]["name"] = f"web-{number}"
        plane.apply(body, options=DRY)
    plane.apply(plain)
    plane.kubectl("patch", "deployment", "llama", "-n", "serving", "--type=merge", "-p", '{"metadata": {"labels": {"a": "b"}}}')
    assert requests(installation) == before
    create_node(plane, a_node().body)
    plane.apply(of_each_kind(4, 4)["Deployment"])
    until("its pods are bound", lambda: len(plane.get("pods", "-n", "serving", "-l", "app=llama")["items"]) > 0)
    assert requests(installation) == before + 1, "what the cluster's controllers make of it does not reach us"
    forged = {**of_each_kind(8, 4)["Pod"]}
    forged["metadata"] = {
        **forged["metadata"],
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "1", "controller": True}],
    }
    assert "WorldSizeMismatch" in plane.apply(forged, options=DRY).stderr, "an owner that a person names hides nothing"


@pytest.mark.parametrize("kind", ["Deployment", "LeaderWorkerSet"])
def test_an_unchanged_reapply_is_silent_and_updates_answer_for_what_they_bring(
    other_kinds: ControlPlane, start: Start, kind: str
) -> None:
    plane = other_kinds
    create_node(plane, a_node(gpus=4).body)
    start()
    wrong = of_each_kind(8, 4)[kind]
    wrong["spec"]["replicas"] = 0
    assert "WorldSizeMismatch" in plane.apply(wrong).stderr
    assert plane.apply(wrong).stderr == ""
    plane.apply(POLICY)
    labelled = copy.deepcopy(wrong)
    labelled["metadata"]["labels"] = {"team": "a"}
    assert plane.apply(labelled).stderr == ""  # what stood there already refuses no update
    scaled = json.loads(plane.kubectl("get", kind.lower(), "llama", "-n", "serving", "-o", "json").stdout)
    assert scaled["metadata"]["labels"] == {"team": "a"}
    plane.kubectl("delete", kind.lower(), "llama", "-n", "serving")


RUNTIME = {
    "apiVersion": "serving.kserve.io/v1alpha1", "kind": "ClusterServingRuntime", "metadata": {"name": "rt"},
    "spec": {"supportedModelFormats": [{"name": "vLLM", "autoSelect": True}], "containers": [{**container(vllm(8), 4), "name": "kserve-container"}]},
}  # fmt: skip


def test_a_runtime_that_is_in_the_cluster_is_read(other_kinds: ControlPlane, referred_to: ControlPlane, start: Start) -> None:
    plane = other_kinds
    create_node(plane, a_node().body)
    service = custom(
        "serving.kserve.io/v1beta1", "InferenceService", spec={"predictor": {"model": {"modelFormat": {"name": "vLLM"}}}}
    )
    plane.apply(RUNTIME)
    start()
    assert "WorldSizeMismatch" in plane.apply(service, options=DRY).stderr
    plane.kubectl("delete", "clusterservingruntime", "rt")
    until("it is gone", lambda: plane.apply(service, options=DRY).stderr == "")
