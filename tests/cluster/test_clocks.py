"""Wall clocks that jump, and replicas whose clocks differ."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from faults import LENGTH, Measured, at_length, fault
from live import create_node, status, until, wait_for_outcome

from builders import a_body, a_node
from controlplane.installation import NAMESPACE, Installation
from controlplane.plane import ControlPlane

SKEWED = (str(Path(__file__).with_name("stand_ins") / "skewed_clock.py"),)
DAY = 86400
BEHIND_DAYS = 80
"""A certificate that is made then has ten days left now."""
CLAIM_SECONDS = at_length(15, long=60)


@pytest.fixture
def behind(clean: ControlPlane, tmp_path: Path) -> Iterator[tuple[Installation, Path]]:
    """An operator that makes its certificates by a clock that is eighty days behind."""
    clock = tmp_path / "offset"
    clock.write_text(str(-BEHIND_DAYS * DAY))
    installation = Installation(
        clean, keeps_certificates=True, program=SKEWED, more_environment={"CLOCK_OFFSET": str(clock)},
    )  # fmt: skip
    clean.apply(*installation.objects())
    installation.connect()
    clean.apply(*installation.webhooks())
    create_node(clean, a_node().body)
    installation.start()
    yield installation, clock
    installation.stop()
    clean.kubectl("delete", "secret", "shardgate-webhook-tls", "-n", NAMESPACE, "--ignore-not-found")
    clean.apply(*Installation(clean).objects())


@fault(
    36, what=f"the process is stopped, its wall clock jumps by {BEHIND_DAYS} days past the renewal, and it goes on",
    criterion="renewed within 2 min, and trusted",
)  # fmt: skip
def test_a_process_that_slept_through_its_renewal_renews(behind: tuple[Installation, Path], measured: Measured) -> None:
    installation, clock = behind
    plane = installation.plane

    def is_asked() -> bool:
        uneven = a_body(strategy={"tensor": 3})
        return "HeadsUneven" in plane.apply(uneven, options=("--dry-run=server",), check=False).stderr

    def days_left() -> float:
        return ((installation.metric("shardgate_tls_not_after_timestamp_seconds") or 0) - time.time()) / DAY

    until("the API server trusts it", is_asked, timeout=30)
    assert 5 < days_left() < 15
    assert installation.operator is not None
    installation.operator.signal(signal.SIGSTOP)
    clock.write_text("0")
    time.sleep(3)
    installation.operator.signal(signal.SIGCONT)
    took = until("a new certificate is served", lambda: days_left() > 80, timeout=120)
    until("the API server trusts it", is_asked, timeout=30)
    measured(f"a new certificate was served {took:.0f} s after, by the same authority or one that is trusted")


@pytest.fixture
def skewed(clean: ControlPlane, tmp_path: Path) -> Iterator[list[Installation]]:
    """Three replicas whose clocks are ten minutes ahead, right, and ten minutes behind."""
    create_node(clean, a_node().body)
    with ExitStack() as stack:
        found = []
        for name, seconds in (("ahead", 600), ("right", 0), ("behind", -600)):
            clock = tmp_path / name
            clock.write_text(str(seconds))
            each = Installation(clean, program=SKEWED, more_environment={"CLOCK_OFFSET": str(clock)})
            each.connect()
            stack.callback(each.stop)
            each.start()
            found.append(each)
        yield found


@fault(
    37, what="replicas whose clocks are ten minutes ahead, right, and ten minutes behind; the leader is killed",
    criterion="one leader; another within 20 s; no promise ends early",
)  # fmt: skip
def test_clocks_that_differ_make_no_second_leader_and_end_no_promise(skewed: list[Installation], measured: Measured) -> None:
    plane = skewed[0].plane

    def leaders() -> list[Installation]:
        return [each for each in skewed if each.metric("shardgate_leader") == 1]

    plane.apply({
        "apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationPolicy", "metadata": {"name": "short"},
        "spec": {"claimSeconds": CLAIM_SECONDS},
    })  # fmt: skip
    until("one leads", lambda: len(leaders()) == 1, timeout=30)
    (leader,) = leaders()
    plane.apply(a_body())
    wait_for_outcome(plane, "llama", "serving", "Sound")

    def claimed() -> str:
        conditions = status(plane, "llama", "serving").get("conditions", [])
        return next((str(each["reason"]) for each in conditions if each["type"] == "Claimed"), "")

    began = time.monotonic()
    assert claimed() == "Promised"
    while claimed() == "Promised" and time.monotonic() - began < CLAIM_SECONDS + 30:
        assert leaders() == [leader]
        time.sleep(1)
    held = time.monotonic() - began
    assert claimed() == "Expired"
    assert held >= CLAIM_SECONDS - 3
    leader.kill()
    took = until("another one leads", lambda: len(leaders()) == 1, timeout=20 if LENGTH else 40)
    time.sleep(3)
    assert len(leaders()) == 1
    measured(f"one leader at every look; a promise of {CLAIM_SECONDS} s held {held:.0f} s; another led {took:.0f} s after the kill")
