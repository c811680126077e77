"""GPU products: names as labels and clouds spell them, memory, and what an engine sees of it (``data/gpus.json``)."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from shardgate.adapters.performance import rates_of
from shardgate.adapters.tables import table
from shardgate.domain.inventory import Gpu, Sharing, Visible
from shardgate.domain.performance.rates import GpuRates
from shardgate.domain.units import GIBI, MEBI, Bytes

_VENDOR = re.compile(r"^(nvidia|amd|intel)[-_ ]", re.IGNORECASE)
_SHARING = re.compile(r"(-MIG-[0-9a-z.+]+|-MIG-INVALID)?(-SHARED)?$", re.IGNORECASE)
_CATALOGUE_TOLERANCE = 0.1
"""A cloud's figure for memory lies this near to the product's (EC2: 22888 of 23028 MiB)."""


def without_sharing(product: str) -> str:
    """``NVIDIA-H100-80GB-HBM3-MIG-3g.40gb-SHARED`` -> ``NVIDIA-H100-80GB-HBM3``."""
    return _SHARING.sub("", product.strip()).replace(" ", "-")


def normalised(product: str) -> str:
    """``NVIDIA-H100-80GB-HBM3-MIG-3g.40gb-SHARED`` -> ``H100-80GB-HBM3``: without vendor and sharing."""
    return _VENDOR.sub("", without_sharing(product))


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A row of the product table."""

    gpu_id: str
    vendor: str
    labels: tuple[str, ...]
    """As ``nvidia.com/gpu.product`` or its vendor's label spells it, newest first."""
    memory_mib: tuple[int, ...]
    """As NVML reports it: several by ECC and driver; empty where no report is known."""
    memory_gb_nominal: float | None
    compute_capability: tuple[int, int] | None
    family: str | None
    has_nvlink: bool | None
    """Made to be joined by NVLink (or its vendor's like) inside a node; ``None`` where a bridge is optional."""
    takes_bridge: bool
    """A bridge, sold apart, may join two of them."""
    is_always_joined: bool
    """Sold in trays whose GPUs are all joined."""
    board_gpus: int | None
    """GPUs of a whole board, all joined."""
    visible: Mapping[str, Any] | None

    @property
    def label(self) -> str:
        """The usual spelling."""
        return self.labels[0] if self.labels else self.gpu_id

    def seen_of(self, memory: Bytes | None) -> Visible | None:
        """What an engine sees, measured where this much memory was reported; never above it."""
        if self.visible is None or memory is None or memory // MEBI not in self.visible["forMemoryMib"]:
            return None
        low, high = (Bytes(min(int(self.visible[key] * GIBI), memory)) for key in ("lowGib", "highGib"))
        return Visible(low=low, high=high, source=self.visible["source"])


@cache
def _products() -> tuple[Product, ...]:
    return tuple(
        Product(
            gpu_id=row["id"],
            vendor=row["vendor"],
            labels=tuple(row["products"]),
            memory_mib=tuple(row["memoryMib"]),
            memory_gb_nominal=row.get("memoryGbNominal"),
            compute_capability=_capability(row.get("computeCapability")),
            family=row.get("family"),
            has_nvlink=row.get("nvlink"),
            takes_bridge=bool(row.get("bridge")),
            is_always_joined=bool(row.get("alwaysJoined")),
            board_gpus=row.get("boardGpus"),
            visible=row.get("visible"),
        )
        for row in table("gpus")["gpus"]
    )


@cache
def _by_label() -> dict[str, Product]:
    return {normalised(label).lower(): product for product in _products() for label in product.labels}


@cache
def _by_id() -> dict[str, Product]:
    return {product.gpu_id: product for product in _products()}


def find_product(spelled: str) -> Product | None:
    """By any spelling, vendor's prefix and sharing suffix aside."""
    return _by_label().get(normalised(spelled).lower())


def product_of_id(gpu_id: str) -> Product | None:
    """By the table's own name."""
    return _by_id().get(gpu_id)


def by_cloud_name(cloud: str, name: str, memory_mib: int | None = None) -> tuple[str, ...]:
    """Ids that a cloud's name could mean; a stated memory rules out the others. Empty for an unknown name."""
    known = tuple(table("gpu_names")[cloud].get(name.lower() if cloud == "akash" else name, ()))
    if memory_mib is None or len(known) <= 1:
        return known
    return tuple(each for each in known if _has_about(product_of_id(each), memory_mib))


