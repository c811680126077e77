"""Admission: the verdict's answer to ``kubectl apply``, and our annotations on what is let in."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import kopf

from shardgate.adapters.errors import DeclarationError, mistakes_in
from shardgate.adapters.messages import mistakes, rejection, warning
from shardgate.adapters.standing_workloads import declares, is_controller
from shardgate.adapters.status import OUR_ANNOTATIONS, annotations
from shardgate.adapters.workload_verdicts import JudgedWorkload
from shardgate.adapters.workloads.kinds import judged_kind
from shardgate.adapters.workloads.values import mapping
from shardgate.domain.declaration import Subject
from shardgate.domain.enforce import Answer, Stored, enforce
from shardgate.domain.verdict import Verdict
from shardgate.shells.config import OperatorConfig
from shardgate.shells.judge import Judge
from shardgate.shells.metrics import KIND, OTHER_KIND, Metrics
from shardgate.shells.webhook_server import InternalError

log = logging.getLogger(__name__)

UNPROCESSABLE = 422


class Admission:
    """What the handlers ``validate`` and ``mutate`` do. Both only read; a dry run is like any other."""

    def __init__(self, judge: Judge, config: OperatorConfig, metrics: Metrics) -> None:
        self._judge, self._config, self._metrics = judge, config, metrics

    def validate(self, body: Mapping[str, Any], old: Mapping[str, Any] | None, operation: str) -> list[str]:
        """The warnings; raises ``kopf.AdmissionError`` to refuse. Any other exception becomes HTTP 500."""
        with self._observed():
            return self._validate(body, old, operation)

    @contextmanager
    def _observed(self) -> Iterator[None]:
        """A validation is timed, and its failure logged; a refusal is none."""
        with self._metrics.duration.time():
            try:
                yield
            except kopf.AdmissionError:
                raise
            except Exception:
                log.exception("validate failed")
                raise

    def _validate(self, body: Mapping[str, Any], old: Mapping[str, Any] | None, operation: str) -> list[str]:
        if not self._is_judged(body) or (old is not None and old.get("spec") == body.get("spec")):
            return []
        try:
            judgement = self._judge.judge(_declared(body, old))
        except ExceptionGroup as problems:
            self._refuse_unreadable(body, old, operation, mistakes_in(problems))
            return []
        stored = self._stored(old)
        answer = enforce(judgement.declaration, judgement.told, judgement.policy, stored, judgement.own_pods)
        return self._said(judgement.declaration.subject, judgement.verdict, judgement.reference, answer, operation)

    def _stored(self, old: Mapping[str, Any] | None) -> Stored | None:
        """What stands, judged by the same cluster; an object that can no longer be read forgives nothing."""
        if old is None:
            return None
        try:
            judgement = self._judge.judge(old)
        except ExceptionGroup:
            return None
        return Stored(declaration=judgement.declaration, verdict=judgement.verdict)

    def _refuse_unreadable(
        self, body: Mapping[str, Any], old: Mapping[str, Any] | None, operation: str, problems: list[DeclarationError]
    ) -> None:
        if old is not None:
            try:
                self._judge.judge(old)
            except ExceptionGroup:
                return  # it stood there unreadable already: this update made nothing worse
        self._metrics.requests.labels(KIND, operation, "", "invalid").inc()
        metadata = body.get("metadata") or {}
        name = f"{KIND} {metadata.get('namespace')}/{metadata.get('name') or metadata.get('generateName')}"
        raise kopf.AdmissionError(mistakes(name, problems), code=UNPROCESSABLE)

    def validate_workload(
        self, body: Mapping[str, Any], old: Mapping[str, Any] | None, operation: str, requester: str = ""
    ) -> list[str]:
        """The same for objects of other kinds. What a controller makes for an object that is judged is judged with that."""
        with self._observed():
            made = is_controller(requester) and self._judge.is_made_for_another(body)
            return [] if made else self._validate_workload(body, old, operation)

    def _validate_workload(self, body: Mapping[str, Any], old: Mapping[str, Any] | None, operation: str) -> list[str]:
        unchanged = old is not None and declares(old) == declares(body)
        if unchanged or not self._is_judged(body):
            return []
        judgement = self._judge.judge_workload(body, rolls_out=old is not None and _template(old) != _template(body))
        if judgement is None:
            return []
        workload = judgement.workload
        stored = self._stored_workload(old, workload)
        declarations = workload.declarations
        answer = Answer(refusing=(), warned=())
        if declarations:
            answer = enforce(declarations[0], judgement.told, judgement.policy, stored, judgement.own_pods)
        return self._said(workload.subject, workload.verdict, judgement.reference, answer, operation)

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A review of an object of another kind, answered. Raises ``InternalError``."""
        response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
        try:
            warnings = self._warnings(request)
            if warnings:
                response["warnings"] = warnings
        except kopf.AdmissionError as refusal:
            response |= {"allowed": False, "status": {"code": refusal.code or UNPROCESSABLE, "message": str(refusal)}}
        except Exception as error:
            raise InternalError from error
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}

    def _warnings(self, request: Mapping[str, Any]) -> list[str]:
        operation, body, old = request["operation"], request.get("object"), request.get("oldObject")
        if operation not in ("CREATE", "UPDATE") or body is None:
            return []
        if judged_kind(request["resource"]["group"], request["resource"]["resource"]) is None:
            self._metrics.requests.labels(OTHER_KIND, operation, "", "unsupported").inc()
            return []
        if request.get("subResource"):
            scaled = None if old is None else self._scaled(request, body, old)
            return [] if scaled is None else self.validate_workload(*scaled, "SCALE")
        return self.validate_workload(body, old, operation, str(request["userInfo"].get("username") or ""))

    def _scaled(
        self, request: Mapping[str, Any], scale: Mapping[str, Any], before: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The workload as the scale would make it, and as it is; ``None`` for one that is none of ours."""
        resource = request["resource"]
        kind = judged_kind(resource["group"], resource["resource"])
        name, namespace = str(request.get("name") or ""), str(request.get("namespace") or "")
        body = None if kind is None else self._judge.workloads.named(kind.group, kind.kind, namespace, name)
        if body is None or self._judge.is_made_for_another(body):
            return None
        now, then = (mapping(mapping(each).get("spec")).get("replicas") or 0 for each in (scale, before))
        return _with_replicas(body, now), _with_replicas(body, then)

    def _stored_workload(self, old: Mapping[str, Any] | None, now: JudgedWorkload) -> Stored | None:
        before = None if old is None else self._judge.judge_workload(old)
        if before is None or not before.workload.declarations:
            return None
        then = before.workload
        return Stored(declaration=then.declarations[0], verdict=then.verdict, is_changed=then.declarations != now.declarations)

    def mutate(self, body: Mapping[str, Any], old: Mapping[str, Any] | None, patch: kopf.Patch) -> None:
        """Set our annotations by the verdict; whatever stood under their names before is not the user's to set."""
        if not self._is_judged(body):
            return
        try:
            wanted = annotations(self._judge.judge(_declared(body, old)).verdict)
        except ExceptionGroup:
            wanted = dict.fromkeys(OUR_ANNOTATIONS)  # validate says what is wrong
        except Exception:
            log.exception("mutate failed")
            raise
        present = (body.get("metadata") or {}).get("annotations") or {}
        for name, value in wanted.items():
            if present.get(name) != value:
                patch.metadata.annotations[name] = value

    def _is_judged(self, body: Mapping[str, Any]) -> bool:
        metadata = body.get("metadata") or {}
        if metadata.get("deletionTimestamp"):
            return False
        if self._config.is_exempt(metadata.get("namespace") or ""):
            self._metrics.requests.labels(KIND, "", "", "exempt").inc()
            return False
        return True

    def _said(self, subject: Subject, verdict: Verdict, reference: str, answer: Answer, operation: str) -> list[str]:
        """The answer, counted and logged, in words: the warnings, or the refusal raised."""
        said = "warned" if answer.warned else "allowed"
        word = said if answer.allowed else "refused"
        self._metrics.requests.labels(subject.kind, operation, verdict.outcome.label, word).inc()
        for code in verdict.codes:
            self._metrics.findings.labels(code).inc()
        log.info(
            "%s %s %s: %s %s (ref %s)", operation, subject.label, word, verdict.outcome.label, ",".join(verdict.codes), reference
        )
        if not answer.allowed:
            raise kopf.AdmissionError(rejection(subject, verdict, answer, reference), code=UNPROCESSABLE)
        return [warning(found, subject) for found in answer.warned]


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
