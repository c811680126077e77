"""What cluster tests do to a live control plane."""

import copy
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from controlplane.plane import ControlPlane

Json = dict[str, Any]


def create_node(plane: ControlPlane, body: Json) -> None:
    """A Node with its status, as a kubelet would set it."""
    body = copy.deepcopy(body)
    status = body.pop("status")
    plane.apply(body)
    patch_status(plane, body["metadata"]["name"], status)


def patch_status(plane: ControlPlane, name: str, status: Json) -> None:
    """Of a node."""
    plane.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def create(plane: ControlPlane, objects: Iterable[Json]) -> None:
    """Nodes, bound pods and whatever else a case's cluster has."""
    for body in objects:
        if body["kind"] == "Node":
            create_node(plane, body)
        else:
            plane.apply(body)
            if body["kind"] == "ResourceQuota":
                until("the quota is counted", lambda quota=body: _is_counted(plane, quota))  # type: ignore[misc]  # a lambda's default


def _is_counted(plane: ControlPlane, quota: Json) -> bool:
    metadata = quota["metadata"]
    shown = plane.kubectl("get", "resourcequota", metadata["name"], "-n", metadata["namespace"], "-o", "json")
    return "used" in json.loads(shown.stdout).get("status", {})


def remove_everything(plane: ControlPlane) -> None:
    """Declarations, policies, pods, nodes, events, and the lease of an operator that was killed; namespaces stay."""
    plane.kubectl("delete", "lease", "shardgate", "-n", "shardgate-system", "--ignore-not-found")
    told_in = plane.kubectl("get", "events.events.k8s.io", "-A", "-o", "jsonpath={.items[*].metadata.namespace}").stdout
    for namespace in sorted(set(told_in.split())):
        # As one collection: the oracle leaves hundreds, and kubectl would delete them one by one.
        plane.kubectl("delete", "--raw", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
    plane.kubectl("delete", "inferencedeployments", "--all", "-A", "--wait=false", check=False)
    workloads = "deployments,statefulsets,replicasets,jobs"
    plane.kubectl("delete", f"{workloads},resourcequotas,workloadverdicts", "--all", "-A", "--wait=false", check=False)
    plane.kubectl("delete", "verificationpolicies,modelprofiles,capacityledgers", "--all", check=False)
    plane.kubectl("delete", "pods", "--all", "-A", "--grace-period=0", "--force", check=False)
    plane.kubectl("delete", "nodes", "--all", check=False)


def until(what: str, holds: Callable[[], bool], timeout: float = 15) -> float:
    """Wait until it holds; returns the seconds it took."""
    started = time.monotonic()
    while not holds():
        if time.monotonic() - started > timeout:
            raise AssertionError(f"{what}: not so within {timeout:.0f} s")
        time.sleep(0.05)
    return time.monotonic() - started


def find(plane: ControlPlane, name: str, namespace: str) -> Json:
    """A declaration, or nothing."""
    result = plane.kubectl("get", "infd", name, "-n", namespace, "-o", "json", check=False)
    return dict(json.loads(result.stdout)) if result.returncode == 0 else {}


def status(plane: ControlPlane, name: str, namespace: str) -> Json:
    """A declaration's status; empty while there is none."""
    return dict(find(plane, name, namespace).get("status") or {})


def wait_for_outcome(plane: ControlPlane, name: str, namespace: str, outcome: str, timeout: float = 15) -> Json:
    """The status once it has this outcome."""
    until(f"{namespace}/{name} {outcome}", lambda: status(plane, name, namespace).get("outcome") == outcome, timeout)
    return status(plane, name, namespace)


def wait_for_rest(plane: ControlPlane, status: str = "") -> None:
    """Until the operator has told how it is: it looks for its webhooks now and then, and says what it finds."""

    def is_told() -> bool:
        shown = plane.kubectl("get", "capacityledger", "shardgate", "-o", "json", check=False)
        found = json.loads(shown.stdout or "{}").get("status", {}).get("conditions", [])
        return any(each["type"] == "WebhooksInPlace" and each["status"] in (status or ("True", "False")) for each in found)

    until("the operator has looked for its webhooks", is_told, timeout=40)


def serving(plane: ControlPlane, definitions: Sequence[Json]) -> Iterator[ControlPlane]:
    """While these kinds are served."""
    plane.apply(*definitions, options=("--server-side",))  # some are too long for an annotation
    names = [each["metadata"]["name"] for each in definitions]
    plane.wait_for_kinds(*names)
    until("they are served", lambda: plane.kubectl("get", ",".join(names), "-A", check=False).returncode == 0)
    yield plane
    plane.kubectl("delete", "customresourcedefinitions", *names)
