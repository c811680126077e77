"""Certificates of our own on the real API server: made, trusted, restored, and renewed under load (F34 to F38)."""

import base64
import json
from collections.abc import Iterator

import pytest
from live import create_node, until

from builders import a_body, a_node
from controlplane.installation import NAMESPACE, Installation
from controlplane.plane import ControlPlane

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


def test_it_makes_them_and_is_trusted_and_repairs_what_others_wipe(own: tuple[ControlPlane, Installation]) -> None:
    plane, installation = own
    until("the API server trusts it", lambda: is_asked(plane), timeout=30)
    (bundle,) = trusted(plane)
    assert b"BEGIN CERTIFICATE" in base64.b64decode(bundle)
    assert "PRIVATE" not in base64.b64decode(bundle).decode()

    plane.kubectl(
        "patch", "validatingwebhookconfiguration", "shardgate", "--type=json", "-p",
        json.dumps([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": ""}]),
    )  # fmt: skip
    until("it is restored", lambda: trusted(plane) == {bundle}, timeout=60)

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
