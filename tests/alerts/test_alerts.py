"""promtool runs every alert's cases on the rules as they are shipped.

Cases are one file an alert, in promtool's own form. Their names begin with what they show: fires, does not fire, boundary of for,
missing series (tests/repository/test_monitoring.py asks for all four). Time begins at 0, and `2x3` is four samples.
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from charts import say
from controlplane.tools import find_tool

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "charts/shardgate/files/rules.yaml"
CASES = sorted(Path(__file__).parent.glob("*.yaml"))


@pytest.fixture(scope="module")
def promtool() -> str:
    return str(find_tool("promtool", say))


def run(promtool: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([promtool, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def outcomes(promtool: str, folder: Path, cases: Sequence[Path]) -> dict[str, dict[str, str]]:
    """Alert -> case -> what was found instead of what it says; empty where it passed. One process for all: it starts slowly."""
    report = folder / "report.xml"
    result = run(promtool, "test", "rules", f"--junit={report}", *cases)
    assert report.exists(), result.stdout + result.stderr
    return {
        Path(suite.attrib["name"]).stem: {
            case.attrib["name"]: "\n".join(failure.text or failure.attrib.get("message", "failed") for failure in case)
            for case in suite
        }
        for suite in ET.parse(report).getroot()
    }


@pytest.fixture(scope="module")
def found(promtool: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    return outcomes(promtool, tmp_path_factory.mktemp("cases"), CASES)


@pytest.mark.parametrize("path", [RULES, ROOT / "deploy/monitoring/rules.yaml"], ids=["chart", "plain"])
def test_the_rules_are_rules(promtool: str, path: Path) -> None:
    result = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_sample_configuration_is_one(promtool: str) -> None:
    result = run(promtool, "check", "config", "--syntax-only", ROOT / "deploy/monitoring/prometheus.yml")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "is valid" in result.stdout


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_an_alert_does_what_its_cases_say(found: dict[str, dict[str, str]], path: Path) -> None:
    names = [each["name"] for each in yaml.safe_load(path.read_text())["tests"]]
    assert found[path.stem] == dict.fromkeys(names, "")


@pytest.mark.parametrize("minutes", [-1, 1])
def test_the_boundary_cases_notice_a_minute(promtool: str, tmp_path: Path, minutes: int) -> None:
    """Cases that pass whatever the rule says would be none: with each `for` a minute off, every alert's cases fail."""
    document: dict[str, Any] = yaml.safe_load(RULES.read_text())
    for group in document["groups"]:
        for rule in group["rules"]:
            number, unit = re.fullmatch(r"(\d+)([mh])", rule["for"]).groups()  # type: ignore[union-attr]  # then the test fails
            rule["for"] = f"{int(number) * {'m': 1, 'h': 60}[unit] + minutes}m"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(document))
    copies = []
    for path in CASES:
        cases = yaml.safe_load(path.read_text())
        cases["rule_files"] = ["rules.yaml"]
        cases["tests"] = [each for each in cases["tests"] if each["name"].startswith("boundary of for")]
        copies.append(tmp_path / path.name)
        copies[-1].write_text(yaml.safe_dump(cases))
    changed = outcomes(promtool, tmp_path, copies)
    assert set(changed) == {path.stem for path in CASES}
    assert [alert for alert, cases in changed.items() if not any(cases.values())] == []
