"""The life of a cluster: what nodes, pods and objects go through, none of which may cost anyone a refusal or a night.

Each test is one row of it. What ends after minutes or a day is a test with a clock of its own (``test_cluster_book``).
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from faults import Measured, fault
from foreign import container, custom, vllm
from life import CLOSED, FOREIGN, OPEN, TIMEOUT, Life, foreign, policies, verdict
from live import create_node, patch_status, status, until, wait_for_outcome
from pager import SETTLE_SECONDS, Pager

from builders import a_body, a_node, a_pod
from controlplane.installation import Installation
from controlplane.plane import ControlPlane

Start = Callable[..., Installation]
Json = dict[str, Any]
DOWN = "ShardgateDeclarationDown"
ASKING = "creates through the webhook (failurePolicy Fail): own kind by default, Deployments by Enforce, Open and Closed"
CRITERION = "0 refused, 0 pages; at worst Waiting, and the message says why; Sound again by itself"
NOT_READY = {"conditions": [{"type": "Ready", "status": "False"}]}
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


@pytest.fixture
def quiet(clean: ControlPlane, start: Start, measured: Measured) -> Iterator[Start]:
    """Starts an operator, beside which no alert may so much as begin to wake somebody, to the end of the test."""
    with ExitStack() as stack:
        pagers: list[Pager] = []

        def begin(**how: Any) -> Installation:
            installation = start(**how)
            pagers.append(stack.enter_context(Pager(clean, installation)))
            return installation

        yield begin
        assert [each.told() for each in pagers] == [{}]
        measured("0 pages")


@fault(53, what="device plugin, GPU operator or kubelet restarts on every node", load=ASKING, criterion=CRITERION)
def test_a_restart_of_what_offers_gpus(clean: ControlPlane, quiet: Start, measured: Measured) -> None:
    with Life(clean) as life:
        life.stand(quiet(failure_policy="Fail"))
        for capacity in (8, 0):
            life.amounts(0, capacity)
            life.until("Waiting", "16 GPUs on nodes in transition")
            life.settle()
            life.amounts(8)
            life.until("Sound")
        life.patch({**NOT_READY, "allocatable": {"nvidia.com/gpu": "0"}})
        life.until("Waiting", "16 GPUs on nodes in transition")
        life.amounts(8)
        life.newcomer("16 GPUs on nodes not ready")
        life.patch(READY)
        life.until("Sound")
    measured(life.told())


@fault(54, what="one GPU of each node fails (allocatable 7, capacity 8)", load=ASKING, criterion=CRITERION)
def test_a_gpu_that_fails(clean: ControlPlane, quiet: Start, measured: Measured) -> None:
    with Life(clean) as life:
        life.stand(quiet(failure_policy="Fail"))
        life.amounts(7)
        life.until("Waiting", "14 of 16 are available now (2 GPUs not healthy)")
        assert status(clean, "llama", "serving")["findings"][0]["code"] == "NodesUnavailable"
        life.settle()
        life.amounts(8)
        life.until("Sound")
    measured(life.told())


@fault(
    55, what="all GPU labels vanish (GPU Feature Discovery is replaced)", load=ASKING,
    criterion="0 refused, 0 pages; Sound by remembered labels, marked so; no mark once they are back",
)  # fmt: skip
def test_labels_that_vanish(clean: ControlPlane, quiet: Start, measured: Measured) -> None:
    mark, plain = "8 x H100-80GB-HBM3 (remembered labels)", "8 x H100-80GB-HBM3, "
    own = ("infd", "llama", "-n", "serving")

    def anew() -> str:
        """What is said of one that is made now: a standing one's status is not written for this alone."""
        clean.kubectl("delete", *own)
        clean.apply(a_body())
        return str(wait_for_outcome(clean, "llama", "serving", "Sound")["summary"])

    with Life(clean) as life:
        life.stand(quiet(failure_policy="Fail"))
        labels = [key for key in life.nodes[0]["metadata"]["labels"] if key.startswith("nvidia.com/")]
        clean.kubectl("label", "nodes", "--all", *(f"{key}-" for key in labels))
        until("it is marked", lambda: mark in anew(), TIMEOUT)
        life.settle()
        life.until("Sound")
        clean.kubectl("label", "nodes", "--all", *(f"{key}={life.nodes[0]['metadata']['labels'][key]}" for key in labels))
        until("the mark is gone", lambda: plain in anew(), TIMEOUT)
        life.until("Sound")
    measured(life.told())


