"""Admission of our own kind, where no control plane is needed to see it."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builders import a_body, a_node
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.decisions import KeptDecision
from shardgate.adapters.engines import arguments
from shardgate.adapters.nodes import NodeObject
from shardgate.shells.config import OperatorConfig
from shardgate.shells.judge import MOST_RECENT_BYTES, Judge
from shardgate.shells.metrics import Metrics
from shardgate.shells.webhook import Admission

Json = dict[str, Any]


def answered(
    body: Json, old: Json | None = None, *, metrics: Metrics | None = None, webhook: str = "validate", is_dry: bool = False
) -> Json:
    book = ClusterBook()
    book.put_node(msgspec.convert(a_node().body, NodeObject, strict=False), 0.0)
    subject = Admission(
        Judge(book, lambda: (0.0, 0.0)), OperatorConfig(tls_cert=Path("c"), tls_key=Path("k")), metrics or Metrics(),
    )  # fmt: skip
    request = {
        "uid": "u", "operation": "UPDATE" if old else "CREATE", "userInfo": {"username": "jane"}, "object": body, "oldObject": old,
        "namespace": "serving", "resource": {"group": "shardgate.io", "version": "v1alpha1", "resource": "inferencedeployments"},
        "dryRun": is_dry,
    }  # fmt: skip
    return asyncio.run(subject.answer(request, webhook))


@pytest.mark.parametrize(("is_dry", "dry_run", "other"), [(False, "false", "true"), (True, "true", "false")])
@pytest.mark.parametrize(
    ("body", "webhook", "labels"),
    [
        (a_body(), "validate", {"operation": "CREATE", "outcome": "Sound", "answer": "allowed"}),
        (a_body(strategy={"tensor": 16}), "validate", {"operation": "CREATE", "outcome": "Unsound", "answer": "refused"}),
        (a_body(strategy={"tensor": 0}), "validate", {"operation": "CREATE", "outcome": "", "answer": "invalid"}),
        (a_body(strategy={"sequence": 4}), "validate", {"operation": "CREATE", "outcome": "", "answer": "unsupported"}),
        (a_body(namespace="kube-system"), "validate", {"operation": "", "outcome": "", "answer": "exempt"}),
        (a_body(namespace="kube-system"), "mutate", {"operation": "", "outcome": "", "answer": "exempt"}),
    ],
    ids=["allowed", "refused", "invalid", "unsupported", "exempt", "exempt, to be annotated"],
)
def test_a_request_is_counted_as_the_dry_run_that_it_is(
    body: Json, webhook: str, labels: dict[str, str], is_dry: bool, dry_run: str, other: str
) -> None:
    metrics = Metrics()
    answered(body, metrics=metrics, webhook=webhook, is_dry=is_dry)
    answered(body, metrics=metrics, webhook=webhook, is_dry=is_dry)
    value = metrics.registry.get_sample_value
    common = {"kind": body["kind"], **labels}
    assert value("shardgate_admission_requests_total", {**common, "dry_run": dry_run}) == 2
    assert not value("shardgate_admission_requests_total", {**common, "dry_run": other})


@pytest.mark.parametrize("dry_run", ["false", "true"])
def test_what_an_alert_rests_on_is_there_before_the_first_request(dry_run: str) -> None:
    labels = {"kind": "InferenceDeployment", "operation": "CREATE", "outcome": "Unsound", "answer": "refused", "dry_run": dry_run}
    assert Metrics().registry.get_sample_value("shardgate_admission_requests_total", labels) == 0


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"strategy": {"tensor": 2, "sequence": 4}}, "spec.strategy.sequence"),
        ({"engine": {"name": "an-engine-to-come"}}, "spec.engine.name"),
        ({"engine": {"kvConnector": "x"}}, "spec.engine.kvConnector"),
    ],
)
def test_what_a_newer_schema_has_is_let_in_unjudged_and_said(changes: Json, where: str) -> None:
    answer = answered(a_body(**changes))
    assert answer["allowed"]
    (warning,) = answer["warnings"]
    assert warning.startswith(f"{where} is not known to this version")
    assert len(warning) <= 120


def test_a_mistake_beside_it_is_refused() -> None:
    answer = answered(a_body(strategy={"tensor": 0, "sequence": 4}))
    assert not answer["allowed"]
    assert "spec.strategy.tensor" in answer["status"]["message"]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_no_flag_makes_a_declaration_one_of_a_newer_version(engine: str) -> None:
    flags = {"name": engine, "args": ["--kv-cache-dtype", "float32"]}
    assert "GpuCountTooLow" in answered(a_body(engine=flags, strategy={"tensor": 16}))["status"]["message"]


def test_nor_does_a_value_that_this_version_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(arguments._READERS, "kvCache", ("an element type", lambda _: "fp4"))
    answer = answered(a_body(engine={"name": "vllm", "args": ["--kv-cache-dtype=auto"]}, strategy={"tensor": 16}))
    assert "GpuCountTooLow" in answer["status"]["message"]


def test_facts_of_what_is_large_are_not_kept() -> None:
    """Whoever may create objects, as dry runs too, chooses how many there are of them."""
    kept: list[KeptDecision] = []
    book = ClusterBook()
    book.put_node(msgspec.convert(a_node().body, NodeObject, strict=False), 0.0)
    config = OperatorConfig(tls_cert=Path("c"), tls_key=Path("k"))
    subject = Admission(Judge(book, lambda: (0.0, 0.0)), config, Metrics(), keep=kept.append)
    name = "meta-llama/Meta-Llama-3-70B-Instruct"
    for size in (10, MOST_RECENT_BYTES):
        asyncio.run(subject.validate(a_body(model={"name": name, "config": {"comment": "x" * size}}), None, "CREATE"))
    assert [each.facts is None for each in kept] == [False, True]
