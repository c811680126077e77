"""The report as people read it in a terminal: compact, the worst first, of any width, with colours or without."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from shardgate.adapters.forms import content
from shardgate.adapters.forms.behaviour_sections import EDGE_TYPES, performance
from shardgate.adapters.forms.content import Cell, Tone, printable
from shardgate.adapters.forms.figures import TONES, UNKNOWN, amount, figure_of, measured, share, span, widths
from shardgate.adapters.forms.parts import Part, parts_of
from shardgate.adapters.forms.verdict_sections import alternatives, score, subject_of
from shardgate.domain.units import KIBI, count, gb, gib, number
from shardgate.shells.tables import Column, print_table

Json = Mapping[str, Any]

STYLES = {
    Tone.PLAIN: "", Tone.GOOD: "green", Tone.WARNING: "yellow", Tone.WAITING: "cyan", Tone.UNKNOWN: "magenta", Tone.BAD: "red",
}  # fmt: skip
_LABEL = 12
"""Columns of a line's label."""


def style_of(outcome: str | None) -> str:
    """An outcome's colour."""
    return STYLES[TONES.get(outcome or "", Tone.PLAIN)]


def print_report(console: Console, report: Json) -> None:
    """One declaration's report."""
    grade = "not scored" if report["score"] is None else f"score {report['score']}/100"
    _text(console, Text(_clean(subject_of(report)), style="bold") + Text(f"  (ref {report['ref']})", style="not bold"))
    outcome = Text(str(report["outcome"]), style=f"{style_of(report['outcome'])} bold")
    rest = Text(f"  {report['status']}, {report['recommendation']}, {grade}", style="not bold")
    _text(console, outcome + rest, 2)
    if report["declared"] is None:
        print_findings(console, report)
        console.print()
        return
    parts = parts_of(report)
    for part in parts:
        if part.role:
            console.print()
            _text(console, Text(f"Group {_clean(part.role)}", style="bold"), 2)
        _declared(console, part)
        if part is parts[0]:
            _line(console, "Cluster", _hardware(report["hardware"]))
        _line(console, "Placement", _placement(part.placement))
        _memory(console, part)
        _behaviour(console, part)
    if len(parts) > 1:
        console.print()
    print_findings(console, report)
    _risks(console, report)
    _table_of(console, alternatives(report), "Alternatives")
    _table_of(console, score(report), "Score")
    _assumptions(console, report)
    console.print()


def print_findings(console: Console, report: Json) -> None:
    """Each with its way out and its source."""
    for each in report["findings"]:
        head = Text(each["code"], style=style_of(each["outcome"]))
        said = _clean(f"({each['outcome']}) {each['where']}: {each['message']}")
        _text(console, head + Text(f" {said}", style="default"), 2)
        if each["remedy"]:
            _text(console, Text(_clean(f"-> {each['remedy']}")), 4)
        if each["source"]:
            _text(console, Text(_clean(each["source"]), style="dim"), 4)


def _declared(console: Console, part: Part) -> None:
    declared = part.declared
    if not declared:
        _line(console, "Declared", UNKNOWN)
        return
    weights = part.memory.get("weightsBytes")
    size = "" if weights is None else f", {gb(weights)} of weights"
    _line(console, "Model", f"{declared['model']}, {declared['weights'] or 'weights unknown'}{size}")
    engine = f"{declared['engine'] or 'an unnamed engine'} {declared['engineVersion'] or ''}".rstrip()
    _line(console, "Strategy", f"{widths(part.strategy)} on {engine}")
    per_pod = next(iter(declared["gpusPerPod"].values()), None)
    of = (
        f"{count(declared['podsPerReplica'], 'pod')} of {count(per_pod, 'GPU')}"
        if per_pod
        else count(declared["gpusPerReplica"], "GPU")
    )
    _line(console, "Needs", f"{count(declared['gpusTotal'], 'GPU')}: {count(declared['replicas'], 'replica')} of {of}")


def _hardware(hardware: Json | None) -> str:
    if not hardware or hardware["gpusInstalled"] is None:
        return "not known"
    products = ", ".join(
        f"{each['gpus']} x {each['product']} ({'memory unknown' if each['memoryBytes'] is None else gib(each['memoryBytes'])}) "
        f"on {count(each['nodes'], 'node')}"
        for each in hardware["products"]
    )
    return f"{products or 'no GPUs that it accepts'}; {hardware['gpusFree']} of {hardware['gpusInstalled']} free"


