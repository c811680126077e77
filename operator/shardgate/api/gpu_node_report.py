"""``GpuNodeReport``: what the driver of a node says about its GPUs, written by the node agent there."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from shardgate.api.fields import ApiModel
from shardgate.api.report_limits import (
    MOST_GPUS,
    MOST_MESSAGE,
    MOST_MIG_DEVICES,
    MOST_NAME,
    MOST_PROCESSES,
    MOST_REASONS,
    MOST_SUMMARY,
    MOST_TEXT,
    MOST_XIDS,
    PRINTABLE,
)
from shardgate.domain.driver_reading import GpuState, Ownership, PciePath, RemoteKind

MOST_PAIRS = MOST_GPUS * (MOST_GPUS - 1) // 2

MOST_BYTES = 2**50

Amount = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=0, le=MOST_BYTES)]


class FabricState(StrEnum):
    """Whether a GPU has joined an NVLink fabric."""

    NOT_SUPPORTED = "NotSupported"
    NOT_STARTED = "NotStarted"
    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"


class ReportedVersion(ApiModel):
    """A version of two numbers."""

    major: Annotated[int, Field(ge=0, description="Major.")]
    minor: Annotated[int, Field(ge=0, description="Minor.")]


class ReportedMemory(ApiModel):
    """Memory, in bytes."""

    total_bytes: Annotated[Annotated[int, Field(ge=1, le=MOST_BYTES)] | None, Field(description="All of it.")] = None
    used_bytes: Annotated[
        Size | None, Field(description="Held by processes; with what the driver keeps, where reservedBytes is unknown.")
    ] = None
    reserved_bytes: Annotated[
        Size | None, Field(description="Kept by the driver: no process can have it, and CUDA's total leaves it out.")
    ] = None


class ReportedMigDevice(ApiModel):
    """A MIG device."""

    uuid: Annotated[str | None, Field(max_length=96, description="Its UUID.")] = None
    profile: Annotated[str | None, Field(max_length=MOST_TEXT, pattern=PRINTABLE, description="As 1g.10gb.")] = None
    gpu_instance: Annotated[Amount | None, Field(description="Number of its GPU instance.")] = None
    compute_instance: Annotated[Amount | None, Field(description="Number of its compute instance in it.")] = None
    memory: Annotated[ReportedMemory | None, Field(description="Its memory.")] = None
    multiprocessors: Annotated[Amount | None, Field(description="How many it has.")] = None


class ReportedMig(ApiModel):
    """How a GPU is cut."""

    enabled: Annotated[bool, Field(description="MIG is on.")]
    enabled_after_reset: Annotated[bool, Field(description="MIG will be on after the next reset.")]
    devices: Annotated[list[ReportedMigDevice] | None, Field(max_length=MOST_MIG_DEVICES, description="The parts that exist.")] = (
        None
    )


class ReportedRowRemap(ApiModel):
    """Rows of memory that were replaced."""

    correctable: Annotated[Amount, Field(description="For errors that could be corrected.")]
    uncorrectable: Annotated[Amount, Field(description="For errors that could not.")]
    pending: Annotated[bool, Field(description="Rows will be replaced at the next reset.")]
    failed: Annotated[bool, Field(description="A row could not be replaced: the GPU is to be exchanged.")]


class ReportedMemoryErrors(ApiModel):
    """What a GPU's memory has gone through."""

    ecc_enabled: Annotated[bool | None, Field(description="ECC is on.")] = None
    uncorrected: Annotated[Amount | None, Field(description="Errors not corrected since the driver was loaded.")] = None
    uncorrected_ever: Annotated[Amount | None, Field(description="Errors not corrected in the GPU's life.")] = None
    row_remap: Annotated[ReportedRowRemap | None, Field(description="Rows that were replaced: Ampere and newer.")] = None
    retired_pages_pending: Annotated[bool | None, Field(description="Pages will be retired at the next reset: older GPUs.")] = None


class ReportedLinkGroup(ApiModel):
    """NVLinks that are up and lead to the same end."""

    remote: Annotated[RemoteKind, Field(description="What they lead to.")]
    remote_pci_bus_id: Annotated[str | None, Field(max_length=32, description="PCI bus id of the other end.")] = None
    up: Annotated[int, Field(ge=1, description="How many.")]


