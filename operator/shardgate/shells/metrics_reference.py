"""The page of all metrics, ``docs/metrics.md``, drawn from the registry that is served."""

from prometheus_client.metrics import MetricWrapperBase

from shardgate.shells.agent.node_metrics import PREFIX, NodeMetrics
from shardgate.shells.metrics import Metrics

_SUFFIX = {"counter": "_total", "info": "_info"}
"""What the exposition adds to a family's name."""

_INTRODUCTION = """\
# Metrics

Served on `/metrics` of the metrics port (8080), as OpenMetrics where that is asked for. Labels are codes, kinds and products, never
names of objects. Times are Unix times, so that `time() - x` is an age.

Series marked (leader) are 0, or not there, on replicas that do not lead: take `max by` over replicas, never `sum`. GPUs, placeable
pods and claims are told by every replica alike, and are taken so, too. Counters are each replica's own: `sum` of `rate`.

What alerts on them: [runbooks](runbooks/). A dashboard: `charts/shardgate/files/dashboard.json`.

| metric | type | labels | meaning |
|---|---|---|---|
"""


_NODES = """
## Node agents

Served on `/metrics` of each node agent's own port ([agent.md](agent.md)): of one node each, `sum` over nodes. Beside them stand the
process's own, as above.

| metric | type | labels | meaning |
|---|---|---|---|
"""


def reference(metrics: Metrics, node_metrics: NodeMetrics) -> str:
    """Markdown."""
    return _INTRODUCTION + _rows(metrics) + _NODES + _rows(node_metrics)


def _rows(metrics: Metrics | NodeMetrics) -> str:
    labels = {  # the only place where a family's labels are told before it has series
        next(iter(each.describe())).name: each._labelnames  # noqa: SLF001
        for each in vars(metrics).values()
        if isinstance(each, MetricWrapperBase)
    }
    rows = []
    for family in sorted(metrics.registry.collect(), key=lambda each: each.name):
        if isinstance(metrics, NodeMetrics) and not family.name.startswith(PREFIX):
            continue  # of the process, told above
        named = ", ".join(f"`{label}`" for label in labels.get(family.name, ()))
        if family.type == "info":
            named = ", ".join(f"`{label}`" for sample in family.samples for label in sample.labels)
        name = family.name + _SUFFIX.get(family.type, "")
        rows.append(f"| `{name}` | {family.type} | {named} | {family.documentation.rstrip('.')} |\n")
    return "".join(rows)
