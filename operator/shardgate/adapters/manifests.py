"""The objects that an installation needs besides the CRDs: RBAC and webhook configurations.

One source for ``deploy/``, the chart, the demo and the tests.
"""

from collections.abc import Sequence
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
        "resources": ["deviceclasses", "resourceclaims", "resourceslices"],
        "verbs": ["list", "watch"],
    },
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
    kinds = (
        ("ValidatingWebhookConfiguration", "validate", spec_changed),
        ("MutatingWebhookConfiguration", "mutate", annotated_too),
    )
    return [_configuration(kind, verb, client_config, exempt_namespaces, failure_policy, changed) for kind, verb, changed in kinds]


def _configuration(  # what differs between the two
    kind: str, verb: str, client_config: Json, exempt: Sequence[str], failure_policy: str, changed: str
) -> Json:
    client = dict(client_config)
    if "service" in client:
        client["service"] = {**client["service"], "path": f"/{verb}"}
    else:
        client["url"] = f"{client['url'].rstrip('/')}/{verb}"
    webhook: Json = {
        "name": f"{verb}.shardgate.io",
        "admissionReviewVersions": ["v1"],
        "clientConfig": client,
        "rules": [
            {
                "apiGroups": [GROUP], "apiVersions": [VERSION], "operations": ["CREATE", "UPDATE"],
                "resources": ["inferencedeployments"], "scope": "Namespaced",
            }
        ],
        "namespaceSelector": {
            "matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": sorted({*exempt, *KUBE_NAMESPACES})}
            ]
        },
        "matchConditions": [
            {"name": "not-going", "expression": "!has(object.metadata.deletionTimestamp)"},
            {"name": "not-kube", "expression": "!request.namespace.startsWith('kube-')"},
            {"name": "changed", "expression": changed},
        ],
        "matchPolicy": "Equivalent",
        "failurePolicy": failure_policy,
        "sideEffects": "NoneOnDryRun",
        "timeoutSeconds": WEBHOOK_TIMEOUT_SECONDS,
    }  # fmt: skip
    if verb == "mutate":
        webhook["reinvocationPolicy"] = "Never"
    return {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": NAME}, "webhooks": [webhook],
    }  # fmt: skip


KUBE_NAMESPACES = ("kube-node-lease", "kube-public", "kube-system")
