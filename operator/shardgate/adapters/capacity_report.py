"""What the cluster has of each kind of GPU -> one JSON document. What is not known is ``null``, never 0."""

from collections.abc import Iterable, Sequence
from typing import Any

from shardgate.adapters.gpu_resources import counted_once
from shardgate.api import API_VERSION
from shardgate.domain.capacity import POD_SIZES, Arrival, Demand, KindOfGpu, Supply, arrivals, supplies, waiting
from shardgate.domain.inventory import Inventory, Node

Json = dict[str, Any]
KIND = "Capacity"


def capacity_report(inventory: Inventory, pools: Iterable[Node] = ()) -> Json:
    """By kind of GPU, in the order of their names. ``pools``: what policies name as provisionable."""
    pools = tuple(pools)
    here, waits = supplies(inventory, counted_once), waiting(inventory, pools, counted_once)
    coming: dict[KindOfGpu, list[Arrival]] = {}
    for each in arrivals(inventory, pools, counted_once):
        coming.setdefault(each.kind, []).append(each)
    is_there = {kind for kind, supply in here.items() if supply.installed or supply.unavailable}
    kinds = sorted({*is_there, *coming, *waits.of_kind})
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "products": [
            _row(kind, here.get(kind, Supply()), coming.get(kind, ()), waits.of_kind.get(kind, Demand(pods=0, gpus=0)))
            for kind in kinds
        ],
        "pending": {**_demand(waits.total), "nowhere": _demand(waits.nowhere)},
    }


def _row(kind: KindOfGpu, supply: Supply, coming: Sequence[Arrival], demand: Demand) -> Json:
    return {
        "product": kind.product or None,
        "resource": kind.resource,
        "part": kind.part or None,
        "sharing": kind.sharing,
        "nodes": supply.nodes,
        "gpusInstalled": supply.installed,
        "gpusUnavailable": supply.unavailable,
        "gpusFree": supply.free,
        "gpusClaimed": supply.claimed,
        "gpusComingFree": supply.coming_free,
        "placeablePods": {str(size): supply.placeable[size] for size in reversed(POD_SIZES)},
        "arriving": {
            "nodes": _sum(each.nodes for each in coming),
            "gpus": _sum(each.gpus for each in coming),
            "from": [
                {
                    "origin": each.origin, "onItsWay": each.is_on_its_way, "nodes": each.nodes, "gpus": each.gpus,
                    "delay": each.delay or None,
                }
                for each in coming
            ],
        },
        "pending": _demand(demand),
    }  # fmt: skip


def _demand(demand: Demand) -> Json:
    return {"pods": demand.pods, "gpus": demand.gpus}


def _sum(amounts: Iterable[int | None]) -> int | None:
    """``None`` where one of them is not known."""
    total = 0
    for each in amounts:
        if each is None:
            return None
        total += each
    return total
