"""Admission: the verdict's answer to ``kubectl apply``, and our annotations on what is let in."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import msgspec

from shardgate.adapters.claimed import Claim, planned
from shardgate.adapters.decisions import Facts, KeptDecision
from shardgate.adapters.errors import DeclarationError, mistakes_in
from shardgate.adapters.messages import mistakes, not_known, overridden, rejection, warning
from shardgate.adapters.standing_workloads import declares, is_controller, plausible_owner
from shardgate.adapters.status import OUR_ANNOTATIONS, annotations
from shardgate.adapters.workload_verdicts import JudgedWorkload
from shardgate.adapters.workloads.kinds import JUDGED_KINDS, JudgedKind, judged_kind
from shardgate.adapters.workloads.values import dicts, mapping, whole
from shardgate.api import GROUP
from shardgate.domain.declaration import Declaration, Subject
from shardgate.domain.enforce import MAX_WARNINGS, Answer, Override, Stored, enforce, is_scaled_down, runs
from shardgate.domain.inventory import HeldPod
from shardgate.domain.policy import Policy
from shardgate.domain.verdict import Verdict
from shardgate.shells.audit_annotations import note
from shardgate.shells.config import OperatorConfig
from shardgate.shells.failures import ClusterFailed
from shardgate.shells.json_patches import annotation_patch
from shardgate.shells.judge import MOST_RECENT_BYTES, Judge
from shardgate.shells.ledger import Ledger, UnsettledError, Wanted
from shardgate.shells.metrics import KIND, OTHER_KIND, Metrics
from shardgate.shells.nearest import NearestThatFits

log = logging.getLogger(__name__)

Read = Callable[[str], Awaitable[dict[str, Any]]]
"""One object of the API server, by its path."""
IsBehind = Callable[[JudgedKind, str], bool]
"""Whether what is followed of a kind may not be what stands; the text: a ``resourceVersion`` that an object of it has."""
Keep = Callable[[KeptDecision], None]
OnOverride = Callable[[Override, Subject, tuple[str, ...]], None]
"""Told of each use of an exception: which, for what, for which codes."""
_KINDS = frozenset({KIND, *(each.kind for each in JUDGED_KINDS)})
UNPROCESSABLE, UNAVAILABLE = 422, 503
SCALE = "SCALE"
LOOK_SECONDS = 0.3
"""That a scale waits for a look at what stands; it is answered within a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an admission request is, besides its object."""

    operation: str
    is_dry: bool = False
    user: str = ""


class Refusal(Exception):
    """What is not let in: the message to its author, and the HTTP status that the API server gives it."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is answered, before it is said; all empty for an object that is let in unjudged."""

    subject: Subject | None = None
    verdict: Verdict | None = None
    told: Verdict | None = None
    """The verdict as users may read it."""
    facts: Facts | None = None
    reference: str = ""
    answer: Answer | None = None
    wanted: Wanted | None = None
    unread: tuple[str, ...] = ()
    """Why it is let in unjudged, as its author is warned of it."""
    size_bytes: float = 0
    """Of what the object says: the facts of large ones are not kept, whose number and size are whoever's asks."""


