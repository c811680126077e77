"""Sections on what is needed and what is here: hardware, memory, strategy, who holds which layers."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from shardgate.adapters.forms.content import Block, Cell, Facts, Items, Note, Section, Tone, facts, table
from shardgate.adapters.forms.figures import UNKNOWN, amount, known, share, single, span, unknown, widths
from shardgate.adapters.forms.parts import Part
from shardgate.domain.units import ago, count, gb, gib, number

Json = Mapping[str, Any]

MOST_ROWS = 64
"""Of a table; what is beyond is counted."""
_MOST_NAMES = 8
_MOST_GROUPS = 32
_MEMORY_OUTCOMES = {
    "fits": Cell("fits", Tone.GOOD),
    "tight": Cell("too close to tell", Tone.UNKNOWN),
    "doesNotFit": Cell("does not fit", Tone.BAD),
}


def hardware(report: Json, parts: Sequence[Part]) -> Section:
    """What is needed against what was found."""
    found = report["hardware"] or {}
    blocks: list[Block] = [table("Needed against found", ("What", "Needed#", "Found#", "Result"), _needs(found, parts))]
    products = found.get("products")
    if products:
        rows = [
            (each["product"], number(each["gpus"]), number(each["nodes"]), _gib(each["memoryBytes"]))
            for each in products[:MOST_ROWS]
        ]
        blocks.append(table("GPUs that it accepts", ("Product", "GPUs#", "Nodes#", "Memory of a GPU#"), rows))
        blocks += _rest(products)
    elif products is not None:
        blocks.append(Note("The cluster has no GPUs that it accepts.", Tone.BAD))
    blocks.append(facts(_where(report, found)))
    return Section("hardware", "Hardware", tuple(blocks))


def _where(report: Json, found: Json) -> Iterator[tuple[str, Cell]]:
    placement = report["placement"] or {}
    feasible, idle = placement.get("feasible"), placement.get("feasibleWhenIdle")
    yield "Places now", _yes_or_no(feasible, "every pod has a place now", "not every pod has a place now")
    yield (
        "Places when idle",
        _yes_or_no(idle, "with nothing else running, every pod has a place", "not even with nothing else running"),
    )
    yield "Replicas that fit now", known(placement.get("replicasThatFit"))
    if placement.get("remark"):
        yield "Remark", Cell(str(placement["remark"]))
    for each in placement.get("excluded") or ():
        yield "Nodes left out", Cell(f"{each['count']} {each['reason']}{_named(each['nodes'])}")
    age = found.get("inventoryAgeSeconds")
    yield "Inventory read", unknown() if age is None else Cell("now" if age < 1 else ago(age))


def _yes_or_no(value: bool | None, yes: str, no: str) -> Cell:  # noqa: FBT001  # three states, from the document
    return unknown() if value is None else Cell(yes, Tone.GOOD) if value else Cell(no, Tone.WARNING)


def _named(nodes: Sequence[str]) -> str:
    shown = ", ".join(nodes[:_MOST_NAMES])
    more = f" and {len(nodes) - _MOST_NAMES:,} more" if len(nodes) > _MOST_NAMES else ""
    return f" ({shown}{more})" if nodes else ""


def _needs(found: Json, parts: Sequence[Part]) -> Iterator[tuple[Cell | str, ...]]:
    totals = [part.declared.get("gpusTotal") for part in parts]
    needed = None if None in totals else sum(totals)  # type: ignore[arg-type]  # none is None
    yield _need("GPUs", needed, found.get("gpusInstalled"), number)
    yield _need("GPUs free now", needed, found.get("gpusFree"), number)
    for part in parts:
        of = f", {part.role}" if part.role else ""
        rank = fullest(part)
        base = rank_base(rank)
        yield _need(f"Memory of a rank before KV cache{of}", base, rank.get("budgetBytes"), gib)
        yield _need(
            f"Memory for the model's weights{of}", part.memory.get("weightsBytes"), found.get("memoryInstalledBytes"), amount
        )


def _need(what: str, needed: float | None, found: float | None, show: Any) -> tuple[Cell | str, ...]:  # how to show it
    cells = [unknown() if each is None else Cell(show(each)) for each in (needed, found)]
    if needed is None or found is None:
        return what, *cells, unknown()
    if needed <= found:
        return what, *cells, Cell("enough", Tone.GOOD)
    excess = excess_of(needed, found) if show is not number else shortfall(needed, found)
    return what, *cells, Cell(f"short by {show(needed - found)}, {excess}", Tone.BAD)


def shortfall(needed: float, found: float) -> str:
    """``8, 1`` -> ``87.5 % of what is needed``."""
    return f"{share((needed - found) / needed)} of what is needed"


def excess_of(needed: float, found: float) -> str:
    """``131.4, 14.8`` -> ``8.9 times what is here (791 % over)``; the ratio is not the excess."""
    if found <= 0:
        return "nothing is here"
    return f"{number(round(needed / found, 1))} times what is here ({(needed - found) / found:.0%} over)".replace("%", " %")


def fullest(part: Part) -> Json:
    """The rank with the least left; any where that is unknown."""
    ranks = part.memory.get("perRank") or [{}]
    return min(
        ranks, key=lambda rank: _least(rank.get("headroomBytes"), rank.get("kvCacheBytes"), -(rank.get("weightsBytes") or 0))
    )


def _least(*amounts: int | None) -> float:
    return next((each for each in amounts if each is not None), 0)


def rank_base(rank: Json) -> int | None:
    """What a rank takes before its KV cache; ``None`` where a part of it is unknown."""
    shares = [rank.get(key) for key in ("weightsBytes", "activationBytes", "overheadBytes")]
    return None if None in shares else sum(shares)  # type: ignore[arg-type]  # none is None


def _gib(value: int | None) -> Cell:
    return unknown() if value is None else Cell(gib(value), Tone.BAD if value < 0 else Tone.PLAIN)


def memory(part: Part) -> Section:
    """The model, a stage, a rank."""
    of = part.memory
    outcome = of.get("outcome")
    blocks: list[Block] = [facts(_model(part, outcome)), *_stages(part), *_ranks(part), _cache(of)]
    return Section("memory", "Memory", tuple(blocks))


def _model(part: Part, outcome: str | None) -> Iterator[tuple[str, Cell]]:
    of = part.memory
    yield "Outcome", _MEMORY_OUTCOMES.get(outcome or "", unknown())
    parameters = of.get("parameters")
    yield "Parameters", unknown() if parameters is None else Cell(f"{parameters:,} ({parameters / 1e9:.1f} billion)")
    weights = of.get("weightsBytes")
    name = f", as {part.declared['weights']}" if part.declared.get("weights") else ""
    yield "Weights", unknown() if weights is None else Cell(f"{gb(weights)} ({gib(weights)}){name}")
    stages, ranks = ([each["weightsBytes"] for each in of.get(key) or ()] for key in ("perStage", "perRank"))
    if len(stages) > 1:
        yield "Weights of a stage, over all of its ranks", Cell(f"{gb(sum(stages) // len(stages))} in the mean")
    if len(ranks) > 1:
        yield "Weights of a rank, which is one GPU", _between(min(ranks), max(ranks))
    deficit = of.get("deficitBytes")
    shown = Cell("none", Tone.GOOD) if deficit == 0 else _gib(deficit)
    yield "Deficit of the fullest rank", Cell(shown.text, Tone.BAD) if deficit else shown


def _between(low: int, high: int) -> Cell:
    """``17.1 to 18.2 GB (15.9 to 16.9 GiB)``."""
    if gb(low) == gb(high):
        return Cell(f"{gb(low)} ({gib(low)})")
    return Cell(f"{gb(low).removesuffix(' GB')} to {gb(high)} ({gib(low).removesuffix(' GiB')} to {gib(high)})")


def _stages(part: Part) -> Iterator[Block]:
    stages = part.memory.get("perStage")
    if not stages:
        yield Note("What each stage holds is unknown.", Tone.UNKNOWN)
        return
    rows = [
        (
            f"Stage {each['stage']}", f"{each['firstLayer']}-{each['lastLayer']}",
            number(each["lastLayer"] - each["firstLayer"] + 1), gb(each["weightsBytes"]), gib(each["weightsBytes"]),
        )
        for each in stages[:MOST_ROWS]
    ]  # fmt: skip
    yield table(
        "Weights of each stage, over all of its ranks", ("Stage", "Layers#", "Number of layers#", "Weights#", "In GiB#"), rows
    )
    yield from _rest(stages)


def _ranks(part: Part) -> Iterator[Block]:
    """One row for neighbours that hold the same."""
    ranks = part.memory.get("perRank")
    if not ranks:
        yield Note("What each rank holds is unknown.", Tone.UNKNOWN)
        return
    keys = ("weightsBytes", "activationBytes", "overheadBytes", "kvCacheBytes", "budgetBytes", "headroomBytes")
    numbers = {(group.stage, at): rank for group in part.tensor_groups() if group.data == 0 for at, rank in enumerate(group.ranks)}
    rows: list[tuple[Cell | str, ...]] = []
    for (stage, values), alike in groupby(ranks, key=lambda rank: (rank["stage"], tuple(rank[key] for key in keys))):
        members = [rank["tensor"] for rank in alike]
        of = [numbers[stage, at] for at in members if (stage, at) in numbers]
        rows.append((f"Stage {stage}", span(of) if of else f"tensor {span(members)}", *map(_gib, values)))
    columns = ("Stage", "Ranks", "Weights#", "Activations#", "Engine#", "KV cache#", "Budget#", "Headroom#")
    data = part.strategy.get("data") or 1
    alike_text = (
        f"; the other {count(data - 1, 'data replica')} alike" if data > 1 and not part.strategy.get("attentionData") else ""
    )
    yield table(f"Memory of one rank, which is one GPU{alike_text}", columns, rows[:MOST_ROWS])
    yield from _rest(rows)


def _cache(of: Json) -> Facts:
    per_token, give = of.get("kvBytesPerToken"), of.get("uncertaintyBytes")
    at_once = of.get("concurrencyAtFullLength")
    return facts([
        ("KV cache of a token, fullest rank", unknown() if per_token is None else Cell(amount(per_token))),
        ("Tokens that the KV cache holds", single(of.get("kvTokens"), number)),
        ("Longest sequence that fits", single(of.get("maxModelLenThatFits"), number, " tokens")),
        ("Sequences of full length at once", Cell("none", Tone.BAD) if (at_once or 0) < 0 else single(at_once, number)),
        ("Uncertainty of these figures", unknown() if give is None else Cell(f"give or take {gib(give)}")),
    ])  # fmt: skip


def _rest(rows: Sequence[object], most: int = MOST_ROWS) -> Iterator[Note]:
    if len(rows) > most:
        yield Note(f"And {len(rows) - most:,} more, not shown.")


def strategy(report: Json, part: Part) -> Section:
    """How many GPUs the widths need."""
    of, declared = part.strategy, part.declared
    if not of:
        return Section("strategy", "Strategy requirements", (Note("The strategy is unknown.", Tone.UNKNOWN),))
    replicas, each = declared.get("replicas"), declared.get("gpusPerReplica")
    installed = (report["hardware"] or {}).get("gpusInstalled")
    data = (
        Cell("no further GPUs: attention replicas share the tensor group")
        if of.get("attentionData")
        else Cell(f"{count(of['data'], 'copy', 'copies')} of all stages")
    )
    rows: list[tuple[Cell | str, ...]] = [
        ("Tensor (TP)", number(of["tensor"]), f"{count(of['tensor'], 'GPU')} for each stage"),
        ("Pipeline (PP)", number(of["pipeline"]), f"{count(of['pipeline'], 'stage')}, each with GPUs of its own"),
        ("Data (DP)", number(of["data"]), data),
        ("Expert (EP)", _experts(of), "re-uses the same ranks"),
    ]
    if (of.get("prefillContext") or 1) > 1:
        rows.append(("Prefill context (PCP)", number(of["prefillContext"]), f"{of['prefillContext']} x as many"))
    if (of.get("decodeContext") or 1) > 1:
        rows.append(("Decode context (DCP)", number(of["decodeContext"]), "re-uses the tensor ranks"))
    return Section(
        "strategy", "Strategy requirements",
        (
            table(f"The declared strategy: {widths(of)}", ("Dimension", "Width#", "Needs"), rows),
            facts([
                ("GPUs of one replica", Cell(UNKNOWN, Tone.UNKNOWN) if each is None else Cell(f"{product(of)} = {each}")),
                ("GPUs in all", known(declared.get("gpusTotal"))),
                ("Replicas", known(replicas)),
                ("Pods", _pods(declared)),
                ("Found", _found(declared.get("gpusTotal"), installed)),
            ]),
        ),
    )  # fmt: skip


def product(of: Json) -> str:
    """``2 x 4 x 1``: the widths that need GPUs of their own."""
    factors = [of["tensor"], of["pipeline"], *([of["prefillContext"]] if (of.get("prefillContext") or 1) > 1 else [])]
    if not of.get("attentionData") and of.get("loadBalancing") != "external":
        factors.append(of["data"])
    return " x ".join(map(str, factors))


def _experts(of: Json) -> Cell | str:
    if of.get("expert"):
        return number(of["expert"])
    return Cell("over TP x DP") if of.get("expertParallel") else Cell("not split")


def _pods(declared: Json) -> Cell:
    each, pods = declared.get("gpusPerPod") or {}, declared.get("podsPerReplica")
    sizes = [f"{gpus} ({role})" if len(each) > 1 else str(gpus) for role, gpus in each.items() if gpus is not None]
    if pods is None or not sizes:
        return unknown()
    return Cell(f"{count(pods, 'pod')} per replica, of {', '.join(sizes)} GPU{'' if sizes == ['1'] else 's'}")


def _found(needed: int | None, installed: int | None) -> Cell:
    if needed is None or installed is None:
        return unknown()
    if installed >= needed:
        return Cell(f"{installed:,} GPU{'' if installed == 1 else 's'}", Tone.GOOD)
    return Cell(f"{count(installed, 'GPU')}: short by {needed - installed}, {shortfall(needed, installed)}", Tone.BAD)


def modules(part: Part) -> Section:
    """Which GPUs hold which layers: ``TP group 0: GPUs [0,1] - stage 0 (layers 0-19)``."""
    title, groups = "Module division", part.widths_of_tensor()
    if not groups:
        return Section("modules", title, (Note("Which rank holds which layers is unknown.", Tone.UNKNOWN),))
    seats, layers = part.seats(), part.layers()
    nodes = sorted({node for node, _ in seats.values()})
    many = len({group.data for group in groups}) > 1
    lines = []
    for at, group in enumerate(groups[:_MOST_GROUPS]):
        held = layers.get(group.stage)
        text = "layers unknown" if held is None else f"layers {held[0]}-{held[1]}"
        of = f", data replica {group.data}" if many else ""
        lines.append(Cell(f"TP group {at}: {_gpus(group.ranks, seats, len(nodes))} - stage {group.stage} ({text}){of}"))
    blocks: list[Block] = [Items(tuple(lines)), *_rest(groups, _MOST_GROUPS)]
    replicas = part.declared.get("replicas") or 1
    if replicas > 1:
        blocks.append(Note(f"Of the first of {replicas:,} replicas; the others are divided alike."))
    where = f" Node: {nodes[0]}." if len(nodes) == 1 and nodes[0] else ""
    said = f"GPUs by their local index on a node, in a placement that holds now; the scheduler and the kubelet choose.{where}"
    blocks.append(Note(said) if seats else Note("No placement holds now, so the ranks have no GPU yet.", Tone.WARNING))
    return Section("modules", title, tuple(blocks))


def _gpus(ranks: Sequence[int], seats: Mapping[int, tuple[str, int]], nodes: int) -> str:
    """``GPUs [0,1]``, with the node where there are several; the ranks where they have no place."""
    if not all(rank in seats for rank in ranks):
        return f"ranks {span(ranks)}"
    found: dict[str, list[int]] = {}
    for rank in ranks:
        node, gpu = seats[rank]
        found.setdefault(node, []).append(gpu)
    return " and ".join(f"GPUs {span(gpus)}" + (f" of {node}" if node and nodes > 1 else "") for node, gpus in found.items())