def _placement(placement: Json) -> str:
    if placement.get("feasible") is None:
        return "not judged"
    excluded = ", ".join(f"{each['count']} {each['reason']}" for each in placement["excluded"])
    left_out = f"; nodes left out: {excluded}" if excluded else ""
    nodes = sorted({each["node"] for each in placement["pods"]})
    where = f" on {', '.join(nodes[:4])}{' ..' if len(nodes) > 4 else ''}" if nodes else ""  # noqa: PLR2004  # what fits a line
    fits = (
        "fits now"
        if placement["feasible"]
        else f"{count(placement['replicasThatFit'], 'replica')} {'fits' if placement['replicasThatFit'] == 1 else 'fit'} now"
    )
    remark = f"; {placement['remark']}" if placement["remark"] else ""
    return f"{fits}{where}{left_out}{remark}"


_STAGE_COLUMNS = (
    Column("Stage", is_number=True), Column("Layers", is_number=True), Column("Ranks"), Column("GPUs"),
    *(Column(name, is_number=True) for name in ("Weights", "per rank", "other", "KV cache", "budget")),
)  # fmt: skip


def _memory(console: Console, part: Part) -> None:
    if not part.memory.get("perStage"):
        _line(console, "Memory", UNKNOWN)
        return
    print_table(console, _STAGE_COLUMNS, list(_stages(part)), indent=2)
    if part.memory["kvBytesPerToken"]:
        _line(console, "KV cache", _cache(part.memory))


def _stages(part: Part) -> Iterator[list[str | Text]]:
    """Layers, ranks and weights of each stage; in red where one has too little memory."""
    memory = part.memory
    local = {rank: gpu for rank, (_, gpu) in part.seats().items()}
    groups = {group.stage: group.ranks for group in part.tensor_groups() if group.data == 0}
    for each in memory["perStage"]:
        ranks = groups.get(each["stage"], ())
        rank = next(row for row in memory["perRank"] if row["stage"] == each["stage"])
        style = "red" if rank["headroomBytes"] is not None and rank["headroomBytes"] < 0 else ""
        other = None if rank["overheadBytes"] is None else rank["overheadBytes"] + rank["activationBytes"]
        cells = (
            str(each["stage"]), f"{each['firstLayer']}-{each['lastLayer']}", _group(ranks),
            _group([local[one] for one in ranks]) if ranks and all(one in local for one in ranks) else "-",
            gb(each["weightsBytes"]), gib(rank["weightsBytes"]), _amount(other), _amount(rank["kvCacheBytes"]),
            _amount(rank["budgetBytes"]),
        )  # fmt: skip
        yield [Text(cell, style=style) for cell in cells]


def _amount(size: int | None) -> str:
    return "-" if size is None else gib(size)


def _group(numbers: Sequence[int]) -> str:
    """``0-7``, or ``0,4,8`` where they do not follow each other."""
    if len(numbers) > 1 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return span(numbers).strip("[]")


def _cache(memory: Json) -> str:
    """What the KV cache holds, on the rank with least."""
    at_full = memory["concurrencyAtFullLength"]
    at_once = "" if at_full is None or at_full < 0 else f", {at_full:,.2f} of full length at once"
    return (
        f"{memory['kvTokens']:,} tokens of {memory['kvBytesPerToken'] / KIBI:,.0f} KiB per rank; "
        f"up to {memory['maxModelLenThatFits']:,} in one sequence{at_once}; give or take {gib(memory['uncertaintyBytes'])}"
    )


def _behaviour(console: Console, part: Part) -> None:
    """Performance against objectives, balance, communication, graph; a line each where little is known."""
    section = performance(part)
    tables = [block for block in section.blocks if isinstance(block, content.Table)]
    if not tables:
        _line(console, "Performance", UNKNOWN)
    for each in tables:
        rows = [row for row in each.rows if row[1].tone is not Tone.UNKNOWN or row[3].text]
        _heading(console, f"Performance{_load(part)}")
        _rows(console, each, rows)
    _line(console, "Balance", _balance(part.balance))
    _line(console, "Links", _communication(part.communication))
    _line(console, "Graph", _graph(part.graph))


