"""Renders the models as CustomResourceDefinitions with structural schemas.

A CRD refuses or loses much that pydantic emits: references are inlined, ``null`` alternatives dropped, nullable
only where a model says so, ``additionalProperties: false`` left to pruning, rules added as CEL.
"""

from typing import Any, get_args

from pydantic import BaseModel

from shardgate.api import GROUP, VERSION
from shardgate.api.capacity_ledger import CapacityLedger
from shardgate.api.decision_review import DecisionReview
from shardgate.api.fields import ApiModel
from shardgate.api.gpu_node_report import GpuNodeReport
from shardgate.api.inference_deployment import InferenceDeployment
from shardgate.api.model_profile import ModelProfile
from shardgate.api.verification_exception import VerificationException
from shardgate.api.verification_policy import VerificationPolicy
from shardgate.api.workload_verdict import WorkloadVerdict

Json = dict[str, Any]

_DROPPED = ("title", "additionalProperties", "$defs", "exclusiveMinimum", "exclusiveMaximum", "const")
_PRINTER_COLUMNS = [
    {"name": "Outcome", "type": "string", "jsonPath": ".status.outcome", "description": "The worst finding's outcome"},
    {"name": "Score", "type": "integer", "jsonPath": ".status.score", "description": "0 to 100"},
    {"name": "Strategy", "type": "string", "jsonPath": ".status.strategy", "description": "Parallel strategy"},
    {"name": "Needed", "type": "integer", "jsonPath": ".status.required.gpus", "description": "GPUs needed"},
    {"name": "Free", "type": "integer", "jsonPath": ".status.available.free", "description": "GPUs free"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]


def crds() -> dict[str, Json]:
    """Plural name -> CustomResourceDefinition."""
    return {
        "inferencedeployments": _crd(
            InferenceDeployment, plural="inferencedeployments", short="infd", scope="Namespaced",
            columns=_PRINTER_COLUMNS, categories=["shardgate", "all"],
        ),
        "verificationpolicies": _crd(
            VerificationPolicy, plural="verificationpolicies", short="verpol", scope="Cluster",
            columns=[
                {"name": "Mode", "type": "string", "jsonPath": ".spec.mode"},
                {"name": "Capacity", "type": "string", "jsonPath": ".spec.capacity"},
                {"name": "Matched", "type": "integer", "jsonPath": ".status.matched", "description": "Objects that it is for"},
                {"name": "Refused", "type": "integer", "jsonPath": ".status.refused", "description": "Of those, to be refused"},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            ],
            categories=["shardgate"],
        ),
        "modelprofiles": _crd(
            ModelProfile, plural="modelprofiles", short="modelprof", scope="Cluster",
            columns=[
                {"name": "Match", "type": "string", "jsonPath": ".spec.match[0]"},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            ],
            categories=["shardgate"],
        ),
        "capacityledgers": _crd(
            CapacityLedger, plural="capacityledgers", short="capledger", scope="Cluster",
            columns=[
                {"name": "Synced", "type": "string", "jsonPath": ".status.conditions[?(@.type=='InventorySynced')].status"},
                {"name": "Degraded", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Degraded')].status"},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            ],
            categories=["shardgate"],
        ),
        "decisionreviews": _crd(
            DecisionReview, plural="decisionreviews", short="decrev", scope="Namespaced",
            columns=[
                {"name": "Ref", "type": "string", "jsonPath": ".spec.ref"},
                {"name": "Found", "type": "integer", "jsonPath": ".status.found"},
            ],
            categories=[], has_status_subresource=False,  # admission sets it, and a status of its own would be taken away before
        ),
        "gpunodereports": _crd(
            GpuNodeReport, plural="gpunodereports", short="gpunode", scope="Cluster",
            columns=[
                {"name": "GPUs", "type": "string", "jsonPath": ".status.summary"},
                {"name": "Driver", "type": "string", "jsonPath": ".status.driver.version"},
                {"name": "Problem", "type": "string", "jsonPath": ".status.problem.name", "description": "Why nothing is known"},
                {"name": "Changed", "type": "date", "jsonPath": ".status.changedAt"},
            ],
            categories=["shardgate"],
        ),
        "verificationexceptions": _crd(
            VerificationException, plural="verificationexceptions", short="verexc", scope="Namespaced",
            columns=[
                {"name": "Kind", "type": "string", "jsonPath": ".spec.target.kind"},
                {"name": "Target", "type": "string", "jsonPath": ".spec.target.name"},
                {"name": "Codes", "type": "string", "jsonPath": ".spec.codes"},
                {"name": "By", "type": "string", "jsonPath": ".metadata.annotations.shardgate\\.io/granted-by"},
                {"name": "Expires", "type": "string", "jsonPath": ".spec.expires"},
            ],
            categories=["shardgate"],
        ),
        "workloadverdicts": _crd(
            WorkloadVerdict, plural="workloadverdicts", short="wlv", scope="Namespaced",
            columns=[
                {"name": "Kind", "type": "string", "jsonPath": ".spec.workloadRef.kind"},
                {"name": "Workload", "type": "string", "jsonPath": ".spec.workloadRef.name"},
                {"name": "Outcome", "type": "string", "jsonPath": ".status.outcome", "description": "The worst finding's outcome"},
                {"name": "Needed", "type": "integer", "jsonPath": ".status.required.gpus", "description": "GPUs needed"},
                {"name": "Finding", "type": "string", "jsonPath": ".status.findings[0].code", "description": "The worst one"},
                {"name": "Since", "type": "date", "jsonPath": ".status.since"},
            ],
            categories=["shardgate"], has_status_subresource=False,  # it is a report: nothing but its status changes
        ),
    }  # fmt: skip


def _crd(  # keyword-only: a CRD's own fields
    model: type[ApiModel], *, plural: str, short: str, scope: str, columns: list[Json], categories: list[str],
    has_status_subresource: bool = True,
) -> Json:  # fmt: skip
    kind = model.__name__
    schema = model.model_json_schema(by_alias=True)
    root = _structural(schema, schema.get("$defs", {}))
    root["description"] = model.__doc__
    root["properties"] = {
        "apiVersion": {"type": "string", "description": "API version of this object."},
        "kind": {"type": "string", "description": "Kind of this object."},
        "metadata": {"type": "object"},
        **root["properties"],
    }
    _add_rules(root, model)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {
                "kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower(),
                "shortNames": [short], "categories": categories,
            },
            "versions": [
                {
                    "name": VERSION, "served": True, "storage": True,
                    **({"subresources": {"status": {}}} if has_status_subresource and "status" in model.model_fields else {}),
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": root},
                }
            ],
        },
    }  # fmt: skip


def _resolved(node: Json, definitions: Json) -> Json:
    """The schema that a reference or an optional field stands for; what stands beside it wins."""
    while "$ref" in node or "anyOf" in node:
        rest = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
        if "$ref" in node:
            node = {**definitions[node["$ref"].rsplit("/", 1)[-1]], **rest}
            continue
        (option,) = (option for option in node["anyOf"] if option.get("type") != "null")
        node = {**option, **rest}
    return node


def _structural(node: Json, definitions: Json) -> Json:
    """One schema node, with references and null alternatives resolved."""
    node = _resolved(node, definitions)
    values = node.get("additionalProperties")
    kept = {key: value for key, value in node.items() if key not in _DROPPED}
    if kept.get("default", ...) is None:
        del kept["default"]
    if "properties" in kept:
        kept["properties"] = {name: _structural(each, definitions) for name, each in kept["properties"].items()}
    if "items" in kept:
        kept["items"] = _structural(kept["items"], definitions)
    if isinstance(values, dict) and not kept.get("x-kubernetes-preserve-unknown-fields"):
        kept["additionalProperties"] = _structural(values, definitions)
    return _scalar(kept)


def _scalar(schema: Json) -> Json:
    """A quantity may be written as a number, so it has no type (its pattern is for the string); integers are 64 bits wide."""
    if schema.get("x-kubernetes-int-or-string"):
        return {key: value for key, value in schema.items() if key not in ("type", "maxLength")}
    return {**schema, "format": "int64"} if schema.get("type") == "integer" else schema


def _add_rules(schema: Json, model: type[BaseModel]) -> None:
    """CEL rules, at the place of the model that has them."""
    if issubclass(model, ApiModel) and model.rules:
        schema["x-kubernetes-validations"] = [
            {"rule": rule.cel, "message": rule.message, "fieldPath": rule.field, "reason": "FieldValueInvalid"}
            for rule in model.rules
        ]
    for name, field in model.model_fields.items():
        nested = schema["properties"].get(field.alias or name)
        if nested is None:
            continue
        for inner in _models_in(field.annotation):
            target = nested.get("items", nested)
            _add_rules(target, inner)


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # a type annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
