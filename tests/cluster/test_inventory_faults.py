"""What the operator says while its picture of the cluster is missing, incomplete, empty, forbidden, or in a hurry."""

import asyncio
import itertools
import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from calls import send
from faults import LENGTH, Measured, at_length, fault, only_at_length
from faulty import AT_ONCE, FITS, NODES, PODS, ROOT, TOO_BIG, Faulty, bound_pod, condition, faulty_plane, operator_behind, settle
from filling import admin, change, fill, memory_mib, peak_mib
from interceptor import EmptyList, Hold, Interceptor, Refuse, error_event
from live import patch_status, until, wait_for_outcome
from reviews import review

from builders import GPU, a_body, a_vllm_deployment
from controlplane.installation import Installation
from controlplane.plane import ControlPlane, control_plane

Change = tuple[str, dict[str, Any]]
DEPLOYMENTS = "/apis/apps/v1/deployments"
PODS_OF_SERVING = "/api/v1/namespaces/serving/pods"

HELD_SECONDS = 3 if LENGTH else 1.5
STALE_SECONDS = 30
"""How long a watch may be broken before nothing is judged by it."""
FOLLOWED = (NODES, PODS, "/api/v1/resourcequotas", "/api/v1/namespaces", "/apis/resource.k8s.io/", "/apis/shardgate.io/")
HELD = (("/",), *((path,) for path in FOLLOWED)) if LENGTH else (("/",), (NODES,), (PODS,))


@pytest.fixture(scope="module")
def between(request: pytest.FixtureRequest) -> Iterator[tuple[ControlPlane, Interceptor]]:
    """A control plane for this file."""
    with faulty_plane(request) as found:
        yield found


@pytest.fixture
def waiting(between: tuple[ControlPlane, Interceptor]) -> Iterator[Faulty]:
    """An operator that is not started yet."""
    with operator_behind(*between, is_started=False) as found:
        yield found


@pytest.fixture
def running(between: tuple[ControlPlane, Interceptor]) -> Iterator[Faulty]:
    """An operator that is ready."""
    with operator_behind(*between) as found:
        settle(found)
        yield found


def launch_and_look(faulty: Faulty) -> tuple[str, float]:
    """Launch it, and look at it for a while: (why it is not ready, GPUs it counts); it never listens meanwhile."""
    faulty.installation.launch()
    until("its health is served", lambda: faulty.installation.fetch("/livez")[0] == 200)
    ends = time.monotonic() + HELD_SECONDS
    while time.monotonic() < ends:
        assert not faulty.is_listening(), "reviews are answered before all was listed"
        assert faulty.unready()
        time.sleep(0.05)
    return faulty.unready(), sum(faulty.gpus().values())


@pytest.mark.parametrize("held", HELD, ids=lambda paths: paths[0])
@fault(
    1, 3, what="start with LISTs that are never answered: of everything, of nodes alone, of pods alone",
    criterion="readiness 503, the webhook's port closed, so that failurePolicy decides; no verdict before all is listed; right after",
)  # fmt: skip
def test_nothing_is_answered_before_all_is_listed(waiting: Faulty, held: tuple[str], measured: Measured) -> None:
    with waiting.api.rule(Hold(), held[0], "list"):
        why, gpus = launch_and_look(waiting)
        assert "not listed yet" in why
        assert gpus == 0, "no GPU is counted before it is known what is free"
        assert waiting.is_alive()
        assert waiting.installation.metric('shardgate_inventory_synced{resource="nodes"}') == float(held[0] not in ("/", NODES))
    took = until("ready once it is answered", lambda: not waiting.unready(), timeout=30)
    settle(waiting)
    measured(f"{held[0]} held: port closed for {HELD_SECONDS} s, ready {took:.1f} s after the answer")


@fault(
    3, 26, what="start with a LIST of Deployments that is never answered",
    criterion="ready all the same, without them; a scale up of one that stands is judged by the object itself",
)  # fmt: skip
def test_a_scale_is_judged_though_workloads_are_not_followed(waiting: Faulty, measured: Measured) -> None:
    stands = a_vllm_deployment()
    stands["spec"]["paused"] = True  # it starts no pods, that nothing here would end
    waiting.plane.apply(stands)
    try:
        with waiting.api.rule(Hold(), DEPLOYMENTS, "list"):
            waiting.installation.launch()
            until("its health is served", lambda: waiting.installation.fetch("/livez")[0] == 200)
            took = until("ready without them", lambda: not waiting.unready(), timeout=60)
            answer = waiting.hook.post("/validate", scale_up("llama", 1, 3))[1]
            assert "GpuCountTooLow" in json.loads(answer)["response"]["warnings"][0]
            assert waiting.installation.metric('shardgate_inventory_synced{resource="deployments.apps"}') == 0
        settle(waiting)
    finally:
        waiting.plane.kubectl("delete", "deployment", "llama", "-n", "serving")
    measured(f"ready after {took:.0f} s, and judged")


