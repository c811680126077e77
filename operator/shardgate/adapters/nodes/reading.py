"""One node's GPUs as all sources together tell them: the best source of each fact, and what contradicts it.

Order of sources: ``status.allocatable`` for counts; a fresh GpuNodeReport; ResourceSlices; GPU Feature Discovery; HAMi's
register; other vendors' labels; clouds' labels; instance types; resource names; PCI ids. A lower source never raises a count above
allocatable. A fact that nobody states is ``None``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shardgate.adapters.gpu_node_reports import KIND as REPORT
from shardgate.adapters.gpu_resources import MIG, PLAIN, gpus_among, schedulable
from shardgate.adapters.gpus import Product, find_product, product_of_id
from shardgate.adapters.nodes import statements
from shardgate.adapters.nodes.report_differences import Contradiction, Counted, Difference, differences
from shardgate.adapters.nodes.reports import MEMORY_TOLERANCE, NodeFacts
from shardgate.adapters.nodes.slices import Device
from shardgate.adapters.nodes.statements import CLIQUE, PRODUCT, Statement
from shardgate.domain.inventory import Links, Sharing
from shardgate.domain.units import Bytes

NOMINAL_TOLERANCE = 0.08
"""And lies at most this far below the number in its name (15109 of 16384 MiB: a T4 with an old driver)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReading:
    """A node's GPUs. ``sources`` tells where each field comes from."""

    vendor: str | None = None
    product: str | None = None
    """Without sharing suffix, as its source spells it."""
    row: Product | None = None
    family: str | None = None
    compute_capability: tuple[int, int] | None = None
    memory_mib: int | None = None
    """Of one physical GPU."""
    possible_memory_mib: tuple[int, ...] = ()
    """Values that contradicting or unclear sources leave open, where ``memory_mib`` is unknown."""
    unit_memory_mib: int | None = None
    """Of one schedulable unit; where resources differ, see ``memory_of_resource_mib``."""
    memory_of_resource_mib: Mapping[str, int] = field(default_factory=dict)
    gpus_physical: int | None = None
    gpus_schedulable: int | None = None
    sharing: Sharing | None = None
    units_per_card: int | None = None
    nvlink: bool | None = None
    nvlink_reason: str = "nothing tells"
    links: Links | None = None
    """How the GPUs are joined, where the node's driver tells."""
    visible: Bytes | None = None
    """What an engine sees of a GPU's memory, where the node's driver tells."""
    resources: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    contradictions: tuple[Contradiction, ...] = ()
    remarks: tuple[str, ...] = ()

    def contradicts(self, fact: str) -> str:
        """What is contradictory of a fact; empty where nothing is."""
        return "; ".join(each.message for each in self.contradictions if each.fact == fact)


def read_gpus(
    labels: Mapping[str, str],
    allocatable: Mapping[str, int],
    capacity: Mapping[str, int],
    register: str = "",
    devices: tuple[Device, ...] = (),
    report: NodeFacts | None = None,
) -> NodeReading:
    """Ask every source. Amounts are whole units; an absent ``allocatable`` is the capacity, as in the API.

    ``report``: what the node's agent says, where it is fresh.
    """
    amounts, where = (
        (allocatable, "status.allocatable") if allocatable else (capacity, "status.capacity (allocatable is not stated)")
    )
    gpus = gpus_among(amounts)
    own = statements.from_report(report, gpus)
    told = [
        statements.from_devices(devices),
        statements.from_gfd(labels, gpus),
        statements.from_hami(register),
        statements.from_amd(labels, gpus),
        statements.from_intel(labels, gpus),
        statements.from_gke(labels),
        statements.from_karpenter(labels),
        statements.from_coreweave(labels),
        statements.from_alibaba(labels),
        statements.from_akash(labels),
        statements.from_instance_type(labels),
        statements.from_resources(gpus, (*allocatable, *capacity)),
        statements.from_azure(labels),
        statements.from_pci(labels),
    ]
    others = [each for each in told if each is not None]
    if own is None or report is None:
        return _Reader(others).read(labels, gpus, amounts, capacity, where)
    before = _Reader(others).read(labels, gpus, amounts, capacity, where)
    found = _Reader([own, *others], report).read(labels, gpus, amounts, capacity, where)
    counted = Counted(
        registered={name: max(capacity.get(name, 0), amount) for name, amount in gpus.items()}, sharing=found.sharing,
        units_per_card=found.units_per_card or 1,
    )  # fmt: skip
    return _with_report(found, report, differences(own, report, others, labels, counted, nvlink=before.nvlink))


