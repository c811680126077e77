"""The objects that an installation needs besides the CRDs: RBAC and webhook configurations.

One source for ``deploy/``, the chart, the demo and the tests.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from shardgate.adapters.status import OUR_ANNOTATIONS
from shardgate.api import GROUP, VERSION

Json = dict[str, Any]

NAME = "shardgate"
WEBHOOK_TIMEOUT_SECONDS = 3

CLUSTER_RULES: list[Json] = [
    {"apiGroups": [""], "resources": ["limitranges", "namespaces", "nodes", "pods", "resourcequotas"], "verbs": ["list", "watch"]},
    {
        "apiGroups": ["resource.k8s.io"],
        "resources": ["deviceclasses", "resourceclaims", "resourceclaimtemplates", "resourceslices"],
        "verbs": ["list", "watch"],
    },
    {
        "apiGroups": ["serving.kserve.io"],
        "resources": ["clusterservingruntimes", "llminferenceserviceconfigs", "servingruntimes"],
        "verbs": ["list", "watch"],
    },
    {"apiGroups": ["apps.nvidia.com"], "resources": ["nimcaches"], "verbs": ["list", "watch"]},
    {"apiGroups": ["karpenter.sh"], "resources": ["nodeclaims", "nodepools"], "verbs": ["list", "watch"]},
    {"apiGroups": ["scheduling.k8s.io"], "resources": ["priorityclasses"], "verbs": ["list", "watch"]},
    {"apiGroups": [GROUP], "resources": ["inferencedeployments"], "verbs": ["list", "patch", "watch"]},
    {"apiGroups": [GROUP], "resources": ["inferencedeployments/status"], "verbs": ["patch"]},
    {"apiGroups": [GROUP], "resources": ["modelprofiles", "verificationpolicies"], "verbs": ["list", "watch"]},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
]

NAMESPACE_RULES: list[Json] = [
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [NAME], "verbs": ["get", "update"]},
]


def rbac(namespace: str) -> list[Json]:
    """The operator's ServiceAccount, and all that it may do."""
    account = {"kind": "ServiceAccount", "name": NAME, "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": namespace}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": NAME},
            "rules": CLUSTER_RULES,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": NAME},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
            "subjects": [account],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": NAME, "namespace": namespace}, "rules": NAMESPACE_RULES,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": NAME, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
            "subjects": [account],
        },
    ]  # fmt: skip


def webhook_configurations(client_config: Json, *, exempt_namespaces: Sequence[str], failure_policy: str = "Ignore") -> list[Json]:
    """The two webhook configurations. ``client_config`` has ``service`` or ``url`` (paths are added), and ``caBundle``.

    Deletes, status, finalizers and changes of other metadata never reach a webhook, so that nothing but a change of
    what is declared can be held up by it, whatever its failure policy.
    """
    spec_changed = "request.operation == 'CREATE' || object.spec != oldObject.spec"
    annotated = " || ".join(
        f"object.metadata.?annotations[?'{name}'] != oldObject.metadata.?annotations[?'{name}']" for name in OUR_ANNOTATIONS
    )
    annotated_too = f"{spec_changed} || {annotated}"
    own = [{"apiGroups": [GROUP], "apiVersions": [VERSION], "resources": ["inferencedeployments"]}]

    def webhook(name: str, verb: str, rules: list[Json], conditions: Mapping[str, str]) -> Json:
        return _webhook(name, verb, rules, conditions, client_config, exempt_namespaces, failure_policy)

    validating = [
        webhook("validate", "validate", own, {"changed": spec_changed}),
        *(webhook(name, "validate", rules, {"not-owned": NOT_OWNED, **more}) for name, rules, more in _other_kinds()),
    ]
    mutating = [{**webhook("mutate", "mutate", own, {"changed": annotated_too}), "reinvocationPolicy": "Never"}]
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": f"{kind}WebhookConfiguration", "metadata": {"name": NAME},
            "webhooks": webhooks,
        }
        for kind, webhooks in (("Validating", validating), ("Mutating", mutating))
    ]  # fmt: skip


NOT_OWNED = "!object.metadata.?ownerReferences.orValue([]).exists(each, each.?controller.orValue(false))"
"""What a controller makes is judged by its owner."""
_GPU_NAMES = "gpu|mig-|gaudi|tpu|neuron|directx"


