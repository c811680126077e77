"""A CUDA program that needs nothing but the driver: ``hold BYTES`` holds memory until its input ends, ``fault`` writes to nowhere.

Its calls are those of NVIDIA's driver API (``cuda.h``); each returns 0, or the number of an error, which it prints and ends with.
"""

import ctypes
import sys

ILLEGAL_ADDRESS = 700
"""``CUDA_ERROR_ILLEGAL_ADDRESS``."""

WRITES_TO_NOWHERE = b"""
.version 6.3
.target sm_70
.address_size 64
.visible .entry writes_to_nowhere() {
    .reg .b64 %address;
    .reg .b32 %value;
    mov.u64 %address, 64;
    mov.u32 %value, 1;
    st.global.u32 [%address], %value;
    ret;
}
"""


def _called(name: str, *arguments: object) -> int:
    return int(getattr(ctypes.CDLL("libcuda.so.1"), name)(*arguments))


def _demanded(name: str, *arguments: object) -> None:
    if code := _called(name, *arguments):
        sys.exit(f"{name}: CUDA error {code}")


def _context() -> None:
    """Of the first GPU."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _demanded("cuInit", 0)
    _demanded("cuDeviceGet", ctypes.byref(device), 0)
    _demanded("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    _demanded("cuCtxSetCurrent", context)


def hold(size: int) -> None:
    """So many bytes."""
    _context()
    _demanded("cuMemAlloc_v2", ctypes.byref(ctypes.c_uint64()), ctypes.c_size_t(size))
    print("held", flush=True)
    sys.stdin.read()


def fault() -> None:
    """An error of this program alone, of which the driver tells as Xid 31 (or 13)."""
    _context()
    module, function, nothing = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    _demanded("cuModuleLoadData", ctypes.byref(module), WRITES_TO_NOWHERE)
    _demanded("cuModuleGetFunction", ctypes.byref(function), module, b"writes_to_nowhere")
    ones = [ctypes.c_uint(1)] * 6
    _demanded("cuLaunchKernel", function, *ones, ctypes.c_uint(0), nothing, nothing, nothing)
    if (code := _called("cuCtxSynchronize")) != ILLEGAL_ADDRESS:
        sys.exit(f"cuCtxSynchronize: {code}, not {ILLEGAL_ADDRESS}")


if __name__ == "__main__":
    hold(int(sys.argv[2])) if sys.argv[1] == "hold" else fault()
