"""Certificates of our own on the real API server: made, trusted, restored, and renewed under load (F34 to F38)."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from audit import writes_to
from faults import LENGTH, Measured, fault, only_at_length
from live import create_node, until

from builders import a_body, a_node
from controlplane.installation import NAMESPACE, Installation
from controlplane.plane import ControlPlane

Start = Callable[..., Installation]
SECRET = ("secret", "shardgate-webhook-tls", "-n", NAMESPACE)


@pytest.fixture
def own(clean: ControlPlane) -> Iterator[tuple[ControlPlane, Installation]]:
    """An operator that is given no certificate."""
    installation = Installation(clean, keeps_certificates=True)
    clean.apply(*installation.objects())
    installation.connect()
    clean.apply(*installation.webhooks())
    create_node(clean, a_node().body)
    installation.start()
    yield clean, installation
    installation.stop()
    clean.kubectl("delete", *SECRET, "--ignore-not-found")
    clean.apply(*Installation(clean).objects())


def is_asked(plane: ControlPlane) -> bool:
    return "HeadsUneven" in plane.apply(a_body(strategy={"tensor": 3}), options=("--dry-run=server",), check=False).stderr


def trusted(plane: ControlPlane) -> set[str]:
    """The ``caBundle`` of each webhook."""
    return {
        each["clientConfig"].get("caBundle", "")
        for kind in ("validatingwebhookconfiguration", "mutatingwebhookconfiguration")
        for each in plane.get(kind, "shardgate")["webhooks"]
    }


def conditions(plane: ControlPlane) -> dict[str, str]:
    """Of the whole operator."""
    found = plane.get("capacityledger", "shardgate").get("status", {}).get("conditions", [])
    return {each["type"]: each["status"] for each in found}


@fault(
    35, 38, what="a third party wipes a caBundle, deletes our Secret, and writes half a pair into it",
    criterion="restored within 60 s by 1 write; the same certificate; a whole pair again; no exit",
)  # fmt: skip
def test_it_makes_them_and_is_trusted_and_repairs_what_others_wipe(
    own: tuple[ControlPlane, Installation], measured: Measured
) -> None:
    plane, installation = own
    until("the API server trusts it", lambda: is_asked(plane), timeout=30)
    (bundle,) = trusted(plane)
    assert b"BEGIN CERTIFICATE" in base64.b64decode(bundle)
    assert "PRIVATE" not in base64.b64decode(bundle).decode()

    before = len(writes_to(plane, "validatingwebhookconfigurations", "shardgate"))
    plane.kubectl(
        "patch", "validatingwebhookconfiguration", "shardgate", "--type=json", "-p",
        json.dumps([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": ""}]),
    )  # fmt: skip
    took = until("it is restored", lambda: trusted(plane) == {bundle}, timeout=60)
    assert len(writes_to(plane, "validatingwebhookconfigurations", "shardgate")) == before + 1

    plane.kubectl("delete", *SECRET)
    until("it is written again", lambda: plane.kubectl("get", *SECRET, check=False).returncode == 0)
    assert trusted(plane) == {bundle}, "as it was: nobody had to hear of another"
    assert is_asked(plane)

    plane.kubectl("patch", *SECRET, "--type=merge", "-p", json.dumps({"data": {"tls.crt": base64.b64encode(b"half").decode()}}))
    until("a broken pair is replaced", lambda: b"END CERTIFICATE" in base64.b64decode(plane.get(*SECRET)["data"]["tls.crt"]))
    until("and trusted", lambda: is_asked(plane), timeout=60)
    until(
        "its conditions say so",
        lambda: (
            conditions(plane)
            == {"InventorySynced": "True", "CertificateValid": "True", "WebhooksInPlace": "True", "Degraded": "False"}
        ),
        timeout=60,
    )
    assert installation.metric("shardgate_internal_errors_total") == 0
    measured(f"restored after {took:.0f} s by 1 write; the Secret came back as it was; half a pair was replaced")


@fault(
    38,
    what="both caBundles are wiped every 2 s for 70 s",
    criterion="at most 6 writes a minute; a condition; restored once it ends",
)
@only_at_length
def test_who_wipes_them_again_and_again_is_told(own: tuple[ControlPlane, Installation], measured: Measured) -> None:
    plane, _ = own
    until("the API server trusts it", lambda: is_asked(plane), timeout=30)
    (bundle,) = trusted(plane)
    kinds = ("validatingwebhookconfiguration", "mutatingwebhookconfiguration")
    before = sum(len(writes_to(plane, f"{kind}s", "shardgate")) for kind in kinds)
    began = time.monotonic()
    while time.monotonic() - began < 70:
        for kind in kinds:
            plane.kubectl(
                "patch", kind, "shardgate", "--type=json", "-p",
                json.dumps([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": ""}]),
            )  # fmt: skip
        time.sleep(2)
    written = sum(len(writes_to(plane, f"{kind}s", "shardgate")) for kind in kinds) - before
    assert written <= 12, "seventy seconds touch two minutes"
    until("it is told", lambda: conditions(plane)["WebhooksInPlace"] == "False", timeout=30)
    took = until("they are restored", lambda: trusted(plane) == {bundle}, timeout=90)
    measured(f"{written} writes in 70 s, WebhooksInPlace False; restored {took:.0f} s after the last")


PAIRS: dict[str, dict[str, Any]] = {
    "for another name": {"hosts": ("elsewhere.example",)}, "expired": {"days": (-9, -1)}, "not yet valid": {"days": (1, 9)},
}  # fmt: skip


@fault(
    35, what="a pair is delivered that is for another name, expired, not yet valid, or malformed",
    criterion="the last good pair is served; condition CertificateValid False; no exit",
)  # fmt: skip
def test_a_bad_pair_is_not_served_and_told(clean: ControlPlane, start: Start, measured: Measured) -> None:
    plane = clean
    create_node(plane, a_node().body)
    installation = start()
    refused = "shardgate_tls_pair_refused"
    names = list(PAIRS) if LENGTH else ["for another name"]
    for name in names:
        plane.authority.issue(f"webhook-{installation.webhook_port}", **PAIRS[name])
        until(f"{name} is refused", lambda: installation.metric(refused) == 1, timeout=30)
        assert is_asked(plane), "by the pair before"
        until("it is told", lambda: conditions(plane).get("CertificateValid") == "False", timeout=60)
        if not LENGTH:
            measured(f"{name}: refused and told, the pair before is served")
            return
        plane.authority.issue(f"webhook-{installation.webhook_port}")
        until("a good one is served", lambda: installation.metric(refused) == 0, timeout=30)
        until("it is told", lambda: conditions(plane).get("CertificateValid") == "True", timeout=60)
    installation.certificate.write_text("half a certif")
    until("half a pair is refused", lambda: installation.metric(refused) == 1, timeout=30)
    assert is_asked(plane)
    assert installation.operator is not None
    assert installation.operator.is_running()
    plane.authority.issue(f"webhook-{installation.webhook_port}")
    until("a good one is served", lambda: installation.metric(refused) == 0, timeout=30)
    measured(f"refused and served on: {', '.join(names)}, malformed; the condition came and went")
