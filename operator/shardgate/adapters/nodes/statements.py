"""What each source says of a node's GPUs: one function a source, none of which knows the others.

A source that says nothing of a field leaves it ``None``. Which source wins is decided in ``reading``.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from shardgate.adapters.gpu_node_reports import KIND as REPORT
from shardgate.adapters.gpu_resources import LEGACY, MIG, PLAIN, RENAMED, RESOURCE_OF_VENDOR, passed_through, vendor_of
from shardgate.adapters.gpus import by_cloud_name, by_pci_id, families_of_mig, find_product, product_of_id, without_sharing
from shardgate.adapters.nodes.reports import NodeFacts
from shardgate.adapters.nodes.slices import Device
from shardgate.adapters.tables import table
from shardgate.domain.inventory import Sharing
from shardgate.domain.units import MEBI

T = TypeVar("T")
Labels = Mapping[str, str]
Amounts = Mapping[str, int]

GFD = "nvidia.com/"
PRODUCT, MEMORY, COUNT, REPLICAS = f"{GFD}gpu.product", f"{GFD}gpu.memory", f"{GFD}gpu.count", f"{GFD}gpu.replicas"
CLIQUE = f"{GFD}gpu.clique"

BYTES_FROM_MIB = 2**20
"""GFD wrote ``gpu.memory`` in bytes in mid-2022: a value this large in MiB would be a tebibyte."""
MOST_UNITS = 10_000
"""More units or GPUs of one node are a mistake in a label."""

_VIRTUAL = re.compile(r"^(GRID[-_ ].+|.*-\d+(?:-\d+)?[ABCQ])$")
_MIG_LABEL = re.compile(r"nvidia\.com/mig-(?P<slices>\d+)g\.(?P<gb>\d+)gb(?P<suffix>[^ ]*?)\.(?P<what>memory|count)")
_MIG_RESOURCE = re.compile(r"nvidia\.com/mig-(?P<slices>\d+)g\.(?P<gb>\d+)gb(?P<suffix>.*?)(\.shared)?")
_ROUNDING_GB = 2
"""GFD's label and the device plugin's resource round one profile's size apart by at most this (3g.20gb, 3g.21gb)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What one source tells; amounts in MiB as the source spells them."""

    source: str
    vendor: str | None = None
    product: str | None = None
    """As spelled, without sharing suffix."""
    gpu_id: str | None = None
    """A row of the product table."""
    candidates: tuple[str, ...] = ()
    """Rows that the source's name could mean."""
    compute_capability: tuple[int, int] | None = None
    family: str | None = None
    memory_mib: int | None = None
    """Of one physical GPU."""
    is_rounded: bool = False
    """The memory is a catalogue's figure, not the driver's."""
    is_of_driver: bool = False
    """It is what the driver says now: nothing that is known of a product makes it wrong."""
    unit_memory_mib: int | None = None
    """Of one schedulable unit, whatever the resource."""
    memory_of_resource_mib: Mapping[str, int] = field(default_factory=dict)
    gpus: int | None = None
    """Physical GPUs."""
    visible_devices: int | None = None
    """Devices that the driver sees, whole or virtual."""
    units: Mapping[str, int] = field(default_factory=dict)
    """Schedulable units that no ``status.allocatable`` states: a DeviceClass's."""
    sharing: Sharing | None = None
    replicas: int | None = None
    """Units of one card that is shared in time."""
    nvlink: bool | None = None
    remarks: tuple[str, ...] = ()


# ---- the node's agent


