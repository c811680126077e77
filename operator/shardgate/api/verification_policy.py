"""``VerificationPolicy``: what the cluster's owners decide about verdicts."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from shardgate.api.fields import ApiModel, LabelValue, Name, Quantity, Rule
from shardgate.api.inference_deployment import OutcomeName, TaintEffect


class SelectorOperator(StrEnum):
    """How a label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class SelectorRequirement(ApiModel):
    """One requirement on a label."""

    rules = (
        Rule(
            cel="(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            message="values go with In and NotIn, and only with them",
            field=".values",
            holds=lambda r: (r.operator in ("In", "NotIn")) == bool(r.values),
        ),
    )

    key: Annotated[str, Field(min_length=1, max_length=317, description="The label.")]
    operator: Annotated[SelectorOperator, Field(description="How it is compared.")]
    values: Annotated[list[LabelValue] | None, Field(max_length=64, description="Values to compare with.")] = None


class NamespaceSelector(ApiModel):
    """Namespaces by label; empty selects all."""

    match_labels: Annotated[
        dict[str, LabelValue] | None, Field(max_length=64, description="Labels that the namespace must have.")
    ] = None
    match_expressions: Annotated[
        list[SelectorRequirement] | None, Field(max_length=32, description="Requirements that must all hold.")
    ] = None


class Mode(StrEnum):
    """What is done about a refusal."""

    ENFORCE = "Enforce"
    WARN = "Warn"
    AUDIT = "Audit"


class Capacity(StrEnum):
    """Whether anything may come that is not here."""

    OPEN = "Open"
    CLOSED = "Closed"


class CodeAnswer(StrEnum):
    """What one code does to the answer."""

    REFUSE = "Refuse"
    WARN = "Warn"
    IGNORE = "Ignore"


class Disclosure(StrEnum):
    """What messages to users say about nodes."""

    NODES = "Nodes"
    POOLS = "Pools"
    NONE = "None"


class Refuse(ApiModel):
    """Outcomes that are refused besides Unsound."""

    waiting: Annotated[bool | None, Field(description="Refuse what could run, but not now. Unset: no.")] = None
    undecided: Annotated[bool | None, Field(description="Refuse what cannot be judged. Unset: no.")] = None


class PoolTaint(ApiModel):
    """A taint that the pool's nodes carry."""

    key: Annotated[str, Field(min_length=1, max_length=317, description="Its key.")]
    value: Annotated[LabelValue | None, Field(description="Its value.")] = None
    effect: Annotated[TaintEffect, Field(description="Its effect.")]


class ProvisionablePool(ApiModel):
    """Nodes that may come."""

    name: Annotated[Name, Field(description="The pool's name.")]
    product: Annotated[str, Field(min_length=1, max_length=128, description="GPU product, as nvidia.com/gpu.product says it.")]
    gpus_per_node: Annotated[int, Field(ge=1, le=1024, description="GPUs of one node.")]
    max_nodes: Annotated[int, Field(ge=1, le=65536, description="Nodes that may come at most.")]
    resource: Annotated[
        str | None, Field(min_length=3, max_length=317, description="The extended resource. Unset: nvidia.com/gpu.")
    ] = None
    labels: Annotated[dict[str, LabelValue] | None, Field(max_length=64, description="Labels that the nodes will have.")] = None
    taints: Annotated[list[PoolTaint] | None, Field(max_length=32, description="Taints that the nodes will have.")] = None
    allocatable: Annotated[dict[str, Quantity] | None, Field(max_length=32, description="What else a node has: cpu, memory.")] = (
        None
    )


class VerificationPolicySpec(ApiModel):
    """Each field that is set counts; of several policies that match, the strictest field by field."""

    namespace_selector: Annotated[NamespaceSelector | None, Field(description="Namespaces that it is for. Unset: all.")] = None
    kinds: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*(\.[a-z0-9.-]+)?$", max_length=317)]] | None,
        Field(max_length=64, description="Kinds that it is for, as Kind.group. Empty: all."),
    ] = None
    mode: Annotated[Mode | None, Field(description="Enforce refuses, Warn warns, Audit only records.")] = None
    capacity: Annotated[
        Capacity | None,
        Field(description="Closed: nothing comes but what is here or named as provisionable. Open: anything may come."),
    ] = None
    refuse: Annotated[Refuse | None, Field(description="Outcomes that are refused besides Unsound.")] = None
    codes: Annotated[
        dict[str, CodeAnswer] | None,
        Field(
            max_length=128,
            description="Answer per finding code. Changes the answer, never outcome or score; Refuse refuses whatever the outcome.",
        ),
    ] = None
    disclosure: Annotated[Disclosure | None, Field(description="What messages to users say about nodes.")] = None
    stale_after_seconds: Annotated[
        int | None, Field(ge=1, le=3600, description="Age of the inventory, in seconds, from which nothing is judged by it.")
    ] = None
    claim_seconds: Annotated[
        int | None, Field(ge=1, le=86400, description="A claim whose pods never came is dropped after this many seconds.")
    ] = None
    provisionable: Annotated[
        list[ProvisionablePool] | None,
        Field(
            max_length=64,
            description="Nodes that may come, besides what autoscalers' objects tell.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = None


class Violation(ApiModel):
    """A standing object that the policy would refuse."""

    kind: Annotated[str, Field(max_length=63, description="Its kind.")]
    namespace: Annotated[str, Field(max_length=63, description="Its namespace.")]
    name: Annotated[str, Field(max_length=253, description="Its name.")]
    outcome: Annotated[OutcomeName, Field(description="The worst finding's outcome.")]
    codes: Annotated[list[str] | None, Field(max_length=8, description="Codes of its findings, worst first.")] = None


class VerificationPolicyStatus(ApiModel):
    """What the policy matched."""

    observed_generation: Annotated[int | None, Field(ge=0, description="Generation that was read.")] = None
    problem: Annotated[str | None, Field(max_length=4096, description="Why it is not read, where it is not.")] = None
    matched: Annotated[int | None, Field(ge=0, description="Standing objects that it is for.")] = None
    refused: Annotated[int | None, Field(ge=0, description="Those of them that it would refuse, were they applied now.")] = None
    violations: Annotated[list[Violation] | None, Field(max_length=50, description="The worst 50 of those.")] = None


class VerificationPolicy(ApiModel):
    """What is done about verdicts, and what may still come to the cluster."""

    spec: Annotated[VerificationPolicySpec, Field(description="The decision.")]
    status: Annotated[VerificationPolicyStatus | None, Field(description="What the policy matched.")] = None
