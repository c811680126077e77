"""What a node's driver says, against what labels, slices and the kubelet say of the same GPUs."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from shardgate.adapters.gpu_resources import MIG, PLAIN, RENAMED
from shardgate.adapters.gpus import find_product, normalised, product_of_id
from shardgate.adapters.nodes.reports import MEMORY_TOLERANCE, NodeFacts
from shardgate.adapters.nodes.statements import CLIQUE, Statement
from shardgate.domain.inventory import Sharing

_CUT = (Sharing.MIG_SINGLE, Sharing.MIG_MIXED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """Two sources that cannot both be right, of one field."""

    fact: str
    message: str
    is_of_report: bool = False
    """The node's driver says one of them: it is believed, save for how many GPUs pods can get."""


class Difference(StrEnum):
    """What a report and the others may differ in: ``fact`` of a contradiction, and label of a metric."""

    COUNT = "count"
    PRODUCT = "product"
    MEMORY = "memory"
    MIG = "mig"
    LINK = "link"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What the kubelet counts."""

    registered: Mapping[str, int]
    """GPU resource -> units, those that are not healthy among them."""
    sharing: Sharing | None
    units_per_card: int


def differences(
    driver: Statement,
    facts: NodeFacts,
    others: list[Statement],
    labels: Mapping[str, str],
    counted: Counted,
    *,
    nvlink: bool | None,
) -> tuple[Contradiction, ...]:
    """Each at most once. ``nvlink``: what was read without the report."""
    found = (
        (Difference.PRODUCT, _product(driver, others)),
        (Difference.MEMORY, _unlike(facts) or _memory(driver, others)),
        (Difference.COUNT, _count(facts, others, counted)),
        (Difference.MIG, _mig(facts, others, counted)),
        (Difference.LINK, "" if counted.sharing in _CUT else _link(facts, labels, nvlink=nvlink)),
    )
    return tuple(Contradiction(fact=kind, message=message, is_of_report=True) for kind, message in found if message)


def _product(driver: Statement, others: list[Statement]) -> str:
    if driver.product is None:
        return ""
    row = find_product(driver.product)
    for each in others:
        other = product_of_id(each.gpu_id or "") or (find_product(each.product) if each.product else None)
        named = each.product or (other.label if other is not None else None)
        if named is None:
            continue
        same = row is other if row is not None and other is not None else _alike(named, driver.product)
        # A cloud's name that the table does not know is no product's spelling.
        if not same and (other is not None or each.source.startswith("labels nvidia.com")):
            return f"{each.source} say {normalised(named)}, the driver {normalised(driver.product)}"
    return ""


def _alike(one: str, other: str) -> bool:
    return normalised(one).lower() == normalised(other).lower()


def _unlike(facts: NodeFacts) -> str:
    """GPUs of one product of which some have much less: a rank may land on any."""
    if len(facts.products) > 1 or not facts.do_memories_differ:
        return ""
    return f"the driver tells of GPUs of {facts.memories_mib[0]} to {facts.memories_mib[-1]} MiB"


def _memory(driver: Statement, others: list[Statement]) -> str:
    has = driver.memory_mib
    for each in others:
        said = each.memory_mib
        if has is not None and said is not None and not each.is_rounded and abs(said - has) > MEMORY_TOLERANCE * has:
            return f"{each.source} say {said} MiB, the driver {has} MiB"
    return ""


def _count(facts: NodeFacts, others: list[Statement], counted: Counted) -> str:
    registered = counted.registered.get(PLAIN, 0) + counted.registered.get(RENAMED, 0)
    expected = facts.whole * counted.units_per_card
    whole = counted.sharing in (Sharing.NONE, Sharing.TIME_SLICING, Sharing.MPS)
    whole = whole or (counted.sharing is None and registered < expected)  # no sharing makes units fewer than GPUs
    if whole and registered and registered != expected:
        units = f"{registered} {PLAIN}" if counted.units_per_card == 1 else f"{registered} units of {counted.units_per_card} a GPU"
        return f"the kubelet counts {units}, the driver {facts.whole} GPUs"
    if len(facts.products) > 1:
        return ""  # ``gpu.count`` and its like count GPUs of one product
    for each in others:
        if each.gpus is not None and each.gpus != facts.gpus:
            return f"{each.source} say {each.gpus} GPUs, the driver {facts.gpus}"
    return ""


def _mig(facts: NodeFacts, others: list[Statement], counted: Counted) -> str:
    has = {f"{MIG}{each.profile}": each.number for each in facts.parts}
    offered = {name: amount for name, amount in counted.registered.items() if name.startswith(MIG) and amount > 0}
    for name in sorted({**has, **offered} if offered else ()):
        if has.get(name.removesuffix(".shared"), 0) != offered.get(name, 0) and not name.endswith(".shared"):
            return f"the kubelet counts {offered.get(name, 0)} {name}, the driver {has.get(name, 0)}"
    if facts.has_mig is None:
        return ""
    cut = next((each for each in others if each.sharing in _CUT), None)
    if cut is not None and not facts.has_mig:
        return f"{cut.source} say that MIG cuts the GPUs, the driver that it is off"
    plain = next((each for each in others if each.sharing is Sharing.NONE and each.source.startswith("labels nvidia.com")), None)
    if plain is not None and facts.has_mig and not offered and facts.parts:
        return f"{plain.source} say whole GPUs, the driver that MIG cuts {facts.gpus - facts.whole} of {facts.gpus}"
    return ""


def _link(facts: NodeFacts, labels: Mapping[str, str], *, nvlink: bool | None) -> str:
    label = labels.get(CLIQUE, "")
    if label and facts.clique is not None and facts.clique != label:
        return f"label {CLIQUE} says {label}, the driver {facts.clique or 'no complete partition'}"
    if facts.links is None or nvlink is None:
        return ""
    number, widest = sum(map(len, facts.links.islands)), facts.links.widest()
    if number > 1 and nvlink and widest < number:
        return f"all GPUs should be joined by NVLink, by the driver at most {widest} of {number} are"
    if number > 1 and not nvlink and widest > 1:
        return f"no NVLink was expected, the driver joins {widest} of {number} GPUs by it"
    return ""
