"""AdmissionReviews, and a client that sends them as an API server would, and as one should not."""

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

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
