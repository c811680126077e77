"""The API server, or its etcd, goes, hangs, refuses, or stops serving a kind of ours, under a running operator."""

import copy
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from calls import send
from faults import LENGTH, Measured, at_length, fault, only_at_length
from faulty import FITS, NODES, ROOT, Faulty, bound_pod, condition, faulty_plane, operator_behind, settle
from interceptor import Hold, Interceptor, Refuse
from live import create_node, find, patch_status, status, until, wait_for_outcome

from builders import GPU, a_body, a_node
from controlplane.installation import Installation
from controlplane.plane import ControlPlane

Json = dict[str, Any]
BROKEN_SECONDS = 30
READY_SECONDS = 10 if LENGTH else 30
"""What is asked for; in `make test` other tests have the processors too."""
WRITES = ("create", "update", "patch", "delete")
CORDONED, UNCORDONED = {"spec": {"unschedulable": True}}, {"spec": {"unschedulable": None, "taints": None}}
SMALL: Json = {
    "model": {"name": "meta-llama/Meta-Llama-3-8B-Instruct"},
    "strategy": {"tensor": 2, "pipeline": 1},
    "gpus": {"perPod": 2},
}
DECLARATIONS = "/apis/shardgate.io/v1alpha1/inferencedeployments"
GPUS = 'shardgate_gpus{{product="H100-80GB-HBM3",state="{}"}}'


@pytest.fixture(scope="module")
def between(request: pytest.FixtureRequest) -> Iterator[tuple[ControlPlane, Interceptor]]:
    """A control plane for this file."""
    with faulty_plane(request) as found:
        yield found


@pytest.fixture(scope="module")
def one(between: tuple[ControlPlane, Interceptor]) -> Iterator[Faulty]:
    """One operator for this file, that leads."""
    with operator_behind(*between) as found:
        yield found


@pytest.fixture
def faulty(one: Faulty) -> Iterator[Faulty]:
    """It, ready and right; it lives on, whatever was done to it, and nothing is left behind."""
    settle(one)
    until("it leads", lambda: one.installation.metric("shardgate_leader") == 1, timeout=30)
    assert one.installation.operator is not None
    pid = one.installation.operator.pid
    yield one
    assert one.is_alive()
    assert one.installation.operator.pid == pid, "0 restarts"
    send(one.plane, [("PATCH", f"{NODES}/node-a", UNCORDONED), ("DELETE", ROOT, {})])
    settle(one)


def cordon(plane: ControlPlane, *, is_so: bool = True) -> None:
    """Through the API server itself."""
    ((answer, said),) = send(plane, [("PATCH", f"{NODES}/node-a", CORDONED if is_so else UNCORDONED)])
    assert answer == 200, said


@contextmanager
def away(plane: ControlPlane) -> Iterator[None]:
    """While this lasts there is no API server at its address."""
    plane.stop_api_server()
    try:
        yield
    finally:
        plane.start_api_server()


def unused(installation: Installation) -> tuple[float, float]:
    """GPUs that are there, and those that no pod holds: what is free, and what is promised by now."""
    installed, free, claimed = (installation.metric(GPUS.format(state)) or 0 for state in ("installed", "free", "claimed"))
    return installed, free + claimed


@fault(
    4, 6, what="the API server restarts; pods and a node are deleted through another one meanwhile, so that the watches get a real 410",
    criterion="what went is gone from verdict and GPUs; no process ends; ready again",
)  # fmt: skip
def test_the_api_server_restarts_and_what_went_meanwhile_is_gone(faulty: Faulty, measured: Measured) -> None:
    """The restarted server's watch cache begins after those deletions: only a list that replaces what was known can tell."""
    plane, installation = faulty.plane, faulty.installation
    create_node(plane, a_node("node-b").body)
    plane.apply(a_body(), bound_pod("holds-a", gpus=8), bound_pod("holds-b", "node-b", gpus=8))
    busy = wait_for_outcome(plane, "llama", "serving", "Waiting")
    assert [each["code"] for each in busy["findings"]] == ["GpusBusy"]

    with plane.another_api_server() as other, away(plane):
        other("delete", "pod", "holds-a", "holds-b", "-n", "serving", "--grace-period=0", "--force")
        other("delete", "node", "node-b")
        for count in range(30):  # history moves on
            other("annotate", "namespace", "serving", f"step={count}", "--overwrite")
    began = time.monotonic()
    wait_for_outcome(plane, "llama", "serving", "Sound", timeout=30)
    until("one node is left, nothing runs on it", lambda: unused(installation) == (8, 8), timeout=15 if LENGTH else 60)
    until("ready again", installation.is_ready, timeout=30)
    took = time.monotonic() - began
    assert faulty.restarts("pods", "relist", "410") + faulty.restarts("nodes", "relist", "410") > 0
    patch_status(plane, "node-a", {"allocatable": {GPU: "7"}})
    wait_for_outcome(plane, "llama", "serving", "Waiting")
    patch_status(plane, "node-a", {"allocatable": {GPU: "8"}})
    measured(f"right, and ready, {took:.1f} s after the API server")


