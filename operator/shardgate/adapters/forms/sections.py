"""What a report tells, in its order: the sections of the two reference reports, for any declaration."""

from collections.abc import Mapping, Sequence
from typing import Any

from shardgate.adapters.forms.behaviour_sections import balance, communication, graph, performance
from shardgate.adapters.forms.content import Content, Section
from shardgate.adapters.forms.parts import Part, parts_of
from shardgate.adapters.forms.resource_sections import hardware, memory, modules, strategy
from shardgate.adapters.forms.verdict_sections import (
    alternatives,
    assumptions,
    findings,
    not_judged,
    outcome_of,
    recommendations,
    risks,
    score,
    subject_of,
    summary,
)

Json = Mapping[str, Any]

_UNJUDGED = (
    "hardware", "memory", "strategy requirements", "performance", "module division", "communication", "the graph of ranks",
    "load balance", "risks", "alternatives", "the terms of the score",
)  # fmt: skip


def content(report: Json) -> Content:
    """Everything that the report says."""
    parts = parts_of(report)
    return Content(title=subject_of(report), outcome=outcome_of(report), sections=tuple(_sections(report, parts)))


def _sections(report: Json, parts: Sequence[Part]) -> list[Section]:
    if report["declared"] is None:
        return [summary(report, parts), findings(report), recommendations(report), not_judged(report, _UNJUDGED)]
    return [
        summary(report, parts),
        hardware(report, parts),
        findings(report),
        *_of_parts(report, parts),
        risks(report),
        recommendations(report, parts),
        alternatives(report),
        score(report),
        assumptions(report),
    ]


def _of_parts(report: Json, parts: Sequence[Part]) -> list[Section]:
    """Side by side for one group; beneath its name where there are several."""
    if len(parts) == 1:
        return list(_of_part(report, parts[0]))
    return [
        Section(
            key=f"group-{at}", title=f"Group {part.role}",
            sections=tuple(_renamed(each, f"{each.key}-{at}") for each in _of_part(report, part)),
        )
        for at, part in enumerate(parts)
    ]  # fmt: skip


def _of_part(report: Json, part: Part) -> tuple[Section, ...]:
    return (
        memory(part), strategy(report, part), performance(part), modules(part), communication(part), graph(part), balance(part),
    )  # fmt: skip


def _renamed(section: Section, key: str) -> Section:
    return Section(key, section.title, section.blocks, section.sections)