def _with_report(found: NodeReading, report: NodeFacts, differing: tuple[Contradiction, ...]) -> NodeReading:
    """What one driver alone tells, and where it differs from the others."""
    if len(report.products) > 1:
        # What labels say is of one of them at most, and nobody tells which a pod gets.
        said = f"the driver tells of several products: {', '.join(report.products)}"
        several = Contradiction(fact=Difference.PRODUCT, message=said, is_of_report=True)
        differing = (several, *(each for each in differing if each.fact not in (Difference.PRODUCT, Difference.MEMORY)))
        others = tuple(
            each for each in found.contradictions if each.fact not in (Difference.COUNT, Difference.PRODUCT, Difference.MEMORY)
        )
        capability = report.compute_capability
        memory, memories = report.memory_mib, report.memories_mib
        untold = ["product", "family"]
        untold += ["memoryMib", "unitMemoryMib"] if memory is None else []
        untold += ["computeCapability"] if capability is None else []
        found = replace(
            found, row=None, product=None, memory_mib=memory, unit_memory_mib=memory, contradictions=others,
            compute_capability=capability, family=None if capability is None else family_of(capability),
            possible_memory_mib=memories if memory is None else (),
            sources={field: source for field, source in found.sources.items() if field not in untold},
        )  # fmt: skip
    facts = {each.fact for each in differing}
    is_whole = found.sharing in (Sharing.NONE, Sharing.TIME_SLICING, None)
    return replace(
        found,
        contradictions=(*(each for each in found.contradictions if each.fact not in facts), *differing),
        links=report.links,
        visible=report.visible if is_whole and found.sources.get("memoryMib") == REPORT else None,
    )


