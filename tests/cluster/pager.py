"""Whom a cluster's life would wake: a real Prometheus with the alerts as they are delivered, beside an operator."""

import time
from types import TracebackType
from typing import Any, Self

import yaml
from live import until

from charts import say
from controlplane.chart import ROOT
from controlplane.installation import Installation
from controlplane.plane import ControlPlane
from controlplane.prometheus import Prometheus
from controlplane.tools import find_tool

Json = dict[str, Any]
RULES = ROOT / "deploy/monitoring/rules.yaml"
SETTLE_SECONDS = 3.0
"""A scrape and an evaluation, each once a second, and one to spare."""


class Pager:
    """Alerts of severity ``critical``, from the first scrape on. Pending counts: it rings if what is seen goes on."""

    def __init__(self, plane: ControlPlane, installation: Installation) -> None:
        rules = yaml.safe_load(RULES.read_text())
        self._prometheus = Prometheus(find_tool("prometheus", say), plane, [installation.metrics_port], rules)

    def __enter__(self) -> Self:
        self._prometheus.start()
        until(
            "operator and API server are scraped",
            lambda: sum(each["value"][1] == "1" for each in self._prometheus.query("up")) == 2,
        )
        self._since = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self._prometheus.stop()

    def told(self) -> dict[str, str]:
        """Alert -> the last state that it was in, once the present was evaluated; without those that were always quiet."""
        time.sleep(SETTLE_SECONDS)
        rules = [each for each in self._prometheus.rules() if each["type"] == "alerting"]
        assert {each["health"] for each in rules} == {"ok"}
        assert any(each["labels"]["severity"] == "critical" for each in rules)
        seconds = int(time.monotonic() - self._since) + 1
        found = self._prometheus.query(f'last_over_time(ALERTS{{severity="critical"}}[{seconds}s])')
        return {each["metric"]["alertname"]: each["metric"]["alertstate"] for each in found}

    def tells(self, alert: str) -> str:
        """The state of one now; empty where it is quiet."""
        return ",".join(each["state"] for each in self._prometheus.alerts(alert))
