"""Conditions of the whole operator: written when one changes, and not more often than now and then."""

import asyncio
import time
from typing import Any

import pytest

from shardgate.adapters.claimed import ClaimedPods
from shardgate.shells import operator_status as module
from shardgate.shells.ledger import Ledger
from shardgate.shells.metrics import Metrics
from shardgate.shells.operator_status import OperatorStatus
from shardgate.shells.writer import Writer

Json = dict[str, Any]


class Api:
    """Stands in for the API server: the ledger."""

    def __init__(self) -> None:
        self.body: Json = {"metadata": {"name": "shardgate", "resourceVersion": "1"}, "spec": {}}
        self.writes = 0
        self.told: list[str] = []

    async def request(self, _: str, path: str, *, body: Json | None = None, **__: Any) -> Json:
        assert body is not None
        if path.endswith("/namespaces/default/events"):
            self.told.append(body["note"])
            return body
        assert path.endswith("/capacityledgers/shardgate/status")
        assert body["metadata"] == {"resourceVersion": self.body["metadata"]["resourceVersion"]}, "no older one is written over"
        self.writes += 1
        metadata = {"name": "shardgate", "resourceVersion": str(self.writes + 1)}
        self.body = {**self.body, "metadata": metadata, "status": body["status"]}
        return self.body


def test_it_is_written_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    api, problems = Api(), list[str]()
    ends = [time.time() + 86400 * 30]
    ledger = Ledger(Writer(api, Metrics(), "t"), ClaimedPods(None), Metrics())  # type: ignore[arg-type]
    writer = Writer(api, Metrics(), "t")  # type: ignore[arg-type]
    subject = OperatorStatus(
        writer, ledger, unready=lambda: problems, unsynced=list, not_after=lambda: ends[0]  # type: ignore[arg-type]
    )  # fmt: skip

    def reasons() -> dict[str, str]:
        asyncio.run(subject.upkeep())
        clock[0] += 11
        return {each["type"]: each["reason"] for each in ledger.conditions}

    assert (reasons(), api.writes) == ({}, 0), "there is no ledger yet"
    ledger.put(api.body)
    assert reasons() == {
        "InventorySynced": "Synced", "CertificateValid": "Valid", "WebhooksInPlace": "NotSeen", "Degraded": "AsExpected",
    }  # fmt: skip
    assert (reasons()["Degraded"], api.writes) == ("AsExpected", 1), "at rest nothing is written"
    problems.append("nodes: watch broken for 31 s")
    assert reasons()["Degraded"] == "NotReady"
    assert ledger.conditions[3]["message"] == "nodes: watch broken for 31 s"
    ends[0] = time.time() + 86400
    assert reasons()["CertificateValid"] == "ExpiresSoon"
    ends[0] = time.time() - 1
    assert reasons()["CertificateValid"] == "Expired"
    clock[0] -= 11
    problems.clear()
    assert reasons()["Degraded"] == "NotReady", "not twice within ten seconds"
    assert reasons()["Degraded"] == "AsExpected"
    writer.forbidden["inferencedeployments/status"] = "inferencedeployments/status: 403 Forbidden: no"
    assert reasons()["Degraded"] == "WriteForbidden"
    assert ledger.conditions[3]["message"] == "inferencedeployments/status: 403 Forbidden: no"
    writer.forbidden.clear()
    assert reasons()["Degraded"] == "AsExpected"


def test_what_somebody_did_is_told_by_an_event_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    api, refused, webhooks = Api(), [""], [("True", "AsInstalled", "as they should be")]
    ledger = Ledger(Writer(api, Metrics(), "t"), ClaimedPods(None), Metrics())  # type: ignore[arg-type]
    subject = OperatorStatus(
        Writer(api, Metrics(), "t"), ledger, unready=list, unsynced=list, not_after=lambda: None,  # type: ignore[arg-type]
        refused_pair=lambda: refused[0], webhooks=lambda: webhooks[0],
    )  # fmt: skip
    ledger.put(api.body)

    def told() -> list[str]:
        clock[0] += 11
        asyncio.run(subject.upkeep())
        taken, api.told = api.told, []
        return taken

    assert told() == []
    webhooks[0] = ("False", "Missing", "one is missing")
    assert told() == ["WebhooksInPlace: one is missing"]
    webhooks[0] = ("False", "Missing", "both are missing")
    assert told() == ["WebhooksInPlace: both are missing"]
    assert told() == []
    webhooks[0], refused[0] = ("True", "AsInstalled", "as they should be"), "half a certificate"
    (said,) = told()
    assert "half a certificate" in said