class _Reader:
    """Takes the best statement of each fact, and keeps where it came from."""

    def __init__(self, told: list[Statement], report: NodeFacts | None = None) -> None:
        self._told, self._report = told, report
        self._sources: dict[str, str] = {}
        self._contradictions: list[Contradiction] = []

    def read(
        self,
        labels: Mapping[str, str],
        gpus: Mapping[str, int],
        amounts: Mapping[str, int],
        capacity: Mapping[str, int],
        where: str,
    ) -> NodeReading:
        vendor = self._first("vendor", lambda each: each.vendor)
        row, product = self._product()
        capability = self._first("computeCapability", lambda each: each.compute_capability)
        row, product, capability = self._agreeing(row, product, capability)
        if capability is None and row is not None and row.compute_capability is not None:
            capability = self._from_table("computeCapability", row, row.compute_capability)
        resources, counts_from = self._resources(gpus, where)
        sharing = self._sharing(resources, row)
        memory, possible = self._memory(row, sharing)
        counted = physical = self._first("gpusPhysical", lambda each: each.gpus)
        registered = max(capacity.get(PLAIN, 0), amounts.get(PLAIN, 0))
        if physical is None and sharing is Sharing.NONE and registered and vendor == "nvidia":
            physical, self._sources["gpusPhysical"] = registered, "nvidia.com/gpu in status, not shared"
        if resources or (amounts and vendor is not None):
            self._sources["gpusSchedulable"] = self._sources["resources"] = counts_from
        elif amounts:
            self._sources["gpusSchedulable"] = where
        self._compare_counts(physical, sharing, resources)
        unit, by_resource = self._units(sharing, memory)
        devices = self._first("", lambda each: each.visible_devices)
        nvlink, reason = _nvlink(
            labels, vendor, row, sharing, physical, is_one=1 in (counted, devices), told=self._first("", lambda each: each.nvlink)
        )
        if self._report is not None and sharing not in (Sharing.MIG_MIXED, Sharing.MIG_SINGLE):
            nvlink, reason = _nvlink_by_driver(self._report, reason, before=nvlink)
        if nvlink is not None:
            self._sources["nvlink"] = reason
        return NodeReading(
            vendor=vendor,
            product=product,
            row=row,
            family=self._family(row, capability),
            compute_capability=capability,
            memory_mib=memory,
            possible_memory_mib=possible,
            unit_memory_mib=unit,
            memory_of_resource_mib=by_resource,
            gpus_physical=physical,
            gpus_schedulable=schedulable(resources) if resources or amounts else None,
            sharing=sharing,
            units_per_card=self._first("", lambda each: each.replicas),
            nvlink=nvlink,
            nvlink_reason=reason,
            resources=resources,
            sources=self._sources,
            contradictions=tuple(self._contradictions),
            remarks=tuple(dict.fromkeys(remark for each in self._told for remark in each.remarks)),
        )

    # ---- facts

    def _first(self, fact: str, of: Callable[[Statement], Any]) -> Any:  # what the field holds
        for each in self._told:
            value = of(each)
            if value is not None:
                if fact:
                    self._sources[fact] = each.source
                return value
        return None

    def _from_table(self, fact: str, row: Product, value: Any) -> Any:  # what the field holds
        self._sources[fact] = f"product table ({row.gpu_id})"
        return value

    def _contradict(self, fact: str, message: str) -> None:
        self._contradictions.append(Contradiction(fact=fact, message=message))

    def _product(self) -> tuple[Product | None, str | None]:
        """The first that names one; a source whose name could mean several is settled by those that follow."""
        candidates: tuple[str, ...] = ()
        for each in self._told:
            row = product_of_id(each.gpu_id or "")
            if row is not None and (not candidates or row.gpu_id in candidates):
                self._sources["product"] = each.source
                return row, each.product or row.label
            if each.product is not None:
                self._sources["product"] = each.source
                return find_product(each.product), each.product
            candidates = candidates or each.candidates
        return None, None

    def _agreeing(
        self, row: Product | None, product: str | None, capability: tuple[int, int] | None
    ) -> tuple[Product | None, str | None, tuple[int, int] | None]:
        """Product and compute capability, unless they contradict each other: then neither is known."""
        if row is None or capability is None:
            return row, product, capability
        known = row.compute_capability
        if known is None or known == capability:
            return row, product, capability
        if self._told[0].is_of_driver:
            return row, product, capability  # one source, that nothing makes wrong
        said = f"{self._sources['computeCapability']} say {capability[0]}.{capability[1]}"
        self._contradict("product", f"a {product} has compute capability {known[0]}.{known[1]}, {said}")
        for fact in ("product", "computeCapability"):
            self._sources.pop(fact, None)
        return None, None, None

    def _resources(self, gpus: Mapping[str, int], where: str) -> tuple[dict[str, int], str]:
        """Units by resource; those of a DeviceClass where no device plugin offers the same GPUs."""
        if any(gpus.values()):
            return dict(gpus), where
        for each in self._told:
            if each.units:
                return {**gpus, **each.units}, each.source
        return dict(gpus), where

    def _sharing(self, resources: Mapping[str, int], row: Product | None) -> Sharing | None:
        sharing: Sharing | None = self._first("sharing", lambda each: each.sharing)
        if sharing is not None:
            return sharing
        units = sum(amount for name, amount in resources.items() if name in (PLAIN, "amd.com/gpu"))
        same = next((each for each in self._told if units and each.gpus == units), None)
        if same is not None:
            self._sources["sharing"] = f"as many units as GPUs ({same.source})"
            return Sharing.NONE
        unshared = any(name.startswith(("habana.ai/", "google.com/tpu", "aws.amazon.com/neuron")) for name in resources)
        if unshared or (row is not None and row.vendor in ("habana", "google", "aws")):
            self._sources["sharing"] = "this vendor's plugin shares nothing"
            return Sharing.NONE
        return None

    def _memory(self, row: Product | None, sharing: Sharing | None) -> tuple[int | None, tuple[int, ...]]:
        """MiB of a physical GPU, or the values that stay possible."""
        exact = next((each for each in self._told if each.memory_mib is not None and not each.is_rounded), None)
        if exact is not None and exact.memory_mib is not None:
            return self._agreed_memory(exact.source, exact.memory_mib, None if exact.is_of_driver else row)
        rows = (row,) if row is not None else self._candidates()
        reported = {mib for each in rows for mib in each.memory_mib}
        rounded = next((each for each in self._told if each.memory_mib is not None), None)
        if len(reported) == 1 and all(each.memory_mib for each in rows):
            return self._from_table("memoryMib", rows[0], reported.pop()), ()
        if reported or rounded is None or sharing is Sharing.VGPU:
            return None, (min(reported), max(reported)) if reported and sharing is not Sharing.VGPU else ()
        self._sources["memoryMib"] = rounded.source
        return rounded.memory_mib, ()

    def _agreed_memory(self, source: str, mib: int, row: Product | None) -> tuple[int | None, tuple[int, ...]]:
        """What a driver reports, unless the product has never been seen with about so much."""
        if row is None or _is_of(row, mib):
            self._sources["memoryMib"] = source
            return mib, ()
        low, high = min(row.memory_mib, default=0), max(row.memory_mib, default=0)
        known = f"{low} to {high}" if low < high else str(low or f"about {row.memory_gb_nominal} x 1024")
        self._contradict("memory", f"a {row.label} has {known} MiB, {source} say {mib} MiB")
        return None, tuple(sorted({mib, *row.memory_mib}))

    def _candidates(self) -> tuple[Product, ...]:
        """Products of the first source that leaves several open."""
        ids = next((each.candidates for each in self._told if each.candidates), ())
        return tuple(row for each in ids if (row := product_of_id(each)) is not None)

    def _units(self, sharing: Sharing | None, memory: int | None) -> tuple[int | None, dict[str, int]]:
        """MiB of a schedulable unit, and by resource where they differ."""
        by_resource = self._first("", lambda each: dict(each.memory_of_resource_mib) or None) or {}
        if by_resource:
            self._sources["unitMemoryMib"] = self._source_of(lambda each: each.memory_of_resource_mib)
            return None, by_resource
        if sharing in (Sharing.NONE, Sharing.TIME_SLICING):
            stated = self._source_of(lambda each: each.unit_memory_mib if not each.is_rounded else None)
            if memory is not None:
                self._sources["unitMemoryMib"] = stated or self._sources.get("memoryMib", "")
                return memory, {}
            is_virtual = any(each.unit_memory_mib is not None and each.memory_mib is None for each in self._told)
            return (self._stated_unit() if is_virtual else None), {}
        if sharing is not Sharing.MIG_MIXED and not any(each.fact == "memory" for each in self._contradictions):
            return self._stated_unit(), {}  # what a labeller says is of a unit, whatever a unit is
        return None, {}

    def _stated_unit(self) -> int | None:
        return self._first("unitMemoryMib", lambda each: each.unit_memory_mib)  # type: ignore[no-any-return]  # MiB

    def _source_of(self, of: Callable[[Statement], Any]) -> str:
        return next((each.source for each in self._told if of(each)), "")

    def _family(self, row: Product | None, capability: tuple[int, int] | None) -> str | None:
        if capability is not None and (family := family_of(capability)) is not None:
            self._sources["family"] = f"compute capability {capability[0]}.{capability[1]}"
            return family
        if row is not None and row.family is not None:
            return self._from_table("family", row, row.family)  # type: ignore[no-any-return]  # text
        families = {each.family for each in self._candidates()}
        if row is None and len(families) == 1 and (family := families.pop()) is not None:
            return self._from_table("family", self._candidates()[0], family)  # type: ignore[no-any-return]  # text
        return self._first("family", lambda each: each.family)  # type: ignore[no-any-return]  # text

    def _compare_counts(self, physical: int | None, sharing: Sharing | None, resources: Mapping[str, int]) -> None:
        """Other sources' counts, and units against cards: allocatable settles what is schedulable, so these only inform."""
        counts = {each.source: each.gpus for each in self._told if each.gpus is not None}
        if len(set(counts.values())) > 1:
            self._contradict("count", "; ".join(f"{source}: {number} GPUs" for source, number in counts.items()))
        units = resources.get(PLAIN, 0)
        per_card = self._first("", lambda each: each.replicas) or 1
        whole = sharing in (Sharing.NONE, Sharing.TIME_SLICING, Sharing.MPS, None)
        if physical and units and whole and not any(name.startswith(MIG) and amount for name, amount in resources.items()):
            expected = physical * per_card
            if units > expected and (self._report is None or units % physical == 0):
                self._contradict("sharing", f"{physical} GPUs in {per_card} units each, yet {units} are allocatable")


