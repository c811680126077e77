"""What the operator asked of the API server, from the audit log."""

import json
from typing import Any

from controlplane.plane import ControlPlane
from operator_user import OPERATOR_USER
from shardgate.adapters.manifests import rbac

Json = dict[str, Any]


COMMANDS = ("shardgate-cli", "kubectl")
Use = tuple[str, str, str]
"""Group, resource or resource/subresource, verb."""


def audited(plane: ControlPlane, since: int = 0) -> list[Json]:
    """The operator's requests, from so many lines on: not those of people, or of commands, with a token of its account."""
    entries = [json.loads(line) for line in plane.audit_log.read_text().splitlines()[since:]]
    return [each for each in entries if each["user"]["username"] == OPERATOR_USER and not each["userAgent"].startswith(COMMANDS)]


def used(plane: ControlPlane, since: int = 0) -> set[Use]:
    """What they were, of requests for resources."""
    found = set()
    for entry in audited(plane, since):
        target = entry.get("objectRef")
        if isinstance(target, dict):
            resource = target["resource"] + (f"/{target['subresource']}" if "subresource" in target else "")
            found.add((str(target.get("apiGroup", "")), resource, str(entry["verb"])))
    return found


def granted(*, keeps_certificates: bool = False, follows_agents: bool = False) -> set[Use]:
    """What its roles name."""
    return {
        (group, resource, verb)
        for role in rbac("any", keeps_certificates=keeps_certificates, follows_agents=follows_agents)
        for rule in role.get("rules", ())
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def writes(plane: ControlPlane) -> list[Json]:
    """The operator's writes, but for its lease."""
    return [
        each
        for each in audited(plane)
        if each["verb"] not in ("get", "list", "watch") and each["objectRef"]["resource"] != "leases"
    ]


def writes_to(plane: ControlPlane, resource: str, name: str) -> list[str]:
    """Of one object: which part of it each was to, empty for the object itself."""
    return [
        str(each["objectRef"].get("subresource", ""))
        for each in writes(plane)
        if (each["objectRef"]["resource"], each["objectRef"].get("name")) == (resource, name)
    ]
