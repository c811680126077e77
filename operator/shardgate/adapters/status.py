"""Verdict -> the status, annotations and events of an InferenceDeployment."""

from collections.abc import Mapping
from typing import Any

from shardgate.adapters.report import aspect_labels, digest_of, disclosed_node
from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import REMEMBERED_LABELS
from shardgate.domain.policy import Disclosure, Policy
from shardgate.domain.units import gib
from shardgate.domain.verdict import Finding, Outcome, Verdict

Json = dict[str, Any]

VERDICT, SCORE, FINDINGS = "shardgate.io/verdict", "shardgate.io/score", "shardgate.io/findings"
CLAIMED, CONFLICT = "Claimed", "Conflict"
Stated = tuple[str, str, str]
"""Status, reason and message of a condition."""
UNDONE = "something else undoes our annotations or our status again and again: they are put back twice a minute at most"
OUR_ANNOTATIONS = (VERDICT, SCORE, FINDINGS)
MAX_FINDINGS, MAX_PODS, MAX_MESSAGE = 32, 64, 1024
SCORE_STEP = 5
"""A score that moves by less is not worth a write."""


def annotations(verdict: Verdict) -> dict[str, str | None]:
    """Our annotations; ``None`` takes one away. Nothing in them changes more often than the outcome does."""
    return {
        VERDICT: verdict.outcome.label,
        SCORE: None if verdict.score is None else str(verdict.score),
        FINDINGS: ",".join(verdict.codes) or None,
    }


def settled(
    marks: dict[str, str | None], present: Mapping[str, str | None], kept: Mapping[str, str | None] | None
) -> dict[str, str | None]:
    """The annotations with the score that is there, where we put it (``kept``) and it moved by less than a step since.

    ``kept`` is ``None`` where what we put is not remembered: what is there then counts as ours.
    """
    before, after = present.get(SCORE), marks[SCORE]
    is_ours = kept is None or kept.get(SCORE) == before
    same = all(present.get(name) == marks[name] for name in (VERDICT, FINDINGS))
    if not (same and is_ours) or before is None or after is None:
        return marks
    moved = abs(int(before) - int(after)) if before.isdigit() else SCORE_STEP
    return {**marks, SCORE: before} if moved < SCORE_STEP else marks


def summary(declaration: Declaration, verdict: Verdict, disclosure: Disclosure = Disclosure.POOLS) -> str:
    """The verdict in one line."""
    label = declaration.strategy.label
    if verdict.findings:
        worst = verdict.findings[0].message
        return cut(worst if worst.startswith(label) else f"{label}: {worst}")
    where = ""
    if verdict.placement and verdict.placement.pods and disclosure is not Disclosure.NONE:
        pools = sorted({pod.pool for pod in verdict.placement.pods if pod.pool})
        by_memory = any(each.why.startswith(REMEMBERED_LABELS) and each.value in pools for each in verdict.assumptions)
        where = f" on {verdict.required.gpus} x {', '.join(pools)}{f' ({REMEMBERED_LABELS})' if by_memory else ''}"
    weights = ""
    if verdict.weights and verdict.best_gpu and verdict.best_gpu.estimate:
        budget = verdict.best_gpu.estimate.fullest.budget
        weights = f", {gib(verdict.weights.fullest.per_rank)} of {gib(int(budget.value))} per rank for weights"
    return cut(f"{label}{where}{weights}")


def status_of(  # what it says, and of whom
    body: Mapping[str, Any], declaration: Declaration, verdict: Verdict, policy: Policy, claimed: Stated, now: str,
    *, is_contested: bool = False,
) -> Json:  # fmt: skip
    """The status to stand on the object; conditions keep their transition time where their status stays.

    ``is_contested``: somebody else undoes what we write there again and again; told while it lasts.
    """
    generation = body["metadata"].get("generation")
    required, hardware, placement = verdict.required, verdict.hardware, verdict.placement
    stored = {each["type"]: each for each in (body.get("status") or {}).get("conditions") or ()}
    return {
        "observedGeneration": generation,
        "outcome": verdict.outcome.label,
        "aspects": aspect_labels(verdict.aspects),
        "score": verdict.score,
        "strategy": declaration.strategy.label,
        "summary": summary(declaration, verdict, policy.disclosure),
        "required": {
            "gpus": required.gpus,
            "gpusPerReplica": required.gpus_per_replica,
            "pods": None if required.pods_per_replica is None else required.pods_per_replica * declaration.replicas,
        },
        "available": {
            "gpus": hardware.gpus_installed if hardware else None,
            "free": hardware.gpus_free if hardware else None,
            "replicasThatFit": placement.replicas_that_fit if placement else None,
        },
        "findings": [finding_status(each) for each in verdict.findings[:MAX_FINDINGS]],
        "placement": [
            {
                "replica": each.replica,
                "pod": each.pod,
                "node": disclosed_node(policy.disclosure, each.node, each.pool),
                "localGpus": list(each.local_gpus),
                "ranks": list(each.ranks),
            }
            for each in (placement.pods if placement else ())[:MAX_PODS]
        ],
        "alternatives": [],
        "conditions": [
            condition(stored.get(kind), kind, value, reason, message, generation, now)
            for kind, value, reason, message in (
                *_conditions(declaration, verdict, policy.disclosure),
                (CLAIMED, *claimed),
                *([(CONFLICT, "True", "UndoneByOthers", UNDONE)] if is_contested else ()),
            )
        ],
        "digest": digest_of(body.get("spec") or {}, verdict, policy),
    }


