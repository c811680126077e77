"""What is let in, warned about, refused. Separate from the verdict: the same verdict answers differently by policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import HeldPod
from shardgate.domain.policy import CodeAnswer, Mode, Policy
from shardgate.domain.verdict import Finding, FindingClass, Outcome, Verdict

MAX_WARNINGS = 5

_WARNED = (Outcome.RISKY, Outcome.WAITING, Outcome.UNSOUND)
"""What is not known is no warning's business: status and events say it."""

_ESTIMATES = frozenset({FindingClass.MEMORY, FindingClass.CAPACITY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What stands in the cluster before an update: its declaration and that one's verdict, here and now."""

    declaration: Declaration | None
    verdict: Verdict
    is_changed: bool | None = None
    """Whether the update declares something else, where there is more than one declaration to compare."""
    is_scaled_down: bool = False
    """Whether the update only takes replicas away: as the object tells, or of several declarations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Somebody's word that findings of one object do not refuse it."""

    name: str
    namespace: str
    kind: str
    target: str
    codes: frozenset[str]
    reason: str
    expires: float
    """Unix time."""
    granted_by: str
    """The user who may override; empty where none was asked: it counts for nothing."""

    def holds(self, namespace: str, kind: str, name: str, now: float) -> bool:
        """Whether it is for this object, at this Unix time."""
        return bool(self.granted_by) and now < self.expires and (namespace, kind, name) == (self.namespace, self.kind, self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The findings that refuse (none: admitted), and those to warn of."""

    refusing: tuple[Finding, ...]
    warned: tuple[Finding, ...]
    overridden: tuple[tuple[Finding, Override], ...] = ()
    """Findings that would refuse it, and on whose word they do not."""

    @property
    def allowed(self) -> bool:
        """Whether the object is let in."""
        return not self.refusing


def enforce(
    declaration: Declaration | None, verdict: Verdict, policy: Policy, stored: Stored | None, own_pods: Sequence[HeldPod] = (),
    overrides: Sequence[Override] = (),
) -> Answer:  # fmt: skip
    """Answer an admission request. ``declaration``: ``None`` where nothing of the object could be read.

    An update is refused only for what the stored object does not already have, never when the declaration is
    unchanged or has fewer replicas and nothing else, and never for memory or capacity when it needs no more GPUs and no
    more memory per rank: weights, KV cache, and the fraction that the engine takes. ``own_pods``: of those that run what
    is declared; Ready already when the declaration comes, and not on their way out, they outrank every finding.
    ``overrides``: those that hold for the object now.
    """
    if stored is not None and (stored.declaration == declaration if stored.is_changed is None else not stored.is_changed):
        return Answer(refusing=(), warned=())
    had = {each.code: each.outcome for each in reversed(stored.verdict.findings)} if stored else {}
    forgiven: frozenset[FindingClass] = frozenset()
    if stored is not None and (stored.is_scaled_down or _is_scaled_down(declaration, stored)):
        forgiven = frozenset(FindingClass)
    elif stored is not None and _needs_no_more(verdict, stored.verdict):
        forgiven = _ESTIMATES
    elif stored is None and declaration is not None and runs(declaration, verdict, _staying(own_pods)):
        forgiven = frozenset(FindingClass)  # adopted: they were here before the declaration, so they are Ready with it
    new = [each for each in verdict.findings if had.get(each.code, Outcome.SOUND) < each.outcome]
    refusing = tuple(
        each for each in new if policy.mode is Mode.ENFORCE and each.finding_class not in forgiven and _refuses(each, policy)
    )
    words = ((each, next((word for word in overrides if each.code in word.codes), None)) for each in refusing)
    overridden = tuple((each, word) for each, word in words if word is not None)
    let_in = {each.code for each, _ in overridden}
    refusing = tuple(each for each in refusing if each.code not in let_in)
    warned = tuple(
        each
        for each in new
        if policy.mode is not Mode.AUDIT
        and each not in refusing
        and each.code not in let_in
        and policy.codes.get(each.code) is not CodeAnswer.IGNORE
        and (each.outcome in _WARNED or policy.codes.get(each.code) is CodeAnswer.WARN)
    )
    return Answer(refusing=refusing, warned=warned[:MAX_WARNINGS], overridden=overridden)


def _refuses(found: Finding, policy: Policy) -> bool:
    match policy.codes.get(found.code):
        case CodeAnswer.REFUSE:
            return True
        case CodeAnswer.WARN | CodeAnswer.IGNORE:
            return False
        case _:
            return (
                found.outcome is Outcome.UNSOUND
                or (found.outcome is Outcome.WAITING and policy.refuse_waiting)
                or (found.outcome is Outcome.UNDECIDED and policy.refuse_undecided)
            )


_BY_REPLICAS: Mapping[str, Any] = {"replicas": 0, "surge": None, "assumptions": (), "disagreements": (), "opaque": ()}
"""Fields that another number of replicas changes: besides that number, words that name it."""


def is_scaled_down(now: Sequence[Declaration | None], then: Sequence[Declaration | None]) -> bool:
    """Whether replicas were taken away, of whichever serving groups, and nothing else was changed."""
    pairs = [(one, other) for one, other in zip(now, then, strict=False) if one is not None and other is not None]
    if not len(pairs) == len(now) == len(then) or any(one.replicas > other.replicas for one, other in pairs):
        return False
    is_less = any(one.replicas < other.replicas for one, other in pairs)
    return is_less and all(replace(one, **_BY_REPLICAS) == replace(other, **_BY_REPLICAS) for one, other in pairs)


def _is_scaled_down(declaration: Declaration | None, stored: Stored) -> bool:
    """Where there is one declaration to compare."""
    return stored.is_changed is None and is_scaled_down([declaration], [stored.declaration])


def _needs_no_more(verdict: Verdict, stored: Verdict) -> bool:
    """No more GPUs, and no more memory per rank of any serving group, than what stands."""
    if verdict.required.gpus > stored.required.gpus or len(verdict.rank_needs) != len(stored.rank_needs):
        return False
    return all(
        now is then if now is None or then is None else now.is_within(then)
        for now, then in zip(verdict.rank_needs, stored.rank_needs, strict=True)
    )


def _staying(pods: Sequence[HeldPod]) -> list[HeldPod]:
    return [each for each in pods if not each.is_terminating]


def runs(declaration: Declaration, verdict: Verdict, own_pods: Sequence[HeldPod]) -> bool:
    """As many Ready pods of its own as it needs, each with as many GPUs."""
    required, resource = verdict.required, declaration.gpus.resource
    if not required.gpus_per_pod:
        return False
    ready = sum(pod.ready and pod.requests.get(resource, 0) >= required.gpus_per_pod for pod in own_pods)
    return 0 < required.gpus // required.gpus_per_pod <= ready
