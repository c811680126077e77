"""What commands answer, as people read it in a terminal; the report itself: ``report_terminal.py``."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from shardgate.adapters.checkup.check import State
from shardgate.domain.units import count
from shardgate.shells.doctor import Checkup
from shardgate.shells.report_terminal import print_findings, print_report, style_of
from shardgate.shells.server_verdicts import ServerVerdict
from shardgate.shells.tables import Column, print_table


def print_server_verdict(console: Console, verdict: ServerVerdict) -> None:
    """What the API server answered to a dry run."""
    subject = verdict.subject
    name = f"{subject['kind']} {subject['namespace']}/{subject['name']}"
    console.print(f"[bold]{escape(name)}[/]", highlight=False)
    if verdict.message:
        word = "[red bold]refused[/]" if verdict.refused else "[magenta bold]not judged[/]"
        console.print(f"  {word}  {escape(verdict.message)}", highlight=False)
    else:
        style = style_of(verdict.outcome) or "green"
        codes = escape(", ".join(verdict.findings))
        console.print(f"  [{style} bold]{verdict.outcome or 'let in'}[/]  {codes}".rstrip(), highlight=False)
    for each in verdict.warnings:
        console.print(f"  warning: {escape(each)}", highlight=False)
    console.print()


_STATES = {State.OK: "green", State.UNKNOWN: "magenta", State.WARNING: "yellow", State.FAILED: "red bold"}
_HEALTH = {True: "[green bold]healthy[/]", False: "[red bold]unhealthy[/]", None: "[magenta bold]could not be told[/]"}


def print_checkup(console: Console, checkup: Checkup) -> None:
    """A line a check, what to do beneath those that are not well, and the whole."""
    for each in checkup.checks:
        word = f"[{_STATES[each.state]}]{each.state.value:<8}[/]"
        console.print(f"{word} {each.name:<19} {escape(each.message)}", highlight=False, soft_wrap=True)
        if each.repair and each.state is not State.OK:
            console.print(f"{'':<28} -> {escape(each.repair)}", highlight=False, soft_wrap=True)
    counts = ", ".join(f"{number} {state}" for state, number in checkup.json()["counts"].items() if number)
    console.print(f"\n{_HEALTH[checkup.healthy]}: {counts}", highlight=False)


def print_accuracy(console: Console, document: Mapping[str, Any]) -> None:
    """How well memory was predicted here."""
    if not document["accuracy"]:
        console.print("No engine was compared yet: set prometheusUrl to a Prometheus that scrapes them (docs/calibration.md).")
        return
    columns = ("Engine", "GPU", "Engines", "p90 error", "Predicted", "Measured", "Memory")
    rows: list[list[str | Text]] = []
    for each in document["accuracy"]:
        word = Text("may refuse") if each["mayRefuse"] else Text("refuses nothing", style="red")
        figures = (f"{each['p90Error']:.1%}", f"{each['predictedTokens']:,}", f"{each['measuredTokens']:,}")
        rows.append([each["engineVersion"], each["product"], str(each["engines"]), *figures, word])
    print_table(console, [Column(name, is_number=name not in ("Engine", "GPU", "Memory")) for name in columns], rows)


def print_explanation(console: Console, answer: Mapping[str, Any]) -> None:
    """Why a live object runs or does not, and what says so."""
    subject = answer["subject"]
    name = f"{subject['kind']} {subject['namespace']}/{subject['name']}"
    style = "green" if answer["cause"] == "Runs" else "red"
    console.print(f"[bold]{escape(name)}[/]  [{style} bold]{answer['cause']}[/]", highlight=False)
    console.print(f"  {escape(answer['answer'])}", highlight=False, soft_wrap=True)
    console.print()
    for each in answer["evidence"]:
        console.print(f"  {each['part']:<11}{escape(each['text'])}", highlight=False, soft_wrap=True)
    for each in answer["unread"]:
        console.print(f"  [dim]{each['part']:<11}{escape(each['why'])}[/]", highlight=False, soft_wrap=True)
    console.print()


_ANSWERS = {"allowed": "green", "warned": "yellow", "refused": "red"}


def print_decision(console: Console, decision: Mapping[str, Any]) -> None:
    """A decision that was made at admission, and what comes of judging it again."""
    subject, style = decision["subject"], _ANSWERS.get(decision["answer"], "magenta")
    name = f"{subject['kind']} {subject['namespace']}/{subject['name']}"
    console.print(f"[bold]{escape(name)}[/]  (ref {decision['ref']})", highlight=False)
    dry = " (a dry run)" if decision["dryRun"] else ""
    asked = f"{decision['operation']}{dry} by {decision['requestedBy'] or 'somebody'} at {decision['decidedAt']}"
    console.print(
        f"  [{style} bold]{decision['answer']}[/]  {escape(asked)}, by replica {escape(decision['replica'])}", highlight=False
    )
    for text in decision["said"]:
        for line in text.splitlines():
            console.print(f"  | {escape(line)}", highlight=False, soft_wrap=True)
    replay = decision["replay"]
    if replay is None:
        console.print(f"  [dim]not judged again: {escape(decision['noFacts'] or 'no facts')}[/]", highlight=False, soft_wrap=True)
        print_findings(console, decision)
    else:
        same = (
            "the same answer"
            if replay["agrees"]
            else f"[red bold]another answer[/]: {replay['outcome']} {', '.join(replay['codes'])}"
        )
        console.print(f"  judged again by Shardgate {escape(replay['by'])} by the facts of then: {same}", highlight=False)
    console.print()
    if decision["report"] is not None:
        print_report(console, decision["report"])


def print_capacity(console: Console, document: Mapping[str, Any]) -> None:
    """A row a kind of GPU, then what may come and who waits in words."""
    products = document["products"]
    if not products:
        console.print("No node with GPUs is here, and nothing is known that could bring one.")
        return
    sizes = list(products[0]["placeablePods"])
    counts = ("Nodes", "GPUs", "Free", "Claimed", *(f"Pods of {size}" for size in sizes), "Arriving", "Pending")
    print_table(
        console,
        [Column("Product"), *(Column(name, is_number=True) for name in counts)],
        [
            [
                _kind(each), str(each["nodes"]), str(each["gpusInstalled"]), str(each["gpusFree"]), str(each["gpusClaimed"]),
                *(str(each["placeablePods"][size]) for size in sizes),
                "no bound" if each["arriving"]["gpus"] is None else str(each["arriving"]["gpus"]), str(each["pending"]["gpus"]),
            ]
            for each in products
        ],
    )  # fmt: skip
    for line in _capacity_remarks(document):
        console.print(f"  {escape(line)}", soft_wrap=True)


def _kind(row: Mapping[str, Any]) -> str:
    """``H100-80GB-HBM3``, ``H100-80GB-HBM3 mig-3g.40gb``, ``Tesla-T4 (time-slicing)``."""
    name = row["product"] or row["resource"]
    if row["part"]:
        return f"{name} {row['part']}"
    return name if row["sharing"] == "none" else f"{name} ({row['sharing']})"


def _capacity_remarks(document: Mapping[str, Any]) -> Iterator[str]:
    for each in document["products"]:
        name = _kind(each)
        if each["gpusUnavailable"]:
            yield f"{name}: {count(each['gpusUnavailable'], 'GPU')} registered and not healthy"
        if each["gpusComingFree"]:
            yield f"{name}: {count(each['gpusComingFree'], 'GPU')} held by pods that are terminating"
        for origin in each["arriving"]["from"]:
            nodes = "nodes without a stated bound" if origin["nodes"] is None else count(origin["nodes"], "node")
            gpus = "GPUs not known" if origin["gpus"] is None else count(origin["gpus"], "GPU")
            how = "on the way" if origin["onItsWay"] else "may come"
            delay = f" ({origin['delay']})" if origin["delay"] else ""
            yield f"{name}: {how} by {origin['origin']}: {nodes}, {gpus}{delay}"
    nowhere = document["pending"]["nowhere"]
    if nowhere["pods"]:
        asked = f"{count(nowhere['pods'], 'pending pod')} that ask for {count(nowhere['gpus'], 'GPU')} in all"
        yield f"{asked} could go to none of these, by resource, selector or taint"


MOST_ADDED = 10
"""New nodes that are named one by one."""
_DIRECTIONS = {"worse": "red bold", "better": "green", "other": "yellow"}


def _moves(document: Mapping[str, Any]) -> Iterator[str]:
    """Pods that lose their nodes, and nodes that come."""
    for part, of_one, of_many in (
        ("moved", "loses its node and is made anew", "lose their nodes and are made anew"),
        ("ended", "ends for good: it has no controller", "end for good: they have no controller"),
    ):
        pods, gpus = document[part]["pods"], count(document[part]["gpus"], "GPU")
        if pods:
            yield f"1 pod of {gpus} {of_one}" if pods == 1 else f"{count(pods, 'pod')} of {gpus} in all {of_many}"
    added = document["added"]
    yield from (f"new node {name}" for name in added[:MOST_ADDED])
    if len(added) > MOST_ADDED:
        yield f"and {count(len(added) - MOST_ADDED, 'more new node')}: -o json names all"


def print_what_if(console: Console, document: Mapping[str, Any]) -> None:
    """What would change, the worse first, and what would not."""
    counts = document["declarations"]
    console.print(f"[bold]{escape(document['change'])}[/]", soft_wrap=True)
    for line in _moves(document):
        console.print(f"  {escape(line)}", soft_wrap=True)
    for each in document["changed"]:
        subject, before, after = each["subject"], each["before"], each["after"]
        name = f"{subject['kind']} {subject['namespace']}/{subject['name']}"
        word = f"[{_DIRECTIONS[each['change']]}]{each['change']}[/]"
        change = " -> ".join(f"[{style_of(each['outcome'])}]{each['outcome']}[/]" for each in (before, after))
        console.print(f"\n[bold]{escape(name)}[/]  {word}  {change}", soft_wrap=True)
        for verb, codes in (
            ("no more", [code for code in before["codes"] if code not in after["codes"]]),
            ("new", [code for code in after["codes"] if code not in before["codes"]]),
        ):
            if codes:
                console.print(f"  {verb}: {escape(', '.join(codes))}", soft_wrap=True)
        worst = after["worst"]
        if worst is not None:
            console.print(
                f"  {worst['code']} ({worst['outcome']}) {escape(worst['where'])}: {escape(worst['message'])}", soft_wrap=True
            )
            if worst["remedy"]:
                console.print(f"    -> {escape(worst['remedy'])}", soft_wrap=True)
    others = "".join(f"{counts[direction]} {direction}, " for direction in _DIRECTIONS if counts[direction])
    if document["changed"]:
        console.print()
    console.print(f"{count(counts['judged'], 'standing declaration')}: {others}{counts['unchanged']} unchanged", soft_wrap=True)


def print_code_explanation(console: Console, document: Mapping[str, Any]) -> None:
    """What a code means, the engines' rules behind it, and what helps."""
    style = style_of(document["worst"])
    console.print(
        f"[bold]{document['code']}[/]  class {document['class']}, at worst [{style}]{document['worst']}[/]", soft_wrap=True
    )
    console.print(f"  {escape(document['meaning'])}", soft_wrap=True)
    console.print(f"  -> {escape(document['remedy'])}", soft_wrap=True)
    for each in document["rules"]:
        console.print(f"\n  {each['engine']}, {each['versions']}: {escape(each['message'])}", soft_wrap=True)
        console.print(f"    [dim]{escape(each['source'])}[/]", soft_wrap=True)


