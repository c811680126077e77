"""Objects of a cluster as a snapshot keeps them: what verdicts rest on, and nothing else of them.

Facts are kept as far as they are read, field by field: read again, they are the same. What declares something is kept
as it stands, but for metadata and status, and for values that by their names are secrets.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from shardgate.adapters.karpenter import GROUP as KARPENTER
from shardgate.adapters.karpenter import NodeClaimObject, NodePoolObject
from shardgate.adapters.limit_ranges import LimitRangeObject
from shardgate.adapters.nodes import ClaimObject, DeviceClassObject, HeartbeatObject, NodeObject, ReportObject, SliceObject
from shardgate.adapters.pods import WHAT_RUNS, Container, PodObject, read_pod
from shardgate.adapters.quotas import QuotaObject
from shardgate.adapters.workloads.values import mapping

Json = dict[str, Any]
_READ_AS: Mapping[str, type[msgspec.Struct]] = {
    "Node": NodeObject, "Pod": PodObject, "ResourceSlice": SliceObject, "DeviceClass": DeviceClassObject,
    "ResourceClaim": ClaimObject, "ResourceQuota": QuotaObject, "LimitRange": LimitRangeObject, "GpuNodeReport": ReportObject,
    "Lease": HeartbeatObject,
}  # fmt: skip
_READ_AS_OF_KARPENTER: Mapping[str, type[msgspec.Struct]] = {"NodePool": NodePoolObject, "NodeClaim": NodeClaimObject}
_KEPT_METADATA = ("name", "namespace", "uid", "generation", "labels", "creationTimestamp", "deletionTimestamp", "ownerReferences")
_NOT_KEPT = ("resourceVersion",)
_WORDS = r"(?:token|secret|password|passwd|credentials?|(?:api|access|private|secret)[-_]?key)"
_SECRET_NAME = re.compile(rf"(?:.*[-_./])?{_WORDS}", re.IGNORECASE)
"""``HF_TOKEN``, ``--api-key``; not ``tokenizer``, ``max-num-batched-tokens`` or ``secretName``, which hold none."""
_IN_SCRIPT = re.compile(
    rf"(--(?:[\w-]*-)?{_WORDS}(?:=|[ \t]+(?!-))|\b\w*{_WORDS}=)(?![\"']?\$)(\"[^\"]*\"|'[^']*'|[^\s\"';&|]+)", re.IGNORECASE
)
"""The same within a script: a flag or a variable with its value, unless that is another variable."""
REDACTED = "REDACTED"


def kept(body: Json) -> Json | None:
    """The object as a snapshot has it; ``None`` for a pod that has ended.

    Raises ``msgspec.ValidationError`` and ``QuantityError`` where it is not of the form that it should be.
    """
    kind = str(body.get("kind"))
    is_of_karpenter = str(body.get("apiVersion")).partition("/")[0] == KARPENTER
    form = _READ_AS_OF_KARPENTER.get(kind) if is_of_karpenter else _READ_AS.get(kind)
    if form is None:
        return _whole(body)
    item = msgspec.convert(body, form, strict=False)
    if isinstance(item, PodObject) and read_pod(item) is None:
        return None
    return {"apiVersion": body.get("apiVersion"), "kind": kind, **_stated(item)}


def _stated(value: Any) -> Any:  # JSON
    """A decoded value as it was written, without what is its field's default."""
    if isinstance(value, msgspec.Struct):
        fields = {field.encode_name: (getattr(value, field.name), _default(field)) for field in msgspec.structs.fields(type(value))}
        left_out = (*_NOT_KEPT, *(WHAT_RUNS if isinstance(value, Container) else ()))
        return {name: _stated(told) for name, (told, default) in fields.items() if name not in left_out and told != default}
    if isinstance(value, list):
        return [_stated(each) for each in value]
    return {key: _stated(each) for key, each in value.items()} if isinstance(value, dict) else value


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default


def _whole(body: Json) -> Json:
    """All but metadata that nothing is read from; of a status what the operator has promised, and a ledger's."""
    metadata = mapping(body.get("metadata"))
    found = {key: without_secrets(value) for key, value in body.items() if key not in ("metadata", "status")}
    found["metadata"] = {
        key: metadata[key] for key in (*_KEPT_METADATA, "ownerReferences") if metadata.get(key) not in (None, "", {})
    }
    annotations = {key: value for key, value in mapping(metadata.get("annotations")).items() if not _is_of_kubectl(key)}
    if annotations:
        found["metadata"]["annotations"] = without_secrets(annotations)
    if body.get("status"):
        found["status"] = body["status"]
    return found


def _is_of_kubectl(annotation: str) -> bool:
    return annotation.startswith("kubectl.kubernetes.io/")


def without_secrets(value: Any) -> Any:  # JSON
    """The same with the values taken out that by their names are secrets: of variables, flags and annotations."""
    if isinstance(value, list):
        return _without_secret_flags([without_secrets(each) for each in value])
    if not isinstance(value, dict):
        return value
    found: Json = {
        key: _variables(each) if key in _VARIABLES and isinstance(each, dict) else without_secrets(each)
        for key, each in value.items()
    }
    name = found.get("name")
    if isinstance(name, str) and "value" in found:
        found |= {"value": _variables({name: found["value"]})[name]}
    return found


_VARIABLES = ("environment", "annotations")
"""Fields that hold names and values."""


def _variables(named: Json) -> Json:
    return {name: REDACTED if isinstance(value, str) and _SECRET_NAME.fullmatch(name) else value for name, value in named.items()}


def _without_secret_flags(words: list[Any]) -> list[Any]:
    """``--api-key VALUE`` and ``--api-key=VALUE`` among the words of a command, and within its scripts."""
    found: list[Any] = []
    is_next = False
    for word in words:
        if not isinstance(word, str):
            found.append(word)
        elif is_next and not word.startswith(("-", "$")):
            found.append(REDACTED)
        else:
            found.append(_IN_SCRIPT.sub(rf"\1{REDACTED}", word))
        is_next = isinstance(word, str) and word.startswith("-") and _SECRET_NAME.fullmatch(word) is not None
    return found
