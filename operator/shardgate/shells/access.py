"""What the API server says of who may do what: SubjectAccessReviews of whoever asks admission."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Json = dict[str, Any]
Review = Callable[[Json], Awaitable[Json]]
"""Sends a SubjectAccessReview, and returns it with its status."""


async def may(review: Review, user: Mapping[str, Any], attributes: Mapping[str, str]) -> bool:
    """Whether a review's ``userInfo`` has this right. Raises ``ClusterUnreachable`` and ``ApiError``."""
    spec = {
        "user": user.get("username") or "", "groups": user.get("groups") or [], "uid": user.get("uid") or "",
        "extra": user.get("extra") or {}, "resourceAttributes": dict(attributes),
    }  # fmt: skip
    answer = await review({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec})
    status = answer.get("status") or {}
    return bool(status.get("allowed")) and not status.get("denied")
