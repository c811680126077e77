"""One declaration in one cluster: the figures that all checks look at, worked out once."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from shardgate.domain.declaration import BudgetBasis, Declaration
from shardgate.domain.inventory import Gpu, HeldPod, Inventory, NodeGroup, NodeState, Sharing, Visible, grouped
from shardgate.domain.memory import WeightsEstimate, weights_of
from shardgate.domain.model import ModelArchitecture
from shardgate.domain.placement import NodeFilter, Placement, PodShape, accepts_product, place, room_in_total
from shardgate.domain.policy import Capacity, Policy
from shardgate.domain.units import Bytes
from shardgate.domain.verdict import RankBudget, Requirement

BROKEN_WATCH_STALE_AFTER_SECONDS = 30
"""A watch that is known to be broken makes the inventory stale sooner than silence does."""

UNMEASURED_VISIBLE_SHARE = (0.971, 1.0)
"""CUDA total over the memory that NVML reports, where a product has no measurement of its own: 0 to 2.9 %
less was seen over the products that have one (``data/gpus.json``)."""


class Fit(IntEnum):
    """Whether the fullest rank's weights fit a GPU, best first."""

    FITS = 0
    TIGHT = 1
    SHARED = 2
    UNKNOWN = 3
    TOO_SMALL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What ``verify`` was asked, and the figures that follow from it."""

    declaration: Declaration
    inventory: Inventory
    policy: Policy
    required: Requirement
    pod: PodShape
    node_filter: NodeFilter
    accepted: tuple[NodeGroup, ...]
    """Nodes (those that may come included) with the asked resource and an accepted product."""
    candidates: tuple[NodeGroup, ...]
    """Those of them that selector and lasting taints let the pods on, usable now or not."""
    weights: WeightsEstimate | None
    fit_of_shape: Mapping[int, Fit]
    """id of a candidate's shape -> whether its GPU holds the fullest rank; empty when weights are not known."""
    left_out: frozenset[int]
    """ids of shapes that no pod is counted on: too small (unless all are), or doubtful where enough others surely do."""
    placement: Placement
    stale: bool

    def fit(self, group: NodeGroup) -> Fit:
        """Whether the group's GPUs hold the fullest rank; taken to fit when weights are not known."""
        return self.fit_of_shape.get(id(group.shape), Fit.FITS)

    @property
    def counted(self) -> tuple[NodeGroup, ...]:
        """Candidates that pods are counted on: what figures in messages are taken over."""
        return tuple(group for group in self.candidates if id(group.shape) not in self.left_out)

    def room(self, up_to: Fit) -> int:
        """Pods that all that is here or may come could take, were it idle, on GPUs that fit no worse than this."""
        return room_in_total(self.accepted, self.node_filter, self.pod, _worse_than(up_to, self.fit_of_shape))

    def rests_on(self, fit: Fit) -> bool:
        """Whether the outcome hangs on GPUs of which no more than this is known.

        What hangs is whether all pods fit; or, where they cannot, whether one whole replica does.
        """
        if fit not in self.fit_of_shape.values() or self.pod.replicas == 0:
            return False
        needed = self.pod.pods if self.room(Fit.UNKNOWN) >= self.pod.pods else self.pod.pods_per_replica
        return self.room(Fit(fit - 1)) < needed <= self.room(fit)

    @property
    def nothing_seen(self) -> bool:
        """No GPU node is here, was here a short while ago, or may come.

        An empty list of nodes is then a state of its own, never zero GPUs; nodes without GPUs are zero GPUs where
        nothing else may come.
        """
        if self.inventory.groups or self.policy.provisionable:
            return False
        return self.inventory.nodes_seen == 0 or self.policy.capacity is Capacity.OPEN


def _worse_than(fit: Fit, fit_of_shape: Mapping[int, Fit]) -> frozenset[int]:
    return frozenset(shape for shape, its in fit_of_shape.items() if its > fit)


def look_at(declaration: Declaration, inventory: Inventory, policy: Policy) -> Situation:
    """Work out what the checks need."""
    resource = declaration.gpus.resource
    groups = inventory.groups + grouped(policy.provisionable)
    accepted = tuple(
        group
        for group in groups
        if group.installed(resource) > 0 and accepts_product(declaration.gpus.products, group.shape.gpu.product)
    )
    node_filter = NodeFilter(declaration)
    candidates = tuple(group for group in accepted if node_filter.reason_against(group, passing=False) is None)
    weights = _weights(declaration)
    fit_of_shape: dict[int, Fit] = {}
    if weights is not None:
        fit_of_shape = {id(group.shape): fit_of(group.shape.gpu, declaration, weights) for group in candidates}
    holding = tuple(group for group in candidates if fit_of_shape.get(id(group.shape), Fit.FITS) is not Fit.TOO_SMALL)
    pod, required = _pods(declaration, holding or candidates or accepted)
    own = _own(inventory.held.get((declaration.subject.namespace, declaration.subject.name), ()))
    sure, small = (_worse_than(fit, fit_of_shape) for fit in (Fit.FITS, Fit.UNKNOWN))
    if room_in_total(accepted, node_filter, pod, sure) >= pod.pods:
        left_out = sure  # GPUs that surely do are enough, once they are free: the others decide nothing
    else:
        left_out = small if len(small) < len(fit_of_shape) else frozenset()
    placement = place(groups, node_filter, pod, own, left_out)
    return Situation(
        declaration=declaration,
        inventory=inventory,
        policy=policy,
        required=required,
        pod=pod,
        node_filter=node_filter,
        accepted=accepted,
        candidates=candidates,
        weights=weights,
        fit_of_shape=fit_of_shape,
        left_out=left_out,
        placement=placement,
        stale=is_stale(inventory, policy),
    )


