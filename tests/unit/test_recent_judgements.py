"""What was judged a moment ago is not judged again, and is never taken for something else."""

from typing import Any

import msgspec
import pytest

from builders import a_body, a_node
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.nodes import NodeObject
from shardgate.adapters.policies import read_policy
from shardgate.shells import judge as module
from shardgate.shells.judge import Judge


def put_node(book: ClusterBook, gpus: int = 8) -> None:
    book.put_node(msgspec.convert(a_node(gpus=gpus).body, NodeObject, strict=False), 0.0)


def a_judge(ages: list[float] | None = None) -> Judge:
    book = ClusterBook()
    put_node(book)
    ages = ages or [0.0]
    return Judge(book, lambda: (ages[0], 0.0))


def test_the_same_question_is_answered_once() -> None:
    judge = a_judge()
    first = judge.judge(a_body())
    assert judge.judge(a_body()) is first
    assert judge.judge({**a_body(), "status": {"summary": "of no matter"}}) is first
    validated = a_body()
    validated["metadata"] |= {"generation": 1, "uid": "u", "annotations": {"shardgate.io/verdict": "Sound"}}
    assert judge.judge(validated) is first


@pytest.mark.parametrize(
    "other",
    [
        a_body(strategy={"tensor": 16}),
        a_body("another"),
        a_body(replicas=2),
    ],
)
def test_another_question_is_another(other: dict[str, Any]) -> None:
    judge = a_judge()
    first = judge.judge(a_body())
    found = judge.judge(other)
    assert found is not first
    assert found == Judge(judge.book, lambda: (0.0, 0.0)).judge(other)


def test_a_change_of_the_cluster_or_of_the_policy_ends_it() -> None:
    judge = a_judge()
    first = judge.judge(a_body())
    put_node(judge.book, gpus=7)
    second = judge.judge(a_body())
    assert (first.verdict.outcome.label, second.verdict.outcome.label) == ("Sound", "Unsound")
    judge.book.rules.put_policy(read_policy({"metadata": {"name": "p"}, "spec": {"capacity": "Open", "namespaceSelector": {}}}))
    assert judge.judge(a_body()) is not second


def test_a_stale_picture_is_not_kept_and_keeps_nothing_alive() -> None:
    ages = [0.0]
    judge = a_judge(ages)
    first = judge.judge(a_body())
    ages[0] = 1000.0
    stale = judge.judge(a_body())
    assert "InventoryStale" in stale.verdict.codes
    ages[0] = 0.0
    assert judge.judge(a_body()) is first


def test_a_declaration_that_names_a_workload_is_read_each_time() -> None:
    judge = a_judge()
    body = a_body(workloadRef={"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"})
    assert judge.judge(body) is not judge.judge(body)


def test_it_holds_so_many_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_RECENT", 3)
    judge = a_judge()
    first, second = judge.judge(a_body("n0")), judge.judge(a_body("n1"))
    assert judge.judge(a_body("n0")) is first
    for number in range(2, 4):
        judge.judge(a_body(f"n{number}"))
    assert judge.judge(a_body("n0")) is first
    assert judge.judge(a_body("n1")) is not second
    assert len(judge._recent._declarations) == 3
    assert len(judge._recent._judgements) <= 6


def test_large_specs_are_not_kept() -> None:
    """Whoever may create objects, as dry runs too, chooses how many there are of them."""
    judge = a_judge()
    config = {"comment": "x" * module.MOST_RECENT_BYTES}
    large = a_body(model={"name": "meta-llama/Meta-Llama-3-70B-Instruct", "config": config})
    first = judge.judge(large)
    assert judge.judge(large) is not first
    assert (len(judge._recent._declarations), len(judge._recent._judgements), len(judge._recent._kept)) == (0, 0, 0)
    stands = judge.declare(large)
    kept = judge.judge(large, stands)
    assert judge.judge(large, stands) is kept, "what stands is kept by whoever gives it"
