"""Faults of the control plane under a running operator; these use an instance of their own."""

import json
import socket
import threading
from collections.abc import Iterator

import pytest
from live import create_node, patch_status, until, wait_for_outcome
from reviews import Hook, review

from builders import a_body, a_node, a_pod
from controlplane.installation import Installation
from controlplane.plane import ControlPlane, control_plane


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[tuple[ControlPlane, Installation]]:
    """A control plane and an operator that this test may break."""
    with control_plane(failed=lambda: request.session.testsfailed > 0) as plane:
        installation = Installation(plane)
        installation.install()
        plane.kubectl("create", "namespace", "serving")
        create_node(plane, a_node().body)
        installation.start()
        yield plane, installation
        installation.stop()


def pod(name: str, gpus: int) -> dict[str, object]:
    body = a_pod(name, node="node-a", gpus=gpus)
    body["metadata"].pop("uid")
    body.pop("status")
    return body


def test_the_api_server_restarts_and_what_went_meanwhile_is_gone(own: tuple[ControlPlane, Installation]) -> None:
    """While the operator's API server is down, pods and a node are deleted through another one.

    The restarted server's watch cache begins after those deletions, so that resuming gets a real 410, and only
    a list that replaces what was known can tell.
    """
    plane, installation = own
    create_node(plane, a_node("node-b").body)
    plane.apply(a_body(), pod("holds-a", 8), {**pod("holds-b", 8), "spec": {**pod("holds-b", 8)["spec"], "nodeName": "node-b"}})  # type: ignore[dict-item]
    busy = wait_for_outcome(plane, "llama", "serving", "Waiting")
    assert [each["code"] for each in busy["findings"]] == ["GpusBusy"]

    with plane.another_api_server() as other:
        plane.stop_api_server()
        other("delete", "pod", "holds-a", "holds-b", "-n", "serving", "--grace-period=0", "--force")
        other("delete", "node", "node-b")
        for count in range(30):  # history moves on
            other("annotate", "namespace", "serving", f"step={count}", "--overwrite")
    plane.start_api_server()
    wait_for_outcome(plane, "llama", "serving", "Sound", timeout=30)
    free = 'shardgate_gpus{product="H100-80GB-HBM3",state="free"}'
    until("one node is left, all of it free", lambda: installation.metric(free) == 8)
    assert installation.operator is not None
    assert installation.operator.is_running(), "the operator lives through it"
    until("ready again", installation.is_ready, timeout=30)
    restarts = [
        line for line in installation.fetch("/metrics")[1].splitlines() if line.startswith("shardgate_watch_restarts_total")
    ]
    assert any('reason="relist"' in line or 'reason="410"' in line for line in restarts), restarts
    patch_status(plane, "node-a", {"allocatable": {"nvidia.com/gpu": "7"}})
    wait_for_outcome(plane, "llama", "serving", "Waiting")


def test_admission_goes_on_while_the_api_server_is_away(own: tuple[ControlPlane, Installation]) -> None:
    """Answers rest on the snapshot until it is stale, and then refuse nothing by it; the process stays alive."""
    plane, installation = own
    hook, too_big = Hook(installation), review(a_body("big", strategy={"tensor": 16}))
    plane.stop_api_server()
    broken = 'shardgate_watch_restarts_total{reason="connection",resource="nodes"}'
    until("the broken watch is noticed", lambda: (installation.metric(broken) or 0) > 0)
    assert "GpuCountTooLow" in hook.post("/validate", too_big)[1]
    assert installation.fetch("/livez")[0] == 200
    until("the broken watch turns readiness", lambda: not installation.is_ready(), timeout=40)
    assert "broken" in installation.fetch("/readyz")[1]
    # Readiness looks at every watch, a verdict at those of the inventory, which may have broken a moment later.
    until("a stale inventory refuses nothing", lambda: json.loads(hook.post("/validate", too_big)[1])["response"]["allowed"])
    plane.start_api_server()
    until("ready again", installation.is_ready, timeout=30)
    until("refused again", lambda: "GpuCountTooLow" in hook.post("/validate", too_big)[1])
    assert installation.operator is not None
    assert installation.operator.is_running()


def test_slow_clients_do_not_hold_up_others(own: tuple[ControlPlane, Installation]) -> None:
    """Two hundred connections that never speak, and the webhook still answers in time."""
    plane, installation = own
    installation.register_webhooks()
    sockets = []
    for _ in range(200):
        each = socket.socket()
        each.connect(("127.0.0.1", installation.webhook_port))
        sockets.append(each)
    try:
        answered = threading.Event()

        def ask() -> None:
            until("an answer", lambda: "GpuCountTooLow" in plane.apply(a_body("big", strategy={"tensor": 16}), check=False).stderr)
            answered.set()

        threading.Thread(target=ask, daemon=True).start()
        assert answered.wait(20)
    finally:
        for each in sockets:
            each.close()
