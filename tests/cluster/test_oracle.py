"""Shardgate's placement against the real kube-scheduler on random clusters; ``make oracle`` asks thousands."""

import asyncio
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "oracle"))

from questions import kept_question, question
from scheduler import NAMESPACE

from controlplane.plane import ControlPlane
from oracle import KEPT, compare

QUESTIONS = 60


def test_the_scheduler_agrees(clean: ControlPlane) -> None:
    clean.kubectl("create", "namespace", NAMESPACE, check=False)
    tally: Counter[str] = Counter()
    disagreements = asyncio.run(compare(clean, 7, [question(7, number) for number in range(QUESTIONS)], tally))
    assert [(answer.question.workload, what) for answer, what in disagreements] == []
    assert tally["feasible"] > QUESTIONS / 10
    assert tally["infeasible"] > QUESTIONS / 10
    assert tally["undecided"] == 0


def test_the_scheduler_agrees_on_what_was_once_answered_wrongly(clean: ControlPlane) -> None:
    clean.kubectl("create", "namespace", NAMESPACE, check=False)
    tally: Counter[str] = Counter()
    kept = [kept_question(folder) for folder in sorted(KEPT.iterdir())]
    disagreements = asyncio.run(compare(clean, 7, kept, tally))
    assert [(answer.question.workload, what) for answer, what in disagreements] == []
    assert tally["feasible"] + tally["infeasible"] == len(kept) > 0
