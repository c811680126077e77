"""A report for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from shardgate.domain.units import gib

UNKNOWN = "unknown"


def table(status: Mapping[str, Any]) -> str:
    """Driver, then a line for each GPU."""
    driver = status.get("driver") or {}
    cuda = driver.get("cudaVersion")
    head = f"driver {driver.get('version') or UNKNOWN}, CUDA {_version(cuda)}: {status['summary']}\n"
    if not status["gpus"]:
        return head
    rows: list[tuple[str, ...]] = [("GPU", "PRODUCT", "CC", "MEMORY", "USED", "MIG", "NVLINKS", "NUMA", "PROCESSES", "HEALTH")]
    rows += [_row(gpu) for gpu in status["gpus"]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return head + "\n".join(lines) + "\n" + _pairs(status.get("pairs") or ())


def _row(gpu: Mapping[str, Any]) -> tuple[str, ...]:
    memory, mig, links, processes = (gpu.get(name) for name in ("memory", "mig", "nvlink", "processes"))
    devices = (mig or {}).get("devices") or ()
    health = gpu["health"]
    return (
        str(gpu["index"]),
        gpu.get("product") or UNKNOWN,
        _version(gpu.get("computeCapability")),
        _amount((memory or {}).get("totalBytes")),
        _amount((memory or {}).get("usedBytes")),
        "-" if mig is None else " ".join(each.get("profile") or UNKNOWN for each in devices) or ("on" if mig["enabled"] else "off"),
        "-" if links is None else f"{links['up']} up" + (f", {len(links['down'])} down" if links["down"] else ""),
        str(gpu.get("numaNode", UNKNOWN)),
        UNKNOWN if processes is None else str(len(processes)),
        " ".join([health["state"], *health.get("reasons", ())]),
    )


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> str:
    linked = [pair for pair in pairs if pair.get("nvlink")]
    if not pairs:
        return ""
    if len(linked) == len(pairs):
        return "all GPUs reach each other over NVLink\n"
    near = ", ".join(f"{pair['first']}-{pair['second']} {pair.get('path') or UNKNOWN}" for pair in pairs if not pair.get("nvlink"))
    joined = ", ".join(f"{pair['first']}-{pair['second']}" for pair in linked)
    return (f"over NVLink: {joined}\n" if joined else "") + f"over PCIe: {near}\n"


def _version(version: Mapping[str, int] | None) -> str:
    return UNKNOWN if version is None else f"{version['major']}.{version['minor']}"


def _amount(size: int | None) -> str:
    return UNKNOWN if size is None else gib(size)