def from_report(facts: NodeFacts | None, gpus: Amounts) -> Statement | None:
    """A GpuNodeReport that is fresh: what the driver says now. How units are made of GPUs it cannot know, save for MIG."""
    if facts is None or not facts.is_read:
        return None
    if not facts.gpus:
        is_offered = any(amount > 0 and vendor_of(name) == "nvidia" for name, amount in gpus.items())
        return Statement(source=REPORT, is_of_driver=True, gpus=0) if is_offered else None  # else nothing is said otherwise
    product = facts.products[0] if len(facts.products) == 1 else None
    virtual = product is not None and is_virtual(product)
    by_profile = {f"{MIG}{each.profile}": each.memory_mib for each in facts.parts}
    offered = [name for name, amount in gpus.items() if name.startswith(MIG) and amount > 0]
    sizes = {each.memory_mib for each in facts.parts}
    is_single = bool(facts.parts) and not offered and gpus.get(PLAIN, 0) > 0 and facts.whole == 0
    sharing = None
    if virtual:
        sharing = Sharing.VGPU
    elif facts.parts and (offered or is_single):
        sharing = Sharing.MIG_MIXED if offered else Sharing.MIG_SINGLE
    elif facts.has_mig is False and not offered and gpus.get(PLAIN) in (facts.whole, facts.whole - facts.whole_out_of_use):
        sharing = Sharing.NONE  # as many units as GPUs, and nothing cuts them
    memory = facts.memory_mib
    part = sizes.pop() if is_single and len(sizes) == 1 else None
    return Statement(
        source=REPORT,
        vendor="nvidia",
        product=product,
        compute_capability=facts.compute_capability,
        memory_mib=None if virtual else memory,
        is_of_driver=True,
        unit_memory_mib=memory if virtual else part,
        memory_of_resource_mib={name: mib for name in offered if (mib := by_profile.get(name.removesuffix(".shared"))) is not None},
        gpus=None if virtual else facts.gpus,
        visible_devices=facts.gpus,
        sharing=sharing,
        remarks=(
            *(f"{each}: it is not free" for each in facts.reasons),
            *(f"GPU {each}: the driver does not tell whether it is healthy" for each in facts.of_unknown_health),
            *((f"a GPU may draw {100 * facts.power_share:.0f} % of its default power",) if facts.power_share < 1 else ()),
            *((f"{facts.links_down} NVLinks of healthy GPUs are down",) if facts.links_down else ()),
        ),
    )  # fmt: skip


# ---- ResourceSlices


def from_devices(devices: tuple[Device, ...]) -> Statement | None:
    """Dynamic Resource Allocation: exact products and memory, device by device."""
    if not devices:
        return None
    whole = [each for each in devices if each.is_whole]
    parts = [each for each in devices if not each.is_whole]
    products, memories = {each.product for each in devices}, {each.memory for each in whole}
    product = products.pop() if len(products) == 1 else None
    virtual = product is not None and is_virtual(product)
    are_counted = all(each.is_counted for each in devices)
    units = Counter(each.driver for each in (whole or parts) if each.is_healthy) if are_counted else {}
    memory = memories.pop() if len(memories) == 1 else None
    mib = None if memory is None else memory // MEBI
    sharing = None
    if virtual:
        sharing = Sharing.VGPU
    elif not parts:
        sharing = Sharing.NONE
    elif not whole:
        sharing = Sharing.MIG_MIXED if parts[0].vendor == "nvidia" else Sharing.OTHER
    remarks = [f"device {each.name} of {each.driver} is tainted" for each in devices if not each.is_healthy]
    if not are_counted:
        remarks.append("not all ResourceSlices of the pool are here: devices are not counted")
    if len(products) > 1:
        remarks.append(f"several products: {', '.join(sorted(each or 'unknown' for each in products))}")
    return Statement(
        source=f"ResourceSlices of {', '.join(sorted({each.driver for each in devices}))}",
        vendor=devices[0].vendor,
        product=None if product is None else without_sharing(product),
        compute_capability=_same(each.compute_capability for each in devices),
        memory_mib=None if virtual else mib,
        unit_memory_mib=mib,
        gpus=None if virtual or not whole or not are_counted else len(whole),
        visible_devices=len(whole) or None if are_counted else None,
        units=dict(units),
        sharing=sharing,
        remarks=tuple(remarks),
    )


def _same(values: Iterable[T]) -> T | None:
    different = set(values)
    return different.pop() if len(different) == 1 else None


# ---- NVIDIA GPU Feature Discovery