@fault(
    4, what=f"the API server is killed, and away until a watch has been broken for {BROKEN_SECONDS} s",
    load="reviews of what fits and of what can never run, all the while",
    criterion="0 wrong verdicts: by the snapshot, then Undecided; the inventory's age rises; ready <= 10 s after the API server; at most 1 LIST a kind; no process ends",
)  # fmt: skip
def test_admission_goes_on_while_the_api_server_is_away(faulty: Faulty, measured: Measured) -> None:
    plane, installation, api = faulty.plane, faulty.installation, faulty.api
    heard = 'shardgate_inventory_last_event_timestamp_seconds{resource="nodes"}'
    time.sleep(10)  # what broke in the test before has held again for a while: it counts from its own beginning
    before = faulty.restarts("nodes", "connection")
    stopped = time.monotonic()
    reviews = 0

    def unready() -> bool:
        nonlocal reviews
        why = faulty.unready()
        assert faulty.is_refused() or time.monotonic() - stopped > BROKEN_SECONDS - 2, "by what was known a moment ago"
        assert not faulty.is_refused(FITS)
        assert faulty.is_alive()
        reviews += 2
        return bool(why)

    with away(plane):
        until("the broken watch is noticed", lambda: faulty.restarts("nodes", "connection") > before)
        until("the broken watch turns readiness", unready, timeout=BROKEN_SECONDS + 10)
        took = time.monotonic() - stopped
        assert "broken" in faulty.unready()
        # Readiness looks at every watch, a verdict at those of the inventory, which may have broken a moment later.
        until("a stale inventory refuses nothing", lambda: not faulty.is_refused())
        assert faulty.said()["shardgate.io/findings"] == "InventoryStale"
        assert time.time() - (installation.metric(heard) or 0) >= took - 1, "its age shows"
    returned = time.monotonic()
    back = until("ready again", installation.is_ready, timeout=READY_SECONDS)
    until("refused again", faulty.is_refused)
    settle(faulty)
    lists = {
        each.path: api.count("list", each.path, since=stopped, status=[200])
        for each in api.found("list", since=stopped, status=[200])
    }
    assert max(lists.values(), default=0) <= 1, lists
    asked = [each.at - returned for each in api.found("watch", since=stopped) if each.status] or [0.0]
    spread = max(asked) - min(asked)
    measured(
        f"0 of {reviews} wrong; not ready after {took:.0f} s, ready {back:.1f} s after the API server, "
        f"{sum(lists.values())} LISTs, at most 1 a kind; its watches came back over {spread:.1f} s"
    )


HUNG_SECONDS = at_length(6, long=60)


