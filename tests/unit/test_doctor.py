"""``shardgate doctor``: what each answer of a cluster means."""

import base64
import copy
import datetime
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from builders import T4, a_node
from command_line import run
from shardgate.adapters import certificates
from shardgate.adapters.accuracy import entries
from shardgate.adapters.checkup import answers, installation, operation, surroundings
from shardgate.adapters.checkup.answers import Answer
from shardgate.adapters.checkup.check import Check, State, Unread, failed, is_healthy, ok, unknown, warning
from shardgate.adapters.manifests import rbac, webhook_configurations
from shardgate.adapters.warning_headers import warnings_in
from shardgate.api.crd import crds
from shardgate.domain.calibration import Comparison, accuracies
from shardgate.shells.documents import Document
from shardgate.shells.snapshot import Snapshot

Json = dict[str, Any]
NOW = datetime.datetime(2026, 12, 1, 12, tzinfo=datetime.UTC)
MAY_NOT = Unread("you may not read it")
HOME = "shardgate-system"


def said(check: Check) -> tuple[State, str]:
    return check.state, check.message


def is_complete(check: Check) -> bool:
    """Whatever is not well says what to do; a line is a line."""
    return "\n" not in check.message and bool(check.repair or check.state in (State.OK, State.UNKNOWN))


# ---- the whole


def test_what_failed_is_unhealthy_and_what_matters_and_is_not_known_is_neither() -> None:
    fine, odd = ok("lease", "x"), warning("nodes", "x", "y")
    assert is_healthy([fine, odd, unknown("alerts", "x")]) is True
    assert is_healthy([fine, unknown("answer", "x")]) is None
    assert is_healthy([unknown("answer", "x"), failed("crds", "x", "y")]) is False


# ---- what it is made of


@pytest.mark.parametrize(
    ("major", "minor", "state"),
    [("1", "30", State.OK), ("1", "36+", State.OK), ("1", "29", State.FAILED), ("2", "0", State.OK), ("", "", State.UNKNOWN)],
)
def test_the_version_of_kubernetes(major: str, minor: str, state: State) -> None:
    check = installation.kubernetes_version({"major": major, "minor": minor, "gitVersion": f"v{major}.{minor}.0"})
    assert check.state is state
    assert is_complete(check)
    assert installation.kubernetes_version(MAY_NOT).state is State.UNKNOWN


