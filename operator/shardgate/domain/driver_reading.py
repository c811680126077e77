"""What a node's GPU driver says about its GPUs, and the port that asks it.

Every value is as the driver gave it; ``None`` is what it did not tell: a call that it does not support, or that failed.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from shardgate.domain.units import Bytes


@dataclass(eq=False)  # not frozen: Python itself sets an exception's traceback
class ProbeError(Exception):
    """The driver cannot be read at all: not even how many GPUs there are."""

    name: str
    """The driver's own name of the error, as ``NVML_ERROR_DRIVER_NOT_LOADED``, or ``CALL_HUNG`` and others of ours."""
    problem: str

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


CALL_HUNG = "CALL_HUNG"
"""A call into the driver has not come back in time."""
INTERNAL_ERROR = "INTERNAL_ERROR"
"""Reading it failed by a mistake of ours."""
BAD_RECORDING = "BAD_RECORDING"
"""A file that stands for a driver cannot be read."""


class GpuState(StrEnum):
    """Whether a GPU can be given to a pod, as far as its driver tells."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    LOST = "Lost"
    """The driver counts it and cannot reach it any more."""
    UNKNOWN = "Unknown"
    """The driver answered nothing that would tell."""


class RemoteKind(StrEnum):
    """What an NVLink leads to."""

    GPU = "Gpu"
    SWITCH = "Switch"
    CPU = "Cpu"
    UNKNOWN = "Unknown"


class PciePath(StrEnum):
    """The way between two GPUs that does not use NVLink, from the shortest to the longest."""

    SAME_BOARD = "SameBoard"
    ONE_SWITCH = "OneSwitch"
    SWITCHES = "Switches"
    HOST_BRIDGE = "HostBridge"
    NUMA_NODE = "NumaNode"
    SYSTEM = "System"
    """Through the link between CPU sockets."""


class Ownership(StrEnum):
    """Who started a process that holds GPU memory, by its control group."""

    POD = "Pod"
    HOST = "Host"
    """No pod's: it was started beside Kubernetes."""
    UNKNOWN = "Unknown"
    """Its control group cannot be read, as without the host's process ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of one GPU or MIG device. ``used`` leaves out what the driver keeps for itself where ``reserved`` is known."""

    total: Bytes | None = None
    used: Bytes | None = None
    reserved: Bytes | None = None
    """Kept by driver and firmware: no process can have it. CUDA's total is ``total - reserved``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigDevice:
    """A compute instance that a GPU is cut into."""

    uuid: str | None = None
    profile: str | None = None
    """``1g.10gb``, ``3g.40gb``, ``1g.10gb+me``."""
    gpu_instance: int | None = None
    compute_instance: int | None = None
    memory: Memory = Memory()
    multiprocessors: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mig:
    """How a GPU is cut. A GPU that cannot be cut has none."""

    is_enabled: bool
    is_enabled_after_reset: bool
    devices: tuple[MigDevice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRemap:
    """Rows of memory that were replaced by spare ones: counts, and whether a reset is needed or there are none left."""

    correctable: int
    uncorrectable: int
    is_pending: bool
    has_failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryErrors:
    """What the GPU's memory has gone through."""

    is_ecc_enabled: bool | None = None
    uncorrected: int | None = None
    """Errors that ECC could not correct since the driver was loaded."""
    uncorrected_ever: int | None = None
    row_remap: RowRemap | None = None
    """Of Ampere and newer."""
    are_retired_pages_pending: bool | None = None
    """Of older GPUs: pages will be retired at the next reset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkGroup:
    """NVLinks of one GPU that lead to the same remote end."""

    remote: RemoteKind
    remote_pci_bus_id: str | None
    up: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NvLink:
    """A GPU's NVLinks. ``groups`` has those that are up; ``down`` the numbers of the others."""

    version: int | None
    """NVML's number of the version: 4 is NVLink 3.0 (A100), 6 is 4.0 (H100), 7 is 5.0 (B200)."""
    groups: tuple[LinkGroup, ...] = ()
    down: tuple[int, ...] = ()

    @property
    def up(self) -> int:
        """How many links are up."""
        return sum(each.up for each in self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """The NVLink fabric that a GPU has joined."""

    state: str
    """``NotSupported``, ``NotStarted``, ``InProgress`` or ``Completed``."""
    status: str = ""
    """The driver's name of what came of it, once ``Completed``: ``NVML_SUCCESS``."""
    cluster: str | None = None
    """UUID of the fabric; only once ``Completed``, and not all zeroes."""
    clique: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """The highest clocks, in MHz."""

    graphics: int | None = None
    multiprocessor: int | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLimits:
    """In milliwatts. ``enforced`` is what holds now, the least of all limits in force."""

    enforced: int | None = None
    default: int | None = None
    least: int | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PcieLink:
    """The best that this GPU and this slot can do together, and the lanes that it has now."""

    generation: int | None = None
    width: int | None = None
    current_width: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A process that holds memory of a GPU."""

    pid: int
    memory: Bytes | None
    """``None`` where the driver does not say, as for a process in a MIG device of another user."""
    ownership: Ownership
    pod_uid: str | None = None
    command: str | None = None
    """Its name, without arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether a GPU can be used, and what speaks against it: ``RowRemapPending``, ``Xid79``, ``RecoveryActionGpuReset``."""

    state: GpuState = GpuState.UNKNOWN
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One GPU. Of a lost one, only what was known before."""

    index: int
    """The driver's, from 0: the order of PCI bus ids."""
    uuid: str | None = None
    product: str | None = None
    """As the driver spells it: ``NVIDIA H100 80GB HBM3``."""
    pci_bus_id: str | None = None
    """``00000000:00:06.0``: domain, bus, device, function."""
    numa_node: int | None = None
    compute_capability: tuple[int, int] | None = None
    memory: Memory = Memory()
    mig: Mig | None = None
    memory_errors: MemoryErrors = MemoryErrors()
    nvlink: NvLink | None = None
    fabric: Fabric | None = None
    clocks: Clocks = Clocks()
    power: PowerLimits = PowerLimits()
    pcie: PcieLink = PcieLink()
    processes: tuple[GpuProcess, ...] | None = None
    xids: tuple[int, ...] = ()
    """Numbers of the errors that the driver has told of since the agent watches it, each once, ascending."""
    recovery_action: str | None = None
    """What the driver asks for: ``None``, ``GpuReset``, ``NodeReboot``, ``DrainP2P``, ``DrainAndReset``."""
    health: Health = Health()


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPair:
    """What lies between two GPUs of a node; ``first < second`` are indices."""

    first: int
    second: int
    has_nvlink: bool | None = None
    """They reach each other over NVLink, through switches or directly."""
    can_read: bool | None = None
    """One can read the other's memory without the CPU's."""
    can_write: bool | None = None
    path: PciePath | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverReading:
    """All that the driver of a node says at one moment. No GPUs: it says that there are none."""

    driver_version: str | None = None
    nvml_version: str | None = None
    cuda_version: tuple[int, int] | None = None
    """The newest that the driver supports, (major, minor)."""
    gpus: tuple[GpuReading, ...] = ()
    pairs: tuple[GpuPair, ...] = ()


class GpuProbe(Protocol):
    """Reads the GPUs of the node it runs on."""

    def gpus(self) -> DriverReading:
        """What the driver says now. Raises ``ProbeError``, never an empty reading in its place."""