def print_nodes(console: Console, nodes: Sequence[Mapping[str, Any]]) -> None:
    """How nodes' GPUs are read; those without any sign of GPUs are counted only."""
    shown = [each for each in nodes if each["vendor"] is not None or each["findings"] or each["gpusSchedulable"]]
    names = ("Node", "GPUs", "schedulable", "Product", "Memory", "of a unit", "Sharing", "NVLink")
    rows = []
    for each in shown:
        unit = each["unitMemoryMib"]
        by_resource = unit if isinstance(unit, dict) else {}
        units = ", ".join(f"{mib:,} ({name.rpartition('/')[2]})" for name, mib in by_resource.items())
        rows.append([
            each["name"], _known(each["gpusPhysical"]), _known(each["gpusSchedulable"]), _known(each["product"]),
            _mib(each["memoryMib"]), units or _mib(unit), _known(each["sharing"]), each["nvlink"]["value"],
        ])  # fmt: skip
    numbers = ("GPUs", "schedulable", "Memory", "of a unit")
    print_table(console, [Column(name, is_number=name in numbers) for name in names], rows)
    for each in shown:
        for finding in each["findings"]:
            code = f"[magenta]{finding['code']}[/]: " if finding["code"] else ""
            console.print(f"  {escape(each['name'])}: {code}{escape(finding['message'])}", highlight=False, soft_wrap=True)
        by_source: dict[str, list[str]] = {}
        for fact, where in each["sources"].items():
            by_source.setdefault(where, []).append(fact)
        told = "; ".join(f"{', '.join(facts)} by {where}" for where, facts in by_source.items())
        if told:
            console.print(f"  [dim]{escape(each['name'])}: {escape(told)}[/]", highlight=False, soft_wrap=True)
    others = len(nodes) - len(shown)
    console.print(f"{count(len(shown), 'node')} with GPUs, {others} without", highlight=False)


def _known(value: object) -> str:
    return "unknown" if value is None else str(value)


def _mib(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,} MiB"
