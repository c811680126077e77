"""Lists of the real API server, in protobuf and in JSON: the same is read of both."""

import asyncio
import json
import ssl
from typing import Any

import aiohttp
import msgspec
import pytest
from live import create_node

from builders import GPU, a_node, a_pod
from controlplane.plane import ControlPlane
from shardgate.adapters.kubernetes_protobuf import CONTENT_TYPE, NotProtobufError, page_reader
from shardgate.adapters.nodes import NodeObject, Shapes, read_node
from shardgate.adapters.pods import PodObject, read_pod

Json = dict[str, Any]

SELECTOR = {"matchLabels": {"app": "llama"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}]}
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {
                    "matchExpressions": [
                        {"key": "zone", "operator": "NotIn", "values": ["z1"]},
                        {"key": "gpu", "operator": "Exists"},
                    ]
                },
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-a"]}]},
            ]
        },
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 7, "preference": {"matchExpressions": [{"key": "zone", "operator": "Gt", "values": ["3"]}]}}
        ],
    },
    "podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "zone", "labelSelector": {}, "namespaceSelector": {}},
            {"topologyKey": "zone", "labelSelector": SELECTOR, "namespaces": ["serving", "unseen"]},
        ]
    },
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": SELECTOR, "namespaceSelector": SELECTOR}
        ],
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": SELECTOR}}
        ],
    },
}


def pods() -> list[Json]:
    def made(name: str, spec: Json, metadata: Json | None = None) -> Json:
        body = a_pod(name, node="node-a", gpus=1)
        body.pop("status")
        body["metadata"].pop("uid")
        body["metadata"] |= metadata or {}
        body["spec"] |= spec
        return body

    amounts = {"requests": {"cpu": "1500m", "memory": "1.5Gi", GPU: "2"}, "limits": {GPU: "2"}}
    containers = [
        {
            "name": "main", "image": "x", "resources": amounts, "env": [{"name": "A", "value": "b"}],
            "ports": [{"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}, {"containerPort": 81, "protocol": "UDP"}],
        },
        {"name": "side", "image": "x"},
    ]  # fmt: skip
    init = [{"name": "first", "image": "x", "restartPolicy": "Always", "resources": {"requests": {"memory": "64Mi"}}}]
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "llama-5f", "uid": "u", "controller": True}
    tolerations = [{"operator": "Exists"}, {"key": GPU, "value": "present", "effect": "NoSchedule"}]
    return [
        made("plain", {}),
        made("rich", {"containers": containers, "initContainers": init, "hostNetwork": False}, {"ownerReferences": [owner]}),
        made("labelled", {"tolerations": tolerations, "nodeSelector": {"zone": "z1"}}, {"labels": {"app": "llama", "pod-template-hash": "5f"}}),
        made("waits", {"nodeName": "", "affinity": AFFINITY, "schedulerName": "volcano", "containers": containers}),
        made("gated", {"nodeName": "", "schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}),
        made("leaves", {"terminationGracePeriodSeconds": 3000}, {"finalizers": ["example.com/hold"]}),
    ]  # fmt: skip


def listed(plane: ControlPlane, path: str, accept: str) -> tuple[str, bytes]:
    async def get() -> tuple[str, bytes]:
        context = ssl.create_default_context(cafile=str(plane.authority.path))
        context.load_cert_chain(*plane.admin)
        async with (
            aiohttp.ClientSession(plane.url, connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.get(path, headers={"Accept": accept}) as response,
        ):
            return response.content_type, await response.read()

    return asyncio.run(get())


@pytest.fixture
def filled(clean: ControlPlane) -> ControlPlane:
    tainted = a_node("node-b").tainted("dedicated").label("nvidia.com/gpu.count", "8").body
    tainted["metadata"]["annotations"] = {"hami.io/node-nvidia-register": "[]", "other": "x"}
    tainted["spec"]["unschedulable"] = True
    for each in (a_node().body, tainted):
        create_node(clean, each)
    clean.apply(*pods())
    clean.kubectl("delete", "pod", "leaves", "-n", "serving", "--wait=false")
    status = {
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}], "phase": "Running",
        "containerStatuses": [
            {
                "name": "main", "ready": True, "restartCount": 0, "image": "x", "imageID": "y",
                "allocatedResources": {"cpu": "2", GPU: "2"}, "resources": {"requests": {"cpu": "2", GPU: "2"}, "limits": {GPU: "2"}},
            },
        ],
    }  # fmt: skip
    clean.kubectl(
        "patch", "pod", "rich", "-n", "serving", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
    )
    return clean


def test_pods_and_nodes_are_read_alike(filled: ControlPlane) -> None:
    try:
        for _ in range(20):  # the scheduler may write between the two lists
            kind, content = listed(filled, "/api/v1/pods", f"{CONTENT_TYPE}, application/json")
            page = page_reader("Pod", PodObject)(content)
            plain = msgspec.json.decode(listed(filled, "/api/v1/pods", "application/json")[1])
            if page.version == plain["metadata"]["resourceVersion"]:
                break
        assert kind == CONTENT_TYPE
        assert (page.version, page.following) == (plain["metadata"]["resourceVersion"], "")
        records = [read_pod(each) for each in page.items]
        expected = [read_pod(msgspec.convert(each, PodObject, strict=False)) for each in plain["items"]]
        assert len(expected) == len(pods())
        assert records == expected

        _, content = listed(filled, "/api/v1/nodes?limit=1", CONTENT_TYPE)
        first = page_reader("Node", NodeObject)(content)
        assert len(list(first.items)) == 1
        assert first.following
        _, content = listed(filled, "/api/v1/nodes", CONTENT_TYPE)
        shapes = Shapes()
        nodes = [read_node(each, shapes) for each in page_reader("Node", NodeObject)(content).items]
        _, content = listed(filled, "/api/v1/nodes", "application/json")
        wanted = [
            read_node(msgspec.convert(each, NodeObject, strict=False), shapes) for each in msgspec.json.decode(content)["items"]
        ]
        assert nodes == wanted
        assert None not in nodes
    finally:
        filled.kubectl("patch", "pod", "leaves", "-n", "serving", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


@pytest.mark.parametrize("content", [b"", b"{}", b"k8s\x00\xff\xff", b"k8s\x00\x12\x05\x0a\xff\xff\xff\xff"])
def test_what_is_no_list_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(NotProtobufError):
        page_reader("Pod", PodObject)(content)
