"""What our resources' fields have in common: strict models, and rules kept twice (CEL and Python)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

MAX_WIDTH = 4096
"""No single width is larger."""
MAX_RANKS = 65536
"""No replica has more ranks: it bounds the work of a verdict, and keeps every count far below 64 bits."""

Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Quantity = Annotated[
    str,
    Field(
        pattern=r"^[0-9]+(\.[0-9]+)?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][-+]?[0-9]{1,3})?$",
        max_length=32,
        json_schema_extra={"x-kubernetes-int-or-string": True},
    ),
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
]
"""A Kubernetes quantity, not negative."""

Name = Annotated[str, Field(min_length=1, max_length=253)]
LabelValue = Annotated[str, Field(max_length=63)]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule over several fields: as the API server evaluates it, and the same in Python."""

    cel: str
    message: str
    field: str
    """The field to name in the error, relative to the object that has the rule: ``.layersPerStage``."""
    holds: Callable[[Any], bool]


UNREAD = frozenset({"config", "affinity"})
"""Fields that keep whatever stands in them."""


class ApiModel(BaseModel):
    """camelCase on the wire, unknown fields refused, rules checked."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def read(cls, spec: Any) -> Self:
        """From a manifest's ``spec``, as strict as the API server: text is no number, and null is not there.

        Raises pydantic's ``ValidationError``.
        """
        return cls.model_validate_json(json.dumps({"spec": _present(spec)}, default=dict), strict=True)

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        broken = [rule for rule in self.rules if not rule.holds(self)]
        if broken:
            raise ValidationError.from_exception_data(
                type(self).__name__,
                [
                    InitErrorDetails(
                        type=PydanticCustomError("rule", "{message}", {"message": rule.message}),
                        loc=(rule.field.lstrip("."),),
                        input=None,
                    )
                    for rule in broken
                ],
            )
        return self


def _present(value: Any) -> Any:
    """Without nulls, which the API server drops."""
    if isinstance(value, Mapping):
        return {key: each if key in UNREAD else _present(each) for key, each in value.items() if each is not None}
    return [_present(each) for each in value] if isinstance(value, list | tuple) else value
