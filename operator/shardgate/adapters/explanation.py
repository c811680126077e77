"""Why a live object runs or does not: one sentence, by the most decisive of all that is known, and the evidence for it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shardgate.adapters.pod_troubles import (
    CONFIG_REASONS,
    IMAGE_REASONS,
    Trouble,
    component,
    cut_short,
    last_seen,
    together,
    trouble_of,
)
from shardgate.adapters.pods import DECLARATION_LABEL, OWN_KIND
from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.domain.units import count

Json = Mapping[str, Any]

_AUTOSCALER_REFUSES = ("NotTriggerScaleUp", "FailedScaleUp", "ScaleUpTimedOut")
_AUTOSCALER_ACTS = ("TriggeredScaleUp", "Nominated")
_KARPENTER = "karpenter"
QUOTA = "exceeded quota"
_SCALED = ("Deployment", "StatefulSet", "ReplicaSet", "Rollout")
_HELD_BY_A_QUEUE = (("QuotaReserved", "waits in its queue"), ("Admitted", "is not admitted yet"), ("Evicted", "was evicted"))
"""Conditions of Kueue's Workloads, and what they say where they hold something back."""
PARTS = ("verdict", "quota", "queue", "pods", "scheduler", "autoscaler", "containers", "events")
"""Of the evidence, in the order in which they are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the cluster says of one object, as its API serves it; ``None`` where a part may not be read."""

    body: Json
    verdict: Json | None = None
    """``outcome``, ``findings`` and ``required.pods``: judged now, or as it stands in a status."""
    verdict_is: str = ""
    """Where it is from."""
    quotas: Sequence[Json] | None = ()
    pods: Sequence[Json] | None = ()
    events: Sequence[Json] | None = ()
    """Of the object, of what was made for it, and of its pods."""
    queued: Sequence[Json] | None = ()
    """Kueue's Workloads of it."""
    unread: tuple[tuple[str, str], ...] = ()
    """(part, why it is not known)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer."""

    cause: str
    """One word that stays: Runs, Unsound, QuotaExceeded, Unschedulable, .."""
    answer: str
    evidence: tuple[tuple[str, str], ...]
    """(part, text), in the order of ``PARTS``."""
    unread: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Picture:
    """What is observed, read once."""

    seen: Observed
    troubles: tuple[Trouble, ...] = ()
    events: tuple[Json, ...] = ()
    """The latest first."""
    wanted: int | None = None
    texts: dict[str, list[str]] = field(default_factory=dict)

    @property
    def ready(self) -> int:
        return sum(each.is_ready for each in self.troubles)

    @property
    def missing(self) -> bool:
        """Fewer pods than are wanted; unknown counts as none are missing where there are some."""
        return len(self.troubles) < (1 if self.wanted is None else self.wanted)

    def latest(self, *reasons: str) -> Json | None:
        return next((each for each in self.events if each.get("reason") in reasons), None)


def explain(seen: Observed) -> Explanation:
    """The first cause that holds, in the order of ``_CAUSES``."""
    pods = [pod for pod in seen.pods or () if not mapping(pod.get("metadata")).get("deletionTimestamp")]
    picture = _Picture(
        seen, tuple(map(trouble_of, pods)), tuple(sorted(seen.events or (), key=last_seen, reverse=True)), _wanted(seen)
    )
    cause, answer = next((name, found) for name, ask in _CAUSES for found in [ask(picture)] if found)
    told = {part: list(tell(picture)) for part, tell in _EVIDENCE.items()}
    evidence = tuple((part, text) for part in PARTS for text in dict.fromkeys(told[part]))
    return Explanation(cause=cause, answer=answer, evidence=evidence, unread=seen.unread)


def _wanted(seen: Observed) -> int | None:
    """Pods that there should be; ``None`` where that is not known."""
    body = seen.body
    if body.get("kind") == "Pod":
        return 1
    if body.get("kind") in _SCALED:
        replicas = mapping(body.get("spec")).get("replicas")
        return replicas if isinstance(replicas, int) else 1
    pods = mapping(mapping(seen.verdict).get("required")).get("pods")
    return pods if isinstance(pods, int) else None


