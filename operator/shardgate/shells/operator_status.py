"""How the whole operator is: conditions on the CapacityLedger's status, written by the leader where one changed."""

import datetime
import time
from collections.abc import Callable, Sequence
from typing import Any

from shardgate.adapters.status import condition
from shardgate.api import GROUP, VERSION
from shardgate.shells.ledger import KIND, NAME, PLURAL, Ledger
from shardgate.shells.writer import Writer, now

Json = dict[str, Any]
Stated = tuple[str, str, str]
"""Status, reason and message of a condition."""
STATUS = "capacityledgers/status"
EXPIRES_SOON_SECONDS = 2 * 86400
TOLD = ("CertificateValid", "WebhooksInPlace")
"""Conditions that turn bad by somebody's doing: told by an event as well."""
LEAST_PAUSE_SECONDS = 10.0
"""Between two writes: what flaps is told now and then."""


class OperatorStatus:
    """Of the replica that leads."""

    def __init__(
        self, writer: Writer, ledger: Ledger, *, unready: Callable[[], Sequence[str]], unsynced: Callable[[], Sequence[str]],
        not_after: Callable[[], float | None], refused_pair: Callable[[], str] = lambda: "",
        webhooks: Callable[[], Stated] = lambda: ("Unknown", "NotSeen", "not looked at"),
    ) -> None:  # fmt: skip
        """``refused_pair``: why a pair that was delivered is not served; ``webhooks``: the condition of their configurations."""
        self._writer, self._ledger = writer, ledger
        self._refused_pair, self._webhooks = refused_pair, webhooks
        self._unready, self._unsynced, self._not_after = unready, unsynced, not_after
        self._written = float("-inf")

    def stated(self) -> list[tuple[str, str, str, str]]:
        """(type, status, reason, message) of each condition now."""
        unsynced, unready, not_after = self._unsynced(), self._unready(), self._not_after()
        left = float("inf") if not_after is None else not_after - time.time()
        until = "" if not_after is None else datetime.datetime.fromtimestamp(not_after, datetime.UTC).strftime("%Y-%m-%d")
        refused = self._refused_pair()
        if refused:
            certificate = (
                "False",
                "Invalid",
                f"the pair that was delivered is not served: {refused}; the one before is, until {until}",
            )
        elif left <= 0:
            certificate = ("False", "Expired", f"the serving certificate ended on {until}")
        elif left < EXPIRES_SOON_SECONDS:
            certificate = ("True", "ExpiresSoon", f"the serving certificate ends on {until}")
        else:
            certificate = ("True", "Valid", f"the serving certificate is valid until {until}")
        behind, ill = "; ".join(unsynced), "; ".join(unready)
        forbidden = "; ".join(self._writer.forbidden.values())
        degraded = ("False", "AsExpected", "all is well")
        if ill or forbidden:
            degraded = ("True", "NotReady" if ill else "WriteForbidden", "; ".join(filter(None, (ill, forbidden))))
        return [
            ("InventorySynced", "False", "Behind", behind) if behind else ("InventorySynced", "True", "Synced", "all is followed"),
            ("CertificateValid", *certificate),
            ("WebhooksInPlace", *self._webhooks()),
            ("Degraded", *degraded),
        ]

    async def upkeep(self) -> None:
        """Write what changed. Raises ``ApiError`` and ``ClusterUnreachable``."""
        stored = {each["type"]: each for each in self._ledger.conditions}
        wanted = self.stated()
        changed = [each for each in wanted if _says_new(stored.get(each[0]) or {}, *each)]
        if not self._ledger.version or not changed or time.monotonic() - self._written < LEAST_PAUSE_SECONDS:
            return
        self._written = time.monotonic()
        conditions = [condition(stored.get(each[0]), *each, None, now()) for each in wanted]
        path = f"/apis/{GROUP}/{VERSION}/{PLURAL}/{NAME}/status"
        # Locked: of a leader that was cut off with this on its way, nothing is taken once another one has written.
        patch = {"metadata": {"resourceVersion": self._ledger.version}, "status": {"conditions": conditions}}
        self._ledger.put(await self._writer.write("PATCH", path, STATUS, patch))
        for kind, value, reason, message in changed:
            if kind in TOLD and value == "False":
                await self._writer.tell_of(KIND, "", NAME, reason, f"{kind}: {message}")


def _says_new(stored: Json, kind: str, _: str, reason: str, message: str) -> bool:
    """Other messages have figures in them that move by themselves."""
    return stored.get("reason") != reason or (kind == "WebhooksInPlace" and stored.get("message") != message)
