"""``make accuracy``: predictions against launches and services that were measured.

Without arguments: the cases of this repository, into ``docs/accuracy.md`` (memory) and ``docs/performance-accuracy.md``.
With ``--memory FILE`` or ``--performance FILE``: those of another file of the same form, its summary to standard output, and
with ``--out`` every prediction as JSON. With ``--manifests DIR``: extraction compared with a folder of manifests and its
``truth.json``, into the first page. Exit code: 0 whatever the errors, 65 for a file or a case that cannot be read (named; the others are done), 66 for no such file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent)]

from launches import Launch, UnreadableCaseError, read_launch
from manifests import score as score_manifests
from manifests import section
from page import page, summary
from performance import compared
from performance import document as performance_document
from performance import page as performance_page
from predict import predict
from score import Scored, score

Json = dict[str, Any]

BAD_DATA, NO_INPUT = 65, 66
CASES, PAGE = ROOT / "tests/data/memory_cases.json", ROOT / "docs/accuracy.md"
SERVICES, SERVICES_PAGE = ROOT / "tests/data/performance_cases.json", ROOT / "docs/performance-accuracy.md"


def main() -> int:
    """Read, predict, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=Path, default=None, help="another file of cases")
    parser.add_argument("--performance", type=Path, default=None, help="another file of measured services")
    parser.add_argument("--manifests", type=Path, default=None, help="a folder of manifests with its truth.json")
    parser.add_argument("--out", type=Path, default=None, help="where predictions go, as JSON")
    options = parser.parse_args()
    if options.manifests is not None:
        return compare_manifests(options.manifests)
    if options.performance is not None:
        return compare_services(options.performance, options.out)
    source = options.memory or CASES
    try:
        cases = read_cases(source)
    except FileNotFoundError:
        return complain(f"{source}: no such file", NO_INPUT)
    except (OSError, ValueError) as problem:
        return complain(f"{source}: {problem}", BAD_DATA)
    scored, launches, problems = judged(cases)
    for name, problem in problems.items():
        complain(f"{source}, case {name}: {problem}", BAD_DATA)
    text = page(scored, launches) + kept_section()
    if options.memory is None:
        PAGE.write_text(text, encoding="utf-8")
        compare_services(SERVICES, None)
    else:
        sys.stdout.write(text)
    if options.out is not None:
        options.out.write_text(json.dumps(document(scored, problems), indent=1, allow_nan=False), encoding="utf-8")
    return BAD_DATA if problems else 0


MARK = "\n## Extraction from manifests"


def kept_section() -> str:
    """What was last found for manifests: they are no part of this repository."""
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    _, mark, rest = before.partition(MARK)
    return mark + rest


def compare_manifests(folder: Path) -> int:
    """Into the page, and what is not right to standard output."""
    try:
        records = len(json.loads((folder / "truth.json").read_text(encoding="utf-8")))
        found = score_manifests(folder)
    except FileNotFoundError as problem:
        return complain(f"{problem.filename}: no such file", NO_INPUT)
    except (OSError, ValueError, LookupError) as problem:
        return complain(f"{folder}: {type(problem).__name__}: {problem}", BAD_DATA)
    for line in (*found.wrong, *(f"null: {each}" for each in found.missing)):
        sys.stdout.write(f"{line}\n")
    before, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    PAGE.write_text(f"{before.rstrip()}\n\n{section(found, records)}", encoding="utf-8")
    return 0


def compare_services(source: Path, out: Path | None) -> int:
    """Measured services: this repository's into their page, another file's to standard output."""
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        cases = read_cases(source)
    except FileNotFoundError:
        return complain(f"{source}: no such file", NO_INPUT)
    except (OSError, ValueError) as problem:
        return complain(f"{source}: {problem}", BAD_DATA)
    own = json.loads(SERVICES.read_text(encoding="utf-8"))["dataSets"]
    stated = content.get("dataSets", {}) if isinstance(content, dict) else {}
    found, problems = compared(cases, {**own, **stated})
    for name, problem in problems.items():
        complain(f"{source}, case {name}: {problem}", BAD_DATA)
    text = performance_page(found)
    if source == SERVICES:
        SERVICES_PAGE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    if out is not None:
        out.write_text(json.dumps(performance_document(found, problems), indent=1, allow_nan=False), encoding="utf-8")
    return BAD_DATA if problems else 0


def complain(text: str, code: int) -> int:
    """Say it on standard error."""
    sys.stderr.write(f"error: {text}\n")
    return code


def read_cases(path: Path) -> list[Any]:
    """The file's list, or its ``cases``. Raises ``ValueError``."""
    found = json.loads(path.read_text(encoding="utf-8"))
    cases = found.get("cases") if isinstance(found, dict) else found
    if not isinstance(cases, list):
        problem = "needs a list of cases"
        raise ValueError(problem)  # noqa: TRY004  # of the file's content
    return cases


def judged(cases: list[Any]) -> tuple[list[Scored], list[Launch], dict[str, str]]:
    """(predictions beside what was measured, the launches, case -> why it could not be read)."""
    scored, launches, problems = [], [], {}
    for number, case in enumerate(cases):
        name = str(case.get("id") or f"number {number + 1}") if isinstance(case, dict) else f"number {number + 1}"
        try:
            if not isinstance(case, dict):
                problem = f"needs an object, not {type(case).__name__}"
                raise UnreadableCaseError(problem)  # noqa: TRY301  # one way out for all that cannot be read
            launch = read_launch(case)
            scored.append(score(case, predict(launch)))
            launches.append(launch)
        except (UnreadableCaseError, TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as problem:
            problems[name] = str(problem) if isinstance(problem, UnreadableCaseError) else f"{type(problem).__name__}: {problem}"
    return scored, launches, problems


def document(scored: list[Scored], problems: dict[str, str]) -> Json:
    """All predictions."""
    cases: list[Json] = [
        {
            "id": each.case.get("id"), "predicted": each.prediction.as_json(), "measured": each.case.get("measured"),
            "error": each.errors if any(error is not None for error in each.errors.values()) else None,
        }
        for each in scored
    ]  # fmt: skip
    cases += [{"id": name, "predicted": None, "measured": None, "error": None, "problem": why} for name, why in problems.items()]
    return {"cases": cases, "summary": summary(scored)}


if __name__ == "__main__":
    sys.exit(main())