def scale_up(name: str, before: int, after: int) -> dict[str, Any]:
    """The review of one, as ``kubectl scale`` causes it."""

    def scale(replicas: int) -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": "serving"}, "spec": {"replicas": replicas}}

    return review(
        scale(after), oldObject=scale(before), operation="UPDATE", subResource="scale", name=name,
        kind={"group": "autoscaling", "version": "v1", "kind": "Scale"},
        resource={"group": "apps", "version": "v1", "resource": "deployments"},
    )  # fmt: skip


@fault(
    2, what="start where nodes may not be listed (403)",
    criterion="not ready, with the reason; inventory_synced 0; the webhook's port closed; alive; ready when it may",
)  # fmt: skip
def test_nodes_that_may_not_be_listed(waiting: Faulty, measured: Measured) -> None:
    with waiting.api.rule(Refuse(403), NODES, "list"):
        why, gpus = launch_and_look(waiting)
        assert "nodes: not listed yet" in why
        assert "403" in why
        assert gpus == 0
        assert waiting.installation.metric('shardgate_inventory_synced{resource="nodes"}') == 0
        assert waiting.is_alive()
    took = until("ready once it may", lambda: not waiting.unready(), timeout=30)
    settle(waiting)
    measured(f"not ready: {why.splitlines()[0]}; ready {took:.1f} s after it may")


@fault(
    2, what="a LIST of nodes that is empty, once, while there are some",
    criterion="what fitted is let in (Waiting: the nodes may be back); right after the next list",
)  # fmt: skip
def test_an_empty_list_of_nodes_is_no_reason_to_refuse(running: Faulty, measured: Measured) -> None:
    with running.api.rule(EmptyList(), NODES, "list"), running.api.rule(Hold(), NODES, "watch"):
        running.api.end_watches(NODES, error_event(410))
        until("the empty list is believed", lambda: running.outcome() == "Waiting", timeout=30)
        said = running.said()["shardgate.io/findings"]
        assert not running.is_refused(FITS)
        assert not running.unready()
        running.api.end_watches(NODES, error_event(410))
    patch_status(running.plane, "node-a", {"images": [{"names": ["b"], "sizeBytes": 1}]})
    until("a node that is seen again counts", lambda: running.outcome() == "Sound", timeout=30)
    settle(running)
    measured(f"Waiting ({said}), let in; Sound when the node was seen again")


@only_at_length
@fault(
    2, what="the right to list and watch nodes is taken away while it runs (403)",
    criterion=f"after {STALE_SECONDS} s not ready and Undecided (InventoryStale), refusing nothing by GPUs; condition Degraded; alive; 0 restarts; ready when it may again",
)  # fmt: skip
def test_the_right_to_nodes_is_taken_away(running: Faulty, measured: Measured) -> None:
    until("it leads", lambda: running.installation.metric("shardgate_leader") == 1)
    with running.api.rule(Refuse(403), NODES):
        running.api.end_watches(NODES)
        until("it is noticed", lambda: running.restarts("nodes", "403") > 0)
        assert running.is_refused(), "by what was known a moment ago"
        took = until("not ready", running.unready, timeout=STALE_SECONDS + 15)
        assert "403" in running.unready()
        until("nothing is refused", lambda: not running.is_refused())
        assert running.said()["shardgate.io/findings"] == "InventoryStale"
        until("its condition says so", lambda: condition(running, "Degraded") == ("True", "NotReady"), timeout=30)
        assert condition(running, "InventorySynced") == ("False", "Behind")
        assert running.is_alive()
    back = until("ready when it may", lambda: not running.unready(), timeout=60)
    settle(running)
    measured(f"not ready and Undecided after {took:.0f} s, condition Degraded; ready {back:.1f} s after it may")


@fault(
    2, what="a cluster without a node",
    criterion="InventoryEmpty (Undecided), let in; never 0 GPUs and a refusal; judged once a node comes",
)  # fmt: skip
def test_a_cluster_without_a_node(waiting: Faulty, measured: Measured) -> None:
    with waiting.api.rule(EmptyList(), NODES, "list"), waiting.api.rule(Hold(), NODES, "watch"):
        waiting.installation.start()
        assert waiting.said()["shardgate.io/verdict"] == "Undecided"
        assert waiting.said()["shardgate.io/findings"] == "InventoryEmpty"
        assert not waiting.is_refused()
    patch_status(waiting.plane, "node-a", {"images": [{"names": ["a"], "sizeBytes": 1}]})
    took = until("judged by the node that came", waiting.is_refused, timeout=30)
    settle(waiting)
    measured(f"Undecided (InventoryEmpty), let in; judged {took:.1f} s after a node came")


