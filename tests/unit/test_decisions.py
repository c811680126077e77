"""Decisions that are kept: what is handed out of them, to whom, and what they may cost."""

import asyncio
import base64
import copy
import json
import zlib
from dataclasses import replace
from typing import Any

import pytest

from builders import a_book, a_declaration, a_node, a_pod, a_vllm_deployment
from case_files import Case, cases
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.decisions import Facts, KeptDecision, record, replayed
from shardgate.adapters.disclosure import told
from shardgate.adapters.pods import pod_from, read_pod
from shardgate.adapters.referred_workloads import read_declaration
from shardgate.adapters.workload_declarations import declare
from shardgate.adapters.workload_verdicts import judged_groups
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.registry import read_workload
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND, Disclosure, Policy
from shardgate.domain.verify import verify
from shardgate.shells.decision_reviews import DecisionReviews
from shardgate.shells.decisions import CHANGE_BYTES, Decisions
from shardgate.shells.documents import Document
from shardgate.shells.snapshot import Snapshot
from shardgate.shells.webhook_server import ELSEWHERE

Json = dict[str, Any]


def decided(
    book: ClusterBook, name: str = "llama", reference: str = "3f9c", policy: Policy = OWN_KIND, **changes: Any
) -> KeptDecision:
    declaration = a_declaration(name, **changes)
    inventory = book.inventory(0.0)
    verdict = told(verify(declaration, inventory, policy), inventory, policy)
    return KeptDecision(
        reference=reference, at=1_800_000_000.0, subject=declaration.subject, operation="CREATE", is_dry=False, user="jane",
        answer="refused" if verdict.findings else "allowed", said=("it was said",), outcome=verdict.outcome,
        findings=verdict.findings, disclosure=policy.disclosure,
        facts=Facts.of(declaration, policy, inventory),
    )  # fmt: skip


def test_it_is_judged_again_here_and_there() -> None:
    kept = decided(a_book(a_node("node-secret", gpus=4)))
    document = json.loads(json.dumps(record(kept, "pod-1", may_see_nodes=True)))
    assert (document["ref"], document["decidedAt"], document["requestedBy"]) == ("3f9c", "2027-01-15T08:00:00Z", "jane")
    assert document["replay"]["agrees"] is True
    again = replayed(document)
    assert again["replay"]["agrees"] is True
    assert again["report"] == document["report"]
    assert again["report"]["outcome"] == "Unsound"
    other = replayed({**document, "findings": document["findings"][1:]})
    assert other["replay"]["agrees"] is False


@pytest.mark.parametrize("disclosure", [Disclosure.NODES, Disclosure.POOLS, Disclosure.NONE])
@pytest.mark.parametrize("gpus", [4, 8])
def test_who_may_not_list_nodes_sees_what_the_policy_discloses(disclosure: Disclosure, gpus: int) -> None:
    kept = decided(
        a_book(a_node("node-secret", gpus=gpus), a_node("node-secret-2").tainted()), policy=replace(OWN_KIND, disclosure=disclosure)
    )
    told_to_all = json.dumps(record(kept, "pod-1", may_see_nodes=False))
    assert ("node-secret" in told_to_all) is (disclosure is Disclosure.NODES and gpus == 8)
    assert "H100-80GB" not in told_to_all or disclosure is not Disclosure.NONE
    assert "node-secret" in json.dumps(record(kept, "pod-1", may_see_nodes=True))
    assert json.loads(told_to_all)["facts"] is None


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_no_case_names_a_node_to_who_may_not_list_them(case: Case) -> None:
    names: dict[str, str] = {}
    bodies = [copy.deepcopy(body) for body in case.cluster]
    for body in bodies:
        if body["kind"] == "Node":
            name = names.setdefault(body["metadata"]["name"], f"secret-{len(names)}")
            labels = {**body["metadata"].get("labels", {}), "kubernetes.io/hostname": name}
            body["metadata"] = {**body["metadata"], "name": name, "labels": labels}
        elif body["kind"] == "Pod" and body["spec"].get("nodeName"):
            body["spec"]["nodeName"] = names.get(body["spec"]["nodeName"], "")
    snapshot = Snapshot()
    snapshot.add(Document(case.name, body) for body in bodies)
    declaration = read_declaration(case.workload, snapshot.book.rules.known_profiles)
    policy = snapshot.book.rules.policy_for(declaration.subject.namespace, "InferenceDeployment.shardgate.io", OWN_KIND)
    inventory = snapshot.inventory()
    verdict = told(verify(declaration, inventory, policy), inventory, policy)
    kept = replace(
        decided(a_book()), subject=declaration.subject, outcome=verdict.outcome, findings=verdict.findings,
        facts=Facts.of(declaration, policy, inventory),
    )  # fmt: skip
    document = record(kept, "pod-1", may_see_nodes=False)
    assert document["replay"]["agrees"] is True
    assert "secret" not in json.dumps(document)


