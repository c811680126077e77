"""ResourceSlices (Dynamic Resource Allocation) -> devices that are GPUs, node by node.

``resource.k8s.io`` in its versions v1 and v1beta2 (attributes on the device) and v1beta1 (under ``basic``).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from shardgate.adapters.quantities import whole
from shardgate.domain.units import Bytes

API_VERSION = "resource.k8s.io/v1"
"""The version that is listed and watched: Kubernetes 1.34 or newer. Files may hold older ones."""

_VENDOR_OF_DRIVER = {"gpu.nvidia.com": "nvidia", "gpu.amd.com": "amd", "gpu.intel.com": "intel", "gaudi.intel.com": "habana"}
"""Drivers of GPUs; channels and daemons of ``compute-domain.nvidia.com`` and network devices are none."""
_WHOLE, _PART = ("gpu", "amdgpu", ""), ("mig", "amdgpu-partition")
_BARRING = ("NoSchedule", "NoExecute")


class _Value(msgspec.Struct, gc=False):
    string: str | None = None
    version: str | None = None


class _Capacity(msgspec.Struct, gc=False):
    value: str | int = ""


class _Taint(msgspec.Struct, gc=False):
    key: str = ""
    effect: str = ""


class _Basic(msgspec.Struct, gc=False):
    attributes: dict[str, _Value] | None = None
    capacity: dict[str, _Capacity | str] | None = None


class SliceDevice(msgspec.Struct, gc=False):
    """A device as a driver lists it."""

    name: str = ""
    attributes: dict[str, _Value] | None = None
    capacity: dict[str, _Capacity | str] | None = None
    basic: _Basic | None = None
    taints: list[_Taint] | None = None


class _Pool(msgspec.Struct, gc=False):
    name: str = ""
    generation: int = 0
    resourceSliceCount: int | None = None  # noqa: N815  # as the API spells it


class SliceSpec(msgspec.Struct, gc=False):
    """The part of a slice's spec that is read."""

    driver: str = ""
    nodeName: str = ""  # noqa: N815
    pool: _Pool = msgspec.field(default_factory=_Pool)
    devices: list[SliceDevice] | None = None


class SliceMetadata(msgspec.Struct, gc=False):
    """The part of ObjectMeta that is read."""

    name: str = ""
    resourceVersion: str = ""  # noqa: N815