def finding_status(found: Finding) -> Json:
    """A finding, as a status has it."""
    told = {"code": found.code, "where": found.where, "outcome": found.outcome.label, "message": cut(found.message)}
    return {**told, "remedy": cut(found.remedy)} if found.remedy else told


def _conditions(declaration: Declaration, verdict: Verdict, disclosure: Disclosure) -> list[tuple[str, str, str, str]]:
    line = summary(declaration, verdict, disclosure)
    match verdict.outcome:
        case Outcome.WAITING | Outcome.UNSOUND:
            feasible = "False"
        case Outcome.UNDECIDED:
            feasible = "Unknown"
        case _:
            feasible = "True"
    reason = verdict.codes[0] if verdict.codes else "Fits"
    return [
        ("Ready", "True", "Judged", "judged at this generation"),
        ("Feasible", feasible, reason, line),
    ]


def condition(  # the fields of a condition
    stored: Mapping[str, Any] | None, kind: str, value: str, reason: str, message: str, generation: int | None, now: str
) -> Json:
    """A condition, with the time at which its status last changed."""
    since = stored["lastTransitionTime"] if stored and stored.get("status") == value else now
    return {
        "type": kind,
        "status": value,
        **({} if generation is None else {"observedGeneration": generation}),
        "lastTransitionTime": since,
        "reason": reason,
        "message": message,
    }


def unjudged(body: Mapping[str, Any], found: Finding, now: str) -> Json:
    """The status of a declaration that could not be judged: what stood there before no longer holds."""
    generation = body["metadata"].get("generation")
    stored = {each["type"]: each for each in (body.get("status") or {}).get("conditions") or ()}
    message = cut(found.message)
    finding_json = {"code": found.code, "where": found.where, "outcome": found.outcome.label, "message": message}
    conditions = [("Ready", "True", "Judged", "judged at this generation"), ("Feasible", "Unknown", found.code, message)]
    return {
        "observedGeneration": generation,
        "outcome": found.outcome.label,
        "aspects": None,
        "score": None,
        "strategy": None,
        "summary": message,
        "required": None,
        "available": None,
        "findings": [finding_json],
        "placement": [],
        "alternatives": [],
        "conditions": [condition(stored.get(each[0]), *each, generation, now) for each in conditions],
        "digest": None,
    }


def is_worth_writing(stored: Mapping[str, Any] | None, fresh: Json) -> bool:
    """Whether the status says something new: generation, outcome, codes, requirement, score, or the placement's validity.

    Free amounts that move with the cluster alone are no reason to write.
    """
    if not stored or stored.get("observedGeneration") != fresh["observedGeneration"]:
        return True
    if any(stored.get(key) != without_nulls(fresh[key]) for key in ("outcome", "strategy", "required", "aspects")):
        return True
    before, after = stored.get("score"), fresh["score"]
    if (before is None) != (after is None) or (before is not None and abs(before - after) >= SCORE_STEP):
        return True
    if conditions_of(stored) != conditions_of(fresh):
        return True
    codes = [[each["code"] for each in findings or ()] for findings in (stored.get("findings"), fresh["findings"])]
    return codes[0] != codes[1] or bool(stored.get("placement")) != bool(fresh["placement"])


def says_otherwise(stored: Mapping[str, Any], fresh: Json) -> bool:
    """Whether its texts are others, which alone is not worth writing.

    Asked once of what stood when a replica began to lead: others may have written it.
    """
    return any(
        without_nulls(stored.get(key)) != without_nulls(fresh[key]) for key in ("summary", "findings", "placement", "digest")
    )


def without_nulls(value: Any) -> Any:
    """As the API server keeps it, however deep they are."""
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    return {key: without_nulls(each) for key, each in value.items() if each is not None} if isinstance(value, dict) else value


def cut(text: str) -> str:
    """As long as a field of the status takes."""
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE - 1]}…"


def conditions_of(status: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """(type, status, reason) of each condition."""
    return {(each["type"], each["status"], each["reason"]) for each in status.get("conditions") or ()}


def claimed_by(status: Mapping[str, Any]) -> tuple[str, str] | None:
    """(status, reason) of the condition Claimed."""
    found = next((each for each in status.get("conditions") or () if each["type"] == CLAIMED), None)
    return None if found is None else (found["status"], found["reason"])


def is_mismatch(status: Mapping[str, Any]) -> bool:
    """A standing declaration that became Waiting or Unsound after it was better.

    Told from the conditions alone, so that it survives a restart: Ready turns True with the first verdict and stays;
    Feasible that is False since later was something else before.
    """
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    ready, feasible = conditions.get("Ready"), conditions.get("Feasible")
    if ready is None or feasible is None or feasible["status"] != "False":
        return False
    return bool(feasible["lastTransitionTime"] > ready["lastTransitionTime"])
