"""Pods, events and conditions as the API serves them -> what keeps a pod from running, in few words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.domain.units import count

Json = Mapping[str, Any]

IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_SIGNALS = {
    134: "aborted",
    135: "a bus error",
    136: "an arithmetic error",
    137: "killed",
    139: "a segmentation fault",
    143: "told to end",
}
"""Exit codes of 128 and a signal, as shells have them."""
_OUT_OF_MEMORY = "OOMKilled: out of the host's memory, not the GPU's; its limit is resources.limits.memory"
MOST_TEXT = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A container that ended in failure, the last time that it did."""

    pod: str
    container: str
    exit_code: int
    reason: str
    message: str
    """The end of its log or its termination message, where it left one."""
    restarts: int

    @property
    def text(self) -> str:
        """Which container ended, and how."""
        if self.reason == "OOMKilled":
            how = f" ({_OUT_OF_MEMORY})"
        elif self.exit_code in _SIGNALS:
            how = f" ({_SIGNALS[self.exit_code]})"
        else:
            how = f" ({self.reason})" if self.reason not in ("", "Error") else ""
        again = f", after {count(self.restarts, 'restart')}" if self.restarts else ""
        return f"container {self.container} of pod {self.pod} ended with exit code {self.exit_code}{how}{again}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What one pod is about."""

    name: str
    is_ready: bool = False
    is_bound: bool = False
    unscheduled: str = ""
    """The scheduler's own words; empty where it is bound, or was not looked at yet."""
    is_gated: bool = False
    waiting: tuple[tuple[str, str, str], ...] = ()
    """(container, reason, message) of containers that do not start."""
    ended: tuple[Ended, ...] = ()
    failed: str = ""
    """Of a pod that failed as a whole."""


def trouble_of(pod: Json) -> Trouble:
    """One pod."""
    metadata, status, spec = (mapping(pod.get(part)) for part in ("metadata", "status", "spec"))
    name = str(metadata.get("name"))
    conditions = {str(each.get("type")): each for each in dicts(status.get("conditions"))}
    scheduled, statuses = conditions.get("PodScheduled", {}), _statuses(status)
    is_gated = scheduled.get("reason") == "SchedulingGated"
    ended = tuple(found for each in statuses if (found := _ended(name, each)) is not None)
    has_failed = status.get("phase") == "Failed" and not ended
    words = str(scheduled.get("message") or scheduled.get("reason") or "")
    return Trouble(
        name=name,
        is_ready=conditions.get("Ready", {}).get("status") == "True",
        is_bound=bool(spec.get("nodeName")),
        unscheduled=words if scheduled.get("status") == "False" and not is_gated else "",
        is_gated=is_gated or (bool(spec.get("schedulingGates")) and not spec.get("nodeName")),
        waiting=tuple(
            (str(each.get("name")), str(waits.get("reason") or ""), cut_short(str(waits.get("message") or "")))
            for each in statuses
            if (waits := mapping(mapping(each.get("state")).get("waiting")))
        ),
        ended=ended,
        failed=f"{status.get('reason') or 'Failed'}: {status.get('message') or 'no more is said'}" if has_failed else "",
    )  # fmt: skip


def _statuses(status: Json) -> list[dict[str, Any]]:
    return [*dicts(status.get("initContainerStatuses")), *dicts(status.get("containerStatuses"))]


def _ended(pod: str, status: Json) -> Ended | None:
    """Now, or before its last start; one that ended well did its work."""
    if status.get("ready") is True:
        return None
    for state in ("state", "lastState"):
        found = mapping(mapping(status.get(state)).get("terminated"))
        code = found.get("exitCode")
        if isinstance(code, int) and code:
            return Ended(
                pod=pod, container=str(status.get("name")), exit_code=code, reason=str(found.get("reason") or ""),
                message=last_words(str(found.get("message") or "")), restarts=int(status.get("restartCount") or 0),
            )  # fmt: skip
    return None


def last_words(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return cut_short(lines[-1]) if lines else ""


def cut_short(text: str) -> str:
    """In one line, no longer than is read, and without what would steer a terminal."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= MOST_TEXT else f"{line[: MOST_TEXT - 1]}…"


def together(texts: Iterable[tuple[str, str]]) -> list[str]:
    """(pod, text) pairs, those of one text in one line."""
    pods: dict[str, list[str]] = {}
    for pod, text in texts:
        pods.setdefault(text, []).append(pod)
    return [f"{names[0] if len(names) == 1 else count(len(names), 'pod')}: {text}" for text, names in pods.items()]


def last_seen(event: Json) -> str:
    """When an event was last seen, as text that sorts; empty where it does not say."""
    series = mapping(event.get("series"))
    seen = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"), event.get("firstTimestamp"))
    return next((str(each) for each in seen if each), "")


def component(event: Json) -> str:
    """Who tells of it."""
    return str(event.get("reportingComponent") or mapping(event.get("source")).get("component") or "")
