"""What the operator writes to the API server, counted; and the events by which it tells of a verdict."""

import asyncio
import datetime
import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from shardgate.api import API_VERSION
from shardgate.domain.verdict import Outcome
from shardgate.shells.cluster import MERGE_PATCH, ApiError, Cluster, ClusterUnreachable
from shardgate.shells.event_series import EventSeries, Series
from shardgate.shells.metrics import Metrics

log = logging.getLogger(__name__)

Json = dict[str, Any]


def now() -> str:
    """As the API writes times."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


DEFAULT = "default"
MOST_OWED = 1000
HTTP_FORBIDDEN, HTTP_NOT_FOUND, HTTP_CONFLICT = 403, 404, 409
_FOR_GOOD = (400, 403, 404, 409, 422)
"""Answers that another try would get as well."""


class Writer:
    """Writes as one replica. Only the leader's should."""

    def __init__(self, cluster: Cluster, metrics: Metrics, identity: str) -> None:
        self._cluster, self._metrics, self._identity = cluster, metrics, identity
        self._events = EventSeries()
        self._owed: dict[int, Series] = {}
        """What is still to be told, by its identity; the oldest first."""
        self._sending = asyncio.Lock()
        self._tell_after = 0.0
        """Until then, by the monotonic clock, the API server asked to be left alone with events."""
        self.forbidden: dict[str, str] = {}
        """Resource -> what we may not write there, while that is so."""

    async def write(self, verb: str, path: str, resource: str, body: Json | None, **more: Any) -> Json:
        """One request. Raises ``ApiError`` and ``ClusterUnreachable``."""
        self._metrics.writes.labels(resource, verb.lower()).inc()
        kind = {"content_type": MERGE_PATCH} if verb == "PATCH" else {}
        try:
            answer: Json = await self._cluster.request(verb, path, body=body, **{**kind, **more})
        except ApiError as error:
            self._metrics.write_failures.labels(resource, str(error.status)).inc()
            if error.status == HTTP_FORBIDDEN:
                self.forbidden[resource] = f"{resource}: {error}"
            raise
        self.forbidden.pop(resource, None)
        return answer

    async def read(self, path: str) -> Json:
        """One object. Raises ``ApiError`` and ``ClusterUnreachable``."""
        answer: Json = await self._cluster.request("GET", path)
        return answer

    async def tell(self, body: Mapping[str, Any], outcome: Outcome, reason: str, note: str) -> None:
        """An event on the object."""
        metadata = body["metadata"]
        regarding = {
            "apiVersion": body["apiVersion"], "kind": body["kind"], "namespace": metadata["namespace"],
            "name": metadata["name"], "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
        }  # fmt: skip
        kind = "Warning" if outcome >= Outcome.RISKY else "Normal"
        await self._tell(regarding, kind, reason, f"{outcome.label}: {note}")

    async def tell_of(self, kind: str, namespace: str, name: str, reason: str, note: str, *, uid: str = "") -> None:
        """A warning event on an object of ours. Events of what has no namespace stand in ``default``."""
        regarding = {"apiVersion": API_VERSION, "kind": kind, "name": name}
        regarding |= {key: value for key, value in (("namespace", namespace), ("uid", uid)) if value}
        await self._tell(regarding, "Warning", reason, note)

    async def _tell(self, regarding: Json, kind: str, reason: str, note: str) -> None:
        unique = hashlib.sha256(f"{regarding}{reason}{time.time_ns()}".encode()).hexdigest()[:16]
        namespace = regarding.get("namespace") or DEFAULT
        event: Json = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{regarding['name'][:230]}.{unique}", "namespace": namespace},
            "eventTime": datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "reportingController": "shardgate.io/operator",
            "reportingInstance": self._identity[:128],
            "action": "Verify",
            "reason": reason,
            "type": kind,
            "note": note[:1024],
            "regarding": regarding,
        }
        series = self._events.note(namespace, event)
        if series is None:
            return
        self._owed[id(series)] = series
        if len(self._owed) > MOST_OWED:
            del self._owed[next(iter(self._owed))]
        await self.send_owed()

    async def send_owed(self) -> None:
        """Send what is still to be told; what cannot be sent now is kept for the next time."""
        async with self._sending:
            await self._send_owed()

    async def _send_owed(self) -> None:
        while self._owed and time.monotonic() >= self._tell_after:
            number, series = next(iter(self._owed.items()))
            try:
                await self._send(series)
            except ClusterUnreachable:
                return
            except ApiError as error:
                if error.status not in _FOR_GOOD:
                    self._tell_after = time.monotonic() + error.retry_after_seconds
                    return
                log.warning("an event is not told: %s", error)
            else:
                if series.told < series.count:
                    continue  # it has come to be once more meanwhile
            self._owed.pop(number, None)

    async def _send(self, series: Series) -> None:
        """Make its Event, or have the one that stands count. Raises ``ApiError`` and ``ClusterUnreachable``."""
        path, count = f"/apis/events.k8s.io/v1/namespaces/{series.namespace}/events", series.count
        if series.told:
            try:
                await self.write("PATCH", f"{path}/{series.event['metadata']['name']}", "events", series.patch())
            except ApiError as error:
                if error.status != HTTP_NOT_FOUND:
                    raise
                series.is_gone()  # events last an hour
                count = series.count
        if not series.told:
            try:
                await self.write("POST", path, "events", series.made())
            except ApiError as error:
                if error.status != HTTP_CONFLICT:
                    raise
                count = 1  # an earlier try came through: it says that at least
        series.told = count