class ReportedNvLink(ApiModel):
    """A GPU's NVLinks."""

    version: Annotated[Amount | None, Field(description="NVML's number of the version.")] = None
    up: Annotated[Amount, Field(description="How many are up.")]
    groups: Annotated[
        list[ReportedLinkGroup] | None, Field(max_length=64, description="Those that are up, by their other end.")
    ] = None
    down: Annotated[list[Amount] | None, Field(max_length=64, description="Numbers of those that are not up.")] = None


class ReportedFabric(ApiModel):
    """The NVLink fabric that a GPU has joined."""

    state: Annotated[FabricState, Field(description="How far it is.")]
    status: Annotated[str | None, Field(max_length=MOST_NAME, pattern=PRINTABLE, description="NVML's name of what came of it.")] = (
        None
    )
    cluster: Annotated[str | None, Field(max_length=64, pattern=PRINTABLE, description="UUID of the fabric.")] = None
    clique: Annotated[Amount | None, Field(description="Number of the partition in it.")] = None


class ReportedClocks(ApiModel):
    """The highest clocks."""

    graphics_megahertz: Annotated[Amount | None, Field(description="Of graphics.")] = None
    multiprocessor_megahertz: Annotated[Amount | None, Field(description="Of the multiprocessors.")] = None
    memory_megahertz: Annotated[Amount | None, Field(description="Of the memory.")] = None


class ReportedPower(ApiModel):
    """Power limits."""

    enforced_milliwatts: Annotated[Amount | None, Field(description="What holds now.")] = None
    default_milliwatts: Annotated[Amount | None, Field(description="What holds after a reset.")] = None
    least_milliwatts: Annotated[Amount | None, Field(description="The lowest that can be set.")] = None
    most_milliwatts: Annotated[Amount | None, Field(description="The highest that can be set.")] = None


class ReportedPcie(ApiModel):
    """The way to the host."""

    generation: Annotated[Amount | None, Field(description="The best that GPU and slot can do.")] = None
    width: Annotated[Amount | None, Field(description="Lanes, the most that GPU and slot can do.")] = None
    current_width: Annotated[Amount | None, Field(description="Lanes now.")] = None


class ReportedProcess(ApiModel):
    """A process that holds memory of a GPU."""

    pid: Annotated[Amount, Field(description="Its number on the host.")]
    memory_bytes: Annotated[Size | None, Field(description="How much it holds.")] = None
    ownership: Annotated[Ownership, Field(description="Pod, Host (started beside Kubernetes), or Unknown.")]
    pod_uid: Annotated[str | None, Field(max_length=64, description="Of the pod that owns it.")] = None
    command: Annotated[str | None, Field(max_length=64, description="Its name, without arguments.")] = None


class ReportedHealth(ApiModel):
    """Whether a GPU can be used."""

    state: Annotated[GpuState, Field(description="Healthy, Unhealthy, Lost (the driver cannot reach it) or Unknown.")]
    reasons: Annotated[
        list[Annotated[str, Field(max_length=MOST_NAME, pattern=PRINTABLE)]] | None,
        Field(max_length=MOST_REASONS, description="What speaks against it, as RowRemapPending or Xid79."),
    ] = None


