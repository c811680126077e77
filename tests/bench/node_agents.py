"""Node agents at size: what they and the operator write at rest, counted by the API server, and how soon a lost GPU is seen.

``python tests/bench/node_agents.py [--nodes 100] [--minutes 10] [--losses 5]`` prints a Markdown table. Each agent is a
process of its own, on an emulated driver of 8 H100.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deploy/local"), str(ROOT / "tests"), str(ROOT / "tests/cluster"), str(Path(__file__).parent)]

from audit import writes
from emulated_agents import HEALTHY, LOST, Agents, agents_writes, following, permitted
from filling import cpu_seconds, memory_mib, say
from live import status, until, wait_for_outcome, wait_for_rest

from builders import a_body
from controlplane.installation import Installation
from controlplane.plane import ControlPlane, control_plane
from operator_user import AGENT_USER, OPERATOR_USER

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": [OPERATOR_USER, AGENT_USER]}, {"level": "None"}],
}  # fmt: skip
SETTLE_SECONDS = 30.0


def at_rest(plane: ControlPlane, agents: Agents, operator: Installation, minutes: float) -> list[tuple[str, str]]:
    """Rows: what is written, and what it costs."""
    pid = operator.operator.pid if operator.operator else None
    if pid is None:
        raise RuntimeError("the operator has no process")
    say(f"counting writes for {minutes:g} minutes")
    since, before = len(plane.audit_log.read_text().splitlines()), len(writes(plane))
    cpu_before = [cpu_seconds(each) for each in (pid, *agents.pids)]
    started = time.monotonic()
    time.sleep(minutes * 60)
    took = time.monotonic() - started
    cpu = [cpu_seconds(each) - was for each, was in zip((pid, *agents.pids), cpu_before, strict=True)]
    written = Counter((verb, resource) for verb, resource, _ in agents_writes(plane, since))
    rest = len(writes(plane)) - before
    beats = written.pop(("patch", "leases"), 0)
    return [
        (f"heartbeats of {len(agents.pids)} agents in {took:.0f} s", f"{beats} ({beats / took:.1f} a second)"),
        ("other writes of theirs", f"{sum(written.values())} {dict(written) or ''}".strip()),
        ("writes of the operator, but for its Lease", str(rest)),
        ("CPU of the operator", f"{cpu[0] / took:.2%} of a core"),
        ("CPU of an agent, median and largest", f"{statistics.median(cpu[1:]) / took:.3%}, {max(cpu[1:]) / took:.3%} of a core"),
        ("RSS of an agent, median and largest", "{:.1f}, {:.1f} MiB".format(*_spread([memory_mib(each) for each in agents.pids]))),
        ("RSS of the operator", f"{memory_mib(pid):.0f} MiB"),
    ]


def _spread(values: list[float]) -> tuple[float, float]:
    return statistics.median(values), max(values)


def losses(plane: ControlPlane, agents: Agents, node: str, number: int) -> tuple[str, str]:
    """Seconds from a GPU that falls off the bus until the verdict that stands has changed."""
    taken = []
    for _ in range(number):
        agents.show(node, LOST)
        taken.append(until("the verdict changes", lambda: status(plane, "all", "serving").get("outcome") == "Waiting", 60))
        agents.show(node, HEALTHY)
        wait_for_outcome(plane, "all", "serving", "Sound", 60)
        time.sleep(len(taken) % 3 + 0.3)  # not in step with the agent's readings
    return (
        f"GPU lost to changed verdict, {number} times",
        f"{statistics.median(taken):.1f} s in the median, {max(taken):.1f} s at most",
    )


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--losses", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, control_plane(say, audit_policy=AUDIT_POLICY) as plane:
        Installation(plane).install()
        plane.kubectl("create", "namespace", "serving")
        agents, operator = Agents(plane, Path(folder), heartbeat=10.0), following(plane, stale_after_seconds=30)
        names = [f"gpu-{index:03}" for index in range(options.nodes)]
        with permitted(plane):
            try:
                for number, name in enumerate(names):
                    agents.begin(name)
                    if number % 20 == 19:  # now and then
                        say(f"{number + 1} agents are started")
                operator.connect()
                operator.start()
                operator.register_webhooks()
                until("all reports count", lambda: operator.metric('shardgate_node_reports{state="fresh"}') == len(names), 120)
                plane.apply(a_body("all", replicas=options.nodes))
                wait_for_outcome(plane, "all", "serving", "Sound", 60)
                wait_for_rest(plane)
                time.sleep(SETTLE_SECONDS)
                rows = at_rest(plane, agents, operator, options.minutes)
                rows.append(losses(plane, agents, names[len(names) // 2], options.losses))
            finally:
                agents.stop()
                operator.stop()
    print("| figure | measured |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
