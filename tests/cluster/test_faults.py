"""Clients that misbehave, on an instance of their own."""

import socket
import threading
from collections.abc import Iterator

import pytest
from live import create_node, until

from builders import a_body, a_node
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
