"""Reports of ``shardgate verify -o jsonl`` on standard input -> Markdown for a pull request. Python's standard library only."""

import json
import sys
from collections.abc import Iterable
from typing import Any

_MARKS = {"Sound": "✅", "Wasteful": "✅", "Risky": "⚠️", "Waiting": "⏳", "Undecided": "❔", "Unsound": "❌"}
MOST_CHARACTERS = 60_000
"""A comment on a pull request holds about 65,000."""


def _cell(text: object) -> str:
    """What stands in a table's cell, and cannot break out of it: manifests of pull requests are anybody's."""
    shown = " ".join(str(text).split()).replace("\\", "\\\\")
    for character in "<>@":
        shown = shown.replace(character, f"&#{ord(character)};")
    for character in "`|[]*_":
        shown = shown.replace(character, f"\\{character}")
    return shown.replace("://", ":&#47;/")  # a bare address would become a link


def markdown(reports: Iterable[dict[str, Any]]) -> str:
    """A table of all declarations, then what was found of each that is not sound."""
    every = list(reports)
    if not every:
        return "### Shardgate\n\nNo declaration of an LLM deployment was found.\n"
    lines = ["### Shardgate", "", "| | declaration | outcome | strategy | GPUs |", "|---|---|---|---|---|"]
    for each in every:
        strategy, gpus = _declared(each.get("declared"))
        mark = _MARKS.get(each["outcome"], "")
        lines.append(f"| {mark} | {_cell(_name(each))} | {_cell(each['outcome'])} | {_cell(strategy)} | {_cell(gpus)} |")
    for each in (one for one in every if one["findings"]):
        lines += ["", f"#### {_cell(_name(each))}", ""]
        for finding in each["findings"]:
            lines.append(f"- **{_cell(finding['code'])}** {_cell(finding['where'])}: {_cell(finding['message'])}")
            if finding["remedy"]:
                lines.append(f"  - {_cell(finding['remedy'])}")
    text = "\n".join(lines) + "\n"
    return (
        text
        if len(text) <= MOST_CHARACTERS
        else text[:MOST_CHARACTERS].rsplit("\n", 1)[0] + "\n\n(cut here: the log has the rest)\n"
    )


def _name(report: dict[str, Any]) -> str:
    subject = report["subject"]
    return f"{subject['kind']} {subject['namespace']}/{subject['name']}"


def _declared(declared: dict[str, Any] | None) -> tuple[str, str]:
    if declared is None:
        return "not read", ""
    strategy = declared["strategy"]
    widths = f"TP{strategy['tensor']} x PP{strategy['pipeline']} x DP{strategy['data']}" if strategy else "not read"
    return widths, "" if declared["gpusTotal"] is None else str(declared["gpusTotal"])


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # a text stream
    sys.stdout.write(markdown(json.loads(line) for line in sys.stdin if line.strip()))
