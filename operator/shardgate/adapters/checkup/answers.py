"""What the API server says when it is asked, by dry runs, what it would do: whether admission reaches us, and refuses."""

import re
from dataclasses import dataclass, field

from shardgate.adapters.checkup.check import Check, Json, failed, ok, unknown, warning
from shardgate.adapters.status import VERDICT
from shardgate.adapters.workloads.values import mapping
from shardgate.api import API_VERSION

OUR_CODE = "HeadsUneven"
HTTP_NOT_FOUND = 404
_SPEC: Json = {
    "model": {"name": "meta-llama/Llama-3.1-8B-Instruct"},
    "engine": {"name": "vllm", "version": "0.19.0", "maxModelLen": 8192},
    "replicas": 0,
}
_DENIED = re.compile(r'admission webhook "(?P<name>[^"]*)" denied the request')
_CALLING = re.compile(r'failed calling webhook "(?P<name>[^"]*)": (?P<why>.*)', re.DOTALL)
_POLICY = re.compile(r"(?P<who>ValidatingAdmissionPolicy '[^']*' with binding '[^']*') denied request")
_QUOTA = re.compile(r"is forbidden: exceeded quota: (?P<name>[^,\s]+)")
_NO_RIGHT = re.compile(r'forbidden: User ".*" cannot ', re.DOTALL)
"""How the API server words that authorization said no; admission plugins say 403 as well, in other words."""
HTTP_UNAUTHORIZED, HTTP_FORBIDDEN = 401, 403
OURS = ".shardgate.io"
_REPAIRS = (
    (
        ("x509", "certificate", "tls:"),
        "let the operator write its caBundle again (restart it), or set it to the authority of the served certificate",
    ),
    (
        ("no endpoints", "connection refused", "no such host", "not found"),
        "see that the operator runs, and that its Service selects its pods",
    ),
    (
        ("deadline exceeded", "timeout", "Timeout"),
        "see that the API server may reach the operator's port: NetworkPolicy, firewall",
    ),
)
"""Words of the API server -> what to do."""
OF_ADMISSION = "see the checks webhooks and answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """To one dry run."""

    stands: Json | None = None
    """As it would be stored."""
    warnings: tuple[str, ...] = ()
    status: int = 200
    message: str = field(default="")
    """Of an error."""

    @property
    def may_not(self) -> bool:
        """The person has no right to ask."""
        if self.status == HTTP_UNAUTHORIZED:
            return True
        return self.status == HTTP_FORBIDDEN and not self.other and bool(_NO_RIGHT.search(self.message))

    @property
    def other(self) -> str:
        """Who else than we kept the request from being answered; empty where nobody is named."""
        for said, did in ((_DENIED, "denies it"), (_CALLING, "cannot be called")):
            webhook = said.search(self.message)
            if webhook:
                return "" if webhook["name"].endswith(OURS) else f'admission webhook "{webhook["name"]}" {did}'
        policy, quota = _POLICY.search(self.message), _QUOTA.search(self.message)
        if policy:
            return f"{policy['who']} denies it"
        return f"ResourceQuota {quota['name']} is used up" if quota else ""


def allowed_body(namespace: str) -> Json:
    """A declaration that nothing speaks against: it asks for no GPU yet."""
    return _body("shardgate-doctor-allowed", namespace, {"strategy": {"tensor": 1}})


def refused_body(namespace: str) -> Json:
    """One that no engine would start: 32 heads over three ranks."""
    return _body("shardgate-doctor-refused", namespace, {"strategy": {"tensor": 3}})


def _body(name: str, namespace: str, spec: Json) -> Json:
    return {
        "apiVersion": API_VERSION, "kind": "InferenceDeployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {**_SPEC, **spec},
    }  # fmt: skip


def question_body(namespace: str) -> Json:
    """A question that only the operator can answer, and whose webhook fails closed: the API server says why it does not."""
    return {
        "apiVersion": API_VERSION, "kind": "DecisionReview", "metadata": {"name": "doctor", "namespace": namespace},
        "spec": {"ref": "0000"},
    }  # fmt: skip


EXEMPT = "namespace {0} is exempt: objects there are not judged"
ELSEWHERE = "name another namespace: -n NAMESPACE"


def reached(answer: Answer, namespace: str, *, is_exempt: bool) -> Check:
    """Whether the API server reaches the operator, in its own words."""
    if is_exempt:
        return unknown("answer", EXEMPT.format(namespace), ELSEWHERE)
    if answer.may_not:
        return unknown("answer", f"you may not create decisionreviews in namespace {namespace}", "ask for the role edit there")
    replica = mapping((answer.stands or {}).get("status")).get("replica")
    if replica:
        return ok("answer", f"replica {replica} answers the API server")
    if answer.stands is not None:
        why = "the API server asks no webhook of ours about DecisionReviews"
        return failed("answer", why, "apply deploy/install.yaml, or upgrade the chart")
    failure = None if answer.other else _CALLING.search(answer.message)
    why = " ".join((failure["why"] if failure else answer.message).split())
    if failure:
        return failed("answer", f"the API server does not reach the operator: {why}", _repair(why))
    return unknown("answer", f"asked for a decision, the API server said {answer.status}: {why}")


def _repair(why: str) -> str:
    return next((repair for words, repair in _REPAIRS if any(each in why for each in words)), "see the operator's log")


def let_in(answer: Answer, namespace: str, *, is_exempt: bool) -> Check:
    """Whether a declaration that is fine is annotated and let in."""
    early = _early("admission", answer, namespace, is_exempt=is_exempt)
    if early is not None:
        return early
    marks = mapping(mapping((answer.stands or {}).get("metadata")).get("annotations"))
    if VERDICT in marks:
        return ok("admission", f"a declaration that is fine is judged {marks[VERDICT]} and let in")
    if answer.stands is not None:
        why = "a declaration is let in without a verdict: mutate.shardgate.io is not asked, or fails open"
        return failed("admission", why, OF_ADMISSION)
    denied = _DENIED.search(answer.message)
    said = " ".join(answer.message.split())
    if denied and denied["name"].endswith(OURS):
        return warning("admission", f"a declaration without pods is refused: {said}", "see which VerificationPolicy refuses it")
    return failed("admission", f"a declaration that is fine is not let in: {said}", _repair(said))


def turned_away(answer: Answer, namespace: str, *, is_exempt: bool) -> Check:
    """Whether a declaration that no engine would start is refused, or warned about where the policy says so."""
    early = _early("refusal", answer, namespace, is_exempt=is_exempt)
    if early is not None:
        return early
    said = " ".join(answer.message.split())
    denied = _DENIED.search(answer.message)
    if denied and denied["name"] == "validate.shardgate.io" and OUR_CODE in said:
        return ok("refusal", f"a declaration that no engine would start is refused: {OUR_CODE}")
    policy = f"a VerificationPolicy for namespace {namespace} says mode"
    if any(OUR_CODE in each for each in answer.warnings):
        why = f"what no engine would start is warned about and let in: {OUR_CODE}"
        return warning("refusal", why, f"{policy} Warn; mode Enforce refuses")
    if answer.stands is None:
        return failed("refusal", f"a declaration was turned away by something else: {said}", _repair(said))
    verdict = mapping(mapping(answer.stands.get("metadata")).get("annotations")).get(VERDICT)
    if verdict == "Unsound":
        why = "what no engine would start is let in without a word, though mutate.shardgate.io judges it Unsound"
        return warning("refusal", why, f"{policy} Audit, or validate.shardgate.io fails open")
    why = "a declaration that no engine would start is let in: admission is not asked, or fails open"
    return failed("refusal", why, OF_ADMISSION)


def _early(name: str, answer: Answer, namespace: str, *, is_exempt: bool) -> Check | None:
    if is_exempt:
        return unknown(name, EXEMPT.format(namespace), ELSEWHERE)
    if answer.may_not:
        why = f"you may not create inferencedeployments in namespace {namespace}"
        return unknown(name, why, "ask for the role edit there, or name another namespace: -n NAMESPACE")
    if answer.status == HTTP_NOT_FOUND:
        why = f"InferenceDeployment is not served, or there is no namespace {namespace}"
        return unknown(name, why, f"see the check crds; {ELSEWHERE}")
    if answer.other or (answer.status == HTTP_FORBIDDEN and not _DENIED.search(answer.message)):
        return _kept_away(name, answer, namespace)
    return None


def _kept_away(name: str, answer: Answer, namespace: str) -> Check:
    """Somebody else decided before or beside the operator: what the operator would do is not seen."""
    said = " ".join(answer.message.split())
    who = answer.other or f"the API server answers {answer.status}, and not for a missing right"
    repair = f"let the dry run pass there, or {ELSEWHERE}"
    return unknown(name, f"could not tell, in namespace {namespace}: {who}: {said}", repair)