def served_crds() -> dict[str, Json]:
    found = copy.deepcopy(crds())
    for each in found.values():
        each["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
    return found


def test_the_kinds_are_served_as_this_version_has_them() -> None:
    found = served_crds()
    assert installation.definitions(found, None).state is State.OK
    found["capacityledgers"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].pop("status")
    assert said(installation.definitions(found, None)) == (State.FAILED, "the schema of capacityledgers is another version's")
    found["capacityledgers"] = served_crds()["capacityledgers"]
    found["modelprofiles"]["status"]["conditions"][0]["status"] = "False"
    assert said(installation.definitions(found, None)) == (State.FAILED, "modelprofiles is not established")


def test_who_may_not_read_crds_sees_by_discovery_what_is_served() -> None:
    hidden = dict.fromkeys(crds(), MAY_NOT)
    listed = {"resources": [{"name": plural} for plural in crds()]}
    assert installation.definitions(hidden, listed).state is State.UNKNOWN
    listed["resources"].pop(0)
    state, message = said(installation.definitions(hidden, listed))
    assert (state, message) == (State.FAILED, f"not served: {next(iter(crds()))}")
    assert installation.definitions(dict.fromkeys(crds()), None).state is State.FAILED


AUTHORITY = certificates.renewed(None, ["127.0.0.1"], NOW)
STRANGER = certificates.renewed(None, ["127.0.0.1"], NOW)
assert AUTHORITY is not None
assert STRANGER is not None


def configured(ca: bytes | None = AUTHORITY[certificates.CA], **client: Any) -> dict[str, Json]:
    with_ca = {"caBundle": base64.b64encode(ca).decode()} if ca is not None else {}
    client = client or {"service": {"name": "shardgate-webhook", "namespace": HOME, "port": 443}}
    return {each["kind"]: each for each in webhook_configurations({**client, **with_ca}, exempt_namespaces=[HOME])}


def test_the_webhook_configurations() -> None:
    found: dict[str, Any] = configured()
    state, message = said(installation.webhooks(found))
    assert state is State.OK
    assert "6 let objects in unjudged while the operator is away" in message
    found["ValidatingWebhookConfiguration"]["webhooks"][0]["matchConditions"] = []
    assert said(installation.webhooks(found)) == (State.FAILED, "validate.shardgate.io: matchConditions is not this version's")
    found["MutatingWebhookConfiguration"] = None
    check = installation.webhooks(found)
    assert "the MutatingWebhookConfiguration shardgate is missing" in check.message
    assert is_complete(check)
    assert installation.webhooks({**found, "ValidatingWebhookConfiguration": MAY_NOT}).state is State.UNKNOWN


def test_what_an_installation_may_choose_is_right_and_a_long_timeout_is_said() -> None:
    found = configured()
    for each in found["ValidatingWebhookConfiguration"]["webhooks"]:
        each |= {"failurePolicy": "Fail", "timeoutSeconds": 5}
    assert installation.webhooks(found).state is State.OK
    assert installation.slow_webhooks(found) == []
    found["ValidatingWebhookConfiguration"]["webhooks"][0]["timeoutSeconds"] = 30
    (slow,) = installation.slow_webhooks(found)
    assert said(slow) == (State.WARNING, "validate.shardgate.io waits up to 30 s")


@pytest.mark.parametrize(("namespace", "is_exempt"), [("serving", False), (HOME, True), ("kube-system", True), ("kube-x", True)])
def test_exempt_namespaces(namespace: str, is_exempt: bool) -> None:
    assert installation.is_exempt(namespace, configured()) is is_exempt
    assert installation.is_exempt(namespace, {"ValidatingWebhookConfiguration": MAY_NOT}) is namespace.startswith("kube-")


def test_every_right_of_the_roles_is_asked_for() -> None:
    wanted = {
        (each["metadata"].get("namespace", ""), group, resource, verb, name)
        for each in rbac(HOME, keeps_certificates=True) if each["kind"] in ("Role", "ClusterRole")
        for rule in each["rules"] for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }  # fmt: skip
    asked = {(each.namespace, each.group, each.resource, each.verb, each.name) for each in installation.rights(HOME)}
    assert asked == wanted


def test_missing_rights_are_named_and_certificates_only_where_they_are_kept() -> None:
    granted = dict.fromkeys(installation.rights(HOME), True)
    account = f"ServiceAccount {HOME}/shardgate"
    check = installation.access(account, granted)
    assert (check.state, "keeps certificates of its own" in check.message) == (State.OK, True)
    given = {each: not each.of_certificates for each in granted}
    check = installation.access(account, given)
    assert (check.state, "is given its certificates" in check.message) == (State.OK, True)
    half = next(each for each in granted if each.of_certificates)
    assert installation.access(account, {**granted, half: False}).message == f"{account} may not: {half.text}"
    status = next(each for each in granted if each.resource == "inferencedeployments/status")
    assert status.attributes == {
        "group": "shardgate.io", "resource": "inferencedeployments", "subresource": "status", "verb": "patch",
    }  # fmt: skip
    check = installation.access(account, {**granted, status: False})
    assert said(check) == (State.FAILED, f"{account} may not: patch inferencedeployments/status.shardgate.io")
    nothing = installation.access(account, dict.fromkeys(granted, False))
    assert f"; {sum(not each.of_certificates for each in granted) - 4} more" in nothing.message
    assert installation.access(account, MAY_NOT).state is State.UNKNOWN


# ---- what admission answers


def failing(why: str) -> Answer:
    message = f'Internal error occurred: failed calling webhook "decisions.shardgate.io": failed to call webhook: Post "https://x/": {why}'
    return Answer(status=500, message=message)


@pytest.mark.parametrize(
    ("answer", "state", "part", "repair"),
    [
        (Answer(stands={"status": {"replica": "a_1", "kept": 0}}), State.OK, "replica a_1 answers", ""),
        (Answer(stands={}), State.FAILED, "asks no webhook of ours", "apply deploy/install.yaml"),
        (
            failing("tls: failed to verify certificate: x509: certificate signed by unknown authority"),
            State.FAILED,
            "x509",
            "caBundle",
        ),
        (failing("dial tcp 127.0.0.1:1: connect: connection refused"), State.FAILED, "refused", "the operator runs"),
        (failing('no endpoints available for service "shardgate-webhook"'), State.FAILED, "no endpoints", "Service"),
        (failing("context deadline exceeded"), State.FAILED, "deadline", "NetworkPolicy"),
        (
            Answer(status=403, message='decisionreviews is forbidden: User "x" cannot create'),
            State.UNKNOWN,
            "may not create",
            "edit",
        ),
        (Answer(status=404, message="the server could not find the requested resource"), State.UNKNOWN, "404", ""),
    ],
)
def test_whether_the_operator_is_reached(answer: Answer, state: State, part: str, repair: str) -> None:
    check = answers.reached(answer, "serving", is_exempt=False)
    assert (check.state, part in check.message, repair in check.repair) == (state, True, True), check
    assert is_complete(check)
    assert answers.reached(answer, "serving", is_exempt=True).state is State.UNKNOWN


NO_RIGHT = (
    'inferencedeployments.shardgate.io is forbidden: User "jane" cannot create resource "inferencedeployments" '
    'in API group "shardgate.io" in the namespace "serving"'
)
MARKED = {"metadata": {"annotations": {"shardgate.io/verdict": "Unsound"}}}
DENIED = (
    'admission webhook "validate.shardgate.io" denied the request: InferenceDeployment serving/x cannot run here:\n  HeadsUneven'
)


@pytest.mark.parametrize(
    ("answer", "state", "part"),
    [
        (Answer(status=422, message=DENIED), State.OK, "is refused: HeadsUneven"),
        (Answer(status=403, message=DENIED), State.OK, "is refused: HeadsUneven"),
        (Answer(stands=MARKED, warnings=("HeadsUneven spec.strategy",)), State.WARNING, "warned about"),
        (Answer(stands=MARKED), State.WARNING, "let in without a word"),
        (Answer(stands={}), State.FAILED, "is let in"),
        (Answer(status=422, message='InferenceDeployment "x" is invalid: spec.engine'), State.FAILED, "something else"),
        (Answer(status=403, message=NO_RIGHT), State.UNKNOWN, "you may not create"),
        (Answer(status=404, message="not found"), State.UNKNOWN, "no namespace serving"),
    ],
)
def test_whether_what_no_engine_would_start_is_refused(answer: Answer, state: State, part: str) -> None:
    check = answers.turned_away(answer, "serving", is_exempt=False)
    assert (check.state, part in check.message) == (state, True), check
    assert is_complete(check)


@pytest.mark.parametrize(
    ("answer", "state", "part"),
    [
        (Answer(stands={"metadata": {"annotations": {"shardgate.io/verdict": "Sound"}}}), State.OK, "judged Sound and let in"),
        (Answer(stands={"metadata": {}}), State.FAILED, "without a verdict"),
        (Answer(status=422, message=DENIED), State.WARNING, "is refused"),
        (failing("connection refused"), State.FAILED, "is not let in"),
        (Answer(status=401, message="Unauthorized"), State.UNKNOWN, "you may not create"),
        (Answer(status=403, message=NO_RIGHT), State.UNKNOWN, "you may not create"),
    ],
)
def test_whether_what_is_fine_is_let_in(answer: Answer, state: State, part: str) -> None:
    check = answers.let_in(answer, "serving", is_exempt=False)
    assert (check.state, part in check.message) == (state, True), check
    assert is_complete(check)
    assert answers.let_in(answer, "serving", is_exempt=True).message == "namespace serving is exempt: objects there are not judged"


FORBIDDEN = 'inferencedeployments.shardgate.io "shardgate-doctor-allowed" is forbidden: '


@pytest.mark.parametrize(
    ("status", "message", "who"),
    [
        (
            400,
            'admission webhook "validate.kyverno.svc-fail" denied the request: \n\nrequire-labels:\n  User "x" cannot do so',
            'admission webhook "validate.kyverno.svc-fail" denies it',
        ),
        (
            403,
            'admission webhook "validation.gatekeeper.sh" denied the request: [owner] forbidden: User "x" cannot ',
            'admission webhook "validation.gatekeeper.sh" denies it',
        ),
        (
            500,
            'Internal error occurred: failed calling webhook "mutate.kyverno.svc-fail": failed to call webhook: connection refused',
            'admission webhook "mutate.kyverno.svc-fail" cannot be called',
        ),
        (
            422,
            FORBIDDEN + "ValidatingAdmissionPolicy 'owners' with binding 'all' denied request: no label owner",
            "ValidatingAdmissionPolicy 'owners' with binding 'all' denies it",
        ),
        (403, FORBIDDEN + "exceeded quota: objects, requested: count/x=1, used: 5, limited: 5", "ResourceQuota objects is used up"),
        (403, FORBIDDEN + "unable to create new content in namespace serving because it is being terminated", "answers 403"),
    ],
)
def test_who_else_denied_is_named_and_says_nothing_of_the_operator(status: int, message: str, who: str) -> None:
    answer = Answer(status=status, message=message)
    for check in (answers.let_in(answer, "serving", is_exempt=False), answers.turned_away(answer, "serving", is_exempt=False)):
        assert (check.state, "could not tell" in check.message, who in check.message) == (State.UNKNOWN, True, True), check
        assert " ".join(message.split()) in check.message
        assert "-n NAMESPACE" in check.repair
        assert "operator's log" not in check.repair
        assert "\n" not in check.message
    asked = answers.reached(answer, "serving", is_exempt=False)
    assert (asked.state, " ".join(message.split()) in asked.message) == (State.UNKNOWN, True), asked


def test_our_own_webhooks_are_no_others() -> None:
    for message in (DENIED, 'failed calling webhook "validate.shardgate.io": failed to call webhook: timeout'):
        assert Answer(status=500, message=message).other == ""
    assert answers.let_in(failing("timeout"), "serving", is_exempt=False).state is State.FAILED


def test_warnings_are_taken_out_of_their_headers() -> None:
    assert warnings_in(['299 - "one \\"quoted\\"", 299 - "two"', "nothing"]) == ('one "quoted"', "two")


def test_what_is_asked_is_judged_as_it_is_meant(tmp_path: Path) -> None:
    """By the real decision: one declaration is fine without a GPU, the other no engine would start."""
    for body, code in ((answers.allowed_body("serving"), 0), (answers.refused_body("serving"), 1)):
        manifest = tmp_path / "body.json"
        manifest.write_text(json.dumps(body))
        ended = run("verify", "-f", str(manifest), "--gpus", "8xH100-80GB-HBM3", "-o", "json")
        assert ended.returncode == code, ended.stdout
    assert "HeadsUneven" in ended.stdout


# ---- how it runs


def a_deployment(ready: int, replicas: int) -> Json:
    return {"spec": {"replicas": replicas}, "status": {"readyReplicas": ready}}


def test_the_deployment() -> None:
    waiting = {"status": {
        "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}],
        "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}],
    }}  # fmt: skip
    assert operation.deployment([a_deployment(2, 2)], [], HOME).state is State.OK
    assert said(operation.deployment([a_deployment(1, 2)], [waiting], HOME)) == (
        State.WARNING, "1 of 2 replicas ready: ImagePullBackOff; 0/3 nodes are available",
    )  # fmt: skip
    assert operation.deployment([a_deployment(0, 2)], MAY_NOT, HOME).state is State.FAILED
    assert operation.deployment([a_deployment(0, 0)], [], HOME).state is State.FAILED
    assert operation.deployment([], [], HOME).state is State.UNKNOWN
    assert operation.deployment(MAY_NOT, [], HOME).state is State.UNKNOWN


def a_lease(age: float, holder: str = "a_1") -> Json:
    renewed = (NOW - datetime.timedelta(seconds=age)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed}}