def _is_of(row: Product, mib: int) -> bool:
    """Whether a product may report so much."""
    near = any(abs(mib - known) <= MEMORY_TOLERANCE * known for known in row.memory_mib)
    nominal = (row.memory_gb_nominal or 0) * 1024
    if not row.memory_mib and not nominal:
        return True
    return near or (1 - NOMINAL_TOLERANCE) * nominal <= mib <= (1 + MEMORY_TOLERANCE) * nominal


def _nvlink(
    labels: Mapping[str, str],
    vendor: str | None,
    row: Product | None,
    sharing: Sharing | None,
    gpus: int | None,
    *,
    is_one: bool,
    told: bool | None,
) -> tuple[bool | None, str]:
    """Whether the GPUs of the node are joined by NVLink; never labelled but for partitions over several nodes."""
    name = row.label if row is not None else ""
    made_for_it = row is not None and row.has_nvlink is True
    is_whole = row is not None and row.board_gpus is not None and gpus is not None and gpus >= row.board_gpus
    cut = sharing is Sharing.MIG_MIXED or (sharing is Sharing.MIG_SINGLE and "MIG-INVALID" not in labels.get(PRODUCT, ""))
    reasons: tuple[tuple[bool, bool | None, str], ...] = (
        (bool(labels.get(CLIQUE)), True, f"label {CLIQUE}: the fabric manager reports a complete partition"),
        (vendor not in (None, "nvidia"), False, f"{vendor} devices have no NVLink"),
        (cut, False, "MIG instances have no NVLink"),
        (row is not None and row.has_nvlink is False and not row.takes_bridge, False, f"{name} has no NVLink"),
        (row is not None and row.is_always_joined, True, f"{name} comes in trays joined by NVLink"),
        (is_one, False, "one GPU on the node"),
        (told is not None, told, "instance type"),
        (made_for_it and is_whole, True, f"a whole board of {name}"),
        (row is not None and row.takes_bridge, None, f"a bridge may join two {name}"),
        (made_for_it, None, f"{name} is made for NVLink, but the board is not whole or not known to be"),
    )
    return next(((value, reason) for holds, value, reason in reasons if holds), (None, "nothing tells"))


