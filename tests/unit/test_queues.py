"""Kueue's quotas: what a queue could ever give."""

from typing import Any

import pytest

from builders import GPU, a_node, a_vllm_deployment, an_inventory
from shardgate.adapters.workload_verdicts import judged
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.queues import QUEUE_LABEL
from shardgate.adapters.workloads.registry import read_workload
from shardgate.domain.policy import FOREIGN_KIND

Json = dict[str, Any]


def queue(name: str, *flavors: Json, **spec: Any) -> Json:
    groups = [
        {
            "coveredResources": [GPU],
            "flavors": [
                {"name": f"flavor-{number}", "resources": [{"name": GPU, **quota}]} for number, quota in enumerate(flavors)
            ],
        }
    ]
    return {"kind": "ClusterQueue", "metadata": {"name": name}, "spec": {"resourceGroups": groups, **spec}}


LOCAL = {"kind": "LocalQueue", "metadata": {"name": "team", "namespace": "serving"}, "spec": {"clusterQueue": "own"}}


def findings(*objects: Json) -> list[tuple[str, str]]:
    body = a_vllm_deployment(replicas=2)
    body["metadata"]["labels"] = {QUEUE_LABEL: "team"}
    workload = read_workload(body, Library.of(objects))
    assert workload is not None
    found = judged(workload, (), an_inventory(*(a_node(f"n{each}") for each in range(4))), FOREIGN_KIND)
    assert found is not None
    return [(each.code, each.message) for each in found.verdict.findings]


@pytest.mark.parametrize(
    ("objects", "most"),
    [
        ([LOCAL, queue("own", {"nominalQuota": 8})], 8),
        ([LOCAL, queue("own", {"nominalQuota": "16"})], None),
        ([LOCAL, queue("own", {"nominalQuota": 8}, {"nominalQuota": 4})], 12),
        ([LOCAL, queue("own", {"nominalQuota": 8}, cohortName="all"), queue("other", {"nominalQuota": 8}, cohortName="all")], None),
        ([LOCAL, queue("own", {"nominalQuota": 8}, cohort="all"), queue("other", {"nominalQuota": 8}, cohort="none")], 8),
        (
            [
                LOCAL, queue("own", {"nominalQuota": 8, "borrowingLimit": 2}, cohort="all"),
                queue("other", {"nominalQuota": 8}, cohort="all"),
            ],
            10,
        ),
        (
            [
                LOCAL, queue("own", {"nominalQuota": 8}, cohort="all"),
                queue("other", {"nominalQuota": 8, "lendingLimit": 1}, cohort="all"),
            ],
            9,
        ),
        ([LOCAL, queue("own", {"nominalQuota": 8}, cohort="all"), {"kind": "Cohort", "metadata": {"name": "all"}, "spec": {}}], None),
        ([LOCAL], None),
        ([], None),
        ([LOCAL, queue("own", {"nominalQuota": "nonsense"})], None),
    ],
    ids=["too little", "enough", "two flavors", "borrowed", "another cohort", "borrows little", "lends little", "not told", "no queue",
         "nothing here", "no quantity"],
)  # fmt: skip
def test_the_most_that_a_queue_could_give(objects: list[Json], most: int | None) -> None:
    found = findings(*objects)
    assert [code for code, _ in found] == ([] if most is None else ["QuotaTooSmall"])
    if most is not None:
        assert f"ClusterQueue own behind queue team could give at most {most}" in found[0][1]
        assert "this needs 16" in found[0][1]
