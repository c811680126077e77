"""The live cluster as objects to be kept in a file, each as far as verdicts rest on it."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from shardgate.adapters.quantities import QuantityError
from shardgate.adapters.snapshots import kept
from shardgate.shells.cluster import Cluster
from shardgate.shells.documents import Document, Unreadable
from shardgate.shells.live_objects import live_declarations, live_facts
from shardgate.shells.live_references import referred

Json = dict[str, Any]


@dataclass(slots=True)
class ClusterSnapshot:
    """Objects, and what could not be read."""

    objects: list[Json] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    def text(self) -> Iterator[str]:
        """A ``List`` as JSON, an object a line."""
        yield '{"apiVersion": "v1", "kind": "List", "items": [\n'
        for number, each in enumerate(self.objects):
            yield msgspec.json.encode(each).decode() + (",\n" if number + 1 < len(self.objects) else "\n")
        yield "]}\n"


def cluster_snapshot(*, with_workloads: bool) -> ClusterSnapshot:
    """Facts and InferenceDeployments; ``with_workloads``: also other kinds that declare something, and what they refer to.

    Raises ``ClusterUnreachable`` and ``ApiError``.
    """
    return asyncio.run(_taken(with_workloads=with_workloads))


async def _taken(*, with_workloads: bool) -> ClusterSnapshot:
    found = ClusterSnapshot()
    async with Cluster.from_environment() as cluster:
        async for facts in live_facts(cluster):
            _keep(facts, found)
        declared: list[Document] = []
        async for documents in live_declarations(cluster):
            found.unreadable += [each for each in documents if isinstance(each, Unreadable)]
            declared += [each for each in documents if isinstance(each, Document)]
            if not with_workloads:
                break  # ours are the first
        _keep(declared, found)
        if with_workloads:
            async for body in referred(cluster, [each.body for each in declared]):
                _keep([Document(cluster.server, body)], found)
    return found


def _keep(documents: list[Document], found: ClusterSnapshot) -> None:
    for document in documents:
        try:
            body = kept(dict(document.body))
        except (msgspec.ValidationError, QuantityError) as error:
            name = (document.body.get("metadata") or {}).get("name")
            found.unreadable.append(Unreadable(document.where, f"{document.body.get('kind')} {name}: {error}"))
            continue
        if body is not None:
            found.objects.append(body)
