"""ConfigMaps that standing workloads name, read one by one: variables, start-up scripts and engines' configurations.

Nothing lists or watches ConfigMaps: they may hold anything, and most are none of ours. Each is read when a workload that
names it appears or changes, and again now and then; one that is not here is looked for soon, then ever more rarely: parts
are applied in any order. Admission does not wait for that: to it, a ConfigMap that was
not read is not here yet, and what it decides is unknown.
"""

import asyncio
import contextlib
import logging
import time
from typing import Any

from shardgate.adapters.workloads.config_map_names import config_maps_named
from shardgate.adapters.workloads.library import Library
from shardgate.shells.cluster import ApiError, Cluster, ClusterUnreachable

log = logging.getLogger(__name__)

Json = dict[str, Any]
Name = tuple[str, str]
"""Namespace, name."""

AGAIN_SECONDS = 300.0
SOON_SECONDS = 1.0
"""After which one that is not here is looked for again; each time as much later as it has been missed for."""
MOST_OF_A_WORKLOAD = 16
MOST_CHARACTERS = 64 << 20
"""Of all that are kept; what comes beyond is not here."""
HTTP_NOT_FOUND = 404


class ConfigMaps:
    """Into the book's library."""

    def __init__(self, cluster: Cluster, library: Library) -> None:
        self._cluster, self._library = cluster, library
        self._named: dict[str, frozenset[Name]] = {}
        """uid of a workload -> what it names."""
        self._due: dict[Name, float] = {}
        self._missed_since: dict[Name, float] = {}
        self._sizes: dict[Name, int] = {}
        """Characters of those that are kept."""
        self._wake = asyncio.Event()

    def follow(self, body: Json) -> None:
        """A workload was added or changed."""
        names = frozenset(list(config_maps_named(body))[:MOST_OF_A_WORKLOAD])
        metadata = body["metadata"]
        self._keep(metadata["uid"], frozenset((metadata.get("namespace") or "", name) for name in names))

    def unfollow(self, uid: str) -> None:
        """A workload was deleted."""
        self._keep(uid, frozenset())

    def _keep(self, uid: str, names: frozenset[Name]) -> None:
        before = self._named.pop(uid, frozenset())
        if names:
            self._named[uid] = names
        now = time.monotonic()
        for name in names:
            self._due[name] = now
        if names:
            self._wake.set()
        for name in before - names:
            if not any(name in each for each in self._named.values()):
                for kept in (self._due, self._sizes, self._missed_since):
                    kept.pop(name, None)
                self._library.drop(_body(name, {}))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            pause = min(self._due.values(), default=time.monotonic() + AGAIN_SECONDS) - time.monotonic()
            if pause > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
            self._wake.clear()
            now = time.monotonic()
            for name in [name for name, due in self._due.items() if due <= now]:
                try:
                    await self._read(name)
                except Exception:  # an answer that makes no sense, a credential that cannot be refreshed: later again
                    log.exception("ConfigMap %s/%s", *name)

    async def _read(self, name: Name) -> None:
        if name not in self._due:
            return  # its last workload went while another one was read
        self._due[name] = time.monotonic() + AGAIN_SECONDS
        try:
            found = await self._cluster.request("GET", f"/api/v1/namespaces/{name[0]}/configmaps/{name[1]}")
        except (ApiError, ClusterUnreachable) as error:
            if isinstance(error, ApiError) and error.status == HTTP_NOT_FOUND:
                self._put(name, None)
            else:
                log.warning("ConfigMap %s/%s is not read: %s", *name, error)
            return
        self._put(name, found.get("data") or {})

    def _put(self, name: Name, data: Json | None) -> None:
        """As it is now; what is the same changes nothing."""
        if name not in self._due:
            return  # its last workload went meanwhile
        size = sum(len(str(each)) for each in (data or {}).values())
        others = sum(self._sizes.values()) - self._sizes.get(name, 0)
        if data is None:
            now = time.monotonic()
            missed = now - self._missed_since.setdefault(name, now)
            self._due[name] = now + min(max(missed, SOON_SECONDS), AGAIN_SECONDS)
        else:
            self._missed_since.pop(name, None)
        if data is None or others + size > MOST_CHARACTERS:
            self._library.drop(_body(name, {}))
            self._sizes.pop(name, None)
        else:
            self._library.put(_body(name, data))
            self._sizes[name] = size


def _body(name: Name, data: Json) -> Json:
    return {"kind": "ConfigMap", "metadata": {"namespace": name[0], "name": name[1]}, "data": data}
