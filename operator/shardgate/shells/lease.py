"""Who of the replicas writes: a Lease, taken with optimistic locking, as client-go's leader election does.

Other machines' clocks are not trusted: a holder is gone when its lease has not changed for its duration by our own.
"""

import asyncio
import datetime
import logging
import time
from typing import Any

from shardgate.shells.cluster import ApiError, Cluster, ClusterUnreachable

log = logging.getLogger(__name__)

DURATION_SECONDS, RENEW_DEADLINE_SECONDS, RETRY_SECONDS = 15.0, 10.0, 2.0
HTTP_NOT_FOUND, HTTP_CONFLICT = 404, 409


class Lease:
    """A coordination.k8s.io Lease that one replica holds."""

    def __init__(self, cluster: Cluster, namespace: str, identity: str, name: str = "shardgate") -> None:
        self._cluster, self.identity, self.name = cluster, identity, name
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._namespace = namespace
        self._held = False
        self._renewed = 0.0
        self._seen: tuple[object, float] = (None, 0.0)
        self.gained = asyncio.Event()

    def is_held(self) -> bool:
        """Whether we may write now. False from the renew deadline on, before others may take over."""
        return self._held and time.monotonic() - self._renewed < RENEW_DEADLINE_SECONDS

    async def run(self) -> None:
        """Take it when it is free, renew it while it is ours, until cancelled."""
        while True:
            pause = RETRY_SECONDS
            try:
                held = await self._step()
            except (ApiError, ClusterUnreachable) as error:
                log.warning("lease %s/%s: %s", self._namespace, self.name, error)
                held = self.is_held()
                pause = max(pause, error.retry_after_seconds if isinstance(error, ApiError) else 0.0)
            except Exception:
                # An answer that makes no sense, a credential that cannot be refreshed: without a leader nothing is written,
                # so try again rather than end.
                log.exception("lease %s/%s", self._namespace, self.name)
                held = self.is_held()
            if held != self._held:
                log.info("lease %s/%s: %s", self._namespace, self.name, "leading" if held else "not leading")
                self._held = held
                if held:
                    self.gained.set()
            await asyncio.sleep(pause)

    async def _step(self) -> bool:
        started = time.monotonic()
        try:
            lease: dict[str, Any] | None = await self._cluster.request("GET", f"{self._collection}/{self.name}")
        except ApiError as error:
            if error.status != HTTP_NOT_FOUND:
                raise
            lease = None
        spec = (lease or {}).get("spec") or {}
        state = (spec.get("holderIdentity"), spec.get("renewTime"))
        if state != self._seen[0]:
            self._seen = (state, started)
        holder = spec.get("holderIdentity")
        duration = float(spec.get("leaseDurationSeconds") or DURATION_SECONDS)
        if holder and holder != self.identity and started - self._seen[1] <= duration:
            return False
        try:
            await self._write(lease, holder=self.identity, duration=int(DURATION_SECONDS))
        except ApiError as error:
            if error.status == HTTP_CONFLICT:
                return False
            raise
        self._renewed = started
        return True

    async def _write(self, lease: dict[str, Any] | None, *, holder: str, duration: int) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        before = (lease or {}).get("spec") or {}
        spec = {"holderIdentity": holder, "leaseDurationSeconds": duration, "renewTime": now}
        spec["acquireTime"] = before.get("acquireTime", now) if before.get("holderIdentity") == holder else now
        spec["leaseTransitions"] = int(before.get("leaseTransitions") or 0) + (before.get("holderIdentity") != holder)
        if lease is None:
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self.name}, "spec": spec}
            await self._cluster.request("POST", self._collection, body=body)
        else:
            await self._cluster.request("PUT", f"{self._collection}/{self.name}", body={**lease, "spec": spec})

    async def release(self) -> None:
        """Let go at once, so that another replica need not wait."""
        if not self._held:
            return
        self._held = False
        try:
            lease = await self._cluster.request("GET", f"{self._collection}/{self.name}")
            if lease["spec"].get("holderIdentity") == self.identity:
                await self._write(lease, holder="", duration=1)
        except (ApiError, ClusterUnreachable) as error:
            log.warning("lease %s/%s was not released: %s", self._namespace, self.name, error)
