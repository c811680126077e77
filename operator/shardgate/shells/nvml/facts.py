"""What is asked of one GPU: facts that stay as they are, facts that seldom change, and those that change with what runs."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pynvml

from shardgate.adapters import nvml_values as values
from shardgate.api.report_limits import MOST_PROCESSES
from shardgate.domain.driver_reading import (
    Clocks,
    Fabric,
    GpuPair,
    GpuProcess,
    LinkGroup,
    Memory,
    MemoryErrors,
    Mig,
    MigDevice,
    NvLink,
    PowerLimits,
    RemoteKind,
    RowRemap,
)
from shardgate.domain.units import MEBI, Bytes
from shardgate.shells.nvml.calls import Device, error_name

MOST_LINKS = pynvml.NVML_NVLINK_MAX_LINKS
MOST_MIG_DEVICES = 16
NUMA_WORDS = 16
"""64-bit words of a mask of NUMA nodes: 1024 nodes, the most that Linux has."""
P2P_READ, P2P_WRITE, P2P_NVLINK = 0, 1, 2
"""``nvmlGpuP2PCapsIndex_t``; pynvml's own constant of the first is a tuple."""

ProcessOf = Callable[[int, Bytes | None], GpuProcess]
"""What is known of a process: its number, and the memory that it holds."""

