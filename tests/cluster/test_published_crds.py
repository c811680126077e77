"""Other kinds with the schemas that their projects publish: defaults are written in, what a schema does not know is pruned."""

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from foreign import DRY, POLICY
from foreign import of_each_kind as of_every_kind
from live import create_node, serving, until
from published import fetched

from builders import a_node
from controlplane.installation import Installation
from controlplane.plane import ControlPlane

Start = Callable[..., Installation]
Json = dict[str, Any]

KINDS = ("LeaderWorkerSet", "LLMInferenceService", "InferenceService", "RayService", "RayCluster", "Rollout")
SCALED = {"LeaderWorkerSet": "leaderworkersets", "Rollout": "rollouts"}
"""Kinds whose CRD has the subresource ``scale``."""


@pytest.fixture(scope="module")
def crds(tmp_path_factory: pytest.TempPathFactory) -> list[Json]:
    """Fetched once."""
    try:
        return fetched(tmp_path_factory.mktemp("crds"))
    except subprocess.CalledProcessError as error:
        if "dial tcp" in error.stderr or "no such host" in error.stderr:
            pytest.skip(f"the Go module proxy is not reachable from here: {error.stderr.strip()[-200:]}")
        raise


@pytest.fixture
def published(clean: ControlPlane, crds: list[Json]) -> Iterator[ControlPlane]:
    """They are served."""
    yield from serving(clean, crds)


def of_each_kind(tensor: int, gpus: int) -> dict[str, Json]:
    return {kind: body for kind, body in of_every_kind(tensor, gpus).items() if kind in KINDS}


def test_each_published_kind_is_admitted_warned_refused_and_scaled(published: ControlPlane, start: Start) -> None:
    plane = published
    create_node(plane, a_node().body)
    start()
    right, wrong = of_each_kind(4, 4), of_each_kind(8, 4)
    for kind, body in right.items():
        assert (kind, plane.apply(body, options=DRY).stderr) == (kind, "")
    for kind, body in wrong.items():
        if kind != "RayService":  # its pods are as many as the width needs
            assert (kind, "WorldSizeMismatch" in plane.apply(body, options=DRY).stderr) == (kind, True)
    for kind, plural in SCALED.items():
        plane.apply(right[kind])
        until(f"{kind} is followed", lambda plural=plural: "GpuCountTooLow" in scale(plane, plural, 5, DRY).stderr)  # type: ignore[misc]
        assert scale(plane, plural, 1).stderr == ""
        plane.kubectl("delete", plural, "llama", "-n", "serving")
    plane.apply(POLICY)
    for kind, body in wrong.items():
        if kind != "RayService":
            refused = plane.apply(body, options=DRY, check=False)
            assert (kind, refused.returncode, "cannot run here" in refused.stderr) == (kind, 1, True), refused.stderr


def scale(plane: ControlPlane, plural: str, replicas: int, options: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    return plane.kubectl("scale", plural, "llama", "-n", "serving", f"--replicas={replicas}", *options)