def _has_about(product: Product | None, mib: int) -> bool:
    if product is None:
        return False
    sizes = [*product.memory_mib, *([product.memory_gb_nominal * 1024] if product.memory_gb_nominal else [])]
    return any(abs(size - mib) <= _CATALOGUE_TOLERANCE * size for size in sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PciDevice:
    """A GPU by its PCI device id."""

    gpu_id: str | None
    product: str
    is_integrated: bool = False


def families_of_mig(profiles: Iterable[str]) -> str | None:
    """The one family whose GPUs can be cut into all of these profiles; ``None`` where several can, or none is known to."""
    wanted = set(profiles)
    able = {row.get("family") for row in table("gpus")["gpus"] if wanted and wanted <= set(row.get("migProfiles", {}))}
    return able.pop() if len(able) == 1 else None


def by_pci_id(device_id: str) -> PciDevice | None:
    """An AMD GPU by the device id that its labeller prints, four hexadecimal digits."""
    row = table("gpu_names")["amdPciIds"].get(device_id.lower().removeprefix("0x"))
    if row is None:
        return None
    return PciDevice(gpu_id=row.get("gpu"), product=row["product"], is_integrated=bool(row.get("integrated")))


def label_of(product: str) -> str:
    """How ``nvidia.com/gpu.product`` spells it: as in the table, or with the vendor's prefix."""
    row = find_product(product)
    spellings = row.labels if row else ()
    return next((each for each in spellings if normalised(each).lower() == normalised(product).lower()), f"NVIDIA-{product}")


def gpu_of(product: str | None, memory: Bytes | None) -> Gpu:
    """A whole GPU of this product; memory from the table where nothing nearer tells it."""
    if product is None:
        return Gpu(product=None, memory=memory, visible=None, source="no product label")
    row = find_product(product)
    possible = tuple(Bytes(mib * MEBI) for mib in row.memory_mib) if row is not None and memory is None else ()
    return gpu_from(
        row=row,
        product=product,
        memory=memory if memory is not None or len(possible) != 1 else possible[0],
        possible=possible if len(possible) > 1 else (),
        compute_capability=row.compute_capability if row else None,
        nvlink=row.has_nvlink if row else None,
        source="label" if memory is not None else "product table",
    )


def gpu_from(  # keyword-only: the facts of a schedulable unit
    *, row: Product | None, product: str | None, memory: Bytes | None, possible: tuple[Bytes, ...] = (),
    compute_capability: tuple[int, int] | None, sharing: Sharing = Sharing.NONE, part: str = "", units_per_card: int | None = None,
    nvlink: bool | None = None, source: str = "", contradictions: tuple[tuple[str, str], ...] = (),
) -> Gpu:  # fmt: skip
    """A schedulable unit. Where several amounts of memory are possible, the least, the others as alternatives."""
    amounts = (memory,) if memory is not None or not possible else tuple(sorted(set(possible)))
    whole = sharing in (Sharing.NONE, Sharing.TIME_SLICING)
    gpus = [
        Gpu(
            product=None if product is None else normalised(product),
            memory=amount,
            visible=row.seen_of(amount) if row is not None and whole else None,
            sharing=sharing,
            part=part,
            units_per_card=units_per_card,
            source=source,
            compute_capability=compute_capability,
            has_nvlink=nvlink if nvlink is not None or row is None or row.vendor == "nvidia" else row.has_nvlink,
            contradictions=contradictions,
            rates=_rates(row) if sharing is Sharing.NONE else None,
        )
        for amount in amounts
    ]
    return replace(gpus[0], alternatives=tuple(gpus[1:])) if len(gpus) > 1 else gpus[0]


def _rates(row: Product | None) -> GpuRates | None:
    return None if row is None else rates_of(row.gpu_id, row.vendor, is_made_joined=bool(row.has_nvlink))


def _capability(stated: object) -> tuple[int, int] | None:
    """``9.0`` -> (9, 0); other vendors' names of architectures are none."""
    if not isinstance(stated, str) or not stated.replace(".", "").isdigit():
        return None
    major, _, minor = stated.partition(".")
    return int(major), int(minor or 0)


@cache
def known_gpus() -> tuple[Gpu, ...]:
    """Every product of the table, once per reported memory size."""
    return tuple(gpu_of(label, Bytes(mib * MEBI)) for row in _products() for label in row.labels for mib in row.memory_mib)


def similar_products(product: str) -> list[str]:
    """Known products whose names are near, the nearest first."""
    names = {each.product or "" for each in known_gpus()}
    near = difflib.get_close_matches(normalised(product), names, n=3, cutoff=0.3)
    return near + sorted(name for name in names if normalised(product).lower() in name.lower() and name not in near)[:3]
