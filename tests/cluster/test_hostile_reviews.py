"""The webhook port of a real operator under clients that no API server would be: sizes, nonsense, silence, crowds, little CPU."""

import asyncio
import contextlib
import json
import resource
import signal
import ssl
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults import LENGTH, Measured, at_length, fault, unless_missed
from live import create_node, until
from reviews import Hook, broken_reviews, review

from builders import a_body, a_node, a_vllm_deployment
from controlplane.installation import Installation
from controlplane.plane import ControlPlane
from shardgate.shells.webhook_server import MAX_BODY_BYTES

pytestmark = pytest.mark.alone

Start = Callable[..., Installation]
Json = dict[str, Any]

MIB = 1 << 20
SILENT = at_length(100, long=500)
CROWD, ROOM = at_length(400, long=5000), at_length(200, long=2000)
RATE, CALLERS = 500, 500
STARVED_SECONDS = at_length(4, long=20)
ONE_ANSWERED = b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
"""After it a connection may be silent for a minute: the crowd is there at once, however long it takes to come."""
HEADER = b"POST /validate?timeout=3s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture
def installation(clean: ControlPlane, start: Start) -> Installation:
    """One operator, that only these tests call."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * CROWD + 1000:  # the operator inherits it
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * CROWD + 1000), hard))
    create_node(clean, a_node().body)
    return start(webhooks=False)


@pytest.fixture
def cramped(installation: Installation, clean: ControlPlane) -> Iterator[Installation]:
    """One with room for ``ROOM`` connections."""
    if LENGTH:
        yield installation
        return
    installation.stop()
    other = Installation(clean, program=(str(Path(__file__).with_name("stand_ins") / "few_connections.py"),))
    other.connect()
    other.start()
    yield other
    other.stop()


def process(installation: Installation, file: str) -> Path:
    assert installation.operator is not None
    return Path(f"/proc/{installation.operator.pid}/{file}")


def resident_bytes(installation: Installation) -> int:
    return int(process(installation, "statm").read_text().split()[1]) * resource.getpagesize()


def open_files(installation: Installation) -> int:
    return len(list(process(installation, "fd").iterdir()))


def shed(installation: Installation, reason: str) -> float:
    return installation.metric(f'shardgate_shed_total{{reason="{reason}"}}') or 0


def is_well(installation: Installation, hook: Hook) -> None:
    """Alive, ready, right, and without an error of its own."""
    code, answer = hook.post("/validate", review(a_body(strategy={"tensor": 16})))
    assert (code, json.loads(answer)["response"]["allowed"]) == (200, False)
    assert installation.is_ready()
    assert installation.metric("shardgate_internal_errors_total") == 0


# ---- sizes


def context_of(installation: Installation) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(installation.plane.authority.path))


async def said(installation: Installation, *parts: bytes, patience: float = 20, allowed: int = 0) -> tuple[int, float]:
    """What a server says to these bytes: (status, seconds after the first beyond ``allowed``); 0 where it closed without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", installation.webhook_port, ssl=context_of(installation))
    began = time.monotonic()

    async def send() -> None:
        nonlocal began
        sent = 0
        with contextlib.suppress(OSError):
            for part in parts:
                if sent <= allowed < sent + len(part):
                    began = time.monotonic()
                sent += len(part)
                writer.write(part)
                await writer.drain()

    sending = asyncio.create_task(send())
    line = b""
    with contextlib.suppress(OSError, TimeoutError):
        line = await asyncio.wait_for(reader.readline(), patience)
    took = time.monotonic() - began
    sending.cancel()
    writer.transport.abort()
    return int(line.split()[1]) if line else 0, took


