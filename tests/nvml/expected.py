"""What is to be read of a profile: worked out from the profile alone, by nothing that reads drivers.

The insane driver's is written down by hand: ``expected/insane-418.json``.
"""

import json
from typing import Any

from nvml.library import HERE

Json = dict[str, Any]

LOST = 15
PATHS = {0: "SameBoard", 10: "OneSwitch", 20: "Switches", 30: "HostBridge", 40: "NumaNode", 50: "System"}
REMOTES = {0: "Gpu", 1: "Cpu", 2: "Switch", 255: "Unknown"}
FABRICS = ["NotSupported", "NotStarted", "InProgress", "Completed"]
ACTIONS = ["None", "GpuReset", "NodeReboot", "DrainP2P", "DrainAndReset"]
PROFILES_OF_NAMELESS = {"MIG-44444444-4444-5444-8444-444444444444": "2g.10gb"}
"""MIG devices whose name does not tell."""


def written_down(name: str) -> Json:
    """The status that stands in a file."""
    found: Json = json.loads((HERE / "expected" / f"{name}.json").read_text())
    return found


def status(profile: Json) -> Json:
    """Without times, versions of the agent and the summary."""
    gpus = [{**profile["gpu"], **gpu} for gpu in profile["gpus"]]
    cuda = profile["cuda"]
    reachable = [index for index, gpu in enumerate(gpus) if gpu.get("failure") != LOST]
    return {
        "driver": {
            "version": profile["driver"], "nvmlVersion": profile["nvml"],
            "cudaVersion": {"major": cuda // 1000, "minor": cuda % 1000 // 10},
        },
        "gpus": [_gpu(index, gpu) for index, gpu in enumerate(gpus)],
        "pairs": [_pair(profile["pairs"], a, b) for a in reachable for b in reachable if a < b],
    }  # fmt: skip


def _gpu(index: int, gpu: Json) -> Json:
    if gpu.get("failure") == LOST:
        return {"index": index, "health": {"state": "Lost"}}
    major, minor = gpu["computeCapability"]
    graphics, multiprocessor, memory, _ = gpu["maxClocks"]
    errors: Json = {
        "eccEnabled": gpu["ecc"]["current"] == 1, "uncorrected": gpu["ecc"]["volatile"][1],
        "uncorrectedEver": gpu["ecc"]["aggregate"][1],
    }  # fmt: skip
    reasons = []
    action = gpu["fields"].get("230")
    if action:
        reasons.append(f"RecoveryAction{ACTIONS[action]}")
    if "remappedRows" in gpu:
        correctable, uncorrectable, pending, failed = gpu["remappedRows"]
        errors["rowRemap"] = {
            "correctable": correctable, "uncorrectable": uncorrectable, "pending": pending == 1, "failed": failed == 1,
        }  # fmt: skip
        reasons += ["RowRemapPending"] if pending else []
    if "retiredPagesPending" in gpu:
        errors["retiredPagesPending"] = gpu["retiredPagesPending"] == 1
    found: Json = {
        "index": index, "uuid": gpu["uuid"], "product": gpu["name"], "pciBusId": gpu["busId"], "numaNode": gpu["numaNode"],
        "computeCapability": {"major": major, "minor": minor},
        "memory": _memory(gpu["memory"]),
        "memoryErrors": errors,
        "clocks": {"graphicsMegahertz": graphics, "multiprocessorMegahertz": multiprocessor, "memoryMegahertz": memory},
        "power": {f"{name}Milliwatts": gpu["power"][name] for name in ("enforced", "default", "least", "most")},
        "pcie": gpu["pcie"],
        "processes": _processes(gpu["processes"]),
        "health": {"state": "Unhealthy", "reasons": reasons} if reasons else {"state": "Healthy"},
    }  # fmt: skip
    if "mig" in gpu:
        found["mig"] = {
            "enabled": gpu["mig"]["current"] == 1, "enabledAfterReset": gpu["mig"]["pending"] == 1,
            "devices": [_mig_device(each) for each in gpu["mig"]["devices"]] if gpu["mig"]["current"] else [],
        }  # fmt: skip
    if "nvlink" in gpu:
        found["nvlink"] = _nvlink(gpu["nvlink"])
    if "fabric" in gpu:
        state = FABRICS[gpu["fabric"]["state"]]
        found["fabric"] = {"state": state, "status": "NVML_SUCCESS"} if state == "Completed" else {"state": state}
    if gpu.get("xids"):
        found["xids"] = sorted(set(gpu["xids"]))
    if action is not None:
        found["recoveryAction"] = ACTIONS[action]
    return found


def _memory(memory: Json) -> Json:
    return {"totalBytes": memory["total"], "usedBytes": memory["used"], "reservedBytes": memory["reserved"]}


def _mig_device(device: Json) -> Json:
    named = device["name"].partition(" MIG ")[2]
    return {
        "uuid": device["uuid"], "profile": named or PROFILES_OF_NAMELESS[device["uuid"]], "gpuInstance": device["gpuInstance"],
        "computeInstance": device["computeInstance"], "memory": _memory(device["memory"]),
        "multiprocessors": device["attributes"]["multiprocessors"],
    }  # fmt: skip


def _nvlink(nvlink: Json) -> Json:
    up = [link for link in nvlink["links"] if link["state"]]
    ends = sorted({(REMOTES[link["remote"]], link["busId"]) for link in up})
    return {
        "version": nvlink["version"],
        "up": len(up),
        "groups": [{"remote": kind, "remotePciBusId": bus, "up": sum(link["busId"] == bus for link in up)} for kind, bus in ends],
        "down": [number for number, link in enumerate(nvlink["links"]) if not link["state"]],
    }


def _processes(lists: Json) -> list[Json]:
    held: dict[int, int | None] = {}
    for each in [*lists["compute"], *lists["graphics"]]:
        held[each["pid"]] = max(each["used"], held.get(each["pid"]) or 0) if "used" in each else held.get(each["pid"])
    ordered = sorted(held, key=lambda pid: (-(held[pid] or 0), pid))
    return [
        {"pid": pid, **({"memoryBytes": held[pid]} if held[pid] is not None else {}), "ownership": "Unknown"} for pid in ordered
    ]


def _pair(pairs: Json, one: int, other: int) -> Json:
    said = {**pairs, **next((each for each in pairs.get("between", ()) if each["gpus"] == [one, other]), {})}
    return {
        "first": one, "second": other, "nvlink": said["nvlink"] == 0, "canRead": said["read"] == 0, "canWrite": said["write"] == 0,
        "path": PATHS[said["path"]],
    }  # fmt: skip
