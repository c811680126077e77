"""What glibc keeps of the memory that was given back to it.

Where a large block is freed, glibc raises the size from which on it asks the kernel for blocks of their own, up to 32 MiB.
Later blocks of such sizes, bodies of reviews and pages of lists, then lie in the heap among small ones that stay, and the heap
can only shrink from its end. Fixed sizes keep large blocks apart, to go back to the kernel when they are freed
(docs/adr/0012-large-blocks-go-back.md).
"""

import ctypes

OWN_BLOCK_BYTES = 1 << 20
"""Above what TLS reads at a time (256 KiB), which is asked for again and again."""
KEPT_BYTES = 4 << 20
"""Free at the end of the heap, for what is asked for next."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of ``malloc.h``."""


def give_back_large_blocks() -> bool:
    """Whether the allocator took it; other libraries than glibc have no such thing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(_M_MMAP_THRESHOLD, OWN_BLOCK_BYTES) and mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
