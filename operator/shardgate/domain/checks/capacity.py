"""The pods against what the cluster has: now, when idle, when everything is back, and when what may come has come."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from shardgate.domain.arrivals import may_come, waits_for_turns, why_not
from shardgate.domain.codes import finding
from shardgate.domain.declaration import DEFAULT_SCHEDULER
from shardgate.domain.inventory import Node, NodeGroup, NodeState, Toleration
from shardgate.domain.placement import NodeFilter, Reason, place, room_in_total, summary_of
from shardgate.domain.policy import Capacity, Disclosure
from shardgate.domain.situation import Situation, is_here
from shardgate.domain.units import count, gib
from shardgate.domain.verdict import Finding, FindingClass, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """Pods that could be taken by what is here, and with what may come."""

    here: int
    with_more: int


def _room(situation: Situation) -> _Room:
    out = situation.left_out
    here = [group for group in situation.selected if is_here(group)]
    return _Room(
        here=room_in_total(here, situation.node_filter, situation.pod, out),
        with_more=room_in_total(situation.selected, situation.node_filter, situation.pod, out),
    )


def pods_fit(situation: Situation) -> Iterator[Finding]:
    """Every pod of every replica finds a place: one finding says how far from it the cluster is."""
    pod, placement = situation.pod, situation.placement
    if situation.stale or situation.nothing_seen or pod.replicas == 0:
        return
    if situation.declaration.is_queued and _room(situation).with_more >= pod.pods:
        return  # whoever starts its pods looks at what is free then
    if placement.feasible:
        if situation.contenders:
            yield _contended(situation)
        return
    room = _room(situation)
    if placement.is_search_spent:
        yield _undecided_search(situation)
    elif placement.feasible_when_idle:
        yield _busy(situation) if situation.preempting is None else _preempting(situation)
    elif room.here >= pod.pods:
        yield _unavailable(situation)
    elif room.with_more >= pod.pods:
        yield finding(
            "NodesToProvision",
            where="spec.gpus",
            outcome=Outcome.WAITING,
            message=f"{_needs(situation)}; {room.here} of {count(pod.pods, 'pod')} fit what is here, "
            f"the rest needs nodes that may come: {may_come(situation)}",
            remedy=_until_it_comes(situation),
        )
    else:
        yield from _too_little(situation, room)


def _until_it_comes(situation: Situation) -> str:
    if waits_for_turns(situation):
        return "wait until other nodes of the pool leave, raise its limits, or ask for fewer replicas"
    return "wait for the pool to grow, or ask for fewer replicas"


def _needs(situation: Situation) -> str:
    required, strategy = situation.required, situation.declaration.strategy
    replicas = situation.declaration.replicas
    times = f" ({replicas} replicas of {required.gpus_per_replica})" if replicas > 1 else ""
    return f"{strategy.label} needs {count(required.gpus, 'GPU')}{times}"


def _gpus(groups: Iterable[NodeGroup], count_one: Callable[[Node], int]) -> int:
    """The sum over all nodes of groups, asked once a group."""
    return sum(count_one(group.like) * group.count for group in groups)


def _busy(situation: Situation) -> Finding:
    resource, placement = situation.pod.resource, situation.placement
    usable = [group for group in situation.counted if group.like.state is NodeState.USABLE]
    free = _gpus(usable, lambda node: max(0, node.free(resource)))
    coming = sum(group.coming_free(resource) for group in usable)
    going = f", {coming} held by pods that are terminating" if coming else ""
    promised = situation.inventory.promised(resource, situation.declaration.owners)
    going += f", {promised} promised to others whose pods have not come" if promised else ""
    have = _gpus(usable, lambda node: node.allocatable.get(resource, 0))
    return finding(
        "GpusBusy",
        where="spec.replicas" if placement.replicas_that_fit else "spec.strategy",
        outcome=Outcome.WAITING,
        message=f"{_needs(situation)}, {free} of {have} are free{going}; "
        f"{placement.replicas_that_fit} of {count(situation.pod.replicas, 'replica')} fit now{_by_rules(situation)}",
        remedy="wait until GPUs are released, or ask for fewer replicas",
    )


def _undecided_search(situation: Situation) -> Finding:
    placement = situation.placement
    return finding(
        "SearchBudgetSpent",
        where="spec.placement",
        outcome=Outcome.UNDECIDED,
        message=f"{_needs(situation)}; {placement.replicas_that_fit} of {count(situation.pod.replicas, 'replica')} were placed, "
        "and the search ended before it was certain that no placement holds more",
        remedy="fewer rules between pods (affinity, anti-affinity, spread), or fewer replicas",
        bears_on=(FindingClass.CAPACITY,),
    )


def _by_rules(situation: Situation) -> str:
    """How many nodes are closed by rules between pods, where any is."""
    closed = [each for each in situation.placement.excluded if each.reason is Reason.RULES]
    return f" ({summary_of(closed)})" if closed else ""


def _contended(situation: Situation) -> Finding:
    resource = situation.pod.resource
    pods = sum(each.count for each in situation.contenders)
    gpus = sum(each.count * each.requests.get(resource, 0) for each in situation.contenders)
    return finding(
        "GpusBusy",
        where="spec.replicas",
        outcome=Outcome.WAITING,
        message=f"{_needs(situation)}, which are free; {count(pods, 'pod')} of equal or higher priority wait for "
        f"{count(gpus, 'GPU')} as well, and not both fit",
        remedy="wait until those have their place, or ask for fewer replicas",
    )


def _preempting(situation: Situation) -> Finding:
    chosen = situation.preempting
    nodes = {pod.node for pod in chosen.pods} if chosen is not None else set()
    priority = situation.declaration.placement.priority_class or "the default priority"
    return finding(
        "WouldPreempt",
        where="spec.placement.priorityClassName",
        outcome=Outcome.RISKY,
        message=f"{_needs(situation)}, and not as many are free: with {priority} they would preempt pods of lower priority, "
        f"on {count(len(nodes), 'node')} for example",
        remedy="wait until GPUs are released, or use a PriorityClass that preempts nobody",
    )


def _unavailable(situation: Situation) -> Finding:
    resource = situation.pod.resource
    here = [group for group in situation.counted if is_here(group)]
    usable, by_state = [], dict.fromkeys(NodeState, 0)
    barred: dict[str, int] = {}
    for group in here:
        gpus = group.installed(resource) * group.count
        if situation.node_filter.state_reason(group) is not None:
            by_state[group.like.state] += gpus
        elif situation.node_filter.reason_against(group) is Reason.TAINT:
            taint = situation.node_filter.barring_taint(group)
            barred[taint] = barred.get(taint, 0) + gpus
        else:
            usable.append(group)
    unhealthy = _gpus(usable, lambda node: node.unavailable_gpus.get(resource, 0))
    available = _gpus(usable, lambda node: node.allocatable.get(resource, 0))
    total = available + unhealthy + sum(by_state.values()) + sum(barred.values())
    reasons = [f"{count(unhealthy, 'GPU')} not healthy"] if unhealthy else []
    if daemons := _gpus(usable, lambda node: node.daemons.get(resource, 0)):
        reasons.append(f"{count(daemons, 'GPU')} held by DaemonSets")
    reasons += [f"{count(gpus, 'GPU')} on nodes {state.value}" for state, gpus in by_state.items() if gpus]
    reasons += [f"{count(gpus, 'GPU')} on nodes tainted {taint} for now" for taint, gpus in barred.items() if gpus]
    why = f" ({', '.join(reasons)})" if reasons else ""
    return finding(
        "NodesUnavailable",
        where="spec.strategy",
        outcome=Outcome.WAITING,
        message=f"{_needs(situation)}, {available} of {total} are available now{why}",
        remedy="wait until they are back, or use a strategy that fits what is available",
    )


def _too_little(situation: Situation, room: _Room) -> Iterator[Finding]:
    """Not even everything that is here or may come is enough."""
    pod, declaration = situation.pod, situation.declaration
    one_fits = room.with_more >= pod.pods_per_replica
    closed = situation.policy.capacity is Capacity.CLOSED
    refuses = closed and not one_fits and not (declaration.placement.is_added_to and _fits_but_for_filters(situation))
    outcome = Outcome.UNSOUND if refuses else Outcome.WAITING
    unread = situation.inventory.unreadable_nodes
    if unread:
        outcome = min(outcome, Outcome.UNDECIDED)
    partly = f"; {room.with_more // pod.pods_per_replica} of {count(pod.replicas, 'replica')} could fit" if one_fits else ""
    which = f" ({unread[0]})" if unread and situation.policy.disclosure is Disclosure.NODES else ""
    partly += f"; {count(len(unread), 'node')} could not be read{which}" if unread else ""
    counted = [group for group in situation.accepted if id(group.shape) not in situation.left_out]
    coming, kept_away = may_come(situation), why_not(situation)
    partly += f"; more may come, and not enough: {coming}" if coming else ""
    partly += f"; {kept_away}" if kept_away else ""
    counted = [group for group in counted if is_here(group)]
    gpus = sum(group.installed(pod.resource) * group.count for group in counted)
    others = [group for group in situation.inventory.groups if group.installed(pod.resource) > 0]
    if not situation.accepted and declaration.gpus.products and others:
        present = sorted({group.shape.unit(pod.resource).product or "unknown" for group in others})
        yield finding(
            "GpuProductNotAccepted",
            where="spec.gpus.products",
            outcome=outcome,
            message=f"accepts {', '.join(declaration.gpus.products)}; the cluster has {', '.join(present)}",
            remedy="name a product that the cluster has, or leave products out",
        )
    elif gpus < situation.required.gpus:
        products = sorted({group.shape.unit(pod.resource).product or "unknown product" for group in counted})
        named = f" ({', '.join(products)})" if products else ""
        yield finding(
            "GpuCountTooLow",
            where="spec.strategy",
            outcome=outcome,
            message=f"{_needs(situation)}, the cluster has {gpus}{named}{partly}",
            remedy=f"use at most {count(gpus, 'GPU')}, or add GPUs" if gpus else "add GPU nodes",
        )
    else:
        per = f"{count(pod.pods_per_replica, 'pod')} of {count(pod.gpus, 'GPU')}"
        if pod.leader is not None:
            per = f"a leader of {count(pod.leader.gpus, 'GPU')} and {count(pod.pods_per_replica - 1, 'pod')} of {pod.gpus}"
        summary = summary_of(situation.placement.excluded)
        yield finding(
            "NodesDoNotFit",
            where="spec.gpus.perPod" if declaration.gpus.per_pod else "spec.placement",
            outcome=outcome,
            message=f"{_needs(situation)}, each replica as {per}; the cluster has {gpus}, and no placement on its nodes"
            f"{f' ({summary})' if summary else ''}{partly}",
            remedy="smaller pods (spec.gpus.perPod), or a selector and tolerations that let in more nodes",
        )


def _fits_but_for_filters(situation: Situation) -> bool:
    """Whether a replica would fit, were it not for taints, selector and affinity."""
    declaration = situation.declaration
    wish = replace(declaration.placement, node_selector={}, node_terms=None, tolerations=(Toleration(operator="Exists"),))
    any_node = NodeFilter(replace(declaration, placement=wish))
    return room_in_total(situation.accepted, any_node, situation.pod, situation.left_out) >= situation.pod.pods_per_replica


def groups_find_their_places(situation: Situation) -> Iterator[Finding]:
    """Replicas of several pods that do not all fit cannot be left half placed: each would hold what another needs."""
    pod, placement = situation.pod, situation.placement
    if situation.stale or situation.nothing_seen or placement.feasible or pod.pods_per_replica < 2 or pod.replicas < 2:  # noqa: PLR2004
        return
    if situation.declaration.placement.scheduler != DEFAULT_SCHEDULER or situation.declaration.is_queued:
        return  # it may well place groups whole
    if placement.pods_that_fit >= 2 and _room(situation).with_more >= pod.pods:  # noqa: PLR2004  # one of each of two groups
        yield finding(
            "GroupsMayDeadlock",
            where="spec.replicas",
            outcome=Outcome.RISKY,
            message=f"{placement.pods_that_fit} of {count(pod.pods, 'pod')} fit now, in replicas of {pod.pods_per_replica}: "
            "half-placed replicas can hold each other's places, since nothing schedules them as gangs",
            remedy="ask for as many replicas as fit, or use a gang scheduler (Kueue, Volcano, a scheduling group)",
        )


def roll_out_fits(situation: Situation) -> Iterator[Finding]:
    """A roll-out that stops no pod before a new one is Ready has room for a new one beside those that run."""
    pod, surge, inventory = situation.pod, situation.declaration.surge, situation.inventory
    if not surge or situation.stale or situation.nothing_seen:
        return
    extra = replace(pod, replicas=1)
    more = place(situation.selected, situation.node_filter, extra, {}, situation.left_out, {})
    coming = [group for group in situation.selected if not is_here(group) and not group.like.takes_turns]
    room = room_in_total(coming, situation.node_filter, extra, situation.left_out)
    runs = [each for each in inventory.held_by(situation.declaration.owners) if not each.is_promised]
    if more.feasible or room >= extra.pods or not runs:
        return
    yield finding(
        "SurgeDoesNotFit",
        where="spec.strategy",
        outcome=Outcome.RISKY,
        message=f"the roll-out starts a new replica of {count(pod.gpus_per_replica, 'GPU')} before it stops an old one, "
        "and there is no room for both: it would hang",
        remedy='stop one first: kubectl patch with {"spec":{"strategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":1}}}}',
    )


def autoscaled_replicas_fit(situation: Situation) -> Iterator[Finding]:
    """What an autoscaler may go up to finds a place in all that is here or may come."""
    pod, most = situation.pod, situation.declaration.replicas_maximum
    if most is None or most <= pod.replicas or situation.stale or situation.nothing_seen:
        return
    wanted = replace(pod, replicas=most)
    soon = [group for group in situation.selected if not group.like.takes_turns]
    room = room_in_total(soon, situation.node_filter, wanted, situation.left_out)
    fit = room // pod.pods_per_replica
    if pod.replicas <= fit < most:
        yield finding(
            "AutoscaleMaximumDoesNotFit",
            where="spec.replicas",
            outcome=Outcome.RISKY,
            message=f"it may be scaled to {count(most, 'replica')} of {count(pod.gpus_per_replica, 'GPU')}; "
            f"what is here or may come has room for {fit}",
            remedy=f"a maximum of {fit}, or more nodes",
        )


def quota_allows(situation: Situation) -> Iterator[Finding]:
    """The namespace's quotas leave what the pods would request; those that exist already are counted as used."""
    pod, declared = situation.pod, situation.declaration
    namespace = declared.subject.namespace
    held = situation.inventory.held_by(declared.owners)
    if situation.stale:
        return
    for quota in situation.inventory.quotas.get(namespace, ()):
        if not quota.is_used_known or not quota.counts(declared.placement.priority_class):
            continue
        for resource, hard in quota.hard.items():
            mine = sum(each.requests.get(resource, 0) for each in held if not each.is_promised)
            wanted, used = pod.in_total(resource), quota.used.get(resource, 0)
            if wanted > mine and wanted - mine > hard - used:
                taken, needed = (gib(each) if resource in _IN_BYTES else str(each) for each in (used, wanted - mine))
                yield finding(
                    "QuotaTooSmall",
                    where="metadata.namespace",
                    outcome=Outcome.WAITING,
                    message=f"quota {quota.name} of namespace {namespace} allows {_amount(hard, resource)}, {taken} used; "
                    f"this needs {needed}",
                    remedy="ask for fewer replicas, or have the quota raised",
                )


