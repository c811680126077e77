"""CRDs as their projects publish them, from the Go modules that carry them: pinned, fetched when a test asks for them."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from controlplane.go_build import go_command

Json = dict[str, Any]

MODULES = {
    "sigs.k8s.io/lws@v0.7.0": ["config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml"],
    "github.com/kserve/kserve@v0.17.0": [
        "config/crd/full/serving.kserve.io_inferenceservices.yaml",
        "config/crd/full/llmisvc/serving.kserve.io_llminferenceservices.yaml",
    ],
    "github.com/ray-project/kuberay/ray-operator@v1.5.0": [
        "config/crd/bases/ray.io_rayclusters.yaml",
        "config/crd/bases/ray.io_rayservices.yaml",
    ],
    "github.com/argoproj/argo-rollouts@v1.8.3": ["manifests/crds/rollout-crd.yaml"],
    "sigs.k8s.io/kueue@v0.19.2": [
        f"config/components/crd/bases/kueue.x-k8s.io_{plural}.yaml" for plural in ("clusterqueues", "localqueues", "cohorts")
    ],
}


ALSO = {
    "github.com/cert-manager/cert-manager@v1.21.1": [
        f"deploy/crds/cert-manager.io_{plural}.yaml" for plural in ("certificates", "issuers")
    ],
}
"""Not of workloads."""


def fetched(folder: Path, modules: Sequence[str] = tuple(MODULES)) -> list[Json]:
    """The CRDs of these modules. Raises ``CalledProcessError`` where one cannot be had."""
    (folder / "go.mod").write_text("module crds\ngo 1.24\n")
    done = subprocess.run(
        [go_command(print), "mod", "download", "-json", *modules], cwd=folder, capture_output=True, text=True, check=True, timeout=300
    )  # fmt: skip
    folders = {f"{each['Path']}@{each['Version']}": Path(each["Dir"]) for each in _several(done.stdout)}
    return [_taken(folders[module] / path) for module in modules for path in (MODULES | ALSO)[module]]


def _several(text: str) -> list[Json]:
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text.rstrip()):
        value, at = decoder.raw_decode(text, at)
        found.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


def _taken(path: Path) -> Json:
    """Without the project's own conversion webhook, which does not run here."""
    body: Json = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    body["spec"].pop("conversion", None)
    body["metadata"].get("annotations", {}).pop("cert-manager.io/inject-ca-from", None)
    return body