@fault(56, what="driver upgrade, then MIG change, on every node (by the GPU operator's labels)", load=ASKING, criterion=CRITERION)
def test_a_driver_upgrade_and_a_mig_change(clean: ControlPlane, quiet: Start, measured: Measured) -> None:
    upgrade, mig = "nvidia.com/gpu-driver-upgrade-state", "nvidia.com/mig.config.state"
    with Life(clean) as life:
        life.stand(quiet(failure_policy="Fail"))
        for key, steps, done in (
            (upgrade, ("cordon-required", "drain-required", "pod-restart-required", "validation-required"), "upgrade-done"),
            (mig, ("pending", "rebooting"), "success"),
        ):
            for step in steps:
                clean.kubectl("label", "nodes", "--all", "--overwrite", f"{key}={step}")
                life.until("Waiting", "16 GPUs on nodes in transition")
                life.newcomer("16 GPUs on nodes in transition")
            life.amounts(0, 0)
            life.settle()
            life.newcomer("16 GPUs on nodes in transition")
            life.amounts(8)
            clean.kubectl("label", "nodes", "--all", "--overwrite", f"{key}={done}")
            life.until("Sound")
    measured(life.told())


def new(body: Json) -> Json:
    """A node as it joins: its cloud's labels, a start-up taint, and no device plugin yet."""
    body["metadata"]["labels"] = {
        "kubernetes.io/hostname": body["metadata"]["name"],
        "node.kubernetes.io/instance-type": "p5.48xlarge",
    }
    body["spec"]["taints"] = [{"key": "node.cilium.io/agent-not-ready", "effect": "NoSchedule"}]
    for amounts in ("allocatable", "capacity"):
        del body["status"][amounts]["nvidia.com/gpu"]
    return body


@fault(57, what="cordon, NotReady, spot loss, then new nodes with a start-up taint and no device plugin yet", load=ASKING,
       criterion=CRITERION + "; a pod that tolerates the cordon is Sound")  # fmt: skip
