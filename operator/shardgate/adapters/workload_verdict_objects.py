"""A verdict on a workload of another kind -> its ``WorkloadVerdict`` object."""

import hashlib
from collections.abc import Mapping
from typing import Any

from shardgate.adapters.report import aspect_labels
from shardgate.adapters.status import MAX_FINDINGS, cut, finding_status, without_nulls
from shardgate.api import API_VERSION
from shardgate.domain.verdict import Outcome, Verdict

Json = dict[str, Any]

GOOD = tuple(each.label for each in (Outcome.SOUND, Outcome.WASTEFUL, Outcome.RISKY))
BAD = tuple(each.label for each in (Outcome.WAITING, Outcome.UNSOUND))
KIND, PLURAL = "WorkloadVerdict", "workloadverdicts"
MOST_NAME = 253


def name_of(body: Mapping[str, Any]) -> str:
    """``deployment-llama``: of kind and name, so that it is found without a search."""
    name = f"{body['kind'].lower()}-{body['metadata']['name']}"
    if len(name) <= MOST_NAME:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MOST_NAME - 9]}-{mark}"


def workload_verdict(body: Mapping[str, Any], verdict: Verdict, before: Mapping[str, Any] | None, now: str) -> Json:
    """The object to stand beside a workload. ``before``: the status that stands, or the outcome that was, in one."""
    metadata = body["metadata"]
    outcome, then = verdict.outcome.label, (before or {}).get("outcome")
    stays = then == outcome
    each, gpus = verdict.required.pods_per_replica, verdict.required.gpus_per_replica
    pods = None if each is None or not gpus else each * (verdict.required.gpus // gpus)
    owner = {"apiVersion": body["apiVersion"], "kind": body["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": API_VERSION, "kind": KIND,
        "metadata": {"name": name_of(body), "namespace": metadata["namespace"], "ownerReferences": [owner]},
        "spec": {"workloadRef": {"apiVersion": body["apiVersion"], "kind": body["kind"], "name": metadata["name"]}},
        "status": without_nulls({
            "observedGeneration": metadata.get("generation"),
            "outcome": outcome,
            "lastGoodOutcome": then if then in GOOD else (before or {}).get("lastGoodOutcome"),
            "since": (before or {}).get("since", now) if stays else now,
            "aspects": aspect_labels(verdict.aspects),
            "summary": cut(verdict.findings[0].message) if verdict.findings else None,
            "required": {
                "gpus": verdict.required.gpus, "gpusPerReplica": verdict.required.gpus_per_replica,
                "pods": pods,
            },
            "findings": [finding_status(each) for each in verdict.findings[:MAX_FINDINGS]],
        }),
    }  # fmt: skip


def patch_of(stored: Mapping[str, Any], fresh: Json) -> Json:
    """A merge patch of the object as it stands, and of no other, that makes it say this."""
    metadata = {"resourceVersion": stored["metadata"]["resourceVersion"], "ownerReferences": fresh["metadata"]["ownerReferences"]}
    return {"metadata": metadata, **{part: _replaced(stored.get(part), fresh[part]) for part in ("spec", "status")}}


def _replaced(before: Any, now: Any) -> Any:
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return now
    gone = dict.fromkeys(before.keys() - now.keys())
    return {**gone, **{key: _replaced(before.get(key), value) for key, value in now.items()}}


def says_new(stored: Mapping[str, Any] | None, fresh: Json) -> bool:
    """Whether the object says something that the stored one does not: outcome, codes, requirement, aspects, generation."""
    if stored is None:
        return True
    before, after = stored.get("status") or {}, fresh["status"]
    if any(before.get(key) != after.get(key) for key in ("observedGeneration", "outcome", "required", "aspects")):
        return True
    return [each.get("code") for each in before.get("findings") or ()] != [each["code"] for each in after["findings"]]


def is_mismatch(status: Mapping[str, Any]) -> bool:
    """It is Waiting or Unsound now, and could run before."""
    return status.get("outcome") in BAD and status.get("lastGoodOutcome") is not None
