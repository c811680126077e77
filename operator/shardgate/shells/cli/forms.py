"""JSON as every command prints it, and what it says of what it could not read."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import rich_click as click

from shardgate.shells.documents import Unreadable


def print_json(documents: Sequence[Mapping[str, Any]], output: str) -> bool:
    """In one of the forms of JSON; whether it was one. ``json``: one document by itself, several as an array."""
    if output == "json":
        click.echo(json.dumps(documents[0] if len(documents) == 1 else documents, indent=2))
    elif output == "jsonl":
        for each in documents:
            click.echo(json.dumps(each))
    return output in ("json", "jsonl")


def print_unreadable(unreadable: Iterable[Unreadable]) -> None:
    """A line each, on standard error."""
    for each in unreadable:
        click.echo(f"error: {each}", err=True)
