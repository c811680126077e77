"""How many requests may wait, and since when those that are seen now have waited."""

import asyncio

import pytest

from shardgate.shells import connections as module
from shardgate.shells.connections import FEWEST_WAITING, MOST_WAITING, QUEUE_SECONDS, Connections, is_whole


class Clock:
    """The monotonic clock, by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def some(shed: list[str]) -> Connections:
    return Connections(asyncio.Protocol, shed.append)


def fill(connections: Connections) -> int:
    """How many may wait at once."""
    waiting = 0
    while connections.waits():
        waiting += 1
    return waiting


def drain(connections: Connections, clock: Clock, how_many: int, seconds_each: float) -> None:
    for _ in range(how_many):
        clock.now += seconds_each
        connections.waits_no_more(is_begun=True)


def test_while_nothing_is_known_many_may_wait(clock: Clock) -> None:
    shed: list[str] = []
    assert fill(some(shed)) == MOST_WAITING
    assert shed == ["busy"]


def test_what_is_fast_may_wait_in_numbers_and_what_is_slow_may_not(clock: Clock) -> None:
    connections = some([])
    drain(connections, clock, fill(connections), 0.0005)
    assert fill(connections) == MOST_WAITING
    drain(connections, clock, MOST_WAITING, 0.005)
    room = fill(connections)
    assert QUEUE_SECONDS / 0.005 <= room < MOST_WAITING
    drain(connections, clock, room, 0.05)
    assert fill(connections) == FEWEST_WAITING
    for _ in range(12):
        drain(connections, clock, connections._waiting, 0.0005)
        fill(connections)
    assert connections._waiting == MOST_WAITING, "it forgets"


def test_one_slow_request_alone_says_nothing(clock: Clock) -> None:
    connections = some([])
    assert connections.waits()
    drain(connections, clock, 1, 60.0)
    assert fill(connections) == MOST_WAITING


def test_who_goes_makes_room(clock: Clock) -> None:
    connections = some([])
    fill(connections)
    connections.waits_no_more(is_begun=False)
    assert connections.waits()
    assert not connections.waits()


def test_what_is_seen_after_a_halt_may_be_as_old_as_that(clock: Clock) -> None:
    async def scenario() -> None:
        connections = some([])
        connections.look()
        began = clock.now
        clock.now += module.LOOK_SECONDS
        assert connections.came() == clock.now, "the loop turns"
        clock.now += 2
        assert connections.came() == began, "it has not turned since"
        connections.look()
        assert connections.came() == began
        assert connections.is_behind_since(began)
        made = clock.now = clock.now + 1
        connections.look()
        assert connections.is_behind_since(began), "it halted again"
        clock.now += module.LOOK_SECONDS
        connections.look()
        assert (connections.came(), connections.is_behind_since(made)) == (clock.now, False)
        connections.look_no_more()

    asyncio.run(scenario())


WHOLE = b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nAccept: */*\r\n\r\n{}"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (WHOLE, True),
        (WHOLE.replace(b"Content-Length", b"content-length"), True),
        (WHOLE[:-1], False),
        (WHOLE + b"P", False),
        (WHOLE[:40], False),
        (WHOLE.replace(b"Accept: */*", b"Transfer-Encoding: chunked"), False),
        (WHOLE.replace(b"Accept: */*", b"Content-Length: 2"), False),
        (WHOLE.replace(b"Accept: */*", b"Content-Length : 2"), False),
        (WHOLE.replace(b": 2", b": +2"), False),
        (WHOLE.replace(b"Host: x\r\n", b"a: b\r\n" * 2000), False),
        (b"", False),
    ],
)
def test_a_request_is_known_to_be_whole(data: bytes, *, expected: bool) -> None:
    assert is_whole(data) is expected
