"""Admission of our own kind, where no control plane is needed to see it."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builders import a_body, a_node
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.nodes import NodeObject
from shardgate.shells.config import OperatorConfig
from shardgate.shells.judge import Judge
from shardgate.shells.metrics import Metrics
from shardgate.shells.webhook import Admission

Json = dict[str, Any]


def answered(body: Json, old: Json | None = None) -> Json:
    book = ClusterBook()
    book.put_node(msgspec.convert(a_node().body, NodeObject, strict=False), 0.0)
    subject = Admission(
        Judge(book, lambda: (0.0, 0.0)), OperatorConfig(tls_cert=Path("c"), tls_key=Path("k")), Metrics(),
    )  # fmt: skip
    request = {
        "uid": "u", "operation": "UPDATE" if old else "CREATE", "userInfo": {"username": "jane"}, "object": body, "oldObject": old,
        "namespace": "serving", "resource": {"group": "shardgate.io", "version": "v1alpha1", "resource": "inferencedeployments"},
    }  # fmt: skip
    return asyncio.run(subject.answer(request))


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