@fault(
    28, what="bodies of 6, 9 and 100 MiB, streamed without a length, longer and shorter than their Content-Length",
    criterion="6 MiB answered in 1 s; others 413 or 400 in 100 ms of the excess; RSS rises by 32 MiB at most",
)  # fmt: skip
def test_large_bodies(installation: Installation, measured: Measured) -> None:
    hook = Hook(installation)
    is_well(installation, hook)
    padded = a_body()
    padded["metadata"]["annotations"] = {"padding": "x" * (6 * MIB)}
    large = json.dumps(review(padded)).encode()
    before = resident_bytes(installation)
    began = time.monotonic()
    assert hook.post("/validate", large)[0] == 200
    took = time.monotonic() - began
    assert not LENGTH or took <= 1
    chunk = f"{MIB:x}\r\n".encode() + b"x" * MIB + b"\r\n"
    asked = {  # how much of it is not too much: what says its length is from its head on
        "9 MiB": (0, [HEADER + b"Content-Length: %d\r\n\r\n" % (9 * MIB), *[b"x" * MIB] * 9]),
        "100 MiB": (0, [HEADER + b"Content-Length: %d\r\n\r\n" % (100 * MIB), *[b"x" * MIB] * 100]),
        "100 MiB in chunks": (MAX_BODY_BYTES, [HEADER + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 100]),
    }
    risen, worst = [], 0.0
    for _ in range(at_length(3, long=20)):
        for name, (allowed, parts) in asked.items():
            status, seconds = asyncio.run(said(installation, *parts, allowed=allowed))
            assert (name, status) == (name, 413)
            worst = max(worst, seconds)
        risen.append((resident_bytes(installation) - before) / MIB)
    small = json.dumps(review(a_body())).encode()
    assert asyncio.run(said(installation, HEADER + b"Content-Length: 9\r\n\r\n" + small))[0] == 400, "longer than it says"
    assert asyncio.run(said(installation, HEADER + b"Content-Length: -1\r\n\r\n" + small))[0] == 400
    assert asyncio.run(said(installation, HEADER + b"Content-Length: 9x\r\n\r\n" + small))[0] == 400
    shorter, waited = asyncio.run(said(installation, HEADER + b"Content-Length: %d\r\n\r\n" % (len(small) + 9) + small))
    assert (shorter, waited < 30) == (408, True), "what does not come is waited for eight seconds"
    assert max(risen) <= 32
    assert not LENGTH or worst <= 0.5
    is_well(installation, hook)
    text = (
        f"6 MiB in {1000 * took:.0f} ms; 413 after {1000 * worst:.0f} ms at most; "
        f"RSS rose by {risen[0]:.0f} MiB in the first of {len(risen)} rounds, {max(risen):.0f} MiB at most"
    )
    measured(unless_missed(worst <= 0.1, text))


# ---- nonsense


@fault(
    29, what="reviews that are none: empty, cut, 100,000 deep, NaN, bad UTF-8, fields missing, other kinds and versions",
    criterion="each 4xx; none allowed, none 500; RSS flat (a million random ones: make fuzz)",
)  # fmt: skip
def test_malformed_reviews(installation: Installation, measured: Measured) -> None:
    hook, broken = Hook(installation), broken_reviews()
    for content in broken.values():
        hook.post("/validate", content)
    before = resident_bytes(installation)
    rounds = at_length(3, long=100)
    for _ in range(rounds):
        for name, content in broken.items():
            code, answer = hook.post("/validate", content)
            assert (name, code, "allowed" in answer) == (name, 400, False)
    risen = (resident_bytes(installation) - before) / MIB
    assert risen <= 16
    is_well(installation, hook)
    measured(f"{len(broken)} kinds of them {rounds} times: all 400; RSS rose by {risen:.1f} MiB")


