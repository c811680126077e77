"""The page of metrics tells every family, its labels, and the name that it is scraped by."""

from prometheus_client import Gauge

from shardgate.shells.agent.node_metrics import NodeMetrics
from shardgate.shells.metrics import Metrics
from shardgate.shells.metrics_reference import reference


def test_every_family_is_told_with_its_labels() -> None:
    page = reference(Metrics(), NodeMetrics())
    assert "| `shardgate_gpus` | gauge | `product`, `state` | GPUs by product and state |" in page
    assert "| `shardgate_build_info` | info | `version` | Version |" in page
    assert "| `shardgate_findings_total` | counter | `code` |" in page
    assert "| `shardgate_node_gpus` | gauge | `state` | GPUs of this node" in page
    assert "| `shardgate_node_build_info` | info | `version` | Version |" in page


def test_a_new_metric_is_on_the_page() -> None:
    metrics = Metrics()
    Gauge("further", "One more.", namespace="shardgate", registry=metrics.registry)
    assert "| `shardgate_further` | gauge |  | One more |" in reference(metrics, NodeMetrics())
