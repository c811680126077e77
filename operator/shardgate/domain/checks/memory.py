"""The fullest rank against every GPU that it could land on."""

from collections.abc import Iterable, Iterator

from shardgate.domain.codes import finding
from shardgate.domain.declaration import Declaration
from shardgate.domain.engine import EngineRule
from shardgate.domain.fitting import Fit, GpuFit, fit_of
from shardgate.domain.inventory import Gpu, NodeGroup, NodeState
from shardgate.domain.placement import accepts_product
from shardgate.domain.policy import Capacity
from shardgate.domain.situation import Situation
from shardgate.domain.units import gib
from shardgate.domain.verdict import Finding, FindingClass, Outcome

_WHERE = {
    "WeightsDoNotFit": "spec.model",
    "NoRoomForKvCache": "spec.model",
    "ContextDoesNotFit": "spec.engine.maxModelLen",
    "UtilizationTooHigh": "spec.engine.memoryUtilization",
    "PrecisionUnsupported": "spec.model.dtype",
}
MOST_FACTOR = 2**16


def rank_fits(situation: Situation) -> Iterator[Finding]:
    """Some GPU that the pods may land on will do for the fullest rank: weights, KV cache, context, precision."""
    found = situation.found_of_shape
    if situation.weighed is None or not found or situation.stale or situation.pod.replicas == 0:
        return
    if min(each.fit for each in found.values()) is Fit.UNFIT:
        best = situation.best_found
        if best is not None:
            yield finding(
                best.code,
                where=_WHERE[best.code],
                outcome=_outcome_of_no_fit(situation),
                message=best.message,
                remedy=_remedy(best),
                source=_source(situation.declaration, best.rule),
            )
        return
    landable = [group for group in situation.candidates if _could_land(group, situation)]
    unfit = [group for group in landable if situation.fit(group) is Fit.UNFIT]
    if unfit:
        products = sorted({group.shape.unit(situation.pod.resource).product or "GPUs of unknown product" for group in unfit})
        few, all_of_them = (sum(group.count for group in groups) for groups in (unfit, landable))
        first = found[id(unfit[0].shape)]
        yield finding(
            first.code,
            where="spec.placement",
            outcome=Outcome.RISKY,
            message=f"kube-scheduler may choose {few} of {all_of_them} nodes whose GPUs ({', '.join(products)}) will not do: "
            f"{first.message}",
            remedy="select other GPUs in spec.placement.nodeSelector, or name them in spec.gpus.products",
            source=_source(situation.declaration, first.rule),
        )


def _source(declaration: Declaration, rule: EngineRule | None) -> str:
    return "" if rule is None else f"{declaration.engine.name}: {rule.message} ({rule.source}; {rule.versions})"


def _outcome_of_no_fit(situation: Situation) -> Outcome:
    """Under open capacity only what no GPU that may be chosen could ever hold is refused.

    An engine or a flag that is not modelled might keep weights elsewhere; a class that was not read may be smaller.
    """
    if situation.declaration.is_memory_uncertain:
        return Outcome.UNDECIDED
    if situation.policy.capacity is Capacity.CLOSED:
        return Outcome.UNSOUND
    return Outcome.WAITING if any(_would_do(gpu, situation) for gpu in _may_come(situation)) else Outcome.UNSOUND


def _may_come(situation: Situation) -> Iterable[Gpu]:
    """Known GPUs that products and selector would let in. A product that the table does not know may be any size."""
    wish, selected = situation.declaration.gpus, situation.declaration.placement.product
    let_in = [
        gpu
        for gpu in situation.inventory.known_gpus
        if accepts_product(wish.products, gpu.product) and (selected is None or (gpu.product or "").lower() == selected.lower())
    ]
    return let_in or [Gpu(product=None, memory=None, visible=None)]


def _would_do(gpu: Gpu, situation: Situation) -> bool:
    if situation.weighed is None:
        return True
    return fit_of(gpu, situation.declaration, situation.weighed, situation.inventory.distrusted).fit is not Fit.UNFIT


def _remedy(best: GpuFit) -> str:
    """What would change it."""
    estimate = best.estimate
    match best.code:
        case "ContextDoesNotFit":
            tokens = int(estimate.longest.low) if estimate is not None else 0
            return f"set spec.engine.maxModelLen to at most {tokens}, or -1 where the version can" if tokens else _split(best)
        case "UtilizationTooHigh":
            return "lower spec.engine.memoryUtilization"
        case "PrecisionUnsupported":
            return "declare spec.model.dtype fp16, other weights, or select newer GPUs"
        case "WeightsDoNotFit" | "NoRoomForKvCache":
            return _split(best)
        case _:
            return ""


def _split(best: GpuFit) -> str:
    """The least widening, by doubling, that would make room by its share."""
    estimate = best.estimate
    if estimate is None:
        return "split it over more GPUs, choose smaller weights, or GPUs with more memory"
    rank = estimate.fullest
    room = rank.budget.low - rank.activation.high - rank.overhead.high
    factor = 2
    while rank.weights.value + rank.needed > room * factor and factor < MOST_FACTOR:
        factor *= 2
    widen = f"split it over {factor} times as many GPUs, " if room > 0 and factor < MOST_FACTOR else ""
    return f"{widen}choose smaller weights, or GPUs with more memory"


def _could_land(group: NodeGroup, situation: Situation) -> bool:
    node = group.like
    return node.state is NodeState.USABLE and node.allocatable.get(situation.pod.resource, 0) >= situation.pod.gpus


def uncertain_fit(situation: Situation) -> Iterator[Finding]:
    """A limit inside the estimate's uncertainty is not a coin toss."""
    if situation.stale or not situation.rests_on(Fit.TIGHT):
        return
    tight = next(found for found in situation.found_of_shape.values() if found.fit is Fit.TIGHT)
    remedy = "leave more room: a wider split, smaller weights, a shorter maxModelLen, or GPUs with more memory"
    if tight.code == "PrecisionUnsupported":
        remedy = "name the engine's version, or select newer GPUs"
    elif tight.code == "GpuMemoryHeld":
        remedy = "end those processes (kubectl get gpunodereports shows them), select other nodes, or leave them more room"
    elif tight.code == "MemoryNotModelled":
        remedy = "try it on a GPU before you rely on it; `shardgate accuracy` shows what was predicted badly"
    yield finding(
        tight.code, where=_WHERE.get(tight.code, "spec.model"), outcome=Outcome.UNDECIDED, message=tight.message, remedy=remedy,
        source=_source(situation.declaration, tight.rule),
    )  # fmt: skip


def memory_is_modelled(situation: Situation) -> Iterator[Finding]:
    """How the engine budgets memory is known, wherever its weights alone would fit."""
    engine = situation.declaration.engine
    if situation.weighed is None or situation.stale or not engine.known or engine.memory:
        return
    if situation.best_found is not None and situation.best_found.fit is Fit.UNFIT:
        return
    fullest = situation.weighed.weights.fullest.per_rank
    yield finding(
        "MemoryNotModelled",
        where="spec.engine.name",
        outcome=Outcome.UNDECIDED,
        message=f"the fullest rank holds {gib(fullest)} of weights; what {engine.name} needs besides is not modelled",
        remedy="vllm, sglang and tensorrt-llm are modelled",
        bears_on=(FindingClass.MEMORY,),
    )


CHECKS = (rank_fits, uncertain_fit, memory_is_modelled)