# ---- causes, the most decisive first: each gives its sentence, or nothing where it does not hold


def _going(picture: _Picture) -> str:
    since = mapping(picture.seen.body.get("metadata")).get("deletionTimestamp")
    return f"it is being deleted, since {since}" if since else ""


def _runs(picture: _Picture) -> str:
    if not picture.troubles or picture.missing or picture.ready < len(picture.troubles):
        return ""
    outcome = mapping(picture.seen.verdict).get("outcome")
    doubt = f"; the verdict is {outcome}, and pods that are ready outrank it" if outcome in ("Unsound", "Waiting") else ""
    return f"it runs: {picture.ready} of {count(len(picture.troubles), 'pod')} ready{doubt}"


def _finished(picture: _Picture) -> str:
    is_complete = picture.seen.body.get("kind") == "Job" and _condition(picture.seen.body, "Complete").get("status") == "True"
    return "it has ended well" if is_complete else ""


def _none_wanted(picture: _Picture) -> str:
    return "it asks for no pods: its replicas are 0" if picture.wanted == 0 and not picture.troubles else ""


def _unsound(picture: _Picture) -> str:
    found = _worst(picture)
    if found is None or mapping(picture.seen.verdict).get("outcome") != "Unsound":
        return ""
    remedy = f"; {found['remedy']}" if found.get("remedy") else ""
    return f"it cannot run here: {found['code']}: {found['message']}{remedy}"


def _over_quota(picture: _Picture) -> str:
    refused = _refused_pod(picture)
    return f"its pods may not be created: {_quota_words(refused)}" if QUOTA in refused else ""


def _pods_refused(picture: _Picture) -> str:
    refused = _refused_pod(picture)
    return f"its pods cannot be created: {cut_short(refused)}" if refused else ""


def _queue_holds(picture: _Picture) -> str:
    for each in picture.seen.queued or ():
        for kind, told in (
            ("QuotaReserved", "waits in its queue"),
            ("Admitted", "is not admitted yet"),
            ("Evicted", "was evicted"),
        ):
            condition = _condition(each, kind)
            holds = condition.get("status") == ("True" if kind == "Evicted" else "False")
            if holds and _condition(each, "Admitted").get("status") != "True":
                return f"it {told}: Kueue says: {cut_short(str(condition.get('message') or condition.get('reason')))}"
    return ""


def _unschedulable(picture: _Picture) -> str:
    waiting = [each for each in picture.troubles if each.unscheduled]
    if not waiting:
        return ""
    words = cut_short(waiting[0].unscheduled)
    refuses, acts = _autoscaler(picture)
    more = f"; the autoscaler adds no node: {refuses}" if refuses else f"; the autoscaler brings one: {acts}" if acts else ""
    number = f"{len(waiting)} of {count(len(picture.troubles), 'pod')}"
    return f"{number} wait{'s' * (len(waiting) == 1)} for a node; the scheduler says: {words}{more}"


def _gated(picture: _Picture) -> str:
    number = sum(each.is_gated for each in picture.troubles)
    return f"{count(number, 'pod')} held back by a scheduling gate: whoever set it has not lifted it" if number else ""


def _no_image(picture: _Picture) -> str:
    return _waiting_for(picture, IMAGE_REASONS, "its image cannot be had")


def _not_configured(picture: _Picture) -> str:
    return _waiting_for(picture, CONFIG_REASONS, "its container cannot be made")


def _waiting_for(picture: _Picture, reasons: frozenset[str], told: str) -> str:
    for trouble in picture.troubles:
        for container, reason, message in trouble.waiting:
            if reason in reasons:
                return f"{told}: container {container} of pod {trouble.name}: {reason}{f': {message}' if message else ''}"
    return ""


