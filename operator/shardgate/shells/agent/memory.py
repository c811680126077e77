"""Keeps the agent small: what Python and the C library have let go of goes back to the machine."""

import ctypes
import gc

M_ARENA_MAX = -8
"""``mallopt``'s number of it, in glibc's ``malloc.h``."""


def share_one_arena() -> None:
    """Before there are threads: each would else get an arena of its own, which never shrinks."""
    _libc("mallopt", M_ARENA_MAX, 1)


def give_back() -> None:
    """After the imports and the first reading: pynvml's import alone leaves 11 MiB of free memory behind."""
    gc.collect()
    _libc("malloc_trim", 0)


def _libc(name: str, *arguments: int) -> None:
    """glibc's; others have no such functions, and no such need."""
    try:
        getattr(ctypes.CDLL(None), name)(*arguments)
    except (AttributeError, OSError):
        return
