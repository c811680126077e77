"""The report as one HTML page: nothing is fetched, nothing runs; light and dark, on a desk, a telephone or paper.

The words are those of ``sections``; the drawings (placement, memory, ranges) show what the tables beside them say.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from shardgate import __version__
from shardgate.adapters.forms.behaviour_sections import MEASURES, objective_of, result
from shardgate.adapters.forms.content import Cell, Content, Facts, Section, Table, Tone, printable
from shardgate.adapters.forms.figures import figure_of, single
from shardgate.adapters.forms.parts import Part, parts_of
from shardgate.adapters.forms.placement_map import NARROW, WIDE, placement_map
from shardgate.adapters.forms.resource_sections import fullest
from shardgate.adapters.forms.sections import content
from shardgate.adapters.forms.verdict_sections import conclusion, score_of
from shardgate.domain.units import gib

Json = Mapping[str, Any]

_MOST_BARS = 16
_RATE = next(each for each in MEASURES if each.key == "capacityRequestsPerSecond")
_IN_HERO = ("Outcome", "Status", "Score", "Recommendation", "Reference")
"""Of the summary's facts: what the page's head shows in other places."""


def html(reports: Sequence[Json]) -> str:
    """One page for all of them."""
    title = f"{reports[0]['outcome']}: {content(reports[0]).title}" if len(reports) == 1 else f"{len(reports)} reports"
    pages = [_page(report, at, level=2 if len(reports) == 1 else 3) for at, report in enumerate(reports)]
    page = _templates().get_template("report.html")
    css = Markup(_file("report.css"))  # noqa: S704  # our own file
    return page.render(title=f"{title} - Shardgate", pages=pages, css=css, version=__version__) + "\n"


@cache
def _templates() -> Environment:
    names = ("report.html", "placement_map.svg")
    environment = Environment(
        loader=DictLoader({name: _file(name) for name in names}), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )  # fmt: skip
    environment.filters |= {
        "kind": lambda block: type(block).__name__, "at": lambda number: f"{number:.1f}".removesuffix(".0"), "width": _width,
    }  # fmt: skip
    return environment


_LONGEST_WORD, _LONG, _MEDIUM = 36, 40, 14


def _width(text: str) -> str:
    """How a text takes room in a table: a name without an end is broken, words never are."""
    if max(map(len, text.split()), default=0) > _LONGEST_WORD:
        return "unbroken"
    return "long" if len(text) > _LONG else "medium" if len(text) > _MEDIUM else "short"


@cache
def _file(name: str) -> str:
    return resources.files("shardgate.adapters.forms").joinpath("templates", name).read_text(encoding="utf-8")


def _page(report: Json, at: int, *, level: int) -> Json:
    whole, parts, subject = content(report), parts_of(report), report["subject"]
    identity = f"r{at}"
    summary, *sections = whole.sections
    items, aspects = _summary(summary)
    return {
        "id": identity,
        "level": level,
        "content": whole,
        "summary": summary,
        "sections": sections,
        "kind": subject["kind"],
        "name": f"{subject['namespace']}/{subject['name']}" if subject["namespace"] else subject["name"],
        "ref": report["ref"],
        "status": report["status"],
        "recommendation": report["recommendation"],
        "lead": conclusion(report),
        "score": report["score"],
        "score_text": score_of(report).text,
        "strip": [*(item for item in items if item[0] not in _IN_HERO), *_key_figures(whole)],
        "aspects": aspects,
        "figures": _figures(report, parts, identity),
        "meters": _meters(report),
    }


def _summary(summary: Section) -> tuple[tuple[tuple[str, Cell], ...], list[tuple[str, Cell]]]:
    """The facts, and each class with its outcome."""
    items = next(block.items for block in summary.blocks if isinstance(block, Facts))
    of = next(block for block in summary.blocks if isinstance(block, Table))
    return items, [(column.name, cell) for column, cell in zip(of.columns, of.rows[0], strict=True)]


def _key_figures(whole: Content) -> Iterator[tuple[str, Cell]]:
    """What a hurried reader looks for first: GPUs needed and found."""
    for section in whole.sections:
        if section.key == "hardware":
            of = next(block for block in section.blocks if isinstance(block, Table))
            for row in of.rows[:2]:
                tone = row[3].tone if row[3].tone is not Tone.UNKNOWN else Tone.PLAIN
                yield row[0].text, Cell(f"{row[1].text} needed, {row[2].text} found", tone)
        if section.key == "performance":
            for block in section.blocks:
                for row in block.rows if isinstance(block, Table) else ():
                    if row[0].text == _RATE.name and row[1].tone is not Tone.UNKNOWN:
                        yield row[0].text, row[1]


def _meters(report: Json) -> list[float] | None:
    terms = report["scoreTerms"] or ()
    return [round(100 * (each["points"] or 0) / each["of"], 1) if each["of"] else 0 for each in terms] or None


def _figures(report: Json, parts: Sequence[Part], identity: str) -> dict[str, Json]:
    """Section -> its drawings."""
    found: dict[str, Json] = {}
    for at, part in enumerate(parts):
        suffix = f"-{at}" if len(parts) > 1 else ""
        found[f"modules{suffix}"] = {"map": _map(report, part, f"{identity}-map{suffix}")}
        found[f"memory{suffix}"] = {"bars": _bars(part)}
        found[f"performance{suffix}"] = {"ranges": _ranges(part)}
    none: Json = {"map": None, "bars": None, "ranges": None}
    return {key: {**none, **figures} for key, figures in found.items()}


def _map(report: Json, part: Part, identity: str) -> Json | None:
    drawn = {}
    caption = ""
    for form, width in (("wide", WIDE), ("narrow", NARROW)):
        made = placement_map(report, part, width)
        if made is None:
            return None
        svg = _templates().get_template("placement_map.svg").render(map=made, id=f"{identity}-{form}", form=form)
        drawn[form] = Markup(svg)  # noqa: S704  # rendered with its texts escaped
        caption = f"{made.title}. {made.remark}".strip()
    return {**drawn, "caption": caption}


_KINDS = (("weights", "weightsBytes"), ("activations", "activationBytes"), ("engine", "overheadBytes"))


def _bars(part: Part) -> Json | None:
    """What fills the budget of a rank, for the fullest rank of each stage."""
    stages: dict[int, list[Json]] = {}
    for rank in part.memory.get("perRank") or ():
        stages.setdefault(rank["stage"], []).append(rank)
    fullest_ranks = [(stage, min(ranks, key=lambda rank: rank["kvCacheBytes"] or 0)) for stage, ranks in stages.items()]
    rows = [(stage, rank) for stage, rank in fullest_ranks if None not in (rank["kvCacheBytes"], rank["budgetBytes"])]
    if not rows:
        return None
    top = max(max(rank["budgetBytes"], rank["budgetBytes"] - rank["kvCacheBytes"]) for _, rank in rows) or 1
    drawn = [_bar(f"Stage {stage}, a rank", rank, top) for stage, rank in rows[:_MOST_BARS]]
    left = f" Not drawn: {len(rows) - _MOST_BARS} more stages." if len(rows) > _MOST_BARS else ""
    said = "; ".join(f"{row['name']}: {row['text']}" for row in drawn)
    least = fullest(part).get("budgetBytes")
    caption = f"What fills the memory that the engine may use on one GPU{'' if least is None else f': {gib(least)}'}.{left}"
    return {
        "rows": drawn,
        "label": f"Memory of a rank in each stage. {said}",
        "caption": caption,
        "is_over": any(row["over"] for row in drawn),
    }


def _bar(name: str, rank: Json, top: int) -> Json:
    """Widths in percent; what is beyond the budget is cut off the last share and marked."""
    budget, parts, used = rank["budgetBytes"], [], 0
    for kind, key in _KINDS:
        size = max(0, min(rank[key] or 0, budget - used))
        used += rank[key] or 0
        parts.append({"kind": kind, "width": round(100 * size / top, 2)})
    over = max(0, used - budget)
    last = (
        {"kind": "over", "width": round(100 * over / top, 2)}
        if over
        else {"kind": "cache", "width": round(100 * max(0, rank["kvCacheBytes"]) / top, 2)}
    )
    text = f"{gib(over)} too much" if over else f"{gib(rank['kvCacheBytes'])} for KV cache"
    return {"name": name, "parts": [*parts, last], "limit": round(100 * budget / top, 2), "text": text, "over": bool(over)}


def _ranges(part: Part) -> Json | None:
    """Expected figures with their ranges, each on a scale of its own, beside the objective."""
    with_objective = [each for each in MEASURES if each.objective]
    rows = []
    for measure in with_objective:
        found, aim = figure_of(part.performance.get(measure.key)), objective_of(part, measure)
        if found is None:
            continue
        top = 1.12 * max(found.value, found.high or 0, aim or 0) or 1
        band = (
            None if found.low is None or found.high is None else (_percent(found.low, top), _percent(found.high - found.low, top))
        )
        tone = result(part, measure).tone
        rows.append({
            "name": measure.name, "band": band, "mark": _percent(found.value, top),
            "aim": None if aim is None else _percent(aim, top), "tone": Tone.GOOD if tone is Tone.UNKNOWN or aim is None else tone,
            "text": single(found.value, measure.show, measure.unit).text,
        })  # fmt: skip
    if not rows:
        return None
    said = "; ".join(f"{row['name']}: {row['text']}" for row in rows)
    return {"rows": rows, "label": f"Expected figures beside the objectives. {said}"}


def _percent(value: float, top: float) -> float:
    return round(100 * value / top, 2)