def _nvlink_by_driver(report: NodeFacts, reason: str, *, before: bool | None) -> tuple[bool | None, str]:
    """What the driver tells of the links between healthy GPUs; what was found without it, where it does not tell."""
    links = report.links
    if links is None:
        return before, reason
    number, widest = sum(map(len, links.islands)), links.widest()
    if number <= 1:
        return False, f"{REPORT}: one healthy GPU on the node"
    if widest == 1:
        return False, f"{REPORT}: no NVLink between any two of {number} GPUs"
    if widest == number:
        return True, f"{REPORT}: NVLink between all {number} healthy GPUs"
    sizes = " + ".join(str(len(each)) for each in links.islands)
    return None, f"{REPORT}: NVLink within groups of {sizes} GPUs"


_FAMILIES: Iterable[tuple[tuple[int, int], tuple[int, int], str]] = (
    ((3, 0), (3, 7), "kepler"), ((5, 0), (5, 3), "maxwell"), ((6, 0), (6, 2), "pascal"), ((7, 0), (7, 2), "volta"),
    ((7, 5), (7, 5), "turing"), ((8, 0), (8, 8), "ampere"), ((8, 9), (8, 9), "ada-lovelace"), ((9, 0), (9, 0), "hopper"),
    ((10, 0), (10, 3), "blackwell"), ((11, 0), (11, 0), "blackwell"), ((12, 0), (12, 1), "blackwell"),
)  # fmt: skip
"""CUDA C++ programming guide, compute capabilities; 11.0 is Thor."""


def family_of(capability: tuple[int, int]) -> str | None:
    """The architecture of a CUDA compute capability; labels of it were wrong for 8.9 and for Blackwell."""
    return next((family for low, high, family in _FAMILIES if low <= capability <= high), None)
