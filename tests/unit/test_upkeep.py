"""The parts of the leader's upkeep: none is kept from its turn by what another one does."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shardgate.shells.cluster import ApiError, ClusterUnreachable
from shardgate.shells.metrics import Metrics
from shardgate.shells.upkeep import Upkeep


class Turns:
    """Parts that note their turns, of a replica that leads until it is told otherwise."""

    def __init__(self) -> None:
        self.held, self.metrics, self.done = True, Metrics(), list[str]()
        self.subject = Upkeep(self, self.metrics)  # type: ignore[arg-type]

    def is_held(self) -> bool:
        return self.held

    def part(self, name: str, problem: Exception | None = None) -> Callable[[], Awaitable[None]]:
        async def take() -> None:
            self.done.append(name)
            if problem is not None:
                raise problem

        return take

    def go(self, *parts: Callable[[], Awaitable[None]]) -> list[str]:
        self.done.clear()
        asyncio.run(self.subject.once(parts))
        return self.done

    @property
    def internal_errors(self) -> float | None:
        return self.metrics.registry.get_sample_value("shardgate_internal_errors_total")


@pytest.mark.parametrize(
    ("problem", "internal_errors"),
    [
        (KeyError("mayRefuse"), 1),
        (RecursionError(), 1),
        (ApiError(422, "Invalid", "no such field"), 0),
        (ClusterUnreachable("refused"), 0),
        (TimeoutError(), 0),
    ],
    ids=repr,
)
def test_what_one_does_wrong_keeps_the_others_from_nothing(
    problem: Exception, internal_errors: int, caplog: pytest.LogCaptureFixture
) -> None:
    turns = Turns()
    assert turns.go(turns.part("first"), turns.part("calibration", problem), turns.part("last")) == ["first", "calibration", "last"]
    assert turns.internal_errors == internal_errors
    assert (str(problem) or type(problem).__name__) in caplog.text


def test_an_api_server_that_asks_to_be_left_alone_is() -> None:
    turns = Turns()
    asked = ApiError(429, "TooManyRequests", "later", 30.0)
    assert turns.go(turns.part("first", asked), turns.part("last")) == ["first"]
    assert turns.go(turns.part("first")) == []


def test_who_leads_no_more_stops() -> None:
    turns = Turns()

    async def loses() -> None:
        turns.held = False

    assert turns.go(loses, turns.part("last")) == []
