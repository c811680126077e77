"""Replicas that are stopped and started one after the other, under load, with failurePolicy Fail: no call fails (F14)."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from calls import send
from faults import Measured, at_length, fault
from fleet import fleet_on
from live import find, patch_status, until, wait_for_outcome

from builders import a_body
from controlplane.installation import Installation
from controlplane.plane import ControlPlane, control_plane

RESTARTS = at_length(3, long=100)
ROTATIONS = at_length(2, long=30)
LOAD = "dry-run creates, 4 at a time, failurePolicy Fail, 3 replicas"
PATH = "/apis/shardgate.io/v1alpha1/namespaces/serving/inferencedeployments?dryRun=All"


@pytest.fixture
def fleet(request: pytest.FixtureRequest) -> Iterator[tuple[ControlPlane, list[Installation]]]:
    """Three replicas that go on answering for three seconds after SIGTERM."""
    with (
        control_plane(failed=lambda: request.session.testsfailed > 0) as plane,
        fleet_on(plane, 3, failure_policy="Fail", drain_seconds=3) as replicas,
    ):
        yield plane, replicas


@contextmanager
def load(plane: ControlPlane) -> Iterator[list[tuple[int, object]]]:
    """Dry-run creates, four at a time, for as long as it lasts: (status, message) of each."""
    over = threading.Event()
    answers: list[tuple[int, object]] = []

    def ask() -> None:
        while not over.is_set():
            found = send(plane, [("POST", PATH, a_body("llama"))] * 20, at_once=4)
            answers.extend((status, answer.get("message")) for status, answer in found)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


@fault(14, what=f"{RESTARTS} rolling restarts (SIGTERM), one replica after the other", load=LOAD, criterion="0 failed calls")
def test_no_call_fails_while_replicas_are_restarted(fleet: tuple[ControlPlane, list[Installation]], measured: Measured) -> None:
    plane, replicas = fleet
    with load(plane) as answers:
        for number in range(RESTARTS):
            replica = replicas[number % len(replicas)]
            replica.stop()
            replica.start()
    assert [each for each in answers if each[0] != 201] == []
    assert len(answers) > 20 * RESTARTS
    measured(f"0 of {len(answers)} calls failed")


OLDER = os.environ.get("PREVIOUS", "")
"""A git revision: the version before this one, as long as none was released."""


@pytest.mark.skipif(not OLDER, reason="two versions: make faults PREVIOUS=REVISION")
@fault(46, what=f"an upgrade from {OLDER or 'the version before'}, back, and once more, one replica after the other", load=LOAD,
       criterion="0 failed calls; each version goes on from what the other wrote: statuses and annotations right")  # fmt: skip
def test_an_upgrade_and_back(fleet: tuple[ControlPlane, list[Installation]], tmp_path: Path, measured: Measured) -> None:
    plane, replicas = fleet
    archive = subprocess.run(["git", "archive", OLDER, "operator"], capture_output=True, check=True, cwd=Path(__file__).parents[2])
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=archive.stdout, check=True)
    older = {"PYTHONPATH": str(tmp_path / "operator")}
    plane.apply(a_body("standing"))
    wait_for_outcome(plane, "standing", "serving", "Sound")
    versions: tuple[dict[str, str], ...] = (older, {}, older, {})
    with load(plane) as answers:
        for environment in versions:
            for replica in replicas:
                replica.stop()
                replica.more_environment = dict(environment)
                replica.start()
            for gpus, outcome in ((7, "Waiting"), (8, "Sound")):
                patch_status(plane, "node-a", {"allocatable": {"nvidia.com/gpu": str(gpus)}})
                wait_for_outcome(plane, "standing", "serving", outcome, timeout=30)
                marks = find(plane, "standing", "serving")["metadata"]["annotations"]
                assert marks["shardgate.io/verdict"] == outcome
    assert [each for each in answers if each[0] != 201] == []
    measured(f"0 of {len(answers)} calls failed over {len(versions)} changes of version")


@fault(34, what=f"{ROTATIONS} times a new pair on every replica, picked up while connections are open", load=LOAD,
       criterion="0 failed calls")  # fmt: skip
def test_no_call_fails_while_certificates_are_rotated(fleet: tuple[ControlPlane, list[Installation]], measured: Measured) -> None:
    plane, replicas = fleet
    until("all are ready", lambda: all(each.is_ready() for each in replicas), timeout=30)

    def ends() -> list[float]:
        return [each.metric("shardgate_tls_not_after_timestamp_seconds") or 0 for each in replicas]

    with load(plane) as answers:
        for _ in range(ROTATIONS):
            before = ends()
            for each in replicas:
                plane.authority.issue(f"webhook-{each.webhook_port}")
            until(
                "all serve the new pair", lambda before=before: all(a > b for a, b in zip(ends(), before, strict=True)), timeout=30
            )  # type: ignore[misc]
    assert [each for each in answers if each[0] != 201] == []
    measured(f"0 of {len(answers)} calls failed")


@fault(
    39, what="the leader is stopped by SIGSTOP until another one leads, then goes on",
    criterion="another leads within 20 s; whoever was stopped writes nothing, and knows",
)  # fmt: skip
def test_a_leader_that_was_stopped_writes_nothing_when_it_goes_on(
    fleet: tuple[ControlPlane, list[Installation]], measured: Measured
) -> None:
    plane, replicas = fleet
    plane.apply(a_body())
    wait_for_outcome(plane, "llama", "serving", "Sound")

    def leaders(among: list[Installation]) -> list[Installation]:
        return [each for each in among if each.metric("shardgate_leader") == 1]

    until("one leads", lambda: len(leaders(replicas)) == 1)
    (leader,) = leaders(replicas)
    others = [each for each in replicas if each is not leader]
    assert leader.operator is not None
    leader.operator.signal(signal.SIGSTOP)
    try:
        took = until("another one leads", lambda: len(leaders(others)) == 1, timeout=30)
        patch_status(plane, "node-a", {"allocatable": {"nvidia.com/gpu": "7"}})
        wait_for_outcome(plane, "llama", "serving", "Waiting")
        stood = find(plane, "llama", "serving")["metadata"]["resourceVersion"]
    finally:
        leader.operator.signal(signal.SIGCONT)
    until("it knows", lambda: leader.metric("shardgate_leader") == 0)
    until("it is ready again", leader.is_ready)
    time.sleep(5)
    assert find(plane, "llama", "serving")["metadata"]["resourceVersion"] == stood
    assert len(leaders(replicas)) == 1
    measured(f"another led after {took:.1f} s; 0 writes by the stopped one")