class SliceObject(msgspec.Struct, gc=False):
    """A ResourceSlice, decoded no further than it is read."""

    metadata: SliceMetadata
    spec: SliceSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU, or a part of one, that a driver lists."""

    driver: str
    pool: str
    name: str
    vendor: str
    is_whole: bool
    """A physical GPU in one piece; slices that it could be cut into may be listed beside it."""
    product: str | None = None
    memory: Bytes | None = None
    compute_capability: tuple[int, int] | None = None
    profile: str = ""
    """Of a part: ``1g.10gb``, ``cpx_nps1``."""
    parent: str = ""
    kind: str = ""
    """What the driver calls its type: gpu, mig, .."""
    full_product: str = ""
    """The product as the driver writes it."""
    is_healthy: bool = True
    """No taint keeps it from being allocated."""
    is_counted: bool = True
    """All slices of its pool's generation are here, so that the number of devices is the pool's."""


def devices_of(slices: Iterable[SliceObject]) -> tuple[Device, ...]:
    """The GPUs of all pools, each by its highest generation. Raises ``QuantityError``."""
    pools: dict[tuple[str, str], list[SliceSpec]] = defaultdict(list)
    for each in slices:
        if each.spec.driver in _VENDOR_OF_DRIVER:
            pools[each.spec.driver, each.spec.pool.name].append(each.spec)
    devices: list[Device] = []
    for specs in pools.values():
        newest = max(spec.pool.generation for spec in specs)
        current = [spec for spec in specs if spec.pool.generation == newest]
        wanted = current[0].pool.resourceSliceCount
        is_counted = wanted is not None and len(current) >= wanted
        found = (_device(spec, each, is_counted=is_counted) for spec in current for each in spec.devices or ())
        devices += [each for each in found if each is not None]
    return tuple(sorted(devices, key=lambda each: (each.driver, each.pool, each.name)))


def _device(spec: SliceSpec, device: SliceDevice, *, is_counted: bool) -> Device | None:
    basic = device.basic or _Basic()
    attributes = {name.rpartition("/")[2]: value for name, value in (device.attributes or basic.attributes or {}).items()}
    capacity = {name.rpartition("/")[2]: value for name, value in (device.capacity or basic.capacity or {}).items()}
    text = {name: value.string for name, value in attributes.items() if value.string is not None}
    kind = text.get("type", "")
    if kind not in (*_WHOLE, *_PART):
        return None  # vfio devices go to virtual machines, others are no GPUs
    memory = capacity.get("memory")
    amount = memory.value if isinstance(memory, _Capacity) else memory
    capability = attributes.get("cudaComputeCapability")
    profile = text.get("profile") or text.get("partitionProfile") or ""
    return Device(
        driver=spec.driver,
        pool=spec.pool.name,
        name=device.name,
        vendor=_VENDOR_OF_DRIVER[spec.driver],
        is_whole=kind in _WHOLE or profile.startswith("spx"),
        product=(text.get("productName") or text.get("model") or "").replace(" ", "-") or None,
        memory=None if amount is None else Bytes(whole("memory", amount)),
        compute_capability=_version(capability.version or capability.string or "") if capability else None,
        profile=profile,
        parent=text.get("parentUUID", ""),
        kind=kind,
        full_product=text.get("productName", ""),
        is_counted=is_counted,
        is_healthy=not any(taint.effect in _BARRING for taint in device.taints or ()),
    )


def _version(text: str) -> tuple[int, int] | None:
    parts = re.match(r"(\d{1,3})\.(\d{1,3})", text)
    return (int(parts[1]), int(parts[2])) if parts else None


_EQUALITY = re.compile(
    r"""device\.(?:driver|attributes\[(?P<quote>["'])[^"']+(?P=quote)\]\.(?P<attribute>\w+))\s*==\s*["'](?P<value>[^"']*)["']"""
)
"""``device.driver == 'gpu.nvidia.com'``, ``device.attributes['gpu.nvidia.com'].type == 'mig'``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClass:
    """Devices that pods may ask for by a class's name, or by an extended resource."""

    name: str
    extended_resource: str
    conditions: tuple[tuple[str, str], ...]
    """(driver, or an attribute) and what it must be."""
    is_read: bool
    """No other condition stands beside those."""

    def takes(self, device: Device) -> bool:
        """Whether it may be one of its own; surely only where ``is_read``."""
        told = {
            "driver": device.driver, "type": device.kind, "profile": device.profile, "productName": device.full_product,
        }  # fmt: skip
        if not device.is_whole and all(attribute not in ("type", "profile") for attribute, _ in self.conditions):
            return False  # parts are asked for as parts
        return all(told.get(attribute, value) == value for attribute, value in self.conditions)


class _Cel(msgspec.Struct, gc=False):
    expression: str = ""


class _Selector(msgspec.Struct, gc=False):
    cel: _Cel = msgspec.field(default_factory=_Cel)


class DeviceClassSpec(msgspec.Struct, gc=False):
    """The part of a DeviceClass's spec that is read."""

    extendedResourceName: str = ""  # noqa: N815  # as the API spells it
    selectors: list[_Selector] | None = None


class DeviceClassObject(msgspec.Struct, gc=False):
    """A DeviceClass: pods may ask for its devices by an extended resource's name."""

    metadata: SliceMetadata
    spec: DeviceClassSpec = msgspec.field(default_factory=DeviceClassSpec)

    def read(self) -> DeviceClass:
        """Which devices are its own, as far as its selectors are read."""
        terms = [term for each in self.spec.selectors or () for term in each.cel.expression.split("&&")]
        found = [(term, _EQUALITY.fullmatch(term.strip().strip("()").strip())) for term in terms]
        conditions = tuple((match["attribute"] or "driver", match["value"]) for _, match in found if match is not None)
        return DeviceClass(
            name=self.metadata.name,
            extended_resource=self.spec.extendedResourceName,
            conditions=conditions or ((("driver", self.metadata.name),) if self.metadata.name in _VENDOR_OF_DRIVER else ()),
            is_read=all(match is not None for _, match in found),
        )


class AllocatedDevice(msgspec.Struct, gc=False):
    """A device that a claim holds."""

    driver: str = ""
    pool: str = ""
    device: str = ""


class _Allocated(msgspec.Struct, gc=False):
    results: list[AllocatedDevice] | None = None


class _Allocation(msgspec.Struct, gc=False):
    devices: _Allocated = msgspec.field(default_factory=_Allocated)


class _ClaimStatus(msgspec.Struct, gc=False):
    allocation: _Allocation | None = None


class ClaimMetadata(msgspec.Struct, gc=False):
    """The part of ObjectMeta that is read."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815


class ClaimObject(msgspec.Struct, gc=False):
    """A ResourceClaim, decoded no further than it is read."""

    metadata: ClaimMetadata
    status: _ClaimStatus | None = None

    @property
    def devices(self) -> list[AllocatedDevice]:
        """What it holds; empty while nothing is allocated."""
        allocation = self.status.allocation if self.status is not None else None
        return (allocation.devices.results or []) if allocation is not None else []


def slice_from(body: Mapping[str, Any]) -> SliceObject:
    """A ResourceSlice from plain values. Raises ``msgspec.ValidationError`` naming the field."""
    return msgspec.convert(body, SliceObject, strict=False)
