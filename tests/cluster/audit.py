"""What the operator asked of the API server, from the audit log."""

import json
from typing import Any

from controlplane.plane import ControlPlane
from operator_user import OPERATOR_USER

Json = dict[str, Any]


def writes(plane: ControlPlane) -> list[Json]:
    """The operator's writes, but for its lease."""
    entries = [json.loads(line) for line in plane.audit_log.read_text().splitlines()]
    return [
        each
        for each in entries
        if each["user"]["username"] == OPERATOR_USER
        and each["verb"] not in ("get", "list", "watch")
        and each["objectRef"]["resource"] != "leases"
    ]


def writes_to(plane: ControlPlane, resource: str, name: str) -> list[str]:
    """Of one object: which part of it each was to, empty for the object itself."""
    return [
        str(each["objectRef"].get("subresource", ""))
        for each in writes(plane)
        if (each["objectRef"]["resource"], each["objectRef"].get("name")) == (resource, name)
    ]