Held: TypeAlias = dict[int, Bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What does not change while the driver is loaded."""

    uuid: str | None
    product: str | None
    pci_bus_id: str | None
    numa_node: int | None
    compute_capability: tuple[int, int] | None
    clocks: Clocks
    pcie_generation: int | None
    pcie_width: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What changes when somebody or something intervenes."""

    mig: Mig | None
    errors: MemoryErrors
    nvlink: NvLink | None
    fabric: Fabric | None
    power: PowerLimits
    pcie_current_width: int | None
    recovery_action: str | None
    drawing: Held | None
    """Processes that draw, as those of a desktop: they seldom come and go."""


def standing(device: Device) -> Standing:
    """Read once: the highest clocks alone take several milliseconds."""
    ask = device.ask
    return Standing(
        uuid=values.text(ask("nvmlDeviceGetUUID")),
        product=values.text(ask("nvmlDeviceGetName")),
        pci_bus_id=_bus_id(ask("nvmlDeviceGetPciInfo_v3")),
        numa_node=_numa_node(device),
        compute_capability=values.compute_capability(ask("nvmlDeviceGetCudaComputeCapability")),
        clocks=Clocks(
            graphics=_clock(device, pynvml.NVML_CLOCK_GRAPHICS),
            multiprocessor=_clock(device, pynvml.NVML_CLOCK_SM),
            memory=_clock(device, pynvml.NVML_CLOCK_MEM),
        ),
        pcie_generation=values.amount(ask("nvmlDeviceGetMaxPcieLinkGeneration"), values.MOST_GENERATION),
        pcie_width=values.amount(ask("nvmlDeviceGetMaxPcieLinkWidth"), values.MOST_LANES),
    )


def _bus_id(pci: Any) -> str | None:
    """Of ``nvmlPciInfo_t``, whose text pynvml decodes when it is looked at."""
    try:
        return None if pci is None else values.pci_bus_id(pci.busId)
    except UnicodeDecodeError:
        return None


def _clock(device: Device, kind: int) -> int | None:
    return values.amount(device.ask("nvmlDeviceGetMaxClockInfo", kind), values.MOST_MEGAHERTZ) or None


def _numa_node(device: Device) -> int | None:
    node = values.amount(device.ask("nvmlDeviceGetNumaNodeId"), NUMA_WORDS * 64 - 1)
    if node is not None:
        return node
    mask = device.ask("nvmlDeviceGetMemoryAffinity", NUMA_WORDS, pynvml.NVML_AFFINITY_SCOPE_NODE)
    return None if mask is None else values.numa_node(list(mask))


def condition(device: Device, card: Memory) -> Condition:
    """Read now and then; ``card`` is the GPU's memory."""
    ask = device.ask
    return Condition(
        mig=_mig(device, card),
        errors=_errors(device),
        nvlink=_nvlink(device),
        fabric=_fabric(device),
        power=_power(device),
        pcie_current_width=values.amount(ask("nvmlDeviceGetCurrPcieLinkWidth"), values.MOST_LANES),
        recovery_action=values.recovery_action(_field(device, pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)),
        drawing=running(device, "Graphics"),
    )


def memory(device: Device) -> Memory:
    """By the second version of the call, which tells what is reserved; before driver 510 there is only the first."""
    return _memory_of(device, device.handle)


def _memory_of(device: Device, handle: Any) -> Memory:
    found = device.asked_with("nvmlDeviceGetMemoryInfo", handle, pynvml.nvmlMemory_v2)
    if found is not None:
        return values.memory(found.total, found.used, found.reserved)
    found = device.asked_with("nvmlDeviceGetMemoryInfo", handle)
    return Memory() if found is None else values.memory(found.total, found.used)


def _field(device: Device, field: int) -> int | None:
    """An unsigned value of ``nvmlDeviceGetFieldValues``."""
    answers = device.ask("nvmlDeviceGetFieldValues", [field])
    return values.amount(answers[0].value.uiVal) if answers is not None and answers[0].nvmlReturn == pynvml.NVML_SUCCESS else None


def _power(device: Device) -> PowerLimits:
    least, most = device.ask("nvmlDeviceGetPowerManagementLimitConstraints") or (None, None)
    return PowerLimits(
        enforced=values.amount(device.ask("nvmlDeviceGetEnforcedPowerLimit"), values.MOST_MILLIWATTS),
        default=values.amount(device.ask("nvmlDeviceGetPowerManagementDefaultLimit"), values.MOST_MILLIWATTS),
        least=values.amount(least, values.MOST_MILLIWATTS),
        most=values.amount(most, values.MOST_MILLIWATTS),
    )


def _errors(device: Device) -> MemoryErrors:
    mode = device.ask("nvmlDeviceGetEccMode")
    is_on = None if mode is None else values.flag(mode[0])
    uncorrected = ever = None
    if is_on:
        kind = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
        uncorrected = values.amount(device.ask("nvmlDeviceGetTotalEccErrors", kind, pynvml.NVML_VOLATILE_ECC))
        ever = values.amount(device.ask("nvmlDeviceGetTotalEccErrors", kind, pynvml.NVML_AGGREGATE_ECC))
    return MemoryErrors(
        is_ecc_enabled=is_on,
        uncorrected=uncorrected,
        uncorrected_ever=ever,
        row_remap=_row_remap(device.ask("nvmlDeviceGetRemappedRows")),
        are_retired_pages_pending=values.flag(device.ask("nvmlDeviceGetRetiredPagesPendingStatus")),
    )


def _row_remap(answer: Sequence[int] | None) -> RowRemap | None:
    if answer is None:
        return None
    correctable, uncorrectable = (values.amount(each, 2**32 - 2) for each in answer[:2])
    is_pending, has_failed = (values.flag(each) for each in answer[2:])
    if correctable is None or uncorrectable is None or is_pending is None or has_failed is None:
        return None
    return RowRemap(correctable=correctable, uncorrectable=uncorrectable, is_pending=is_pending, has_failed=has_failed)


def _mig(device: Device, card: Memory) -> Mig | None:
    mode = device.ask("nvmlDeviceGetMigMode")
    is_on, is_on_later = (None, None) if mode is None else map(values.flag, mode)
    if is_on is None or is_on_later is None:
        return None
    if not is_on:
        return Mig(is_enabled=False, is_enabled_after_reset=is_on_later)
    most = values.amount(device.ask("nvmlDeviceGetMaxMigDeviceCount"), MOST_MIG_DEVICES) or 0
    handles = [device.ask("nvmlDeviceGetMigDeviceHandleByIndex", place) for place in range(most)]
    devices = tuple(_mig_device(device, handle, card) for handle in handles if handle is not None)
    return Mig(is_enabled=True, is_enabled_after_reset=is_on_later, devices=devices)


def _mig_device(device: Device, handle: Any, card: Memory) -> MigDevice:
    def ask(name: str) -> Any:
        return device.asked_with(name, handle)

    attributes = ask("nvmlDeviceGetAttributes_v2")
    own = _memory_of(device, handle)
    if own.total is None and attributes is not None and (size := values.amount(attributes.memorySizeMB, values.MOST_BYTES // MEBI)):
        own = Memory(total=Bytes(size * MEBI))
    return MigDevice(
        uuid=values.text(ask("nvmlDeviceGetUUID")),
        profile=values.mig_profile(
            values.text(ask("nvmlDeviceGetName")),
            slices=attributes and values.amount(attributes.gpuInstanceSliceCount, 64),
            parts=attributes and values.amount(attributes.computeInstanceSliceCount, 64),
            mebibytes=attributes and values.amount(attributes.memorySizeMB),
            card=card.total,
        ),
        gpu_instance=values.amount(ask("nvmlDeviceGetGpuInstanceId"), 255),
        compute_instance=values.amount(ask("nvmlDeviceGetComputeInstanceId"), 255),
        memory=own,
        multiprocessors=(attributes and values.amount(attributes.multiprocessorCount, 100_000)) or None,
    )


def _nvlink(device: Device) -> NvLink | None:
    """A GPU without NVLink, or with NVLink that is not passed through, supports no such call: that is unknown."""
    count = values.amount(_field(device, pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT), MOST_LINKS)
    ends: dict[tuple[RemoteKind, str | None], int] = {}
    down = []
    answered = 0
    for link in range(MOST_LINKS if count is None else count):
        state = values.flag(device.ask("nvmlDeviceGetNvLinkState", link))
        if state is None:
            if count is None:
                break  # there are no more
            continue
        answered += 1
        if not state:
            down.append(link)
            continue
        kind = values.remote_kind(device.ask("nvmlDeviceGetNvLinkRemoteDeviceType", link))
        end = (kind, _bus_id(device.ask("nvmlDeviceGetNvLinkRemotePciInfo", link)))
        ends[end] = ends.get(end, 0) + 1
    if not answered:
        return None
    groups = tuple(
        LinkGroup(remote=kind, remote_pci_bus_id=bus, up=number)
        for (kind, bus), number in sorted(ends.items(), key=lambda each: (each[0][0], each[0][1] or ""))
    )
    return NvLink(version=values.amount(device.ask("nvmlDeviceGetNvLinkVersion", 0), 255), groups=groups, down=tuple(down))


def _fabric(device: Device) -> Fabric | None:
    info: Any = pynvml.c_nvmlGpuFabricInfoV_t()
    if device.ask("nvmlDeviceGetGpuFabricInfoV", ctypes.byref(info)) is None:
        info = pynvml.c_nvmlGpuFabricInfo_t()
        if device.ask("nvmlDeviceGetGpuFabricInfo", ctypes.byref(info)) is None:
            return None
    state = values.fabric_state(info.state)
    if state is None:
        return None
    if state != "Completed":
        return Fabric(state=state)
    cluster = values.fabric_cluster(list(info.clusterUuid))
    return Fabric(
        state=state,
        status=error_name(info.status),
        cluster=cluster,
        clique=values.amount(info.cliqueId) if cluster is not None else None,
    )


def running(device: Device, kind: str) -> Held | None:
    """Processes of a kind, ``Compute`` or ``Graphics``: number -> memory; ``None`` where the driver does not list them."""
    found = _processes(device, kind)
    if found is None:
        return None
    held: Held = {}
    for each in found:
        pid, size = values.amount(each.pid, 2**31 - 1), values.amount(each.usedGpuMemory, values.MOST_BYTES)
        if pid:
            before = held.get(pid)  # in several MIG devices
            held[pid] = before if size is None else Bytes(max(size, before or 0))
    return held


def processes(computing: Held | None, drawing: Held | None, process_of: ProcessOf) -> tuple[GpuProcess, ...] | None:
    """Both kinds, the largest first; ``None`` where neither is known."""
    if computing is None and drawing is None:
        return None
    held = dict(drawing or {})
    for pid, size in (computing or {}).items():
        before = held.get(pid)
        held[pid] = before if size is None else Bytes(max(size, before or 0))
    largest = sorted(held, key=lambda pid: (-(held[pid] or 0), pid))[:MOST_PROCESSES]
    return tuple(process_of(pid, held[pid]) for pid in largest)


def _processes(device: Device, kind: str) -> Any:
    for version in ("v3", "v2"):
        found = device.ask(f"nvmlDeviceGet{kind}RunningProcesses_{version}")
        if found is not None:
            return found
    return None


def pair(one: Device, first: int, other: Device, second: int) -> GpuPair:
    """What lies between two GPUs."""

    def ask(name: str, *arguments: int) -> Any:
        return None if other.is_lost else one.asked_with(name, one.handle, other.handle, *arguments)

    return GpuPair(
        first=first,
        second=second,
        has_nvlink=values.can_reach(ask("nvmlDeviceGetP2PStatus", P2P_NVLINK)),
        can_read=values.can_reach(ask("nvmlDeviceGetP2PStatus", P2P_READ)),
        can_write=values.can_reach(ask("nvmlDeviceGetP2PStatus", P2P_WRITE)),
        path=values.pcie_path(ask("nvmlDeviceGetTopologyCommonAncestor")),
    )
