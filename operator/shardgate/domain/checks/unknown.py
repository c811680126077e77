"""Facts that are missing, where the outcome depends on them. We do not guess."""

from collections.abc import Iterator

from shardgate.domain.arrivals import why_not
from shardgate.domain.codes import finding
from shardgate.domain.declaration import ModelUnknown
from shardgate.domain.fitting import Fit
from shardgate.domain.inventory import NodeGroup
from shardgate.domain.policy import Capacity
from shardgate.domain.situation import BROKEN_WATCH_STALE_AFTER_SECONDS, Situation
from shardgate.domain.units import count
from shardgate.domain.verdict import Finding, FindingClass, Outcome

_SHAPE_AND_MEMORY = (FindingClass.SHAPE, FindingClass.MEMORY)


def model_is_known(situation: Situation) -> Iterator[Finding]:
    """The model's architecture is in the catalogue, or given."""
    model = situation.declaration.model
    if isinstance(model, ModelUnknown) and not situation.declaration.unknown_strategy:
        yield finding(
            "ModelUnknown", where="spec.model", outcome=Outcome.UNDECIDED,
            message=model.problem, remedy=model.remedy, bears_on=_SHAPE_AND_MEMORY,
        )  # fmt: skip


def engine_is_known(situation: Situation) -> Iterator[Finding]:
    """The engine is one whose rules are known."""
    engine = situation.declaration.engine
    if not engine.known:
        yield finding(
            "EngineUnknown",
            where="spec.engine.name",
            outcome=Outcome.UNDECIDED,
            message="no engine is declared" if not engine.name else f"the rules of engine {engine.name} are not known",
            remedy="name the engine: vllm, sglang, tensorrt-llm, lmdeploy, tgi or nim",
            bears_on=_SHAPE_AND_MEMORY,
        )


def declaration_is_readable(situation: Situation) -> Iterator[Finding]:
    """Nothing that bears on the verdict was opaque."""
    for what in situation.declaration.opaque:
        yield finding(
            "DeclarationOpaque", where="spec", outcome=Outcome.UNDECIDED, message=what,
            remedy="state it in the declaration", bears_on=_SHAPE_AND_MEMORY,
        )  # fmt: skip


def inventory_is_fresh(situation: Situation) -> Iterator[Finding]:
    """The picture of the cluster is recent enough to judge by."""
    if situation.stale:
        inventory = situation.inventory
        broken = inventory.broken_seconds > BROKEN_WATCH_STALE_AFTER_SECONDS
        what = (
            f"a watch on the cluster has been broken for {inventory.broken_seconds:.0f} s"
            if broken
            else f"the API server was last heard from {inventory.age_seconds:.0f} s ago"
        )
        limit = BROKEN_WATCH_STALE_AFTER_SECONDS if broken else situation.policy.stale_after_seconds
        yield finding(
            "InventoryStale",
            where="spec",
            outcome=Outcome.UNDECIDED,
            message=f"{what}, the limit is {limit} s: GPUs and nodes are not judged",
            remedy="check that Shardgate reaches the API server (metric shardgate_inventory_last_event_timestamp_seconds)",
            bears_on=(FindingClass.MEMORY, FindingClass.CAPACITY),
        )


def inventory_has_gpus(situation: Situation) -> Iterator[Finding]:
    """Some GPU node was seen, or one may come."""
    inventory = situation.inventory
    if situation.stale or not situation.nothing_seen:
        return
    message = "no node was seen" if not inventory.nodes_seen else f"none of {count(inventory.nodes_seen, 'node')} has GPUs"
    yield finding(
        "InventoryEmpty",
        where="spec",
        outcome=Outcome.UNDECIDED,
        message=f"{message}, and {why_not(situation) or 'no pool is known that could bring one'}",
        remedy="add GPU nodes, or name what may come in a VerificationPolicy's provisionable",
        bears_on=(FindingClass.MEMORY, FindingClass.CAPACITY),
    )