HOSTILE: dict[str, Json] = {
    "TP=10^18": {"strategy": {"tensor": 10**18}},
    "TP=-1": {"strategy": {"tensor": -1}},
    "TP=0": {"strategy": {"tensor": 0}},
    'TP="8\\n"': {"strategy": {"tensor": "8\n"}},
    "TP in Arabic digits": {"strategy": {"tensor": "٨"}},
    "flags repeated": {"engine": {"args": ["--tensor-parallel-size=8"] * 500}},
    "1 MB of flags": {"engine": {"args": ["--" + "x" * 1000] * 1000}},
    "one flag of 1 MB": {"engine": {"args": ["--max-model-len=" + "9" * 1_000_000]}},
    "variables": {"engine": {"args": ["--tensor-parallel-size=$(A)", "--max-model-len=$($(B))"], "environment": {"A": "$(A)", "B": "$(B)"}}},
    "for a slow regex": {"engine": {"args": ["a" * 50_000 + "!", " " * 50_000 + "\n"]}, "model": {"name": "a/" * 20_000 + "!"}},
}  # fmt: skip
SCRIPTS = {
    "a slow script": "vllm serve x " + "\\\n" * 20_000 + "$(" * 2_000,
    "1 MB of quotes": "vllm serve x " + "'\"" * 500_000,
    "TP=10^18": "vllm serve x --tensor-parallel-size=" + str(10**18),
    "a variable of itself": 'A="$A$A"; ' * 2_000 + "vllm serve x -tp $A",
}


JUDGING = "shardgate_admission_duration_seconds_sum"
"""Seconds that answers took to work out, all of them."""


def of_script(script: str) -> Json:
    body = a_vllm_deployment()
    body["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-c", script]
    return body


@fault(
    33, what="hostile values: widths of 10^18, -1, 0 and text, flags repeated, 1 MB long or made for slow patterns, variables of themselves",
    criterion="a typed answer each; no error of ours; 10 ms each",
)  # fmt: skip
def test_hostile_values(installation: Installation, measured: Measured) -> None:
    hook = Hook(installation)
    deployments = {"group": "apps", "version": "v1", "resource": "deployments"}
    asked = {name: review(a_body(**changes)) for name, changes in HOSTILE.items()}
    asked |= {f"script: {name}": review(of_script(script), resource=deployments) for name, script in SCRIPTS.items()}
    took = {}
    for name, content in asked.items():
        seconds = []
        for _ in range(3):
            before = installation.metric(JUDGING) or 0
            code, answer = hook.post("/validate?timeout=3s", content)
            seconds.append((installation.metric(JUDGING) or 0) - before)
            assert (name, code) == (name, 200), answer
            response = json.loads(answer)["response"]
            assert response["allowed"] or response["status"]["code"] == 422
        took[name] = min(seconds)
    assert installation.metric("shardgate_internal_errors_total") == 0
    is_well(installation, hook)
    slowest = max(took, key=lambda name: took[name])
    assert took[slowest] < (2 if LENGTH else 10)
    median = statistics.median(took.values())
    text = f"{len(took)} of them, answered within {1000 * median:.0f} ms in the median, {1000 * took[slowest]:.0f} ms the slowest ({slowest})"
    measured(unless_missed(took[slowest] <= 0.01, text))


# ---- silence, and crowds


def latencies(hook: Hook, over: Callable[[], bool]) -> list[float]:
    """Seconds of good reviews, one after the other, each on a connection of its own."""
    content, took = json.dumps(review(a_body())).encode(), []
    while not over():
        began = time.monotonic()
        assert hook.post("/validate?timeout=3s", content)[0] == 200
        took.append(time.monotonic() - began)
    return took


