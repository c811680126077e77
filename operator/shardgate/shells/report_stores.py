"""What reflectors of node agents fill: their reports, and the Leases that tell that they live."""

import time
from collections.abc import Callable

from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.nodes import HeartbeatObject, ReportObject


class Reports:
    """GpuNodeReports into the book."""

    def __init__(self, book: ClusterBook) -> None:
        self._book = book

    def key(self, item: ReportObject) -> str:
        """By name: the node's."""
        return item.metadata.name

    def put(self, item: ReportObject) -> None:
        """Added or changed."""
        self._book.put_report(item, time.monotonic())

    def drop(self, item: ReportObject) -> None:
        """Deleted."""
        self._book.drop_report(item.metadata.name, time.monotonic())

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        self._book.retain_reports(keys, time.monotonic())


class Heartbeats:
    """Agents' Leases into the book. There are many, and nearly all say nothing new: only the others are told on."""

    def __init__(self, book: ClusterBook, on_other: Callable[[], None]) -> None:
        """``on_other``: called where a node counts otherwise by it."""
        self._book, self._on_other = book, on_other

    def key(self, item: HeartbeatObject) -> str:
        """By name."""
        return item.metadata.name

    def put(self, item: HeartbeatObject) -> None:
        """Added or renewed."""
        if self._book.put_heartbeat(item, time.monotonic(), time.time()):
            self._on_other()

    def drop(self, item: HeartbeatObject) -> None:
        """Deleted."""
        self._book.drop_heartbeat(item.metadata.name, time.monotonic())
        self._on_other()

    def retain(self, keys: set[str]) -> None:
        """Listed."""
        self._book.retain_heartbeats(keys, time.monotonic())
