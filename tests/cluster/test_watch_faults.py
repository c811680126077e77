"""Watches that end, lie, stutter or fall silent: the copy equals the cluster again soon, and the process lives."""

import asyncio
import itertools
import os
import random
import time
from collections.abc import Iterator
from unittest import mock

import pytest
from calls import send
from faults import LENGTH, Measured, at_length, fault, only_at_length
from faulty import AT_ONCE, NODES, PODS, Faulty, bound_pod, faulty_plane, operator_behind, settle
from interceptor import Lines, Refuse, Say, Since, error_event
from live import until

from builders import GPU
from controlplane.plane import ControlPlane
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.nodes import NodeObject
from shardgate.shells import reflector as module
from shardgate.shells.cluster import Cluster
from shardgate.shells.reflector import Reflector
from shardgate.shells.stores import Nodes

PODS_OF_SERVING = "/api/v1/namespaces/serving/pods"
RIGHT_SECONDS = 5 if LENGTH else 20
"""What is asked for; in `make test` other tests have the processors too."""
GRACE_SECONDS, SILENT_SECONDS = 30, 90
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def faulty(request: pytest.FixtureRequest) -> Iterator[Faulty]:
    """One operator for this file: whatever is done to it, it is to be ready and right again."""
    with faulty_plane(request) as (plane, api), operator_behind(plane, api) as found:
        settle(found)
        yield found
        assert found.is_alive()


made: list[str] = []


def change(plane: ControlPlane) -> None:
    """One GPU more, or less, is held: by a pod that is made, or deleted."""
    if made:
        verb, path, body = "DELETE", f"{PODS_OF_SERVING}/{made.pop()}", AT_ONCE
    else:
        made.append(f"p{next(numbers)}")
        verb, path, body = "POST", PODS_OF_SERVING, bound_pod(made[0])
    ((status, said),) = send(plane, [(verb, path, body)])
    assert status < 300, said


def watched(faulty: Faulty) -> None:
    """Wait until pods and nodes are watched, and both watches have told something: no pause is owed to what was before."""
    until("both are watched", lambda: faulty.api.watches(PODS) == faulty.api.watches(NODES) == 1, timeout=30)
    change(faulty.plane)
    stamp = {"metadata": {"annotations": {"shardgate.test/stamp": str(next(numbers))}}}
    send(faulty.plane, [("PATCH", f"{NODES}/node-a", stamp)])
    settle(faulty)


@pytest.fixture(autouse=True)
def _ready(faulty: Faulty) -> Iterator[None]:
    watched(faulty)
    pid = faulty.installation.operator and faulty.installation.operator.pid
    yield
    assert faulty.is_alive()
    assert faulty.installation.operator is not None
    assert faulty.installation.operator.pid == pid, "0 restarts"
    settle(faulty)


ROUNDS = at_length(3, long=100)


@pytest.mark.parametrize("form", ["event", "status"])
@fault(
    6, what=f"{ROUNDS} times the watches on pods and nodes end with 410: as an ERROR event, as an HTTP status",
    load="a pod is made or deleted meanwhile, each time", criterion="GPUs and verdict right <= 5 s each; 0 restarts; the counter +1 each",
)  # fmt: skip
def test_watches_that_are_too_old(faulty: Faulty, form: str, measured: Measured) -> None:
    reason, took = {"event": "relist", "status": "410"}[form], []
    before, lists = faulty.restarts("pods", reason), faulty.api.count("list", PODS)
    for _ in range(ROUNDS):
        watched(faulty)
        if form == "event":
            for path in (PODS, NODES):
                faulty.api.end_watches(path, error_event(410, "Expired"))
            change(faulty.plane)
        else:
            with (
                faulty.api.rule(Refuse(410), PODS, "watch", times=1),
                faulty.api.rule(Refuse(410), NODES, "watch", times=1) as last,
            ):
                for path in (PODS, NODES):
                    faulty.api.end_watches(path)
                change(faulty.plane)
                until("they were refused", lambda last=last: last.left == 0, timeout=30)
        took.append(until("right again", faulty.is_right, timeout=RIGHT_SECONDS))
    until("each was counted", lambda: faulty.restarts("pods", reason) - before == ROUNDS)
    assert faulty.api.count("list", PODS) - lists == ROUNDS
    measured(
        f"{form}: right after {max(took):.1f} s at most, {sum(took) / ROUNDS:.1f} s on average; counted {ROUNDS}, one LIST each"
    )


