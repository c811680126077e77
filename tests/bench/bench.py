"""Figures at size, on a real control plane: start, memory, admission latency at rest and under change.

Prints a Markdown table; ``--write FILE`` keeps it. Nothing here is asserted: the machine is whatever it is.
"""

import argparse
import asyncio
import datetime
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deploy/local"), str(ROOT / "tests"), str(Path(__file__).parent)]

from admission import added_rows, direct_rows
from decision import decision_rows
from extraction import extraction_rows
from filling import admin, change, cpu_seconds, fill, gpus_of_pod, memory_mib, pod_name, say
from load import open_loop, update_reviews
from placement import placement_rows
from reporting import reporting_rows

from builders import GPU, a_body
from controlplane.installation import Installation
from controlplane.plane import ControlPlane, control_plane
from shardgate.shells.cluster import Cluster

REVIEWS = 1000
CHANGES_PER_SECOND = 100


async def api_latencies(cluster: Cluster, count: int) -> list[float]:
    """Milliseconds of a server-side dry run of a CREATE through the API server: both webhooks, schema and CEL."""
    path, taken = "/apis/shardgate.io/v1alpha1/namespaces/serving/inferencedeployments", []
    for _ in range(count):
        started = time.perf_counter()
        await cluster.request("POST", path, parameters={"dryRun": "All"}, body=a_body("bench"))
        taken.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(0.005)
    return taken


async def webhook_latencies(installation: Installation) -> list[float]:
    """Milliseconds of ``validate``, 100 updates a second on one connection."""
    authority, known = str(installation.plane.authority.path), update_reviews(200)
    return await open_loop(installation.webhook_port, authority, known, connections=1, seconds=10, rate=100)


def percentiles(values: list[float]) -> tuple[float, float, float]:
    """p50, p99, max."""
    cuts = statistics.quantiles(values, n=100)
    return cuts[49], cuts[98], max(values)


async def measure(plane: ControlPlane, nodes: int, pods: int) -> list[tuple[str, str]]:
    """All rows."""
    rows: list[tuple[str, str]] = []
    installation = Installation(plane)
    installation.install()
    plane.kubectl("create", "namespace", "serving")
    async with admin(plane) as cluster:
        say(f"creating {nodes} nodes and {pods} pods through the API")
        await fill(cluster, nodes, pods)
        held = await cluster.request("GET", f"/api/v1/namespaces/serving/pods/{pod_name(0)}")
        rows.append(
            ("one of the pods as the API server sends it, JSON", f"{len(json.dumps(held, separators=(',', ':'))) / 1000:.1f} kB")
        )
        say("starting the operator")
        ready = await asyncio.to_thread(installation.start, 300)
        try:
            pid = installation.operator.pid if installation.operator else None
            if pid is None:
                raise RuntimeError("the operator has no process")
            rows.append(("start to ready", f"{ready:.1f} s"))
            rows.append(("CPU of the start", f"{cpu_seconds(pid):.1f} s"))
            rows.append(("RSS when ready", f"{memory_mib(pid):.0f} MiB"))
            await asyncio.to_thread(installation.register_webhooks)
            await asyncio.sleep(2)
            say("reviews sent to the webhook")
            rows += await direct_rows(installation)
            say("creates through the API server, with and without webhooks")
            rows += await added_rows(plane, installation, cluster)
            rows += await _latency_rows("at rest", installation, cluster)
            say(f"{CHANGES_PER_SECOND} pod changes a second")
            stop = asyncio.Event()
            changing = asyncio.create_task(change(cluster, nodes, stop, CHANGES_PER_SECOND))
            began, cpu = time.monotonic(), cpu_seconds(pid)
            rows += await _latency_rows(f"under {CHANGES_PER_SECOND} pod changes/s", installation, cluster)
            stop.set()
            changes = await changing
            seconds = time.monotonic() - began
            rows.append(("pod changes really made", f"{changes / seconds:.0f}/s over {seconds:.0f} s"))
            rows.append(("operator's CPU meanwhile", f"{(cpu_seconds(pid) - cpu) / seconds:.0%} of a core"))
            rows.append(("RSS at the end", f"{memory_mib(pid):.0f} MiB"))
            await asyncio.sleep(2)  # the gauges are published at the end of a pass
            taken = sum(gpus_of_pod(index, nodes) for index in range(pods))
            free = installation.metric('shardgate_gpus{product="H100-80GB-HBM3",state="free"}')
            rows.append(("free GPUs it counts, of those there are", f"{free:.0f} of {8 * nodes - taken}"))
        finally:
            installation.stop()
    return rows


async def _latency_rows(when: str, installation: Installation, cluster: Cluster) -> list[tuple[str, str]]:
    rows = []
    for name, values in (
        ("webhook validate, 100 updates/s", await webhook_latencies(installation)),
        ("kubectl's create, dry run, through the API server", await api_latencies(cluster, REVIEWS // 2)),
    ):
        p50, p99, most = percentiles(values)
        rows.append((f"{name}, {when}: p50 / p99 / max", f"{p50:.1f} / {p99:.1f} / {most:.1f} ms"))
    return rows


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=20000)
    parser.add_argument("--write", type=Path, help="keep the table in this file")
    arguments = parser.parse_args()
    say("timing single decisions")
    decisions = decision_rows()
    say("timing the inventory and placement")
    decisions += placement_rows()
    decisions += extraction_rows()
    decisions += reporting_rows()
    with control_plane(say, large=True) as plane:
        rows = decisions + asyncio.run(measure(plane, arguments.nodes, arguments.pods))
    lines = [
        f"{arguments.nodes} nodes of 8 {GPU} (about 13 kB each), {arguments.pods} pods, created through the API of a "
        "real control plane on the same machine, which shares its cores with the operator.",
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, CPython {platform.python_version()}, "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}.",
        "",
        "| figure | measured |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
    ]
    print("\n".join(lines))
    if arguments.write:
        head = "# Benchmarks\n\nPrinted by `make bench`; nothing is asserted.\n\n"
        arguments.write.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