def test_a_workload_of_another_kind() -> None:
    workload = read_workload(a_vllm_deployment(gpus=4), Library())
    assert workload is not None
    groups, inventory = tuple(declare(workload)), a_book(a_node("node-secret")).inventory(0.0)
    found = judged_groups(workload.subject, groups, inventory, FOREIGN_KIND)
    assert found is not None
    kept = replace(
        decided(a_book()), subject=workload.subject, outcome=found.verdict.outcome, findings=found.verdict.findings,
        facts=Facts.of(groups, FOREIGN_KIND, inventory),
    )  # fmt: skip
    document = json.loads(json.dumps(record(kept, "pod-1", may_see_nodes=True)))
    assert document["report"]["findings"][0]["code"] == "WorldSizeMismatch"
    assert replayed(document)["replay"]["agrees"] is True
    assert "node-secret" not in json.dumps(record(kept, "pod-1", may_see_nodes=False))


def test_nothing_of_the_object_is_kept_but_what_was_read_of_it() -> None:
    body = a_vllm_deployment()
    (container,) = body["spec"]["template"]["spec"]["containers"]
    container["env"] = [{"name": "HF_TOKEN", "value": "hf_secret"}, {"name": "VLLM_API_KEY", "value": "sk-secret"}]
    container["command"] += ["--api-key", "key-secret", "--hf-token=token-secret"]
    workload = read_workload(body, Library())
    assert workload is not None
    facts = Facts.of(declare(workload), FOREIGN_KIND, a_book(a_node()).inventory(0.0))
    kept = replace(decided(a_book()), subject=workload.subject, facts=facts)
    assert "secret" not in json.dumps(record(kept, "pod-1", may_see_nodes=True))
    own = decided(
        a_book(a_node()), engine={"environment": {"VLLM_API_KEY": "sk-secret"}, "args": ["--api-key=secret", "--odd", "secret"]}
    )
    assert "secret" not in json.dumps(record(own, "pod-1", may_see_nodes=True))


def test_the_last_of_each_object_and_no_more_than_so_many() -> None:
    book, kept = a_book(a_node()), Decisions(lambda: 0, most=3)
    for number in range(5):
        kept.keep(decided(book, f"d{number % 4}", reference="aaaa" if number else "bbbb"))
    assert len(kept) == 3
    assert [each.subject.name for each in kept.find("serving", "aaaa")] == ["d0", "d3", "d2"]
    assert kept.find("other", "aaaa") == []
    assert kept.find("serving", "bbbb") == []


