"""A driver's reading <-> the status of a ``GpuNodeReport``. What is unknown is not there, as in every object of Kubernetes."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from shardgate.api.report_limits import MOST_MESSAGE, MOST_REASONS, MOST_SUMMARY, MOST_XIDS, printable
from shardgate.domain.driver_reading import (
    Clocks,
    DriverReading,
    Fabric,
    GpuPair,
    GpuProcess,
    GpuReading,
    GpuState,
    Health,
    LinkGroup,
    Memory,
    MemoryErrors,
    Mig,
    MigDevice,
    NvLink,
    Ownership,
    PcieLink,
    PciePath,
    PowerLimits,
    ProbeError,
    RemoteKind,
    RowRemap,
)
from shardgate.domain.units import Bytes

Json = dict[str, Any]
_Read = TypeVar("_Read")

KIND, PLURAL = "GpuNodeReport", "gpunodereports"


class UnreadableReport(Exception):
    """A status that no agent of ours has written; the message names the field."""


def status_of(reading: DriverReading, *, changed_at: str, agent_version: str) -> Json:
    """The status of a node whose driver could be read."""
    return {
        "changedAt": changed_at,
        "agentVersion": agent_version,
        "summary": summary_of(reading),
        "driver": _present(
            version=reading.driver_version, nvmlVersion=reading.nvml_version, cudaVersion=_version(reading.cuda_version)
        ),
        "gpus": [_gpu(each) for each in reading.gpus],
        "pairs": [_pair(each) for each in reading.pairs],
    }


def status_of_problem(problem: ProbeError, *, since: str, changed_at: str, agent_version: str) -> Json:
    """The status of a node whose driver cannot be read: that, and nothing of what it said before."""
    return {
        "changedAt": changed_at,
        "agentVersion": agent_version,
        "summary": f"unknown: {printable(problem.name)}",
        "problem": {
            "name": printable(problem.name) or "UNKNOWN",
            "message": printable(problem.problem, MOST_MESSAGE),
            "since": since,
        },
    }


def summary_of(reading: DriverReading) -> str:
    """``8 x NVIDIA H200, 7 healthy``."""
    if not reading.gpus:
        return "no GPUs"
    products = Counter(gpu.product or "unknown GPU" for gpu in reading.gpus)
    healthy = sum(gpu.health.state is GpuState.HEALTHY for gpu in reading.gpus)
    named = " + ".join(f"{number} x {product}" for product, number in products.items())
    return (named if healthy == len(reading.gpus) else f"{named}, {healthy} healthy")[:MOST_SUMMARY]


def _present(**values: Any) -> Json:
    return {name: value for name, value in values.items() if value is not None}


def _filled(**values: Any) -> Json | None:
    """None where nothing of it is known."""
    return _present(**values) or None


def _version(version: tuple[int, int] | None) -> Json | None:
    return None if version is None else {"major": version[0], "minor": version[1]}


def _memory(memory: Memory) -> Json | None:
    return _filled(totalBytes=memory.total, usedBytes=memory.used, reservedBytes=memory.reserved)


def _gpu(gpu: GpuReading) -> Json:
    errors, clocks, power, pcie = gpu.memory_errors, gpu.clocks, gpu.power, gpu.pcie
    return _present(
        index=gpu.index,
        uuid=gpu.uuid,
        product=gpu.product,
        pciBusId=gpu.pci_bus_id,
        numaNode=gpu.numa_node,
        computeCapability=_version(gpu.compute_capability),
        memory=_memory(gpu.memory),
        mig=gpu.mig and _mig(gpu.mig),
        memoryErrors=_filled(
            eccEnabled=errors.is_ecc_enabled,
            uncorrected=errors.uncorrected,
            uncorrectedEver=errors.uncorrected_ever,
            rowRemap=errors.row_remap
            and {
                "correctable": errors.row_remap.correctable,
                "uncorrectable": errors.row_remap.uncorrectable,
                "pending": errors.row_remap.is_pending,
                "failed": errors.row_remap.has_failed,
            },
            retiredPagesPending=errors.are_retired_pages_pending,
        ),
        nvlink=gpu.nvlink and _nvlink(gpu.nvlink),
        fabric=gpu.fabric
        and _present(
            state=gpu.fabric.state, status=gpu.fabric.status or None, cluster=gpu.fabric.cluster, clique=gpu.fabric.clique
        ),
        clocks=_filled(
            graphicsMegahertz=clocks.graphics, multiprocessorMegahertz=clocks.multiprocessor, memoryMegahertz=clocks.memory
        ),
        power=_filled(
            enforcedMilliwatts=power.enforced,
            defaultMilliwatts=power.default,
            leastMilliwatts=power.least,
            mostMilliwatts=power.most,
        ),
        pcie=_filled(generation=pcie.generation, width=pcie.width, currentWidth=pcie.current_width),
        processes=None if gpu.processes is None else [_process(each) for each in gpu.processes],
        xids=list(gpu.xids[:MOST_XIDS]) or None,
        recoveryAction=gpu.recovery_action,
        health=_present(
            state=gpu.health.state.value, reasons=[printable(each) for each in gpu.health.reasons[:MOST_REASONS]] or None
        ),
    )


def _mig(mig: Mig) -> Json:
    return {
        "enabled": mig.is_enabled,
        "enabledAfterReset": mig.is_enabled_after_reset,
        "devices": [
            _present(
                uuid=each.uuid,
                profile=each.profile,
                gpuInstance=each.gpu_instance,
                computeInstance=each.compute_instance,
                memory=_memory(each.memory),
                multiprocessors=each.multiprocessors,
            )
            for each in mig.devices
        ],
    }


def _nvlink(nvlink: NvLink) -> Json:
    return _present(
        version=nvlink.version,
        up=nvlink.up,
        groups=[_present(remote=each.remote.value, remotePciBusId=each.remote_pci_bus_id, up=each.up) for each in nvlink.groups],
        down=list(nvlink.down),
    )


def _process(process: GpuProcess) -> Json:
    return _present(
        pid=process.pid,
        memoryBytes=process.memory,
        ownership=process.ownership.value,
        podUid=process.pod_uid,
        command=process.command,
    )


def _pair(pair: GpuPair) -> Json:
    return _present(
        first=pair.first,
        second=pair.second,
        nvlink=pair.has_nvlink,
        canRead=pair.can_read,
        canWrite=pair.can_write,
        path=pair.path and pair.path.value,
    )


def reading_of(status: Mapping[str, Any]) -> DriverReading:
    """The reading that a status tells of; null is as good as absent.

    Raises ``ProbeError`` where it tells of a problem, and ``UnreadableReport``.
    """
    try:
        if problem := status.get("problem"):
            raise ProbeError(str(problem["name"]), str(problem["message"]))
        driver = status.get("driver") or {}
        if status.get("gpus") is None:
            problem = "gpus: is not there, and no problem that would say why"
            raise UnreadableReport(problem)
        return DriverReading(
            driver_version=driver.get("version"),
            nvml_version=driver.get("nvmlVersion"),
            cuda_version=_read_version(driver.get("cudaVersion")),
            gpus=tuple(map(_read_gpu, status["gpus"])),
            pairs=tuple(map(_read_pair, status.get("pairs") or ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UnreadableReport(problem) from error


def _optional(read: Callable[[Any], _Read], value: Any) -> _Read | None:
    return None if value is None else read(value)


def _read_version(version: Mapping[str, Any] | None) -> tuple[int, int] | None:
    return None if version is None else (int(version["major"]), int(version["minor"]))


def _read_memory(memory: Mapping[str, Any] | None) -> Memory:
    found = {name: None if value is None else Bytes(value) for name, value in (memory or {}).items()}
    return Memory(total=found.get("totalBytes"), used=found.get("usedBytes"), reserved=found.get("reservedBytes"))


def _read_gpu(gpu: Mapping[str, Any]) -> GpuReading:
    errors, clocks, power, pcie = (gpu.get(name) or {} for name in ("memoryErrors", "clocks", "power", "pcie"))
    remap, health = errors.get("rowRemap"), gpu["health"]
    return GpuReading(
        index=gpu["index"],
        uuid=gpu.get("uuid"),
        product=gpu.get("product"),
        pci_bus_id=gpu.get("pciBusId"),
        numa_node=gpu.get("numaNode"),
        compute_capability=_read_version(gpu.get("computeCapability")),
        memory=_read_memory(gpu.get("memory")),
        mig=_optional(_read_mig, gpu.get("mig")),
        memory_errors=MemoryErrors(
            is_ecc_enabled=errors.get("eccEnabled"),
            uncorrected=errors.get("uncorrected"),
            uncorrected_ever=errors.get("uncorrectedEver"),
            row_remap=remap
            and RowRemap(
                correctable=remap["correctable"],
                uncorrectable=remap["uncorrectable"],
                is_pending=remap["pending"],
                has_failed=remap["failed"],
            ),
            are_retired_pages_pending=errors.get("retiredPagesPending"),
        ),
        nvlink=_optional(_read_nvlink, gpu.get("nvlink")),
        fabric=_optional(_read_fabric, gpu.get("fabric")),
        clocks=Clocks(
            graphics=clocks.get("graphicsMegahertz"),
            multiprocessor=clocks.get("multiprocessorMegahertz"),
            memory=clocks.get("memoryMegahertz"),
        ),
        power=PowerLimits(
            enforced=power.get("enforcedMilliwatts"),
            default=power.get("defaultMilliwatts"),
            least=power.get("leastMilliwatts"),
            most=power.get("mostMilliwatts"),
        ),
        pcie=PcieLink(generation=pcie.get("generation"), width=pcie.get("width"), current_width=pcie.get("currentWidth")),
        processes=None if gpu.get("processes") is None else tuple(map(_read_process, gpu["processes"])),
        xids=tuple(gpu.get("xids") or ()),
        recovery_action=gpu.get("recoveryAction"),
        health=Health(state=GpuState(health["state"]), reasons=tuple(health.get("reasons") or ())),
    )


def _read_mig(mig: Mapping[str, Any]) -> Mig:
    return Mig(
        is_enabled=mig["enabled"],
        is_enabled_after_reset=mig["enabledAfterReset"],
        devices=tuple(
            MigDevice(
                uuid=each.get("uuid"),
                profile=each.get("profile"),
                gpu_instance=each.get("gpuInstance"),
                compute_instance=each.get("computeInstance"),
                memory=_read_memory(each.get("memory")),
                multiprocessors=each.get("multiprocessors"),
            )
            for each in mig.get("devices") or ()
        ),
    )


def _read_nvlink(nvlink: Mapping[str, Any]) -> NvLink:
    return NvLink(
        version=nvlink.get("version"),
        groups=tuple(
            LinkGroup(remote=RemoteKind(each["remote"]), remote_pci_bus_id=each.get("remotePciBusId"), up=each["up"])
            for each in nvlink.get("groups") or ()
        ),
        down=tuple(nvlink.get("down") or ()),
    )


def _read_fabric(fabric: Mapping[str, Any]) -> Fabric:
    return Fabric(
        state=fabric["state"], status=fabric.get("status") or "", cluster=fabric.get("cluster"), clique=fabric.get("clique")
    )


def _read_process(process: Mapping[str, Any]) -> GpuProcess:
    memory = process.get("memoryBytes")
    return GpuProcess(
        pid=process["pid"],
        memory=None if memory is None else Bytes(memory),
        ownership=Ownership(process["ownership"]),
        pod_uid=process.get("podUid"),
        command=process.get("command"),
    )


def _read_pair(pair: Mapping[str, Any]) -> GpuPair:
    path = pair.get("path")
    return GpuPair(
        first=pair["first"],
        second=pair["second"],
        has_nvlink=pair.get("nvlink"),
        can_read=pair.get("canRead"),
        can_write=pair.get("canWrite"),
        path=None if path is None else PciePath(path),
    )