@pytest.mark.parametrize(
    ("first", "later", "state", "part"),
    [
        (a_lease(2), None, State.OK, "a_1 leads, seen 2 s ago"),
        (a_lease(-3), None, State.OK, "seen 0 s ago"),
        (a_lease(90), a_lease(90), State.FAILED, "has not renewed its Lease for 90 s, 15 s are allowed"),
        (a_lease(90), a_lease(88), State.WARNING, "differ by about 90 s"),
        (a_lease(-300), a_lease(-302), State.WARNING, "differ by about 300 s"),
        (a_lease(1, holder=""), None, State.FAILED, "the last one let go"),
        (None, None, State.FAILED, "no replica has ever led"),
        ({"spec": {"holderIdentity": "a", "renewTime": "x"}}, None, State.FAILED, "since an unknown time"),
        (MAY_NOT, None, State.UNKNOWN, "may not read"),
    ],
)
def test_the_lease(first: Any, later: Any, state: State, part: str) -> None:
    check = operation.lease(first, later, NOW, HOME)
    assert (check.state, part in check.message) == (state, True), check
    assert is_complete(check)
    assert operation.looks_old(first, NOW) is (later is not None or (isinstance(first, dict) and first["spec"]["renewTime"] == "x"))


def a_ledger(**status: str) -> Json:
    kinds = {"InventorySynced": "True", "CertificateValid": "True", "WebhooksInPlace": "True", "Degraded": "False", **status}
    conditions = [
        {"type": kind, "status": value, "reason": "Why", "message": "because", "lastTransitionTime": "2026-12-01T00:00:00Z"}
        for kind, value in kinds.items()
    ]
    return {"status": {"conditions": conditions}}