@fault(
    5, what=f"etcd hangs (SIGSTOP) for {HUNG_SECONDS} s", load="a node is cordoned, uncordoned and cordoned meanwhile, as three standing declarations see it",
    criterion="reviews are answered; no process ends, none hangs; then one status write an object",
)  # fmt: skip
def test_etcd_hangs(faulty: Faulty, measured: Measured) -> None:
    plane, api = faulty.plane, faulty.api
    names = [f"small-{number}" for number in range(3)]
    plane.apply(*(a_body(name, **SMALL) for name in names))
    for name in names:
        wait_for_outcome(plane, name, "serving", "Sound")
    slowest, mode = 0.0, set()
    with api.held_back(NODES):
        for is_so in (True, False, True):
            cordon(plane, is_so=is_so)
        with plane.etcd_stopped():
            stopped = time.monotonic()
            with api.held_back(NODES, events_per_second=1):
                while time.monotonic() - stopped < HUNG_SECONDS:
                    asked = time.monotonic()
                    mode.add(faulty.said(a_body("small-0", **SMALL)).get("shardgate.io/findings") or "Sound")
                    slowest = max(slowest, time.monotonic() - asked)
                    assert not faulty.is_refused(FITS)
                    assert faulty.is_alive()
                    time.sleep(0.1)
        went_on = time.monotonic()
    for name in names:
        wait_for_outcome(plane, name, "serving", "Waiting", timeout=90)
    took = time.monotonic() - went_on
    until("it leads again", lambda: faulty.installation.metric("shardgate_leader") == 1, timeout=30)
    settle(faulty)
    written = {name: api.count("patch", ending=f"/{name}/status", since=stopped, status=[200]) for name in names}
    assert set(written.values()) == {1}, written
    measured(
        f"reviews answered in {slowest:.2f} s at most ({', '.join(sorted(mode))}); statuses right {took:.1f} s after, "
        f"{sum(written.values())} writes for {len(names)} objects"
    )


CUT_OFF_SECONDS = at_length(0, long=60)


@fault(
    40, what="the leader is cut off from the API server, a write of its own still on its way, until another one leads" + (f", {CUT_OFF_SECONDS} s" if CUT_OFF_SECONDS else ""),
    load="a node is cordoned meanwhile",
    criterion="another leads <= 20 s; nothing that the first one sent, or sends when it is back, is written; it knows that it leads no more",
)  # fmt: skip
def test_the_leader_is_cut_off(faulty: Faulty, measured: Measured) -> None:
    plane, api = faulty.plane, faulty.api
    plane.apply(a_body())
    wait_for_outcome(plane, "llama", "serving", "Sound")
    other = Installation(plane)
    other.connect()
    try:
        other.start()
        assert other.metric("shardgate_leader") == 0
        with api.rule(Hold(), ROOT, "patch", times=1000) as held:
            cordon(plane)
            until("its write is on its way", lambda: held.left < 1000)
            with api.silence():
                cut = time.monotonic()
                took = until("the other one leads", lambda: other.metric("shardgate_leader") == 1, timeout=40)
                wait_for_outcome(plane, "llama", "serving", "Waiting")
                stood = find(plane, "llama", "serving")["metadata"]["resourceVersion"]
                time.sleep(max(0.0, cut + CUT_OFF_SECONDS - time.monotonic()))
        until("it knows", lambda: faulty.installation.metric("shardgate_leader") == 0, timeout=40)
        until("it is ready again", lambda: not faulty.unready(), timeout=30)
        time.sleep(3)
        late = [each for each in api.found(since=cut, status=[200, 201]) if each.verb in WRITES]
        assert late == [], late
        assert api.count("patch", ROOT, status=[409]) >= 1 or LENGTH, "what was on its way came too late, and was refused"
        assert find(plane, "llama", "serving")["metadata"]["resourceVersion"] == stood
        assert took <= (20 if LENGTH else 40)
    finally:
        other.stop()
    measured(f"another led after {took:.1f} s; 0 writes by the first, {api.count('patch', ROOT, status=[409])} refused with 409")


STORM_SECONDS = at_length(3, long=30)


@contextmanager
def storm(plane: ControlPlane, path: str) -> Iterator[list[int]]:
    """Somebody else changes the object as fast as it goes."""
    over, answers = threading.Event(), list[int]()

    def change() -> None:
        for number in range(1_000_000):
            if over.is_set():
                return
            patch = {"metadata": {"annotations": {"shardgate.test/storm": str(number)}}}
            answers.append(send(plane, [("PATCH", path, patch)])[0][0])

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


