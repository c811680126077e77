"""An operator that reaches its API server through an interceptor, and what it ought to answer: a fresh list, read anew."""

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock
from urllib.error import URLError

import pytest
from interceptor import Interceptor, intercepting
from live import create_node, until
from reviews import Hook, review

from builders import a_body, a_node
from controlplane.installation import Installation
from controlplane.plane import ControlPlane, control_plane
from shardgate.adapters.status import annotations
from shardgate.shells.judge import Judge
from shardgate.shells.metrics import Metrics
from shardgate.shells.snapshot import live_snapshot

Json = dict[str, Any]
Said = dict[str, str | None]
"""Our annotations: outcome, score and codes."""

NODES, PODS = "/api/v1/nodes", "/api/v1/pods"
ROOT = "/apis/shardgate.io/v1alpha1/namespaces/serving/inferencedeployments"
AT_ONCE = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
FITS, TOO_BIG = a_body("probe"), a_body("big", strategy={"tensor": 16})
"""Eight GPUs, and 64: of a cluster with eight, the second can never run."""


@dataclass
class Faulty:
    """One operator, what it is asked through, and what stands between it and the API server."""

    plane: ControlPlane
    api: Interceptor
    installation: Installation

    @property
    def hook(self) -> Hook:
        return Hook(self.installation)

    def said(self, body: Json = FITS) -> Said:
        """Our annotations on what is let in now; an object that is new has none of them."""
        status, text = self.hook.post("/mutate", review(body))
        assert status == 200, text
        patch = json.loads(base64.b64decode(json.loads(text)["response"].get("patch") or b"W10="))
        return _annotations(patch)

    def outcome(self, body: Json = FITS) -> str | None:
        return self.said(body).get("shardgate.io/verdict")

    def is_refused(self, body: Json = TOO_BIG) -> bool:
        return not json.loads(self.hook.post("/validate", review(body))[1])["response"]["allowed"]

    def is_listening(self) -> bool:
        """Whether anything answers a review."""
        try:
            self.hook.post("/validate", review(TOO_BIG))
        except URLError as error:
            if isinstance(error.reason, ConnectionRefusedError):
                return False
            raise
        return True

    def unready(self) -> str:
        status, text = self.installation.fetch("/readyz")
        assert status in (200, 503), (status, text)
        return "" if status == 200 else text

    def is_alive(self) -> bool:
        """It lives, by itself and by its own word."""
        assert self.installation.operator is not None
        return self.installation.operator.is_running() and self.installation.fetch("/livez")[0] == 200

    def gpus(self) -> dict[str, float]:
        """``shardgate_gpus``, as it counts those that are there and free; what is promised is in no list."""
        found = [line for line in self.installation.fetch("/metrics")[1].splitlines() if line.startswith("shardgate_gpus{")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in found if 'state="claimed"' not in line}

    def restarts(self, resource: str, *reasons: str) -> float:
        """Of watches, as it counts them."""
        return sum(
            self.installation.metric(f'shardgate_watch_restarts_total{{reason="{each}",resource="{resource}"}}') or 0
            for each in reasons
        )

    def is_right(self, body: Json = FITS) -> bool:
        """Whether verdict and GPUs are those of the cluster."""
        said, gpus = oracle(self.plane, body)
        return self.said(body) == said and self.gpus() == gpus


def _annotations(patch: list[Json]) -> Said:
    found: Said = {}
    for each in patch:
        if each["path"].endswith("/annotations"):
            found |= each["value"]
        else:
            found[each["path"].rpartition("/")[2].replace("~1", "/")] = each["value"]
    return found


def oracle(plane: ControlPlane, body: Json = FITS) -> tuple[Said, dict[str, float]]:
    """The annotations and the GPUs of the cluster as it is now: a list, read by the same pure code."""
    with mock.patch.dict(os.environ, {"KUBECONFIG": str(plane.kubeconfig)}):
        snapshot = live_snapshot()
    verdict = Judge(snapshot.book, lambda: (0.0, 0.0)).judge(body).verdict
    metrics = Metrics()
    metrics.observe_inventory(snapshot.inventory())
    gpus = {
        f'shardgate_gpus{{product="{each.labels["product"]}",state="{each.labels["state"]}"}}': each.value
        for family in metrics.gpus.collect()
        for each in family.samples
        if each.labels["state"] != "claimed"
    }
    return {name: value for name, value in annotations(verdict).items() if value is not None}, gpus


@contextmanager
def faulty_plane(request: pytest.FixtureRequest, *, large: bool = False) -> Iterator[tuple[ControlPlane, Interceptor]]:
    """A control plane with one node of eight GPUs, the namespace ``serving``, and what can be put before it."""
    with control_plane(failed=lambda: request.session.testsfailed > 0, large=large) as plane, intercepting(plane) as api:
        Installation(plane).install()
        plane.kubectl("create", "namespace", "serving")
        create_node(plane, a_node().body)
        yield plane, api


@contextmanager
def operator_behind(plane: ControlPlane, api: Interceptor, *, is_started: bool = True) -> Iterator[Faulty]:
    """An operator that knows the API server by the interceptor's address."""
    installation = Installation(plane)
    installation.connect(api.url)
    try:
        if is_started:
            installation.start()
        yield Faulty(plane, api, installation)
    finally:
        installation.stop()


def settle(faulty: Faulty) -> None:
    """Wait until it is ready, and right."""
    until("it is ready", lambda: not faulty.unready(), timeout=60)
    until("it is right", faulty.is_right, timeout=30)


def condition(faulty: Faulty, kind: str) -> tuple[str, str]:
    """Of the whole operator: (status, reason)."""
    stated = faulty.plane.get("capacityledger", "shardgate").get("status", {}).get("conditions", [])
    return next(((each["status"], each["reason"]) for each in stated if each["type"] == kind), ("", ""))


def bound_pod(name: str, node: str = "node-a", gpus: int = 1) -> Json:
    """A pod that holds GPUs of a node, as the API server takes it."""
    amounts = {"nvidia.com/gpu": str(gpus)}
    container = {"name": "main", "image": "none", "resources": {"requests": amounts, "limits": amounts}}
    metadata = {"name": name, "namespace": "serving"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": node, "containers": [container]}}
