"""Who may grant an exception is asked of the API server, and is written on it."""

import asyncio
import base64
import json
from typing import Any

import pytest

from shardgate.adapters.exceptions import read_exception
from shardgate.shells.exception_admission import ExceptionAdmission, is_exception

Json = dict[str, Any]
GRANTED = {"shardgate.io/granted-by": "olga"}

SPEC = {
    "target": {"kind": "Deployment", "name": "x"},
    "codes": ["HeadsUneven"],
    "reason": "CHG-1",
    "expires": "2030-01-01T00:00:00Z",
}


def request(spec: Json | None = None, **metadata: Any) -> Json:
    return {
        "uid": "r", "operation": "CREATE", "userInfo": {"username": "olga", "groups": ["g"], "extra": {"k": ["v"]}},
        "resource": {"group": "shardgate.io", "version": "v1alpha1", "resource": "verificationexceptions"},
        "object": {"metadata": {"name": "e", "namespace": "serving", "annotations": GRANTED, **metadata}, "spec": SPEC if spec is None else spec},
    }  # fmt: skip


def validated(asked: Json, **status: Any) -> tuple[Json, list[Json]]:
    sent: list[Json] = []

    async def review(body: Json) -> Json:
        sent.append(body)
        return {**body, "status": status}

    return asyncio.run(ExceptionAdmission(review).validate(asked)), sent


def test_who_may_override_may_grant_one() -> None:
    answer, (sent,) = validated(request(), allowed=True)
    assert answer == {"allowed": True, "auditAnnotations": {"granted-by": "olga"}}
    assert sent["spec"] == {
        "user": "olga", "groups": ["g"], "uid": "", "extra": {"k": ["v"]},
        "resourceAttributes": {"group": "shardgate.io", "resource": "verificationpolicies", "verb": "override"},
    }  # fmt: skip


@pytest.mark.parametrize("status", [{}, {"allowed": False}, {"allowed": True, "denied": True}])
def test_nobody_else_may(status: Json) -> None:
    answer, _ = validated(request(), **status)
    assert (answer["allowed"], answer["status"]["code"]) == (False, 403)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"codes": []}, "codes"),
        ({"expires": "tomorrow"}, "expires"),
        ({"expires": "2026-13-01T00:00:00+99:99"}, "expires"),
        ({"reason": ""}, "reason"),
        ({"target": {}}, "target.kind"),
    ],
)
def test_one_that_is_not_valid_names_its_field(change: Json, field: str) -> None:
    answer, sent = validated(request({**SPEC, **change}), allowed=True)
    assert (answer["allowed"], answer["status"]["code"], sent) == (False, 422, [])
    assert f"spec.{field}" in answer["status"]["message"]


@pytest.mark.parametrize("annotations", [None, {}, {"shardgate.io/granted-by": "forged", "a": "b"}])
def test_who_grants_it_is_written_on_it(annotations: Json | None) -> None:
    asked = request(annotations=annotations)
    subject = ExceptionAdmission(None)  # type: ignore[arg-type]
    patch = json.loads(base64.b64decode(subject.mutate(asked)["patch"]))
    if annotations:
        assert patch == [{"op": "add", "path": "/metadata/annotations/shardgate.io~1granted-by", "value": "olga"}]
    else:
        assert patch == [{"op": "add", "path": "/metadata/annotations", "value": {"shardgate.io/granted-by": "olga"}}]


def test_other_objects_are_none() -> None:
    assert is_exception(request())
    assert not is_exception({"resource": {"group": "shardgate.io", "resource": "inferencedeployments"}})


def test_one_that_names_somebody_else_is_not_granted() -> None:
    answer, sent = validated(request(annotations={"shardgate.io/granted-by": "jane"}), allowed=True)
    assert (answer["allowed"], answer["status"]["code"], sent) == (False, 403, [])


def test_one_that_is_going_is_nobody_s_word() -> None:
    body = request(deletionTimestamp="2026-01-01T00:00:00Z")["object"]
    assert not read_exception(body).holds("serving", "Deployment", "x", 1.0)