def _load(part: Part) -> str:
    of = part.performance
    said = [
        f"{number(of['concurrency'])} requests in flight" if figure_of(of.get("concurrency")) else "",
        f"{measured(of['capacityShare'], share).text} of capacity" if figure_of(of.get("capacityShare")) else "",
        f"bound by {of['bound']}" if of.get("bound") else "",
    ]
    text = ", ".join(filter(None, said))
    return f" ({text})" if text else ""


def _balance(of: Json) -> str:
    if not any(value is not None for value in of.values()):
        return UNKNOWN
    seconds = of.get("stageSeconds")
    times = f"stages {', '.join(number(each * 1000) for each in seconds)} ms" if seconds else "time of stages unknown"
    batches = f" at {number(of['microBatches'])} micro-batches" if of.get("microBatches") is not None else ""
    epsilon = measured(of.get("epsilon"), lambda value: f"{value:.3g}").text
    measured_bubble = measured(of.get("bubbleMeasured"), share).text
    return f"{times}; epsilon {epsilon}; bubble {measured(of.get('bubble'), share).text}{batches}, {measured_bubble} as measured"


def _communication(of: Json) -> str:
    if not any(value is not None for value in of.values()):
        return UNKNOWN
    edges = ", ".join(f"{measured(of.get(f'{kind}BytesPerToken'), amount).text} {kind}" for kind in EDGE_TYPES)
    used, time = measured(of.get("linkUtilization"), share).text, measured(of.get("timeShare"), share).text
    shares = f"{used} of the bandwidth, {time} of the time" if of.get("timeShare") is not None else "share of link and time unknown"
    return f"per token {edges}; {shares}"


def _graph(of: Json) -> str:
    nodes, edges = of.get("nodes"), of.get("edges")
    if nodes is None:
        return UNKNOWN
    if edges is None:
        return f"{count(len(nodes), 'rank')}, edges unknown"
    counts = {kind: len(edges.get(kind) or ()) for kind in EDGE_TYPES}
    parts = " + ".join(f"{amount_of:,} {kind}" for kind, amount_of in counts.items() if amount_of)
    return f"{count(len(nodes), 'rank')}, {count(sum(counts.values()), 'edge')}{f': {parts}' if parts else ''}"


def _risks(console: Console, report: Json) -> None:
    if report["risks"]:
        _heading(console, "Risks")
    for each in report["risks"] or ():
        said = f"{each['name']} ({each['likelihood'] or UNKNOWN}): {each['effect'] or UNKNOWN}"
        _text(console, Text(_clean(said)), 4)
        if each["mitigation"]:
            _text(console, Text(_clean(f"-> {each['mitigation']}")), 6)


def _table_of(console: Console, section: content.Section, title: str) -> None:
    """The tables of a section, beneath a heading; nothing where it has none."""
    for block in section.blocks:
        if isinstance(block, content.Table):
            _heading(console, title)
            _rows(console, block, block.rows)


def _rows(console: Console, of: content.Table, rows: Sequence[Sequence[Cell]]) -> None:
    """Without columns in which nothing is said."""
    kept = [at for at in range(len(of.columns)) if any(row[at].text for row in rows)]
    columns = [Column(of.columns[at].name, is_number=of.columns[at].is_number) for at in kept]
    cells = [[Text(printable(row[at].text), style=STYLES[row[at].tone]) for at in kept] for row in rows]
    print_table(console, columns, cells, indent=4)


def _assumptions(console: Console, report: Json) -> None:
    if report["assumptions"]:
        _text(console, Text("Assumed:", style="dim"), 2)
    for each in report["assumptions"] or ():
        _text(console, Text(_clean(f"{each['field']} = {each['value']}: {each['why']}"), style="dim"), 4)


def _heading(console: Console, text: str) -> None:
    _text(console, Text(text, style="bold"), 2)


def _line(console: Console, label: str, text: str) -> None:
    """A label, and what is said beside it; further lines of it stay there."""
    grid = Table.grid(padding=0)
    grid.add_column(min_width=_LABEL, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(label, Text(_clean(text)))
    console.print(Padding(grid, (0, 0, 0, 2), expand=False))


def _text(console: Console, text: Text, indent: int = 0) -> None:
    """Wrapped beside its indentation; words that are longer than a line are broken."""
    text.overflow = "fold"
    console.print(Padding(text, (0, 0, 0, indent), expand=False), highlight=False)


def _clean(text: str) -> str:
    """On one line, and without what would move the cursor."""
    return " ".join(printable(text).split())
