"""Looks whether the API server still calls us: both webhook configurations, as this version needs them.

Every replica looks, so that a metric says it whoever leads; the leader says it in a condition as well. Nothing is healed
but a ``caBundle`` (``certificates.py``): what else was changed may have been meant, and is not ours to undo.
"""

import asyncio
import logging
import time
from typing import Any

from shardgate.adapters.webhook_registrations import chosen, differences, expected
from shardgate.shells.cluster import ApiError, ClusterUnreachable
from shardgate.shells.metrics import Metrics
from shardgate.shells.writer import Writer

log = logging.getLogger(__name__)

Json = dict[str, Any]
NAME = "shardgate"
ROOT = "/apis/admissionregistration.k8s.io/v1"
PLURALS = {
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
}
LOOK_SECONDS = 10.0
INSTALL_SECONDS = 60.0
"""An operator may come before its webhooks: one that was never seen is not missed until then."""
MOST_TOLD = 5
HTTP_NOT_FOUND = 404


class WebhookRegistrations:
    """Of one replica."""

    def __init__(self, writer: Writer, metrics: Metrics) -> None:
        self._writer, self._metrics = writer, metrics
        self._wanted = expected()
        self._first: dict[str, Json] = {}
        """Kind -> what the installation had chosen when it was first seen."""
        self._problems: dict[str, list[str]] = {}
        self._missing: set[str] = set()
        self._began = time.monotonic()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except (ApiError, ClusterUnreachable, TimeoutError) as error:
                log.warning("webhook configurations: %s", error or type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """At both. Raises ``ApiError`` and ``ClusterUnreachable``."""
        for kind, wanted in self._wanted.items():
            found = await self._read(kind)
            if found is not None:
                self._missing.discard(kind)
                problems = differences(wanted, found, self._first.setdefault(kind, chosen(found)))
            elif kind in self._first or time.monotonic() - self._began > INSTALL_SECONDS:
                self._missing.add(kind)
                problems = [f"the {kind} {NAME} is missing"]
            else:
                problems = []
            if problems != self._problems.get(kind, []):
                log.warning("%s: %s", kind, "; ".join(problems) or "as it should be again")
            self._problems[kind] = problems
            self._metrics.webhook_problems.labels(kind).set(len(problems))

    async def _read(self, kind: str) -> Json | None:
        try:
            return await self._writer.read(f"{ROOT}/{PLURALS[kind]}/{NAME}")
        except ApiError as error:
            if error.status != HTTP_NOT_FOUND:
                raise
            return None

    def stated(self) -> tuple[str, str, str]:
        """Status, reason and message of the condition ``WebhooksInPlace``."""
        problems = [each for kind in self._wanted for each in self._problems.get(kind, [])]
        if not problems and len(self._first) < len(self._wanted):
            return "Unknown", "NotSeen", "a webhook configuration was not seen yet"
        if not problems:
            return "True", "AsInstalled", "both webhook configurations are as they should be"
        more = f"; {len(problems) - MOST_TOLD} more" if len(problems) > MOST_TOLD else ""
        return "False", "Missing" if self._missing else "Changed", "; ".join(problems[:MOST_TOLD]) + more