TAINT = [{"key": "team", "value": "other", "effect": "NoSchedule"}]
CHANGES: dict[str, tuple[Change, Change]] = {
    "cordoned": (("", {"spec": {"unschedulable": True}}), ("", {"spec": {"unschedulable": None, "taints": None}})),
    "NotReady": (
        ("/status", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
        ("/status", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    ),
    "allocatable 8 to 7": (
        ("/status", {"status": {"allocatable": {GPU: "7"}}}), ("/status", {"status": {"allocatable": {GPU: "8"}}}),
    ),
    "tainted": (("", {"spec": {"taints": TAINT}}), ("", {"spec": {"taints": None}})),
    "MIG is being changed": (
        ("", {"metadata": {"labels": {"nvidia.com/mig.config.state": "pending"}}}),
        ("", {"metadata": {"labels": {"nvidia.com/mig.config.state": None}}}),
    ),
    "cut into MIG slices": (
        ("/status", {"status": {"allocatable": {GPU: None, "nvidia.com/mig-3g.40gb": "16"}, "capacity": {GPU: None, "nvidia.com/mig-3g.40gb": "16"}}}),
        ("/status", {"status": {"allocatable": {GPU: "8", "nvidia.com/mig-3g.40gb": None}, "capacity": {GPU: "8", "nvidia.com/mig-3g.40gb": None}}}),
    ),
}  # fmt: skip
"""What becomes of the node, and how it is undone: (subresource, merge patch)."""


@fault(
    10, what="a node is cordoned, not ready, has one GPU less, is tainted, changes its MIG slices; and the way back",
    criterion="a new verdict in admission and in the status <= 2 s after each",
)  # fmt: skip
def test_every_change_of_a_node_is_a_new_verdict(running: Faulty, measured: Measured) -> None:
    plane = running.plane
    declared = a_body()  # what it was promised itself is not in its own way
    plane.apply(declared)
    wait_for_outcome(plane, "llama", "serving", "Sound")
    slowest: dict[str, float] = {}
    try:
        for name, both in CHANGES.items():
            for number, (subresource, patch) in enumerate(both):
                ((answer, said),) = send(plane, [("PATCH", f"{NODES}/node-a{subresource}", patch)])
                assert answer == 200, said
                started = time.monotonic()

                def is_new(*, sound: bool = bool(number)) -> bool:
                    return (running.outcome(declared) == "Sound") is sound

                until(f"admission: {name}", is_new, timeout=2 if LENGTH else 15)

                def is_told(*, sound: bool = bool(number)) -> bool:
                    ((_, found),) = send(plane, [("GET", f"{ROOT}/llama", {})])
                    return (found["status"]["outcome"] == "Sound") is sound

                until(f"status: {name}", is_told, timeout=2 if LENGTH else 15)
                slowest[name] = max(slowest.get(name, 0.0), time.monotonic() - started)
    finally:
        plane.kubectl("delete", "infd", "llama", "-n", "serving")
    settle(running)
    measured("; ".join(f"{name} {seconds:.1f} s" for name, seconds in slowest.items()))


EVENTS = at_length(1000, long=10_000)
EVENTS_PER_SECOND = 1000
ADMISSION_SECONDS, LAG_SECONDS, BEHIND_SECONDS = (0.1, 0.05, 3) if LENGTH else (3, 3, 20)
"""What is asked for; in `make test` other tests have the processors too."""
WAVE = 160


@fault(
    11, what=f"{EVENTS} pod events in {EVENTS / EVENTS_PER_SECOND:.0f} s: they were held back, and come together",
    load="100 reviews/s, a third of them without anything to judge",
    criterion="admission p99 <= 100 ms; what needs no judgement (the event loop's lag) p99 <= 50 ms; GPUs right <= 3 s after the last",
)  # fmt: skip
@pytest.mark.alone
def test_ten_thousand_pod_events(running: Faulty, measured: Measured) -> None:
    plane, api = running.plane, running.api
    last = bound_pod("stays", gpus=3)
    try:
        with api.held_back(PODS):
            wave = 0
            while api.withheld(PODS) < EVENTS:  # soon enough that the silence is not noticed
                wave += 1
                names = [f"w{wave}-{number}" for number in range(WAVE)]
                made = send(plane, [("POST", PODS_OF_SERVING, bound_pod(name)) for name in names], at_once=48)
                gone = send(plane, [("DELETE", f"{PODS_OF_SERVING}/{name}", AT_ONCE) for name in names], at_once=48)
                assert {status for status, _ in (*made, *gone)} <= {200, 201}
            send(plane, [("POST", PODS_OF_SERVING, last)])
            events = api.withheld(PODS)
            began = time.monotonic()
            with api.held_back(PODS, EVENTS_PER_SECOND), reviewed(running) as seconds:
                until("all came", lambda: api.withheld(PODS) == 0, timeout=10 * EVENTS / EVENTS_PER_SECOND)
                took = time.monotonic() - began
        behind = until("GPUs are right", running.is_right, timeout=BEHIND_SECONDS)
        assert running.outcome() == "Waiting"
    finally:
        plane.kubectl("delete", "pod", "stays", "-n", "serving", "--grace-period=0", "--force")
    judged, trivial = (statistics.quantiles(seconds[kind], n=100)[98] for kind in (True, False))
    assert judged <= ADMISSION_SECONDS
    assert trivial <= LAG_SECONDS
    measured(
        f"{events} events in {took:.1f} s: {sum(map(len, seconds.values()))} reviews, p99 {judged * 1000:.0f} ms judged, "
        f"{trivial * 1000:.0f} ms with nothing to judge; right {behind:.1f} s after the last"
    )


SIZE = (at_length(0, long=1000, full=5000), at_length(0, long=10_000, full=150_000))
CHURN_SECONDS, CHANGES_PER_SECOND = at_length(0, long=300, full=3600), 20
MOST_MIB = 256


@only_at_length
@fault(
    12, what=f"{SIZE[0]} nodes of 13 kB, {SIZE[1]} pods of 4 kB, then {CHURN_SECONDS // 60} min of changes",
    load=f"{CHANGES_PER_SECOND} pod changes/s",
    criterion=f"RSS <= {MOST_MIB} MiB from the start on; over an hour it grows by no more than 2 %",
)  # fmt: skip
def test_memory_does_not_grow(request: pytest.FixtureRequest, measured: Measured) -> None:
    with control_plane(failed=lambda: request.session.testsfailed > 0, large=True) as plane:
        installation = Installation(plane)
        installation.install()
        plane.kubectl("create", "namespace", "serving")
        try:
            resident, peak = asyncio.run(churned(installation))
        finally:
            installation.stop()
    quarter = len(resident) // 4
    first, last = statistics.fmean(resident[:quarter]), statistics.fmean(resident[-quarter:])
    slope = (last / first - 1) / (CHURN_SECONDS * 0.75) * 3600
    measured(
        f"RSS {resident[0]:.0f} MiB when ready, {first:.1f} to {last:.1f} MiB (first and last quarter), {slope:+.1%} an hour; peak {peak:.0f} MiB"
    )
    assert peak <= MOST_MIB
    # Minutes cannot show an hour's slope: what they add must not be more than an hour may.
    assert last / first - 1 <= 0.02


async def churned(installation: Installation) -> tuple[list[float], float]:
    """(MiB of its resident set, once a second, while pods come and go; the most that it ever was)."""
    async with admin(installation.plane) as cluster:
        await fill(cluster, *SIZE)
        await asyncio.to_thread(installation.start, 300)
        assert installation.operator is not None
        assert installation.operator.pid is not None
        stop = asyncio.Event()
        changing = asyncio.create_task(change(cluster, SIZE[0], stop, CHANGES_PER_SECOND))
        resident = []
        for _ in range(CHURN_SECONDS):
            await asyncio.sleep(1)
            resident.append(memory_mib(installation.operator.pid))
        stop.set()
        await changing
        return resident, peak_mib(installation.operator.pid)


@contextmanager
def reviewed(faulty: Faulty) -> Iterator[dict[bool, list[float]]]:
    """A hundred reviews a second for as long as it lasts: seconds of those that are judged, and of the others."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    over = threading.Event()
    unchanged = a_body()
    bodies = [
        (True, review(FITS)), (True, review(TOO_BIG)), (False, review(unchanged, operation="UPDATE", oldObject=unchanged)),
    ]  # fmt: skip
    url = f"{faulty.hook.base}/validate?timeout=3s"

    async def ask() -> None:
        connector = aiohttp.TCPConnector(ssl=faulty.hook.context)
        async with aiohttp.ClientSession(connector=connector) as session:
            started, turn = time.monotonic(), itertools.count()

            async def one(number: int) -> None:
                is_judged, body = bodies[number % 3]
                asked = time.monotonic()
                async with session.post(url, json=body) as response:
                    answer = await response.json()
                assert response.status == 200, answer
                seconds[is_judged].append(time.monotonic() - asked)

            async with asyncio.TaskGroup() as group:
                while not over.is_set():
                    number = next(turn)
                    await asyncio.sleep(max(0.0, started + number / 100 - time.monotonic()))
                    group.create_task(one(number))

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(lambda: asyncio.run(ask()))
        try:
            yield seconds
        finally:
            over.set()
            asking.result()