def p99(seconds: Sequence[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]


def for_seconds(seconds: float) -> Callable[[], bool]:
    until_then = time.monotonic() + seconds
    return lambda: time.monotonic() > until_then


@contextmanager
def silent(installation: Installation, first: bytes, how_many: int, *, tls: bool = True) -> Iterator[list[float]]:
    """Connections that say so much and no more, until left: how long each was let stay, as they end."""
    stayed: list[float] = []
    ready, leave = threading.Event(), threading.Event()

    async def one(context: ssl.SSLContext | None, gate: asyncio.Semaphore) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            async with gate:
                reader, writer = await asyncio.open_connection("127.0.0.1", installation.webhook_port, ssl=context)
            began = time.monotonic()
            try:
                writer.write(first)
                with contextlib.suppress(OSError, ssl.SSLError):
                    while await reader.read(4096):
                        pass
                stayed.append(time.monotonic() - began)
            finally:
                writer.transport.abort()

    async def hold() -> None:
        context, gate = context_of(installation) if tls else None, asyncio.Semaphore(50)
        tasks = [asyncio.create_task(one(context, gate)) for _ in range(how_many)]
        await asyncio.sleep(1)
        ready.set()
        while not leave.is_set():
            await asyncio.sleep(0.1)
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.2)  # until what was aborted is closed

    thread = threading.Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    ready.wait()
    try:
        yield stayed
    finally:
        leave.set()
        thread.join()


SLOW = {
    "no handshake": (b"", False),
    "silent": (b"", True),
    "half a header": (HEADER, True),
    "half a body": (HEADER + b"Content-Length: 900\r\n\r\n{", True),
}


@fault(
    30, what=f"slow clients: {SILENT} connections each without a handshake, silent, with half a header, with half a body",
    criterion="each closed within 10 s; good reviews' p99 at most doubled",
)  # fmt: skip
def test_slow_clients(installation: Installation, measured: Measured) -> None:
    hook = Hook(installation)
    is_well(installation, hook)
    quiet = latencies(hook, for_seconds(3))
    with contextlib.ExitStack() as stack:
        held = {
            name: stack.enter_context(silent(installation, first, SILENT, tls=tls)) for name, (first, tls) in SLOW.items()
        }  # fmt: skip
        meanwhile = latencies(hook, for_seconds(4))
        until("all are closed", lambda: all(len(each) == SILENT for each in held.values()), timeout=40)
    longest = max(max(each) for each in held.values())
    assert longest < (10 if LENGTH else 25)
    is_well(installation, hook)
    factor = p99(meanwhile) / p99(quiet)
    text = (
        f"closed after {longest:.1f} s at most; p99 {1000 * p99(quiet):.0f} ms before, {1000 * p99(meanwhile):.0f} ms meanwhile "
        f"({factor:.1f} times, all on two cores)"
    )
    measured(unless_missed(longest <= 10 and factor <= 2, text))


@fault(
    31, what=f"{CROWD} connections at once, each with one request",
    criterion=f"capped at {ROOM}; probes and callers that came before are served; file descriptors bounded",
)  # fmt: skip
def test_a_crowd_of_connections(cramped: Installation, measured: Measured) -> None:
    installation = cramped
    hook = Hook(installation)
    is_well(installation, hook)
    quiet, most, probed = open_files(installation), 0, 0
    kept = Kept(installation)
    kept.ask()
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, open_files(installation))
            time.sleep(0.05)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with silent(installation, ONE_ANSWERED, CROWD):
            until("some are turned away", lambda: shed(installation, "connections") > 0, timeout=60)
            for _ in range(10):
                assert installation.fetch("/livez")[0] == 200
                probed += installation.is_ready()
                kept.ask()
                time.sleep(0.3)
    finally:
        kept.close()
        over.set()
        watching.join()
    assert shed(installation, "connections") > 0
    assert probed == 10
    assert most <= quiet + ROOM + 700, "those that are shaking hands are not counted yet"
    until("the descriptors are free again", lambda: open_files(installation) <= quiet + 10, timeout=30)
    is_well(installation, hook)
    measured(
        f"{most} file descriptors at most, {quiet} before; {shed(installation, 'connections'):.0f} turned away; 10 of 10 probes"
    )


class Kept:
    """A caller that keeps its connection, as API servers do."""

    def __init__(self, installation: Installation) -> None:
        import http.client

        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", installation.webhook_port, timeout=20, context=context_of(installation)
        )
        self._content = json.dumps(review(a_body()))

    def close(self) -> None:
        self._connection.close()

    def ask(self) -> None:
        self._connection.request("POST", "/validate?timeout=3s", self._content, {"Content-Type": "application/json"})
        with self._connection.getresponse() as answer:
            assert answer.status == 200
            answer.read()