class ReportedGpu(ApiModel):
    """One GPU. What is absent is unknown; of a lost one, only what was known before is there."""

    index: Annotated[Amount, Field(description="The driver's number of it.")]
    uuid: Annotated[str | None, Field(max_length=96, description="Its UUID.")] = None
    product: Annotated[str | None, Field(max_length=128, pattern=PRINTABLE, description="As the driver spells it.")] = None
    pci_bus_id: Annotated[str | None, Field(max_length=32, description="PCI domain, bus, device and function.")] = None
    numa_node: Annotated[Amount | None, Field(description="NUMA node that it is nearest to.")] = None
    compute_capability: Annotated[ReportedVersion | None, Field(description="CUDA compute capability.")] = None
    memory: Annotated[ReportedMemory | None, Field(description="Its memory.")] = None
    mig: Annotated[ReportedMig | None, Field(description="How it is cut. Absent: it cannot be cut, or that is unknown.")] = None
    memory_errors: Annotated[ReportedMemoryErrors | None, Field(description="What its memory has gone through.")] = None
    nvlink: Annotated[ReportedNvLink | None, Field(description="Its NVLinks. Absent: it has none, or that is unknown.")] = None
    fabric: Annotated[ReportedFabric | None, Field(description="The NVLink fabric that it has joined.")] = None
    clocks: Annotated[ReportedClocks | None, Field(description="The highest clocks.")] = None
    power: Annotated[ReportedPower | None, Field(description="Power limits.")] = None
    pcie: Annotated[ReportedPcie | None, Field(description="The way to the host.")] = None
    processes: Annotated[
        list[ReportedProcess] | None,
        Field(max_length=MOST_PROCESSES, description="Those that hold memory of it, the largest first. Absent: unknown."),
    ] = None
    xids: Annotated[
        list[Amount] | None, Field(max_length=MOST_XIDS, description="Numbers of errors (Xid) since the agent watches, each once.")
    ] = None
    recovery_action: Annotated[
        str | None, Field(max_length=32, description="What the driver asks for: None, GpuReset, NodeReboot.")
    ] = None
    health: Annotated[ReportedHealth, Field(description="Whether it can be used.")]


class ReportedPair(ApiModel):
    """What lies between two GPUs."""

    first: Annotated[Amount, Field(description="Index of one, the smaller.")]
    second: Annotated[Amount, Field(description="Index of the other.")]
    nvlink: Annotated[bool | None, Field(description="They reach each other over NVLink, through switches or directly.")] = None
    can_read: Annotated[bool | None, Field(description="One can read the other's memory without the CPU's.")] = None
    can_write: Annotated[bool | None, Field(description="One can write the other's memory without the CPU's.")] = None
    path: Annotated[PciePath | None, Field(description="The way between them that does not use NVLink.")] = None


class ReportedDriver(ApiModel):
    """The driver."""

    version: Annotated[str | None, Field(max_length=MOST_TEXT, pattern=PRINTABLE, description="As 580.126.09.")] = None
    nvml_version: Annotated[
        str | None, Field(max_length=MOST_TEXT, pattern=PRINTABLE, description="Of its management library.")
    ] = None
    cuda_version: Annotated[ReportedVersion | None, Field(description="The newest CUDA that it supports.")] = None


class ReportedProblem(ApiModel):
    """Why the driver cannot be read."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=MOST_NAME, pattern=PRINTABLE, description="As NVML_ERROR_DRIVER_NOT_LOADED or CALL_HUNG."),
    ]
    message: Annotated[str, Field(max_length=MOST_MESSAGE, description="In words.")]
    since: Annotated[str, Field(description="Since when.", json_schema_extra={"format": "date-time"})]


class GpuNodeReportStatus(ApiModel):
    """What the driver says. What is absent is unknown."""

    changed_at: Annotated[
        str,
        Field(
            description="When this was read. It is written when something changed; that the agent lives is told by its Lease.",
            json_schema_extra={"format": "date-time"},
        ),
    ]
    agent_version: Annotated[str | None, Field(max_length=64, description="Version of the agent.")] = None
    summary: Annotated[str | None, Field(max_length=MOST_SUMMARY, description="In a few words, as 8 x NVIDIA H200, 7 healthy.")] = (
        None
    )
    problem: Annotated[ReportedProblem | None, Field(description="Why the driver cannot be read: nothing else is known then.")] = (
        None
    )
    driver: Annotated[ReportedDriver | None, Field(description="The driver.")] = None
    gpus: Annotated[
        list[ReportedGpu] | None,
        Field(
            max_length=MOST_GPUS, description="By index. Empty: the driver says that there are none. Absent: unknown.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["index"]},
        ),
    ] = None  # fmt: skip
    pairs: Annotated[list[ReportedPair] | None, Field(max_length=MOST_PAIRS, description="What lies between any two GPUs.")] = None


class GpuNodeReport(ApiModel):
    """What the driver of the node of this name says about its GPUs. Written by the node agent there alone."""

    status: Annotated[GpuNodeReportStatus | None, Field(description="What the driver says.")] = None
