"""Which of a node's changes are worth a write: reports are for decisions, not for graphs."""

from dataclasses import replace
from enum import IntEnum

from shardgate.domain.driver_reading import DriverReading, GpuProcess, GpuReading, Memory, Ownership
from shardgate.domain.units import MEBI

LEAST_BYTES = 256 * MEBI
LEAST_SHARE = 0.01


class Change(IntEnum):
    """What has become of a reading since the one that is written down."""

    NONE = 0
    AMOUNTS = 1
    """More or less memory is held: that may wait a little."""
    FACTS = 2


def change(before: DriverReading, now: DriverReading) -> Change:
    """Between two readings of one node.

    Memory counts from 1 % of the GPU's, at least 256 MiB; of processes whose they are, and the numbers of those that were
    started beside Kubernetes.
    """
    if before == now:
        return Change.NONE
    if _facts(before) != _facts(now):
        return Change.FACTS
    pairs = zip(before.gpus, now.gpus, strict=True)
    return Change.AMOUNTS if any(_has_moved(old, new) for old, new in pairs) else Change.NONE


def _facts(reading: DriverReading) -> DriverReading:
    return replace(reading, gpus=tuple(map(_facts_of_gpu, reading.gpus)))


def _facts_of_gpu(gpu: GpuReading) -> GpuReading:
    mig = gpu.mig and replace(gpu.mig, devices=tuple(replace(each, memory=_limits(each.memory)) for each in gpu.mig.devices))
    holders = None if gpu.processes is None else tuple(sorted({_holder(each) for each in gpu.processes}, key=_order))
    return replace(gpu, memory=_limits(gpu.memory), mig=mig, processes=holders)


def _limits(memory: Memory) -> Memory:
    """That it is told counts, how much does not."""
    return replace(memory, used=None if memory.used is None else type(memory.used)(0))


def _holder(process: GpuProcess) -> GpuProcess:
    is_hosts = process.ownership is Ownership.HOST
    return replace(process, memory=None) if is_hosts else replace(process, memory=None, command=None, pid=0)


def _order(process: GpuProcess) -> tuple[int, str, str]:
    return process.pid, process.ownership, process.pod_uid or ""


def _has_moved(before: GpuReading, now: GpuReading) -> bool:
    least = max(LEAST_BYTES, int((now.memory.total or 0) * LEAST_SHARE))
    amounts = [(before.memory.used, now.memory.used), (_outside(before), _outside(now))]
    return any(abs((old or 0) - (new or 0)) >= least for old, new in amounts)


def _outside(gpu: GpuReading) -> int:
    return sum(each.memory or 0 for each in gpu.processes or () if each.ownership is not Ownership.POD)
