"""A real Prometheus beside a control plane: it scrapes operators and the API server, and evaluates rules every second."""

import json
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from controlplane.plane import ControlPlane
from controlplane.processes import Guarded, free_ports

Json = dict[str, Any]


class Prometheus:
    """One server on 127.0.0.1. Its data are in the plane's folder and go with it."""

    def __init__(
        self, program: Path, plane: ControlPlane, metrics_ports: Sequence[int], rules: Mapping[str, Any],
        *, more_jobs: Sequence[Mapping[str, Any]] = (),
    ) -> None:  # fmt: skip
        """``metrics_ports``: of operators; ``rules``: what a rules file holds; ``more_jobs``: what else is scraped."""
        (self.port,) = free_ports(1)
        self.folder = plane.folder / f"prometheus-{self.port}"
        self.folder.mkdir()
        (self.folder / "rules.yaml").write_text(json.dumps(rules))
        self._config = self.folder / "prometheus.yml"
        config = _config(plane, metrics_ports)
        config["scrape_configs"] += more_jobs
        self._config.write_text(yaml.safe_dump(config))
        self._program = program
        self._server: Guarded | None = None

    def start(self) -> None:
        """Raises ``StartError`` with the end of its log when it does not come up."""
        command = [
            str(self._program), f"--config.file={self._config}", f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}", "--storage.tsdb.retention.time=2h",
            "--storage.tsdb.retention.size=256MB", "--log.level=warn",
        ]  # fmt: skip
        self._server = Guarded("prometheus", command, self.folder / "prometheus.log", {})
        self._server.wait_until(self._is_ready, 60)

    def stop(self) -> None:
        """At once: nothing of it is kept."""
        if self._server is not None:
            self._server.kill()
            self._server = None

    def query(self, expression: str) -> list[Json]:
        """The series that it has now: ``metric`` and ``value``."""
        found: list[Json] = self._get("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Of the one series; none where there is none, or several."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else None

    def alerts(self, name: str) -> list[Json]:
        """Those of this name that are pending or firing: ``labels``, ``annotations``, ``state``, ``activeAt``."""
        return [each for each in self._get("alerts")["alerts"] if each["labels"]["alertname"] == name]

    def targets(self) -> dict[str, str]:
        """Job -> the last scrape's error, or nothing."""
        return {each["labels"]["job"]: each["lastError"] for each in self._get("targets")["activeTargets"]}

    def rules(self) -> list[Json]:
        """Every rule that it has loaded, with its ``health`` and ``lastError``."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{what}?{query}", timeout=10) as response:
            return json.load(response)["data"]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False


def _config(plane: ControlPlane, metrics_ports: Sequence[int]) -> Json:
    certificate, key = plane.admin
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {
                "job_name": "shardgate",
                "scrape_protocols": ["OpenMetricsText1.0.0"],  # nothing else would do: what is served is that
                "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in metrics_ports]}],
            },
            {
                "job_name": "apiserver",
                "scheme": "https",
                "scrape_interval": "2s",
                "tls_config": {"ca_file": str(plane.authority.path), "cert_file": str(certificate), "key_file": str(key)},
                "static_configs": [{"targets": [f"127.0.0.1:{plane.port}"]}],
                "metric_relabel_configs": [
                    {"source_labels": ["__name__"], "regex": "apiserver_admission_webhook_.+", "action": "keep"}
                ],
            },
        ],
    }
