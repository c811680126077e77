"""Whose a process is."""

from pathlib import Path

import pytest

from shardgate.adapters.control_groups import owner_of
from shardgate.domain.driver_reading import GpuProcess, Ownership
from shardgate.domain.units import Bytes
from shardgate.shells.agent.processes import Processes, sees_the_host

UID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
DASHED, UNDERSCORED, STATIC = UID, UID.replace("-", "_"), "4c6bb1d1a3a0ae3bd0b1bb3dbb3ad8ff"
CONTAINER = "9d3a" * 16


@pytest.mark.parametrize(
    ("lines", "owner"),
    [
        (f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice/cri-containerd-{CONTAINER}.scope", (Ownership.POD, UID)),
        (f"0::/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/crio-{CONTAINER}.scope/container", (Ownership.POD, UID)),
        (f"12:memory:/kubepods/besteffort/pod{DASHED}/{CONTAINER}\n1:name=systemd:/kubepods/besteffort/pod{DASHED}/{CONTAINER}", (Ownership.POD, UID)),
        (f"0::/kubepods/burstable/pod{STATIC}/{CONTAINER}", (Ownership.POD, STATIC)),
        (f"0::/../../kubepods-besteffort-pod{UNDERSCORED}.slice/cri-containerd-{CONTAINER}.scope", (Ownership.POD, UID)),
        (f"0::/../cri-containerd-{CONTAINER}.scope", (Ownership.POD, None)),
        ("0::/kubepods.slice/kubepods-burstable.slice", (Ownership.POD, None)),
        ("0::/system.slice/gdm.service", (Ownership.HOST, None)),
        ("0::/user.slice/user-1000.slice/session-3.scope", (Ownership.HOST, None)),
        (f"0::/system.slice/docker-{CONTAINER}.scope", (Ownership.HOST, None)),
        ("0::/", (Ownership.HOST, None)),
        ("0::/../../../../system.slice/slurmstepd.scope", (Ownership.HOST, None)),
        ("", (Ownership.UNKNOWN, None)),
        ("no lines of a control group", (Ownership.UNKNOWN, None)),
    ],
)  # fmt: skip
def test_a_process_is_a_pods_or_the_hosts(lines: str, owner: tuple[Ownership, str | None]) -> None:
    assert owner_of(lines) == owner


def a_process(proc: Path, pid: int, control_groups: str, command: str) -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "cgroup").write_text(control_groups)
    (proc / str(pid) / "comm").write_text(command)


def test_processes_are_looked_up_where_the_numbers_are_the_hosts(tmp_path: Path) -> None:
    a_process(tmp_path, 7, f"0::/kubepods/pod{DASHED}/{CONTAINER}\n", "VLLM::Worker\n")
    a_process(tmp_path, 8, "0::/system.slice/x.service\n", "a\x1bb\n")
    look_up = Processes(tmp_path, is_host=True)
    held = Bytes(1 << 30)
    assert look_up(7, held) == GpuProcess(
        pid=7, memory=held, ownership=Ownership.POD, pod_uid=UID, command="VLLM::Worker"
    )  # fmt: skip
    assert look_up(8, None) == GpuProcess(pid=8, memory=None, ownership=Ownership.HOST, command="ab")
    assert look_up(9, held) == GpuProcess(pid=9, memory=held, ownership=Ownership.UNKNOWN)
    hidden = Processes(tmp_path, is_host=False)
    assert hidden(7, held) == GpuProcess(pid=7, memory=held, ownership=Ownership.UNKNOWN)


def test_a_namespace_of_ones_own_is_told_from_the_hosts(tmp_path: Path) -> None:
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").touch()
    assert not sees_the_host(tmp_path)
    assert not sees_the_host(tmp_path / "nowhere")