def _own(held: tuple[HeldPod, ...]) -> dict[str, dict[str, int]]:
    """Node -> what these very pods already hold there."""
    own: dict[str, dict[str, int]] = {}
    for each in held:
        at = own.setdefault(each.node, {})
        for name, amount in each.requests.items():
            at[name] = at.get(name, 0) + amount
    return own


def is_stale(inventory: Inventory, policy: Policy) -> bool:
    """Whether the picture is too old to judge by."""
    return inventory.age_seconds > policy.stale_after_seconds or inventory.broken_seconds > BROKEN_WATCH_STALE_AFTER_SECONDS


def _weights(declaration: Declaration) -> WeightsEstimate | None:
    """``None`` where a fact is missing, or the stages do not add up (a finding of its own)."""
    model, layout, strategy = declaration.model, declaration.weights, declaration.strategy
    if not isinstance(model, ModelArchitecture) or layout is None or strategy.attention_data:
        return None
    if strategy.pipeline > model.layers or sum(strategy.layers_per_stage or [model.layers]) != model.layers:
        return None
    return weights_of(model, layout, strategy)


def _pods(declaration: Declaration, nodes: tuple[NodeGroup, ...]) -> tuple[PodShape, Requirement]:
    """How a replica's ranks are cut into pods.

    A declared ``dataLocal`` cuts the replica into groups of that many data ranks first. Without ``perPod``, a
    group becomes the fewest equal pods of which one fits the installed GPUs of the largest node that they may use.
    """
    strategy, wish = declaration.strategy, declaration.gpus
    ranks = strategy.ranks_per_replica
    groups = 1
    if strategy.data_local is not None and strategy.data_ranks_per_replica > 1:
        groups = -(-strategy.data_ranks_per_replica // strategy.data_local)
    group_ranks = -(-ranks // groups)
    if wish.per_pod is not None:
        per_pod = wish.per_pod
        pods_per_group = -(-group_ranks // per_pod)
    else:
        largest = max((group.installed(wish.resource) for group in nodes), default=group_ranks)
        fewest = -(-group_ranks // max(largest, 1))
        pods_per_group = next(k for k in range(fewest, group_ranks + 1) if group_ranks % k == 0)
        per_pod = group_ranks // pods_per_group
    pods = groups * pods_per_group
    shape = PodShape(
        resource=wish.resource,
        gpus=per_pod,
        requests={**declaration.placement.requests, wish.resource: per_pod, "pods": 1},
        pods_per_replica=pods,
        replicas=declaration.replicas,
        ranks_per_pod=-(-group_ranks // pods_per_group),
        ranks_per_replica=ranks,
    )
    is_chosen = wish.per_pod is not None or bool(nodes)
    required = Requirement(
        gpus_per_replica=per_pod * pods,
        gpus=per_pod * pods * declaration.replicas,
        pods_per_replica=pods if is_chosen else None,
        gpus_per_pod=per_pod if is_chosen else None,
    )
    return shape, required


def visible_memory(gpu: Gpu) -> Visible | None:
    """What an engine would see of this GPU; ``None`` when its memory is not known."""
    if gpu.visible is not None or gpu.memory is None:
        return gpu.visible
    low, high = (Bytes(int(gpu.memory * share)) for share in UNMEASURED_VISIBLE_SHARE)
    return Visible(low=low, high=high, source="reported memory less 0 to 2.9 %, as measured on other products")


def budget_of(gpu: Gpu, declaration: Declaration) -> tuple[Bytes, Bytes] | None:
    """The least and the most that the engine may use of this GPU.

    A fraction of what is free after loading does not bound the weights themselves; nor is anything known to bound
    them in an engine that is not known.
    """
    visible = visible_memory(gpu)
    if visible is None:
        return None
    if declaration.engine.budget_basis is not BudgetBasis.TOTAL:
        return visible.low, visible.high
    low, high = declaration.engine.utilization_low, declaration.engine.utilization_high
    return Bytes(int(visible.low * low)), Bytes(int(visible.high * high))


def fit_of(gpu: Gpu, declaration: Declaration, weights: WeightsEstimate) -> Fit:
    """Whether the fullest rank's weights fit this GPU. What one shared unit may use is not known here."""
    budget = budget_of(gpu, declaration)
    if budget is None:
        return Fit.UNKNOWN
    low, high = budget
    if weights.fullest.per_rank > high:
        return Fit.TOO_SMALL
    if gpu.product is None and declaration.gpus.products:
        return Fit.UNKNOWN  # whether it is an accepted one is not known
    if gpu.sharing is not Sharing.NONE:
        return Fit.SHARED
    return Fit.FITS if weights.fullest.per_rank <= low else Fit.TIGHT


def best_budget(situation: Situation) -> RankBudget | None:
    """The budget on the candidate GPU that offers most."""
    budgets = [
        RankBudget(product=gpu.product or "GPU", reported=gpu.memory or visible.high, budget=budget[1])
        for gpu in {id(group.shape): group.shape.gpu for group in situation.candidates}.values()
        if (budget := budget_of(gpu, situation.declaration)) and (visible := visible_memory(gpu))
    ]
    return max(budgets, key=lambda each: each.budget, default=None)


def is_here(group: NodeGroup) -> bool:
    """Present in the cluster, usable or not, or gone only a short while ago."""
    return group.like.state is not NodeState.PROVISIONABLE
