"""Three objects that stand while something happens to the cluster, and creates of three more that are asked all the while.

One of our own kind under the default policy (Enforce, Closed), one Deployment where a policy says Enforce and Open, one
where a policy says Enforce and Closed. Each needs eight GPUs of one node.
"""

import copy
import json
import threading
import time
from collections.abc import Iterable
from typing import Any, Self

from calls import send
from live import create_node, status, until

from builders import NodeBuilder, a_body, a_node, a_vllm_deployment
from controlplane.installation import Installation
from controlplane.plane import ControlPlane

Json = dict[str, Any]
OPEN, CLOSED = "open", "closed"
FOREIGN = (OPEN, CLOSED)
"""Namespaces of Deployments, by what their policy says of capacity."""
TIMEOUT = 20
JUDGED = 'shardgate_declarations{kind="Deployment",outcome="Sound"}'


def policies(**spec: Any) -> list[Json]:
    """Enforce, Open and Closed, each for the namespace of that name."""
    return [
        {
            "apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationPolicy", "metadata": {"name": name},
            "spec": {
                "mode": "Enforce", "capacity": name.capitalize(),
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}, **spec,
            },
        }
        for name in FOREIGN
    ]  # fmt: skip


def foreign(name: str, namespace: str, *, paused: bool = True) -> Json:
    """A Deployment of eight GPUs; a paused one starts no pods."""
    body = a_vllm_deployment(name)
    body["metadata"]["namespace"] = namespace
    body["spec"]["paused"] = paused
    return body


def verdict(plane: ControlPlane, namespace: str, name: str = "deployment-llama") -> Json:
    """Status of a WorkloadVerdict; empty where none stands, since nothing is found."""
    shown = plane.kubectl("get", "workloadverdict", name, "-n", namespace, "-o", "json", check=False)
    return dict(json.loads(shown.stdout).get("status") or {}) if shown.returncode == 0 else {}


def _creates() -> list[tuple[str, str, Json]]:
    deployments = [(f"/apis/apps/v1/namespaces/{name}/deployments", foreign("asked", name)) for name in FOREIGN]
    own = ("/apis/shardgate.io/v1alpha1/namespaces/serving/inferencedeployments", a_body("asked"))
    return [("POST", f"{path}?dryRun=All", body) for path, body in (own, *deployments)]


class Life:
    """A cluster, what stands there, and creates as dry runs while this is entered: none of them may be refused."""

    def __init__(self, plane: ControlPlane, nodes: Iterable[NodeBuilder] = (), **policy: Any) -> None:
        self.plane, self.asked, self.refused = plane, 0, []  # type: ignore[var-annotated]  # texts
        self.nodes = [each.body for each in nodes] or [a_node(name).body for name in ("node-a", "node-b")]
        self.waited: list[float] = []
        self._over = threading.Event()
        self._asking = threading.Thread(target=self._ask)
        for name in FOREIGN:
            plane.kubectl("create", "namespace", name, check=False)
        plane.apply(*policies(**policy))
        for body in self.nodes:
            create_node(plane, body)

    def __enter__(self) -> Self:
        self._asking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._asking.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            for code, answer in send(self.plane, _creates(), at_once=3):
                self.asked += 1
                if code != 201:
                    self.refused.append(f"{code}: {answer.get('message')}")
            self._over.wait(0.1)

    def stand(self, installation: Installation, outcome: str = "Sound", *says: str) -> None:
        """Create the three, each of them let in, and wait until they are judged so."""
        self.plane.apply(a_body(), *(foreign("llama", name) for name in FOREIGN))
        if outcome == "Sound":
            until("Deployments are judged", lambda: installation.metric(JUDGED) == len(FOREIGN), TIMEOUT)
        self.until(outcome, *says)

    def until(self, outcome: str, *says: str) -> None:
        """Wait until all three are judged so, each with these texts in its first finding."""

        def so(found: Json) -> bool:
            messages = [each["message"] for each in found.get("findings") or ()]
            is_sound = outcome == "Sound" and not messages
            return is_sound or (found.get("outcome") == outcome and all(text in messages[0] for text in says))

        def all_so() -> bool:
            own = status(self.plane, "llama", "serving")
            return own.get("outcome") == outcome and so(own) and all(so(verdict(self.plane, name)) for name in FOREIGN)

        self.waited.append(until(f"{outcome}: {says}", all_so, TIMEOUT))

    def newcomer(self, *says: str) -> None:
        """One that is made now waits for this: a standing one's status is not written for another message alone."""

        def so() -> bool:
            self.plane.apply(a_body("newcomer"))
            found = status(self.plane, "newcomer", "serving")
            is_so = found.get("outcome") == "Waiting" and all(text in found["findings"][0]["message"] for text in says)
            if found and not is_so:
                self.plane.kubectl("delete", "infd", "newcomer", "-n", "serving")
            return is_so

        until(f"a newcomer waits: {says}", so, TIMEOUT)
        self.plane.kubectl("delete", "infd", "newcomer", "-n", "serving")

    def settle(self, seconds: float = 2) -> None:
        """Let creates be asked meanwhile."""
        time.sleep(seconds)

    def patch(self, status_of_each: Json | None = None, **metadata_or_spec: Any) -> None:
        """Every node: its status, or what else is said."""
        for body in self.nodes:
            name = body["metadata"]["name"]
            if status_of_each is not None:
                patch = json.dumps({"status": status_of_each})
                self.plane.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", patch)
            if metadata_or_spec:
                self.plane.kubectl("patch", "node", name, "--type=merge", "-p", json.dumps(metadata_or_spec))

    def amounts(self, allocatable: int, capacity: int = 8) -> None:
        """GPUs of every node."""
        self.patch({"allocatable": {"nvidia.com/gpu": str(allocatable)}, "capacity": {"nvidia.com/gpu": str(capacity)}})

    def remove_nodes(self) -> None:
        """All of them are deleted."""
        self.plane.kubectl("delete", "node", *(body["metadata"]["name"] for body in self.nodes))

    def add_nodes(self, change: Any = lambda body: body) -> None:
        """All of them come, as ``change`` makes each."""
        for body in self.nodes:
            create_node(self.plane, change(copy.deepcopy(body)))

    def told(self) -> str:
        """What was measured, once nothing was refused."""
        assert self.refused == []
        assert self.asked > 0
        return f"{self.asked} creates, 0 refused; each change is in the verdict within {max(self.waited):.1f} s"