def gpu_facts_are_known(situation: Situation) -> Iterator[Finding]:
    """The memory of a GPU that is needed is known, and nothing contradicts it."""
    if situation.stale or not situation.rests_on(Fit.UNKNOWN):
        return
    unknown = [group for group in situation.candidates if situation.fit(group) is Fit.UNKNOWN]
    nodes = count(sum(group.count for group in unknown), "node")
    contradictions = sorted(
        {found.message for group in unknown if (found := situation.found_of_shape[id(group.shape)]).code == "GpuFactsContradict"}
    )
    if contradictions:
        yield finding(
            "GpuFactsContradict", where="spec.gpus", outcome=Outcome.UNDECIDED, bears_on=(FindingClass.MEMORY,),
            message=f"what {nodes} that the pods would need say of their GPUs cannot all be right: {'; '.join(contradictions[:3])}",
            remedy="correct the labels (shardgate nodes shows where each fact comes from)",
        )  # fmt: skip
    else:
        yield finding(
            "GpuFactsMissing", where="spec.gpus", outcome=Outcome.UNDECIDED, bears_on=(FindingClass.MEMORY,),
            message=f"nothing tells the GPU memory of {nodes} that the pods would need",
            remedy="run NVIDIA GPU Feature Discovery (label nvidia.com/gpu.memory), or the vendor's labeller",
        )  # fmt: skip


def gpus_are_whole(situation: Situation) -> Iterator[Finding]:
    """The units that are needed are whole GPUs; ranks of one pod on one card cannot talk to each other."""
    if situation.stale or not situation.rests_on(Fit.SHARED):
        return
    shared = [group for group in situation.candidates if situation.fit(group) is Fit.SHARED]
    nodes = count(sum(group.count for group in shared), "node")
    ranks, resource = situation.pod.ranks_per_pod, situation.pod.resource
    where, remedy = "spec.gpus.resource", "select nodes with whole GPUs in spec.placement.nodeSelector"
    bears_on = (FindingClass.MEMORY, FindingClass.CAPACITY)
    cards = [_cards(group, resource) for group in shared]
    most = max((each for each in cards if each is not None), default=0)
    if situation.policy.capacity is Capacity.CLOSED and None not in cards and most < ranks:
        yield finding(
            "GpuShared", where=where, outcome=Outcome.UNSOUND, remedy=remedy, bears_on=bears_on,
            message=f"a pod's {ranks} ranks need a card each; of {nodes} that the pods would need, none has more than "
            f"{count(most, 'card')}, shared in time: two ranks on one card cannot talk to each other",
        )  # fmt: skip
        return
    kinds = sorted({group.shape.unit(resource).sharing.value for group in shared})
    yield finding(
        "GpuShared", where=where, outcome=Outcome.UNDECIDED, remedy=remedy, bears_on=bears_on,
        message=f"{resource} is shared on {nodes} that the pods would need ({', '.join(kinds)}): "
        "what one unit may use is not certain",
    )  # fmt: skip


def _cards(group: NodeGroup, resource: str) -> int | None:
    """Physical cards of a node whose units share them in time; ``None`` where that is not known."""
    units = group.shape.unit(resource).units_per_card
    return None if units is None else group.installed(resource) // units


def constraints_are_modelled(situation: Situation) -> Iterator[Finding]:
    """A constraint that is not modelled can only restrict, so it leaves open only what would fit."""
    wish = situation.declaration.placement
    unmodelled = wish.unmodelled
    if situation.pod.leader is not None and wish.rules.demands:
        unmodelled = (*unmodelled, "rules between pods of which the leader differs from its workers")
    if unmodelled and situation.placement.feasible and not situation.stale:
        yield finding(
            "ConstraintNotModelled",
            where="spec.placement",
            outcome=Outcome.UNDECIDED,
            message=f"the pods fit, were it not for {', '.join(unmodelled)}, which is not modelled",
            remedy="say it in nodeSelector and tolerations, as far as it goes",
            bears_on=(FindingClass.CAPACITY,),
        )


CHECKS = (
    declaration_is_readable,
    model_is_known,
    engine_is_known,
    inventory_is_fresh,
    inventory_has_gpus,
    gpu_facts_are_known,
    gpus_are_whole,
    constraints_are_modelled,
)
