"""Karpenter's kinds on a live control plane: watched where they are served."""

from collections.abc import Callable

from live import until, wait_for_outcome

from builders import AWS, a_body, a_pool
from controlplane.installation import Installation
from controlplane.plane import ControlPlane


def test_a_pool_that_may_grow_is_waited_for(karpenter: ControlPlane, start: Callable[..., Installation]) -> None:
    pool = a_pool((f"{AWS}family", "In", ["p5"]))
    karpenter.apply(pool)
    start()
    karpenter.apply(a_body())
    status = wait_for_outcome(karpenter, "llama", "serving", "Waiting")
    assert [each["code"] for each in status["findings"]] == ["NodesToProvision"]
    assert "NodePool gpu may bring nodes of 8 x H100-80GB-HBM3" in status["findings"][0]["message"]
    karpenter.kubectl("delete", "nodepool", pool["metadata"]["name"])
    until("the pool is gone", lambda: "NodesToProvision" not in findings(karpenter))


def findings(plane: ControlPlane) -> str:
    """Findings of the declaration as they stand."""
    return plane.kubectl("get", "infd", "llama", "-n", "serving", "-o", "jsonpath={.status.findings}").stdout
