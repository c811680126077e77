"""The operator where DNS is dead: whatever is no address waits long, and is not found. ``kopf run -A no_names.py``."""

import ipaddress
import socket
import time
from typing import Any

ask = socket.getaddrinfo
WAITED_SECONDS = 5


def answered(host: Any, *arguments: Any, **more: Any) -> Any:
    """Addresses only."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        time.sleep(WAITED_SECONDS)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution") from None
    return ask(host, *arguments, **more)


def unanswered(*_: Any) -> Any:
    """Names of addresses are not found either."""
    time.sleep(WAITED_SECONDS)
    raise socket.herror(1, "Unknown host")


socket.getaddrinfo = answered
socket.gethostbyaddr = socket.gethostbyname = unanswered  # type: ignore[assignment]  # they never answer

from shardgate import main  # noqa: F401  # handlers of the operator