def test_what_the_operator_says_of_itself() -> None:
    assert {each.state for each in operation.conditions(a_ledger(), is_led=True)} == {State.OK}
    bad = operation.conditions(a_ledger(InventorySynced="False", Degraded="True", WebhooksInPlace="Unknown"), is_led=True)
    assert [(each.name, each.state) for each in bad] == [
        ("inventory", State.FAILED), ("servingCertificate", State.OK), ("registration", State.UNKNOWN), ("degraded", State.FAILED),
    ]  # fmt: skip
    assert all(map(is_complete, bad))
    old = operation.conditions(a_ledger(), is_led=False)
    assert {each.state for each in old} == {State.UNKNOWN}
    assert old[0].message == "as of 2026-12-01T00:00:00Z, before the operator went: Why, because"
    soon = a_ledger()
    soon["status"]["conditions"][1]["reason"] = "ExpiresSoon"
    assert operation.conditions(soon, is_led=True)[1].state is State.WARNING
    assert operation.conditions({"status": {}}, is_led=True)[0].message == "the operator has not said InventorySynced yet"
    assert [each.state for each in (*operation.conditions(None, is_led=True), *operation.conditions(MAY_NOT, is_led=True))] == [
        State.FAILED, State.UNKNOWN,
    ]  # fmt: skip


