"""Calls into NVML, one by one: a call that fails tells nothing, a driver that is gone ends the reading."""

from collections.abc import Callable
from typing import Any

import pynvml

from shardgate.domain.driver_reading import ProbeError

GONE = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
"""What says that there is no driver to ask any more: it was unloaded or replaced."""
UNSUPPORTED = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_DEPRECATED,
        pynvml.NVML_ERROR_VGPU_ECC_NOT_SUPPORTED,
        pynvml.NVML_ERROR_TIMEOUT,
    }
)
"""What is no failure: this GPU, driver or version has no such fact, or no event has come."""

_NAMES = {value: name for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_") and isinstance(value, int)}

OnError = Callable[[str, str], None]
"""Told of each call that failed: the function, and the error's name."""


def error_name(code: int) -> str:
    """``9`` -> ``NVML_ERROR_DRIVER_NOT_LOADED``; ``0`` -> ``NVML_SUCCESS``."""
    return "NVML_SUCCESS" if code == 0 else _NAMES.get(code, f"NVML_ERROR_{code}")


def probe_error(error: pynvml.NVMLError) -> ProbeError:
    """The same for the port: pynvml's errors stop here."""
    return ProbeError(error_name(error.value), str(error))


def demanded(name: str, *arguments: Any) -> Any:
    """What cannot be done without. Raises ``ProbeError``."""
    try:
        return getattr(pynvml, name)(*arguments)
    except pynvml.NVMLError as error:
        raise probe_error(error) from error
    except UnicodeDecodeError as error:
        problem = f"{name} gave what is no text"
        raise ProbeError(error_name(pynvml.NVML_ERROR_UNKNOWN), problem) from error


class Device:
    """Calls about one GPU, or about none. Once it is lost it is asked no more."""

    def __init__(self, handle: Any, on_error: OnError) -> None:
        self.handle, self._on_error = handle, on_error
        self.is_lost = self.needs_reset = False

    def ask(self, name: str, *arguments: Any) -> Any:
        """What a function says of this GPU; ``None`` where it says nothing. Raises ``ProbeError`` when the driver is gone."""
        return self.asked_with(name, self.handle, *arguments)

    def asked_with(self, name: str, *arguments: Any) -> Any:
        """The same with all of the function's arguments: of a MIG device of this GPU, of a pair."""
        if self.is_lost:
            return None
        try:
            return getattr(pynvml, name)(*arguments)
        except pynvml.NVMLError as error:
            if error.value in GONE:
                raise probe_error(error) from error
            self.is_lost = self.is_lost or error.value == pynvml.NVML_ERROR_GPU_IS_LOST
            self.needs_reset = self.needs_reset or error.value == pynvml.NVML_ERROR_RESET_REQUIRED
            if error.value not in UNSUPPORTED:
                self._on_error(name, error_name(error.value))
        except UnicodeDecodeError:
            self._on_error(name, "NO_TEXT")
        return None