def _crashed(picture: _Picture) -> str:
    ended = [each for trouble in picture.troubles if not trouble.is_ready for each in trouble.ended]
    if not ended:
        return ""
    worst = max(ended, key=lambda each: each.restarts)
    return f"its {worst.text}{f'; it said last: {worst.message}' if worst.message else ''}"


def _failed(picture: _Picture) -> str:
    return next((f"pod {each.name} failed: {cut_short(each.failed)}" for each in picture.troubles if each.failed), "")


def _starting(picture: _Picture) -> str:
    bound = [each for each in picture.troubles if each.is_bound and not each.is_ready]
    if not bound:
        return ""
    unhealthy = picture.latest("Unhealthy")
    more = f"; {cut_short(str(unhealthy.get('message')))}" if unhealthy is not None else ""
    return f"its pods are bound and not all ready: {picture.ready} of {len(picture.troubles)}{more}"


def _unsure(picture: _Picture) -> str:
    found, outcome = _worst(picture), mapping(picture.seen.verdict).get("outcome")
    if found is None or outcome not in ("Waiting", "Undecided"):
        return ""
    how = "it waits" if outcome == "Waiting" else "whether it can run is not known"
    return f"{how}: {found['code']}: {found['message']}"


def _no_pods(picture: _Picture) -> str:
    if picture.troubles or picture.seen.pods is None:
        return ""
    name = mapping(picture.seen.body.get("metadata")).get("name")
    if picture.seen.body.get("kind") == OWN_KIND:
        return (
            f"nothing runs for it yet: no pod has the label {DECLARATION_LABEL}={name}, and no workload of its workloadRef "
            "has pods (an InferenceDeployment makes none itself)"
        )
    return "it has no pods, and nothing says why: is its controller running?"


def _nothing(picture: _Picture) -> str:
    if picture.seen.pods is None:
        return "its pods may not be read, and nothing else says that it could not run"
    return f"{picture.ready} of {count(len(picture.troubles), 'pod')} ready, and nothing says what the others wait for"


_CAUSES: tuple[tuple[str, Callable[[_Picture], str]], ...] = (
    ("BeingDeleted", _going), ("Runs", _runs), ("Finished", _finished), ("ScaledToZero", _none_wanted), ("Unsound", _unsound),
    ("QuotaExceeded", _over_quota), ("Queued", _queue_holds), ("PodsRefused", _pods_refused), ("Unschedulable", _unschedulable),
    ("SchedulingGated", _gated), ("ImageMissing", _no_image), ("NotConfigured", _not_configured), ("Crashed", _crashed),
    ("PodFailed", _failed), ("Starting", _starting), ("Verdict", _unsure), ("NoPods", _no_pods), ("Unknown", _nothing),
)  # fmt: skip


# ---- what they look at


def _worst(picture: _Picture) -> Json | None:
    return next(iter(dicts(mapping(picture.seen.verdict).get("findings"))), None)


def _refused_pod(picture: _Picture) -> str:
    """Why a controller could not create a pod, unless all pods are there, or one came later."""
    event = picture.latest("FailedCreate")
    if event is None or not picture.missing:
        return ""
    made = (str(mapping(pod.get("metadata")).get("creationTimestamp") or "") for pod in picture.seen.pods or ())
    return "" if any(each > last_seen(event) for each in made) else str(event.get("message") or "")


def _quota_words(message: str) -> str:
    """``exceeded quota: gpus, requested: .., used: .., limited: ..``, without the pod's generated name."""
    return cut_short(message[message.index(QUOTA) :])


def _condition(body: Json, kind: str) -> Json:
    return next((each for each in dicts(mapping(body.get("status")).get("conditions")) if each.get("type") == kind), {})


