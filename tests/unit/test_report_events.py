"""Events of contradicting reports: each once, and none lost with a leader."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from shardgate.shells.report_events import MOST_AT_ONCE, ReportEvents


@dataclass
class Told:
    """Where events go."""

    events: list[tuple[str, str]] = field(default_factory=list)

    async def tell_of(self, _kind: str, _namespace: str, name: str, _reason: str, note: str, *, uid: str) -> None:
        assert uid == f"uid-{name}"
        self.events.append((name, note))


def an_inventory(**contradictions: str) -> Any:
    return SimpleNamespace(
        groups=[
            SimpleNamespace(shape=SimpleNamespace(gpu=SimpleNamespace(contradiction=each)), nodes=[SimpleNamespace(name=name)])
            for name, each in contradictions.items()
        ]
    )


@pytest.fixture
def told() -> Told:
    return Told()


def events(told: Told) -> ReportEvents:
    reports: Any = SimpleNamespace(facts=lambda _name: object(), uid=lambda name: f"uid-{name}")
    writer: Any = told
    return ReportEvents(writer, reports)


def test_what_stands_is_told_once_and_a_change_again(told: Told) -> None:
    leader = events(told)
    for message in ("7 of 8", "7 of 8", "6 of 8", "", "6 of 8"):
        leader.note(an_inventory(a=message), leading=True)
        asyncio.run(leader.upkeep())
    assert told.events == [("a", "7 of 8"), ("a", "6 of 8"), ("a", "6 of 8")]


def test_what_arose_while_nobody_led_is_told_by_who_leads_next(told: Told) -> None:
    replica = events(told)
    replica.note(an_inventory(a="7 of 8"), leading=False)
    asyncio.run(replica.upkeep())
    assert told.events == []
    for _ in range(2):
        replica.note(an_inventory(a="7 of 8"), leading=True)
        asyncio.run(replica.upkeep())
    assert told.events == [("a", "7 of 8")]


def test_many_are_told_in_the_course_of_time(told: Told) -> None:
    leader, many = events(told), an_inventory(**{f"n{index}": "7 of 8" for index in range(MOST_AT_ONCE + 1)})
    for expected in (MOST_AT_ONCE, MOST_AT_ONCE + 1):
        leader.note(many, leading=True)
        asyncio.run(leader.upkeep())
        assert len(told.events) == expected
