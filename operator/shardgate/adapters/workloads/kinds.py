"""Kinds of others that are judged: where the API serves them, and what of them admission and the reflectors take."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from shardgate.adapters.workloads.values import mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedKind:
    """One kind of the API."""

    group: str
    versions: tuple[str, ...]
    """All that are read, the preferred one first."""
    plural: str
    kind: str
    gpus: Literal["template", "pod", "elsewhere"]
    """Where its GPUs are asked for: in ``spec.template``, in its own ``spec``, or in fields of its own or other objects."""
    has_scale: bool = False
    """It serves the subresource ``scale``."""
    is_followed: bool = True
    """What stands is judged again. Not bare Pods, that run or wait already, nor ReplicaSets, of which most are left over."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Where all of them are listed, by version."""
        root = f"/apis/{self.group}" if self.group else "/api"
        return tuple(f"{root}/{version}/{self.plural}" for version in self.versions)

    def path_of(self, namespace: str, name: str) -> str:
        """Where one of them is."""
        root, _, plural = self.paths[0].rpartition("/")
        return f"{root}/namespaces/{namespace}/{plural}/{name}"

    def path_of_list(self, namespace: str, name: str) -> str:
        """Where one of them is listed alone."""
        root, _, plural = self.paths[0].rpartition("/")
        return f"{root}/namespaces/{namespace}/{plural}?fieldSelector=metadata.name%3D{name}"

    @property
    def api_version(self) -> str:
        """The preferred one."""
        return f"{self.group}/{self.versions[0]}" if self.group else self.versions[0]


def _templated(group: str, version: str, plural: str, kind: str, *, has_scale: bool, is_followed: bool = True) -> JudgedKind:
    return JudgedKind(
        group=group, versions=(version,), plural=plural, kind=kind, gpus="template", has_scale=has_scale, is_followed=is_followed
    )


def _serving(group: str, versions: tuple[str, ...], plural: str, kind: str, *, has_scale: bool = False) -> JudgedKind:
    return JudgedKind(group=group, versions=versions, plural=plural, kind=kind, gpus="elsewhere", has_scale=has_scale)


JUDGED_KINDS = (
    _templated("apps", "v1", "deployments", "Deployment", has_scale=True),
    _templated("apps", "v1", "statefulsets", "StatefulSet", has_scale=True),
    _templated("apps", "v1", "replicasets", "ReplicaSet", has_scale=True, is_followed=False),
    _templated("batch", "v1", "jobs", "Job", has_scale=False),
    _templated("argoproj.io", "v1alpha1", "rollouts", "Rollout", has_scale=True),
    JudgedKind(group="", versions=("v1",), plural="pods", kind="Pod", gpus="pod", is_followed=False),
    _serving("leaderworkerset.x-k8s.io", ("v1",), "leaderworkersets", "LeaderWorkerSet", has_scale=True),
    _serving("serving.kserve.io", ("v1alpha2", "v1alpha1"), "llminferenceservices", "LLMInferenceService"),
    _serving("serving.kserve.io", ("v1beta1",), "inferenceservices", "InferenceService"),
    _serving("nvidia.com", ("v1alpha1", "v1beta1"), "dynamographdeployments", "DynamoGraphDeployment"),
    _serving("apps.nvidia.com", ("v1alpha1",), "nimservices", "NIMService"),
    _serving("ray.io", ("v1",), "rayservices", "RayService"),
    _serving("ray.io", ("v1",), "rayclusters", "RayCluster"),
    _serving("kaito.sh", ("v1beta1", "v1alpha1"), "workspaces", "Workspace"),
)
"""An object in a version that is not named here comes converted (``matchPolicy: Equivalent``)."""

_DYNAMO, _KSERVE = ("nvidia.com", "DynamoGraphDeployment"), ("serving.kserve.io", "InferenceService")
BETWEEN = {
    ("nvidia.com", "DynamoComponentDeployment"): _DYNAMO,
    ("grove.io", "PodCliqueSet"): _DYNAMO,
    ("grove.io", "PodClique"): _DYNAMO,
    ("serving.knative.dev", "Service"): _KSERVE,
    ("serving.knative.dev", "Configuration"): _KSERVE,
    ("serving.knative.dev", "Revision"): _KSERVE,
}
"""(group, kind) that an operator makes between an object that is judged and its pods -> (group, kind) of that object."""
MADE_BY: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("ReplicaSet",),
    "Rollout": ("ReplicaSet",),
    "ReplicaSet": ("Pod",),
    "StatefulSet": ("Pod",),
    "Job": ("Pod",),
    "LeaderWorkerSet": ("StatefulSet",),
    "LLMInferenceService": ("Deployment", "LeaderWorkerSet"),
    "InferenceService": ("Deployment",),
    "NIMService": ("Deployment", "StatefulSet", "LeaderWorkerSet"),
    "RayService": ("RayCluster",),
    "RayCluster": ("Pod", "Job"),
    "Workspace": ("Deployment", "StatefulSet", "Job"),
    "DynamoGraphDeployment": ("Deployment", "LeaderWorkerSet", "StatefulSet"),
}
"""Kind -> kinds that its controller makes for it."""


def judged_kind(group: str, plural: str) -> JudgedKind | None:
    """By the resource of a request."""
    return next((each for each in JUDGED_KINDS if (each.group, each.plural) == (group, plural)), None)


def is_judged_kind(body: Mapping[str, Any]) -> bool:
    """Whether an object is of one of these kinds, in whatever version."""
    kind = (str(body.get("apiVersion") or "").rpartition("/")[0], body.get("kind"))
    return any((each.group, each.kind) == kind for each in JUDGED_KINDS)


def controller_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference to the controller that made the object."""
    references = mapping(body.get("metadata")).get("ownerReferences")
    owners: Iterable[Any] = references if isinstance(references, list) else ()
    return next((each for each in owners if isinstance(each, dict) and each.get("controller")), None)
