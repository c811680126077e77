"""What a node agent costs at rest: memory, CPU, and what it writes. On a real control plane.

With an emulated driver of 8 GPUs; ``--profile none``: with the driver of this machine.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deploy/local"), str(ROOT / "tests"), str(Path(__file__).parent)]

from filling import memory_mib, say

from controlplane.installation import Installation
from controlplane.plane import ControlPlane, control_plane
from nvml.agents import AgentProcess, EmulatedAgent, EmulatedDriver, reaching
from nvml.library import build

NODE = "node-0"
SETTLE_SECONDS = 15


def cpu_seconds(pid: int) -> float:
    """Of all its threads, to the nanosecond: at rest it uses less than the clock ticks of ``/proc/<pid>/stat`` can tell."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def agent_rows(plane: ControlPlane, folder: Path, seconds: float, profile: str) -> list[tuple[str, str]]:
    """CRDs are installed. ``profile``: of an emulated driver, or ``none``."""
    plane.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    options = reaching(plane, folder, "default")
    agent = (
        AgentProcess(folder, NODE, options)
        if profile == "none"
        else EmulatedAgent(build(folder), EmulatedDriver(folder, profile), NODE, options)
    )
    try:
        time.sleep(SETTLE_SECONDS)
        started, used = time.monotonic(), cpu_seconds(agent.pid)
        before = {
            name: agent.metric(f'shardgate_node_{name}_total{{result="written"}}') or 0 for name in ("report_writes", "heartbeats")
        }
        time.sleep(seconds)
        took, used = time.monotonic() - started, cpu_seconds(agent.pid) - used
        after = {name: agent.metric(f'shardgate_node_{name}_total{{result="written"}}') or 0 for name in before}
        readings, total = (agent.metric(f"shardgate_node_driver_read_seconds_{name}") or 0 for name in ("count", "sum"))
        return [
            ("node agent, RSS", f"{memory_mib(agent.pid):.1f} MiB"),
            ("node agent, CPU at rest", f"{100 * used / took:.3f} % of a core over {took:.0f} s"),
            ("node agent, one reading of the driver", f"{1000 * total / max(readings, 1):.2f} ms"),
            ("node agent, writes at rest", ", ".join(f"{after[name] - before[name]:.0f} {name}" for name in before)),
        ]
    finally:
        agent.stop()


def main() -> int:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--profile", default="h100-8x-nvswitch")
    options = parser.parse_args()
    with control_plane(say) as plane, tempfile.TemporaryDirectory() as folder:
        Installation(plane).install()
        for name, value in agent_rows(plane, Path(folder), options.seconds, options.profile):
            print(f"| {name} | {value} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
