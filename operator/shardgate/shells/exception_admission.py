"""Admission of ``VerificationException`` objects: only who may override may grant one, and it names who did."""

import logging
from collections.abc import Mapping
from typing import Any

from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.exceptions import CREATOR, PLURAL, read_exception
from shardgate.adapters.messages import mistakes
from shardgate.api import GROUP
from shardgate.shells.access import Review, may
from shardgate.shells.json_patches import annotation_patch

log = logging.getLogger(__name__)

Json = dict[str, Any]
FORBIDDEN, UNPROCESSABLE = 403, 422
VERB, RESOURCE = "override", "verificationpolicies"


def is_exception(request: Mapping[str, Any]) -> bool:
    """Whether a review is of one."""
    resource = request["resource"]
    return (resource["group"], resource["resource"]) == (GROUP, PLURAL)


class ExceptionAdmission:
    """Answers reviews of them."""

    def __init__(self, review: Review) -> None:
        self._review = review

    async def validate(self, request: Mapping[str, Any]) -> Json:
        """Raises ``ClusterUnreachable`` and ``ApiError`` where the API server cannot be asked."""
        body, user = request.get("object"), request["userInfo"]
        if body is None or request["operation"] not in ("CREATE", "UPDATE"):
            return {"allowed": True}
        try:
            found = read_exception(body)
        except ExceptionGroup as problems:
            metadata = body.get("metadata") or {}
            name = f"VerificationException {metadata.get('namespace')}/{metadata.get('name')}"
            return _refused(UNPROCESSABLE, mistakes(name, mistakes_in(problems)))
        if found.granted_by != str(user.get("username") or ""):
            asks = user.get("username")
            problem = f"{CREATOR} says {found.granted_by!r}, and {asks} asks: is the webhook grants.shardgate.io installed?"
            return _refused(FORBIDDEN, problem)
        if not await may(self._review, user, {"group": GROUP, "resource": RESOURCE, "verb": VERB}):
            problem = (
                f"{user.get('username')} may not grant exceptions: that needs the verb {VERB} on {RESOURCE}.{GROUP} "
                f"(a ClusterRole with it, bound to the user)"
            )
            return _refused(FORBIDDEN, problem)
        log.warning("exception %s granted by %s: %s", found.name, user.get("username"), ",".join(sorted(found.codes)))
        return {"allowed": True, "auditAnnotations": {"granted-by": str(user.get("username"))}}

    def mutate(self, request: Mapping[str, Any]) -> Json:
        """Who grants it is written on it, whatever stood there."""
        body = request.get("object")
        if body is None or request["operation"] not in ("CREATE", "UPDATE"):
            return {"allowed": True}
        user = str(request["userInfo"].get("username") or "")
        return {"allowed": True, **annotation_patch(body, {CREATOR: user})}


def _refused(code: int, message: str) -> Json:
    return {"allowed": False, "status": {"code": code, "message": message}}
