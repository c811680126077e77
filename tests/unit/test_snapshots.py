"""A snapshot keeps what verdicts rest on, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from builders import GPU, a_body, a_node, a_pod, a_pool, a_report, a_reported_gpu, a_vllm_deployment
from case_files import cases
from shardgate.adapters.snapshots import REDACTED, kept, without_secrets
from shardgate.shells.cluster_snapshots import ClusterSnapshot
from shardgate.shells.documents import Document, read_documents
from shardgate.shells.snapshot import Snapshot

Json = dict[str, Any]


def inventory_of(objects: list[Json]) -> Any:
    snapshot = Snapshot()
    snapshot.add(Document("here", each) for each in objects)
    assert snapshot.unreadable == []
    found = snapshot.inventory()
    may_come = [node for group in found.provisionable for node in group.nodes]
    return found.nodes, may_come, replace(found, groups=(), provisionable=())  # groups are compared by identity


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_what_is_kept_reads_the_same(case: Any) -> None:
    found = [body for each in case.cluster if (body := kept(each)) is not None]
    assert inventory_of(found) == inventory_of(case.cluster)


def test_reports_and_their_agents_leases_read_the_same() -> None:
    lost = a_report("node-a", a_reported_gpu(0, "Xid79", state="Lost", nvlink={"up": 18}), a_reported_gpu(1))
    silent = a_report("node-b")
    leases = [
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": "shardgate-system"},
         "spec": {"renewTime": f"2026-11-26T18:00:{second:02}.000000Z"}}
        for name, second in (("node-a", 59), ("node-b", 5))
    ]  # fmt: skip
    labels = {"nvidia.com/gpu.product": "Tesla-T4"}
    objects = [a_node(gpus=2).body, a_node("node-b", labels=labels).body, lost, silent, *leases]
    found = [body for each in objects if (body := kept(each)) is not None]
    assert inventory_of(found) == inventory_of(objects)
    nodes = {node.name: node for node in inventory_of(found)[0]}
    assert nodes["node-a"].unavailable_gpus == {GPU: 1}
    assert (nodes["node-b"].shape.gpu.product, nodes["node-b"].shape.gpu.report_problem) == (
        "Tesla-T4",
        "its agent has not been heard",
    )


def test_kubelets_leases_are_no_agents() -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "node-a", "namespace": "kube-node-lease"},
             "spec": {"renewTime": "2026-11-26T18:00:00.000000Z"}}  # fmt: skip
    newer = {**lease, "metadata": {"name": "other", "namespace": "shardgate-system"}, "spec": {"renewTime": "2026-11-26T19:00:00Z"}}
    nodes, *_ = inventory_of([a_node(labels={}).body, a_report(), lease, newer])
    assert nodes[0].shape.gpu.product == "H100-80GB-HBM3"


def test_a_busy_cluster_reads_the_same(tmp_path: Path) -> None:
    repelling = a_pod("repels", node="node-a", gpus=2)
    repelling["spec"]["affinity"] = {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}
            ]
        }
    }
    waiting = a_pod("waits", gpus=4)
    waiting["spec"] |= {"nodeSelector": {"zone": "a"}, "priority": 7, "tolerations": [{"operator": "Exists"}]}
    labelled = a_node("node-b").label("node-role.kubernetes.io/worker", "").tainted()
    labelled.body["status"]["allocatable"][GPU] = 0
    objects = [
        a_node().body, labelled.body, repelling, waiting, a_pool(("karpenter.sh/capacity-type", "In", ["spot"]), limits={GPU: 8}),
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "serving"},
         "spec": {"hard": {f"requests.{GPU}": 4}}, "status": {"hard": {f"requests.{GPU}": "4"}, "used": {f"requests.{GPU}": "0"}}},
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "low"}, "value": -5, "preemptionPolicy": "Never"},
    ]  # fmt: skip
    pruned = ClusterSnapshot(objects=[body for each in objects if (body := kept(each)) is not None])
    path = tmp_path / "snapshot.json"
    path.write_text("".join(pruned.text()))
    again = [dict(each.body) for each in read_documents([str(path)]) if isinstance(each, Document)]
    assert len(again) == len(objects)
    assert inventory_of(again) == inventory_of(objects)


def test_commands_images_and_ended_pods_are_left_out() -> None:
    pod = a_pod("p", node="node-a")
    pod["spec"]["containers"][0] |= {"env": [{"name": "X", "value": "hush"}], "args": ["--api-key", "sk-1"]}
    node = a_node().body
    node["status"]["images"] = [{"names": ["registry/secret"]}]
    node["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    text = json.dumps([kept(pod), kept(node)])
    for word in ("hush", "sk-1", "registry/secret", "kubelet", "image"):
        assert word not in text
    assert kept({**pod, "status": {"phase": "Succeeded"}}) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"env": [{"name": "HF_TOKEN", "value": "hf_1"}]}, {"env": [{"name": "HF_TOKEN", "value": REDACTED}]}),
        ({"env": [{"name": "MODEL", "value": "m"}]}, {"env": [{"name": "MODEL", "value": "m"}]}),
        ({"environment": {"OPENAI_API_KEY": "x", "VLLM_USE_V1": "1"}}, {"environment": {"OPENAI_API_KEY": REDACTED, "VLLM_USE_V1": "1"}}),
        (["--api-key", "sk", "--tokenizer", "t"], ["--api-key", REDACTED, "--tokenizer", "t"]),
        (["--api-key=sk", "--max-num-batched-tokens", "8192"], [f"--api-key={REDACTED}", "--max-num-batched-tokens", "8192"]),
        (["export HF_TOKEN=abc; vllm serve m --api-key sk-1 --tokenizer t"],
         [f"export HF_TOKEN={REDACTED}; vllm serve m --api-key {REDACTED} --tokenizer t"]),
        (['vllm serve m --api-key $KEY --hf-token "a b"'], [f"vllm serve m --api-key $KEY --hf-token {REDACTED}"]),
        ({"imagePullSecrets": [{"name": "pull"}], "secretName": "s"}, {"imagePullSecrets": [{"name": "pull"}], "secretName": "s"}),
        ({"config": {"eos_token": "</s>", "hidden_size": 8}}, {"config": {"eos_token": "</s>", "hidden_size": 8}}),
    ],
)  # fmt: skip
def test_secrets_by_their_names(value: Any, expected: Any) -> None:
    assert without_secrets(value) == expected


def test_declarations_keep_their_spec_and_what_was_promised() -> None:
    own = a_body() | {"status": {"conditions": [{"type": "Claimed", "status": "True", "reason": "Promised"}]}}
    own["metadata"]["managedFields"] = [{}]
    own["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "a"}
    found = kept(own)
    assert found is not None
    assert (found["spec"], found["status"]) == (own["spec"], own["status"])
    assert found["metadata"]["annotations"] == {"team": "a"}
    assert "managedFields" not in found["metadata"]
    deployment = a_vllm_deployment()
    assert (kept(deployment) or {})["spec"] == deployment["spec"]


def test_what_is_not_of_its_form_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError):
        kept({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": "none"}})


def test_an_empty_cluster_is_a_list_of_nothing() -> None:
    assert yaml.safe_load("".join(ClusterSnapshot().text())) == {"apiVersion": "v1", "kind": "List", "items": []}
