"""``verify --server``: what admission says of objects, by a server-side dry run: for people who may not list nodes."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shardgate.adapters.status import FINDINGS, SCORE, VERDICT
from shardgate.adapters.warning_headers import warnings_in
from shardgate.domain.verdict import Outcome
from shardgate.shells.cluster import APPLY_PATCH, ApiError, Cluster
from shardgate.shells.documents import Document

Json = dict[str, Any]
DRY = {"dryRun": "All", "fieldManager": "shardgate-verify", "force": "true"}
_OURS = re.compile(r'admission webhook "[^"]*\.shardgate\.io" denied the request: ')


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerVerdict:
    """What the API server, and Shardgate behind it, answered."""

    subject: Json
    refused: bool
    message: str
    """Of a refusal; else of what kept the object from being judged; else empty."""
    warnings: tuple[str, ...]
    outcome: str | None
    """Of an InferenceDeployment that is let in; other kinds are not written to, and tell by warnings alone."""
    score: int | None
    findings: tuple[str, ...]

    @property
    def is_undecided(self) -> bool:
        """Nothing was judged, or it was not decided."""
        return bool(self.message and not self.refused) or self.outcome == Outcome.UNDECIDED.label

    def json(self) -> Json:
        """As it is printed."""
        return {
            "subject": self.subject, "refused": self.refused, "message": self.message or None, "warnings": list(self.warnings),
            "outcome": self.outcome, "score": self.score, "findings": list(self.findings),
        }  # fmt: skip


def server_verdicts(documents: Sequence[Document]) -> list[ServerVerdict]:
    """In their order. Raises ``ClusterUnreachable``."""
    return asyncio.run(_all(documents))


async def _all(documents: Sequence[Document]) -> list[ServerVerdict]:
    async with Cluster.from_environment() as cluster:
        plurals: dict[str, dict[str, str]] = {}
        return [await _one(cluster, document.body, plurals) for document in documents]


async def _one(cluster: Cluster, body: Any, plurals: dict[str, dict[str, str]]) -> ServerVerdict:
    metadata = dict(body.get("metadata") or {})
    namespace, version = str(metadata.get("namespace") or "default"), str(body.get("apiVersion") or "")
    name = str(metadata.get("name") or metadata.get("generateName") or "")
    subject = {"apiVersion": version, "kind": body.get("kind"), "namespace": namespace, "name": name}

    def verdict(
        *, refused: bool = False, message: str = "", warnings: Sequence[str] = (), stands: Json | None = None
    ) -> ServerVerdict:
        marks = ((stands or {}).get("metadata") or {}).get("annotations") or {}
        score = marks.get(SCORE)
        return ServerVerdict(
            subject=subject, refused=refused, message=message, warnings=tuple(warnings), outcome=marks.get(VERDICT),
            score=int(score) if score is not None else None,
            findings=tuple(code for code in str(marks.get(FINDINGS) or "").split(",") if code),
        )  # fmt: skip

    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    try:
        if version not in plurals:
            listed = (await cluster.request("GET", root)).get("resources") or ()
            plurals[version] = {each["kind"]: each["name"] for each in listed if "/" not in each["name"] and each.get("namespaced")}
        plural = plurals[version].get(str(body.get("kind")))
        if plural is None:
            return verdict(message=f"{body.get('kind')} of {version} is no namespaced kind that the cluster serves")
        path = f"{root}/namespaces/{namespace}/{plural}/{name}"
        stands, headers = await cluster.answered("PATCH", path, parameters=DRY, body=body, content_type=APPLY_PATCH)
    except ApiError as error:
        ours = _OURS.search(error.message)
        text = error.message[ours.end() :] if ours else f"{error}"
        return verdict(refused=ours is not None, message=text)
    return verdict(warnings=warnings_in(headers), stands=stands)
