"""GpuNodeReports: what a node's driver says of its GPUs -> what of it is read, equal for nodes that say the same."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import msgspec

from shardgate.adapters import nvml_values
from shardgate.api.report_limits import MOST_REASONS, printable
from shardgate.domain.driver_reading import CALL_HUNG, GpuState, Memory, Ownership, PciePath
from shardgate.domain.inventory import Links
from shardgate.domain.units import GIBI, MEBI, Bytes

MEMORY_TOLERANCE = 0.03
"""Reported memory of one product differs by ECC and driver within this of the values seen."""
NO_CUDA = frozenset({"NVML_ERROR_DRIVER_NOT_LOADED", "NVML_ERROR_LIB_RM_VERSION_MISMATCH", CALL_HUNG})
"""Problems of the driver itself, with which no container can start CUDA; others are its reader's own."""
HELD_STEP = 256 * MEBI
"""What is held counts in steps of this, rounded up: nodes stay alike, and a few megabytes more change nothing."""
UNOWNED_STEP = 4 * GIBI
"""What processes of unknown owners hold counts in steps of this, rounded down: most are pods', and theirs changes all the time."""
POWER_STEP = 0.1
"""Power limits count as shares of the default one, in steps of this, rounded up: some are moved all the time."""
_NOT_IN_LABELS = re.compile(r"[^A-Za-z0-9\-_. ]")
"""Of a product's name, what GPU Feature Discovery leaves out."""
_WITHOUT_CPU = (PciePath.SAME_BOARD, PciePath.ONE_SWITCH, PciePath.SWITCHES)
_SUCCESS = "NVML_SUCCESS"
_GONE = (GpuState.UNHEALTHY, GpuState.LOST)


class _Version(msgspec.Struct, gc=False):
    major: int = 0
    minor: int = 0


class _Memory(msgspec.Struct, gc=False):
    totalBytes: int | None = None  # noqa: N815  # as the API spells it
    usedBytes: int | None = None  # noqa: N815
    reservedBytes: int | None = None  # noqa: N815


class _MigDevice(msgspec.Struct, gc=False):
    profile: str | None = None
    memory: _Memory | None = None


class _Mig(msgspec.Struct, gc=False):
    enabled: bool = False
    devices: list[_MigDevice] | None = None


class _NvLink(msgspec.Struct, gc=False):
    up: int = 0
    down: list[int] | None = None


class _Fabric(msgspec.Struct, gc=False):
    state: str = ""
    status: str | None = None
    cluster: str | None = None
    clique: int | None = None


class _Power(msgspec.Struct, gc=False):
    enforcedMilliwatts: int | None = None  # noqa: N815
    defaultMilliwatts: int | None = None  # noqa: N815


class _Process(msgspec.Struct, gc=False):
    memoryBytes: int | None = None  # noqa: N815
    ownership: str = ""


class _Health(msgspec.Struct, gc=False):
    state: str = ""
    reasons: list[str] | None = None


class _Gpu(msgspec.Struct, gc=False):
    index: int
    product: str | None = None
    computeCapability: _Version | None = None  # noqa: N815
    memory: _Memory | None = None
    mig: _Mig | None = None
    nvlink: _NvLink | None = None
    fabric: _Fabric | None = None
    power: _Power | None = None
    processes: list[_Process] | None = None
    health: _Health = msgspec.field(default_factory=_Health)


class _Pair(msgspec.Struct, gc=False):
    first: int
    second: int
    nvlink: bool | None = None
    path: str | None = None


class _Problem(msgspec.Struct, gc=False):
    name: str = ""


class _Status(msgspec.Struct, gc=False):
    problem: _Problem | None = None
    gpus: list[_Gpu] | None = None
    pairs: list[_Pair] | None = None


class ReportMetadata(msgspec.Struct, gc=False):
    """The part of ObjectMeta that is read."""

    name: str = ""
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815


class ReportObject(msgspec.Struct, gc=False):
    """A GpuNodeReport, decoded no further than it is read."""

    metadata: ReportMetadata
    status: _Status | None = None

    def read(self) -> "NodeFacts":
        """What it says of the node's GPUs."""
        return _facts(self.status or _Status())


class LeaseMetadata(msgspec.Struct, gc=False):
    """The part of ObjectMeta that is read."""

    name: str = ""
    namespace: str = ""
    resourceVersion: str = ""  # noqa: N815


class _LeaseSpec(msgspec.Struct, gc=False):
    renewTime: str = ""  # noqa: N815


class HeartbeatObject(msgspec.Struct, gc=False):
    """A node agent's Lease, decoded no further than it is read."""

    metadata: LeaseMetadata
    spec: _LeaseSpec = msgspec.field(default_factory=_LeaseSpec)


def report_from(body: Mapping[str, Any]) -> ReportObject:
    """A GpuNodeReport from plain values. Raises ``msgspec.ValidationError`` naming the field."""
    return msgspec.convert(body, ReportObject, strict=False)


