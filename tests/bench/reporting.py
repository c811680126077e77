"""What a report takes: one evaluation of the performance model, and the whole of it with alternatives, by size of the cluster."""

import time
from typing import Any

from timing import milliseconds

from builders import a_declaration, a_node, a_pod, an_inventory
from shardgate.adapters.alternatives import alternatives_of, nearest_of
from shardgate.adapters.forms.html import html
from shardgate.adapters.plans import needs_json
from shardgate.adapters.report import report
from shardgate.domain.declaration import Declaration
from shardgate.domain.fitting import fit_of
from shardgate.domain.inventory import Inventory
from shardgate.domain.performance.estimate import limits_of, replica_of
from shardgate.domain.performance.figures import performance_of
from shardgate.domain.performance.serving import Lengths
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.situation import look_at
from shardgate.domain.verify import verify

EVALUATIONS, REPORTS = 1000, 20
SIZES = (8, 5_000)
L40S = {"nvidia.com/gpu.product": "NVIDIA-L40S", "nvidia.com/gpu.memory": "46068"}
TRAFFIC = {"promptTokens": 1024, "outputTokens": 512, "concurrency": 256, "microBatches": 57}
REFERENCE: dict[str, Any] = {
    "engine": {"maxModelLen": 8192}, "traffic": TRAFFIC,
    "objectives": {"requestsPerSecond": 8, "timeToFirstTokenMilliseconds": 1500, "timePerOutputTokenMilliseconds": 80},
}  # fmt: skip


def reporting_rows() -> list[tuple[str, str]]:
    """Rows of the table, in milliseconds of this process's CPU."""
    declaration = a_declaration(**REFERENCE)
    one = an_inventory(a_node())
    seen = look_at(declaration, one, OWN_KIND)
    estimate = fit_of(seen.best_found.gpu, declaration, seen.weighed).estimate if seen.best_found and seen.weighed else None

    def evaluate() -> object:
        assert seen.weighed is not None
        assert seen.best_found is not None
        assert estimate is not None
        limits, lengths = limits_of(estimate, declaration), Lengths(prompt=1024, output=512)
        replica = replica_of(seen.weighed, seen.best_found.gpu, lengths, limits, 57)
        assert replica is not None
        return replica.at_concurrency(256)

    rows = [
        ("one evaluation of the performance model: p50 / p99", _cpu(evaluate, EVALUATIONS)),
        (
            "all figures of a declaration, its capacity under objectives among them: p50 / p99",
            _cpu(lambda: performance_of(declaration, seen.weighed, seen.best_found, 8, 1), EVALUATIONS),
        ),
    ]
    too_large = a_declaration(**{**REFERENCE, "strategy": {"tensor": 16, "pipeline": 1}, "gpus": {"perPod": 16}})
    for nodes in SIZES:
        inventory = _cluster(nodes)
        rows.append(
            (f"report with alternatives, {nodes} nodes: p50 / p99", _cpu(lambda at=inventory: _report(declaration, at), REPORTS))
        )
        rows.append(
            (f"the same as a page of HTML, {nodes} nodes: p50 / p99", _cpu(lambda at=inventory: _page(declaration, at), REPORTS))
        )
        rows.append(
            (f"the nearest that fits, for a refusal, {nodes} nodes: p50 / p99", _cpu(lambda at=inventory: nearest_of(too_large, at, OWN_KIND), REPORTS))
        )  # fmt: skip
    rows.append(("what hardware a model would need, over all products: p50 / p99", _cpu(lambda: needs_json(declaration), 5)))
    return rows


def _cluster(nodes: int) -> Inventory:
    """Two products, some GPUs taken."""
    found = [a_node(f"node-{index}", labels=None if index % 4 else L40S) for index in range(nodes)]
    return an_inventory(*found, *(a_pod(f"pod-{index}", node=f"node-{index}", gpus=index % 8 or 1) for index in range(0, nodes, 3)))


def _report(declaration: Declaration, inventory: Inventory) -> dict[str, Any]:
    verdict = verify(declaration, inventory, OWN_KIND)
    others = alternatives_of(declaration, inventory, OWN_KIND)
    return report(declaration, verdict, reference="0000", alternatives=others)


def _page(declaration: Declaration, inventory: Inventory) -> str:
    return html([_report(declaration, inventory)])


def _cpu(work: Any, runs: int) -> str:
    return f"{milliseconds(work, runs, time.process_time)} CPU"


if __name__ == "__main__":
    for name, value in reporting_rows():
        print(f"{name:<80} {value}")
