"""A real Prometheus scrapes the operator and the API server, and alarms: pending at once, firing after its time, over at once."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pytest
from live import create_node, patch_status, until, wait_for_outcome

from builders import a_body, a_node, a_vllm_deployment
from charts import say
from controlplane.chart import CHART, rendered
from controlplane.installation import Installation
from controlplane.plane import ControlPlane
from controlplane.prometheus import Prometheus
from controlplane.tools import find_tool

DASHBOARD: dict[str, Any] = json.loads((CHART / "files/dashboard.json").read_text())
ALERT, FOR_SECONDS = "ShardgateDeclarationMismatch", 6
VIOLATIONS = 'shardgate_policy_violations{kind="Deployment"}'
MISMATCHES = "max(shardgate_declaration_mismatches)"


def rules() -> dict[str, Any]:
    """As the chart renders them, with a short time for one of them."""
    values = {"prometheusRule": {"enabled": True, "for": {ALERT: f"{FOR_SECONDS}s"}}}
    (rule,) = rendered("--show-only", "templates/prometheusrule.yaml", values=values, say=say)
    found: dict[str, Any] = rule["spec"]
    return found


Start = Callable[..., Installation]
Watch = Callable[[Installation], Prometheus]


@pytest.fixture
def watch(clean: ControlPlane) -> Iterator[Watch]:
    """Starts a Prometheus that watches an operator and the API server."""
    with ExitStack() as stack:

        def begin(installation: Installation) -> Prometheus:
            prometheus = Prometheus(find_tool("prometheus", say), clean, [installation.metrics_port], rules())
            stack.callback(prometheus.stop)
            prometheus.start()
            until("both are scraped", lambda: sum(each["value"][1] == "1" for each in prometheus.query("up")) == 2)
            return prometheus

        yield begin


def _fails_open(plane: ControlPlane) -> bool:
    plane.apply(a_body("unjudged"), options=("--dry-run=server",))
    shown = plane.kubectl("get", "--raw", "/metrics").stdout
    return any(
        each.startswith("apiserver_admission_webhook_fail_open_count") and "shardgate.io" in each for each in shown.splitlines()
    )


def state(prometheus: Prometheus) -> str:
    return ",".join(each["state"] for each in prometheus.alerts(ALERT))


def moved(prometheus: Prometheus, value: float) -> Callable[[], bool]:
    return lambda: prometheus.value(MISMATCHES) == value


def test_a_node_that_loses_a_gpu_alarms_and_the_dashboard_shows_it(plane: ControlPlane, start: Start, watch: Watch) -> None:
    create_node(plane, a_node().body)
    plane.apply(*Installation(plane).webhooks())
    until("the API server lets something in unjudged, as nobody answers", lambda: _fails_open(plane))
    installation = start()
    wrong = a_vllm_deployment("wrong", tensor=16, gpus=16)  # its pod stays Pending, and takes nothing
    plane.apply({**wrong, "metadata": {**wrong["metadata"], "namespace": "unseen"}})  # let in by no webhook
    plane.apply(a_body())
    wait_for_outcome(plane, "llama", "serving", "Sound")
    until("what was let in unseen is counted", lambda: installation.metric(VIOLATIONS) is not None)
    prometheus = watch(installation)
    assert set(prometheus.targets().values()) == {""}
    loaded = prometheus.rules()
    assert {each["name"] for each in loaded} >= {ALERT, "ShardgateDeclarationDown"}
    until("every rule was evaluated", lambda: {each["health"] for each in prometheus.rules()} == {"ok"})
    assert (prometheus.value(MISMATCHES), state(prometheus)) == (0, "")

    patch_status(plane, "node-a", {"allocatable": {"nvidia.com/gpu": "7"}})
    until("the metric moves", moved(prometheus, 1))
    until("the alert is pending", lambda: state(prometheus) == "pending", timeout=5)
    until("the alert fires", lambda: state(prometheus) == "firing", timeout=30)
    (alert,) = prometheus.alerts(ALERT)
    assert time.time() - datetime.fromisoformat(alert["activeAt"]).timestamp() >= FOR_SECONDS, "it fired before its time"
    assert (alert["labels"]["kind"], alert["labels"]["severity"]) == ("InferenceDeployment", "warning")
    assert "At least 1 standing InferenceDeployment became Waiting or Unsound" in alert["annotations"]["description"]
    assert [each["state"] for each in prometheus.alerts("ShardgateNodeShortOfGpus")] == ["pending"]

    _every_query_returns_series(prometheus)

    patch_status(plane, "node-a", {"allocatable": {"nvidia.com/gpu": "8"}})
    until("the metric moves back", moved(prometheus, 0))
    until("the alert is over", lambda: state(prometheus) == "", timeout=5)


def _every_query_returns_series(prometheus: Prometheus) -> None:
    """While something stands that would not start again: no panel of the dashboard is empty."""
    queries = [
        target["expr"].replace("$__rate_interval", "1m") for panel in DASHBOARD["panels"] for target in panel.get("targets", [])
    ]
    assert len(queries) > 30
    until("there are two samples of each", lambda: bool(prometheus.query("rate(apiserver_admission_webhook_request_total[1m])")))
    assert [each for each in queries if not prometheus.query(each)] == []


def test_when_all_replicas_are_gone_what_they_told_last_still_alarms(clean: ControlPlane, start: Start, watch: Watch) -> None:
    create_node(clean, a_node().body)
    installation = start(webhooks=False)
    clean.apply(a_body())
    wait_for_outcome(clean, "llama", "serving", "Sound")
    prometheus = watch(installation)
    patch_status(clean, "node-a", {"allocatable": {"nvidia.com/gpu": "7"}})
    until("the alert is pending", lambda: state(prometheus) == "pending")
    assert prometheus.alerts("ShardgateWebhookDown") == []
    installation.kill()
    until("that nobody answers is noticed", lambda: len(prometheus.alerts("ShardgateWebhookDown")) == 1)
    until("the mismatch fires all the same", lambda: state(prometheus) == "firing", timeout=30)
