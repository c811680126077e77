"""Fills a cluster with nodes and pods through its API, keeps changing it, and looks at what a process takes."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

from builders import a_node, a_pod
from controlplane.plane import ControlPlane
from shardgate.shells.cluster import MERGE_PATCH, Cluster

IN_FLIGHT = 64


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def admin(plane: ControlPlane) -> Cluster:
    """The plane's administrator as a client."""
    configuration = kubernetes_client.Configuration()
    kubernetes_config.load_kube_config(str(plane.kubeconfig), client_configuration=configuration)
    return Cluster(configuration)


async def all_of(what: str, total: int, jobs: Iterable[Callable[[], Awaitable[Any]]]) -> None:
    """Run jobs, so many at a time, and tell how far."""
    queue, done, started = list(jobs), 0, time.monotonic()
    queue.reverse()

    async def worker() -> None:
        nonlocal done
        while queue:
            await queue.pop()()
            done += 1
            if done % 2500 == 0:
                say(f"  {what}: {done} of {total}, {done / (time.monotonic() - started):.0f}/s")

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


def node_body(index: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A node as large as real ones (50 images), and its status."""
    body = a_node(f"node-{index:05}").label("zone", f"z{index % 3}").body
    status = body.pop("status")
    status["images"] = [{"names": [f"registry.example/{n}/image@sha256:{'0' * 64}"], "sizeBytes": 10**9} for n in range(50)]
    return body, status


def pod_body(name: str, node: int, gpus: int) -> dict[str, Any]:
    """A bound pod of a few kilobytes."""
    body = a_pod(name, node=f"node-{node:05}", gpus=gpus)
    body["metadata"].pop("uid")
    body.pop("status")
    body["spec"]["containers"][0]["env"] = [{"name": f"VARIABLE_{n}", "value": "x" * 40} for n in range(38)]
    return body


def pod_name(index: int) -> str:
    """Of the pods that stand."""
    return f"pod-{index:06}"


def gpus_of_pod(index: int, nodes: int) -> int:
    """One or none: of every eight nodes one is left free, one has a GPU taken, and so on to seven."""
    turn, node = divmod(index, nodes)
    return int(turn < node % 8)


async def fill(cluster: Cluster, nodes: int, pods: int) -> None:
    """Nodes of eight GPUs, and pods on them in turn, some of one GPU and others of none."""

    def node(index: int) -> Callable[[], Awaitable[Any]]:
        async def create() -> None:
            body, status = node_body(index)
            await cluster.request("POST", "/api/v1/nodes", body=body)
            path = f"/api/v1/nodes/{body['metadata']['name']}/status"
            await cluster.request("PATCH", path, body={"status": status}, content_type=MERGE_PATCH)

        return create

    def pod(index: int) -> Callable[[], Awaitable[Any]]:
        body = pod_body(pod_name(index), index % nodes, gpus_of_pod(index, nodes))
        return lambda: cluster.request("POST", "/api/v1/namespaces/serving/pods", body=body)

    await all_of("nodes", nodes, (node(index) for index in range(nodes)))
    await all_of("pods", pods, (pod(index) for index in range(pods)))


async def change(cluster: Cluster, nodes: int, stop: asyncio.Event, changes_per_second: float) -> int:
    """Create and delete bound pods at a steady rate; returns how many changes were made."""
    made, started = 0, time.monotonic()

    async def one(index: int) -> None:
        path = "/api/v1/namespaces/serving/pods"
        name = f"churn-{index:06}"
        await cluster.request("POST", path, body=pod_body(name, index % nodes, 1))
        await cluster.request("DELETE", f"{path}/{name}", body={"gracePeriodSeconds": 0})

    running: set[asyncio.Task[None]] = set()
    while not stop.is_set():
        due = int((time.monotonic() - started) * changes_per_second / 2)
        while made < due:
            running.add(task := asyncio.create_task(one(made)))
            task.add_done_callback(running.discard)
            made += 1
        await asyncio.sleep(0.01)
    await asyncio.gather(*running)
    return 2 * made


def memory_mib(pid: int, line: str = "VmRSS") -> float:
    """Resident set."""
    for each in Path(f"/proc/{pid}/status").read_text().splitlines():
        if each.startswith(line):
            return int(each.split()[1]) / 1024
    return 0.0


def peak_mib(pid: int) -> float:
    """The largest that the resident set ever was."""
    return memory_mib(pid, "VmHWM")


def cpu_seconds(pid: int) -> float:
    """User and system time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