def _asks_for_gpus(pod: str) -> str:
    """CEL: whether a pod's containers ask for GPUs, or it claims devices."""
    amounts = " || ".join(
        f"each.?resources.?{kind}.orValue({{}}).exists(name, name.matches('{_GPU_NAMES}'))" for kind in ("limits", "requests")
    )
    return f"{pod}.?containers.orValue([]).exists(each, {amounts}) || {pod}.?resourceClaims.orValue([]).size() > 0"


def _other_kinds() -> list[tuple[str, list[Json], dict[str, str]]]:
    """(webhook, rules, conditions): objects without GPUs never reach us, but for kinds that hide them elsewhere."""
    changed = "request.operation == 'CREATE' || object.?spec != oldObject.?spec"
    templated = [
        {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments", "statefulsets", "replicasets"]},
        {"apiGroups": ["batch"], "apiVersions": ["v1"], "resources": ["jobs"]},
        {"apiGroups": ["argoproj.io"], "apiVersions": ["v1alpha1"], "resources": ["rollouts"]},
    ]
    pods = [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]
    serving = [
        {"apiGroups": ["leaderworkerset.x-k8s.io"], "apiVersions": ["v1"], "resources": ["leaderworkersets"]},
        {"apiGroups": ["serving.kserve.io"], "apiVersions": ["v1alpha1", "v1alpha2"], "resources": ["llminferenceservices"]},
        {"apiGroups": ["serving.kserve.io"], "apiVersions": ["v1beta1"], "resources": ["inferenceservices"]},
        {"apiGroups": ["nvidia.com"], "apiVersions": ["v1alpha1", "v1beta1"], "resources": ["dynamographdeployments"]},
        {"apiGroups": ["apps.nvidia.com"], "apiVersions": ["v1alpha1"], "resources": ["nimservices"]},
        {"apiGroups": ["ray.io"], "apiVersions": ["v1"], "resources": ["rayservices", "rayclusters"]},
        {"apiGroups": ["kaito.sh"], "apiVersions": ["v1alpha1", "v1beta1"], "resources": ["workspaces"]},
    ]
    of_template = _asks_for_gpus("object.?spec.?template.?spec.orValue({})")
    return [
        ("templates", templated, {"changed": changed, "gpus": of_template}),
        ("pods", pods, {"new": "request.operation == 'CREATE'", "gpus": _asks_for_gpus("object.spec")}),
        ("serving", serving, {"changed": "request.operation == 'CREATE' || object != oldObject"}),
    ]


def other_resources() -> frozenset[tuple[str, str]]:
    """(API group, resource) of other kinds that the webhook answers."""
    rules = [rule for _, rules, _ in _other_kinds() for rule in rules]
    return frozenset((group, resource) for rule in rules for group in rule["apiGroups"] for resource in rule["resources"])


def _webhook(  # what differs between them
    name: str, verb: str, rules: list[Json], conditions: Mapping[str, str], client_config: Json, exempt: Sequence[str],
    failure_policy: str,
) -> Json:  # fmt: skip
    client = dict(client_config)
    if "service" in client:
        client["service"] = {**client["service"], "path": f"/{verb}"}
    else:
        client["url"] = f"{client['url'].rstrip('/')}/{verb}"
    return {
        "name": f"{name}.shardgate.io",
        "admissionReviewVersions": ["v1"],
        "clientConfig": client,
        "rules": [{**each, "operations": ["CREATE", "UPDATE"], "scope": "Namespaced"} for each in rules],
        "namespaceSelector": {
            "matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": sorted({*exempt, *KUBE_NAMESPACES})}
            ]
        },
        "matchConditions": [
            {"name": "not-going", "expression": "!has(object.metadata.deletionTimestamp)"},
            {"name": "not-kube", "expression": "!request.namespace.startsWith('kube-')"},
            *({"name": condition, "expression": expression} for condition, expression in conditions.items()),
        ],
        "matchPolicy": "Equivalent",
        "failurePolicy": failure_policy,
        "sideEffects": "NoneOnDryRun",
        "timeoutSeconds": WEBHOOK_TIMEOUT_SECONDS,
    }  # fmt: skip


KUBE_NAMESPACES = ("kube-node-lease", "kube-public", "kube-system")
