"""Node agents on a control plane: real ``shardgate agent`` processes, each on an emulated driver, with the token of a pod."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from live import create_node, until

from builders import a_node
from controlplane.installation import NAMESPACE, Installation
from controlplane.plane import ControlPlane
from controlplane.processes import Guarded
from nvml import library
from operator_user import AGENT_USER
from shardgate.adapters.manifests import AGENT, agent_rbac, rbac
from shardgate.shells.agent.api_server import Access, ApiServer

Json = dict[str, Any]

HEALTHY, LOST = library.PROFILES / "h100-8x-nvswitch.json", library.PROFILES / "h100-8x-lost-gpu.json"
DRIVERS_LABELS = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559", "nvidia.com/gpu.count": "8"}


class Agents:
    """Of some nodes. Each reads a profile of its own, which a test may change under it."""

    def __init__(self, plane: ControlPlane, folder: Path, *, heartbeat: float = 2.0, interval: float = 2.0) -> None:
        self.plane, self.folder = plane, folder
        self.heartbeat, self.interval = heartbeat, interval
        self._library = library.build(folder)
        self._running: dict[str, Guarded] = {}

    def begin(self, node: str, labels: Json | None = None) -> None:
        """A node, the pod of its agent, and the agent."""
        create_node(self.plane, a_node(node, labels=DRIVERS_LABELS if labels is None else labels).body)
        self.plane.apply(agent_pod(node))
        self.show(node, HEALTHY)
        self.start(node)

    def start(self, node: str) -> None:
        """The agent of a node that has a pod for it."""
        token = self.folder / f"{node}.token"
        token.write_text(self.token(node))
        command = [
            sys.executable, "-m", "shardgate", "agent", "--node-name", node, "--namespace", NAMESPACE, "--server", self.plane.url,
            "--token-file", str(token), "--ca-file", str(self.plane.authority.path), "--bind-address", "127.0.0.1",
            "--port", "0", "--interval", str(self.interval), "--heartbeat", str(self.heartbeat),
        ]  # fmt: skip
        environment = library.environment(self._library, self.profile(node))
        self._running[node] = Guarded(f"agent of {node}", command, self.folder / f"{node}.log", environment)

    def token(self, node: str) -> str:
        """As the kubelet gives it to the agent's pod."""
        uid = self.plane.get("pod", f"agent-{node}", "-n", NAMESPACE)["metadata"]["uid"]
        bound = ("--bound-object-kind=Pod", f"--bound-object-name=agent-{node}", f"--bound-object-uid={uid}")
        return self.plane.kubectl("create", "token", AGENT, "-n", NAMESPACE, "--duration=2h", *bound).stdout.strip()

    def client(self, node: str | None) -> ApiServer:
        """What asks as the agent of a node; ``None``: with a token of the agents' account that no pod has."""
        file = self.folder / f"client-{node}.token"
        plain = ("create", "token", AGENT, "-n", NAMESPACE)
        file.write_text(self.token(node) if node else self.plane.kubectl(*plain).stdout.strip())
        return ApiServer(Access(server=self.plane.url, token_file=file, ca_file=self.plane.authority.path))

    def profile(self, node: str) -> Path:
        """What the driver of a node reads."""
        return self.folder / f"{node}.json"

    def show(self, node: str, profile: Path) -> None:
        """The node's driver says from now on what stands there, of GPUs at rest.

        A process that no pod of the plane can own would be a finding of its own (GpuMemoryHeld).
        """
        content = json.loads(profile.read_text())
        for gpu in content["gpus"]:
            for told in ("processes", "memory"):
                gpu.pop(told, None)
        coming = self.folder / f"{node}.coming"
        coming.write_text(json.dumps(content))
        coming.replace(self.profile(node))

    @property
    def pids(self) -> list[int]:
        """Of the agents that run."""
        return [each.pid for each in self._running.values() if each.pid is not None]

    def kill(self, node: str) -> None:
        """SIGKILL."""
        self._running.pop(node).kill()

    def stop(self) -> None:
        """All of them."""
        for each in self._running.values():
            each.kill()
        self._running.clear()

    def report(self, node: str) -> Json:
        """What stands there; empty while nothing does."""
        shown = self.plane.kubectl("get", "gpunodereport", node, "-o", "json", check=False)
        return dict(json.loads(shown.stdout or "{}"))


def agent_pod(node: str) -> Json:
    """As the DaemonSet would make it: tokens are bound to it, and by it to the node."""
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": f"agent-{node}", "namespace": NAMESPACE, "labels": {"app.kubernetes.io/component": "agent"}},
        "spec": {
            "nodeName": node, "serviceAccountName": AGENT,
            "containers": [{"name": "agent", "image": "none", "resources": {"requests": {"cpu": "10m"}}}],
        },
    }  # fmt: skip


@contextmanager
def permitted(plane: ControlPlane) -> Iterator[None]:
    """While agents, and an operator that follows them, have their rights; once the policy holds agents to their nodes."""
    plane.apply(*rbac(NAMESPACE, follows_agents=True), *agent_rbac(NAMESPACE))
    until("the policy holds", lambda: _is_held(plane))
    yield
    plane.kubectl("delete", "gpunodereports", "--all")
    plane.kubectl("delete", "leases", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=agent")
    plane.apply(*rbac(NAMESPACE))
    made = [each for each in agent_rbac(NAMESPACE) if each["kind"] != "ServiceAccount"]
    for each in made:
        where = ("-n", NAMESPACE) if each["metadata"].get("namespace") else ()
        plane.kubectl("delete", each["kind"], each["metadata"]["name"], *where)


def _is_held(plane: ControlPlane) -> bool:
    probe = {"apiVersion": "shardgate.io/v1alpha1", "kind": "GpuNodeReport", "metadata": {"name": "probe"}}
    who = (f"--as={AGENT_USER}", "--dry-run=server", "-f", "-")
    return "its own node" in plane.kubectl("create", *who, stdin=json.dumps(probe), check=False).stderr


def following(plane: ControlPlane, *, stale_after_seconds: float) -> Installation:
    """An operator that believes agents."""
    more = {"SHARDGATE_NODE_AGENTS": "true", "SHARDGATE_REPORT_STALE_AFTER_SECONDS": str(stale_after_seconds)}
    return Installation(plane, more_environment=more)


def agents_writes(plane: ControlPlane, since: int) -> list[tuple[str, str, str]]:
    """(verb, resource with its subresource, name) of agents' writes, from so many lines of the audit log on."""
    entries: Sequence[Json] = [json.loads(line) for line in plane.audit_log.read_text().splitlines()[since:]]
    written = []
    for each in entries:
        target = each.get("objectRef") or {}
        if each["user"]["username"] == AGENT_USER and each["verb"] not in ("get", "list", "watch"):
            resource = target["resource"] + (f"/{target['subresource']}" if "subresource" in target else "")
            written.append((each["verb"], resource, target.get("name", "")))
    return written
