"""``WorkloadVerdict``: what was found about a workload of another kind, which is not ours to write to."""

from typing import Annotated

from pydantic import Field

from shardgate.api.fields import ApiModel
from shardgate.api.inference_deployment import Aspects, OutcomeName, Required, StatusFinding, WorkloadRef


class WorkloadVerdictSpec(ApiModel):
    """Which workload it is about."""

    workload_ref: Annotated[WorkloadRef, Field(description="The workload, in the same namespace. It owns this object.")]


class WorkloadVerdictStatus(ApiModel):
    """What Shardgate found."""

    observed_generation: Annotated[int | None, Field(ge=0, description="Generation of the workload that was judged.")] = None
    outcome: Annotated[OutcomeName, Field(description="The worst finding's outcome.")]
    last_good_outcome: Annotated[
        OutcomeName | None,
        Field(description="The last outcome under which it could run: Sound, Wasteful or Risky. Unset where none was seen."),
    ] = None
    since: Annotated[str | None, Field(description="When it became what it is.", json_schema_extra={"format": "date-time"})] = None
    aspects: Annotated[Aspects | None, Field(description="The worst outcome of each class of findings.")] = None
    summary: Annotated[str | None, Field(max_length=1024, description="The worst finding in one line.")] = None
    required: Annotated[Required | None, Field(description="What is needed.")] = None
    findings: Annotated[list[StatusFinding] | None, Field(max_length=32, description="At most 32, worst first.")] = None


class WorkloadVerdict(ApiModel):
    """What Shardgate found about a workload of another kind. It stands only while there are findings."""

    spec: Annotated[WorkloadVerdictSpec, Field(description="Which workload it is about.")]
    status: Annotated[WorkloadVerdictStatus, Field(description="What was found. Written by Shardgate alone.")]