BROKEN = {
    "ERROR 500": Say(error_event(500)),
    "ERROR 429": Say(error_event(429)),
    "half a frame": Say(b'{"type": "MODIFIED", "object": {"metadata": {"name": "no'),
    "half a frame, then cut": Say(b'{"type": "MODIFIED", "object": {"metadata": {"name": "no', is_cut=True),
    "no JSON": Say(b"<html>\n"),
    "broken gzip": Say(b"\x1f\x8b\x08\x00 this is none", {"Content-Encoding": "gzip"}),
    "503": Refuse(503),
}


@pytest.mark.parametrize("how", BROKEN)
@fault(
    7, what="watches on nodes and pods that answer ERROR 500 or 429, half a frame, no JSON, broken gzip, 503: twice each",
    load="a pod is made or deleted meanwhile", criterion="the same watch goes on, after a pause, without a LIST; right again; ready, alive",
)  # fmt: skip
def test_watches_that_break(faulty: Faulty, how: str, measured: Measured) -> None:
    since = time.monotonic()
    for path in (PODS, NODES):
        with faulty.api.rule(BROKEN[how], path, "watch", times=2) as rule:
            faulty.api.end_watches(path)
            change(faulty.plane)
            until("it broke twice", lambda rule=rule: rule.left == 0, timeout=30)
            took = until("right again", faulty.is_right, timeout=RIGHT_SECONDS)
        assert faulty.is_alive()
        assert not faulty.unready(), "what lasts less than its grace is no reason to take traffic away"
        asked = faulty.api.found("watch", path, since=since)
        assert all(later.at - earlier.at >= 0.2 for earlier, later in itertools.pairwise(each for each in asked if each.ruled))
    assert faulty.api.count("list", PODS, since=since) == faulty.api.count("list", NODES, since=since) == 0
    measured(f"{how}: right {took:.1f} s after the second, 0 LISTs")


@only_at_length
@fault(
    7, what="the watch on nodes breaks with ERROR 500 for as long as it takes",
    criterion=f"not ready after {GRACE_SECONDS} s, and then nothing is refused by GPUs; alive; ready and right when it holds again",
)  # fmt: skip
def test_a_watch_that_does_not_recover(faulty: Faulty, measured: Measured) -> None:
    with faulty.api.rule(Say(error_event(500)), NODES, "watch"):
        faulty.api.end_watches(NODES, error_event(500))
        started = time.monotonic()
        until("it is noticed", lambda: faulty.restarts("nodes", "500") > 0)
        assert faulty.is_refused()
        until("not ready", faulty.unready, timeout=GRACE_SECONDS + 10)
        took = time.monotonic() - started
        assert "watch broken" in faulty.unready()
        until("nothing is refused", lambda: not faulty.is_refused())
        tries = faulty.api.count("watch", NODES, since=started)
        assert faulty.is_alive()
    back = until("ready again", lambda: not faulty.unready(), timeout=60)
    assert took >= GRACE_SECONDS - 2
    measured(f"not ready after {took:.0f} s and {tries:.0f} tries; ready {back:.1f} s after it held")


@only_at_length
@fault(
    8, what="watches and requests fall silent, TCP stays up", load="a pod is made meanwhile",
    criterion=f"not ready <= {SILENT_SECONDS} s after what was heard last, and nothing refused by GPUs; alive; a LIST and right when it heals",
)  # fmt: skip
def test_silence(faulty: Faulty, measured: Measured) -> None:
    api = faulty.api
    with api.silence():
        started = time.monotonic()
        change(faulty.plane)
        until("not ready", faulty.unready, timeout=SILENT_SECONDS + 10)
        took = time.monotonic() - started
        until("nothing is refused", lambda: not faulty.is_refused())
        assert faulty.said()["shardgate.io/findings"] == "InventoryStale"
        assert faulty.is_alive()
        healed = time.monotonic()
    back = until("ready again", lambda: not faulty.unready(), timeout=60)
    until("right again", faulty.is_right, timeout=30)
    assert took <= SILENT_SECONDS + 5
    lists = api.count("list", since=started, status=[200])
    assert lists >= 1, "a watch that was given up lists again; one that was not is told what was held back"
    measured(
        f"not ready after {took:.0f} s; ready {back:.1f} s after it healed, right after {time.monotonic() - healed:.1f} s, {lists} LISTs"
    )


