"""Fixtures that every kind of test may ask for."""

import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from controlplane.plane import ControlPlane, control_plane
from operator_user import AGENT_USER, OPERATOR_USER

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": [OPERATOR_USER, AGENT_USER]}, {"level": "None"}],
}


# No test asserts a time: what is slow on a busy machine is not wrong. `make bench` measures.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure() -> None:
    """A terminated run cleans up like an interrupted one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@pytest.fixture(scope="session")
def plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """One real control plane for the whole run; tests keep to their own namespaces, and clean up nodes."""
    with control_plane(audit_policy=AUDIT_POLICY, failed=lambda: request.session.testsfailed > 0) as running:
        yield running