def test_nodes_come_and_go(clean: ControlPlane, quiet: Start, measured: Measured) -> None:
    tolerant = a_body("tolerant", placement={"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]})
    with Life(clean) as life:
        life.stand(quiet(failure_policy="Fail"))
        for body in life.nodes:
            clean.kubectl("cordon", body["metadata"]["name"])
        life.until("Waiting", "16 GPUs on nodes cordoned")
        clean.apply(tolerant)
        wait_for_outcome(clean, "tolerant", "serving", "Sound")
        clean.kubectl("delete", "infd", "tolerant", "-n", "serving")
        for body in life.nodes:
            clean.kubectl("uncordon", body["metadata"]["name"])
        life.until("Sound")
        life.patch(NOT_READY)
        life.until("Waiting", "16 GPUs on nodes not ready")
        life.patch(READY)
        life.until("Sound")
        life.remove_nodes()
        life.until("Waiting", "16 GPUs on nodes gone")
        life.settle()
        life.add_nodes(new)
        life.newcomer("16 GPUs on nodes in transition")
        life.settle()
        life.amounts(8)
        life.newcomer("16 GPUs on nodes tainted node.cilium.io/agent-not-ready for now")
        life.patch(spec={"taints": None})
        life.until("Sound")
    measured(life.told())


@fault(57, what="the first nodes of a cluster join: a start-up taint, and no device plugin yet", load=ASKING, criterion=CRITERION)
def test_the_first_nodes_join(clean: ControlPlane, quiet: Start, measured: Measured) -> None:
    """Nothing is remembered of them: what their cloud sold with them is all that tells of GPUs."""
    nodes = [a_node(name) for name in ("node-a", "node-b")]
    for each in nodes:
        new(each.body)
    with Life(clean, nodes) as life:
        life.stand(quiet(failure_policy="Fail"), "Waiting", "16 GPUs on nodes in transition")
        life.settle()
        life.amounts(8)
        life.patch(spec={"taints": None})
        life.until("Sound")
    measured(life.told())


def bound(name: str, node: str, **more: Any) -> Json:
    """A pod that holds a node's GPUs."""
    pod = a_pod(name, node=node, gpus=8, **more)
    pod["metadata"].pop("uid")
    pod.pop("status")
    return pod


@fault(58, what="pods that hold all GPUs are terminating", load=ASKING, criterion=CRITERION)
def test_pods_that_are_terminating(clean: ControlPlane, quiet: Start, measured: Measured) -> None:
    with Life(clean) as life:
        names = [body["metadata"]["name"] for body in life.nodes]
        clean.apply(*(bound(f"holds-{name}", name) for name in names))
        life.stand(quiet(failure_policy="Fail"), "Waiting", "0 of 16 are free; ")
        pods = [f"holds-{name}" for name in names]
        clean.kubectl("delete", "pod", "-n", "serving", "--wait=false", *pods)  # no kubelet ends them
        clean.apply(a_body("second"))
        second = wait_for_outcome(clean, "second", "serving", "Waiting")
        assert "16 held by pods that are terminating" in second["findings"][0]["message"]
        clean.kubectl("delete", "infd", "second", "-n", "serving")
        life.settle()
        clean.kubectl("delete", "pod", "-n", "serving", "--grace-period=0", "--force", *pods)
        life.until("Sound")
    measured(life.told())


class Running:
    """A model whose pod is ready on ``node-a``, while another one holds all of ``node-b``: it cannot go elsewhere."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.nodes = [a_node(name).body for name in ("node-a", "node-b")]
        for body in self.nodes:
            create_node(plane, body)
        plane.apply(bound("elsewhere", "node-b"), a_body())
        self.runs()

    def runs(self) -> None:
        """Its pod is there, and ready."""
        self.plane.apply(bound("own", "node-a", declaration="llama"))
        self.ready(is_ready=True)

    def ready(self, *, is_ready: bool) -> None:
        condition = {"type": "Ready", "status": str(is_ready)}
        shown = json.dumps({"status": {"phase": "Running", "conditions": [condition]}})
        self.plane.kubectl("patch", "pod", "own", "-n", "serving", "--subresource=status", "--type=merge", "-p", shown)

    def is_evicted(self) -> None:
        """Its pod goes, and the one that is made for it finds no place."""
        self.plane.kubectl("delete", "pod", "own", "-n", "serving", "--grace-period=0", "--force")
        pending = bound("own", "", declaration="llama")
        self.plane.apply(pending)

    def returns(self) -> None:
        self.plane.kubectl("delete", "pod", "own", "-n", "serving", "--grace-period=0", "--force")
        self.runs()
        wait_for_outcome(self.plane, "llama", "serving", "Sound", TIMEOUT)

    def waits(self) -> None:
        wait_for_outcome(self.plane, "llama", "serving", "Waiting", TIMEOUT)

    def label(self, *labels: str) -> None:
        self.plane.kubectl("label", "node", "node-a", "--overwrite", *labels)


@fault(
    53, 54, 55, 56, 57, load="a model runs on the node that all of it happens to; the other node is full",
    what="restart of the device plugin and of the kubelet, a GPU that fails, labels that vanish, a driver upgrade, spot loss, a new node; drain",
    criterion="no page begins for any of it but the drain of the only node that could run it: that one counts its ten minutes, and ends at once",
)  # fmt: skip
def test_what_wakes_nobody_and_what_would(clean: ControlPlane, start: Start, measured: Measured) -> None:
    model, amount = Running(clean), "nvidia.com/gpu"
    labels = [key for key in model.nodes[0]["metadata"]["labels"] if key.startswith("nvidia.com/")]
    installation = start(failure_policy="Fail")
    wait_for_outcome(clean, "llama", "serving", "Sound", TIMEOUT)
    with Pager(clean, installation) as pager:
        for capacity in ("8", "0"):  # the device plugin restarts
            patch_status(clean, "node-a", {"allocatable": {amount: "0"}, "capacity": {amount: capacity}})
            model.waits()
            time.sleep(SETTLE_SECONDS)
        patch_status(clean, "node-a", {**NOT_READY, "allocatable": {amount: "0"}})  # so does the kubelet
        model.ready(is_ready=False)
        time.sleep(SETTLE_SECONDS)
        patch_status(clean, "node-a", {**READY, "allocatable": {amount: "8"}, "capacity": {amount: "8"}})
        model.ready(is_ready=True)
        wait_for_outcome(clean, "llama", "serving", "Sound", TIMEOUT)
        patch_status(clean, "node-a", {"allocatable": {amount: "7"}})  # a GPU fails beside those that serve
        model.waits()
        time.sleep(SETTLE_SECONDS)
        patch_status(clean, "node-a", {"allocatable": {amount: "8"}})
        model.label(*(f"{key}-" for key in labels))
        model.is_evicted()
        time.sleep(SETTLE_SECONDS)
        model.returns()
        model.label(*(f"{key}={model.nodes[0]['metadata']['labels'][key]}" for key in labels))
        model.label("nvidia.com/gpu-driver-upgrade-state=drain-required")
        model.is_evicted()
        model.waits()
        time.sleep(SETTLE_SECONDS)
        model.label("nvidia.com/gpu-driver-upgrade-state=upgrade-done")
        model.returns()
        clean.kubectl("delete", "node", "node-a")  # a spot instance is taken
        model.is_evicted()
        model.waits()
        time.sleep(SETTLE_SECONDS)
        create_node(clean, new(a_node().body))  # and its successor joins
        model.waits()
        time.sleep(SETTLE_SECONDS)
        clean.kubectl("delete", "node", "node-a")
        create_node(clean, model.nodes[0])
        model.returns()
        assert pager.told() == {}

        clean.kubectl("cordon", "node-a")
        model.is_evicted()
        until("its ten minutes begin", lambda: pager.tells(DOWN) == "pending", TIMEOUT)
        clean.kubectl("uncordon", "node-a")
        over = until("they are over", lambda: pager.tells(DOWN) == "", TIMEOUT)
        assert pager.told() == {DOWN: "pending"}
    measured(f"nothing began before the drain; what began with it was over {over:.1f} s after its end")


def pods_of(plane: ControlPlane, namespace: str) -> list[Json]:
    return list(plane.get("pods", "-n", namespace)["items"])


def all_bound(plane: ControlPlane, namespace: str) -> bool:
    found = pods_of(plane, namespace)
    return bool(found) and all(pod["spec"].get("nodeName") for pod in found)


def service() -> Json:
    """An object whose controller makes a Deployment of another name for it."""
    body = custom("serving.kserve.io/v1beta1", "InferenceService", spec={"predictor": {"containers": [container(vllm(8), 8)]}})
    body["metadata"]["namespace"] = CLOSED
    return body


AS_CONTROLLER = ("--as=system:serviceaccount:kserve:kserve-controller-manager", "--as-group=system:masters")


def made_for(plane: ControlPlane) -> Json:
    """That Deployment, as its controller makes it."""
    owner = plane.get("inferenceservice", "llama", "-n", CLOSED)["metadata"]
    body = foreign("llama-predictor-00001", CLOSED, paused=False)
    reference = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "name": "llama", "uid": owner["uid"]}
    body["metadata"]["ownerReferences"] = [{**reference, "controller": True, "blockOwnerDeletion": True}]
    return body


@fault(
    59, what="objects whose pods hold every GPU are deleted and made anew (GitOps replace), their pods still terminating",
    load=ASKING + "; the policies refuse Waiting too",
    criterion="0 refused, 0 pages, no warning: the old object's pods count as its own; Sound again by itself",
)  # fmt: skip
def test_delete_and_create(other_kinds: ControlPlane, quiet: Start, measured: Measured) -> None:
    plane = other_kinds
    waiting = {"refuse": {"waiting": True}}
    nodes = [a_node(f"node-{each}") for each in "abcd"]
    again = [a_body(), *(foreign("llama", name, paused=False) for name in FOREIGN), service()]
    Life(plane, nodes, **waiting)
    installation = quiet(failure_policy="Fail")
    plane.apply(*again)
    plane.apply(made_for(plane), options=AS_CONTROLLER)
    plane.apply(bound("own", "", declaration="llama"))
    for namespace in (*FOREIGN, "serving"):
        until(f"pods are bound: {namespace}", lambda namespace=namespace: all_bound(plane, namespace), TIMEOUT)  # type: ignore[misc]
    until("all pods are bound", lambda: len(pods_of(plane, CLOSED)) == 2 and all_bound(plane, CLOSED), TIMEOUT)
    wait_for_outcome(plane, "llama", "serving", "Sound")
    free = 'shardgate_gpus{product="H100-80GB-HBM3",state="free"}'
    until("no GPU is free", lambda: installation.metric(free) == 0, TIMEOUT)
    plane.kubectl("delete", "infd", "llama", "-n", "serving")
    plane.kubectl("delete", "deployment", "llama", "-n", OPEN)
    plane.kubectl("delete", "deployment", "llama", "-n", CLOSED)
    plane.kubectl("delete", "inferenceservice", "llama", "-n", CLOSED)

    def are_going() -> bool:
        return all(pod["metadata"].get("deletionTimestamp") for name in FOREIGN for pod in pods_of(plane, name))

    until("their pods are going", are_going, TIMEOUT)
    until("the Deployments are gone", lambda: not plane.get("deployments", "-A")["items"], TIMEOUT)
    stranger = plane.apply(foreign("stranger", CLOSED), options=("--dry-run=server",), check=False)
    assert "GpusBusy" in stranger.stderr, "to others the GPUs are held"
    for body in again:
        answer = plane.apply(body, check=False)
        assert (answer.returncode, answer.stderr) == (0, ""), (body["kind"], answer.stderr)
    wait_for_outcome(plane, "llama", "serving", "Sound")
    for name in FOREIGN:
        assert verdict(plane, name) == {}
        plane.kubectl("delete", "pods", "-n", name, "--grace-period=0", "--force", "--all")
    plane.apply(made_for(plane), options=AS_CONTROLLER)
    until("the new pods are bound", lambda: all(all_bound(plane, name) for name in FOREIGN), TIMEOUT)
    until("nothing is found any more", lambda: [verdict(plane, name) for name in FOREIGN] == [{}, {}], TIMEOUT)
    measured(f"{len(again)} kinds of objects made anew while all GPUs were held, 0 refused or warned")


PRESET = {
    "apiVersion": "serving.kserve.io/v1alpha2", "kind": "LLMInferenceServiceConfig", "metadata": {"name": "eight"},
    "spec": {
        "parallelism": {"tensor": 8},
        "template": {"containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "8"}},
                                     "env": [{"name": "VLLM_ADDITIONAL_ARGS", "value": "--max-model-len=8192"}]}]},
    },
}  # fmt: skip
RUNTIME = {
    "apiVersion": "serving.kserve.io/v1alpha1", "kind": "ServingRuntime", "metadata": {"name": "rt"},
    "spec": {
        "supportedModelFormats": [{"name": "vLLM", "autoSelect": True}],
        "containers": [{**container(vllm(8), 8), "name": "kserve-container"}],
    },
}  # fmt: skip
SETTINGS = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"TP": "8"}}
TEMPLATE = {
    "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": "eight-gpus"},
    "spec": {"spec": {"devices": {"requests": [{"name": "gpus", "exactly": {"deviceClassName": "gpu.nvidia.com", "count": 8}}]}}},
}  # fmt: skip
PROFILE = {
    "apiVersion": "shardgate.io/v1alpha1", "kind": "ModelProfile", "metadata": {"name": "legal-8b"},
    "spec": {
        "match": ["s3://models/legal-8b/*"],
        "config": {
            "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "torch_dtype": "bfloat16",
            "max_position_embeddings": 8192,
        },
        "safetensors": {"totalBytes": 16_060_522_496},
    },
}  # fmt: skip


def parted(namespace: str) -> list[tuple[str, Json, Json]]:
    """(name of its verdict, object, the part that it refers to): each can be judged once its part is there."""
    by_map = foreign("by-map", namespace)
    (main,) = by_map["spec"]["template"]["spec"]["containers"]
    main["command"][3] = "--tensor-parallel-size=$(TP)"
    main["envFrom"] = [{"configMapRef": {"name": "settings"}}]
    by_template = foreign("by-template", namespace)
    inner = by_template["spec"]["template"]["spec"]
    inner["containers"][0]["resources"] = {"claims": [{"name": "gpus"}]}
    inner["resourceClaims"] = [{"name": "gpus", "resourceClaimTemplateName": "eight-gpus"}]
    by_runtime = custom(
        "serving.kserve.io/v1beta1",
        "InferenceService",
        spec={"predictor": {"model": {"modelFormat": {"name": "vLLM"}, "runtime": "rt"}}},
    )
    by_preset = custom(
        "serving.kserve.io/v1alpha2", "LLMInferenceService",
        spec={"model": {"uri": "hf://Qwen/Qwen3-32B"}, "baseRefs": [{"name": "eight"}]},
    )  # fmt: skip
    found = [
        ("deployment-by-map", by_map, SETTINGS), ("deployment-by-template", by_template, TEMPLATE),
        ("inferenceservice-llama", by_runtime, RUNTIME), ("llminferenceservice-llama", by_preset, PRESET),
    ]  # fmt: skip
    for _, body, _ in found:
        body["metadata"]["namespace"] = namespace
    return [(name, body, {**part, "metadata": {**part["metadata"], "namespace": namespace}}) for name, body, part in found]


@fault(
    60, what="objects come before the ConfigMap, claim template, runtime, preset, ModelProfile or workload that they refer to",
    load="own kind by default; foreign kinds by Enforce, Open and Closed; failurePolicy Fail",
    criterion="0 refused, 0 pages; Undecided, and the message names the part; judged when it comes",
)  # fmt: skip
def test_parts_in_any_order(other_kinds: ControlPlane, referred_to: ControlPlane, quiet: Start, measured: Measured) -> None:
    plane = other_kinds
    for name in FOREIGN:
        plane.kubectl("create", "namespace", name, check=False)
    plane.apply(*policies())
    create_node(plane, a_node().body)
    quiet(failure_policy="Fail")
    model = {"name": "s3://models/legal-8b/v3", "weights": None}
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "later"}
    own = [
        (a_body("by-profile", model=model, strategy={"tensor": 2, "pipeline": 1}, gpus={"perPod": 2}), PROFILE),
        ({**a_body("by-workload"), "spec": {"workloadRef": reference}}, foreign("later", "serving")),
    ]
    wholes = [each for namespace in FOREIGN for each in parted(namespace)]
    for body, _ in own:
        plane.apply(body)
    for _, body, _ in wholes:
        answer = plane.apply(body, check=False)
        assert answer.returncode == 0, (body["kind"], answer.stderr)
    for body, _ in own:
        name = body["metadata"]["name"]
        wait_for_outcome(plane, name, "serving", "Undecided", TIMEOUT)
    for name, body, part in wholes:
        namespace = body["metadata"]["namespace"]
        until(f"{namespace}/{name} misses it", lambda: names(part, verdict(plane, namespace, name)), TIMEOUT)  # noqa: B023  # asked at once
    took = []
    for body, part in own:
        plane.apply(part)
        name = body["metadata"]["name"]
        took.append(until(f"{name} is judged", lambda: is_judged(status(plane, name, "serving")), TIMEOUT))  # noqa: B023
    for name, body, part in wholes:
        namespace = body["metadata"]["namespace"]
        plane.apply(part)
        took.append(until(f"{namespace}/{name} is judged", lambda: is_judged(verdict(plane, namespace, name)), TIMEOUT))  # noqa: B023
    for kind, name in (("configmap", "settings"), ("resourceclaimtemplate", "eight-gpus")):
        for namespace in FOREIGN:
            plane.kubectl("delete", kind, name, "-n", namespace)
    measured(f"{len(own) + len(wholes)} objects, 0 refused, each judged within {max(took):.1f} s of its part")


def names(part: Json, found: Json) -> bool:
    """Whether it is Undecided for the part that is not here, which is named."""
    said = " ".join(each["message"] for each in found.get("findings") or ())
    return found.get("outcome") == "Undecided" and part["metadata"]["name"] in said


def is_judged(found: Json) -> bool:
    """Whether nothing is missed any more, whatever is found."""
    return found.get("outcome", "Sound") != "Undecided"
