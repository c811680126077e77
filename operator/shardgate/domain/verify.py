"""The one way in: ``verify(declaration, inventory, policy) -> Verdict``. Webhook, reconciler and command line agree."""

from dataclasses import replace

from shardgate.domain.checks import CHECKS
from shardgate.domain.declaration import Declaration
from shardgate.domain.fitting import Fit
from shardgate.domain.inventory import REMEMBERED_LABELS, Inventory, NodeState
from shardgate.domain.performance.estimate import is_linked
from shardgate.domain.policy import Policy
from shardgate.domain.score import score_terms
from shardgate.domain.situation import Situation, look_at
from shardgate.domain.units import GIGA, Bytes, count
from shardgate.domain.verdict import Assumption, Hardware, Outcome, ProductCount, Verdict, aspects_of, worst_first


def verify(declaration: Declaration, inventory: Inventory, policy: Policy) -> Verdict:
    """Judge a declaration against an inventory under a policy.

    Pure: the same values give the same verdict. Every check runs and every finding is kept, worst first.
    """
    situation = look_at(declaration, inventory, policy)
    found = [each for check in CHECKS for each in check(situation)]
    if declaration.is_partial:
        found = [replace(each, outcome=min(each.outcome, Outcome.UNDECIDED)) for each in found]
    findings = worst_first(found)
    return Verdict(
        findings=findings,
        required=situation.required,
        hardware=None if situation.nothing_seen else _hardware(situation),
        weights=situation.weights,
        best_gpu=situation.best_found,
        rank_needs=(situation.rank_need,),
        placement=None if situation.stale else situation.placement,
        assumptions=tuple(_assumptions(situation)),
        aspects=aspects_of(findings),
        performance=None if any(each.outcome is Outcome.UNSOUND for each in findings) else situation.performance,
        score_terms=score_terms(situation),
    )


def _hardware(situation: Situation) -> Hardware:
    """Accepted nodes only; installed counts allocatable of what is present.

    Free may be negative; what is promised to the declaration is free to it.
    """
    resource = situation.pod.resource
    present = [group for group in situation.accepted if group.like.state not in (NodeState.GONE, NodeState.PROVISIONABLE)]
    own = situation.inventory.held_by(situation.declaration.owners)
    products: dict[str, list[int]] = {}
    memory_of: dict[str, int | None] = {}
    for group in present:
        product = group.shape.unit(resource).product or "unknown"
        counts = products.setdefault(product, [0, 0])
        counts[0] += group.like.allocatable.get(resource, 0) * group.count
        counts[1] += group.count
        memory_of[product] = group.shape.unit(resource).memory
    known = all(memory is not None for memory in memory_of.values())
    total = sum(
        group.like.allocatable.get(resource, 0) * group.count * (group.shape.unit(resource).memory or 0) for group in present
    )
    return Hardware(
        gpus_installed=sum(gpus for gpus, _ in products.values()),
        gpus_free=sum(group.like.free(resource) * group.count for group in present if group.like.state is NodeState.USABLE)
        + sum(pod.requests.get(resource, 0) for pod in own if pod.is_promised),
        memory_installed=Bytes(total) if known else None,
        products=tuple(
            ProductCount(
                product=product,
                gpus=gpus,
                memory=None if memory_of[product] is None else Bytes(memory_of[product] or 0),
                nodes=nodes,
            )
            for product, (gpus, nodes) in sorted(products.items())
        ),
        inventory_age_seconds=situation.inventory.age_seconds,
    )


