"""Agents on emulated drivers, the operator that believes them, and what each of them may write."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from audit import writes
from emulated_agents import LOST, Agents, agent_pod, agents_writes, following, permitted
from faults import Measured
from live import create_node, status, until, wait_for_outcome, wait_for_rest

from builders import a_body, a_node
from conftest import register
from controlplane.installation import NAMESPACE, Installation
from controlplane.plane import ControlPlane
from nvml import library
from shardgate.api import API_VERSION
from shardgate.shells.agent.api_server import JSON_PATCH, MERGE_PATCH, ApiServer, Refused
from shardgate.shells.agent.publisher import REPORTS

NODES = ("gpu-a", "gpu-b", "gpu-c")
CONTRADICTING = 'shardgate_node_facts_contradicting{{kind="{}",product="H100-80GB-HBM3"}}'
QUIET_SECONDS = 10
"""How long nothing but heartbeats is to be written: five of them."""


@pytest.fixture
def agents(clean: ControlPlane, tmp_path: Path) -> Iterator[Agents]:
    """On three nodes, all healthy, their reports written."""
    with permitted(clean):
        found = Agents(clean, tmp_path)
        try:
            for node in NODES:
                found.begin(node)
            until("all report", lambda: all(found.report(node).get("status", {}).get("gpus") for node in NODES), timeout=30)
            yield found
        finally:
            found.stop()


@pytest.fixture
def believing(agents: Agents) -> Iterator[Installation]:
    """An operator that follows them."""
    operator = following(agents.plane, stale_after_seconds=8)
    operator.connect()
    try:
        operator.start()
        until("all reports count", lambda: operator.metric('shardgate_node_reports{state="fresh"}') == len(NODES))
        register(operator)
        yield operator
    finally:
        operator.stop()


def lines(plane: ControlPlane) -> int:
    return len(plane.audit_log.read_text().splitlines())


def test_what_a_driver_says_reaches_verdicts_conditions_metrics_events_and_alerts(
    agents: Agents, believing: Installation, measured: Measured
) -> None:
    plane = agents.plane
    plane.apply(a_body("three", replicas=3))
    wait_for_outcome(plane, "three", "serving", "Sound")

    # A label edited by hand: the driver is believed, and the difference told.
    plane.kubectl("label", "node", "gpu-c", "nvidia.com/gpu.product=Tesla-T4", "--overwrite")
    took = until("the metric tells", lambda: believing.metric(CONTRADICTING.format("product")) == 1)
    measured(f"a label edited by hand: the metric that the alert reads told after {took:.1f} s")

    def told() -> str:
        events = plane.get("events.events.k8s.io", "-n", "default")["items"]
        return "; ".join(
            each["note"] for each in events if each["regarding"]["name"] == "gpu-c" and each["reason"] == "GpuFactsContradict"
        )

    until("an event tells", lambda: "say Tesla-T4, the driver H100-80GB-HBM3" in told())
    assert status(plane, "three", "serving")["outcome"] == "Sound"
    described = plane.kubectl("describe", "gpunodereport", "gpu-c").stdout
    assert "GpuFactsContradict" in described

    # One GPU falls off the bus: all three nodes are needed, so that the declaration has to wait.
    agents.show("gpu-b", LOST)
    took = until("the verdict changes", lambda: status(plane, "three", "serving").get("outcome") == "Waiting")
    measured(f"a GPU lost, agents reading every 2 s: the verdict changed after {took:.1f} s")
    found = status(plane, "three", "serving")
    assert [each["code"] for each in found["findings"]] == ["NodesUnavailable"]
    feasible = next(each for each in found["conditions"] if each["type"] == "Feasible")
    assert (feasible["status"], feasible["reason"]) == ("False", "NodesUnavailable")
    until("the metrics tell", lambda: believing.metric('shardgate_nodes_short_of_gpus{product="H100-80GB-HBM3"}') == 1)
    mismatches = 'shardgate_declaration_mismatches{code="NodesUnavailable",kind="InferenceDeployment"}'
    until("and those of the mismatch alert", lambda: believing.metric(mismatches) == 1)
    refused = plane.apply(a_body("one-more", replicas=3), options=("--dry-run=server",), check=False)
    assert refused.returncode == 0, "what time may heal is let in"

    # It comes back, and so does the verdict.
    agents.show("gpu-b", library.PROFILES / "h100-8x-nvswitch.json")
    took = until("the verdict is as before", lambda: status(plane, "three", "serving").get("outcome") == "Sound")
    measured(f"the GPU is back: the verdict changed after {took:.1f} s")


def test_at_rest_nothing_but_heartbeats_is_written(agents: Agents, believing: Installation) -> None:
    plane = agents.plane
    plane.apply(a_body("three", replicas=3))
    wait_for_outcome(plane, "three", "serving", "Sound")
    wait_for_rest(plane)
    until("amounts are told", lambda: all(agents.report(node)["status"].get("gpus") for node in NODES))
    since, before = lines(plane), len(writes(plane))
    time.sleep(QUIET_SECONDS)
    written = agents_writes(plane, since)
    assert {(verb, resource) for verb, resource, _ in written} == {("patch", "leases")}
    assert {name for _, _, name in written} == set(NODES)
    assert len(written) <= len(NODES) * (QUIET_SECONDS / agents.heartbeat + 2)
    assert writes(plane)[before:] == [], "the operator writes nothing"
    assert believing.metric('shardgate_node_reports{state="fresh"}') == len(NODES)


OWN_NODE = "an agent writes the report and the Lease of its own node alone"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
FORBIDDEN = (
    ("DELETE", f"{REPORTS}/gpu-a"), ("GET", REPORTS), ("DELETE", f"{LEASES}/gpu-a"), ("GET", LEASES), ("GET", f"{LEASES}/shardgate"),
    ("GET", "/api/v1/nodes"), ("GET", "/api/v1/pods"), ("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets"),
)  # fmt: skip


def test_an_agent_writes_its_own_nodes_report_and_lease_alone(agents: Agents) -> None:
    with closing(agents.client("gpu-a")) as own, closing(agents.client(None)) as unbound:
        is_held_to_its_node(own, unbound)


def is_held_to_its_node(own: ApiServer, unbound: ApiServer) -> None:
    reading = [{"op": "add", "path": "/status", "value": {"changedAt": "2026-01-01T00:00:00Z", "gpus": []}}]
    for path, change, form in (
        (REPORTS + "/{}/status", reading, JSON_PATCH),
        (REPORTS + "/{}", {"metadata": {"labels": {"a": "b"}}}, MERGE_PATCH),
        (LEASES + "/{}", {"spec": {"holderIdentity": "other"}}, MERGE_PATCH),
    ):
        with pytest.raises(Refused, match=f"{OWN_NODE}: this one runs on gpu-a"):
            own.request("PATCH", path.format("gpu-b"), change, form)
        with pytest.raises(Refused, match=f"{OWN_NODE}: this token is bound to no pod on a node"):
            unbound.request("PATCH", path.format("gpu-a"), change, form)
        assert own.request("PATCH", path.format("gpu-a") + "?dryRun=All", change, form)["metadata"]["name"] == "gpu-a"
    ours = {"apiVersion": "v1", "kind": "Node", "name": "gpu-a", "uid": "u"}
    for owners in ([], None, [ours | {"name": "gpu-b"}], [ours | {"kind": "ConfigMap"}], [ours | {"apiVersion": "v2"}],
                   [ours, ours | {"kind": "Pod", "uid": "v"}]):  # fmt: skip
        with pytest.raises(Refused, match="owned by its node, and by nobody else"):
            own.request("PATCH", f"{REPORTS}/gpu-a", {"metadata": {"ownerReferences": owners}}, MERGE_PATCH)
    with pytest.raises(Refused, match="no finalizer may keep it"):
        own.request("PATCH", f"{REPORTS}/gpu-a", {"metadata": {"finalizers": ["example.com/stay"]}}, MERGE_PATCH)
    for name in ("gpu-x", "shardgate"):
        with pytest.raises(Refused, match=OWN_NODE):
            own.request("POST", REPORTS, {"apiVersion": API_VERSION, "kind": "GpuNodeReport", "metadata": {"name": name}})
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
        with pytest.raises(Refused, match=OWN_NODE):
            own.request("POST", LEASES, lease)
    for method, path in FORBIDDEN:
        with pytest.raises(Refused, match="cannot"):
            own.request(method, path)


def test_the_agent_of_a_node_named_as_the_operators_lease_does_not_get_it(agents: Agents) -> None:
    create_node(agents.plane, a_node("shardgate").body)
    agents.plane.apply(agent_pod("shardgate"))
    owner = {
        "apiVersion": "v1",
        "kind": "Node",
        "name": "shardgate",
        "uid": agents.plane.get("node", "shardgate")["metadata"]["uid"],
    }
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "shardgate", "ownerReferences": [owner]}}
    try:
        with closing(agents.client("shardgate")) as own, pytest.raises(Refused, match="that Lease is the operator's"):
            own.request("POST", LEASES, lease)
    finally:
        agents.plane.kubectl("delete", "pod", "agent-shardgate", "-n", NAMESPACE, "--grace-period=0", "--force")
        agents.plane.kubectl("delete", "node", "shardgate")


def test_who_is_not_heard_is_believed_no_more_and_goes_with_its_node(agents: Agents, believing: Installation) -> None:
    plane = agents.plane
    plane.kubectl("label", "node", "gpu-a", "nvidia.com/gpu.product=Tesla-T4", "nvidia.com/gpu.memory=15360", "--overwrite")
    until("the driver is believed", lambda: believing.metric(CONTRADICTING.format("product")) == 1)
    agents.kill("gpu-a")
    until("it is silent", lambda: believing.metric('shardgate_node_reports{state="silent"}') == 1, timeout=25)
    until("labels hold", lambda: believing.metric('shardgate_gpus{product="Tesla-T4",state="installed"}') == 8)
    agents.start("gpu-a")
    until("it is heard again", lambda: believing.metric('shardgate_gpus{product="H100-80GB-HBM3",state="installed"}') == 24)
    agents.kill("gpu-a")
    plane.kubectl("delete", "node", "gpu-a")
    until("its report goes with it", lambda: not agents.report("gpu-a"), timeout=60)
