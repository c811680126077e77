"""A plan as people read it in a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from shardgate.adapters.forms.figures import figure_of
from shardgate.domain.units import count, gib, number
from shardgate.shells.tables import Column, print_table

Json = Mapping[str, Any]

_MET = {True: "met", False: "missed", None: "none set"}
MOST_PRODUCTS = 12
"""Of the list by product; JSON has all."""


def print_plan(console: Console, document: Json) -> None:
    """The options, best first, then the hardware that it would need."""
    declared, options = document["declared"], document["options"]
    console.print(f"[bold]{escape(declared['model'])}[/]  on {escape(declared['engine'] or 'an unnamed engine')}", highlight=False)
    if document["problem"]:
        console.print(f"  {escape(document['problem'])}", highlight=False, soft_wrap=True)
        console.print(f"  -> {escape(document['remedy'])}", highlight=False, soft_wrap=True)
        return
    if not options:
        console.print("  [red bold]nothing fits[/] what is free here now", highlight=False)
        for each in document["findings"]:
            console.print(f"  {each['code']}: {escape(each['message'])}", highlight=False, soft_wrap=True)
    else:
        numbers = ("GPUs", "Requests/s", "per GPU", "First token ms", "Per token ms", "Score")
        print_table(
            console,
            [Column("", is_number=True), *(Column(each) for each in ("Strategy", "Weights", "Product")),
             *(Column(each, is_number=True) for each in numbers), Column("Objectives")],
            [_row(each) for each in options],
            indent=2,
        )  # fmt: skip
    aims = any(value is not None for value in declared["objectives"].values())
    _print_needs(console, document["needs"], aims=aims)


def _row(option: Json) -> list[str]:
    figures = option["performance"]
    replicas = "" if option["replicas"] == 1 else f"{option['replicas']} x "
    length = f" (up to {option['shortenedTo']} tokens)" if option["shortenedTo"] else ""
    per_gpu = option["requestsPerSecondPerGpu"]
    return [
        str(option["place"]), f"{replicas}{option['strategy']}{length}", f"{option['weights']}, {option['model']}",
        option["product"] or "unknown", str(option["gpus"]), _ranged(figures["capacityRequestsPerSecond"]),
        "unknown" if per_gpu is None else number(per_gpu), _ranged(figures["timeToFirstTokenMilliseconds"]),
        _ranged(figures["timePerOutputTokenMilliseconds"]), "unknown" if option["score"] is None else str(option["score"]),
        _MET[option["meetsObjectives"]],
    ]  # fmt: skip


def _ranged(value: Any) -> str:
    figure = figure_of(value)
    if figure is None:
        return "unknown"
    if figure.low is None or figure.high is None:
        return number(figure.value)
    return f"{number(figure.value)} ({number(figure.low)} to {number(figure.high)})"


def _print_needs(console: Console, needs: Json, *, aims: bool) -> None:
    console.print()
    for name, text in (("minimum", "The least memory in all"), ("recommended", "Recommended")):
        found = needs[name]
        if found is None:
            console.print(f"  {text}: no accepted product that is known here", highlight=False)
            continue
        rate = f", {_ranged(found['requestsPerSecond'])} requests/s" if found["requestsPerSecond"] else ""
        replicas = "" if found["replicas"] == 1 else f"{count(found['replicas'], 'replica')} of "
        told = f"{found['what']} ({gib(found['memoryBytes'])} each): {replicas}{found['strategy']} in {found['weights']}{rate}"
        console.print(f"  {text}: {escape(told)}", highlight=False, soft_wrap=True)
    products = needs["byProduct"]
    if not products:
        return
    console.print()
    print_table(
        console,
        [Column("Product"), Column("Memory", is_number=True), Column("Fits from"),
         *([Column("Meets the objectives from")] if aims else ())],
        [
            [
                each["product"], gib(each["memoryBytes"]), _from(each["fits"]),
                *([_from(each["meetsObjectives"])] if aims else ()),
            ]
            for each in products[:MOST_PRODUCTS]
        ],
        indent=2,
    )  # fmt: skip
    if len(products) > MOST_PRODUCTS:
        console.print(f"  and {len(products) - MOST_PRODUCTS} more products: -o json has all", highlight=False)


def _from(need: Json | None) -> str:
    return "nothing up to 64 GPUs" if need is None else f"{count(need['gpus'], 'GPU')}, {need['strategy']}"
