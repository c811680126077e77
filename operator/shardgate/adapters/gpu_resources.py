"""Which extended resources are GPUs or parts of them, by their vendors' names; network and other devices are none."""

import re
from collections.abc import Mapping
from functools import lru_cache

from shardgate.domain.inventory import DEVICE_CLASS_DOMAIN

PLAIN, RENAMED, MIG = "nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-"
RESOURCE_OF_VENDOR = {"nvidia": PLAIN, "amd": "amd.com/gpu", "habana": "habana.ai/gaudi", "aws": "aws.amazon.com/neuron"}
"""Under which a vendor's device plugin offers whole GPUs, unless it is told otherwise."""
NEURON_VIEWS = ("aws.amazon.com/neuron", "aws.amazon.com/neurondevice", "aws.amazon.com/neuroncore")
"""The same chips, twice or three times: by chip, by chip under its older name, and by core."""
LEGACY = "alpha.kubernetes.io/nvidia-gpu"
"""Gone since Kubernetes 1.11: it still tells the vendor in old dumps."""

_VENDORS = (
    (re.compile(r"nvidia\.com/(gpu(\.shared)?|mig-\d+g\.\d+gb[a-z0-9.\-]*)"), "nvidia"),
    (re.compile(r"nvidia\.com/[A-Z][A-Za-z0-9_.\-]*"), "nvidia"),
    (re.compile(r"amd\.com/(gpu|[sdqc]px_nps\d)"), "amd"),
    (re.compile(r"gpu\.intel\.com/(i915|xe)"), "intel"),
    (re.compile(r"habana\.ai/gaudi\d?"), "habana"),
    (re.compile(r"google\.com/tpu"), "google"),
    (re.compile(r"aws\.amazon\.com/(neuron|neuroncore|neurondevice)"), "aws"),
    (re.compile(r"microsoft\.com/directx"), ""),
    (re.compile(r"gpu\.(nvidia|amd|intel)\.com"), ""),
)
_PASSTHROUGH = re.compile(r"nvidia\.com/(?P<name>[A-Z][A-Za-z0-9_.\-]*)")


@lru_cache(maxsize=4096)
def vendor_of(resource: str) -> str | None:
    """The vendor whose GPUs, whole or in parts, a resource is; empty where the name does not tell, ``None`` for others.

    ``gpu.nvidia.com`` and its like are DeviceClasses, whose devices ResourceSlices list.
    """
    return next((vendor for pattern, vendor in _VENDORS if pattern.fullmatch(resource)), None)


def is_gpu(resource: str) -> bool:
    """Whether an extended resource is a GPU or a part of one."""
    return vendor_of(resource) is not None


def passed_through(resource: str) -> str | None:
    """The name of a whole GPU or vGPU that KubeVirt gives to virtual machines (``GA102GL_A10``)."""
    found = _PASSTHROUGH.fullmatch(resource)
    return found["name"] if found else None


def gpus_among(amounts: Mapping[str, int]) -> dict[str, int]:
    """The resources that are GPUs, zeros included."""
    return {name: amount for name, amount in amounts.items() if vendor_of(name) is not None}


def counted_once(amounts: Mapping[str, int]) -> list[str]:
    """The resources that are GPUs, each device under one name: Neuron's views of one chip, or a DeviceClass beside its plugin.

    Of DeviceClasses, which may overlap, a vendor's own (``gpu.nvidia.com``), and only where no plugin offers GPUs.
    """
    gpus = [name for name in amounts if is_gpu(name)]
    view = next((name for name in NEURON_VIEWS if name in amounts), None)
    once = [name for name in gpus if name not in NEURON_VIEWS or name == view]
    if any(amounts[name] for name in once):
        return once
    return once + [name for name in amounts if name.startswith(f"{DEVICE_CLASS_DOMAIN}/") and is_gpu(name.partition("/")[2])]


def schedulable(gpus: Mapping[str, int]) -> int:
    """Units over all resources; several views of the same devices count once."""
    neuron = next((gpus[name] for name in NEURON_VIEWS if gpus.get(name)), 0)
    return neuron + sum(amount for name, amount in gpus.items() if name not in NEURON_VIEWS)


_OTHER_ACCELERATORS = (
    "huawei.com/ascend",
    "hygon.com/",
    "cambricon.com/",
    "mthreads.com/",
    "metax-tech.com/",
    "iluvatar.ai/",
    "devic.es/",
)


def is_accelerator(resource: str) -> bool:
    """Whether an extended resource is a GPU, or another vendor's device that engines run on and that is not judged here."""
    return is_gpu(resource) or resource.lower().startswith(_OTHER_ACCELERATORS)
