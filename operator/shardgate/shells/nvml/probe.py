"""``NvmlProbe``: the GPUs of this node by NVIDIA's driver."""

import ctypes
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pynvml

from shardgate.adapters import nvml_values as values
from shardgate.api.report_limits import MOST_GPUS, MOST_XIDS
from shardgate.domain.driver_reading import DriverReading, GpuPair, GpuReading, Memory, MemoryErrors, PcieLink, ProbeError
from shardgate.domain.gpu_health import LOST, health_of
from shardgate.shells.nvml.calls import Device, OnError, demanded, error_name
from shardgate.shells.nvml.facts import Condition, Held, ProcessOf, Standing, condition, memory, pair, processes, running, standing

MOST_EVENTS = 256
"""Events that are taken from the driver at once: a GPU in distress may tell of thousands."""
CONDITION_SECONDS = 60.0
"""Links, errors, limits and partitions are asked for so often: of 8 GPUs they take tens of milliseconds. An Xid asks at once."""


def _pass_over(_function: str, _error: str) -> None:
    """Nobody counts them."""


@dataclass(slots=True)
class _Known:
    """What was read of one GPU before."""

    device: Device
    standing: Standing
    condition: Condition
    condition_read: float
    xids: set[int] = field(default_factory=set)
    was_lost: bool = False
    told: tuple[Memory, Held | None, bool] | None = None
    reading: GpuReading | None = None
    """What was made of ``told``; nothing is made anew while the driver tells the same."""