def _autoscaler(picture: _Picture) -> tuple[str, str]:
    """(why it adds no node, what it does), whichever it said last."""
    for event in picture.events:
        text = cut_short(str(event.get("message") or event.get("reason")))
        if event.get("reason") in _AUTOSCALER_ACTS:
            return "", text
        if event.get("reason") in _AUTOSCALER_REFUSES or (
            component(event).startswith(_KARPENTER) and event.get("reason") == "FailedScheduling"
        ):
            return text, ""
    return "", ""


# ---- evidence


def _of_verdict(picture: _Picture) -> Iterator[str]:
    verdict = picture.seen.verdict
    if verdict is None:
        return
    findings = dicts(verdict.get("findings"))
    yield f"{verdict.get('outcome')} ({picture.seen.verdict_is})" + ("" if findings else ", nothing found")
    for each in findings:
        yield f"{each.get('code')} ({each.get('outcome')}) {each.get('where')}: {each.get('message')}"


def _of_quotas(picture: _Picture) -> Iterator[str]:
    """What the namespace's quotas have of devices, and of anything that is used up."""
    for quota in picture.seen.quotas or ():
        status, name = mapping(quota.get("status")), mapping(quota.get("metadata")).get("name")
        hard, used = mapping(status.get("hard")), mapping(status.get("used"))
        for resource, limit in hard.items():
            if "/" in resource or used.get(resource) == limit:
                yield f"{name}: {used.get(resource, '?')} of {limit} {resource} used"
    refused = _refused_pod(picture)
    if refused:
        yield cut_short(refused)


def _of_queues(picture: _Picture) -> Iterator[str]:
    for each in picture.seen.queued or ():
        for condition in dicts(mapping(each.get("status")).get("conditions")):
            words = cut_short(str(condition.get("message") or condition.get("reason")))
            yield f"{condition.get('type')} {condition.get('status')}: {words}"


def _of_pods(picture: _Picture) -> Iterator[str]:
    if picture.seen.pods is None:
        return
    wanted = "" if picture.wanted is None else f" of {picture.wanted} wanted"
    bound = sum(each.is_bound for each in picture.troubles)
    yield f"{len(picture.troubles)}{wanted}, {bound} bound, {picture.ready} ready"


def _of_scheduler(picture: _Picture) -> Iterator[str]:
    yield from together((each.name, cut_short(each.unscheduled)) for each in picture.troubles if each.unscheduled)


def _of_autoscaler(picture: _Picture) -> Iterator[str]:
    refuses, acts = _autoscaler(picture)
    if refuses or acts:
        yield refuses or acts


def _of_containers(picture: _Picture) -> Iterator[str]:
    for trouble in picture.troubles:
        for container, reason, message in trouble.waiting:
            if reason not in ("ContainerCreating", "PodInitializing"):
                yield f"container {container} of pod {trouble.name} does not start: {reason}{f': {message}' if message else ''}"
        for ended in trouble.ended:
            yield f"{ended.text}{f': {ended.message}' if ended.message else ''}"
        if trouble.failed:
            yield f"pod {trouble.name}: {cut_short(trouble.failed)}"


MOST_EVENTS = 5
_TOLD_ELSEWHERE = ("FailedScheduling", "FailedCreate", *_AUTOSCALER_ACTS, *_AUTOSCALER_REFUSES)


def _of_events(picture: _Picture) -> Iterator[str]:
    """The latest warnings that no other part tells of."""
    others = (each for each in picture.events if each.get("type") == "Warning" and each.get("reason") not in _TOLD_ELSEWHERE)
    told = dict.fromkeys(f"{each.get('reason')}: {cut_short(str(each.get('message') or ''))}" for each in others)
    yield from list(told)[:MOST_EVENTS]


_EVIDENCE: Mapping[str, Callable[[_Picture], Iterator[str]]] = {
    "verdict": _of_verdict, "quota": _of_quotas, "queue": _of_queues, "pods": _of_pods, "scheduler": _of_scheduler,
    "autoscaler": _of_autoscaler, "containers": _of_containers, "events": _of_events,
}  # fmt: skip
