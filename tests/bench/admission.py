"""What a running operator's webhook takes: reviews sent to it directly, and creates through the API server."""

import asyncio
import json
import statistics
import time
from typing import Any

from filling import cpu_seconds
from load import closed_loop, open_loop, update_reviews

from builders import a_body
from controlplane.installation import Installation
from controlplane.plane import ControlPlane
from shardgate.shells.cluster import Cluster

SECONDS, CONNECTIONS, OPEN_CONNECTIONS, OPEN_RATE = 8.0, 16, 64, 500.0
DECLARATIONS = 200
PAIRS, AT_ONCE, CREATES, PACED_RATE = 5, 50, 1000, 100.0
PATH = "/apis/shardgate.io/v1alpha1/namespaces/serving/inferencedeployments"
WEBHOOKS = ("validatingwebhookconfigurations", "mutatingwebhookconfigurations")


async def direct_rows(installation: Installation) -> list[tuple[str, str]]:
    """Updates of 6.9 kB over TLS to one process; the client has the other core."""
    authority, port = str(installation.plane.authority.path), installation.webhook_port
    pid = installation.operator.pid if installation.operator else None
    assert pid is not None
    rows = []
    known = update_reviews(DECLARATIONS)
    await closed_loop(port, authority, known, connections=CONNECTIONS, seconds=2)  # each is judged once
    before = cpu_seconds(pid)
    rate, taken = await closed_loop(port, authority, known, connections=CONNECTIONS, seconds=SECONDS)
    spent = (cpu_seconds(pid) - before) / len(taken) * 1000
    rows.append(
        (f"updates of {len(known[0])} bytes over TLS, {CONNECTIONS} connections, closed loop, {DECLARATIONS} declarations in turn",
         f"{rate:.0f}/s, p50 / p99 {_p(taken)} ms, {spent:.2f} ms CPU each")
    )  # fmt: skip
    taken = await open_loop(port, authority, known, connections=OPEN_CONNECTIONS, seconds=SECONDS, rate=OPEN_RATE)
    rows.append(
        (f"the same at {OPEN_RATE:.0f}/s over {OPEN_CONNECTIONS} connections, from when each was due: p50 / p99", f"{_p(taken)} ms")
    )
    fresh = _unseen(4000)
    rate, taken = await closed_loop(port, authority, fresh[:2000], connections=CONNECTIONS, seconds=SECONDS / 4)
    rows.append(
        (f"updates that were never seen before, {CONNECTIONS} connections, closed loop", f"{rate:.0f}/s, p50 / p99 {_p(taken)} ms")
    )
    taken = await open_loop(port, authority, fresh[2000:], connections=OPEN_CONNECTIONS, seconds=6, rate=OPEN_RATE / 2)
    rows.append((f"the same at {OPEN_RATE / 2:.0f}/s over {OPEN_CONNECTIONS} connections: p50 / p99", f"{_p(taken)} ms"))
    return rows


def _unseen(how_many: int) -> list[bytes]:
    """Each a change of another declaration to settings that none had."""
    made = []
    for number, raw in enumerate(update_reviews(how_many)):
        review: dict[str, Any] = json.loads(raw)
        request = review["request"]
        request["object"]["spec"]["engine"]["maxSequences"] = 1000 + number
        request["oldObject"]["metadata"]["name"] = request["object"]["metadata"]["name"] = f"llama-{number % DECLARATIONS}"
        made.append(json.dumps(review).encode())
    return made


async def added_rows(plane: ControlPlane, installation: Installation, cluster: Cluster) -> list[tuple[str, str]]:
    """Dry-run creates through the API server with both webhooks, and without, in turn."""
    rows = []
    for how, rate in (("as fast as they are answered", None), (f"{PACED_RATE:.0f}/s together", PACED_RATE)):
        pairs = []
        for _ in range(PAIRS):
            await asyncio.to_thread(plane.kubectl, "delete", ",".join(WEBHOOKS), "--all")
            await _until_asked(cluster, is_asked=False)
            bare = _p99(await _creates(cluster, rate))
            await asyncio.to_thread(installation.register_webhooks)
            await _until_asked(cluster, is_asked=True)
            pairs.append((bare, _p99(await _creates(cluster, rate))))
        added = [asked - bare for bare, asked in pairs]
        without, with_both = (statistics.median(each) for each in zip(*pairs, strict=True))
        rows.append(
            (f"dry-run creates through the API server, {AT_ONCE} clients, {how}: p99 without webhooks / with both, "
             f"added (medians of {PAIRS} interleaved pairs)",
             f"{without:.0f} / {with_both:.0f} ms, {statistics.median(added):+.0f} ms ({min(added):+.0f} to {max(added):+.0f})")
        )  # fmt: skip
    return rows


async def _creates(cluster: Cluster, rate: float | None = None) -> list[float]:
    """Milliseconds of each; ``rate``: so many a second, from when each was due; else each client asks again at once."""
    taken: list[float] = []
    left = iter(range(CREATES))
    began = time.perf_counter()

    async def work() -> None:
        for number in left:
            started = time.perf_counter() if rate is None else began + number / rate
            await asyncio.sleep(max(0.0, started - time.perf_counter()))
            await cluster.request("POST", PATH, parameters={"dryRun": "All"}, body=a_body(f"bench-{number % DECLARATIONS}"))
            taken.append((time.perf_counter() - started) * 1000)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return taken


async def _until_asked(cluster: Cluster, *, is_asked: bool) -> None:
    """The API server learns of webhooks by a watch of its own."""
    while True:
        answer = await cluster.request("POST", PATH, parameters={"dryRun": "All"}, body=a_body("probe"))
        if ("shardgate.io/verdict" in (answer["metadata"].get("annotations") or {})) == is_asked:
            return
        await asyncio.sleep(0.1)


def _p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98]


def _p(taken: list[float]) -> str:
    cuts = statistics.quantiles(taken, n=100)
    return f"{cuts[49]:.1f} / {cuts[98]:.1f}"