class NvmlProbe:
    """Holds the driver open between readings. Not for several threads at once."""

    def __init__(
        self, process_of: ProcessOf, *, on_error: OnError = _pass_over, condition_seconds: float = CONDITION_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._process_of, self._on_error = process_of, on_error
        self._condition_seconds, self._clock = condition_seconds, clock
        self._is_open = False
        self._versions: Mapping[str, Any] = {}
        self._events: Any = None
        self._watched: set[int] = set()
        self._known: dict[int, _Known] = {}
        self._pairs: tuple[tuple[object, ...], tuple[GpuPair, ...]] = ((), ())

    def gpus(self) -> DriverReading:
        """What the driver says now. Raises ``ProbeError``; the next call opens the driver anew."""
        try:
            if not self._is_open:
                self._open()
            return self._read()
        except ProbeError:
            self.close()
            raise

    def close(self) -> None:
        """Let the driver go: it cannot be unloaded while it is held. What was known of its GPUs is forgotten."""
        if self._is_open:
            self._is_open = False
            try:
                if self._events is not None:
                    pynvml.nvmlEventSetFree(self._events)
                pynvml.nvmlShutdown()
            except pynvml.NVMLError:
                pass  # it is gone already
        self._events = None
        self._watched.clear()
        self._known.clear()
        self._pairs = ((), ())

    def _open(self) -> None:
        demanded("nvmlInit")
        self._is_open = True
        driver = Device(None, self._on_error)
        cuda = driver.asked_with("nvmlSystemGetCudaDriverVersion_v2")
        if cuda is None:
            cuda = driver.asked_with("nvmlSystemGetCudaDriverVersion")
        self._versions = {
            "driver_version": values.text(driver.asked_with("nvmlSystemGetDriverVersion")),
            "nvml_version": values.text(driver.asked_with("nvmlSystemGetNVMLVersion")),
            "cuda_version": values.version_pair(cuda),
        }
        self._events = driver.asked_with("nvmlEventSetCreate")

    def _read(self) -> DriverReading:
        count = demanded("nvmlDeviceGetCount")
        if not 0 <= count <= MOST_GPUS:
            problem = f"the driver says that there are {count} GPUs, at most {MOST_GPUS} can be"
            raise ProbeError(error_name(pynvml.NVML_ERROR_UNKNOWN), problem)
        devices = [self._device(index) for index in range(count)]
        self._take_events(devices)
        gpus = tuple(self._gpu(index, device) for index, device in enumerate(devices))
        for index in [index for index in self._known if index >= count]:
            del self._known[index]
        return DriverReading(**self._versions, gpus=gpus, pairs=self._pairs_of(devices, gpus))

    def _device(self, index: int) -> Device:
        """A handle holds while the driver is loaded; that of a GPU that is not known, or was lost, is asked for again."""
        known = self._known.get(index)
        if known is not None and not known.was_lost:
            return known.device
        opening = Device(None, self._on_error)
        device = Device(opening.asked_with("nvmlDeviceGetHandleByIndex", index), self._on_error)
        device.is_lost, device.needs_reset = opening.is_lost, opening.needs_reset
        return device

    def _gpu(self, index: int, device: Device) -> GpuReading:
        if device.handle is None:
            return self._unread(index, device)
        known = self._known.get(index)
        is_due = known is not None and self._clock() - known.condition_read >= self._condition_seconds
        if is_due:
            device.needs_reset = False  # unless it says so again
        card, computing = memory(device), running(device, "Compute")
        if known is None or known.was_lost:
            self._watch(device)
            known = _Known(device, standing(device), condition(device, card), self._clock())
            if not device.is_lost:
                self._known[index] = known
        elif is_due:
            known.condition, known.condition_read, known.reading = condition(device, card), self._clock(), None
        if device.is_lost:
            return self._unread(index, device)
        told = (card, computing, device.needs_reset)
        if known.reading is None or known.told != told:
            known.told, known.reading = told, self._made(index, known, card, computing)
        return known.reading

    def _made(self, index: int, known: _Known, card: Memory, computing: Held | None) -> GpuReading:
        now, ever = known.condition, known.standing
        xids = tuple(sorted(known.xids)[:MOST_XIDS])
        return GpuReading(
            index=index,
            uuid=ever.uuid,
            product=ever.product,
            pci_bus_id=ever.pci_bus_id,
            numa_node=ever.numa_node,
            compute_capability=ever.compute_capability,
            memory=card,
            mig=now.mig,
            memory_errors=now.errors,
            nvlink=now.nvlink,
            fabric=now.fabric,
            clocks=ever.clocks,
            power=now.power,
            pcie=PcieLink(generation=ever.pcie_generation, width=ever.pcie_width, current_width=now.pcie_current_width),
            processes=processes(computing, now.drawing, self._process_of),
            xids=xids,
            recovery_action=now.recovery_action,
            health=health_of(
                is_answering=ever.uuid is not None or card.total is not None,
                needs_reset=known.device.needs_reset,
                errors=now.errors,
                xids=xids,
                recovery_action=now.recovery_action,
                fabric=now.fabric,
                nvlink=now.nvlink,
            ),
        )

    def _unread(self, index: int, device: Device) -> GpuReading:
        """A GPU that does not answer: which one it was, where that was read before."""
        known = self._known.get(index)
        if not device.is_lost:
            state = health_of(
                is_answering=False, needs_reset=device.needs_reset, errors=MemoryErrors(), xids=(), recovery_action=None
            )
            return GpuReading(index=index, health=state)
        if known is None:
            return GpuReading(index=index, health=LOST)
        known.was_lost = True
        return GpuReading(
            index=index, uuid=known.standing.uuid, product=known.standing.product, pci_bus_id=known.standing.pci_bus_id,
            xids=tuple(sorted(known.xids)[:MOST_XIDS]), health=LOST,
        )  # fmt: skip

    def _watch(self, device: Device) -> None:
        """Have the driver tell of its critical errors, once for each GPU."""
        address = _address(device.handle)
        if self._events is None or address in self._watched:
            return
        self._watched.add(address)
        kinds = values.amount(device.ask("nvmlDeviceGetSupportedEventTypes"))
        if kinds and kinds & pynvml.nvmlEventTypeXidCriticalError:
            device.ask("nvmlDeviceRegisterEvents", pynvml.nvmlEventTypeXidCriticalError, self._events)

    def _take_events(self, devices: list[Device]) -> None:
        """Errors that the driver has told of since the last reading: their GPUs are looked at closely."""
        if self._events is None:
            return
        at = {_address(device.handle): index for index, device in enumerate(devices) if device.handle is not None}
        driver = Device(None, self._on_error)
        for _ in range(MOST_EVENTS):
            event = driver.asked_with("nvmlEventSetWait_v2", self._events, 0)
            if event is None:
                return
            known = self._known.get(at.get(_address(event.device), -1))
            xid = values.amount(event.eventData, 10_000)
            if known is not None and xid and event.eventType == pynvml.nvmlEventTypeXidCriticalError:
                known.xids.add(xid)
                known.condition_read = -self._condition_seconds

    def _pairs_of(self, devices: list[Device], gpus: tuple[GpuReading, ...]) -> tuple[GpuPair, ...]:
        """Asked for anew when a GPU or its links are others than before."""
        key = tuple((gpu.uuid, gpu.nvlink, gpu.fabric, device.is_lost) for gpu, device in zip(gpus, devices, strict=True))
        if key != self._pairs[0]:
            usable = [(index, device) for index, device in enumerate(devices) if device.handle is not None and not device.is_lost]
            self._pairs = (
                key,
                tuple(
                    pair(one, first, other, second)
                    for place, (first, one) in enumerate(usable)
                    for second, other in usable[place + 1 :]
                ),
            )
        return self._pairs[1]


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
