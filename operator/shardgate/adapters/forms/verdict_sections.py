"""Sections on the judgement: summary, findings, risks, recommendations, alternatives, score, assumptions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from shardgate.adapters.forms.content import Block, Card, Cards, Cell, Items, Note, Section, Tone, facts, table
from shardgate.adapters.forms.figures import TONES, UNKNOWN, known, measured, unknown, widths
from shardgate.adapters.forms.parts import Part
from shardgate.domain.units import count, gib, number

Json = Mapping[str, Any]

ADVICE = {
    "PROCEED_WITH_CONFIDENCE": "Deploy it as declared.",
    "PROCEED_WITH_CAUTION": "It can be deployed; read the findings first.",
    "WAIT": "It cannot start now and may later: wait, or take a way out below.",
    "INVESTIGATE": "A fact is missing: give it, and ask again.",
    "DO_NOT_PROCEED": "Do not deploy it as declared: it would not start here.",
}
"""Recommendation -> what to do."""

_CLASSES = {"shape": "Shape", "memory": "Memory", "capacity": "Capacity", "host": "Host", "quality": "Quality"}


def subject_of(report: Json) -> str:
    """``InferenceDeployment serving/llama3-70b``."""
    subject = report["subject"]
    return (
        f"{subject['kind']} {subject['namespace']}/{subject['name']}"
        if subject["namespace"]
        else f"{subject['kind']} {subject['name']}"
    )


def outcome_of(report: Json) -> Cell:
    """With its tone."""
    return Cell(report["outcome"], TONES.get(report["outcome"], Tone.UNKNOWN))


def score_of(report: Json) -> Cell:
    """Of 100."""
    return Cell("not scored", Tone.UNKNOWN) if report["score"] is None else Cell(f"{report['score']}/100", outcome_of(report).tone)


def summary(report: Json, parts: Sequence[Part]) -> Section:
    """Status, score, recommendation, and what it is about."""
    outcome, recommendation = outcome_of(report), report["recommendation"]
    items = [
        ("Outcome", outcome),
        ("Status", Cell(report["status"], outcome.tone)),
        ("Score", score_of(report)),
        ("Recommendation", Cell(recommendation, outcome.tone)),
        *((f"Model{_of(part)}", _model(part)) for part in parts),
        *((f"Strategy{_of(part)}", _strategy(part)) for part in parts),
        ("Reference", Cell(str(report["ref"]))),
    ]
    aspects = report.get("aspects") or {}
    row = [Cell(aspects[key], TONES.get(aspects[key], Tone.UNKNOWN)) if key in aspects else unknown() for key in _CLASSES]
    blocks: list[Block] = [Note(conclusion(report), outcome.tone), facts(items)]
    blocks.append(table("The worst finding of each class", tuple(_CLASSES.values()), [row]))
    return Section("summary", "Summary", tuple(blocks))


def conclusion(report: Json) -> str:
    """What to do, and the worst of what was found, in a sentence or two."""
    advice = ADVICE.get(report["recommendation"], "")
    findings = report["findings"]
    if not findings:
        return advice
    more = f" ({count(len(findings) - 1, 'finding')} more)" if len(findings) > 1 else ""
    return f"{advice} {findings[0]['code']}: {findings[0]['message']}{more}."


def _of(part: Part) -> str:
    return f", {part.role}" if part.role else ""


def _model(part: Part) -> Cell:
    if not part.declared.get("model"):
        return unknown()
    return Cell(f"{part.declared['model']}, {part.declared.get('weights') or 'weights unknown'}")


def _strategy(part: Part) -> Cell:
    if not part.strategy:
        return unknown()
    engine = part.declared.get("engine")
    version = part.declared.get("engineVersion") or "(version unknown)"
    on = f" on {engine} {version}" if engine else " on an engine that is unknown"
    return Cell(f"{widths(part.strategy)}{on}")


def findings(report: Json) -> Section:
    """All of them, worst first."""
    found = report["findings"]
    title = "Incompatibilities" if any(each["outcome"] == "Unsound" for each in found) else "Findings"
    if not found:
        return Section("findings", title, (Note("Nothing was found against it.", Tone.GOOD),))
    cards = tuple(
        Card(
            title=each["code"],
            badge=Cell(each["outcome"], TONES.get(each["outcome"], Tone.UNKNOWN)),
            text=each["message"],
            details=tuple(
                (label, value)
                for label, value in (("Where", each["where"]), ("Way out", each["remedy"]), ("Source", each["source"]))
                if value
            ),
        )
        for each in found
    )
    return Section("findings", title, (Cards(cards),))


def risks(report: Json) -> Section:
    """Each with its likelihood, effect, and what lowers it."""
    rows = [tuple(known(each[key]) for key in ("name", "likelihood", "effect", "mitigation")) for each in report["risks"] or ()]
    return Section(
        "risks",
        "Risks",
        (_table_or_none("What may still go wrong", ("Risk", "Likelihood", "Effect", "What lowers it"), rows, report["risks"]),),
    )


def _table_or_none(caption: str, columns: tuple[str, ...], rows: Sequence[tuple[Cell, ...]], value: object) -> Block:
    if rows:
        return table(caption, columns, rows)
    return Note("Unknown.", Tone.UNKNOWN) if value is None else Note("None in this report.")


def _hardware_needed(parts: Sequence[Part]) -> Iterator[str]:
    """As declared: so many GPUs, and what each must leave to the engine where those that are here leave too little."""
    for part in parts:
        gpus, deficit = part.declared.get("gpusTotal"), part.memory.get("deficitBytes")
        budgets = [each["budgetBytes"] for each in part.memory.get("perRank") or () if each["budgetBytes"] is not None]
        if gpus is None or not deficit or not budgets:
            continue
        yield (
            f"Hardware for it as declared{_of(part)}: {count(gpus, 'GPU')} that each give the engine {gib(max(budgets) + deficit)} "
            f"or more, those here give {gib(max(budgets))}; shardgate plan --model {part.declared['model']} names products"
        )


def recommendations(report: Json, parts: Sequence[Part] = ()) -> Section:
    """What to do next, by the findings and what was found to fit."""
    steps = [Cell(ADVICE.get(report["recommendation"], str(report["recommendation"])), outcome_of(report).tone)]
    steps += [Cell(f"{each['code']}: {each['remedy']}") for each in report["findings"] if each["remedy"]]
    if report["outcome"] == "Unsound":
        steps += [Cell(each) for each in _hardware_needed(parts)]
    if report["alternatives"]:
        first = report["alternatives"][0]
        verb = "Instead" if report["outcome"] == "Unsound" else "Or"
        steps.append(Cell(f"{verb}: {first['change']} (the first of {count(len(report['alternatives']), 'alternative')})"))
    return Section("recommendations", "Recommendations", (Items(tuple(dict.fromkeys(steps)), is_ordered=True),))


def alternatives(report: Json) -> Section:
    """What would fit here, best first, with the patches to make it so."""
    found = report["alternatives"]
    columns = ("Alternative", "Model", "Weights", "GPUs#", "Requests per second#", "Objectives", "Score#")
    rows = [
        (
            _layout(at, each), known(each["model"]), known(each["weights"]), known(each["gpus"]),
            measured(each["requestsPerSecond"], number), _meets(each.get("meetsObjectives")), known(each["score"]),
        )
        for at, each in enumerate(found or (), 1)
    ]  # fmt: skip
    blocks: list[Block] = [_table_or_none("What fits here instead, best first", columns, rows, found)]
    cards = tuple(
        Card(
            title=f"{at}. {each['change']}", text="",
            details=(("Nodes", _names(each["nodes"])), *(_MERGED if each["patch"] else ())),
            code=_patch(each["patch"]) if each["patch"] else "",
        )
        for at, each in enumerate(found or (), 1)
    )  # fmt: skip
    return Section("alternatives", "Alternatives", (*blocks, *([Cards(cards)] if cards else ())))


_MERGED = (("Patch", "merged into the object as written:"),)


def _layout(at: int, each: Json) -> Cell:
    """``1: 2 replicas of TP4 x PP1 x DP1``."""
    of = widths(each["strategy"]) if isinstance(each["strategy"], Mapping) else each["strategy"] or UNKNOWN
    replicas = each.get("replicas") or 1
    return Cell(f"{at}: {count(replicas, 'replica')} of {of}" if replicas > 1 else f"{at}: {of}")


def _meets(value: bool | None) -> Cell:  # noqa: FBT001  # three states, from the document
    return Cell("") if value is None else Cell("met", Tone.GOOD) if value else Cell("missed", Tone.WARNING)


_MOST_NAMES = 4


def _names(nodes: Sequence[str] | None) -> str:
    if nodes is None:
        return UNKNOWN
    more = f" and {len(nodes) - _MOST_NAMES:,} more" if len(nodes) > _MOST_NAMES else ""
    return (", ".join(nodes[:_MOST_NAMES]) + more) or "none"


def _patch(patch: Any) -> str:
    if isinstance(patch, str):
        return patch
    return yaml.safe_dump(patch, sort_keys=False, allow_unicode=True, default_flow_style=None, width=76).rstrip()


def score(report: Json) -> Section:
    """Each term with its reason, and their sum."""
    terms = report["scoreTerms"]
    blocks: list[Block] = [facts([("Score", score_of(report))])]
    rows = [(known(each["name"]), _points(each["points"]), Cell(number(each["of"])), known(each["why"])) for each in terms or ()]
    if rows:
        blocks.append(table("Terms of the score", ("Term", "Points#", "Of#", "Why"), rows))
        if report["outcome"] != "Unsound" and any(each["points"] is None for each in terms):
            blocks.append(Note("What is not counted has no objective, or is unknown: the rest is scaled to 100."))
    if report["outcome"] == "Unsound":
        blocks.append(Note("A finding that is Unsound makes it 0, whatever else is good."))
    elif not rows:
        blocks.append(Note("The terms of the score are unknown.", Tone.UNKNOWN))
    return Section("score", "Score", tuple(blocks))


def _points(points: float | None) -> Cell:
    return Cell("not counted", Tone.UNKNOWN) if points is None else Cell(number(points))


def assumptions(report: Json) -> Section:
    """Defaults and estimates that the verdict rests on."""
    rows = [tuple(known(each[key]) for key in ("field", "value", "why")) for each in report["assumptions"] or ()]
    block = _table_or_none("Defaults and estimates that this rests on", ("Field", "Value", "Why"), rows, report["assumptions"])
    return Section("assumptions", "Assumptions", (block,))


def not_judged(report: Json, names: Iterator[str] | Sequence[str]) -> Section:
    """Where the declaration could not be read: what there is nothing to say about."""
    text = f"The declaration could not be judged, so these are unknown: {', '.join(names)}."
    return Section("unknown", "What is unknown", (Note(text, outcome_of(report).tone),))
