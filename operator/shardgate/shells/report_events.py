"""An event on a node's GpuNodeReport, once, where what its driver says contradicts labels, slices or the kubelet."""

from collections.abc import Iterator

from shardgate.adapters.gpu_node_reports import KIND
from shardgate.adapters.node_reports import NodeReports
from shardgate.domain.inventory import Inventory
from shardgate.shells.writer import Writer

REASON = "GpuFactsContradict"
MOST_AT_ONCE = 20
"""Events of one pass: a mistake in all labels at once is told in the course of a minute or two."""


class ReportEvents:
    """The replica that leads tells what stands, each once; whoever leads after it tells what still stands once more.

    What another replica has told cannot be known: it may have ended before it did, and a difference told twice is better
    than one that nobody told.
    """

    def __init__(self, writer: Writer, reports: NodeReports) -> None:
        self._writer, self._reports = writer, reports
        self._told: dict[str, str] = {}
        """Node -> what was last told of it."""
        self._owed: dict[str, str] = {}

    def note(self, inventory: Inventory, *, leading: bool) -> None:
        """What is so now. Where another replica leads, it tells."""
        if not leading:
            self._told, self._owed = {}, {}
            return
        now = dict(self._contradictions(inventory))
        self._told = {name: message for name, message in self._told.items() if name in now}
        self._owed = {name: message for name, message in now.items() if self._told.get(name) != message}

    def _contradictions(self, inventory: Inventory) -> Iterator[tuple[str, str]]:
        for group in inventory.groups:
            message = group.shape.gpu.contradiction
            if message:
                yield from ((node.name, message) for node in group.nodes if self._reports.facts(node.name) is not None)

    async def upkeep(self) -> None:
        """Tell what is owed. Raises ``ApiError`` and ``ClusterUnreachable``."""
        for name in list(self._owed)[:MOST_AT_ONCE]:
            message = self._told[name] = self._owed.pop(name)
            await self._writer.tell_of(KIND, "", name, REASON, message, uid=self._reports.uid(name))
