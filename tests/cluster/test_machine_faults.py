"""What the operator's own machine does to it: no room for logs, nobody who reads them, no disk, no DNS; and a crowd that is refused."""

import asyncio
import fcntl
import itertools
import json
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from faults import Measured, at_length, fault
from live import create_node, patch_status, wait_for_outcome
from reviews import Hook, review

from builders import a_body, a_node
from controlplane.guard import GRACE_SECONDS
from controlplane.installation import Installation
from controlplane.plane import ControlPlane
from shardgate.shells.log_queue import MOST_LINES

pytestmark = pytest.mark.alone

STAND_INS = Path(__file__).with_name("stand_ins")
MIB = 1 << 20
REVIEWS = 400


@contextmanager
def running(plane: ControlPlane, *, program: str = "", log: Path | None = None) -> Iterator[tuple[Installation, float]]:
    """An operator, and the seconds until it was ready."""
    create_node(plane, a_node().body)
    installation = Installation(plane, **({"program": (str(STAND_INS / program),)} if program else {}))
    installation.log = log or installation.log
    installation.connect()
    try:
        yield installation, installation.start()
    finally:
        installation.stop()


def works(plane: ControlPlane, installation: Installation) -> float:
    """It judges, refuses, and keeps a status true; returns the seconds that its slowest answer took."""
    hook, slowest = Hook(installation), 0.0
    for number in range(REVIEWS):
        tensor = (8, 16)[number % 2]
        began = time.monotonic()
        answer = json.loads(
            hook.post("/validate", review(a_body(f"probe-{number}", strategy={"tensor": tensor, "pipeline": 1})))[1]
        )
        slowest = max(slowest, time.monotonic() - began)
        assert answer["response"]["allowed"] is (tensor == 8)
    plane.apply(a_body())
    wait_for_outcome(plane, "llama", "serving", "Sound")
    patch_status(plane, "node-a", {"allocatable": {"nvidia.com/gpu": "7"}})
    wait_for_outcome(plane, "llama", "serving", "Waiting")
    assert installation.is_ready()
    return slowest


@fault(
    51,
    what="nobody reads what the operator writes: the pipe of its log is full",
    criterion="it serves; lines are lost, and counted",
)
def test_nobody_reads_the_log(clean: ControlPlane, tmp_path: Path, measured: Measured) -> None:
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # and never read from
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
    try:
        with running(clean, log=pipe) as (installation, _):
            asyncio.run(refused(installation, MOST_LINES + 1000, 0))
            slowest = works(clean, installation)
            lost = installation.metric("shardgate_log_lines_lost_total") or 0
            began = time.monotonic()
            installation.stop()
            ended = time.monotonic() - began
    finally:
        os.close(reading)
    assert lost > 0
    assert ended < GRACE_SECONDS - 2, "it ends by itself"
    measured(f"{lost:.0f} lines lost; slowest of {REVIEWS} reviews {1000 * slowest:.0f} ms; ended {ended:.1f} s after SIGTERM")


@fault(51, what="no room on the disk that the log is written to", criterion="it serves; lines are lost, and counted")
def test_the_disk_is_full(clean: ControlPlane, measured: Measured) -> None:
    with running(clean, log=Path("/dev/full")) as (installation, _):
        slowest = works(clean, installation)
        lost = installation.metric("shardgate_log_lines_lost_total") or 0
    assert lost >= REVIEWS
    measured(f"{lost:.0f} lines lost; slowest of {REVIEWS} reviews {1000 * slowest:.0f} ms")


@fault(51, what="a root file system that cannot be written", criterion="it starts, and serves")
def test_a_read_only_root(clean: ControlPlane, measured: Measured) -> None:
    with running(clean, program="read_only.py") as (installation, started):
        slowest = works(clean, installation)
    measured(f"ready after {started:.1f} s; slowest of {REVIEWS} reviews {1000 * slowest:.0f} ms")


@fault(52, what="DNS is dead: each look-up of a name takes 5 s and fails", criterion="it starts, and serves, by addresses")
def test_dns_is_dead(clean: ControlPlane, measured: Measured) -> None:
    with running(clean) as (_, usual):
        pass
    with running(clean, program="no_names.py") as (installation, started):
        slowest = works(clean, installation)
    assert started < usual + 4, "no name was asked for"
    measured(f"ready after {started:.1f} s ({usual:.1f} s with DNS); slowest of {REVIEWS} reviews {1000 * slowest:.0f} ms")


DENIALS = at_length(1500, long=10_000)


@fault(
    44, what=f"{DENIALS} refusals of as many different objects" + (", in a minute" if DENIALS == 10_000 else ""),
    criterion="no event of ours for any; no metric names one; memory flat",
)  # fmt: skip
def test_very_many_refusals(clean: ControlPlane, measured: Measured) -> None:
    with running(clean) as (installation, _):
        asyncio.run(refused(installation, DENIALS // 5, 0))
        series, before = names_of_series(installation), installation.metric("process_resident_memory_bytes") or 0
        began = time.monotonic()
        asyncio.run(refused(installation, DENIALS, 60 / 10_000))
        took = time.monotonic() - began
        risen = ((installation.metric("process_resident_memory_bytes") or 0) - before) / MIB
        assert names_of_series(installation) == series
        time.sleep(2)
    told_of = {each["regarding"]["kind"] for each in clean.get("events.events.k8s.io", "-A")["items"]}
    assert told_of <= {"CapacityLedger"}, "that the webhooks are missing, which they are"
    assert risen <= 16
    measured(f"{DENIALS} in {took:.0f} s: no event of any, {len(series)} series as before, RSS rose by {risen:.1f} MiB")


def names_of_series(installation: Installation) -> set[str]:
    """All that it exposes, but for its writes: of the ledger, the first comes when it comes."""
    lines = installation.fetch("/metrics")[1].splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith(("#", "shardgate_writes"))}


async def refused(installation: Installation, how_many: int, seconds_between: float) -> None:
    """Reviews of objects of names that never were before."""
    hook, numbers, started = Hook(installation), itertools.count(), time.monotonic()
    context: ssl.SSLContext = hook.context
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:

        async def work() -> None:
            while (number := next(numbers)) < how_many:
                await asyncio.sleep(max(0.0, started + number * seconds_between - time.monotonic()))
                body = review(a_body(f"wrong-{time.monotonic_ns()}", strategy={"tensor": 16}))
                async with session.post(f"{hook.base}/validate?timeout=3s", json=body) as response:
                    answer = await response.json()
                assert answer["response"]["allowed"] is False

        await asyncio.gather(*(work() for _ in range(16)))
