"""One declaration in one cluster: the figures that all checks look at, worked out once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from shardgate.domain.calibration import Accuracy
from shardgate.domain.contention import after_preemption, ahead_of, both_fit, usable_now
from shardgate.domain.declaration import Declaration
from shardgate.domain.fitting import Fit, GpuFit, RankNeed, Weighed, fit_of
from shardgate.domain.inventory import Gpu, HeldPod, Inventory, NodeGroup, NodeState, PendingPods, grouped
from shardgate.domain.performance.figures import Performance, performance_of
from shardgate.domain.placement import NodeFilter, Placement, PodShape, place, room_in_total
from shardgate.domain.policy import Capacity, Policy
from shardgate.domain.verdict import Requirement
from shardgate.domain.weights import WeightsEstimate

BROKEN_WATCH_STALE_AFTER_SECONDS = 30
"""A watch that is known to be broken makes the inventory stale sooner than silence does."""


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
    selected: tuple[NodeGroup, ...]
    """Those of them that selector and affinity let in."""
    candidates: tuple[NodeGroup, ...]
    """Those of the selected whose lasting taints let the pods on, usable now or not."""
    weighed: Weighed | None
    found_of_shape: Mapping[int, GpuFit]
    """id of a candidate's shape -> whether its GPU will do for the fullest rank; empty when weights are not known."""
    left_out: frozenset[int]
    """ids of shapes that no pod is counted on: too small (unless all are), or doubtful where enough others surely do."""
    placement: Placement
    contenders: tuple[PendingPods, ...]
    """Others' pods that wait before these, where not both fit."""
    preempting: Placement | None
    """Where these pods fit only if pods of lower priority made way: how they would."""
    stale: bool
    performance: Performance | None
    """On the best of the candidates' GPUs; ``None`` where it would not run there, or is not modelled."""

    @property
    def weights(self) -> WeightsEstimate | None:
        """``None`` where a fact is missing."""
        return self.weighed.weights if self.weighed is not None else None

    def fit(self, group: NodeGroup) -> Fit:
        """Whether the group's GPUs will do for the fullest rank; taken to fit when weights are not known."""
        found = self.found_of_shape.get(id(group.shape))
        return Fit.FITS if found is None else found.fit

    @property
    def rank_need(self) -> RankNeed | None:
        """What a rank takes of its GPU; ``None`` where a fact is missing."""
        return None if self.weighed is None else RankNeed.of(self.weighed, self.found_of_shape.values())

    @property
    def best_found(self) -> GpuFit | None:
        """Of the candidates' GPUs, the one that does best, and among those the one with most to spare."""
        return max(self.found_of_shape.values(), key=_goodness, default=None)

    @property
    def counted(self) -> tuple[NodeGroup, ...]:
        """Candidates that pods are counted on: what figures in messages are taken over."""
        return tuple(group for group in self.candidates if id(group.shape) not in self.left_out)

    def room(self, up_to: Fit) -> int:
        """Pods that all that is here or may come could take, were it idle, on GPUs that fit no worse than this."""
        return room_in_total(self.selected, self.node_filter, self.pod, _worse_than(up_to, self.found_of_shape))

    def rests_on(self, fit: Fit) -> bool:
        """Whether the outcome hangs on GPUs of which no more than this is known.

        What hangs is whether all pods fit; or, where they cannot, whether one whole replica does.
        """
        if all(found.fit is not fit for found in self.found_of_shape.values()) or self.pod.replicas == 0:
            return False
        needed = self.pod.pods if self.room(Fit.UNKNOWN) >= self.pod.pods else self.pod.pods_per_replica
        return self.room(Fit(fit - 1)) < needed <= self.room(fit)

    @property
    def nothing_seen(self) -> bool:
        """No GPU node is here, was here a short while ago, or may come.

        An empty list of nodes is then a state of its own, never zero GPUs; nodes without GPUs are zero GPUs where
        nothing else may come.
        """
        if self.inventory.groups or self.inventory.provisionable or self.policy.provisionable:
            return False
        if self.inventory.remembered and self.policy.capacity is Capacity.OPEN:
            return False
        return self.inventory.nodes_seen == 0 or self.policy.capacity is Capacity.OPEN


def _worse_than(fit: Fit, found_of_shape: Mapping[int, GpuFit]) -> frozenset[int]:
    return frozenset(shape for shape, found in found_of_shape.items() if found.fit > fit)


def _goodness(found: GpuFit) -> tuple[int, float]:
    margin = found.estimate.margin.value if found.estimate is not None else float(found.gpu.memory or 0)
    return -found.fit, margin


