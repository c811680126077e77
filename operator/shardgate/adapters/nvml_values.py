"""Answers of NVML as values: what is no sane answer is no answer.

Numbers and names: NVIDIA's ``nvml.h`` as pynvml (nvidia-ml-py 13) mirrors it.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from shardgate.api.report_limits import MOST_TEXT
from shardgate.domain.driver_reading import Memory, PciePath, RemoteKind
from shardgate.domain.units import GIBI, KIBI, MEBI, Bytes

MOST_BYTES = KIBI**5
MOST_MEGAHERTZ = 100_000
MOST_MILLIWATTS = 100_000_000
MOST_LANES = 64
MOST_GENERATION = 32
MOST_COUNT = 2**63 - 1
"""Also leaves out ``NVML_VALUE_NOT_AVAILABLE``, which is all bits."""

_PATHS = {
    0: PciePath.SAME_BOARD,
    10: PciePath.ONE_SWITCH,
    20: PciePath.SWITCHES,
    30: PciePath.HOST_BRIDGE,
    40: PciePath.NUMA_NODE,
    50: PciePath.SYSTEM,
}
_REMOTES = {0: RemoteKind.GPU, 1: RemoteKind.CPU, 2: RemoteKind.SWITCH}
_FABRIC_STATES = ("NotSupported", "NotStarted", "InProgress", "Completed")
_RECOVERY_ACTIONS = (
    "None", "GpuReset", "NodeReboot", "DrainP2P", "DrainAndReset", "RecoverImexDomain", "BusReset", "SystemReboot",
)  # fmt: skip
_P2P_OK, _P2P_UNKNOWN = 0, 6
_PROFILE = re.compile(r" MIG (\d+(?:c\.\d+)?g\.\d+gb(?:[+-][a-z.]+)*)$")


def amount(value: Any, most: int = MOST_COUNT) -> int | None:
    """A whole number from 0 to ``most``."""
    return value if type(value) is int and 0 <= value <= most else None


def text(value: Any) -> str | None:
    """Printable ASCII of up to ``MOST_TEXT`` characters, not empty."""
    stripped = value.strip() if isinstance(value, str) else ""
    return stripped if stripped and len(stripped) <= MOST_TEXT and stripped.isascii() and stripped.isprintable() else None


def flag(value: Any) -> bool | None:
    """0 or 1."""
    return bool(value) if type(value) is int and value in (0, 1) else None


def version_pair(value: Any) -> tuple[int, int] | None:
    """``13000`` -> (13, 0): how NVML writes a CUDA version."""
    number = amount(value, 1_000_000)
    return None if not number else (number // 1000, number % 1000 // 10)


def compute_capability(value: Any) -> tuple[int, int] | None:
    """(major, minor), a vfio-bound device's (-1, -1) left out."""
    if not isinstance(value, tuple | list) or len(value) != 2:  # noqa: PLR2004  # a pair
        return None
    major, minor = amount(value[0], 99), amount(value[1], 99)
    return None if not major or minor is None else (major, minor)


def memory(total: Any, used: Any, reserved: Any = None) -> Memory:
    """In bytes; what does not go together is left out but for the total."""
    whole = amount(total, MOST_BYTES) or None
    held, kept = amount(used, MOST_BYTES), amount(reserved, MOST_BYTES)
    if whole is None or (held or 0) + (kept or 0) > whole:
        held = kept = None
    return Memory(total=_bytes(whole), used=_bytes(held), reserved=_bytes(kept))


def _bytes(value: int | None) -> Bytes | None:
    return None if value is None else Bytes(value)


def numa_node(mask: Sequence[int]) -> int | None:
    """The one node of a mask of 64-bit words, the lowest first; ``None`` where there is none, or several."""
    whole = sum(word << 64 * place for place, word in enumerate(mask))
    return whole.bit_length() - 1 if whole and not whole & (whole - 1) else None


def pci_bus_id(value: Any) -> str | None:
    """``00000000:17:00.0``, in capitals as NVML writes them."""
    found = text(value)
    return found.upper() if found and re.fullmatch(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]", found) else None


def pcie_path(level: Any) -> PciePath | None:
    """Of ``nvmlGpuTopologyLevel_t``."""
    return _PATHS.get(level)


def can_reach(status: Any) -> bool | None:
    """Of ``nvmlGpuP2PStatus_t``: whatever stands in the way, it cannot."""
    return None if amount(status, _P2P_UNKNOWN - 1) is None else status == _P2P_OK


def remote_kind(device_type: Any) -> RemoteKind:
    """Of ``nvmlIntNvLinkDeviceType_t``."""
    return _REMOTES.get(device_type, RemoteKind.UNKNOWN)


def fabric_state(state: Any) -> str | None:
    """Of ``nvmlGpuFabricState_t``."""
    number = amount(state, len(_FABRIC_STATES) - 1)
    return None if number is None else _FABRIC_STATES[number]


def fabric_cluster(uuid: Sequence[int]) -> str | None:
    """16 bytes as a UUID; all zeroes are that of a node alone."""
    digits = bytes(uuid).hex()
    return None if not any(uuid) else "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def recovery_action(value: Any) -> str | None:
    """Of ``nvmlDeviceGpuRecoveryAction_t``."""
    number = amount(value, len(_RECOVERY_ACTIONS) - 1)
    return None if number is None else _RECOVERY_ACTIONS[number]


def mig_profile(name: str | None, *, slices: int | None, parts: int | None, mebibytes: int | None, card: int | None) -> str | None:
    """``3g.40gb``: the end of the MIG device's name, else worked out as NVIDIA's tools do.

    ``slices`` of the GPU instance, ``parts`` of the compute instance, memory of the device in MiB and of the card in bytes:
    memory counts in eighths of the card (NVIDIA/go-nvlib, ``pkg/nvlib/device/mig_profile.go``).
    """
    if found := _PROFILE.search(name or ""):
        return found[1]
    if not slices or not parts or not mebibytes or not card:
        return None
    eighths = math.ceil(mebibytes * MEBI / card * 8)
    size = math.floor(eighths / 8 * math.ceil(card / GIBI) + 0.5)
    return f"{slices}g.{size}gb" if slices == parts else f"{parts}c.{slices}g.{size}gb"
