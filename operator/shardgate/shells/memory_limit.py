"""How much memory this process may take before it is killed, as its control group says."""

from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
_FILES = ("memory.max", "memory/memory.limit_in_bytes")
"""Of version 2, and of version 1."""
UNLIMITED_BYTES = 1 << 60
"""Version 1 has no word for none: it says the largest number of whole pages."""


def memory_limit_bytes(root: Path = CONTROL_GROUPS) -> int:
    """Bytes; 0 where there is no limit, or none that could be read."""
    for name in _FILES:
        try:
            text = (root / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        return int(text) if text.isdecimal() and int(text) < UNLIMITED_BYTES else 0
    return 0