def look_at(declaration: Declaration, inventory: Inventory, policy: Policy) -> Situation:
    """Work out what the checks need."""
    declaration = _with_defaults(declaration, inventory)
    resource = declaration.gpus.resource
    groups = inventory.groups + inventory.provisionable + grouped(policy.provisionable)
    if policy.capacity is Capacity.OPEN:
        groups += grouped(inventory.remembered)
    needs_pods = declaration.placement.rules.demands or bool(inventory.repelling)
    node_filter = NodeFilter(
        declaration,
        repelling=inventory.repelling,
        everywhere=inventory.present if needs_pods else (),
        may_grow=tuple(node for group in groups if not _is_there(group) for node in group.nodes) if needs_pods else (),
        namespaces=inventory.namespaces,
    )
    accepted = tuple(group for group in groups if group.installed(resource) > 0 and node_filter.accepts(group))
    let_in, unselected = node_filter.select(groups)
    selected = tuple(group for group in let_in if group.installed(resource) > 0)
    candidates = tuple(group for group in selected if node_filter.reason_against(group, passing=False) is None)
    weighed = Weighed.of(declaration)
    found_of_shape = _found(candidates, declaration, weighed, inventory.distrusted) if weighed is not None else {}
    unfit = _worse_than(Fit.UNKNOWN, found_of_shape)
    holding = tuple(group for group in candidates if id(group.shape) not in unfit)
    nodes = holding or candidates or accepted
    own = _own(inventory.held_by(declaration.owners))
    sure = _worse_than(Fit.FITS, found_of_shape)

    def tried(pod: PodShape) -> _Cut:
        placement = place(let_in, node_filter, pod, own, sure, unselected)
        room = pod.pods if placement.feasible else room_in_total(selected, node_filter, pod, sure)
        if room >= pod.pods:  # GPUs that surely do are enough, once they are free: the others decide nothing
            return _Cut(pod=pod, left_out=sure, placement=placement, room=room)
        left_out = unfit if len(unfit) < len(found_of_shape) else frozenset()
        if left_out != sure:
            room = room_in_total(selected, node_filter, pod, left_out)
            placement = place(let_in, node_filter, pod, own, left_out, unselected)
        return _Cut(pod=pod, left_out=left_out, placement=placement, room=room)

    cut = _best_cut(tried(pod) for pod in _pods(declaration, nodes))
    pod, left_out, placement = cut.pod, cut.left_out, cut.placement
    contenders, preempting = _contention(declaration, inventory, let_in, cut, node_filter, own)
    is_chosen = declaration.gpus.per_pod is not None or bool(nodes)
    required = Requirement(
        gpus_per_replica=pod.gpus_per_replica,
        gpus=pod.gpus_per_replica * declaration.replicas,
        pods_per_replica=pod.pods_per_replica if is_chosen else None,
        gpus_per_pod=pod.gpus if is_chosen else None,
    )
    return Situation(
        declaration=declaration,
        inventory=inventory,
        policy=policy,
        required=required,
        pod=pod,
        node_filter=node_filter,
        accepted=accepted,
        selected=selected,
        candidates=candidates,
        weighed=weighed,
        found_of_shape=found_of_shape,
        left_out=left_out,
        placement=placement,
        contenders=contenders,
        preempting=preempting,
        stale=is_stale(inventory, policy),
        performance=performance_of(
            declaration, weighed, _slowest(found_of_shape, placement), pod.ranks_per_pod, pod.pods_per_replica
        ),
    )


def _slowest(found_of_shape: Mapping[int, GpuFit], placement: Placement) -> GpuFit | None:
    """Of the GPUs that the example places pods on, the slowest; without an example, the one that does best."""
    pools = {pod.pool for pod in placement.pods}
    used = [each for each in found_of_shape.values() if each.gpu.product in pools and each.gpu.rates is not None]
    if used:
        return min(used, key=lambda each: each.gpu.rates.bytes_per_second if each.gpu.rates is not None else 0.0)
    return max(found_of_shape.values(), key=_goodness, default=None)


def _with_defaults(declaration: Declaration, inventory: Inventory) -> Declaration:
    """The declaration's pods as admission will make them: the namespace's LimitRanges ask for what containers do not."""
    wish = declaration.placement
    added = {
        name: amount * wish.unstated[name]
        for each in inventory.limit_ranges.get(declaration.subject.namespace, ())
        for name, amount in each.default_requests.items()
        if wish.unstated.get(name, 0)
    }
    if not added:
        return declaration
    requests = {name: wish.requests.get(name, 0) + added.get(name, 0) for name in {**wish.requests, **added}}
    return replace(declaration, placement=replace(wish, requests=requests))


def _contention(
    declaration: Declaration, inventory: Inventory, groups: tuple[NodeGroup, ...], cut: "_Cut", node_filter: NodeFilter,
    own: Mapping[str, Mapping[str, int]],
) -> tuple[tuple[PendingPods, ...], Placement | None]:  # fmt: skip
    """(pods that wait before these where not both fit, a placement by preemption where there is none without)."""
    pod = cut.pod
    priority = inventory.priorities.get(declaration.placement.priority_class, 0)
    if cut.placement.feasible:
        ahead = ahead_of(inventory.pending, declaration.owners, priority, pod.resource)
        usable = usable_now(groups, node_filter, cut.left_out)
        return (ahead if ahead and not both_fit(inventory.groups, usable, pod.largest, own, ahead) else ()), None
    if not cut.placement.feasible_when_idle:
        return (), None
    if declaration.placement.priority_class in inventory.not_preempting:
        return (), None
    made_way = after_preemption(groups, priority)
    staying = _own(tuple(each for each in inventory.held_by(declaration.owners) if each.priority >= priority))
    found = place(made_way, node_filter, pod, staying, cut.left_out, {}) if made_way is not None else None
    return (), found if found is not None and found.feasible else None


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
    return is_too_old(inventory.age_seconds, inventory.broken_seconds, policy)


