"""The performance model does not get worse: the aims of docs/performance-accuracy.md, on the services of this repository."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests/accuracy/accuracy.py"
CASES = ROOT / "tests/data/performance_cases.json"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("accuracy")
    copy = folder / "cases.json"
    copy.write_text(CASES.read_text())
    result = run("--performance", copy, "--out", folder / "out.json")
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    found["page"] = result.stdout
    return found


@pytest.mark.parametrize(("figure", "median", "p90", "worst"), [("throughput", 0.12, 0.43, 3.0), ("TPOT", 0.10, 0.36, 4.0)])
def test_core_tier(document: dict[str, Any], figure: str, median: float, p90: float, worst: float) -> None:
    found = document["summary"]["core"][figure]
    assert found["n"] >= 30
    assert (found["median"] <= median, found["p90"] <= p90, found["worstFactor"] <= worst) == (True, True, True), found


@pytest.mark.parametrize(("figure", "width"), [("throughput", 2.0), ("TPOT", 2.0), ("TTFT", 3.4)])
def test_what_was_measured_lies_in_the_range_that_is_told(document: dict[str, Any], figure: str, width: float) -> None:
    """In four of five services, in a range that still says something."""
    found = document["summary"]["core"][figure]
    assert (found["inside"] >= 0.8, found["highOverLow"] <= width) == (True, True), found


def test_the_page_is_the_one_that_is_kept(document: dict[str, Any]) -> None:
    assert (ROOT / "docs/performance-accuracy.md").read_text() == document["page"]


def test_every_outlier_is_explained() -> None:
    assert "not explained yet" not in (ROOT / "docs/performance-accuracy.md").read_text()


def test_what_is_not_told_is_null(document: dict[str, Any]) -> None:
    """Latencies at capacity, and services of unknown models."""
    cases = {each["id"]: each["predicted"] for each in document["cases"]}
    at_capacity = cases["mlperf41-llama2-70b-h200x8-server"]
    assert (at_capacity["tpot_ms"], at_capacity["low"]["ttft_ms"]) == (None, None)
    assert at_capacity["req_s"] > 0
    assert cases["vllm4030-dscoder1.3b-a10g"]["req_s"] is None


def test_cases_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    file, out = tmp_path / "cases.json", tmp_path / "out.json"
    good = json.loads(CASES.read_text())["cases"][1]
    bad = [{**good, "id": "no-gpu", "gpu": "Abacus"}, {**good, "id": "no-load", "load": {"type": "tidal"}}, 7]
    file.write_text(json.dumps([good, *bad]))
    result = run("--performance", file, "--out", out)
    assert result.returncode == 65
    assert "case no-gpu: gpu: Abacus is no product that is known here" in result.stderr
    assert "load.type needs one of offline_max" in result.stderr
    assert "number 4" in result.stderr
    assert [each["predicted"] is not None for each in json.loads(out.read_text())["cases"]] == [True, False, False, False]