# ---- little CPU


@contextmanager
def starved(installation: Installation, share: float = 0.1) -> Iterator[None]:
    """So much of a core, by stopping the process for most of each tenth of a second."""
    over = threading.Event()

    def throttle() -> None:
        operator = installation.operator
        assert operator is not None
        while not over.is_set():
            operator.signal(signal.SIGSTOP)
            time.sleep(0.1 * (1 - share))
            operator.signal(signal.SIGCONT)
            time.sleep(0.1 * share)

    thread = threading.Thread(target=throttle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def answered(reader: asyncio.StreamReader) -> int:
    """The status of one answer, its body read."""
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().splitlines() if line.startswith(b"content-length")]
    await reader.readexactly(int(lengths[0]))
    return int(head.split()[1])


async def pressed(installation: Installation, seconds: float, began: threading.Event) -> list[tuple[int, float]]:
    """So many reviews a second, whatever comes back, on kept connections and new ones where none is free, as of API servers.

    (status, seconds) of each; status 0 where there was no answer within 3 s.
    """
    found: list[tuple[int, float]] = []
    content = json.dumps(review(a_body())).encode()
    request = HEADER + b"Content-Length: %d\r\n\r\n" % len(content) + content
    context = context_of(installation)

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", installation.webhook_port, ssl=context)

    free = list(await asyncio.gather(*(connect() for _ in range(CALLERS))))

    async def call(sent: float) -> None:
        writer = None
        try:
            async with asyncio.timeout_at(sent + 3):
                while free and free[-1][0].at_eof():  # closed: it was silent for long
                    free.pop()
                reader, writer = free.pop() if free else await connect()
                writer.write(request)
                status = await answered(reader)
                free.append((reader, writer))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            status = 0
            if writer is not None:
                writer.transport.abort()
        found.append((status, asyncio.get_running_loop().time() - sent))

    began.set()
    started = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as calls:
        for number in range(int(RATE * seconds)):
            due = started + number / RATE
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            calls.create_task(call(due))
    for _, writer in free:
        writer.transport.abort()
    return found


@fault(
    32, what="a tenth of a core", load=f"{RATE} reviews/s whatever comes back, over {CALLERS} kept connections and more, {STARVED_SECONDS} s",
    criterion="a bounded queue: what is not judged is answered 503 or 504 before the caller's 3 s (0.5 % at most are not); "
    "as before within 5 s",
)  # fmt: skip
def test_little_cpu(installation: Installation, measured: Measured) -> None:
    hook = Hook(installation)
    is_well(installation, hook)
    before = resident_bytes(installation)
    began, found = threading.Event(), list[tuple[int, float]]()
    calling = threading.Thread(target=lambda: found.extend(asyncio.run(pressed(installation, STARVED_SECONDS, began))))
    calling.start()
    assert began.wait(20), "their connections are open"
    with starved(installation):
        calling.join()
    counts = Counter(status for status, _ in found)
    said_so = ", ".join(f"{count} x {status or 'no answer'}" for status, count in sorted(counts.items()))
    measured(f"{said_so}; the slowest after {max(seconds for _, seconds in found):.1f} s")
    assert set(counts) <= {0, 200, 503, 504}
    assert counts[200] > 0
    assert counts[503] + counts[504] > 0, "more came than a tenth of a core can judge"
    assert counts[0] <= len(found) * (0.005 if LENGTH else 0.5)
    took = until("it is as before", lambda: p99(latencies(hook, for_seconds(0.5))) < 0.5, timeout=5 if LENGTH else 30)
    risen = (resident_bytes(installation) - before) / MIB
    assert risen <= 64
    until("it is ready", installation.is_ready, timeout=30)
    is_well(installation, hook)
    measured(f"RSS rose by {risen:.0f} MiB; as before {took:.1f} s after")
