"""GPU products: names as labels spell them, normalised names, memory, and what an engine sees of it."""

import re
from functools import cache

from shardgate.adapters.tables import table
from shardgate.domain.inventory import Gpu, Visible
from shardgate.domain.units import GIBI, MEBI, Bytes

_VENDOR = re.compile(r"^(nvidia|amd|intel)[-_ ]", re.IGNORECASE)
_SHARING = re.compile(r"(-MIG-[0-9a-z.+]+|-MIG-INVALID)?(-SHARED)?$", re.IGNORECASE)


def normalised(product: str) -> str:
    """``NVIDIA-H100-80GB-HBM3-MIG-3g.40gb-SHARED`` -> ``H100-80GB-HBM3``: without vendor and sharing."""
    return _SHARING.sub("", _VENDOR.sub("", product.strip())).replace(" ", "-")


@cache
def _by_product() -> dict[str, dict[str, object]]:
    return {normalised(product).lower(): row for row in table("gpus")["gpus"] for product in row["products"]}


def label_of(product: str) -> str:
    """How ``nvidia.com/gpu.product`` spells it: as in the table, or with the vendor's prefix."""
    row = _by_product().get(normalised(product).lower())
    spellings = row["products"] if row else []
    return next((each for each in spellings if normalised(each).lower() == normalised(product).lower()), f"NVIDIA-{product}")  # type: ignore[attr-defined]  # names


def gpu_of(product: str | None, memory: Bytes | None) -> Gpu:
    """A whole GPU of this product; memory from the table where nothing nearer tells it."""
    if product is None:
        return Gpu(product=None, memory=memory, visible=None, source="no product label")
    name = normalised(product)
    row = _by_product().get(name.lower())
    if row is None:
        return Gpu(product=name, memory=memory, visible=None, source="label")
    reported = [Bytes(mib * MEBI) for mib in row["memoryMib"]]  # type: ignore[attr-defined]  # a list of MiB
    source = "label" if memory is not None else "product table"
    if memory is None and reported:
        memory = min(reported)
    return Gpu(
        product=name,
        memory=memory,
        visible=_visible(row, memory),
        source=source,
        compute_capability=_capability(row.get("computeCapability")),
        has_nvlink=row.get("nvlink"),  # type: ignore[arg-type]  # true, false or null
    )


def _capability(stated: object) -> tuple[int, int] | None:
    """``9.0`` -> (9, 0); other vendors' names of architectures are none."""
    if not isinstance(stated, str) or not stated.replace(".", "").isdigit():
        return None
    major, _, minor = stated.partition(".")
    return int(major), int(minor or 0)


def _visible(row: dict[str, object], memory: Bytes | None) -> Visible | None:
    """The product's measurements, where they were taken with this much reported memory; never above it."""
    seen = row.get("visible")
    if not isinstance(seen, dict) or memory is None or memory // MEBI not in seen["forMemoryMib"]:
        return None
    low, high = (Bytes(min(int(seen[key] * GIBI), memory)) for key in ("lowGib", "highGib"))
    return Visible(low=low, high=high, source=seen["source"])


_GPU_RESOURCES = frozenset(
    {"nvidia.com/gpu", "nvidia.com/gpu.shared", "habana.ai/gaudi", "google.com/tpu", "aws.amazon.com/neuron"}
)
_GPU_PREFIXES = ("nvidia.com/mig-", "amd.com/", "gpu.intel.com/")


def is_gpu(resource: str) -> bool:
    """Whether an extended resource is a GPU or a part of one, by its vendor's name; network and other devices are none."""
    return resource in _GPU_RESOURCES or resource.startswith(_GPU_PREFIXES)


@cache
def known_gpus() -> tuple[Gpu, ...]:
    """Every product of the table, once per reported memory size."""
    return tuple(
        gpu_of(product, Bytes(mib * MEBI))
        for row in table("gpus")["gpus"]
        for product in row["products"]
        for mib in row["memoryMib"]
    )
