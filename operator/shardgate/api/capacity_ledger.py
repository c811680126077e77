"""``CapacityLedger``: GPUs that were promised at admission, so that two replicas do not promise the same ones."""

from typing import Annotated

from pydantic import Field

from shardgate.api.fields import ApiModel, Name
from shardgate.api.inference_deployment import Condition

MOST_CLAIMS = 2000
MOST_ACCURACIES = 200


class LedgerPod(ApiModel):
    """One pod that is to come."""

    node: Annotated[str, Field(max_length=253, description="Where it is planned to go; the scheduler decides.")]
    requests: Annotated[dict[str, int], Field(max_length=32, description="What it will ask for, in whole base units.")]


class LedgerClaim(ApiModel):
    """What one object was promised."""

    uid: Annotated[str, Field(min_length=1, max_length=64, description="Uid of the object.")]
    generation: Annotated[int, Field(ge=0, description="Generation of the object that was admitted.")]
    kind: Annotated[str, Field(min_length=1, max_length=63, description="Kind of the object.")]
    namespace: Annotated[str, Field(max_length=63, description="Namespace of the object.")]
    name: Annotated[Name, Field(description="Name of the object.")]
    taken_at: Annotated[str, Field(description="When it was promised.", json_schema_extra={"format": "date-time"})]
    claim_seconds: Annotated[int, Field(ge=1, le=86400, description="How long the promise holds, by the policy, if no pod comes.")]
    pods: Annotated[list[LedgerPod], Field(max_length=4096, description="Its pods, those that have come among them.")]


class CapacityLedgerSpec(ApiModel):
    """Promises that pods do not hold yet."""

    claims: Annotated[
        list[LedgerClaim] | None,
        Field(
            max_length=MOST_CLAIMS, description="By object.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"]},
        ),
    ] = None  # fmt: skip


class LedgerAccuracy(ApiModel):
    """How well the memory of engines of one version on one product was predicted here."""

    engine_version: Annotated[str, Field(min_length=1, max_length=63, description="Engine and minor version, as vllm 0.19.")]
    product: Annotated[str, Field(min_length=1, max_length=128, description="GPU product.")]
    engines: Annotated[int, Field(ge=1, description="How many engines were compared.")]
    p90_error: Annotated[
        float,
        Field(ge=0, description="90th percentile of the error of predicted KV-cache tokens: a fraction of those measured."),
    ]
    predicted_tokens: Annotated[int, Field(ge=0, description="Tokens predicted for the engine at the 90th percentile.")]
    measured_tokens: Annotated[int, Field(ge=1, description="Tokens that this engine holds.")]
    may_refuse: Annotated[bool, Field(description="False where predictions for such engines refuse nothing for memory any more.")]
    measured_at: Annotated[str, Field(description="When it was last measured.", json_schema_extra={"format": "date-time"})]


class CapacityLedgerStatus(ApiModel):
    """How the whole operator is."""

    accuracy: Annotated[
        list[LedgerAccuracy] | None,
        Field(
            max_length=MOST_ACCURACIES,
            description="Predictions of memory against engines that run here, where the operator reads a Prometheus.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["engineVersion", "product"]},
        ),
    ] = None

    conditions: Annotated[
        list[Condition] | None,
        Field(
            max_length=16, description="InventorySynced, CertificateValid, WebhooksInPlace, Degraded: of the replica that leads.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = None  # fmt: skip


class CapacityLedger(ApiModel):
    """GPUs that were promised at admission. Shardgate's own; one, named shardgate. It may be deleted: it is made anew."""

    spec: Annotated[CapacityLedgerSpec, Field(description="Promises that pods do not hold yet.")]
    status: Annotated[CapacityLedgerStatus | None, Field(description="How the whole operator is.")] = None