@fault(
    8, what="the watch on nodes falls silent, seen by one copy whose limit is 2 s rather than 75 s",
    criterion="silence is noticed, a LIST replaces what was known, changes that were never told are known",
)  # fmt: skip
def test_silence_of_one_watch(faulty: Faulty, monkeypatch: pytest.MonkeyPatch, measured: Measured) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 2)
    plane, api, book = faulty.plane, faulty.api, ClusterBook()

    def gpus() -> int:
        return sum(group.like.allocatable[GPU] * group.count for group in book.inventory(0.0).groups)

    async def follow() -> tuple[float, dict[str, int]]:
        with mock.patch.dict(os.environ, {"KUBECONFIG": str(faulty.installation.kubeconfig)}):
            cluster = Cluster.from_environment()
        async with cluster:
            reflector = Reflector(cluster=cluster, name="nodes", path=NODES, item=NodeObject, store=Nodes(book))
            task = asyncio.create_task(reflector.run())
            try:
                await _until(lambda: gpus() == 8 and reflector.health.connected_since is not None)
                with api.held_back(NODES):
                    await asyncio.to_thread(send, plane, [patch("7")])
                    started = time.monotonic()
                    await _until(lambda: gpus() == 7)
                    return time.monotonic() - started, dict(reflector.health.restarts)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def patch(gpus: str) -> tuple[str, str, dict[str, object]]:
        return ("PATCH", f"{NODES}/node-a/status", {"status": {"allocatable": {GPU: gpus}}})

    async def followed() -> tuple[float, dict[str, int]]:
        try:
            return await follow()
        finally:
            await asyncio.sleep(0.25)  # until TLS connections are really closed

    try:
        took, restarts = asyncio.run(followed())
    finally:
        send(plane, [patch("8")])
    assert restarts["relist"] >= 1
    measured(f"known {took:.1f} s after the change that the silent watch kept back")


async def _until(holds: object, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # type: ignore[operator]  # a predicate
            await asyncio.sleep(0.02)


CHANGES = at_length(60, long=1000)


def doubled(lines: Lines) -> Lines:
    """Each event twice, and the first of those that came together once more at their end."""
    return [*(line for line in lines for _ in range(2)), *lines[:1]]


def shuffled(lines: Lines) -> Lines:
    """In any order."""
    return random.Random(len(lines)).sample(lines, len(lines))


@pytest.mark.parametrize("how", [doubled, shuffled], ids=lambda how: how.__name__)
@fault(
    9, what=f"{CHANGES} changes of pods whose events come twice and once more later, or in another order",
    criterion="no object goes back for longer than a LIST takes; GPUs and verdict are those of a fresh LIST",
)  # fmt: skip
def test_events_that_come_twice_or_in_another_order(faulty: Faulty, how: object, measured: Measured) -> None:
    lists = faulty.api.count("list", PODS)
    with faulty.api.changed(PODS, how):  # type: ignore[arg-type]  # one of ours
        for _ in range(CHANGES // 19):
            with faulty.api.held_back(PODS):
                for _ in range(19):  # odd: what is free is another amount each time
                    change(faulty.plane)
        took = until("right", faulty.is_right, timeout=RIGHT_SECONDS)
    measured(f"{how.__name__}: right {took:.1f} s after the last; {faulty.api.count('list', PODS) - lists} LISTs")  # type: ignore[attr-defined]


@fault(
    9, what="a watch is resumed at an API server that tells again what was told before",
    load="pods were made and deleted meanwhile", criterion="GPUs and verdict are those of a fresh LIST",
)  # fmt: skip
def test_a_watch_that_goes_back(faulty: Faulty, measured: Measured) -> None:
    ((_, listed),) = send(faulty.plane, [("GET", PODS_OF_SERVING, {})])
    version = listed["metadata"]["resourceVersion"]
    for _ in range(7):
        change(faulty.plane)
    settle(faulty)
    seen: set[float] = set()
    with faulty.api.rule(Since(version), PODS, "watch", times=1) as rule:
        faulty.api.end_watches(PODS)
        until("it was resumed", lambda: rule.left == 0, timeout=30)
        ends = time.monotonic() + 3
        while time.monotonic() < ends:
            seen |= {value for series, value in faulty.gpus().items() if 'state="free"' in series}
            time.sleep(0.05)
    settle(faulty)
    assert seen == {8.0 - len(made)}, f"the same pods all the while, and yet {seen} GPUs were free"
    measured(f"free GPUs stayed {seen.pop():.0f} throughout")