@fault(
    42, what="a storm of 409: our first three writes conflict, and somebody else changes the object as fast as it goes",
    load=f"for {STORM_SECONDS} s, a node is cordoned and uncordoned", criterion="converges; no more writes than changes",
)  # fmt: skip
def test_a_storm_of_conflicts(faulty: Faulty, measured: Measured) -> None:
    plane, api = faulty.plane, faulty.api
    plane.apply(a_body())
    wait_for_outcome(plane, "llama", "serving", "Sound")
    since = time.monotonic()
    with api.rule(Refuse(409), ROOT, "patch", times=3) as refused, storm(plane, f"{ROOT}/llama") as changes:
        while time.monotonic() - since < STORM_SECONDS:
            cordon(plane)
            time.sleep(0.7)
            cordon(plane, is_so=False)
            time.sleep(0.7)
        cordon(plane)
    assert refused.left == 0
    took = until("the status is right", lambda: status(plane, "llama", "serving").get("outcome") == "Waiting", timeout=30)
    conflicts, written = (api.count("patch", f"{ROOT}/llama", since=since, status=[each]) for each in (409, 200))
    assert set(changes) == {200}
    assert conflicts + written <= len(changes) + 10
    measured(f"{len(changes)} changes, {conflicts} of our writes conflicted, {written} came through; right {took:.1f} s after")


@fault(42, what="429 with Retry-After: 3 on a status write", criterion="the next try no sooner than 3 s later; converges")
def test_it_waits_as_long_as_it_is_asked_to(faulty: Faulty, measured: Measured) -> None:
    plane, api = faulty.plane, faulty.api
    plane.apply(a_body())
    wait_for_outcome(plane, "llama", "serving", "Sound")
    since = time.monotonic()
    with api.rule(Refuse(429, {"Retry-After": "3"}), f"{ROOT}/llama", "patch", times=1):
        cordon(plane)
        wait_for_outcome(plane, "llama", "serving", "Waiting", timeout=30)
    first, second, *_ = api.found("patch", f"{ROOT}/llama", since=since)
    assert (first.status, second.status) == (429, 200)
    assert second.at - first.at >= 3
    measured(f"tried again after {second.at - first.at:.1f} s")


@fault(
    42, what="statuses may not be written (403)",
    criterion="condition Degraded (WriteForbidden), a counter; admission goes on; written, and the condition gone, when it may",
)  # fmt: skip
def test_a_status_that_may_not_be_written_shows(faulty: Faulty, measured: Measured) -> None:
    plane, installation = faulty.plane, faulty.installation
    plane.apply(a_body())
    wait_for_outcome(plane, "llama", "serving", "Sound")
    failures = 'shardgate_write_failures_total{resource="inferencedeployments/status",status="403"}'
    with faulty.api.rule(Refuse(403), ROOT, "patch", ending="/status"):
        cordon(plane)
        took = until("it shows", lambda: condition(faulty, "Degraded") == ("True", "WriteForbidden"), timeout=30)
        assert (installation.metric(failures) or 0) >= 1
        assert not faulty.unready(), "admission does not rest on it"
        assert faulty.is_refused()
    wait_for_outcome(plane, "llama", "serving", "Waiting", timeout=60)
    until("all is well", lambda: condition(faulty, "Degraded") == ("False", "AsExpected"), timeout=30)
    measured(f"Degraded (WriteForbidden) after {took:.1f} s; written when it might")


CRD = "inferencedeployments.shardgate.io"
WITHOUT_SECONDS = at_length(0, long=40)


def crd(plane: ControlPlane) -> Json:
    """As we install it."""
    return copy.deepcopy(next(each for each in Installation(plane).objects() if each["metadata"]["name"] == CRD))


def serve(plane: ControlPlane, definition: Json) -> None:
    plane.apply(definition)
    plane.wait_for_kinds(CRD)


@fault(
    45, what="the CRD of our own kind is deleted, with all its objects" + (f", for {WITHOUT_SECONDS} s" if WITHOUT_SECONDS else "") + ", and made again",
    criterion="alive; what went is forgotten; followed and judged again",
)  # fmt: skip
def test_our_kind_is_deleted_and_comes_again(faulty: Faulty, measured: Measured) -> None:
    plane, installation = faulty.plane, faulty.installation
    plane.apply(a_body("before"))
    wait_for_outcome(plane, "before", "serving", "Sound")
    until("its GPUs are promised", lambda: installation.metric("shardgate_claims") == 1)
    plane.kubectl("delete", "crd", CRD, "--timeout=60s")
    went = time.monotonic()
    until("what went is forgotten", lambda: installation.metric("shardgate_claims") == 0, timeout=30)
    until("the end of the watch is noticed", lambda: faulty.restarts("inferencedeployments", "404") > 0, timeout=30)
    while time.monotonic() - went < WITHOUT_SECONDS:
        assert faulty.is_alive()
        time.sleep(0.5)
    if WITHOUT_SECONDS > BROKEN_SECONDS:
        assert "inferencedeployments: watch broken" in faulty.unready()
    serve(plane, crd(plane))
    came = time.monotonic()
    until("an object is taken", lambda: plane.apply(a_body(), check=False).returncode == 0, timeout=30)
    wait_for_outcome(plane, "llama", "serving", "Sound", timeout=40)
    took = time.monotonic() - came
    until("ready", lambda: not faulty.unready(), timeout=30)
    measured(f"judged {took:.1f} s after the CRD was there again")


