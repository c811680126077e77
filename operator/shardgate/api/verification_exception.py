"""``VerificationException``: somebody answers for what would be refused, for a while."""

from typing import Annotated

from pydantic import Field

from shardgate.api.fields import ApiModel, Name

CodeText = Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{1,63}$", description="A finding's code.")]


class ExceptionTarget(ApiModel):
    """The object that it is for, in the same namespace."""

    kind: Annotated[str, Field(min_length=1, max_length=63, description="Its kind.")]
    name: Annotated[Name, Field(description="Its name.")]


class VerificationExceptionSpec(ApiModel):
    """What is let in, why, and until when."""

    target: Annotated[ExceptionTarget, Field(description="The object that it is for, in the same namespace.")]
    codes: Annotated[list[CodeText], Field(min_length=1, max_length=64, description="Codes of findings that do not refuse it.")]
    reason: Annotated[
        str, Field(min_length=3, max_length=1024, description="Why, for whoever reads it later: a ticket, a patched engine.")
    ]
    expires: Annotated[
        str,
        Field(
            description="From when on it holds no longer: 2026-12-24T00:00:00Z.", json_schema_extra={"format": "date-time"},
            pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$",
        ),
    ]  # fmt: skip


class VerificationException(ApiModel):
    """The accountable override: findings that do not refuse one object, by whom, why, and until when.

    Creating or changing one needs the verb ``override`` on ``verificationpolicies``.
    """

    spec: Annotated[VerificationExceptionSpec, Field(description="What is let in, why, and until when.")]
