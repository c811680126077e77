"""Shardgate on a local control plane: CRDs, RBAC, webhooks by URL, and the operator as a process with its own rights."""

import base64
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from controlplane.plane import ControlPlane
from controlplane.processes import Guarded, free_ports
from shardgate.adapters.manifests import rbac, user_roles, webhook_configurations

ROOT = Path(__file__).resolve().parents[3]
NAMESPACE = "shardgate-system"


class Installation:
    """One replica's worth of Shardgate (more replicas are more operators with ``replica``)."""

    def __init__(
        self, plane: ControlPlane, *, failure_policy: str = "Ignore", drain_seconds: float = 0, keeps_certificates: bool = False,
        program: Sequence[str] = ("-m", "shardgate.main"), more_environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """``program``: what ``kopf run`` is told to load."""
        self._program, self.more_environment = program, dict(more_environment or {})
        self.plane, self.failure_policy, self.drain_seconds = plane, failure_policy, drain_seconds
        self.keeps_certificates = keeps_certificates
        """The operator makes its own, rather than being given a pair."""
        self.webhook_port, self.metrics_port = free_ports(2)
        self.certificate, self.key = plane.authority.issue(f"webhook-{self.webhook_port}")
        self.log = plane.folder / f"operator-{self.webhook_port}.log"
        self.operator: Guarded | None = None
        self.kubeconfig: Path | None = None

    def objects(self) -> list[dict[str, Any]]:
        """Namespace, CRDs, RBAC: everything but the webhooks."""
        crds = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "deploy/crds").glob("*.yaml"))]
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        return [namespace, *crds, *rbac(NAMESPACE, keeps_certificates=self.keeps_certificates), *user_roles()]

    def webhooks(self) -> list[dict[str, Any]]:
        """The webhook configurations, reaching the operator by URL."""
        client = {"url": f"https://127.0.0.1:{self.webhook_port}"}
        if not self.keeps_certificates:
            client["caBundle"] = base64.b64encode(self.plane.authority.pem).decode()
        return webhook_configurations(client, exempt_namespaces=[NAMESPACE], failure_policy=self.failure_policy)

    def install(self) -> None:
        """Create the objects, and wait until the API server serves our kinds."""
        self.plane.apply(*self.objects())
        self.plane.wait_for_kinds()
        self.connect()

    def connect(self, server: str = "") -> None:
        """Give the operator a kubeconfig with a token of its ServiceAccount; ``server``: what stands before the API server."""
        token = self.plane.kubectl("-n", NAMESPACE, "create", "token", "shardgate", "--duration=2h").stdout.strip()
        self.kubeconfig = self.plane.token_kubeconfig(token, f"operator-{self.webhook_port}", server)

    def environment(self) -> dict[str, str]:
        """What the operator is configured by."""
        pair = {"SHARDGATE_TLS_CERT": str(self.certificate), "SHARDGATE_TLS_KEY": str(self.key)}
        own = {"SHARDGATE_CERTIFICATE_HOSTS": "127.0.0.1"}
        return {
            **(own if self.keeps_certificates else pair),
            "PATH": os.environ.get("PATH", ""), "HOME": str(self.plane.folder), "KUBECONFIG": str(self.kubeconfig),
            "SHARDGATE_WEBHOOK_PORT": str(self.webhook_port), "SHARDGATE_METRICS_PORT": str(self.metrics_port),
            "SHARDGATE_BIND_ADDRESS": "127.0.0.1", "SHARDGATE_NAMESPACE": NAMESPACE,
            "SHARDGATE_DRAIN_SECONDS": str(self.drain_seconds), **self.more_environment,
        }  # fmt: skip

    def command(self) -> list[str]:
        """How the operator is started."""
        kopf = Path(sys.executable).with_name("kopf")
        return [str(kopf if kopf.exists() else shutil.which("kopf") or "kopf"), "run", "-A", *self._program]

    def start(self, timeout: float = 60) -> float:
        """Start the operator; returns the seconds until it was ready."""
        started = time.monotonic()
        self.launch().wait_until(self.is_ready, timeout)
        return time.monotonic() - started

    def launch(self) -> Guarded:
        """Start the operator, ready or not."""
        self.operator = Guarded("operator", self.command(), self.log, self.environment())
        return self.operator

    def register_webhooks(self) -> None:
        """Once the operator answers, and until the API server has taken notice."""
        self.plane.apply(*self.webhooks())

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self.operator is not None:
            self.operator.stop(30)
            self.operator = None

    def kill(self) -> None:
        """SIGKILL."""
        if self.operator is not None:
            self.operator.kill()
            self.operator = None

    def fetch(self, path: str) -> tuple[int, str]:
        """(status, body) of the health and metrics port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def is_ready(self) -> bool:
        """Whether ``/readyz`` says so."""
        return self.fetch("/readyz")[0] == 200

    def metric(self, line: str) -> float | None:
        """The value of the series written like this in the exposition."""
        for each in self.fetch("/metrics")[1].splitlines():
            if each.startswith(line + " "):
                return float(each.rsplit(" ", 1)[1])
        return None
