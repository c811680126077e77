"""The fullest rank against every GPU that it could land on."""

from collections.abc import Iterable, Iterator

from shardgate.domain.codes import finding
from shardgate.domain.inventory import Gpu, NodeGroup, NodeState
from shardgate.domain.placement import accepts_product
from shardgate.domain.policy import Capacity
from shardgate.domain.situation import Fit, Situation, best_budget, budget_of, fit_of
from shardgate.domain.units import gib
from shardgate.domain.verdict import Finding, Outcome


def weights_fit(situation: Situation) -> Iterator[Finding]:
    """The weights of the fullest rank fit the engine's budget on a GPU that it may land on."""
    weights, fits = situation.weights, situation.fit_of_shape
    if weights is None or not fits or situation.stale or situation.pod.replicas == 0:
        return
    declaration = situation.declaration
    if min(fits.values()) is Fit.TOO_SMALL:
        best = best_budget(situation)
        if best is None:
            return
        yield finding(
            "WeightsDoNotFit",
            where="spec.model",
            outcome=_outcome_of_no_fit(situation),
            message=f"the fullest rank holds {gib(weights.fullest.per_rank)} of weights, "
            f"a {best.product} offers {gib(best.budget)} of {gib(best.reported)}",
            remedy=_remedy(situation),
            source=f"{declaration.weights_name} weights of {declaration.model_name}; budget: "
            f"{declaration.engine.utilization_high:g} of the memory that {declaration.engine.name} sees",
        )
        return
    landable = [group for group in situation.candidates if _could_land(group, situation)]
    small = [group for group in landable if situation.fit(group) is Fit.TOO_SMALL]
    if small:
        products = sorted({group.shape.gpu.product or "GPUs of unknown product" for group in small})
        few, all_of_them = (sum(group.count for group in groups) for groups in (small, landable))
        yield finding(
            "WeightsDoNotFit",
            where="spec.placement",
            outcome=Outcome.RISKY,
            message=f"kube-scheduler may choose {few} of {all_of_them} nodes whose GPUs ({', '.join(products)}) "
            f"are too small for the fullest rank's {gib(weights.fullest.per_rank)} of weights",
            remedy="select the larger GPUs in spec.placement.nodeSelector, or name them in spec.gpus.products",
        )


def _outcome_of_no_fit(situation: Situation) -> Outcome:
    """Under open capacity only what no GPU that may be chosen could ever hold is refused.

    An engine or a flag that is not modelled might keep weights elsewhere.
    """
    if situation.declaration.may_keep_weights_elsewhere:
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
    if situation.weights is None:
        return True
    return fit_of(gpu, situation.declaration, situation.weights) is not Fit.TOO_SMALL


def _remedy(situation: Situation) -> str:
    """The least tensor width, by doubling, whose rank would fit by its share."""
    weights, best = situation.weights, best_budget(situation)
    if weights is None or best is None or best.budget <= 0:
        return ""
    factor = 1
    while weights.fullest.per_rank > best.budget * factor and factor < weights.fullest.per_rank:
        factor *= 2
    return f"split it over {factor} times as many GPUs, choose smaller weights, or GPUs with more memory"


def _could_land(group: NodeGroup, situation: Situation) -> bool:
    node = group.like
    return node.state is NodeState.USABLE and node.allocatable.get(situation.pod.resource, 0) >= situation.pod.gpus


def uncertain_fit(situation: Situation) -> Iterator[Finding]:
    """A limit inside the estimate's uncertainty is not a coin toss."""
    weights = situation.weights
    if weights is None or situation.stale or not situation.rests_on(Fit.TIGHT):
        return
    tight = next(group.shape.gpu for group in situation.candidates if situation.fit(group) is Fit.TIGHT)
    budget = budget_of(tight, situation.declaration)
    if budget is not None:
        yield finding(
            "MemoryTight",
            where="spec.model",
            outcome=Outcome.UNDECIDED,
            message=f"the fullest rank holds {gib(weights.fullest.per_rank)} of weights, a {tight.product} offers "
            f"{gib(budget[0])} to {gib(budget[1])}",
            remedy="leave more room: a wider split, smaller weights, or a higher memoryUtilization",
        )


def memory_is_modelled(situation: Situation) -> Iterator[Finding]:
    """The strategy's way of splitting weights is one that is modelled."""
    if situation.declaration.strategy.attention_data:
        yield finding(
            "MemoryNotModelled",
            where="spec.strategy.attentionData",
            outcome=Outcome.UNDECIDED,
            message="attention data ranks each hold attention of their own, and how much of the rest is not modelled yet",
            remedy="none in this version; shape and GPU counts are judged",
        )


CHECKS = (weights_fit, uncertain_fit, memory_is_modelled)
