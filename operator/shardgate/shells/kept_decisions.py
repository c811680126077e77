"""``why --ref``: a decision, asked for in the user's own name, and judged again by this command's code."""

import asyncio
import base64
import json
import zlib
from dataclasses import dataclass, field
from typing import Any

from shardgate.adapters.decisions import replayed
from shardgate.adapters.frozen_values import UnknownForm
from shardgate.api import API_VERSION, GROUP, VERSION
from shardgate.shells.cluster import Cluster

Json = dict[str, Any]
TRIES = 40
"""Each may meet another replica: of three, all are met in 40 with a chance of 1 - 3e-7."""
DRY = {"dryRun": "All", "fieldManager": "shardgate-why"}


@dataclass(slots=True)
class Found:
    """What replicas answered."""

    decisions: list[Json] = field(default_factory=list)
    """Newest first, each of another object."""
    replicas: dict[str, int] = field(default_factory=dict)
    """Those that were asked -> how many decisions each keeps."""


def kept_decisions(reference: str, namespace: str) -> Found:
    """Raises ``ClusterUnreachable``, and ``ApiError``: 403 where the user may not ask in the namespace."""
    return asyncio.run(_asked(reference, namespace))


async def _asked(reference: str, namespace: str) -> Found:
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/decisionreviews"
    question = {"apiVersion": API_VERSION, "kind": "DecisionReview", "metadata": {"name": "why"}, "spec": {"ref": reference}}
    found = Found()
    async with Cluster.from_environment() as cluster:
        for _ in range(TRIES):
            answer = await cluster.request("POST", path, parameters=DRY, body=question)
            status = answer.get("status") or {}
            if not status:
                break  # admission is not asked there: nothing is decided there either
            found.replicas[str(status.get("replica"))] = int(status.get("kept") or 0)
            if status.get("decisions"):
                records = json.loads(zlib.decompress(base64.b64decode(status["decisions"])))
                found.decisions = [_again(each) for each in records]
                break
    return found


def _again(document: Json) -> Json:
    """Judged by this code, where the facts came with it and are of a form that it knows."""
    if not document.get("facts"):
        return document
    try:
        return replayed(document)
    except UnknownForm as error:
        return {**document, "noFacts": f"they are of another version, and cannot be read here ({error})"}
