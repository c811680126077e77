"""A report taken apart: one part for each serving group, with the same names in it whether there are several or one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

_OF_A_GROUP = ("declared", "memory", "placement", "performance", "balance", "communication", "graph")


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Ranks of one stage in one data replica."""

    data: int
    stage: int
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What a report says of one group. A mapping is empty where all of it is unknown."""

    role: str
    declared: Json
    memory: Json
    placement: Json
    performance: Json
    balance: Json
    communication: Json
    graph: Json
    pods: Sequence[Json]
    """Of this group, all replicas."""

    @property
    def strategy(self) -> Json:
        """As in the spec; empty where unknown."""
        return self.declared.get("strategy") or {}

    def tensor_groups(self) -> list[TensorGroup]:
        """In the order of their ranks; empty where the strategy is unknown."""
        found: dict[tuple[int, int], list[int]] = {}
        for node in self.graph.get("nodes") or ():
            found.setdefault((node["data"], node["stage"]), []).append(node["rank"])
        if not found and self.strategy and (self.strategy.get("prefillContext") or 1) == 1:
            tensor, stages = self.strategy["tensor"], self.strategy["pipeline"]
            for rank in range((self.declared.get("gpusPerReplica") or 0) // tensor * tensor):
                found.setdefault((rank // tensor // stages, rank // tensor % stages), []).append(rank)
        return [TensorGroup(data, stage, tuple(sorted(ranks))) for (data, stage), ranks in sorted(found.items())]

    def widths_of_tensor(self) -> list[TensorGroup]:
        """The same, each as wide as the declared tensor width: a stage has one for each prefill context rank."""
        wide = self.strategy.get("tensor")
        return [
            TensorGroup(each.data, each.stage, each.ranks[at : at + (wide or len(each.ranks))])
            for each in self.tensor_groups()
            for at in range(0, len(each.ranks), wide or len(each.ranks))
        ]

    def seats(self, replica: int = 0) -> dict[int, tuple[str, int]]:
        """Rank -> node and local GPU, of one replica in the example placement."""
        return {
            rank: (pod["node"], gpu)
            for pod in self.pods
            if pod["replica"] == replica
            for rank, gpu in zip(pod["ranks"], pod["localGpus"], strict=False)
        }

    def layers(self) -> dict[int, tuple[int, int]]:
        """Stage -> its first and last layer."""
        return {each["stage"]: (each["firstLayer"], each["lastLayer"]) for each in self.memory.get("perStage") or ()}


def parts_of(report: Json) -> list[Part]:
    """The groups, in their order; one where the report has no ``groups``."""
    pods = (report.get("placement") or {}).get("pods") or ()
    groups = report.get("groups")
    if not groups:
        return [_part(report, "", pods)]
    first, *others = groups
    # The fields of the report itself describe the first group: it may lack there what stands above.
    whole = [{**report, **first}, *others]
    return [_part(each, each["role"], [pod for pod in pods if pod["group"] == each["role"]]) for each in whole]


def _part(document: Json, role: str, pods: Sequence[Json]) -> Part:
    return Part(role=role, pods=pods, **{key: document.get(key) or {} for key in _OF_A_GROUP})