def seen_anew(faulty: Faulty, name: str, stamp: str) -> None:
    """A watch from before the CRD changed goes on by the old schema: end it, and change the object."""
    until("there is a watch to end", lambda: faulty.api.end_watches(DECLARATIONS) > 0)
    until("there is another one", lambda: faulty.api.watches(DECLARATIONS) == 1, timeout=30)
    faulty.plane.kubectl("annotate", "infd", name, "-n", "serving", f"shardgate.test/stamp={stamp}", "--overwrite")


@fault(
    45, what="an object that stands has a field that a newer CRD knows, and we do not",
    criterion="alive; it is Undecided (DeclarationOpaque) and says which field; others are judged; judged when the field is gone",
)  # fmt: skip
def test_a_field_that_only_a_newer_version_knows(faulty: Faulty, measured: Measured) -> None:
    plane = faulty.plane
    newer = crd(plane)
    for version in newer["spec"]["versions"]:
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["fromTheFuture"] = {"type": "string"}
    serve(plane, newer)
    try:
        ahead = a_body("ahead", fromTheFuture="yes")
        until(
            "the field is stored",
            lambda: plane.apply(ahead, check=False).returncode == 0 and "fromTheFuture" in find(plane, "ahead", "serving")["spec"],
            timeout=30,
        )
        seen_anew(faulty, "ahead", "1")
        opaque = wait_for_outcome(plane, "ahead", "serving", "Undecided", timeout=30)
        assert [each["code"] for each in opaque["findings"]] == ["DeclarationOpaque"]
        assert "fromTheFuture" in json.dumps(opaque["findings"])
        plane.apply(a_body())
        wait_for_outcome(plane, "llama", "serving", "Sound")
    finally:
        serve(plane, crd(plane))
    until("the field is gone", lambda: "fromTheFuture" not in find(plane, "ahead", "serving")["spec"], timeout=30)
    seen_anew(faulty, "ahead", "2")
    wait_for_outcome(plane, "ahead", "serving", "Waiting", timeout=30)
    measured(f"Undecided: {opaque['findings'][0]['message']}; Waiting, behind the other, when the field was gone")


DECLARED = at_length(0, long=2000, full=10_000)


@only_at_length
@fault(
    45, what=f"{DECLARED} declarations come at once", criterion="alive; all have a verdict; then 0 writes",
)  # fmt: skip
def test_very_many_declarations(faulty: Faulty, measured: Measured) -> None:
    plane, api, installation = faulty.plane, faulty.api, faulty.installation
    began = time.monotonic()
    answers = send(plane, [("POST", ROOT, a_body(f"d{number}", **SMALL)) for number in range(DECLARED)], at_once=32)
    assert {each for each, _ in answers} == {201}

    def judged() -> float:
        return sum(
            installation.metric(f'shardgate_declarations{{kind="InferenceDeployment",outcome="{each}"}}') or 0
            for each in ("Sound", "Wasteful", "Risky", "Waiting", "Undecided", "Unsound")
        )

    until("all have a verdict", lambda: judged() == DECLARED, timeout=DECLARED / 10)
    took = time.monotonic() - began
    time.sleep(20)  # the last are told of
    quiet = time.monotonic()
    time.sleep(30)
    written = [each for each in api.found(since=quiet) if each.verb in WRITES and "/leases/" not in each.path]
    assert written == [], written[:3]
    measured(f"all judged after {took:.0f} s; 0 writes in 30 s at rest")
