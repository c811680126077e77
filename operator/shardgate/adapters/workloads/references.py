"""Kinds of objects that workloads refer to, and where the API serves them. ConfigMaps are read by name alone."""

from shardgate.adapters.nodes import SLICES_VERSION

_KUEUE = ("kueue.x-k8s.io/v1beta2", "kueue.x-k8s.io/v1beta1")

REFERENCES = (
    (("serving.kserve.io/v1alpha1",), "servingruntimes", "ServingRuntime"),
    (("serving.kserve.io/v1alpha1",), "clusterservingruntimes", "ClusterServingRuntime"),
    (("serving.kserve.io/v1alpha2", "serving.kserve.io/v1alpha1"), "llminferenceserviceconfigs", "LLMInferenceServiceConfig"),
    (("apps.nvidia.com/v1alpha1",), "nimcaches", "NIMCache"),
    ((SLICES_VERSION,), "resourceclaimtemplates", "ResourceClaimTemplate"),
    (_KUEUE, "localqueues", "LocalQueue"),
    (_KUEUE, "clusterqueues", "ClusterQueue"),
    (_KUEUE, "cohorts", "Cohort"),
)
"""Versions, the preferred one first; resource; kind."""
REFERENCE_KINDS = frozenset(kind for _, _, kind in REFERENCES)
