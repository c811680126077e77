"""``DecisionReview``: a question about a decision that admission made. It is answered, and never stored."""

from typing import Annotated

from pydantic import Field

from shardgate.api.fields import ApiModel


class DecisionReviewSpec(ApiModel):
    """Which decision is asked about."""

    ref: Annotated[
        str, Field(pattern=r"^[0-9a-f]{4,64}$", description="The decision's reference, as a refusal says it: 3f9c.")
    ]  # fmt: skip


class DecisionReviewStatus(ApiModel):
    """The answer of one replica: each keeps its own decisions."""

    replica: Annotated[str, Field(max_length=253, description="Which replica answers.")]
    kept: Annotated[int, Field(ge=0, description="How many decisions it keeps, of all namespaces.")]
    found: Annotated[int, Field(ge=0, description="How many of this namespace have the reference.")]
    decisions: Annotated[
        str | None, Field(description="Those, newest first: a JSON array, compressed with zlib, in base64. `shardgate why --ref`.")
    ] = None


class DecisionReview(ApiModel):
    """A question about a decision that admission made in this namespace.

    Created in a server-side dry run alone, it comes back with its answer: whoever may create DecisionReviews in a
    namespace may read its decisions.
    """

    spec: Annotated[DecisionReviewSpec, Field(description="Which decision is asked about.")]
    status: Annotated[DecisionReviewStatus | None, Field(description="The answer. Set by Shardgate alone.")] = None
