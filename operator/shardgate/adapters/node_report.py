"""How a node's GPUs are read -> JSON: each fact, and where it comes from."""

from collections.abc import Iterator
from typing import Any

from shardgate.adapters.gpu_resources import MIG
from shardgate.adapters.nodes import Device, NodeFacts, NodeObject, NodeReading, read_gpus
from shardgate.adapters.nodes.shapes import state_of
from shardgate.adapters.quantities import resources
from shardgate.domain.inventory import NodeState
from shardgate.domain.units import gib

Json = dict[str, Any]


def node_report(node: NodeObject, devices: tuple[Device, ...] = (), facts: NodeFacts | None = None, problem: str = "") -> Json:
    """One node. Raises ``QuantityError`` for an amount that is no quantity.

    ``facts``: what its agent reports; ``problem``: why that does not count.
    """
    status = node.status
    allocatable, capacity = (resources(each) for each in ((status.allocatable, status.capacity) if status else (None, None)))
    annotations = node.metadata.annotations
    register = annotations.hami_register if annotations else ""
    reading = read_gpus(node.metadata.labels or {}, allocatable, capacity, register, devices, facts)
    capability = reading.compute_capability
    return {
        "name": node.metadata.name,
        "vendor": reading.vendor,
        "product": reading.product,
        "family": reading.family,
        "computeCapability": None if capability is None else {"major": capability[0], "minor": capability[1]},
        "memoryMib": reading.memory_mib,
        "unitMemoryMib": dict(reading.memory_of_resource_mib) or reading.unit_memory_mib,
        "gpusPhysical": reading.gpus_physical,
        "gpusSchedulable": reading.gpus_schedulable,
        "sharing": None if reading.sharing is None else reading.sharing.value,
        "nvlink": {"value": {True: "yes", False: "no", None: "unknown"}[reading.nvlink], "reason": reading.nvlink_reason},
        "resources": dict(reading.resources),
        "sources": dict(reading.sources),
        "findings": [
            *_findings(node, reading, allocatable, capacity),
            *({"code": code, "message": message} for code, message in _reported(facts, problem)),
        ],
    }


def _reported(facts: NodeFacts | None, problem: str) -> Iterator[tuple[str | None, str]]:
    if problem:
        yield None, f"the GpuNodeReport does not count: {problem}"
    if facts is not None and facts.held:
        yield "GpuMemoryHeld", f"processes that no pod owns hold {gib(facts.held)} of a GPU"


def _findings(node: NodeObject, reading: NodeReading, allocatable: dict[str, int], capacity: dict[str, int]) -> list[Json]:
    """Contradictions by their code; hints of health and use without one."""
    found = [{"code": "GpuFactsContradict", "message": each.message} for each in reading.contradictions]
    hints = list(reading.remarks)
    for name in reading.resources:
        has, missing = capacity.get(name, 0), capacity.get(name, 0) - allocatable.get(name, 0)
        if allocatable and missing == has > 0 and name.startswith(MIG):
            hints.append(f"capacity still lists {has} {name}, none is allocatable: a profile that is gone, or not healthy")
        elif allocatable and missing > 0:
            hints.append(f"{missing} of {has} {name} are registered and not allocatable")
    state = state_of(node)
    if state is not NodeState.USABLE:
        hints.append(f"node is {state.value}")
    if reading.vendor is not None and reading.gpus_schedulable == 0:
        hints.append("GPUs are named and none is allocatable")
    return [*found, *({"code": None, "message": each} for each in hints)]
