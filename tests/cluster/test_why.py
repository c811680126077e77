"""``shardgate why``: decisions of admission by their reference, and live objects."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleet import fleet_on
from live import create_node

from builders import T4, a_body, a_node
from command_line import Ended, run
from controlplane.installation import Installation
from controlplane.plane import ControlPlane, control_plane

Start = Callable[..., Installation]
Json = dict[str, Any]

TENANT = "team-a"


def a_tenant(plane: ControlPlane, *namespaces: str) -> Path:
    """A ServiceAccount that may edit in these namespaces; its kubeconfig."""
    plane.kubectl("create", "serviceaccount", TENANT, "-n", "serving")
    for namespace in namespaces:
        name = f"{TENANT}-{namespace}"
        plane.kubectl("create", "rolebinding", name, "-n", namespace, "--clusterrole=edit", f"--serviceaccount=serving:{TENANT}")
    token = plane.kubectl("create", "token", TENANT, "-n", "serving").stdout.strip()
    return plane.token_kubeconfig(token, TENANT)


def no_tenant(plane: ControlPlane, *namespaces: str) -> None:
    for namespace in namespaces:
        plane.kubectl("delete", "rolebinding", f"{TENANT}-{namespace}", "-n", namespace)
    plane.kubectl("delete", "serviceaccount", TENANT, "-n", "serving")


def why(plane: ControlPlane, *arguments: str, kubeconfig: Path | None = None) -> Ended:
    return run("why", *arguments, KUBECONFIG=str(kubeconfig or plane.kubeconfig))


def reference_in(text: str) -> str:
    found = re.search(r"\(ref ([0-9a-f]{4})\)", text)
    assert found is not None, text
    return found[1]


def test_a_refusal_is_shown_and_judged_again(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node("node-secret", gpus=1, labels=T4).body)
    start()
    refusal = clean.apply(a_body(), check=False).stderr
    reference = reference_in(refusal)
    ended = why(clean, "--ref", reference, "-n", "serving", "-o", "json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["answer"], found["outcome"], found["operation"], found["dryRun"]) == ("refused", "Unsound", "CREATE", False)
    assert found["said"][0] in refusal
    assert found["replay"]["agrees"] is True
    assert found["report"]["ref"] == reference
    assert [each["code"] for each in found["report"]["findings"]] == found["replay"]["codes"]
    shown = why(clean, "--ref", reference, "-n", "serving").stdout
    for text in ("refused", "GpuCountTooLow", "by the facts of then: the same answer", "Tesla-T4"):
        assert text in shown
    facts = json.loads(why(clean, "--ref", reference, "-n", "serving", "--facts").stdout)["facts"]
    assert "node-secret" in json.dumps(facts)
    unknown = why(clean, "--ref", "ffff", "-n", "serving")
    assert (unknown.returncode, "no decision ffff of namespace serving is kept" in unknown.stderr) == (66, True)
    stored = clean.kubectl("get", "decisionreviews", "-A", "-o", "name")
    assert stored.stdout == ""
    question = {
        "apiVersion": "shardgate.io/v1alpha1", "kind": "DecisionReview", "metadata": {"name": "x", "namespace": "serving"},
        "spec": {"ref": reference},
    }  # fmt: skip
    assert "is answered, never stored" in clean.apply(question, check=False).stderr


def test_a_tenant_sees_its_own_decisions_and_no_node(clean: ControlPlane, start: Start) -> None:
    create_node(clean, a_node("node-secret").body)
    start()
    kubeconfig = a_tenant(clean, "serving")
    try:
        clean.kubectl("create", "namespace", "rivals")
        refused = clean.apply(a_body(strategy={"tensor": 5}), a_body("rival", "rivals", strategy={"tensor": 5}), check=False).stderr
        own, theirs = re.findall(r"\(ref ([0-9a-f]{4})\)", refused)
        ended = why(clean, "--ref", own, "-n", "serving", "-o", "json", kubeconfig=kubeconfig)
        assert ended.returncode == 0, ended.stderr
        found = json.loads(ended.stdout)
        assert (found["facts"], found["noFacts"]) == (None, "they name nodes, and you may not list nodes")
        assert found["replay"]["agrees"] is True
        assert "node-secret" not in ended.stdout
        other = why(clean, "--ref", theirs, "-n", "rivals", kubeconfig=kubeconfig)
        assert (other.returncode, "403 Forbidden" in other.stderr) == (69, True)
        assert "cannot create resource" in other.stderr
        nothing = why(clean, "--ref", "ffff", "-n", "serving", kubeconfig=kubeconfig)
        assert nothing.returncode == 66
    finally:
        no_tenant(clean, "serving")
        clean.kubectl("delete", "namespace", "rivals", "--wait=false")


def test_whichever_replica_decided_is_found(request: pytest.FixtureRequest) -> None:
    with control_plane(failed=lambda: request.session.testsfailed > 0) as plane, fleet_on(plane, 3):
        for number in range(6):
            refusal = plane.apply(a_body(strategy={"tensor": 11 + number}), options=("--dry-run=server",), check=False).stderr
            ended = why(plane, "--ref", reference_in(refusal), "-n", "serving", "-o", "json")
            assert ended.returncode == 0, ended.stderr
            assert json.loads(ended.stdout)["dryRun"] is True
        assert len(re.findall("kept", why(plane, "--ref", "ffff", "-n", "serving").stderr)) == 3 + 1, "all three were asked"
