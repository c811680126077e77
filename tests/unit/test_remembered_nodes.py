"""Nodes that were here: evidence of what may come again, for 30 days, where anything may come."""

import pytest

from builders import T4, a_book, a_declaration, a_node
from shardgate.adapters import remembered_nodes
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.node_memory import GONE_COUNTS_SECONDS, TRANSITION_SECONDS
from shardgate.adapters.nodes import node_from
from shardgate.adapters.remembered_nodes import REMEMBERED_SECONDS
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND, Policy
from shardgate.domain.verdict import Outcome, Verdict
from shardgate.domain.verify import verify

HOUR = 3600.0


def judged(book: ClusterBook, now: float, policy: Policy = FOREIGN_KIND, **changes: object) -> Verdict:
    return verify(a_declaration(**changes), book.inventory(now), policy)


def scaled_to_zero(*names: str) -> ClusterBook:
    book = a_book(*(a_node(name) for name in names), a_node("t4", gpus=1, labels=T4))
    book.inventory(0.0)
    for number, name in enumerate(names):
        book.drop_node(name, float(number))
    return book


def test_where_anything_may_come_what_was_here_may_come_again() -> None:
    book = scaled_to_zero("a", "b")
    assert judged(book, 60.0).codes == ("NodesUnavailable",)
    verdict = judged(book, 3 * HOUR + 60)
    assert verdict.codes == ("NodesToProvision",)
    assert verdict.findings[0].message.endswith("2 nodes of 8 x H100-80GB-HBM3 were here until 3 h ago, such nodes may come again")
    two = judged(book, 3 * HOUR, replicas=2)
    assert two.codes == ("NodesToProvision",)
    three = judged(book, 3 * HOUR, replicas=3)
    assert three.codes[0] == "GpuCountTooLow"
    assert "more may come, and not enough: 2 nodes of 8 x H100-80GB-HBM3 were here" in three.findings[0].message


def test_it_is_evidence_alone_and_no_promise() -> None:
    """Closed: nothing comes but what is here, or was a short while ago."""
    book = scaled_to_zero("a", "b")
    assert "GpuCountTooLow" in judged(book, 3 * HOUR, OWN_KIND).codes
    assert "NodesToProvision" not in judged(book, 3 * HOUR, OWN_KIND).codes


def test_it_is_forgotten_after_thirty_days() -> None:
    book = scaled_to_zero("a")
    assert judged(book, REMEMBERED_SECONDS - HOUR).codes == ("NodesToProvision",)
    assert "NodesToProvision" not in judged(book, REMEMBERED_SECONDS + HOUR).codes


def test_those_that_came_back_are_counted_once() -> None:
    book = scaled_to_zero("a", "b")
    book.inventory(GONE_COUNTS_SECONDS + 1.0)
    book.put_node(node_from(a_node("c").body), 2 * HOUR)
    assert [node.count for node in book.inventory(2 * HOUR).remembered] == [1]
    book.put_node(node_from(a_node("d").body), 2 * HOUR)
    assert book.inventory(2 * HOUR).remembered == ()


def test_nodes_that_come_and_go_under_new_names_are_no_more_than_were_here_at_once() -> None:
    book = a_book(a_node("cpu", labels={}, gpus=0))
    for number in range(20):
        now = number * HOUR
        book.put_node(node_from(a_node(f"spot-{number}").body), now)
        book.inventory(now)
        book.drop_node(f"spot-{number}", now + 60)
        book.inventory(now + 60 + GONE_COUNTS_SECONDS)
    (node,) = book.inventory(20 * HOUR).remembered
    assert node.count == 1
    assert len(book._memory.left._kinds) == 1


def test_a_drained_node_is_remembered_without_what_passed() -> None:
    book = a_book(a_node("a").tainted("team", "ml"))
    book.put_node(node_from(a_node("a").tainted("team", "ml").allocatable(7).cordoned().body), 10.0)
    book.drop_node("a", 20.0)
    (node,) = book.inventory(HOUR).remembered
    assert ([each.key for each in node.shape.taints], node.allocatable["nvidia.com/gpu"], node.count) == (["team"], 8, 1)


def test_a_node_that_lost_its_gpus_for_good_is_one_that_went() -> None:
    book = a_book(a_node("a"))
    down = a_node("a", labels={}).allocatable(0)
    down.body["status"]["capacity"]["nvidia.com/gpu"] = "0"
    book.put_node(node_from(down.body), 100.0)
    assert book.inventory(101.0).remembered == ()
    assert [node.count for node in book.inventory(101.0 + TRANSITION_SECONDS).remembered] == [1]


def test_a_book_made_anew_remembers_nothing_and_says_nothing_of_it() -> None:
    """An operator that was restarted after the cluster was scaled to zero: nothing is refused, and nothing pretended."""
    book = ClusterBook()
    book.put_node(node_from({"metadata": {"name": "cpu"}, "status": {"allocatable": {"cpu": "8"}}}), 0.0)
    verdict = judged(book, HOUR)
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.codes == ("InventoryEmpty",)
    assert "were here" not in verdict.findings[0].message


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered_nodes, "MOST_KINDS", 3)
    book = a_book(*(a_node(f"n{number}").label("rack", str(number)) for number in range(5)))
    for number in range(5):
        book.drop_node(f"n{number}", float(number))
    assert [node.labels["rack"] for node in book.inventory(HOUR).remembered] == ["2", "3", "4"]
    assert (book._memory.left._here, book._memory.left._key_of) == ({}, {})
