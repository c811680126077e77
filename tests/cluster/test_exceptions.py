"""The accountable override: who may grant one, what it lets in, and what it leaves behind."""

import datetime
import json
from collections.abc import Callable
from typing import Any

from live import create_node, until
from reviews import Hook, review

from builders import a_body, a_node
from controlplane.installation import Installation
from controlplane.plane import ControlPlane

Start = Callable[..., Installation]
Json = dict[str, Any]

UNEVEN = {"strategy": {"tensor": 3, "pipeline": 1}, "gpus": {"perPod": 3}}
EDITOR = [
    {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "exceptions"},
        "rules": [{"apiGroups": ["shardgate.io"], "resources": ["verificationexceptions"], "verbs": ["*"]}],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "may-override"},
        "rules": [{"apiGroups": ["shardgate.io"], "resources": ["verificationpolicies"], "verbs": ["override"]}],
    },
    *(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": f"{role}-{user}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
        }
        for role, user in (("exceptions", "jane"), ("exceptions", "olga"), ("may-override", "olga"))
    ),
]  # fmt: skip


def exception(*codes: str, hours: float = 1, **metadata: Any) -> Json:
    expires = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationException",
        "metadata": {"name": "chg-1234", "namespace": "serving", **metadata},
        "spec": {
            "target": {"kind": "InferenceDeployment", "name": "llama"}, "codes": list(codes),
            "reason": "patched engine, CHG-1234", "expires": expires,
        },
    }  # fmt: skip


def test_an_exception_is_granted_by_who_may_and_leaves_its_traces(clean: ControlPlane, start: Start) -> None:
    plane = clean
    plane.apply(*EDITOR)
    create_node(plane, a_node().body)
    installation = start()
    uneven = a_body(**UNEVEN)
    assert "HeadsUneven" in plane.apply(uneven, check=False).stderr

    granted = exception("HeadsUneven", "KvHeadsUneven", annotations={"shardgate.io/granted-by": "somebody-else"})
    until("it is asked about", lambda: "may not grant" in plane.apply(granted, options=("--as", "jane"), check=False).stderr)
    refused = plane.apply(granted, options=("--as", "jane"), check=False)
    assert "needs the verb override on verificationpolicies.shardgate.io" in refused.stderr
    assert "HeadsUneven" in plane.apply(uneven, check=False).stderr

    plane.apply(granted, options=("--as", "olga"))
    stands = plane.get("verificationexception", "chg-1234", "-n", "serving")
    assert stands["metadata"]["annotations"]["shardgate.io/granted-by"] == "olga", "whatever its author wrote there"
    until("it is let in", lambda: plane.apply(uneven, options=("--dry-run=server",), check=False).returncode == 0)
    warned = plane.apply(uneven)
    assert "HeadsUneven is overridden by serving/chg-1234 (olga) until" in warned.stderr
    forged = plane.kubectl(
        "annotate", "verificationexception", "chg-1234", "-n", "serving", "--overwrite", "note=mine", "--as", "jane",
        check=False,
    )  # fmt: skip
    assert "may not grant" in forged.stderr, "who changes it grants it anew"

    until("its use is told", lambda: ("VerificationException", "OverrideUsed") in told(plane))
    series = 'shardgate_overrides_total{code="HeadsUneven",kind="InferenceDeployment"}'
    assert (installation.metric(series) or 0) >= 1
    answer = json.loads(Hook(installation).post("/validate", review(uneven))[1])["response"]
    assert answer["auditAnnotations"]["override"] == "serving/chg-1234 by olga: HeadsUneven,KvHeadsUneven"

    plane.apply(exception("HeadsUneven", "KvHeadsUneven", hours=-1))
    other = a_body(**UNEVEN, replicas=0)
    other["metadata"]["name"] = "llama"
    plane.kubectl("delete", "infd", "llama", "-n", "serving")
    until("it has ended", lambda: "HeadsUneven" in plane.apply(uneven, options=("--dry-run=server",), check=False).stderr)
    plane.kubectl("delete", "verificationexception", "chg-1234", "-n", "serving")


def test_an_exception_is_guarded_where_nothing_is_judged(clean: ControlPlane, start: Start) -> None:
    """The installation leaves its own namespace out, and what its author wrote there would count once it is judged."""
    plane = clean
    plane.apply(*EDITOR)
    start()
    home = {"namespace": "shardgate-system", "annotations": {"shardgate.io/granted-by": "olga"}}
    plane.kubectl("create", "namespace", "shardgate-system", check=False)
    forged = exception("HeadsUneven", **home)
    until("it is asked about", lambda: "may not grant" in plane.apply(forged, options=("--as", "jane"), check=False).stderr)
    plane.apply(forged, options=("--as", "olga"))
    plane.kubectl("delete", "verificationexception", "chg-1234", "-n", "shardgate-system")


def told(plane: ControlPlane) -> set[tuple[str, str]]:
    items = json.loads(plane.kubectl("get", "events.events.k8s.io", "-n", "serving", "-o", "json").stdout)["items"]
    return {(each["regarding"]["kind"], each["reason"]) for each in items}
