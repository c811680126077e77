"""Answers to ``DecisionReview`` objects: decisions are shown to whoever may ask in their namespace.

The API server knows who asks and whether they may: it calls us with a server-side dry run, and what we write on the
object is all that comes of it (``docs/adr/0007-decisions-are-asked-for-through-admission.md``).
"""

import asyncio
import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

from shardgate.adapters.decisions import record
from shardgate.adapters.workloads.values import mapping
from shardgate.api import GROUP
from shardgate.shells.access import Review, may
from shardgate.shells.decisions import Decisions
from shardgate.shells.json_patches import json_patch
from shardgate.shells.webhook_server import ELSEWHERE

Json = dict[str, Any]
PLURAL = "decisionreviews"
METHOD_NOT_ALLOWED = 405
MOST_ANSWER_BYTES = 8 << 20


def is_decision_review(request: Mapping[str, Any]) -> bool:
    """Whether a review is of one."""
    resource = request["resource"]
    return (resource["group"], resource["resource"]) == (GROUP, PLURAL)


class DecisionReviews:
    """Answers reviews of them, one at a time: writing down facts takes a second of a large cluster's."""

    def __init__(self, decisions: Decisions, review: Review, replica: str) -> None:
        self._decisions, self._review, self._replica = decisions, review, replica
        self._turn = asyncio.Lock()

    async def mutate(self, request: Mapping[str, Any]) -> Json:
        """Raises ``ClusterUnreachable`` and ``ApiError`` where the API server cannot be asked who may see nodes."""
        body = request.get("object")
        if body is None or request["operation"] != "CREATE" or not request.get("dryRun"):
            problem = "a DecisionReview is answered, never stored: create it in a server-side dry run (`shardgate why --ref REF`)"
            return {"allowed": False, "status": {"code": METHOD_NOT_ALLOWED, "message": problem}}
        reference = str(mapping(mapping(body).get("spec")).get("ref") or "")  # not validated by its schema yet
        found = self._decisions.find(str(request.get("namespace") or ""), reference)
        status: Json = {"replica": self._replica, "kept": len(self._decisions), "found": len(found)}
        if found:
            async with self._turn:
                may_see_nodes = await may(self._review, request["userInfo"], {"resource": "nodes", "verb": "list"})
                self._decisions.settle()

                def written() -> str:
                    return _compressed([record(each, self._replica, may_see_nodes=may_see_nodes) for each in found])

                status["decisions"] = await asyncio.to_thread(written)
        answer = {"allowed": True, **json_patch([{"op": "add", "path": "/status", "value": status}])}
        return answer if found else {**answer, ELSEWHERE: True}


def _compressed(records: list[Json]) -> str:
    """JSON in zlib in base64; without the facts where they are more than an answer may hold."""
    packed = zlib.compress(json.dumps(records, separators=(",", ":")).encode())
    if len(packed) > MOST_ANSWER_BYTES:
        slim = [{**each, "facts": None, "noFacts": "they are more than an answer holds"} for each in records]
        packed = zlib.compress(json.dumps(slim, separators=(",", ":")).encode())
    return base64.b64encode(packed).decode()