def heartbeat_from(body: Mapping[str, Any]) -> HeartbeatObject:
    """A Lease from plain values. Raises ``msgspec.ValidationError`` naming the field."""
    return msgspec.convert(body, HeartbeatObject, strict=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """MIG devices of one profile, on all GPUs of a node and on those that are out of use."""

    profile: str
    memory_mib: int | None
    number: int
    out_of_use: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a node's driver says. ``None``: it does not say, or GPUs differ."""

    problem: str = ""
    """The driver's name of why it cannot be read: nothing else is known then."""
    is_told: bool = False
    """Whether the driver said how many GPUs there are, none among them."""
    gpus: int = 0
    whole: int = 0
    """GPUs that MIG does not cut."""
    whole_out_of_use: int = 0
    """Of them, those that are unhealthy or lost."""
    reasons: tuple[str, ...] = ()
    """What speaks against those out of use, cut ones among them: ``GPU 5 Lost (Xid79)``."""
    products: tuple[str, ...] = ()
    """As labels spell them, each once, those of GPUs out of use only where no other GPU is left."""
    compute_capability: tuple[int, int] | None = None
    memories_mib: tuple[int, ...] = ()
    """Of one GPU, all of it: each amount that there is."""
    visible: Bytes | None = None
    """CUDA's total: what the driver does not keep for itself."""
    parts: tuple[Part, ...] = ()
    has_mig: bool | None = None
    """Whether a GPU is cut by MIG; ``None`` where none can tell, as all are lost."""
    links: Links | None = None
    links_down: int = 0
    """NVLinks of healthy GPUs that are not up."""
    clique: str | None = None
    """``<fabric>.<partition>``, as GPU Feature Discovery writes it; empty: they are in no partition that is complete."""
    held: Bytes = Bytes(0)  # noqa: RUF009  # a NewType of int: immutable
    """By processes that were started beside Kubernetes, of the GPU where that is most."""
    unowned: tuple[Bytes, ...] = ()
    """By processes of unknown owners, of each GPU where there is any: the most first."""
    power_share: float = 1.0
    """Of its default power limit, what the GPU may draw that is limited most; 1 where the driver tells of no limit below it."""
    of_unknown_health: tuple[int, ...] = ()
    """Indices of GPUs of which the driver does not tell whether they are healthy; they count as free."""

    @property
    def memory_mib(self) -> int | None:
        """Of one GPU: the least, where all are of one product or have about the same."""
        return None if not self.memories_mib or (self.do_memories_differ and len(self.products) > 1) else self.memories_mib[0]

    @property
    def do_memories_differ(self) -> bool:
        """By more than GPUs of one product do."""
        return (
            len(self.memories_mib) > 1 and self.memories_mib[-1] - self.memories_mib[0] > MEMORY_TOLERANCE * self.memories_mib[-1]
        )

    @property
    def has_no_cuda(self) -> bool:
        """Whether the driver is in no state to run anything."""
        return self.problem in NO_CUDA

    @property
    def is_read(self) -> bool:
        """Whether the driver told anything; that there are no GPUs is something."""
        return not self.problem and self.is_told

    @property
    def out_of_use(self) -> int:
        """MIG devices and whole GPUs that are unhealthy or lost."""
        return self.whole_out_of_use + sum(each.out_of_use for each in self.parts)


def _facts(status: _Status) -> NodeFacts:
    if status.problem is not None:
        return NodeFacts(problem=printable(status.problem.name) or "UNKNOWN")
    if status.gpus is None:
        return NodeFacts()
    gpus = sorted(status.gpus, key=lambda each: each.index)
    bad = [each for each in gpus if each.health.state in _GONE]
    good = [each for each in gpus if each.health.state not in _GONE]
    told = good or gpus
    whole = [each for each in gpus if not _is_cut(each)]
    return NodeFacts(
        is_told=True,
        gpus=len(gpus),
        whole=len(whole),
        whole_out_of_use=sum(each.health.state in _GONE for each in whole),
        reasons=tuple(_reason(each) for each in bad),
        products=tuple(dict.fromkeys(_as_label(each.product) for each in told if each.product)),
        compute_capability=_same(
            (each.computeCapability.major, each.computeCapability.minor) for each in told if each.computeCapability is not None
        ),
        memories_mib=tuple(sorted({total // MEBI for each in told if (total := _memory(each.memory).total) is not None})),
        visible=_visible(told),
        parts=_parts(gpus),
        has_mig=any(map(_is_cut, good)) if good else None,
        links=_links([each.index for each in good], status.pairs or ()),
        links_down=sum(len(each.nvlink.down or ()) for each in good if each.nvlink is not None),
        clique=_clique(good),
        held=_held(good),
        unowned=_unowned(good),
        power_share=min(map(_power_share, good), default=1.0),
        of_unknown_health=tuple(each.index for each in good if each.health.state != GpuState.HEALTHY),
    )


def _same(values: Iterable[Any]) -> Any:  # any value, if it is one
    different = set(values)
    return different.pop() if len(different) == 1 else None


def _as_label(product: str) -> str:
    """``NVIDIA H100 80GB HBM3`` -> ``NVIDIA-H100-80GB-HBM3``."""
    return re.sub(r" +", "-", _NOT_IN_LABELS.sub("", product).strip())


def _is_cut(gpu: _Gpu) -> bool:
    return gpu.mig is not None and gpu.mig.enabled


def _reason(gpu: _Gpu) -> str:
    why = ", ".join(map(printable, (gpu.health.reasons or ())[:MOST_REASONS]))
    return f"GPU {gpu.index} {gpu.health.state}{f' ({why})' if why else ''}"


def _memory(told: _Memory | None) -> Memory:
    """Held to the rules that the agent reads the driver by: others can write reports too."""
    return Memory() if told is None else nvml_values.memory(told.totalBytes, told.usedBytes, told.reservedBytes)


def _visible(gpus: list[_Gpu]) -> Bytes | None:
    """The least of GPUs that differ by a few megabytes; ``None`` unless all tell what the driver keeps."""
    seen = []
    for each in gpus:
        memory = _memory(each.memory)
        if memory.total is None or memory.reserved is None:
            return None
        seen.append(memory.total - memory.reserved)
    least = min(seen, default=0)
    return Bytes(least - least % MEBI) if least > 0 else None


def _parts(gpus: list[_Gpu]) -> tuple[Part, ...]:
    number: Counter[str] = Counter()
    out_of_use: Counter[str] = Counter()
    memory: dict[str, set[int | None]] = {}
    for gpu in gpus:
        for each in (gpu.mig.devices or ()) if gpu.mig is not None and gpu.mig.enabled else ():
            if each.profile:
                profile = each.profile.replace("+", ".")
                number[profile] += 1
                out_of_use[profile] += gpu.health.state in _GONE
                total = _memory(each.memory).total
                memory.setdefault(profile, set()).add(None if total is None else total // MEBI)
    return tuple(
        Part(profile=each, memory_mib=_same(memory[each]), number=number[each], out_of_use=out_of_use[each])
        for each in sorted(number)
    )


def _links(good: list[int], pairs: Iterable[_Pair]) -> Links | None:
    """``None`` unless every two healthy GPUs are told of."""
    between = {(each.first, each.second): each for each in pairs}
    wanted = list(combinations(good, 2))
    found = [between.get(each) for each in wanted]
    if not good or any(each is None or each.nvlink is None for each in found):
        return None
    known = [each for each in found if each is not None]
    is_told = bool(known) and all(each.path is not None for each in known)
    return Links(
        islands=_groups(good, ((each.first, each.second) for each in known if each.nvlink)),
        switches=_groups(good, ((each.first, each.second) for each in known if each.path in _WITHOUT_CPU)) if is_told else (),
    )


def _groups(members: list[int], joined: Iterable[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """What is joined, directly or through others, the largest group first."""
    group_of = {each: [each] for each in members}
    for first, second in joined:
        one, other = group_of[first], group_of[second]
        if one is not other:
            one += other
            for each in other:
                group_of[each] = one
    groups = {id(each): tuple(sorted(each)) for each in group_of.values()}
    return tuple(sorted(groups.values(), key=lambda each: (-len(each), each)))


def _clique(gpus: list[_Gpu]) -> str | None:
    """``None`` where a GPU does not tell; in none is also what the fabric manager has not set up, or failed to."""
    if not gpus or any(each.fabric is None for each in gpus):
        return None
    told = {
        (each.cluster, each.clique) if each.state == "Completed" and each.status in (None, "", _SUCCESS) else (None, None)
        for each in (gpu.fabric for gpu in gpus)
        if each is not None
    }
    cluster, clique = told.pop() if len(told) == 1 else (None, None)
    return f"{cluster}.{clique}" if cluster and clique is not None else ""


def _held(gpus: list[_Gpu]) -> Bytes:
    most = max((_held_by(each, Ownership.HOST) for each in gpus), default=0)
    return Bytes(-(-most // HELD_STEP) * HELD_STEP)


def _unowned(gpus: list[_Gpu]) -> tuple[Bytes, ...]:
    amounts = [_held_by(each, Ownership.UNKNOWN) // UNOWNED_STEP * UNOWNED_STEP for each in gpus]
    return tuple(Bytes(each) for each in sorted(amounts, reverse=True) if each)


def _power_share(gpu: _Gpu) -> float:
    told = gpu.power or _Power()
    enforced = nvml_values.amount(told.enforcedMilliwatts, nvml_values.MOST_MILLIWATTS)
    default = nvml_values.amount(told.defaultMilliwatts, nvml_values.MOST_MILLIWATTS)
    if not enforced or not default:
        return 1.0
    return min(1.0, math.ceil(round(enforced / default / POWER_STEP, 6)) * POWER_STEP)


def _held_by(gpu: _Gpu, owner: Ownership) -> int:
    """Bytes; a process that would hold more than the GPU has is no sane answer."""
    whole = _memory(gpu.memory).total or nvml_values.MOST_BYTES
    amounts = (nvml_values.amount(each.memoryBytes, whole) for each in gpu.processes or () if each.ownership == owner)
    return min(whole, sum(each or 0 for each in amounts))