def is_too_old(age_seconds: float, broken_seconds: float, policy: Policy) -> bool:
    """The same of an inventory of which only its age, and the time since a watch broke, are known yet."""
    return age_seconds > policy.stale_after_seconds or broken_seconds > BROKEN_WATCH_STALE_AFTER_SECONDS


def _found(
    candidates: tuple[NodeGroup, ...], declaration: Declaration, weighed: Weighed, distrusted: tuple[Accuracy, ...]
) -> dict[int, GpuFit]:
    """Each kind of GPU is asked once, however many shapes of nodes have it."""
    of_gpu: dict[Gpu, GpuFit] = {}
    found: dict[int, GpuFit] = {}
    for group in candidates:
        if id(group.shape) not in found:
            gpu = group.shape.unit(declaration.gpus.resource)
            if gpu not in of_gpu:
                of_gpu[gpu] = fit_of(gpu, declaration, weighed, distrusted)
            found[id(group.shape)] = of_gpu[gpu]
    return found


MOST_CUTS = 12
"""Ways to cut a replica into equal pods that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """One way to cut a replica into pods, and how it fares."""

    pod: PodShape
    left_out: frozenset[int]
    placement: Placement
    room: int


def _best_cut(cuts: Iterator[_Cut]) -> _Cut:
    """The first that fits now, else the first that fits when idle, else the one with room for most replicas.

    Lazily: where the first fits, no other is tried.
    """
    tried: list[_Cut] = []
    for cut in cuts:
        if cut.placement.feasible:
            return cut
        tried.append(cut)
    idle = next((cut for cut in tried if cut.placement.feasible_when_idle), None)
    return idle or max(tried, key=lambda cut: min(cut.room // cut.pod.pods_per_replica, cut.pod.replicas))


def _pods(declaration: Declaration, nodes: tuple[NodeGroup, ...]) -> Iterator[PodShape]:
    """How a replica's ranks may be cut into pods, the fewest pods first.

    A declared ``dataLocal`` cuts the replica into groups of that many data ranks first. Without ``perPod``, a
    group becomes equal pods, of which one fits the installed GPUs of the largest node that they may use.
    """
    strategy, wish = declaration.strategy, declaration.gpus
    ranks = strategy.ranks_per_replica
    if wish.pods_per_replica is not None and wish.per_pod is not None and wish.leader is None:
        yield _equal_pods(declaration, wish.per_pod, wish.pods_per_replica, -(-ranks // wish.pods_per_replica))
        return
    if wish.leader is not None and wish.per_pod is not None:
        workers = -(-max(ranks - wish.leader.gpus, 0) // wish.per_pod)
        if wish.pods_per_replica is not None:
            workers = wish.pods_per_replica - 1
        if workers:
            yield replace(_equal_pods(declaration, wish.per_pod, 1 + workers, wish.per_pod), leader=wish.leader)
        else:
            alone = replace(declaration, placement=replace(declaration.placement, requests=wish.leader.requests))
            yield _equal_pods(alone, wish.leader.gpus, 1, wish.leader.gpus)
        return
    groups = 1
    if strategy.data_local is not None and strategy.data_ranks_per_replica > 1:
        groups = -(-strategy.data_ranks_per_replica // strategy.data_local)
    group_ranks = -(-ranks // groups)
    if wish.per_pod is not None:
        numbers = iter([-(-group_ranks // wish.per_pod)])
    else:
        largest = max((group.installed(wish.resource) for group in nodes), default=group_ranks)
        fewest = -(-group_ranks // max(largest, 1))
        numbers = islice((k for k in range(fewest, group_ranks + 1) if group_ranks % k == 0), MOST_CUTS)
    for pods_per_group in numbers:
        per_pod = wish.per_pod or group_ranks // pods_per_group
        yield _equal_pods(declaration, per_pod, groups * pods_per_group, -(-group_ranks // pods_per_group))


def _equal_pods(declaration: Declaration, gpus: int, pods_per_replica: int, ranks_per_pod: int) -> PodShape:
    resource = declaration.gpus.resource
    return PodShape(
        resource=resource,
        gpus=gpus,
        requests={**declaration.placement.requests, resource: gpus, "pods": 1},
        pods_per_replica=pods_per_replica,
        replicas=declaration.replicas,
        ranks_per_pod=ranks_per_pod,
        ranks_per_replica=declaration.strategy.ranks_per_replica,
        tensor=declaration.strategy.tensor,
    )


def _is_there(group: NodeGroup) -> bool:
    return group.like.state not in (NodeState.GONE, NodeState.PROVISIONABLE)


def is_here(group: NodeGroup) -> bool:
    """Present in the cluster, usable or not, or gone only a short while ago."""
    return group.like.state is not NodeState.PROVISIONABLE
