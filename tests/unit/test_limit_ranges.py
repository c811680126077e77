"""LimitRanges: what a namespace lets one pod ask for, and asks for pods that say nothing."""

from typing import Any

from builders import GPU, a_book, a_declaration, a_node
from shardgate.adapters.limit_ranges import limit_range_from
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.verdict import Verdict
from shardgate.domain.verify import verify

Json = dict[str, Any]


def judged(*limits: Json, namespace: str = "serving", **changes: Any) -> Verdict:
    book = a_book(a_node())
    book.rules.limit_ranges.put(
        limit_range_from({"metadata": {"name": "bounds", "namespace": namespace}, "spec": {"limits": list(limits)}})
    )
    return verify(a_declaration(**changes), book.inventory(0.0), OWN_KIND)


def test_a_pod_that_asks_for_more_than_is_allowed_is_waited_for() -> None:
    verdict = judged({"type": "Pod", "max": {GPU: "4"}}, {"type": "Container", "max": {GPU: "6"}})
    assert [each.message for each in verdict.findings if each.code == "QuotaTooSmall"] == [
        f"LimitRange bounds of namespace serving allows a {what} {most} {GPU}; each asks for 8 {GPU}"
        for what, most in (("pod", 4), ("container", 6))
    ]
    assert judged({"type": "Container", "max": {GPU: "8"}}).codes == ()
    assert judged({"type": "Pod", "max": {GPU: "4"}}, namespace="other").codes == ()
    assert judged({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}).codes == ()


def test_what_pods_do_not_ask_for_is_asked_for_them() -> None:
    too_much = {"type": "Container", "defaultRequest": {"cpu": "65"}, "default": {"cpu": "80"}}
    assert judged(too_much).codes == ("NodesDoNotFit",)
    assert judged(too_much, placement={"requests": {"cpu": "8"}}).codes == ()
    assert judged({"type": "Container", "default": {"memory": "2Ti"}}).codes == ("NodesDoNotFit",)
    assert judged({"type": "Container", "default": {"cpu": "8", "memory": "8Gi"}}).codes == ()


def test_an_amount_that_is_no_quantity_is_named() -> None:
    book = a_book(a_node())
    limits = [{"type": "Pod", "max": {"cpu": "many"}}]
    book.rules.limit_ranges.put(
        limit_range_from({"metadata": {"name": "bounds", "namespace": "serving"}, "spec": {"limits": limits}})
    )
    assert list(book.unreadable) == ["LimitRange serving/bounds"]