def queue_may_grant(situation: Situation) -> Iterator[Finding]:
    """The queue that is to start the pods has quota for them all, with all that it could borrow and nothing else running."""
    grant = situation.declaration.grant
    if grant is None:
        return
    for resource, most in grant.most.items():
        wanted = situation.pod.in_total(resource)
        if wanted > most:
            yield finding(
                "QuotaTooSmall",
                where="metadata.labels",
                outcome=Outcome.WAITING,
                message=f"ClusterQueue {grant.cluster_queue} behind queue {grant.queue} could give at most "
                f"{_amount(most, resource)}; this needs {_amount(wanted, resource)}",
                remedy="ask for fewer replicas, use another queue, or have its quota raised",
            )


def limits_allow(situation: Situation) -> Iterator[Finding]:
    """The namespace's LimitRanges let a pod ask for as much."""
    namespace = situation.declaration.subject.namespace
    pod = situation.pod.largest
    of_container = situation.declaration.placement.largest_container
    for each in () if situation.stale else situation.inventory.limit_ranges.get(namespace, ()):
        of_containers = pod.requests if of_container is None else of_container
        bounds = (("pod", each.most_of_pod, pod.requests), ("container", each.most_of_container, of_containers))
        checked = (
            (what, resource, most, asks.get(resource, 0)) for what, bound, asks in bounds for resource, most in bound.items()
        )
        for what, resource, most, asked in checked:
            if asked > most:
                allowed, needed = (_amount(amount, resource) for amount in (most, asked))
                yield finding(
                    "QuotaTooSmall",
                    where="metadata.namespace",
                    outcome=Outcome.WAITING,
                    message=f"LimitRange {each.name} of namespace {namespace} allows a {what} {allowed}; each asks for {needed}",
                    remedy="smaller pods, or have the LimitRange raised",
                )


