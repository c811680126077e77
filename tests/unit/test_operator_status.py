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

    async def request(self, _: str, path: str, *, body: Json | None = None, **__: Any) -> Json:
        assert path.endswith("/capacityledgers/shardgate/status")
        assert body is not None
        self.writes += 1
        self.body = {**self.body, "metadata": {"name": "shardgate", "resourceVersion": str(self.writes + 1)}, **body}
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
    assert reasons() == {"InventorySynced": "Synced", "CertificateValid": "Valid", "Degraded": "AsExpected"}
    assert (reasons()["Degraded"], api.writes) == ("AsExpected", 1), "at rest nothing is written"
    problems.append("nodes: watch broken for 31 s")
    assert reasons()["Degraded"] == "NotReady"
    assert ledger.conditions[2]["message"] == "nodes: watch broken for 31 s"
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
    assert ledger.conditions[2]["message"] == "inferencedeployments/status: 403 Forbidden: no"
    writer.forbidden.clear()
    assert reasons()["Degraded"] == "AsExpected"
