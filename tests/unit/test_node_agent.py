"""The node agent's loop, by a clock of the test's own."""

import threading
from dataclasses import replace
from typing import Any

import pytest

from shardgate.adapters.report_changes import Change, change
from shardgate.domain.driver_reading import (
    DriverReading,
    GpuProcess,
    GpuReading,
    GpuState,
    Health,
    Memory,
    Ownership,
    ProbeError,
)
from shardgate.domain.units import GIBI, MEBI, Bytes
from shardgate.shells.agent.agent import CHECK_SECONDS, LIVE_SECONDS, STALE_LIBRARY_SECONDS, Agent
from shardgate.shells.agent.api_server import Refused, Unreachable
from shardgate.shells.agent.node_metrics import NodeMetrics
from shardgate.shells.agent.watched_probe import WatchedProbe

Json = dict[str, Any]


def a_gpu(used: int = 0, **fields: Any) -> GpuReading:
    memory = Memory(total=Bytes(80 * GIBI), used=Bytes(used), reserved=Bytes(480 * MEBI))
    return GpuReading(index=0, uuid="GPU-1", product="NVIDIA H200", memory=memory, health=Health(state=GpuState.HEALTHY), **fields)


def a_reading(*gpus: GpuReading) -> DriverReading:
    return DriverReading(driver_version="580.1", gpus=gpus or (a_gpu(),))


