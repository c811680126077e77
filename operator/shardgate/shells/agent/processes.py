"""What ``/proc`` tells of the processes that hold GPU memory."""

from pathlib import Path

from shardgate.adapters.control_groups import owner_of
from shardgate.domain.driver_reading import GpuProcess, Ownership
from shardgate.domain.units import Bytes

INITIAL_NAMESPACE = 0xEFFFFFFC
"""Inode of the host's pid namespace: ``PROC_PID_INIT_INO`` of Linux (``include/linux/proc_ns.h``)."""
MOST_COMMAND = 64


def sees_the_host(proc: Path = Path("/proc")) -> bool:
    """Whether process numbers are the host's: in a pod, only with ``hostPID``."""
    try:
        return (proc / "self/ns/pid").stat().st_ino == INITIAL_NAMESPACE
    except OSError:
        return False


class Processes:
    """Looks processes up. Without the host's process numbers, one may be anybody's: then nothing is known of it."""

    def __init__(self, proc: Path = Path("/proc"), *, is_host: bool | None = None) -> None:
        self._proc = proc
        self._is_host = sees_the_host(proc) if is_host is None else is_host

    def __call__(self, pid: int, memory: Bytes | None) -> GpuProcess:
        """A process as the driver numbers it."""
        if not self._is_host:
            return GpuProcess(pid=pid, memory=memory, ownership=Ownership.UNKNOWN)
        ownership, pod = owner_of(self._read(pid, "cgroup"))
        command = "".join(each for each in self._read(pid, "comm").strip() if each.isascii() and each.isprintable())
        return GpuProcess(pid=pid, memory=memory, ownership=ownership, pod_uid=pod, command=command[:MOST_COMMAND] or None)

    def _read(self, pid: int, name: str) -> str:
        try:
            return (self._proc / str(pid) / name).read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended, or is not ours to see
            return ""