def from_gfd(labels: Labels, gpus: Amounts) -> Statement | None:
    """``nvidia.com/gpu.*`` and ``nvidia.com/mig-*``."""
    if not any(key.startswith(("nvidia.com/gpu.", "nvidia.com/mig", "nvidia.com/vgpu.")) for key in labels):
        return None
    label = labels.get(PRODUCT, "")
    sharing = _nvidia_sharing(labels, label, gpus)
    memory, count, replicas = mebibytes(labels.get(MEMORY)), whole_number(labels.get(COUNT)), whole_number(labels.get(REPLICAS))
    is_invalid = label.endswith("-MIG-INVALID")
    virtual = sharing is Sharing.VGPU or labels.get("nvidia.com/vgpu.present") == "true" or is_virtual(label)
    is_cut = sharing is Sharing.MIG_SINGLE
    major, minor = (whole_number(labels.get(f"nvidia.com/gpu.compute.{part}")) for part in ("major", "minor"))
    remarks = []
    if is_invalid:
        remarks.append("MIG strategy single cannot express how the GPUs are partitioned: nvidia.com/gpu stays 0")
    state = labels.get("nvidia.com/mig.config.state")
    if state in ("pending", "rebooting", "failed"):
        remarks.append(f"MIG partitioning ({labels.get('nvidia.com/mig.config', 'unnamed')}) is {state}")
    shared = sharing in (Sharing.TIME_SLICING, Sharing.MPS) and replicas is not None and 1 < replicas < MOST_UNITS
    unit = memory if sharing is not Sharing.MPS else (memory // replicas if shared and memory and replicas else None)
    return Statement(
        source="labels nvidia.com/gpu.* (GPU Feature Discovery)",
        vendor="nvidia",
        product=without_sharing(label) or None,
        compute_capability=None if major is None or minor is None else (major, minor),
        family=_family(labels.get("nvidia.com/gpu.family", ""), sharing),
        memory_mib=None if is_cut or virtual else memory,
        unit_memory_mib=None if is_invalid or sharing is Sharing.MIG_MIXED else unit,
        memory_of_resource_mib=_mig_memory(labels, gpus),
        gpus=None if is_cut or virtual or not count else count,
        visible_devices=None if is_cut or not count else count,
        sharing=sharing,
        replicas=replicas if shared else None,
        nvlink=True if labels.get(CLIQUE) else None,
        remarks=tuple(remarks),
    )  # fmt: skip


def _nvidia_sharing(labels: Labels, product: str, gpus: Amounts) -> Sharing | None:
    """The first sign of sharing; ``NONE`` only where the product is named and nothing speaks against it."""
    replicas = whole_number(labels.get(REPLICAS)) or 0
    strategy = labels.get("nvidia.com/gpu.sharing-strategy", "")
    is_cut = any(key.startswith(("nvidia.com/gpu.engines.", "nvidia.com/gpu.slices.")) for key in labels)
    is_timed = strategy == "time-slicing" or product.endswith("-SHARED") or replicas > 1 or gpus.get(RENAMED, 0) > 0
    signs = (
        (Sharing.MIG_MIXED, any(amount > 0 for name, amount in gpus.items() if name.startswith(MIG)) or _counts_slices(labels)),
        (Sharing.MIG_SINGLE, "-MIG-" in product or is_cut),
        (Sharing.MPS, strategy == "mps"),
        (Sharing.TIME_SLICING, is_timed),
        (Sharing.VGPU, labels.get("nvidia.com/vgpu.present") == "true" or is_virtual(product)),
    )
    found = next((sharing for sharing, holds in signs if holds), None)
    is_changing = labels.get("nvidia.com/mig.config.state") in ("pending", "rebooting")
    more_units_than_gpus = gpus.get(PLAIN, 0) > (whole_number(labels.get(COUNT)) or MOST_UNITS)
    if found is None and product and not is_changing and not more_units_than_gpus:
        return Sharing.NONE
    return found


def _counts_slices(labels: Labels) -> bool:
    return any(key.startswith(MIG) and key.endswith(".count") and value not in ("", "0") for key, value in labels.items())


def _mig_memory(labels: Labels, gpus: Amounts) -> dict[str, int]:
    """Resource of a MIG profile -> MiB of a slice: by the label of that name, or of one that is rounded otherwise."""
    stated: dict[tuple[str, str], dict[int, int]] = {}
    for key, value in labels.items():
        found = _MIG_LABEL.fullmatch(key)
        memory = mebibytes(value) if found and found["what"] == "memory" else None
        if found and memory:
            stated.setdefault((found["slices"], found["suffix"]), {})[int(found["gb"])] = memory
    resources = [name for name, amount in gpus.items() if name.startswith(MIG) and amount > 0]
    if not any(name.startswith(MIG) for name in gpus):  # an excerpt of labels alone
        resources = [key.removesuffix(".memory") for key in labels if key.startswith(MIG) and key.endswith(".memory")]
    told = {}
    for name in resources:
        found = _MIG_RESOURCE.fullmatch(name)
        sizes = stated.get((found["slices"], found["suffix"]), {}) if found else {}
        near = min(sizes, key=lambda gb: abs(gb - int(found["gb"])), default=None) if found else None  # used at once
        if found and near is not None and abs(near - int(found["gb"])) <= _ROUNDING_GB:
            told[name] = sizes[near]
    return told


def _family(label: str, sharing: Sharing | None) -> str | None:
    """``ampere`` stood for Ada Lovelace too before 2024-11: it counts only where the GPU is cut by MIG, which Ada has not."""
    family = label.lower()
    is_cut = sharing in (Sharing.MIG_SINGLE, Sharing.MIG_MIXED)
    return None if family in ("", "undefined") or (family == "ampere" and not is_cut) else family


def is_virtual(product: str) -> bool:
    """Named as a vGPU: ``GRID-A100-4C``, ``NVIDIA-A10-24Q``."""
    return _VIRTUAL.match(without_sharing(product)) is not None


def mebibytes(label: str | None) -> int | None:
    """``81559``, ``81920MiB``, or bytes as GFD once wrote; ``None`` for what says nothing."""
    digits = (label or "").removesuffix("MiB")
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else 0  # noqa: PLR2004  # 64 bits
    return (number // MEBI if number >= BYTES_FROM_MIB else number) or None


def whole_number(label: str | None) -> int | None:
    """A count in a label; ``None`` for an empty one, for text, and for numbers that no node has."""
    text = label or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 and int(text) < MOST_UNITS else None  # noqa: PLR2004


# ---- HAMi


def from_hami(register: str) -> Statement | None:
    """The annotation ``hami.io/node-nvidia-register``: ``uuid,split,MiB,cores,type,numa,healthy`` and a colon, per GPU."""
    devices = [each.split(",") for each in register.split(":") if each.strip()]
    complete = [each for each in devices if len(each) >= 7]  # noqa: PLR2004  # fields of a device
    if not complete:
        return None
    products = {re.sub(r"^NVIDIA-(?=NVIDIA)", "", each[4]).replace(" ", "-") for each in complete}
    memory = _same(mebibytes(each[2]) for each in complete)
    return Statement(
        source="annotation hami.io/node-nvidia-register",
        vendor="nvidia",
        product=products.pop() if len(products) == 1 else None,
        memory_mib=memory,
        gpus=len(complete) if len(complete) == len(devices) else None,
        sharing=Sharing.OTHER,
        remarks=("HAMi splits the GPUs: nvidia.com/gpu counts virtual devices",),
    )


# ---- other vendors' labellers

_AMD = re.compile(r"(?:beta\.)?amd\.com/gpu\.(?P<what>device-id|product-name|vram|family)(?:\.(?P<value>.+))?")
_VRAM = re.compile(r"(\d{1,4})G")


def from_amd(labels: Labels, gpus: Amounts) -> Statement | None:
    """AMD's labeller, in both forms: value in the label's value, or in its key with the number of GPUs as value."""
    told: dict[str, dict[str, int | None]] = {}
    for key, value in labels.items():
        found = _AMD.fullmatch(key)
        if found:
            what, number = (found["value"], whole_number(value)) if found["value"] else (value, None)
            told.setdefault(found["what"], {})[what] = number
    partition = labels.get("amd.com/gpu.compute-memory-partition", "")
    cut = any(amount > 0 for name, amount in gpus.items() if "px_nps" in name and not name.startswith("amd.com/spx"))
    if not told and not partition and not cut and not any(name.startswith("amd.com/") for name in gpus):
        return None
    only = {what: next(iter(values)) for what, values in told.items() if len(values) == 1}
    pci = by_pci_id(only.get("device-id", ""))
    product = only.get("product-name")
    row = find_product(product) if product else None
    vram = _VRAM.fullmatch(only.get("vram", ""))
    numbers = {sum(each or 0 for each in values.values()) for values in told.values() if all(values.values())}
    counted = numbers.pop() or None if len(numbers) == 1 else None
    sharing = None
    if cut or (partition and not partition.startswith("spx")):
        sharing = Sharing.OTHER
    elif partition.startswith("spx"):
        sharing = Sharing.NONE
    return Statement(
        source="labels amd.com/gpu.*" if told or partition else "resource names",
        vendor="amd",
        product=product or (pci.product if pci and not pci.is_integrated else None),
        gpu_id=row.gpu_id if row else (pci.gpu_id if pci else None),
        family=only.get("family") if not pci and row is None else None,
        memory_mib=int(vram[1]) * 1024 if vram and sharing is not Sharing.OTHER else None,
        is_rounded=True,
        gpus=_amd_cards(gpus) or (counted if sharing is not Sharing.OTHER else None),
        sharing=sharing,
        remarks=("integrated graphics: no accelerator for serving",) if pci and pci.is_integrated else (),
    )


_PARTITIONS = {"spx": 1, "dpx": 2, "qpx": 4, "cpx": 8}
"""Devices that one card becomes, by the name of its compute partitioning (AMD: single, dual, quad, core)."""


def _amd_cards(gpus: Amounts) -> int | None:
    """Cards behind partitions that are named by their kind; ``None`` where they make no whole cards."""
    cards = 0
    for name, amount in gpus.items():
        parts = _PARTITIONS.get(name.removeprefix("amd.com/")[:3])
        if parts is not None:
            if amount % parts:
                return None
            cards += amount // parts
    return cards or None


def from_intel(labels: Labels, gpus: Amounts) -> Statement | None:
    """Intel's NFD rules; the plugin may hand out each GPU several times, which no label tells."""
    count = whole_number(labels.get("gpu.intel.com/device.count"))
    product = labels.get("gpu.intel.com/product")
    units = sum(amount for name, amount in gpus.items() if name.startswith("gpu.intel.com/"))
    if not count and not product and not any(name.startswith("gpu.intel.com/") for name in gpus):
        return None
    sharing = None
    if count and units:
        sharing = Sharing.NONE if units == count else (Sharing.OTHER if units > count else None)
    return Statement(
        source="labels gpu.intel.com/*" if count or product else "resource names",
        vendor="intel",
        product=product,
        family=(labels.get("gpu.intel.com/family") or "").lower().replace("_", "-") or None,
        gpus=count or None,
        sharing=sharing,
    )


# ---- clouds and provisioners: a catalogue's data, written whether or not a driver works


def from_gke(labels: Labels) -> Statement | None:
    """Google Kubernetes Engine."""
    name = labels.get("cloud.google.com/gke-accelerator") or labels.get("cloud.google.com/gke-tpu-accelerator")
    if not name:
        return Statement(source="label cloud.google.com/gke-gpu", vendor="nvidia") if "cloud.google.com/gke-gpu" in labels else None
    is_tpu = "cloud.google.com/gke-tpu-accelerator" in labels
    known = by_cloud_name("gke", name)
    shared = labels.get("cloud.google.com/gke-gpu-sharing-strategy", "")
    sharing = {"time-sharing": Sharing.TIME_SLICING, "mps": Sharing.MPS}.get(shared.lower())
    if labels.get("cloud.google.com/gke-gpu-partition-size"):
        sharing = Sharing.MIG_SINGLE
    return Statement(
        source=f"label cloud.google.com/gke-{'tpu-' if is_tpu else ''}accelerator",
        vendor="google" if is_tpu else "nvidia",
        product=None if known else name,
        gpu_id=known[0] if len(known) == 1 else None,
        candidates=known,
        gpus=whole_number(labels.get("cloud.google.com/gke-accelerator-count")) or None,
        sharing=sharing,
        replicas=whole_number(labels.get("cloud.google.com/gke-max-shared-clients-per-gpu")) if sharing and not is_tpu else None,
    )


def from_karpenter(labels: Labels) -> Statement | None:
    """Karpenter on AWS: EC2's catalogue."""
    prefix = "karpenter.k8s.aws/instance-"
    gpu, accelerator = labels.get(f"{prefix}gpu-name"), labels.get(f"{prefix}accelerator-name")
    if not gpu and not accelerator:
        return None
    kind = "gpu" if gpu else "accelerator"
    memory = mebibytes(labels.get(f"{prefix}gpu-memory"))
    name = gpu or accelerator or ""
    known = by_cloud_name("karpenter", name, memory)
    count = whole_number(labels.get(f"{prefix}{kind}-count"))
    is_part = count == 0  # a fraction of a GPU
    return Statement(
        source=f"labels {prefix}{kind}-*",
        vendor=labels.get(f"{prefix}{kind}-manufacturer"),
        product=None if known else name,
        gpu_id=known[0] if len(known) == 1 else None,
        candidates=known,
        memory_mib=None if is_part else memory,
        unit_memory_mib=memory if is_part else None,
        is_rounded=True,
        gpus=count or None,
        sharing=Sharing.VGPU if is_part else None,
    )


def from_coreweave(labels: Labels) -> Statement | None:
    """CoreWeave; its CPU nodes have the same keys with empty values."""
    name = labels.get("gpu.nvidia.com/class") or labels.get("gpu.nvidia.com/model")
    if not name:
        return None
    known = by_cloud_name("coreweave", name)
    return Statement(
        source="labels gpu.nvidia.com/*", vendor="nvidia", product=None if known else name,
        gpu_id=known[0] if len(known) == 1 else None, candidates=known,
    )  # fmt: skip


def from_alibaba(labels: Labels) -> Statement | None:
    """Alibaba Cloud ACK: NVML's names, memory with its unit."""
    name = labels.get("aliyun.accelerator/nvidia_name")
    if not name:
        return None
    return Statement(
        source="labels aliyun.accelerator/nvidia_*", vendor="nvidia", product=name,
        memory_mib=mebibytes(labels.get("aliyun.accelerator/nvidia_mem")),
        gpus=whole_number(labels.get("aliyun.accelerator/nvidia_count")) or None,
    )  # fmt: skip


_AKASH = re.compile(
    r"akash\.network/capabilities\.gpu\.vendor\.(?P<vendor>[a-z]+)\.model\.(?P<model>[a-z0-9-]+)"
    r"(\.(?P<what>interface|ram)\.(?P<value>[A-Za-z0-9]+))?"
)


def from_akash(labels: Labels) -> Statement | None:
    """Akash providers: vendor, model, interface and RAM stand in the key, the number of GPUs in the value."""
    models: dict[tuple[str, str], int | None] = {}
    details: dict[str, str] = {}
    for key, value in labels.items():
        found = _AKASH.fullmatch(key)
        if found:
            models[found["vendor"], found["model"]] = whole_number(value)
            if found["what"]:
                details[found["what"]] = found["value"]
    if len(models) != 1:
        return None
    ((vendor, model), count) = next(iter(models.items()))
    interface = details.get("interface", "").lower()
    known = by_cloud_name("akash", f"{model}-{'sxm' if interface.startswith('sxm') else interface or 'any'}") or by_cloud_name(
        "akash", model
    )
    return Statement(
        source="labels akash.network/capabilities.gpu.*", vendor=vendor, product=None if known else model,
        gpu_id=known[0] if len(known) == 1 else None, candidates=known, gpus=count or None,
    )  # fmt: skip


def from_azure(labels: Labels) -> Statement | None:
    """Azure AKS: the vendor alone."""
    vendor = labels.get("kubernetes.azure.com/accelerator") or labels.get("accelerator")
    if vendor in ("nvidia", "amd", "intel"):
        return Statement(source="label accelerator", vendor=vendor)
    return None


def from_instance_type(labels: Labels) -> Statement | None:
    """What the cloud sells under this name; says nothing of whether a driver works."""
    name = labels.get("node.kubernetes.io/instance-type") or labels.get("beta.kubernetes.io/instance-type") or ""
    known = table("instance_types")["types"].get(name.removesuffix("_Promo"))
    if known is None:
        return None
    is_part = bool(known.get("fraction"))
    gpu = known.get("gpu")
    whole = product_of_id(known.get("partOf") or "")
    return Statement(
        source=f"instance type {name}",
        vendor=known.get("vendor", "nvidia"),
        gpu_id=gpu if isinstance(gpu, str) else None,
        candidates=tuple(gpu) if isinstance(gpu, list) else (),
        family=whole.family if whole is not None else None,
        gpus=None if is_part else known.get("count"),
        unit_memory_mib=known.get("unitMemoryMib"),
        sharing=Sharing.VGPU if is_part else None,
        nvlink=known.get("nvlink"),
    )


def sold_with(labels: Labels) -> tuple[str, int] | None:
    """(resource, how many units) that a node was sold with, by its cloud's labels; ``None`` where those do not tell."""
    for told in (from_gke(labels), from_karpenter(labels), from_instance_type(labels)):
        if told is not None and told.gpus and told.vendor in RESOURCE_OF_VENDOR and told.sharing in (None, *_IN_TIME):
            return RESOURCE_OF_VENDOR[told.vendor], told.gpus * (told.replicas or 1)
    return None


_IN_TIME = (Sharing.TIME_SLICING, Sharing.MPS)


# ---- names of resources, PCI ids


def from_resources(gpus: Amounts, every: Iterable[str]) -> Statement | None:
    """The vendor by the resources' names; the product only of what is passed through to virtual machines."""
    vendors = {vendor for name in gpus if (vendor := vendor_of(name))}
    if LEGACY in every:
        vendors.add("nvidia")
    if len(vendors) != 1:
        several = f"GPUs of several vendors: {', '.join(sorted(vendors))}"
        return Statement(source="resource names", remarks=(several,)) if vendors else None
    names = [name for each, amount in gpus.items() if amount > 0 and (name := passed_through(each))]
    product, sharing = None, None
    if len(names) == 1 and sum(amount > 0 for amount in gpus.values()) == 1:
        product = names[0].replace("_", "-")
        virtual = is_virtual(product)
        chip = re.sub(r"^[A-Z]{1,2}\d{3}[A-Z]*-(TESLA-)?", "", product)
        row = None if virtual else find_product(chip)
        product = row.label if row else product
        sharing = Sharing.VGPU if virtual else Sharing.NONE
    profiles = {
        name.removeprefix(MIG).removesuffix(".shared") for name, amount in gpus.items() if name.startswith(MIG) and amount > 0
    }
    if profiles:
        sharing = Sharing.MIG_MIXED
    family = "neuron" if vendors == {"aws"} else families_of_mig(profiles)
    remarks = [f"nvidia.com/{name} is for virtual machines: no container gets it" for name in names]
    if "microsoft.com/directx" in gpus:
        remarks.append("microsoft.com/directx is for Windows containers")
    return Statement(
        source="resource names", vendor=vendors.pop(), product=product, family=family, sharing=sharing, remarks=tuple(remarks)
    )


_PCI_VENDORS = {"10de": "nvidia", "1da3": "habana"}
"""Of Intel and AMD, CPUs and chipsets have PCI devices too."""


def from_pci(labels: Labels) -> Statement | None:
    """Node Feature Discovery: that a device is there."""
    for pci, vendor in _PCI_VENDORS.items():
        pattern = re.compile(rf"feature\.node\.kubernetes\.io/pci-(\d{{4}}_)?{pci}\.present")
        if any(value == "true" and pattern.fullmatch(key) for key, value in labels.items() if "pci-" in key):
            return Statement(source=f"label feature.node.kubernetes.io/pci-{pci}.present", vendor=vendor)
    if labels.get("feature.node.kubernetes.io/amd-gpu") == "true":
        return Statement(source="label feature.node.kubernetes.io/amd-gpu", vendor="amd")
    return None