class Node:
    """A driver that says what it is told, an API server that does, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.says: DriverReading | ProbeError = a_reading()
        self.refuses: Exception | None = None
        self.stands: Json | None = None
        self.written: list[Json] = []
        self.beats = 0
        self.metrics = NodeMetrics()
        self.agent = Agent(
            WatchedProbe(self), self, self.metrics, interval=2, heartbeat=10, clock=lambda: self.now, jitter=lambda: 0.5
        )

    def gpus(self) -> DriverReading:
        if isinstance(self.says, ProbeError):
            raise self.says
        return self.says

    def publish(self, status: Json) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.written.append(status)
        self.stands = status

    def published(self) -> Json | None:
        return self.stands

    def beat(self) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.beats += 1

    def turns(self, seconds: float = 0) -> list[Json]:
        """What is written while so much time goes by."""
        before = len(self.written)
        end = self.now + seconds
        self.agent.turn()
        while self.now + 2 <= end:
            self.now += 2
            self.agent.turn()
        return self.written[before:]


@pytest.fixture
def node() -> Node:
    return Node()


def test_at_rest_there_are_heartbeats_and_nothing_else(node: Node) -> None:
    assert len(node.turns()) == 1
    assert node.turns(600) == []
    assert node.beats == 61


def test_what_matters_is_written_at_once(node: Node) -> None:
    node.turns()
    node.says = a_reading(replace(a_gpu(), health=Health(state=GpuState.LOST)))
    assert [status["gpus"][0]["health"] for status in node.turns()] == [{"state": "Lost"}]


def test_amounts_are_written_when_they_have_moved_and_not_too_often(node: Node) -> None:
    node.turns()
    node.says = a_reading(a_gpu(used=GIBI // 2))
    assert node.turns(60) == [], "less than 1 %"
    node.says = a_reading(a_gpu(used=40 * GIBI))
    assert len(node.turns()) == 1
    node.says = a_reading(a_gpu(used=60 * GIBI))
    assert node.turns(8) == []
    assert [status["gpus"][0]["memory"]["usedBytes"] for status in node.turns(2)] == [60 * GIBI]


def test_a_driver_that_cannot_be_read_is_a_report_once(node: Node) -> None:
    node.turns()
    node.says = ProbeError("NVML_ERROR_DRIVER_NOT_LOADED", "Driver Not Loaded")
    (status,) = node.turns(60)
    assert status["problem"]["name"] == "NVML_ERROR_DRIVER_NOT_LOADED"
    assert "gpus" not in status
    assert node.metrics.text().decode().count("shardgate_node_gpus{") == len(GpuState)
    assert 'shardgate_node_gpus{state="Healthy"} 0.0' in node.metrics.text().decode()
    node.says = a_reading()
    assert [status["summary"] for status in node.turns()] == ["1 x NVIDIA H200"]
    assert node.agent.liveness()[0] == 200


def test_a_mistake_of_ours_is_a_report_too(node: Node) -> None:
    node.says = None  # what no driver of ours says
    (status,) = node.turns(10)
    assert status["problem"]["name"] == "INTERNAL_ERROR"
    assert node.agent.liveness()[0] == 200


def test_another_problem_is_another_report(node: Node) -> None:
    node.says = ProbeError("NVML_ERROR_DRIVER_NOT_LOADED", "Driver Not Loaded")
    node.turns()
    node.says = ProbeError("NVML_ERROR_LIB_RM_VERSION_MISMATCH", "mismatch")
    assert len(node.turns(10)) == 1
    assert node.agent.liveness()[0] == 200
    node.turns(STALE_LIBRARY_SECONDS)
    assert node.agent.liveness() == (503, b"the driver was replaced: a restart loads its library\n")


@pytest.mark.parametrize("error", [Unreachable("gone"), Refused(409, "conflict"), Refused(403, "no"), Refused(503, "busy")])
def test_what_could_not_be_written_is_written_later_and_later(node: Node, error: Exception) -> None:
    node.refuses = error
    attempts = "shardgate_node_report_writes_total"
    node.turns(600)
    failed = node.metrics.registry.get_sample_value(attempts, {"result": "failed"})
    assert failed is not None
    assert 10 <= failed <= 20
    assert node.agent.readiness()[0] == 503
    node.refuses, node.says = None, a_reading(a_gpu(numa_node=1))
    (status,) = node.turns(60)
    assert status["gpus"][0]["numaNode"] == 1, "what holds now, not what held then"
    assert node.agent.readiness()[0] == 200


def test_there_is_no_heartbeat_while_the_report_does_not_hold(node: Node) -> None:
    node.turns(20)
    node.says = a_reading(a_gpu(numa_node=1))

    def refuse(_status: Json) -> None:
        raise Refused(422, "what it says is not taken")

    publish, node.publish = node.publish, refuse
    before = node.beats
    node.turns(120)
    assert node.beats == before
    node.publish = publish
    node.turns(120)
    assert node.beats > before


def test_how_long_the_api_server_asks_to_be_left_alone_is_heeded(node: Node) -> None:
    node.refuses = Refused(429, "too many", 30.0)
    node.turns(28)
    assert node.metrics.registry.get_sample_value("shardgate_node_report_writes_total", {"result": "failed"}) == 1


def test_a_report_that_went_with_its_node_is_written_anew(node: Node) -> None:
    node.turns()
    node.refuses = Refused(404, "leases not found")
    assert node.turns(10) == []
    node.refuses = None
    assert len(node.turns(30)) == 1


@pytest.mark.parametrize("edited", [None, {"summary": "no GPUs"}])
def test_a_report_that_somebody_else_changed_is_written_anew(node: Node, edited: Json | None) -> None:
    node.turns()
    node.stands = edited
    assert len(node.turns(2 * CHECK_SECONDS)) == 1


def test_it_is_alive_while_its_loop_turns(node: Node) -> None:
    node.turns()
    node.now += LIVE_SECONDS
    assert node.agent.liveness()[0] == 200
    node.now += 10
    assert node.agent.liveness()[0] == 503


def test_a_hung_call_holds_one_thread_and_is_told_until_it_comes_back() -> None:
    now, released, calls = [0.0], threading.Event(), list[int]()

    class Hanging:
        def gpus(self) -> DriverReading:
            calls.append(1)
            if len(calls) == 2:
                released.wait(60)
                return a_reading(a_gpu(used=1))
            return a_reading()

    probe = WatchedProbe(Hanging(), hung_seconds=0.05, clock=lambda: now[0])
    assert probe.gpus() == a_reading()
    before = threading.active_count()
    for _ in range(5):
        with pytest.raises(ProbeError) as raised:
            probe.gpus()
        assert raised.value.name == "CALL_HUNG"
        now[0] += 2
    assert (threading.active_count(), len(calls), probe.stuck_seconds) == (before, 2, 10)
    released.set()
    while probe.stuck_seconds:
        try:
            reading = probe.gpus()
        except ProbeError:
            continue
    assert reading == a_reading(), "what the hung call brought is from long ago"
    assert (len(calls), threading.active_count()) == (3, before)


def a_process(pid: int, ownership: Ownership, memory: int = GIBI, pod: str | None = None) -> GpuProcess:
    return GpuProcess(pid=pid, memory=Bytes(memory), ownership=ownership, pod_uid=pod)


def holding(*processes: GpuProcess) -> DriverReading:
    return a_reading(a_gpu(processes=processes))


POD, HOST, UNKNOWN = Ownership.POD, Ownership.HOST, Ownership.UNKNOWN


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        (a_reading(), a_reading(), Change.NONE),
        (a_reading(), a_reading(a_gpu(used=GIBI)), Change.AMOUNTS),
        (a_reading(), a_reading(a_gpu(used=700 * MEBI)), Change.NONE),
        (a_reading(), a_reading(a_gpu(), replace(a_gpu(), index=1)), Change.FACTS),
        (a_reading(), a_reading(a_gpu(xids=(31,))), Change.FACTS),
        (a_reading(), replace(a_reading(), driver_version="590.1"), Change.FACTS),
        (a_reading(), a_reading(replace(a_gpu(), memory=Memory(total=Bytes(80 * GIBI)))), Change.FACTS),
        (holding(a_process(1, POD, pod="a")), holding(a_process(2, POD, pod="a")), Change.NONE),
        (holding(a_process(1, POD, pod="a")), holding(a_process(1, POD, pod="b")), Change.FACTS),
        (holding(a_process(1, HOST)), holding(a_process(2, HOST)), Change.FACTS),
        (holding(a_process(1, HOST)), holding(a_process(1, HOST, 9 * GIBI)), Change.AMOUNTS),
        (holding(a_process(1, UNKNOWN)), holding(a_process(2, UNKNOWN)), Change.NONE),
        (holding(), a_reading(), Change.FACTS),
    ],
)
def test_what_is_worth_a_write(before: DriverReading, now: DriverReading, found: Change) -> None:
    assert change(before, now) is found
    assert change(now, before) is found
