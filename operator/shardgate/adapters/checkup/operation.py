"""How the operator runs: its Deployment, its Lease, its certificate, and what it says of itself."""

import base64
import datetime
from collections.abc import Mapping, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from shardgate.adapters.accuracy import accuracies_in
from shardgate.adapters.checkup.check import Check, Found, Listed, Unread, failed, ok, unknown, warning
from shardgate.adapters.workloads.values import dicts, mapping

NAME_LABEL = "app.kubernetes.io/name=shardgate"
VERY_SOON = datetime.timedelta(days=1)
MOST_TOLD = 3


def deployment(found: Listed, pods: Listed, namespace: str) -> Check:
    """All replicas are ready."""
    if isinstance(found, Unread):
        return unknown("deployment", found.why)
    if not found:
        why = f"no Deployment in namespace {namespace} has the label {NAME_LABEL}"
        return unknown("deployment", why, "name the operator's namespace: --operator-namespace; or it runs in another way")
    wanted = sum(int(mapping(each.get("spec")).get("replicas") or 0) for each in found)
    ready = sum(int(mapping(each.get("status")).get("readyReplicas") or 0) for each in found)
    if ready >= wanted > 0:
        return ok("deployment", f"{ready} of {wanted} replicas ready")
    waits = _waits(pods)
    message = f"{ready} of {wanted} replicas ready{f': {waits}' if waits else ''}"
    repair = f"kubectl -n {namespace} describe pods -l {NAME_LABEL}; their log says what they wait for"
    return warning("deployment", message, repair) if ready else failed("deployment", message, repair)


def _waits(pods: Listed) -> str:
    """What containers and the scheduler say."""
    reasons: list[str] = []
    for each in [] if isinstance(pods, Unread) else pods:
        status = mapping(each.get("status"))
        states = [mapping(mapping(container.get("state")).get("waiting")) for container in dicts(status.get("containerStatuses"))]
        unscheduled = [
            one for one in dicts(status.get("conditions")) if (one.get("type"), one.get("status")) == ("PodScheduled", "False")
        ]
        reasons += [str(one.get("reason") or "") for one in states]
        reasons += [str(one.get("message") or one.get("reason") or "") for one in unscheduled]
    return "; ".join(list(dict.fromkeys(filter(None, reasons)))[:MOST_TOLD])


def lease(first: Found, later: Found, now: datetime.datetime, namespace: str) -> Check:
    """One replica leads. ``later``: read again where the first looked old: clocks of two machines may differ."""
    repair = f"see that the operator runs in namespace {namespace} and may update its Lease (check rbac)"
    if isinstance(first, Unread):
        return unknown("lease", first.why)
    if first is None:
        return failed("lease", f"no Lease {namespace}/shardgate: no replica has ever led", repair)
    spec = mapping(first.get("spec"))
    holder = str(spec.get("holderIdentity") or "")
    if not holder:
        return failed("lease", "no replica leads: the last one let go of it", repair)
    age = _age(spec.get("renewTime"), now)
    limit = float(spec.get("leaseDurationSeconds") or 15)
    if age is not None and -limit < age <= limit:
        return ok("lease", f"{holder} leads, seen {max(age, 0):.0f} s ago")
    again = mapping(later.get("spec")) if isinstance(later, dict) else {}
    if again.get("renewTime") not in (None, spec.get("renewTime")):
        seconds = "an unknown time" if age is None else f"{abs(age):.0f} s"
        return warning("lease", f"{holder} leads; its clock and this machine's differ by about {seconds}", "set the clocks: NTP")
    seconds = "since an unknown time" if age is None else f"for {age:.0f} s"
    return failed("lease", f"no replica leads: {holder} has not renewed its Lease {seconds}, {limit:.0f} s are allowed", repair)


def looks_old(found: Found, now: datetime.datetime) -> bool:
    """Whether a Lease is worth a second look."""
    if not isinstance(found, dict):
        return False
    spec = mapping(found.get("spec"))
    age = _age(spec.get("renewTime"), now)
    return bool(spec.get("holderIdentity")) and (age is None or abs(age) > float(spec.get("leaseDurationSeconds") or 15))


def _age(text: object, now: datetime.datetime) -> float | None:
    try:
        return (now - datetime.datetime.fromisoformat(str(text))).total_seconds()
    except (ValueError, TypeError):
        return None


_CONDITIONS = {
    "InventorySynced": ("True", "inventory", "see the operator's log for the resource that is named, and the check rbac"),
    "CertificateValid": (
        "True",
        "servingCertificate",
        "deliver a valid pair; one of the operator's own is renewed by the leader, where it may write the Secret: see its log",
    ),
    "WebhooksInPlace": ("True", "registration", "apply deploy/install.yaml, or upgrade the chart; end what changes them"),
    "Degraded": ("False", "degraded", "see what the message names, and the check rbac"),
}  # fmt: skip
"""Condition -> how it should be, the check's name, what to do."""