def _amount(amount: int, resource: str) -> str:
    """``8 nvidia.com/gpu``, ``64.0 GiB memory``, ``3500 millicores of CPU``."""
    if resource == "cpu":
        return f"{amount} millicores of CPU"
    return f"{gib(amount)} {resource}" if resource in _IN_BYTES else f"{amount} {resource}"


_IN_BYTES = ("memory", "ephemeral-storage", "storage")


def model_fits_cluster(situation: Situation) -> Iterator[Finding]:
    """The model's weights against all accepted GPUs together; says something only beside a finding that it worsens."""
    weights, pod = situation.weights, situation.pod
    is_doubted = any(each.code == "MemoryNotModelled" for each in situation.found_of_shape.values())
    if situation.declaration.is_memory_uncertain or is_doubted:
        return
    if weights is None or situation.stale or situation.nothing_seen or not situation.accepted or pod.replicas == 0:
        return
    memory, gpus = 0, 0
    for group in situation.accepted:
        units = group.installed(pod.resource) * group.count
        unit = group.shape.unit(pod.resource)
        if unit.memory is None:
            return
        most = max(each.memory or 0 for each in (unit, *unit.alternatives))  # readings that stay possible
        memory, gpus = memory + units * most, gpus + units
    held = weights.total - situation.declaration.engine.settings.offload * pod.ranks_per_replica
    if held > memory > 0:
        closed = situation.policy.capacity is Capacity.CLOSED
        yield finding(
            "ModelExceedsCluster",
            where="spec.model",
            outcome=Outcome.UNSOUND if closed else Outcome.WAITING,
            message=f"the model's weights take {gib(held)}, {held / memory:.1f} times the memory of "
            f"{'the one accepted GPU' if gpus == 1 else f'all {gpus} accepted GPUs'} ({gib(memory)})",
            remedy="choose a smaller model or weights of fewer bits",
        )
