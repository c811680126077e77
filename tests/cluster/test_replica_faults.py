"""Replicas that are killed, gone, terminating, slow or wrong, with failurePolicy Fail."""

import http.client
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from calls import send
from faults import LENGTH, Measured, at_length, fault
from fleet import fleet_on
from live import create_node, until
from reviews import Hook, review

from builders import a_body, a_node
from conftest import register
from controlplane.installation import NAMESPACE, Installation
from controlplane.plane import ControlPlane, control_plane

pytestmark = pytest.mark.alone

Fleet = tuple[ControlPlane, list[Installation]]
PATH = "/apis/shardgate.io/v1alpha1/namespaces/serving/inferencedeployments?dryRun=All"
KILLS = at_length(1, long=20)
SLOW_AT_ONCE, SLOW_SECONDS = 20, at_length(3, long=20)


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Three replicas behind a balancer that follows readiness."""
    with (
        control_plane(failed=lambda: request.session.testsfailed > 0) as plane,
        fleet_on(plane, 3, failure_policy="Fail", drain_seconds=3) as replicas,
    ):
        yield plane, replicas


@fault(
    13, what=f"{KILLS} times one of 3 replicas is killed by SIGKILL, mid-request", load="dry-run creates, 8 at a time",
    criterion="errors at most 0.5 % for at most 5 s, then none",
)  # fmt: skip
def test_a_killed_replica_costs_little_and_not_for_long(fleet: Fleet, measured: Measured) -> None:
    plane, replicas = fleet
    over, answers = threading.Event(), list[tuple[float, int]]()

    def ask() -> None:
        while not over.is_set():
            found = send(plane, [("POST", PATH, a_body("llama"))] * 16, at_once=8)
            answers.extend((time.monotonic(), status) for status, _ in found)

    thread, killed_at = threading.Thread(target=ask), []
    thread.start()
    try:
        for number in range(KILLS):
            time.sleep(2)
            victim = replicas[number % 3]
            killed_at.append(time.monotonic())
            victim.kill()
            time.sleep(6)
            victim.start()
    finally:
        over.set()
        thread.join()
    failed = [at for at, status in answers if status != 201]
    lasted = max((at - max(killed for killed in killed_at if killed <= at) for at in failed), default=0.0)
    share = 100 * len(failed) / len(answers)
    measured(f"{len(failed)} of {len(answers)} calls failed ({share:.2f} %), none later than {lasted:.1f} s after a kill")
    assert lasted <= (5 if LENGTH else 8)
    assert share <= (0.5 if LENGTH else 5)


@fault(
    15,
    what="a client keeps its connection to a replica that is told to stop",
    criterion="no reset while it drains; closed within 60 s",
)
def test_a_kept_connection_is_answered_while_it_drains(fleet: Fleet, measured: Measured) -> None:
    _, replicas = fleet
    replica = replicas[0]
    context = ssl.create_default_context(cafile=str(replica.plane.authority.path))
    kept, idle = (http.client.HTTPSConnection("127.0.0.1", replica.webhook_port, timeout=70, context=context) for _ in range(2))

    def ask(connection: http.client.HTTPSConnection) -> tuple[int, str | None]:
        connection.request("POST", "/validate?timeout=3s", json.dumps(review(a_body())), {"Content-Type": "application/json"})
        with connection.getresponse() as answer:
            answer.read()
            return answer.status, answer.headers.get("Connection")

    assert ask(kept) == ask(idle) == (200, None)
    stopping = threading.Thread(target=replica.stop)
    began = time.monotonic()
    stopping.start()
    until("it is draining", lambda: not replica.is_ready(), timeout=10)
    while ask(kept) == (200, None):
        pass
    assert ask(kept) == (200, "close"), "a new connection is answered as well"
    assert idle.sock is not None
    assert idle.sock.recv(1) == b"", "closed in order"
    closed = time.monotonic() - began
    stopping.join()
    kept.close()
    idle.close()
    assert closed < 60
    replica.start()
    measured(f"answered, and asked to go, while it drained; the idle connection was closed in order after {closed:.1f} s")


@fault(
    16, 17, what="all replicas are gone at once, with failurePolicy Fail",
    criterion="writes elsewhere and of other kinds succeed; our own pods are made; back without touching the configuration",
)  # fmt: skip
def test_without_any_replica_the_cluster_goes_on_and_heals_us(fleet: Fleet, measured: Measured) -> None:
    plane, replicas = fleet
    for each in replicas:
        each.kill()
    configurations = ("validatingwebhookconfiguration", "mutatingwebhookconfiguration")
    before = [plane.get(each, "shardgate")["metadata"]["resourceVersion"] for each in configurations]
    for namespace in ("kube-system", "kube-node-lease", NAMESPACE, "serving"):
        plane.kubectl("create", "configmap", "any", "-n", namespace, "--from-literal=a=b")
    plane.kubectl("create", "deployment", "web", "-n", "serving", "--image=nginx")
    plane.kubectl("create", "deployment", "shardgate", "-n", NAMESPACE, "--image=shardgate", "--replicas=0")
    plane.kubectl("scale", "deployment", "shardgate", "-n", NAMESPACE, "--replicas=3")
    pods = ("pods", "-n", NAMESPACE, "-l", "app=shardgate")
    took = until("our own pods are made", lambda: len(plane.get(*pods)["items"]) == 3, timeout=30)
    refused = plane.apply(a_body(), check=False)
    assert "failed calling webhook" in refused.stderr
    for each in replicas:
        each.start()
    until("it answers again", lambda: plane.apply(a_body(), options=("--dry-run=server",), check=False).returncode == 0, timeout=30)
    assert [plane.get(each, "shardgate")["metadata"]["resourceVersion"] for each in configurations] == before
    measured(f"all writes elsewhere succeeded; 3 pods of ours were made in {took:.1f} s")


@pytest.fixture
def ill(clean: ControlPlane, tmp_path: Path) -> Iterator[tuple[Installation, Path]]:
    """An operator whose evaluator does what a file says."""
    illness = tmp_path / "illness"
    program = (str(Path(__file__).with_name("stand_ins") / "ill_evaluator.py"),)
    create_node(clean, a_node().body)
    installation = Installation(clean, program=program, more_environment={"EVALUATOR_ILLNESS": str(illness)})
    installation.connect()
    installation.start()
    yield installation, illness
    installation.stop()


@fault(
    19,
    what="an exception is injected into the evaluator",
    criterion="HTTP 500, never an allow or a deny; counted; logged with the object",
)
def test_an_evaluator_that_fails_is_http_500(ill: tuple[Installation, Path], measured: Measured) -> None:
    installation, illness = ill
    hook = Hook(installation)
    illness.write_text("fails")
    for path in ("/validate", "/mutate"):
        code, answer = hook.post(path, review(a_body()))
        assert (path, code, "allowed" in answer, "injected" in answer) == (path, 500, False, False)
    assert installation.metric("shardgate_internal_errors_total") == 2
    assert installation.operator is not None
    log = installation.operator.log.read_text()
    assert "RuntimeError: this was injected" in log
    assert log.count("of the review of uid 0123 failed") == 2
    illness.unlink()
    assert hook.post("/validate", review(a_body()))[0] == 200
    measured("500 twice, counted twice, the traceback and the review's uid in the log")


@fault(
    18, what="the evaluator sleeps for 5 s, or computes for 5 s, each time; the API server waits 3 s, failurePolicy Fail",
    load=f"dry-run creates of new objects, {SLOW_AT_ONCE} at a time, {SLOW_SECONDS} s of each",
    criterion="our own deadline (2.4 s) answers each, before the API server's; right again within 5 s",
)  # fmt: skip
@pytest.mark.parametrize("illness", ["sleeps 5", "computes 5"])
def test_an_evaluator_that_is_slow(ill: tuple[Installation, Path], illness: str, measured: Measured) -> None:
    installation, told = ill
    plane = installation.plane
    installation.failure_policy = "Fail"
    register(installation)
    told.write_text(illness)
    ends, took, messages = time.monotonic() + SLOW_SECONDS, [0.0], list[str]()
    while time.monotonic() < ends:
        began = time.monotonic()
        new = [
            ("POST", PATH, a_body(f"slow-{time.monotonic_ns()}", engine={"maxSequences": number}))
            for number in range(64, 64 + SLOW_AT_ONCE)
        ]
        messages += [answer["message"] for _, answer in send(plane, new, at_once=SLOW_AT_ONCE)]
        took.append(time.monotonic() - began)
    told.unlink()
    after = until("it is right again", lambda: send(plane, [("POST", PATH, a_body("after"))])[0][0] == 201, timeout=5)
    own = "unable to return a response in the time allotted"  # how the API server reads 504
    others = Counter(each for each in messages if own not in each)
    assert others == Counter()
    assert installation.metric("shardgate_internal_errors_total") == 0
    measured(
        f"{illness} s: {len(messages)} calls, each answered by us, the last of {SLOW_AT_ONCE} at once after "
        f"{max(took):.2f} s; right {after:.2f} s after"
    )
