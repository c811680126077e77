"""Which standing verdicts would change, if the cluster did."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shardgate.adapters.cluster_changes import Change, ChangedCluster, NoSuchNode, changed
from shardgate.adapters.standing_workloads import key_of
from shardgate.adapters.verdict_changes import VerdictChange, verdict_changes
from shardgate.shells.cluster import Cluster
from shardgate.shells.documents import Document, Unreadable, read_documents
from shardgate.shells.failures import NotFound
from shardgate.shells.live_objects import live_declarations, live_facts
from shardgate.shells.live_references import referred
from shardgate.shells.standing_verdicts import standing_verdicts

Follow = Callable[[Sequence[Any], str], Iterable[Any]]
"""Tells of each item as it is taken, with what is being done."""


class NoNode(NotFound):
    """A node that is named is not there."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """How the cluster changes, and the verdicts with it."""

    cluster: ChangedCluster
    judged: int
    changes: tuple[VerdictChange, ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def is_worse(self) -> bool:
        """Some verdict becomes worse."""
        return any(each.after.outcome > each.before.outcome for each in self.changes)


def what_if(changes: Sequence[Change], here: Sequence[Document | Unreadable], follow: Follow, moment: float = 0.0) -> WhatIf:
    """``here``: all objects, of one key the last counts; ``moment``: Unix time at which they were read of a live cluster.

    Raises ``NoNode`` and ``AdditionError``.
    """
    documents = list({_key(each): each for each in here if isinstance(each, Document)}.values())
    try:
        cluster = changed([dict(each.body) for each in documents], changes)
    except NoSuchNode as error:
        raise NoNode(str(error)) from error
    where = {id(each.body): each.where for each in documents}
    before = standing_verdicts(documents, follow=lambda items: follow(items, "judging what stands"), moment=moment)
    after = standing_verdicts(
        [Document(where.get(id(each), "after the change"), each) for each in cluster.objects],
        cluster.moved,
        follow=lambda items: follow(items, "judging what would stand"),
        moment=moment,
    )
    unreadable = dict.fromkeys((*(each for each in here if isinstance(each, Unreadable)), *before.unreadable))
    return WhatIf(
        cluster=cluster, judged=len(before.verdicts), changes=tuple(verdict_changes(before.verdicts, after.verdicts)),
        unreadable=tuple(unreadable),
    )  # fmt: skip


def _key(document: Document) -> object:
    key = key_of(document.body)
    return key if key[3] not in ("", "None") else id(document)


def objects_of(clusters: Sequence[str], files: Sequence[str]) -> list[Document | Unreadable]:
    """Of snapshots, else of the live cluster, then of files. Raises ``NoSuchFile``, ``ClusterUnreachable`` and ``ApiError``."""
    declared = list(read_documents(files))
    here = list(read_documents(clusters)) if clusters else asyncio.run(_live(declared))
    return [*here, *declared]


async def _live(declared: Sequence[Document | Unreadable]) -> list[Document | Unreadable]:
    found: list[Document | Unreadable] = []
    async with Cluster.from_environment() as cluster:
        async for facts in live_facts(cluster):
            found += facts
        async for documents in live_declarations(cluster):
            found += documents
            declared = [*declared, *documents]
        async for body in referred(cluster, [each.body for each in declared if isinstance(each, Document)]):
            found.append(Document(cluster.server, body))
    return found