def test_predictions_that_failed_are_said() -> None:
    def ledger(predicted: int) -> Json:
        found = accuracies([Comparison(engine_version="vllm 0.19", product="L4", predicted=predicted, measured=1000)])
        return {"status": {"accuracy": entries(found, {}, NOW)}}

    assert operation.predictions({"status": {}}) == operation.predictions(None) == []
    assert [each.state for each in operation.predictions(ledger(1020))] == [State.OK]
    (check,) = operation.predictions(ledger(1300))
    assert (check.state, "30.0%" in check.message, "1300 tokens" in check.message) == (State.WARNING, True, True)


def seen(configurations: Any, served: bytes | Unread, now: datetime.datetime = NOW, *, is_trusted: bool = False) -> Check:
    return operation.certificate(configurations, served, now, is_trusted=is_trusted)


def test_the_certificate() -> None:
    leaf = AUTHORITY[certificates.TLS]
    assert seen(configured(), leaf).state is State.OK
    days = datetime.timedelta(days=1)
    assert said(seen(configured(), STRANGER[certificates.TLS]))[0] is State.FAILED
    assert "is not of the authority of the serving certificate" in seen(configured(STRANGER[certificates.CA]), leaf).message
    assert seen(configured(STRANGER[certificates.CA] + AUTHORITY[certificates.CA]), leaf).state is State.OK
    assert "ended at" in seen(configured(), leaf, NOW + 91 * days).message
    assert seen(configured(), leaf, NOW + 89.5 * days).state is State.WARNING
    assert "set the clocks" in seen(configured(), leaf, NOW - days).repair
    assert "has ended" in seen(configured(), leaf, NOW + 400 * days).message
    assert "is no PEM" in seen(configured(b"rubbish"), leaf).message
    half = configured()
    half["MutatingWebhookConfiguration"]["webhooks"][0]["clientConfig"].pop("caBundle")
    assert said(seen(half, leaf)) == (State.FAILED, "mutate.shardgate.io has no caBundle")