class Admission:
    """What the webhooks ``validate`` and ``mutate`` do. Both only read; a dry run is like any other."""

    def __init__(
        self, judge: Judge, config: OperatorConfig, metrics: Metrics, ledger: Ledger | None = None, read: Read | None = None,
        on_override: OnOverride | None = None, keep: Keep = lambda _: None, is_behind: IsBehind = lambda _kind, _version: False,
    ) -> None:  # fmt: skip
        self._judge, self._config, self._metrics, self._ledger, self._read = judge, config, metrics, ledger, read
        self._on_override, self._keep, self._is_behind = on_override, keep, is_behind
        self._nearest = NearestThatFits()

    async def validate(
        self, body: Mapping[str, Any], old: Mapping[str, Any] | None, operation: str, requester: str = "", *, is_dry: bool = False
    ) -> list[str]:
        """The warnings; raises ``Refusal``. Any other exception becomes HTTP 500."""
        with self._metrics.duration.time():
            asked = Asked(operation=operation, is_dry=is_dry, user=requester)
            return await self._answered(lambda: self._decide(body, old, asked), asked)

    async def _answered(self, decide: Callable[[], Decision], asked: Asked) -> list[str]:
        """The decision in words; where it takes a claim, that is written before anything is let in."""
        decision = decide()
        if decision.wanted is not None and not asked.is_dry and self._ledger is not None:
            try:
                decision = cast(Decision, await self._ledger.settle(decide))
            except UnsettledError as error:
                name = decision.subject.label if decision.subject else "this"
                problem = f"{name}: whether GPUs are left could not be settled among the replicas: {error}; try again"
                raise Refusal(problem, code=UNAVAILABLE) from None
        return self._said(decision, asked)

    def _decide(self, body: Mapping[str, Any], old: Mapping[str, Any] | None, asked: Asked) -> Decision:
        if not self._is_judged(body, is_dry=asked.is_dry) or (old is not None and old.get("spec") == body.get("spec")):
            return Decision()
        try:
            judgement = self._judge.judge(_declared(body, old))
        except ExceptionGroup as problems:
            return self._unreadable(body, old, asked, mistakes_in(problems))
        stored = self._stored(old)
        declaration, policy = judgement.declaration, judgement.policy
        before = _running(self._stored(self._judge.predecessor(body)), judgement.own_pods) if old is None else stored
        if before is not None and old is not None and _takes_replicas_away(body, old):
            before = replace(before, is_scaled_down=True)
        told = judgement.told
        answer = self._answer(declaration.subject, told, policy, before, [(declaration, judgement.verdict)])
        return Decision(
            subject=declaration.subject, verdict=judgement.verdict, told=told, reference=judgement.reference, answer=answer,
            facts=Facts.of(declaration, policy, judgement.inventory), size_bytes=_size_bytes(body),
            wanted=self._wanted(body, [(declaration, judgement.verdict)], policy, stored) if answer.allowed else None,
        )  # fmt: skip

    def _answer(
        self, subject: Subject, told: Verdict, policy: Policy, before: Stored | None, parts: Sequence[tuple[Declaration, Verdict]]
    ) -> Answer:
        """What is said to it. Where it would be refused, pods are looked at that run what is declared now before it is."""
        words = self._judge.book.rules.overrides_for(subject, time.time())
        declaration = parts[0][0] if parts else None
        answer = enforce(declaration, told, policy, before, (), words)
        if answer.allowed:
            return answer
        if before is None:
            return enforce(declaration, told, policy, None, self._judge.adopted(parts), words)
        if before.declaration is None or len(parts) != 1:
            return answer
        by_pods = enforce(declaration, told, policy, None, self._judge.adopted(parts, before.declaration), words)
        new = {each.code for each in (*answer.refusing, *answer.warned)}
        return replace(by_pods, warned=tuple(each for each in by_pods.warned if each.code in new)) if by_pods.allowed else answer

    def _stored(self, old: Mapping[str, Any] | None) -> Stored | None:
        """What stands, judged by the same cluster; an object that can no longer be read forgives nothing."""
        if old is None:
            return None
        try:
            judgement = self._judge.judge(old)
        except ExceptionGroup:
            return None
        return Stored(declaration=judgement.declaration, verdict=judgement.verdict)

    def _unreadable(
        self, body: Mapping[str, Any], old: Mapping[str, Any] | None, asked: Asked, problems: list[DeclarationError]
    ) -> Decision:
        if old is not None:
            try:
                self._judge.judge(old)
            except ExceptionGroup:
                return Decision()  # it stood there unreadable already: this update made nothing worse
        if all(each.is_unknown for each in problems):
            # The API server took it: its schema is newer than we are, as in the middle of an upgrade.
            self._metrics.count_request(KIND, asked.operation, "", "unsupported", is_dry=asked.is_dry)
            return Decision(unread=tuple(not_known(each.where) for each in problems[:MAX_WARNINGS]))
        self._metrics.count_request(KIND, asked.operation, "", "invalid", is_dry=asked.is_dry)
        metadata = body.get("metadata") or {}
        name = f"{KIND} {metadata.get('namespace')}/{metadata.get('name') or metadata.get('generateName')}"
        log.info("%s %s refused: it cannot be read", asked.operation, name)
        raise Refusal(mistakes(name, problems), code=UNPROCESSABLE)

    async def validate_workload(
        self, body: Mapping[str, Any], old: Mapping[str, Any] | None, operation: str, requester: str = "", *, is_dry: bool = False
    ) -> list[str]:
        """The same for objects of other kinds. What a controller makes for an object that is judged is judged with that."""
        asked = Asked(operation=operation, is_dry=is_dry, user=requester)
        with self._metrics.duration.time():
            namespace = str(mapping(body.get("metadata")).get("namespace") or "")
            is_made = operation != SCALE and is_controller(requester, namespace) and self._is_made_for_another(body)
            return [] if is_made else await self._answered(lambda: self._decide_workload(body, old, asked), asked)

    def _is_made_for_another(self, body: Mapping[str, Any]) -> bool:
        """Its owner is judged in its stead; an owner that was let in a moment ago may be known by its claim alone."""
        if self._judge.is_made_for_another(body):
            return True
        owner = None if self._ledger is None else plausible_owner(body)
        return owner is not None and self._ledger is not None and self._ledger.has_claim_of(*owner)

    def _decide_workload(self, body: Mapping[str, Any], old: Mapping[str, Any] | None, asked: Asked) -> Decision:
        unchanged = old is not None and declares(old) == declares(body)
        if unchanged or not self._is_judged(body, is_dry=asked.is_dry):
            return Decision()
        judgement = self._judge.judge_workload(body, rolls_out=old is not None and _template(old) != _template(body))
        if judgement is None:
            return Decision()
        workload = judgement.workload
        stored = self._stored_workload(old, workload)
        gone = self._judge.predecessor(body) if old is None else None
        before = _running(self._stored_workload(gone, workload), judgement.own_pods) if old is None else stored
        parts = [(each.group.declaration, each.verdict) for each in workload.groups if each.group.declaration and each.verdict]
        told = judgement.told
        answer = self._answer(workload.subject, told, judgement.policy, before, parts)
        declared = [each.group for each in workload.groups]
        return Decision(
            subject=workload.subject, verdict=workload.verdict, told=told, reference=judgement.reference, answer=answer,
            facts=Facts.of(declared, judgement.policy, judgement.inventory), size_bytes=_size_bytes(body),
            wanted=self._wanted(body, parts, judgement.policy, stored) if answer.allowed else None,
        )  # fmt: skip

    async def answer(self, request: Mapping[str, Any], webhook: str = "validate") -> dict[str, Any]:
        """The response to a review. What it raises becomes HTTP 500."""
        body, old, operation = request.get("object"), request.get("oldObject"), request["operation"]
        if operation not in ("CREATE", "UPDATE") or body is None:
            return {"allowed": True}
        is_own = (request["resource"]["group"], request["resource"]["resource"]) == (GROUP, "inferencedeployments")
        is_dry = bool(request.get("dryRun"))
        if webhook == "mutate":
            is_mutated = is_own and not request.get("subResource")
            return {"allowed": True, **(self.mutate(body, old, is_dry=is_dry) if is_mutated else {})}
        try:
            if is_own:
                requester = str(request["userInfo"].get("username") or "")
                warnings = await self.validate(body, old, operation, requester, is_dry=is_dry)
            else:
                warnings = await self._warnings(request, body, old)
        except Refusal as refusal:
            return {"allowed": False, "status": {"code": refusal.code, "message": str(refusal)}}
        return {"allowed": True, "warnings": warnings} if warnings else {"allowed": True}

    async def _warnings(self, request: Mapping[str, Any], body: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[str]:
        operation, is_dry = request["operation"], bool(request.get("dryRun"))
        if judged_kind(request["resource"]["group"], request["resource"]["resource"]) is None:
            self._metrics.count_request(OTHER_KIND, operation, "", "unsupported", is_dry=is_dry)
            return []
        requester = str(request["userInfo"].get("username") or "")
        if request.get("subResource"):
            scaled = None if old is None else await self._scaled(request, body, old, is_dry=is_dry)
            return [] if scaled is None else await self.validate_workload(*scaled, SCALE, requester, is_dry=is_dry)
        return await self.validate_workload(body, old, operation, requester, is_dry=is_dry)

    async def _scaled(
        self, request: Mapping[str, Any], scale: Mapping[str, Any], before: Mapping[str, Any], *, is_dry: bool
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The workload as the scale would make it, and as it is; ``None`` for one that is none of ours."""
        resource = request["resource"]
        kind = judged_kind(resource["group"], resource["resource"])
        name, namespace = str(request.get("name") or ""), str(request.get("namespace") or "")
        version = str(mapping(before.get("metadata")).get("resourceVersion") or "")  # of the workload: a Scale has none of its own
        body = None if kind is None else self._judge.workloads.named(kind.group, kind.kind, namespace, name)
        if kind is not None and not kind.is_followed and self._read is not None:
            stands = {**await self._read(kind.path_of(namespace, name)), "apiVersion": kind.api_version, "kind": kind.kind}
            body = None if self._is_made_for_another(stands) else stands
        elif kind is not None and self._is_behind(kind, version) and self._read is not None:
            try:
                # A list of one, as they are followed: that needs no right to get them.
                async with asyncio.timeout(LOOK_SECONDS):
                    listed = await self._read(kind.path_of_list(namespace, name))
                for found in dicts(listed.get("items")):
                    body = {**found, "apiVersion": kind.api_version, "kind": kind.kind}
            except (ClusterFailed, TimeoutError) as error:
                # What was seen last is as good as there is; where that is nothing, it is counted.
                log.warning("a scale of %s %s/%s cannot be read: %s", kind.kind, namespace, name, error)
                if body is None:
                    self._metrics.count_request(kind.kind, SCALE, "", "unread", is_dry=is_dry)
        if body is None:
            return None
        now, then = (mapping(mapping(each).get("spec")).get("replicas") or 0 for each in (scale, before))
        return _with_replicas(body, now), _with_replicas(body, then)

    def _stored_workload(self, old: Mapping[str, Any] | None, now: JudgedWorkload) -> Stored | None:
        before = None if old is None else self._judge.judge_workload(old)
        if before is None:
            return None
        then = before.workload
        first = then.declarations[0] if then.declarations else None
        is_changed = then.declarations != now.declarations or first is None
        is_less = len(then.groups) == len(now.groups) and is_scaled_down(now.declarations, then.declarations)
        return Stored(declaration=first, verdict=then.verdict, is_changed=is_changed, is_scaled_down=is_less)

    def mutate(self, body: Mapping[str, Any], old: Mapping[str, Any] | None, *, is_dry: bool = False) -> dict[str, Any]:
        """Our annotations by the verdict; whatever stood under their names before is not the user's to set."""
        if not self._is_judged(body, is_dry=is_dry):
            return {}
        try:
            wanted: Mapping[str, str | None] = annotations(self._judge.judge(_declared(body, old)).verdict)
        except ExceptionGroup:
            wanted = dict.fromkeys(OUR_ANNOTATIONS)  # validate says what is wrong
        return annotation_patch(body, wanted)

    def _is_judged(self, body: Mapping[str, Any], *, is_dry: bool) -> bool:
        metadata = body.get("metadata") or {}
        if metadata.get("deletionTimestamp"):
            return False
        if self._config.is_exempt(metadata.get("namespace") or ""):
            kind = body.get("kind")  # a label takes known kinds alone: the text is whoever's asks
            known = kind if isinstance(kind, str) and kind in _KINDS else OTHER_KIND
            self._metrics.count_request(known, "", "", "exempt", is_dry=is_dry)
            return False
        return True

    def _wanted(
        self, body: Mapping[str, Any], parts: Sequence[tuple[Declaration, Verdict]], policy: Policy, stored: Stored | None
    ) -> Wanted | None:
        """The claim that letting it in takes, where waiting is refused: else nobody relies on there being room.

        Nothing is claimed for what asks for no more than stood there, nor where its pods are all there.
        """
        metadata = mapping(body.get("metadata"))
        uid = str(metadata.get("uid") or "")
        placements = [(declaration, verdict.placement) for declaration, verdict in parts if verdict.placement is not None]
        if not policy.refuse_waiting or not uid or not placements or not all(placement.feasible for _, placement in placements):
            return None
        if stored is not None and sum(verdict.required.gpus for _, verdict in parts) <= stored.verdict.required.gpus:
            return None
        pods = tuple(pod for declaration, placement in placements for pod in planned(declaration, placement))
        declaration = placements[0][0]
        claim = Claim(uid=uid, generation=int(metadata.get("generation") or 0), owners=declaration.owners, pods=pods)
        if not self._judge.book.claims.missing(claim):
            return None
        return Wanted(claim=claim, subject=declaration.subject, seconds=policy.claim_seconds)

    def _said(self, decision: Decision, asked: Asked) -> list[str]:
        """The answer, counted, logged and kept, in words: the warnings, or the refusal raised."""
        subject, verdict, answer = decision.subject, decision.verdict, decision.answer
        if subject is None or verdict is None or answer is None:
            return list(decision.unread)
        operation, is_dry = asked.operation, asked.is_dry
        reference = decision.reference
        said = "warned" if answer.warned else "allowed"
        word = said if answer.allowed else "refused"
        self._metrics.count_request(subject.kind, operation, verdict.outcome.label, word, is_dry=is_dry)
        for code in verdict.codes:
            self._metrics.findings.labels(code).inc()
        log.info(
            "%s %s %s: %s %s (ref %s)", operation, subject.label, word, verdict.outcome.label, ",".join(verdict.codes), reference
        )
        note("verdict", verdict.outcome.label)
        note("reference", reference)
        words = {by.name: by for _, by in answer.overridden}
        used = {name: tuple(found.code for found, by in answer.overridden if by.name == name) for name in words}
        if used:
            note("override", "; ".join(f"{name} by {words[name].granted_by}: {','.join(codes)}" for name, codes in used.items()))
        if not is_dry:
            for found, _ in answer.overridden:
                self._metrics.overrides.labels(subject.kind, found.code).inc()
        if not answer.allowed:
            refusal = rejection(subject, verdict, answer, reference, self._nearest.line(decision.facts))
            self._keep_it(decision, asked, word, (refusal,))
            raise Refusal(refusal, code=UNPROCESSABLE)
        if self._on_override is not None and not is_dry:
            for name, codes in used.items():
                self._on_override(words[name], subject, codes)
        warnings = [
            *(overridden(found, by) for found, by in answer.overridden),
            *(warning(found, subject, reference) for found in answer.warned),
        ][:MAX_WARNINGS]
        self._keep_it(decision, asked, word, tuple(warnings))
        return warnings

    def _keep_it(self, decision: Decision, asked: Asked, word: str, said: tuple[str, ...]) -> None:
        subject, told, facts = decision.subject, decision.told, decision.facts
        if subject is not None and told is not None and facts is not None:
            self._keep(
                KeptDecision(
                    reference=decision.reference, at=time.time(), subject=subject, operation=asked.operation, is_dry=asked.is_dry,
                    user=asked.user, answer=word, said=said, outcome=told.outcome, findings=told.findings,
                    disclosure=facts.policy.disclosure, facts=facts if decision.size_bytes <= MOST_RECENT_BYTES else None,
                )
            )  # fmt: skip


def _size_bytes(body: Mapping[str, Any]) -> float:
    """Of what it declares, written; infinite where it cannot be."""
    try:
        return len(msgspec.json.encode(declares(body)))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return math.inf


def _takes_replicas_away(body: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether a spec has fewer replicas and no other change. What is filled in while reading may follow from either."""
    now, then = (dict(mapping(each.get("spec"))) for each in (body, old))
    fewer = (whole(now.pop("replicas", None), 1) or 0) < (whole(then.pop("replicas", None), 1) or 0)
    return fewer and now == then


def _running(gone: Stored | None, own_pods: Sequence[HeldPod]) -> Stored | None:
    """What was deleted a moment ago, while its pods still run: made anew, it is as if it had been changed."""
    if gone is None or gone.declaration is None or not runs(gone.declaration, gone.verdict, own_pods):
        return None
    return gone


def _template(body: Mapping[str, Any]) -> Any:
    spec = body.get("spec")
    return spec.get("template") if isinstance(spec, Mapping) else None


def _with_replicas(body: Mapping[str, Any], replicas: int) -> dict[str, Any]:
    return {**body, "spec": {**mapping(body.get("spec")), "replicas": replicas}}


def _declared(body: Mapping[str, Any], old: Mapping[str, Any] | None) -> dict[str, Any]:
    """The object with the status that stands, not with one that its author wrote; none for a spec that is new."""
    seen = {key: value for key, value in body.items() if key != "status"}
    if old is not None and old.get("spec") == body.get("spec"):
        seen["status"] = old.get("status")
    return seen
