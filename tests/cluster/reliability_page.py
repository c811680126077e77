"""``docs/reliability.md`` from a run's JUnit reports: one row for each fault test.

``python reliability_page.py REPORT.xml... --write docs/reliability.md``; of a test that several reports have, the last counts.
"""

import argparse
import datetime
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

HEAD = """# Reliability

Made by `make faults`: each fault is done to real operators on a real control plane (etcd, kube-apiserver, kube-scheduler,
kube-controller-manager), with one replica or with three behind a balancer that follows `/readyz`. F1 to F52 are faults that
admission controllers of the field met; F53 on is what a cluster goes through in its life, none of which may cost a refusal.
A row that begins with **failed** missed its criterion, one with **missed** a figure of it that its test, on shared cores, holds to a
looser limit. All processes share the cores, the clients that measure among them.
"""
ENDED = {"failure": "**failed**", "error": "**failed**", "skipped": "not run here"}


def rows(reports: Sequence[Path]) -> list[tuple[int, str]]:
    """(number of its first fault, line) of each fault test."""
    found: dict[str, tuple[int, str]] = {}
    suites = (each for report in reports for each in ElementTree.parse(report).getroot().iter("testsuite"))
    for when, case in ((str(suite.get("timestamp"))[:16], each) for suite in suites for each in suite.iter("testcase")):
        said = [(each.get("name"), each.get("value") or "") for each in case.iter("property")]
        columns = dict(said)
        if "faults" not in columns:
            continue
        ended = next((word for tag, word in ENDED.items() if case.find(tag) is not None), "")
        measured = "; ".join(value for name, value in said if name == "measured")
        result = ": ".join(each for each in (ended, measured) if each) or "held"
        test = f"`{str(case.get('classname')).rpartition('.')[2]}::{case.get('name')}`"
        said_first = [columns["faults"].replace(" ", ", "), columns["what"], columns["load"] or "-", columns["criterion"]]
        line = [*said_first, result, when.replace("T", " "), test]
        found[test] = (int(columns["faults"].split()[0][1:]), "| " + " | ".join(each.replace("|", "\\|") for each in line) + " |")
    return sorted(found.values())


def page(reports: Sequence[Path], length: str, note: str = "") -> str:
    """The whole page; ``note``: what else there is to say of this run."""
    where = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, CPython {platform.python_version()}"
    ran = f"Last run: {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {length} forms, {where}."
    head = "| fault | what happens | load | criterion | measured | run began | test |\n|---|---|---|---|---|---|---|"
    return "\n".join([HEAD, " ".join(each for each in (ran, note) if each), "", head, *(line for _, line in rows(reports))]) + "\n"


def main() -> int:
    """Write the page; 1 when the run had no fault test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", type=Path, nargs="+")
    parser.add_argument("--write", type=Path, required=True)
    parser.add_argument("--length", default="long")
    parser.add_argument("--note", default="", help="what else there is to say of this run")
    arguments = parser.parse_args()
    if not rows(arguments.reports):
        print("no report has a fault test", file=sys.stderr)
        return 1
    arguments.write.write_text(page(arguments.reports, arguments.length, arguments.note), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
