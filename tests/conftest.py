"""Fixtures that every kind of test may ask for."""

import signal
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import settings

from controlplane.plane import ControlPlane, control_plane
from operator_user import AGENT_USER, OPERATOR_USER
from screenshots import SCREENSHOTS

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": [OPERATOR_USER, AGENT_USER]}, {"level": "None"}],
}


# No test asserts a time: what is slow on a busy machine is not wrong. `make bench` measures.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


BEGAN = pytest.StashKey[float]()
"""When the run began, in seconds of the system's clock."""


def pytest_configure(config: pytest.Config) -> None:
    """A terminated run cleans up like an interrupted one."""
    config.stash[BEGAN] = time.time()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where the browser's screenshots are, if there are any of this run."""
    began = terminalreporter.config.stash[BEGAN]
    new = [each for each in SCREENSHOTS.glob("*.p[nd][gf]") if each.stat().st_mtime >= began]
    if new:
        terminalreporter.write_line(f"screenshots and prints of the HTML report, to be looked at: {SCREENSHOTS} ({len(new)} files)")


@pytest.fixture(scope="session")
def plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """One real control plane for the whole run; tests keep to their own namespaces, and clean up nodes."""
    with control_plane(audit_policy=AUDIT_POLICY, failed=lambda: request.session.testsfailed > 0) as running:
        yield running
