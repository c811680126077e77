"""``VerificationException`` objects -> what is let in, on whose word, until when."""

import datetime
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from shardgate.adapters.errors import DeclarationError, group, problems_of
from shardgate.api.verification_exception import VerificationException
from shardgate.domain.enforce import Override

CREATOR = "shardgate.io/granted-by"
"""Annotation with the user who created or last changed it: set at admission, whatever its author wrote there."""
KIND, PLURAL = "VerificationException", "verificationexceptions"


def read_exception(body: Mapping[str, Any]) -> Override:
    """Raises an ``ExceptionGroup`` of ``DeclarationError``."""
    try:
        spec = VerificationException.read(body.get("spec")).spec
    except ValidationError as error:
        raise problems_of(error) from None
    metadata = body.get("metadata") or {}
    try:
        expires = datetime.datetime.fromisoformat(spec.expires).timestamp()
    except (ValueError, OverflowError) as error:
        raise group([DeclarationError("spec.expires", f"is no time: {error}")]) from None
    if metadata.get("deletionTimestamp"):
        expires = 0.0  # it is going, and what is changed of it meanwhile is nobody's word
    return Override(
        name=f"{metadata.get('namespace')}/{metadata.get('name')}", namespace=str(metadata.get("namespace") or ""),
        kind=spec.target.kind, target=spec.target.name, codes=frozenset(spec.codes), reason=spec.reason,
        expires=expires,
        granted_by=str((metadata.get("annotations") or {}).get(CREATOR) or ""),
    )  # fmt: skip