def test_a_certificate_that_is_not_seen_is_trusted_where_the_api_server_was_seen_to() -> None:
    unseen = Unread("a Service is called")
    until = x509.load_pem_x509_certificate(AUTHORITY[certificates.CA]).not_valid_after_utc
    check = seen(configured(), unseen, is_trusted=True)
    assert (check.state, f"until {until:%Y-%m-%d}" in check.message) == (State.OK, True)
    assert seen(configured(None), unseen, is_trusted=True).state is State.OK
    assert seen(configured(), unseen).state is State.UNKNOWN
    assert seen({"ValidatingWebhookConfiguration": MAY_NOT}, unseen).message == MAY_NOT.why
    assert seen({"ValidatingWebhookConfiguration": None}, unseen).message == "there is no webhook configuration"


# ---- what it works on


def reports(*nodes: Any) -> tuple[list[Json], list[str]]:
    snapshot = Snapshot()
    snapshot.add(Document("test", each.body) for each in nodes)
    return snapshot.nodes(), [each.problem for each in snapshot.unreadable]


def test_nodes() -> None:
    assert said(surroundings.gpu_nodes(*reports(a_node(), a_node("t4", gpus=1, labels=T4)))) == (
        State.OK, "9 GPUs on 2 nodes: NVIDIA-H100-80GB-HBM3, Tesla-T4",
    )  # fmt: skip
    assert said(surroundings.gpu_nodes(*reports())) == (
        State.WARNING, "none of 0 nodes offers a GPU: declarations wait or are not decided",
    )  # fmt: skip
    bare = surroundings.gpu_nodes(*reports(a_node("bare", labels={})))
    assert (bare.state, "the product of 1 is not known (bare)" in bare.message) == (State.WARNING, True)
    broken = a_node("broken")
    broken.body["status"]["allocatable"]["nvidia.com/gpu"] = "many"
    assert surroundings.gpu_nodes(*reports(broken)).state is State.WARNING
    assert surroundings.gpu_nodes(MAY_NOT, []).state is State.UNKNOWN


def a_policy(name: str, **spec: Any) -> Json:
    return {"apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationPolicy", "metadata": {"name": name}, "spec": spec}


RESEARCH = {"matchLabels": {"kubernetes.io/metadata.name": "research"}}
TENANTS = {"matchLabels": {"team": "a"}}


@pytest.mark.parametrize(
    ("found", "state", "part"),
    [
        ([], State.OK, "none: our own kind is held to Enforce and Closed"),
        ([a_policy("strict", refuse={"waiting": True})], State.OK, "1 in effect"),
        ([a_policy("research", namespaceSelector=RESEARCH, mode="Warn", staleAfterSeconds=300)], State.OK,
         "1 in effect; weaker than the default: research (mode, staleAfterSeconds)"),
        ([a_policy("a", namespaceSelector=TENANTS, mode="Warn", codes={"MemoryTight": "Ignore"})], State.WARNING,
         "weaker than the default and without effect: a (mode, codes)"),
        ([a_policy("a", namespaceSelector=TENANTS, kinds=["Deployment.apps"], mode="Warn")], State.OK, "1 in effect"),
        ([a_policy("a", namespaceSelector=TENANTS, refuse={"waiting": False})], State.OK, "1 in effect"),
        ([a_policy("typo", mode="Enforced")], State.FAILED, "not read, so not in effect: typo: "),
        (MAY_NOT, State.UNKNOWN, "may not"),
    ],
)  # fmt: skip
def test_policies(found: Any, state: State, part: str) -> None:
    check = surroundings.policies(found)
    assert (check.state, part in check.message) == (state, True), check


