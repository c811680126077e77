"""The kept reports of both references: that the tool says the same today, and what must be in them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from case_files import FOLDER
from golden_reports import NAMES, golden, rendered

ROOT = Path(__file__).resolve().parents[2]

SECTIONS = (
    "Summary", "Hardware", "Memory", "Strategy requirements", "Performance against objectives", "Module division",
    "Communication", "Graph of ranks", "Load balance", "Risks", "Recommendations", "Alternatives", "Score", "Assumptions",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_tool_says_what_is_kept(name: str) -> None:
    kept = golden(name).read_text(encoding="utf-8")
    assert rendered(name) == kept, "run `make generate`, read the difference, and see docs/reference-reports.md for what it says"


@pytest.mark.parametrize("name", NAMES)
def test_every_section_of_the_reference_reports_is_there(name: str) -> None:
    headings = [
        line.removeprefix("## ") for line in golden(name).read_text(encoding="utf-8").splitlines() if line.startswith("## ")
    ]
    assert [each for each in headings if each in SECTIONS] == list(SECTIONS)


@pytest.mark.parametrize(("name", "heading"), list(zip(NAMES, ("## Compatible", "## Incompatible"), strict=True)))
def test_the_page_of_differences_has_the_figures_of_the_reports(name: str, heading: str) -> None:
    """Every fraction that the page gives as Shardgate's word."""
    report = golden(name).read_text(encoding="utf-8")
    page = (ROOT / "docs/reference-reports.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.split(heading)[1].split("\n## ")[0].splitlines() if line.startswith("| ")]
    said = {number for row in rows for number in re.findall(r"\b\d[\d,]*\.\d+\b", row[2])}
    assert len(said) >= 10
    assert {each for each in said if not re.search(rf"(?<![\d.,]){re.escape(each)}(?!\d)", report)} == set()


def test_what_is_printed_depends_on_no_hash_seed() -> None:
    """In a process of its own, with another order of sets than this one's."""
    case = FOLDER / "reference-compatible"
    command = [sys.executable, "-m", "shardgate", "verify", "-f", str(case / "workload.yaml")]
    command += ["--cluster", str(case / "nodes.yaml"), "-o", "markdown"]
    shown = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "4242"}, capture_output=True, text=True, check=True)
    assert shown.stdout == golden("reference-compatible").read_text(encoding="utf-8")
