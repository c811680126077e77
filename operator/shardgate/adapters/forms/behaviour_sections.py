"""Sections on how it would run: performance, communication, the graph of ranks, the balance of stages."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shardgate.adapters.forms.content import Block, Cell, Note, Section, Tone, facts, table
from shardgate.adapters.forms.figures import amount, figure_of, known, measured, share, single, spread, unknown
from shardgate.adapters.forms.parts import Part
from shardgate.adapters.forms.resource_sections import MOST_ROWS
from shardgate.adapters.performance_report import MOST_EXPERT_EDGES
from shardgate.domain.units import GIGA, number

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of performance: how it is shown, and which objective it is held against."""

    key: str
    name: str
    unit: str = ""
    show: Callable[[float], str] = number
    objective: str = ""
    scale: float = 1.0
    """The objective's number times this is in the figure's unit."""
    is_better_high: bool = True


_OF_PIPELINES = "capacityMeasuredRequestsPerSecond"
MEASURES = (
    Measure("requestsPerSecond", "Requests at the declared traffic", " req/s"),
    Measure("capacityRequestsPerSecond", "Largest rate within the objectives", " req/s", objective="requestsPerSecond"),
    Measure(
        _OF_PIPELINES, "The same with the pipeline loss as measured", " req/s", objective="requestsPerSecond"
    ),
    Measure("outputTokensPerSecond", "Output tokens", " tokens/s"),
    Measure("totalTokensPerSecond", "Tokens in and out", " tokens/s"),
    Measure(
        "timeToFirstTokenMilliseconds", "Time to the first token", " ms",
        objective="timeToFirstTokenMilliseconds", is_better_high=False,
    ),
    Measure(
        "timePerOutputTokenMilliseconds", "Time per output token", " ms",
        objective="timePerOutputTokenMilliseconds", is_better_high=False,
    ),
    Measure("endToEndMilliseconds", "A whole request", " ms"),
    Measure("gpuUtilization", "GPU utilisation (share of time busy)", "", share, objective="gpuUtilizationPercent", scale=0.01),
)  # fmt: skip


def objectives_of(part: Part) -> Json | None:
    """What is to be reached; ``None`` where the report does not say."""
    if "objectives" not in part.declared:
        return None
    return part.declared["objectives"] or {}


def objective_of(part: Part, measure: Measure) -> float | None:
    """In the unit of the figure; ``None`` where there is none, or none that is known."""
    value = (objectives_of(part) or {}).get(measure.objective)
    return None if value is None else value * measure.scale


_DUST = 1e-9
"""Of arithmetic: 70 percent is met by a share of 0.7."""


def result(part: Part, measure: Measure) -> Cell:
    """The figure against its objective; what decides is the verdict."""
    if not measure.objective:
        return Cell("")
    objectives = objectives_of(part)
    if objectives is None:
        return unknown()
    target = objective_of(part, measure)
    if target is None:
        return Cell("")
    found = figure_of(part.performance.get(measure.key))
    if found is None:
        return unknown()
    sign = 1 if measure.is_better_high else -1
    edge = found.low if measure.is_better_high else found.high
    is_met = sign * (found.value - target) >= -_DUST
    by = abs(found.value - target) / target if target else 0
    margin = f", by {share(by)}" if by > _DUST else ""
    if is_met:
        sure = edge is None or sign * (edge - target) >= -_DUST
        return Cell(f"met{margin}" + ("" if sure else ", but not over the whole range"), Tone.GOOD if sure else Tone.WARNING)
    far = found.high if measure.is_better_high else found.low
    may = far is not None and sign * (far - target) >= 0
    return Cell(f"missed{margin}" + (", within the range" if may else ""), Tone.WARNING)


