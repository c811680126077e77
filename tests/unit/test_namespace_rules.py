"""What holds in namespaces, as it comes and goes; what was handed out stays as it was."""

import pytest

from builders import a_book
from shardgate.adapters.limit_ranges import limit_range_from
from shardgate.adapters.quotas import QuotaObject, quota_from


def a_quota(name: str, namespace: str = "serving", hard: str = "8") -> QuotaObject:
    return quota_from({
        "metadata": {"name": name, "namespace": namespace}, "spec": {"hard": {"requests.nvidia.com/gpu": hard}}, "status": {},
    })  # fmt: skip


def test_quotas_of_a_namespace_come_by_name_and_go() -> None:
    book = a_book()
    book.rules.quotas.put(a_quota("b"))
    before = book.inventory(0.0).quotas
    book.rules.quotas.put(a_quota("a"))
    book.rules.quotas.put(a_quota("c", "other"))
    after = book.inventory(0.0).quotas
    assert [each.name for each in before["serving"]] == ["b"]
    assert [each.name for each in after["serving"]] == ["a", "b"]
    assert set(after) == {"serving", "other"}
    version = book.version
    book.rules.quotas.put(a_quota("a"))
    assert book.version == version, "nothing is new"
    book.rules.quotas.retain({"serving/a"})
    assert {name: len(each) for name, each in book.inventory(0.0).quotas.items()} == {"serving": 1}
    book.rules.quotas.drop(("serving", "a"))
    assert book.inventory(0.0).quotas == {}
    assert len(after["serving"]) == 2, "what was handed out stays"


@pytest.mark.parametrize("amount", ["many", "8Qi"])
def test_a_quota_that_cannot_be_read_is_named_and_left_out(amount: str) -> None:
    book = a_book()
    book.rules.quotas.put(a_quota("a"))
    book.rules.quotas.put(a_quota("a", hard=amount))
    assert book.inventory(0.0).quotas == {}
    assert set(book.unreadable) == {"ResourceQuota serving/a"}
    book.rules.quotas.put(a_quota("a"))
    assert book.unreadable == {}


def test_limit_ranges_that_say_nothing_of_pods_are_none() -> None:
    book = a_book()
    of_pods = {"metadata": {"name": "a", "namespace": "serving"}, "spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}}]}}
    book.rules.limit_ranges.put(limit_range_from(of_pods))
    assert len(book.inventory(0.0).limit_ranges["serving"]) == 1
    book.rules.limit_ranges.put(limit_range_from({**of_pods, "spec": {"limits": []}}))
    assert book.inventory(0.0).limit_ranges == {}


def test_namespaces_that_were_handed_out_keep_their_labels() -> None:
    book = a_book()
    book.rules.put_namespace("serving", {"team": "a"})
    before, version = book.inventory(0.0).namespaces, book.version
    book.rules.put_namespace("serving", {"team": "b"})
    book.rules.put_namespace("other", {})
    assert before == {"serving": {"team": "a"}}
    assert book.rules.labels_of("serving")["team"] == "b"
    book.rules.retain_namespaces({"other"})
    assert set(book.inventory(0.0).namespaces) == {"other"}
    book.rules.drop_namespace("other")
    assert book.version > version
    assert book.rules.labels_of("other") == {"kubernetes.io/metadata.name": "other"}