def _assumptions_of_speed(situation: Situation) -> list[Assumption]:
    found, declaration = situation.performance, situation.declaration
    pace = declaration.engine.pace
    if found is None or pace is None:
        return []
    assumed = []
    if not found.are_lengths_declared:
        lengths = f"{found.lengths.prompt:.0f} prompt and {found.lengths.output:.0f} output tokens"
        assumed.append(Assumption(field="spec.traffic", value=lengths, why="unset: for the figures alone, no finding rests on it"))
    products = {
        each.gpu.product for each in situation.found_of_shape.values() if each.fit is not Fit.UNFIT and each.gpu.product is not None
    }
    if len(products) > 1:
        others = ", ".join(sorted(products - {found.product}))
        assumed.append(Assumption(field="performance", value=found.product, why=f"pods may land on {others} as well"))
    if declaration.engine.settings.draft is not None:
        why = "how many drafted tokens are accepted is not known: figures are those without speculation"
        assumed.append(Assumption(field="performance", value=declaration.engine.settings.draft.method, why=why))
    best, ranks = situation.best_found, declaration.strategy.tensor
    if best is not None and best.gpu.are_joined(ranks) is None and ranks > 1:
        link = "NVLink, as the product is made" if is_linked(best.gpu, ranks) else "PCIe"
        why = f"nothing tells whether NVLink joins them: figures are those over {link}"
        assumed.append(Assumption(field="performance", value=found.product, why=why))
    if situation.pod.pods_per_replica > 1:
        why = "a replica spans pods, and nothing tells how fast the network between nodes is"
        value = f"{pace.fabric_bytes_per_second / GIGA:g} GB/s a GPU and direction"
        assumed.append(Assumption(field="performance", value=value, why=why))
    return assumed


def _assumptions(situation: Situation) -> list[Assumption]:
    declaration = situation.declaration
    assumed = [Assumption(field=field, value=value, why=why) for field, value, why in declaration.assumptions]
    best = situation.best_found
    if best is not None and best.estimate is not None:
        rules = best.estimate.rules
        assumed.append(Assumption(field="memory", value=rules.versions, why=f"figures measured on these versions: {rules.source}"))
    assumed += _assumptions_of_speed(situation)
    units = [group.shape.unit(situation.pod.resource) for group in situation.candidates]
    assumed += dict.fromkeys(
        Assumption(field="hardware", value=gpu.product or "unknown product", why=gpu.contradiction)
        for gpu in units
        if gpu.contradiction
    )
    assumed += dict.fromkeys(
        Assumption(field="hardware", value=gpu.product or "unknown product", why=doubt) for gpu in units for doubt in gpu.doubts
    )
    remembered: dict[str, int] = {}
    unreported: dict[tuple[str, str], int] = {}
    for group in situation.candidates:
        gpu = group.shape.unit(situation.pod.resource)
        if gpu.report_problem:
            said = gpu.product or "unknown product", gpu.report_problem
            unreported[said] = unreported.get(said, 0) + group.count
        if gpu.source == REMEMBERED_LABELS:
            product = gpu.product or "unknown product"
            remembered[product] = remembered.get(product, 0) + group.count
    assumed += [
        Assumption(field="hardware", value=product, why=f"{REMEMBERED_LABELS}: {count(nodes, 'node')} lost theirs not long ago")
        for product, nodes in remembered.items()
    ]
    assumed += [
        Assumption(
            field="hardware", value=product, why=f"as labels say: of {count(nodes, 'node')} the report does not count, {problem}"
        )
        for (product, problem), nodes in unreported.items()
    ]
    if declaration.engine.settings.unmodelled:
        what = ", ".join(declaration.engine.settings.unmodelled)
        assumed.append(Assumption(field="spec.engine", value=what, why="bears on memory in a way that is not modelled"))
    if declaration.engine.is_newer_than_known:
        value = f"{declaration.engine.name} {declaration.engine.version}"
        assumed.append(
            Assumption(field="spec.engine.version", value=value, why="newer than what was read: figures are of the newest known")
        )
    if declaration.gpus.per_pod is None and situation.required.gpus_per_pod is not None:
        assumed.append(
            Assumption(
                field="spec.gpus.perPod",
                value=str(situation.pod.gpus),
                why="unset: the fewest equal pods of which one fits the largest node that they may use",
            )
        )
    return assumed