def performance(part: Part) -> Section:
    """Throughput and latency against objectives, with ranges."""
    if not any(value is not None for value in part.performance.values()):
        return Section("performance", _PERFORMANCE, tuple(_nothing_known(part)))
    rows = []
    for measure in MEASURES:
        if measure.key == _OF_PIPELINES and part.strategy.get("pipeline") == 1:
            continue  # the same number once more
        value = part.performance.get(measure.key)
        rows.append((
            measure.name, single(value, measure.show, measure.unit), spread(value, measure.show, measure.unit), _aim(part, measure),
            result(part, measure),
        ))  # fmt: skip
    of = part.performance
    blocks: list[Block] = [
        table("Expected figures against the objectives", ("Figure", "Expected#", "Range#", "Objective#", "Result"), rows),
        facts([
            ("Declared traffic", _traffic(part)),
                ("Figures hold for", _judged_for(of)),
            ("Requests in flight", single(of.get("concurrency"), number)),
                ("Requests in flight at the largest rate", single(of.get("capacityConcurrency"), number)),
            ("Share of its capacity", measured(of.get("capacityShare"), share)),
            ("Bound by", known(of.get("bound"))),
        ]),
    ]  # fmt: skip
    blocks.append(Note("A range holds in about 8 of 10 cases; a finding says so where all of a range misses an objective."))
    if of.get("atCapacity"):
        text = "At capacity: requests that come in bursts wait, and latencies cannot be told."
        blocks.insert(0, Note(text, Tone.WARNING))
    return Section("performance", _PERFORMANCE, tuple(blocks))


def _judged_for(of: Json) -> Cell:
    """What the figures hold for; lengths may be assumed."""
    prompt, output = of.get("promptTokens"), of.get("outputTokens")
    if prompt is None or output is None:
        return unknown()
    product = f" on {of['product']}" if of.get("product") else ""
    return Cell(f"{number(prompt)} prompt and {number(output)} output tokens a request{product}")


_PERFORMANCE = "Performance against objectives"


def _nothing_known(part: Part) -> Iterator[Block]:
    if part.memory.get("outcome") == "doesNotFit":
        yield Note("It would not start here: there is no throughput and no latency to expect.", Tone.BAD)
    yield Note("Every figure is unknown: requests, tokens, time to the first token and for each, GPU utilisation.", Tone.UNKNOWN)
    first = {each.objective: each for each in reversed(MEASURES)}.values()
    aims = [(each.name, _aim(part, each)) for each in reversed(first) if objective_of(part, each) is not None]
    yield facts(
        [
            ("Declared traffic", _traffic(part)),
            *(aims or [("Objectives", unknown() if objectives_of(part) is None else Cell("none"))]),
        ]
    )


def _aim(part: Part, measure: Measure) -> Cell:
    """The objective as it is declared."""
    if not measure.objective:
        return Cell("")
    if objectives_of(part) is None:
        return unknown()
    target = objective_of(part, measure)
    if target is None:
        return Cell("none")
    return Cell(f"{'at least' if measure.is_better_high else 'at most'} {measure.show(target)}{measure.unit}")


def _traffic(part: Part) -> Cell:
    if "traffic" not in part.declared:
        return unknown()
    of = part.declared["traffic"] or {}
    names = {
        "promptTokens": "tokens of a prompt", "outputTokens": "tokens of an answer", "concurrency": "requests in flight",
        "microBatches": "micro-batches",
    }  # fmt: skip
    said = [f"{number(of[key])} {name}" for key, name in names.items() if of.get(key) is not None]
    return Cell(", ".join(said) or "not declared")


def communication(part: Part) -> Section:
    """Bytes of a token over each type of edge; how much of the link and of the time that takes."""
    of = part.communication
    if not any(value is not None for value in of.values()):
        text = "Unknown: the bytes of a token over tensor, pipeline and expert edges, the link's use, the share of time."
        return Section("communication", "Communication", (Note(text, Tone.UNKNOWN),))
    named = (
        ("Tensor (all-reduce within a stage)", "tensorBytesPerToken"), ("Pipeline (from stage to stage)", "pipelineBytesPerToken"),
        ("Expert (dispatch and combine)", "expertBytesPerToken"),
    )  # fmt: skip
    rows = [(name, measured(of.get(key), amount)) for name, key in named]
    return Section(
        "communication", "Communication",
        (
            table("Bytes that one rank sends for each token", ("Edge", "Per token#"), rows),
            facts([
                ("Link between tensor ranks", _link(of)),
                ("Link used, of its bandwidth", measured(of.get("linkUtilization"), share)),
                ("Time spent on communication", measured(of.get("timeShare"), share)),
            ]),
        ),
    )  # fmt: skip


_LINKS = {"scaleUp": "NVLink or its like", "pcie": "PCIe", "network": "the network between nodes"}


def _link(of: Json) -> Cell:
    """``NVLink or its like, 450 GB/s in one direction``."""
    rate = of.get("linkBytesPerSecond")
    if of.get("tensorBytesPerToken") == 0:
        return Cell("none: a stage is one rank")
    if of.get("link") is None or rate is None:
        return unknown()
    return Cell(f"{_LINKS[of['link']]}, {number(rate / GIGA)} GB/s in one direction")


