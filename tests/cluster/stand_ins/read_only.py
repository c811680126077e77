"""The operator on a file system that cannot be written, but for devices: ``kopf run -A read_only.py``."""

import errno
import os
import sys
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """What would change a file fails, as the kernel would have it."""
    is_write = event == "open" and bool((arguments[2] or 0) & WRITES) and not str(arguments[0]).startswith(("/dev/", "/proc/"))
    if (is_write and isinstance(arguments[0], str | bytes)) or event in CHANGES:
        raise OSError(errno.EROFS, "Read-only file system", str(arguments[0]))


sys.addaudithook(refuse)

from shardgate import main  # noqa: F401  # handlers of the operator