def test_facts_go_as_the_cluster_moves_away_from_them() -> None:
    book = a_book(*(a_node(f"n{number}") for number in range(10)))
    kept = Decisions(lambda: book.frozen_anew, most_bytes=40 * CHANGE_BYTES)
    first = decided(book, "first")
    kept.keep(first)
    kept.keep(decided(book, "second"))
    assert kept.with_facts == 2
    for number in range(38):
        record_of_pod = read_pod(pod_from(a_pod(f"p{number}", node=f"n{number % 10}")))
        assert record_of_pod is not None
        book.put_pod(record_of_pod)
        book.inventory(0.0)
    kept.keep(decided(book, "third"))
    assert kept.with_facts == 3, "ten nodes took 38 pods"
    for number in range(3):
        book.drop_pod(f"uid-serving-p{number}")
        book.inventory(0.0)
    kept.settle()
    assert [
        each.facts is None
        for name in ("first", "second", "third")
        for each in kept.find("serving", "3f9c")
        if each.subject.name == name
    ] == [True, True, False]
    (oldest,) = [each for each in kept.find("serving", "3f9c") if each.subject.name == "first"]
    document = record(oldest, "pod-1", may_see_nodes=True)
    assert (document["report"], document["facts"], document["replay"]) == (None, None, None)
    assert document["noFacts"].startswith("the cluster has changed much since")
    assert document["findings"] == record(first, "pod-1", may_see_nodes=True)["findings"]
    for number in range(300):
        kept.keep(decided(book, f"more-{number}"))
    assert (len(kept), kept.with_facts) == (200, 200)


def asked(**changes: Any) -> Json:
    body = {"metadata": {"name": "why"}, "spec": {"ref": "3f9c"}}
    return {
        "operation": "CREATE",
        "dryRun": True,
        "namespace": "serving",
        "userInfo": {"username": "jane"},
        "object": body,
        **changes,
    }


@pytest.mark.parametrize(
    ("namespace", "access", "found", "facts"),
    [
        ("serving", {"allowed": True}, 1, True),
        ("serving", {"allowed": False}, 1, False),
        ("serving", {"allowed": True, "denied": True}, 1, False),
        ("serving", {}, 1, False),
        ("other", {"allowed": True}, 0, False),
    ],
)
def test_a_question_is_answered_by_what_the_asker_may_see(namespace: str, access: Json, found: int, facts: bool) -> None:
    kept = Decisions(lambda: 0)
    kept.keep(decided(a_book(a_node("node-secret"))))
    reviews: list[Json] = []

    async def review(body: Json) -> Json:
        reviews.append(body["spec"])
        return {"status": access}

    answer = asyncio.run(DecisionReviews(kept, review, "pod-1").mutate(asked(namespace=namespace)))
    ((patch,),) = [json.loads(base64.b64decode(answer["patch"]))]
    status = patch["value"]
    assert (patch["path"], status["found"], status["kept"], status["replica"]) == ("/status", found, 1, "pod-1")
    assert answer.get(ELSEWHERE, False) is not bool(found)
    if found:
        (document,) = json.loads(zlib.decompress(base64.b64decode(status["decisions"])))
        assert (document["facts"] is not None) is facts
        assert ("node-secret" in json.dumps(document)) is facts
        assert reviews[0]["resourceAttributes"] == {"resource": "nodes", "verb": "list"}
        assert reviews[0]["user"] == "jane"


def test_a_question_that_would_be_stored_is_refused() -> None:
    async def never(_: Json) -> Json:
        raise AssertionError

    questions = DecisionReviews(Decisions(lambda: 0), never, "pod-1")
    for request in (asked(dryRun=False), asked(operation="UPDATE"), asked(dryRun=None)):
        answer = asyncio.run(questions.mutate(request))
        assert (answer["allowed"], answer["status"]["code"]) == (False, 405)


@pytest.mark.parametrize("spec", ["x", [], 7, None])
def test_a_question_that_its_schema_has_not_refused_yet_finds_nothing(spec: Any) -> None:
    async def never(_: Json) -> Json:
        raise AssertionError

    request = asked()
    request["object"]["spec"] = spec
    answer = asyncio.run(DecisionReviews(Decisions(lambda: 0), never, "pod-1").mutate(request))
    assert (answer["allowed"], answer[ELSEWHERE]) == (True, True)