def conditions(ledger: Found, *, is_led: bool) -> list[Check]:
    """What the operator says of itself. ``is_led``: somebody keeps it true now."""
    if isinstance(ledger, Unread):
        return [unknown("conditions", ledger.why)]
    if ledger is None:
        return [failed("conditions", "no CapacityLedger shardgate: no replica has said how it is", "see the checks lease and crds")]
    stated = {str(each.get("type")): each for each in dicts(mapping(ledger.get("status")).get("conditions"))}
    checks = []
    for kind, (wanted, name, repair) in _CONDITIONS.items():
        condition = stated.get(kind)
        if condition is None:
            checks.append(unknown(name, f"the operator has not said {kind} yet", "wait a minute, then see the check lease"))
            continue
        said = f"{condition.get('reason')}, {condition.get('message')}"
        if not is_led:
            since = f"as of {condition.get('lastTransitionTime')}, before the operator went"
            checks.append(unknown(name, f"{since}: {said}", "see the check lease"))
        elif condition.get("status") == wanted:
            soon = condition.get("reason") == "ExpiresSoon"
            checks.append(warning(name, said, repair) if soon else ok(name, said))
        elif condition.get("status") == "Unknown":
            checks.append(unknown(name, said, "wait a minute and look again"))
        else:
            checks.append(failed(name, said, repair))
    return checks


def predictions(ledger: Found) -> list[Check]:
    """Engines whose memory was predicted badly here; nothing where none was compared."""
    found = accuracies_in(ledger.get("status")) if isinstance(ledger, dict) else ()
    lost = [each for each in found if not each.may_refuse]
    if lost:
        message = f"refuses nothing for memory: {'; '.join(each.text for each in lost[:MOST_TOLD])}"
        return [warning("predictions", message, "shardgate accuracy; report it with the engine's start-up log")]
    worst = max((each.p90_error for each in found), default=0.0)
    return [ok("predictions", f"{len(found)} engine versions on products compared, p90 error at most {worst:.1%}")] if found else []


# ---- certificates


def certificate(
    configurations: Mapping[str, Found], served: bytes | Unread, now: datetime.datetime, *, is_trusted: bool
) -> Check:  # fmt: skip
    """Whether the API server trusts what is served.

    ``served``: the serving certificate, PEM, as far as it can be seen; ``is_trusted``: the API server was seen to trust it.
    """
    bundles: dict[str, list[x509.Certificate]] = {}
    for each in (one for stands in configurations.values() if isinstance(stands, dict) for one in dicts(stands.get("webhooks"))):
        name = str(each.get("name"))
        try:
            pem = base64.b64decode(str(mapping(each.get("clientConfig")).get("caBundle") or ""), validate=True)
            bundles[name] = list(x509.load_pem_x509_certificates(pem)) if pem else []
        except ValueError:
            return failed("certificate", f"the caBundle of {name} is no PEM", _AGAIN)
    if not bundles:
        why = next((each.why for each in configurations.values() if isinstance(each, Unread)), "there is no webhook configuration")
        return unknown("certificate", why)
    problem = _problem_of(bundles, now)
    if problem:
        return failed("certificate", problem, _AGAIN)
    if not isinstance(served, Unread):
        return _leaf(x509.load_pem_x509_certificate(served), bundles, now)
    if is_trusted:
        until = _until(bundles)
        return ok("certificate", f"the API server trusts what is served{until}; the certificate itself is not seen from here")
    return unknown("certificate", f"the serving certificate is not seen from here: {served.why}", "the check answer says more")


def _problem_of(bundles: Mapping[str, Sequence[x509.Certificate]], now: datetime.datetime) -> str:
    empty = sorted(name for name, several in bundles.items() if not several)
    if empty and len(empty) < len(bundles):
        return f"{', '.join(empty)} has no caBundle"
    ended = sorted(name for name, several in bundles.items() if several and all(one.not_valid_after_utc <= now for one in several))
    return f"every authority in the caBundle of {', '.join(ended)} has ended" if ended else ""


def _until(bundles: Mapping[str, Sequence[x509.Certificate]]) -> str:
    """The end of the last authority of the caBundle that ends first."""
    ends = [max(one.not_valid_after_utc for one in several) for several in bundles.values() if several]
    return f", by authorities until {min(ends):%Y-%m-%d}" if ends else ""


_AGAIN = "restart the operator, which writes its own, or set caBundle to the authority of the served certificate"


def _leaf(leaf: x509.Certificate, bundles: Mapping[str, Sequence[x509.Certificate]], now: datetime.datetime) -> Check:
    until, since = (f"{each:%Y-%m-%d %H:%M}" for each in (leaf.not_valid_after_utc, leaf.not_valid_before_utc))
    left = leaf.not_valid_after_utc - now
    if left <= datetime.timedelta(0):
        return failed("certificate", f"the serving certificate ended at {until}", "deliver a new one: it is read at once")
    if leaf.not_valid_before_utc > now:
        return failed("certificate", f"the serving certificate is valid from {since} on", "set the clocks: NTP")
    strangers = sorted(name for name, several in bundles.items() if several and not any(_issued(leaf, each) for each in several))
    if strangers:
        whose = f"the caBundle of {', '.join(strangers)}"
        return failed("certificate", f"{whose} is not of the authority of the serving certificate", _AGAIN)
    message = f"the serving certificate is of an authority in every caBundle, and valid until {until}"
    if left < VERY_SOON:
        return warning("certificate", message, "it should have been renewed: see the operator's log, or whoever delivers it")
    return ok("certificate", message)


def _issued(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    if leaf == authority:
        return True
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
