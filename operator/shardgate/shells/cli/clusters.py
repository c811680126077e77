"""Which cluster a command asks: a snapshot's, one that is made up, or the live one."""

from collections.abc import Mapping, Sequence
from typing import Any

import rich_click as click

from shardgate.shells.documents import read_documents
from shardgate.shells.snapshot import GpusError, Snapshot, from_gpus, live_snapshot


def cluster_of(clusters: Sequence[str], gpus: str | None = None, declared: Sequence[Mapping[str, Any]] = ()) -> Snapshot:
    """``--cluster`` or ``--gpus``, else the live cluster with what these objects refer to there.

    Raises ``click.UsageError``, ``NoSuchFile``, ``ClusterUnreachable`` and ``ApiError``.
    """
    if clusters and gpus is not None:
        problem = "--cluster and --gpus exclude each other"
        raise click.UsageError(problem)
    if gpus is not None:
        try:
            return from_gpus(gpus)
        except GpusError as error:
            problem = f"--gpus {error}"
            raise click.UsageError(problem) from error
    if clusters:
        snapshot = Snapshot()
        snapshot.add(read_documents(clusters))
        return snapshot
    return live_snapshot(declared)