EDGE_TYPES = ("tensor", "pipeline", "expert")


def graph(part: Part) -> Section:
    """Ranks as nodes, typed edges."""
    nodes, edges = part.graph.get("nodes"), part.graph.get("edges")
    title = "Graph of ranks"
    if nodes is None:
        return Section("graph", title, (Note("The graph is unknown.", Tone.UNKNOWN),))
    if edges is None:
        return Section("graph", title, (Note(f"{len(nodes):,} nodes (ranks); the edges are unknown.", Tone.UNKNOWN),))
    counts = {kind: len(edges.get(kind) or ()) for kind in EDGE_TYPES}
    said = " + ".join(f"{_counted(counted)} {kind}" for kind, counted in counts.items() if counted) or "none"
    rows = [(f"{kind.capitalize()}", _counted(counts[kind]), _bytes(edges.get(kind) or ())) for kind in EDGE_TYPES]
    note = (
        f"{len(nodes):,} nodes (ranks) and {sum(counts.values()):,} edges: {said}. A directed multigraph: tensor edges go "
        "both ways, and only the pipeline edges alone have no cycle."
    )
    listed = _edges(edges)
    return Section("graph", title, (Note(note), table("Edges by type", ("Type", "Edges#", "Bytes per token#"), rows), *listed))


def _counted(edges: int) -> str:
    """All of them, or as many as a report has at most."""
    return f"{edges:,}" + (" or more" if edges >= MOST_EXPERT_EDGES else "")


def _bytes(edges: Any) -> Cell:
    sizes = [each["bytesPerToken"] for each in edges]
    if not edges:
        return Cell("no edge")
    if None in sizes:
        return unknown()
    low, high = min(sizes), max(sizes)
    return Cell(f"{amount(low)} each" if low == high else f"{amount(low)} to {amount(high)}")


def _edges(edges: Json) -> Iterator[Block]:
    """Each edge by its ranks, where there are few."""
    lists = {kind: edges.get(kind) or () for kind in EDGE_TYPES}
    if sum(map(len, lists.values())) > MOST_ROWS:
        yield Note("Too many to list here; the forms json and dot have each of them.")
        return
    listed = {kind: ", ".join(f"{each['from']}→{each['to']}" for each in of) for kind, of in lists.items() if of}
    if listed:
        yield facts((f"{kind.capitalize()} edges, rank to rank", Cell(text)) for kind, text in listed.items())


def balance(part: Part) -> Section:
    """How long each stage takes, and what waits for what."""
    of = part.balance
    if not any(value is not None for value in of.values()):
        text = "Unknown: the time of each stage, the imbalance (epsilon), the pipeline bubble, the micro-batches."
        return Section("balance", "Load balance", (Note(text, Tone.UNKNOWN),))
    seconds = of.get("stageSeconds")
    blocks: list[Block] = []
    if seconds:
        mean = sum(seconds) / len(seconds)
        rows = [
            (f"Stage {at}", f"{number(each * 1000)} ms", share(each / mean - 1) if mean else "0 %")
            for at, each in enumerate(seconds[:MOST_ROWS])
        ]
        blocks.append(table("Time of each stage", ("Stage", "Time#", "Above the mean#"), rows))
        if len(seconds) > MOST_ROWS:
            blocks.append(Note(f"And {len(seconds) - MOST_ROWS:,} more, not shown."))
    batches = of.get("microBatches")
    bubble = measured(of.get("bubble"), share)
    at_batches = f" at {number(batches)} micro-batches" if batches is not None and bubble.tone is not Tone.UNKNOWN else ""
    blocks.append(
        facts([
            *(() if seconds else [("Time of each stage", unknown())]),
            ("Imbalance (epsilon: the slowest stage above the mean)", measured(of.get("epsilon"), _epsilon)),
            ("Pipeline bubble, by the declared micro-batches", Cell(bubble.text + at_batches, bubble.tone)),
            ("Pipeline bubble, as measured on engines", measured(of.get("bubbleMeasured"), share)),
            ("Micro-batches", single(batches, number)),
        ])
    )  # fmt: skip
    return Section("balance", "Load balance", tuple(blocks))


def _epsilon(value: float) -> str:
    return f"{value:.3g}"
