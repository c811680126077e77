"""What the two webhook configurations should say, and what they say instead."""

from collections.abc import Mapping
from typing import Any

from shardgate.adapters.manifests import GUARDS, webhook_configurations

Json = dict[str, Any]

OURS = ("rules", "matchPolicy", "sideEffects", "admissionReviewVersions")
"""Fields that this version decides."""
CHOSEN = (
    "failurePolicy", "timeoutSeconds", "namespaceSelector", "objectSelector", "clientConfig", "reinvocationPolicy",
    "matchConditions",
)  # fmt: skip
"""Fields that whoever installs it decides: they are right as they were first seen. Of conditions, those beside this version's.
Of guards, namespaces and objects are not theirs to choose."""
_OF_GUARDS = ("namespaceSelector", "objectSelector")
_DEFAULTS: Json = {"objectSelector": {}, "namespaceSelector": {}, "matchConditions": [], "reinvocationPolicy": "Never"}


def expected() -> dict[str, Json]:
    """Kind -> configuration; of its clients and namespaces nothing is known here."""
    return {each["kind"]: each for each in webhook_configurations({"url": ""}, exempt_namespaces=())}


def chosen(found: Mapping[str, Any]) -> Json:
    """What an installation chose, by webhook: kept from the first look, and compared with later ones."""
    return {each["name"]: {field: _value(each, field) for field in CHOSEN} for each in found.get("webhooks") or ()}


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    """One line for each webhook and field that is not as it should be. ``first``: of ``chosen``, when it was first seen."""
    webhooks = {each["name"]: each for each in found.get("webhooks") or ()}
    told = []
    for each in wanted["webhooks"]:
        name = each["name"]
        if name not in webhooks:
            told.append(f"{name} is missing")
            continue
        stands, then = webhooks.pop(name), first.get(name) or {}
        ours = (*OURS, *_OF_GUARDS) if name in GUARDS else OURS
        told += [f"{name}: {field} is not this version's" for field in ours if _value(stands, field) != _value(each, field)]
        conditions = _value(stands, "matchConditions")
        if any(condition not in conditions for condition in _value(each, "matchConditions")):
            told.append(f"{name}: matchConditions is not this version's")
            then = {field: value for field, value in then.items() if field != "matchConditions"}
        chosen_by_others = [field for field in CHOSEN if field in then and field not in ours]
        told += [f"{name}: {field} was changed" for field in chosen_by_others if _value(stands, field) != then[field]]
    told += [f"{name} is none of this version" for name in sorted(webhooks)]
    return told


def _value(webhook: Mapping[str, Any], field: str) -> Any:
    value = webhook.get(field)
    if field == "clientConfig":  # its caBundle changes with the certificates, and is kept by whoever keeps those
        return {key: each for key, each in (value or {}).items() if key != "caBundle"}
    return _DEFAULTS.get(field) if value is None else value
