"""AdmissionReviews, and a client that sends them as an API server would, and as one should not."""

import copy
import json
import ssl
import urllib.error
import urllib.request
from typing import Any

from builders import a_body
from controlplane.installation import Installation


class Hook:
    """Talks to the webhook port as an API server would, and as one should not."""

    def __init__(self, installation: Installation) -> None:
        self.base = f"https://127.0.0.1:{installation.webhook_port}"
        self.context = ssl.create_default_context(cafile=str(installation.plane.authority.path))

    def post(self, path: str, content: bytes | dict[str, Any]) -> tuple[int, str]:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        request = urllib.request.Request(self.base + path, data=data, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=20) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def review(body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "0123",
            "kind": {"group": "shardgate.io", "version": "v1alpha1", "kind": "InferenceDeployment"},
            "resource": {"group": "shardgate.io", "version": "v1alpha1", "resource": "inferencedeployments"},
            "namespace": "serving",
            "operation": "CREATE",
            "userInfo": {"username": "someone"},
            "object": body,
            "oldObject": None,
            "dryRun": False,
            **changes,
        },
    }


def broken_reviews() -> dict[str, bytes | dict[str, Any]]:
    """Contents that are no review that could be answered, by what is wrong with them."""
    whole = review(a_body())

    def without(*keys: str) -> dict[str, Any]:
        changed = copy.deepcopy(whole)
        for key in keys:
            changed["request"].pop(key)
        return changed

    return {
        "empty": b"",
        "no JSON": b"{",
        "bad UTF-8": b'{"kind": "\xff"}',
        "NaN": b'{"apiVersion": NaN}',
        "very deep": b"[" * 100_000,
        "a list": b"[]",
        "another kind": {**whole, "kind": "Pod"},
        "v1beta1": {**whole, "apiVersion": "admission.k8s.io/v1beta1"},
        "no request": {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"},
        "no uid": without("uid"),
        "no operation": without("operation"),
        "no resource": without("resource"),
        "no user": without("userInfo"),
        "no object": without("object"),
        "object is text": review("text"),  # type: ignore[arg-type]
        "object without metadata": review({"spec": {}}),
        "unknown operation": review(a_body(), operation="PATCH"),
        "update without the old object": review(a_body(), operation="UPDATE"),
    }
