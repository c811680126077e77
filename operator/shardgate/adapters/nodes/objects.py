"""The part of Node objects that is read."""

from collections.abc import Mapping
from typing import Any

import msgspec

HAMI_REGISTER = "hami.io/node-nvidia-register"


class NodeAnnotations(msgspec.Struct, gc=False, rename={"hami_register": HAMI_REGISTER}):
    """The one annotation that tells of GPUs."""

    hami_register: str = ""


class NodeMetadata(msgspec.Struct, gc=False):
    """The part of ObjectMeta that is read."""

    name: str = ""
    uid: str = ""
    namespace: str = ""
    resourceVersion: str = ""  # noqa: N815  # as the API spells it
    labels: dict[str, str] | None = None
    annotations: NodeAnnotations | None = None


class NodeTaint(msgspec.Struct, gc=False):
    """A taint."""

    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(msgspec.Struct, gc=False):
    """The part of a node's spec that is read."""

    unschedulable: bool = False
    taints: list[NodeTaint] | None = None


class NodeCondition(msgspec.Struct, gc=False):
    """A condition."""

    type: str = ""
    status: str = ""


class NodeStatus(msgspec.Struct, gc=False):
    """The part of a node's status that is read."""

    capacity: dict[str, str | int | float] | None = None
    allocatable: dict[str, str | int | float] | None = None
    conditions: list[NodeCondition] | None = None


class NodeObject(msgspec.Struct, gc=False):
    """A Node, decoded no further than it is read."""

    metadata: NodeMetadata
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


def node_from(body: Mapping[str, Any]) -> NodeObject:
    """A Node from plain values. Raises ``msgspec.ValidationError`` naming the field."""
    return msgspec.convert(body, NodeObject, strict=False)