def test_alerts() -> None:
    rule = {"alert": "ShardgateDown", "expr": "absent(shardgate_build_info)"}
    other = {"alert": "Other", "expr": "up == 0"}

    def loaded(*rules: Json) -> Json:
        return {"metadata": {"namespace": HOME, "name": "shardgate"}, "spec": {"groups": [{"name": "x", "rules": list(rules)}]}}

    assert said(surroundings.alerts([loaded(other), loaded(rule, other)], HOME)) == (
        State.OK, "1 alert in PrometheusRule shardgate-system/shardgate",
    )  # fmt: skip
    assert surroundings.alerts([loaded(other)], HOME).state is State.WARNING
    assert surroundings.alerts([], HOME).state is State.WARNING
    assert surroundings.alerts(None, HOME).state is State.UNKNOWN
    assert surroundings.alerts(MAY_NOT, HOME).state is State.UNKNOWN


def test_requests_that_passed_us_by_are_counted_by_the_api_server() -> None:
    exposition = (
        "# TYPE apiserver_admission_webhook_fail_open_count counter\n"
        'apiserver_admission_webhook_fail_open_count{name="validate.shardgate.io",type="validating"} 3\n'
        'apiserver_admission_webhook_fail_open_count{name="mutate.shardgate.io",type="admit"} 2\n'
        'apiserver_admission_webhook_fail_open_count{name="other.io",type="admit"} 9\n'
    )
    check = surroundings.failing_open(exposition)
    assert (check.state, "5 requests" in check.message) == (State.WARNING, True)
    assert check.message.endswith("mutate.shardgate.io 2, validate.shardgate.io 3")
    assert surroundings.failing_open("").state is State.OK
    assert surroundings.failing_open(exposition.replace("} 3", "} 0").replace("} 2", "} 0")).state is State.OK
    assert surroundings.failing_open(MAY_NOT).state is State.UNKNOWN


# ---- the command


@contextmanager
def an_api_server(tmp_path: Path, status: int) -> Iterator[str]:
    """Answers every request with this error; yields a kubeconfig."""
    content = json.dumps({"kind": "Status", "reason": "Forbidden", "message": "no\nrights", "code": status}).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {}}],
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }))  # fmt: skip
    try:
        yield str(path)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [401, 403, 500])
def test_who_may_do_nothing_is_told_that_nothing_could_be_told(tmp_path: Path, status: int) -> None:
    with an_api_server(tmp_path, status) as kubeconfig:
        shown = run("doctor", KUBECONFIG=kubeconfig)
        ended = run("doctor", "-o", "json", KUBECONFIG=kubeconfig)
    assert (shown.returncode, ended.returncode) == (2, 2) if status != 500 else (shown.returncode, ended.returncode) == (1, 1)
    document = json.loads(ended.stdout)
    if status != 500:
        assert document["healthy"] is None
        assert {each["state"] for each in document["checks"]} == {"unknown"}
        assert "could not be told: " in shown.stdout
    assert all("\n" not in each["message"] for each in document["checks"])
    assert [each["name"] for each in document["checks"]] == [
        "kubernetes", "crds", "webhooks", "answer", "admission", "refusal", "certificate", "rbac", "deployment", "lease",
        "conditions", "nodes", "policies", "alerts", "failingOpen",
    ]  # fmt: skip


def test_an_api_server_that_does_not_answer_is_said() -> None:
    assert run("doctor", KUBECONFIG="/nonexistent").returncode == 69
