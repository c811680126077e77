"""One case through command line, webhook and reconciler: the verdicts agree."""

import copy
import json
from collections.abc import Callable

import pytest
from live import create, status, until

from case_files import Case, cases
from command_line import run
from controlplane.installation import Installation
from controlplane.plane import ControlPlane


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_command_line(case: Case) -> None:
    result = run("verify", "-o", "json", "-f", str(case.folder / "workload.yaml"), "--cluster", str(case.folder / "nodes.yaml"))
    shown = json.loads(result.stdout)
    assert (shown["outcome"], [each["code"] for each in shown["findings"]]) == (case.outcome, case.codes)
    assert result.returncode == (1 if case.answer == "refused" else 2 if case.outcome == "Undecided" else 0)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_webhook_and_reconciler(
    case: Case, clean: ControlPlane, start: Callable[..., Installation], request: pytest.FixtureRequest
) -> None:
    if any(each["apiVersion"].startswith("karpenter.sh/") for each in case.cluster):
        request.getfixturevalue("karpenter")
    create(clean, case.cluster)
    start()
    answer = clean.apply(case.workload, options=("--dry-run=server",), check=False)
    said = "refused" if answer.returncode else "warned" if "Warning" in answer.stderr else "allowed"
    assert said == case.answer, answer.stderr
    if said != "allowed":
        assert all(code in answer.stderr for code in case.codes), answer.stderr

    slipped = copy.deepcopy(case.workload)
    slipped["metadata"]["namespace"] = "unseen"
    clean.apply(slipped)
    until("a verdict", lambda: bool(status(clean, "llama", "unseen").get("outcome")))
    shown = status(clean, "llama", "unseen")
    assert (shown["outcome"], [each["code"] for each in shown["findings"]]) == (case.outcome, case.codes)
