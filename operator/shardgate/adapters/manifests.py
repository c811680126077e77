"""The objects that an installation needs besides the CRDs: RBAC and webhook configurations.

One source for ``deploy/``, the chart, the demo and the tests.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardgate.adapters.status import OUR_ANNOTATIONS
from shardgate.adapters.workloads.kinds import JUDGED_KINDS
from shardgate.api import GROUP, VERSION

Json = dict[str, Any]

NAME = "shardgate"
WEBHOOK_TIMEOUT_SECONDS = 3
SCALE_TIMEOUT_SECONDS = 1
"""An autoscaler scales what has no GPUs too: it must not wait for us."""
DECISION_TIMEOUT_SECONDS = 10
"""A person waits for the answer; the facts of a large cluster take a second to be written down."""

WEBHOOK_CONFIGURATIONS: Json = {
    "apiGroups": ["admissionregistration.k8s.io"],
    "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
    "resourceNames": [NAME],
}
CLUSTER_RULES: list[Json] = [
    {"apiGroups": [""], "resources": ["limitranges", "namespaces", "nodes", "pods", "resourcequotas"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
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
    {"apiGroups": ["kueue.x-k8s.io"], "resources": ["clusterqueues", "cohorts", "localqueues"], "verbs": ["list", "watch"]},
    {"apiGroups": ["apps.nvidia.com"], "resources": ["nimcaches"], "verbs": ["list", "watch"]},
    {"apiGroups": ["karpenter.sh"], "resources": ["nodeclaims", "nodepools"], "verbs": ["list", "watch"]},
    {"apiGroups": ["scheduling.k8s.io"], "resources": ["priorityclasses"], "verbs": ["list", "watch"]},
    *(
        {"apiGroups": [group], "resources": sorted(each.plural for each in kinds), "verbs": ["list", "watch"]}
        for group, kinds in itertools.groupby((each for each in JUDGED_KINDS if each.is_followed), key=lambda each: each.group)
    ),
    {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["get"]},
    {"apiGroups": [GROUP], "resources": ["capacityledgers"], "verbs": ["create", "get", "list", "patch", "watch"]},
    {"apiGroups": [GROUP], "resources": ["capacityledgers/status", "verificationpolicies/status"], "verbs": ["patch"]},
    {"apiGroups": [GROUP], "resources": ["workloadverdicts"], "verbs": ["create", "delete", "list", "patch", "watch"]},
    {"apiGroups": [GROUP], "resources": ["inferencedeployments"], "verbs": ["list", "patch", "watch"]},
    {"apiGroups": [GROUP], "resources": ["inferencedeployments/status"], "verbs": ["patch"]},
    {
        "apiGroups": [GROUP],
        "resources": ["modelprofiles", "verificationexceptions", "verificationpolicies"],
        "verbs": ["list", "watch"],
    },
    {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    {**WEBHOOK_CONFIGURATIONS, "verbs": ["get"]},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
]

NAMESPACE_RULES: list[Json] = [
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [NAME], "verbs": ["get", "update"]},
]


SECRET = "shardgate-webhook-tls"  # noqa: S105  # a name
CERTIFICATE_CLUSTER_RULES: list[Json] = [{**WEBHOOK_CONFIGURATIONS, "verbs": ["patch"]}]
CERTIFICATE_NAMESPACE_RULES: list[Json] = [
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET], "verbs": ["list", "patch", "watch"]},
]
"""Of certificates of our own: not granted where they are files, or cert-manager's."""

FOLLOW_AGENTS_CLUSTER_RULES: list[Json] = [{"apiGroups": [GROUP], "resources": ["gpunodereports"], "verbs": ["list", "watch"]}]
FOLLOW_AGENTS_NAMESPACE_RULES: list[Json] = [
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list", "watch"]}
]
"""Of the operator, where node agents run."""
AGENT = f"{NAME}-agent"
AGENT_CLUSTER_RULES: list[Json] = [
    {"apiGroups": [GROUP], "resources": ["gpunodereports"], "verbs": ["create", "get", "patch"]},
    {"apiGroups": [GROUP], "resources": ["gpunodereports/status"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},  # whose report goes with it
]
AGENT_NAMESPACE_RULES: list[Json] = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "patch"]}]
"""Of a node agent. RBAC cannot say *its own node's*: ``agent_policy`` does."""

REMOVE_WEBHOOKS_RULES: list[Json] = [{**WEBHOOK_CONFIGURATIONS, "verbs": ["delete"]}]
"""Of an uninstallation's first step."""
REMOVE_LEFTOVERS_CLUSTER_RULES: list[Json] = [
    {"apiGroups": [GROUP], "resources": ["capacityledgers"], "resourceNames": [NAME], "verbs": ["delete"]},
    {"apiGroups": [GROUP], "resources": ["gpunodereports", "workloadverdicts"], "verbs": ["delete", "list"]},
]
REMOVE_LEFTOVERS_NAMESPACE_RULES: list[Json] = [
    {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET], "verbs": ["delete"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["delete", "list"]},  # the operator's, and agents'
]
"""Of its last step: what the operator made while it ran."""
TRY_RULES: list[Json] = [{"apiGroups": [GROUP], "resources": ["inferencedeployments"], "verbs": ["create", "patch"]}]
"""Of ``helm test``, in one namespace: a dry run needs the rights of what it tries."""


def rbac(namespace: str, *, keeps_certificates: bool = False, follows_agents: bool = False) -> list[Json]:
    """The operator's ServiceAccount, and all that it may do."""
    cluster = CLUSTER_RULES + (CERTIFICATE_CLUSTER_RULES if keeps_certificates else [])
    own = NAMESPACE_RULES + (CERTIFICATE_NAMESPACE_RULES if keeps_certificates else [])
    if follows_agents:
        cluster, own = cluster + FOLLOW_AGENTS_CLUSTER_RULES, own + FOLLOW_AGENTS_NAMESPACE_RULES
    return _account(NAME, namespace, cluster, own)


def agent_rbac(namespace: str) -> list[Json]:
    """The node agents' ServiceAccount, what it may do, and the policy that holds each to its own node."""
    return [*_account(AGENT, namespace, AGENT_CLUSTER_RULES, AGENT_NAMESPACE_RULES), *agent_policy(AGENT, namespace, AGENT)]


def _account(name: str, namespace: str, cluster: list[Json], own: list[Json]) -> list[Json]:
    """A ServiceAccount with its roles."""
    account = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
            "rules": cluster,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [account],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name, "namespace": namespace}, "rules": own,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [account],
        },
    ]  # fmt: skip


_TOKENS_NODE = "authentication.kubernetes.io/node-name"
"""What the API server tells of who asks with a token of a pod (Kubernetes 1.30, ServiceAccountTokenPodNodeInfo)."""


def agent_policy(name: str, namespace: str, account: str) -> list[Json]:
    """A ValidatingAdmissionPolicy with its binding: an agent writes its own node's report and Lease, and nothing else."""
    own = f"has(request.userInfo.extra) && '{_TOKENS_NODE}' in request.userInfo.extra"
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": [GROUP], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
                            "resources": ["gpunodereports", "gpunodereports/status"],
                        },
                        {
                            "apiGroups": ["coordination.k8s.io"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
                            "resources": ["leases"],
                        },
                    ],
                },
                "matchConditions": [
                    {
                        "name": "agents",
                        "expression": f"request.userInfo.username == 'system:serviceaccount:{namespace}:{account}'",
                    },
                ],
                "variables": [
                    {"name": "node", "expression": f"{own} ? request.userInfo.extra['{_TOKENS_NODE}'].join(',') : ''"},
                ],
                "validations": [
                    {
                        "expression": "variables.node != '' && object.metadata.name == variables.node",
                        "messageExpression": (
                            "'an agent writes the report and the Lease of its own node alone: ' + (variables.node == '' ? "
                            "'this token is bound to no pod on a node' : 'this one runs on ' + variables.node)"
                        ),
                        "reason": "Forbidden",
                    },
                    {
                        "expression": f"request.resource.resource != 'leases' || object.metadata.name != '{NAME}'",
                        "message": "that Lease is the operator's",
                        "reason": "Forbidden",
                    },
                    {
                        "expression": (
                            "object.metadata.?ownerReferences.orValue([]).size() == 1"
                            " && object.metadata.ownerReferences.all(each, each.apiVersion == 'v1' && each.kind == 'Node'"
                            " && each.name == variables.node && each.uid != '')"
                        ),
                        "message": "what an agent writes is owned by its node, and by nobody else",
                        "reason": "Forbidden",
                    },
                    {
                        "expression": "object.metadata.?finalizers.orValue([]).size() == 0",
                        "message": "what an agent writes goes with its node: no finalizer may keep it",
                        "reason": "Forbidden",
                    },
                ],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]  # fmt: skip


def user_roles() -> list[Json]:
    """What people may do, as parts of the roles ``view`` and ``edit`` that namespaces' users are given.

    Exceptions are none of them: who may grant one is decided apart. To create DecisionReviews is to ask about decisions.
    """
    kinds = ["inferencedeployments", "workloadverdicts"]
    rules = {
        "view": [{"apiGroups": [GROUP], "resources": kinds, "verbs": ["get", "list", "watch"]}],
        "edit": [
            {"apiGroups": [GROUP], "resources": ["decisionreviews"], "verbs": ["create"]},
            {"apiGroups": [GROUP], "resources": ["inferencedeployments"], "verbs": ["create", "delete", "patch", "update"]},
        ],
    }
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": f"{NAME}-{role}", "labels": {f"rbac.authorization.k8s.io/aggregate-to-{role}": "true"}},
            "rules": allowed,
        }
        for role, allowed in rules.items()
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

    def webhook(
        name: str, verb: str, rules: list[Json], conditions: Mapping[str, str], timeout_seconds: int = WEBHOOK_TIMEOUT_SECONDS
    ) -> Json:
        exempt = () if f"{name}.{GROUP}" in GUARDS else exempt_namespaces
        made = _webhook(name, verb, rules, conditions, client_config, exempt)
        return {**made, "failurePolicy": failure_policy, "timeoutSeconds": timeout_seconds}

    validating = [
        webhook("validate", "validate", own, {"changed": spec_changed}),
        *(webhook(each.name, "validate", each.rules, each.conditions, each.timeout_seconds) for each in _other_kinds()),
    ]
    mutating = [{**webhook("mutate", "mutate", own, {"changed": annotated_too}), "reinvocationPolicy": "Never"}]
    # Who may not be asked whether they may override has granted nothing: no exception without us, wherever it is. A namespace
    # that is not judged today may be tomorrow, and what was granted there meanwhile counts then.
    exceptions = [{"apiGroups": [GROUP], "apiVersions": [VERSION], "resources": ["verificationexceptions"]}]
    any_change = {"changed": f"{spec_changed} || object.metadata.?annotations != oldObject.metadata.?annotations"}
    validating.append({**webhook("exceptions", "validate", exceptions, any_change), "failurePolicy": "Fail"})
    # One that is going, too: somebody may hold it with a finalizer and change it. Finalizers alone match nothing here.
    granted = {**webhook("grants", "mutate", exceptions, any_change), "failurePolicy": "Fail", "reinvocationPolicy": "Never"}
    mutating.append(granted)
    # Nobody but us can answer it, and nothing of it may be stored.
    questions = [{"apiGroups": [GROUP], "apiVersions": [VERSION], "resources": ["decisionreviews"]}]
    asked = webhook("decisions", "mutate", questions, {}, DECISION_TIMEOUT_SECONDS)
    mutating.append({**asked, "failurePolicy": "Fail", "sideEffects": "None", "reinvocationPolicy": "Never"})
    for each in (validating[-1], granted):
        each["matchConditions"] = [one for one in each["matchConditions"] if one["name"] != "not-going"]
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": f"{kind}WebhookConfiguration", "metadata": {"name": NAME},
            "webhooks": webhooks,
        }
        for kind, webhooks in (("Validating", validating), ("Mutating", mutating))
    ]  # fmt: skip


def chart_rules() -> Json:
    """What the chart's roles may do, by role: names, namespaces and bindings are the templates'."""
    return {
        "cluster": CLUSTER_RULES,
        "certificateCluster": CERTIFICATE_CLUSTER_RULES,
        "namespace": NAMESPACE_RULES,
        "certificateNamespace": CERTIFICATE_NAMESPACE_RULES,
        "followAgents": {"cluster": FOLLOW_AGENTS_CLUSTER_RULES, "namespace": FOLLOW_AGENTS_NAMESPACE_RULES},
        "agent": {"cluster": AGENT_CLUSTER_RULES, "namespace": AGENT_NAMESPACE_RULES},
        "removeWebhooks": {"cluster": REMOVE_WEBHOOKS_RULES, "namespace": []},
        "removeLeftovers": {"cluster": REMOVE_LEFTOVERS_CLUSTER_RULES, "namespace": REMOVE_LEFTOVERS_NAMESPACE_RULES},
        "try": TRY_RULES,
        "users": [{"labels": each["metadata"]["labels"], "rules": each["rules"]} for each in user_roles()],
    }


def chart_agent_policy() -> Json:
    """What agents are held to, without the names that the templates give: account and namespace of the release."""
    policy = agent_policy(AGENT, "", "")[0]["spec"]
    return {key: value for key, value in policy.items() if key != "matchConditions"}


def chart_webhooks() -> Json:
    """What the chart's values do not decide of the webhooks: a policy or a time that stands here is not theirs to change."""
    chosen = "chosen by the values"
    found: Json = {"exemptNamespaces": list(KUBE_NAMESPACES)}
    for configuration in webhook_configurations({"url": ""}, exempt_namespaces=(), failure_policy=chosen):
        webhooks = found[configuration["kind"].removesuffix("WebhookConfiguration").lower()] = []
        for each in configuration["webhooks"]:
            webhook = {key: value for key, value in each.items() if key != "clientConfig"}
            if each["name"] not in GUARDS:
                del webhook["namespaceSelector"]
            webhook["path"] = each["clientConfig"]["url"]
            if webhook["failurePolicy"] == chosen:
                del webhook["failurePolicy"]
                webhook.pop("reinvocationPolicy", None)
            if webhook["timeoutSeconds"] == WEBHOOK_TIMEOUT_SECONDS:
                del webhook["timeoutSeconds"]
            webhooks.append(webhook)
    return found


_OF_THE_CLUSTER = (
    "request.userInfo.username == 'system:kube-controller-manager' || "
    "request.userInfo.username.startsWith('system:serviceaccount:kube-system:')"
)
_JUDGED_OWNERS = "['Deployment', 'StatefulSet', 'ReplicaSet', 'Job', 'Rollout']"
_MADE = (
    f"object.metadata.?ownerReferences.orValue([]).exists(each, each.?controller.orValue(false) && each.kind in {_JUDGED_OWNERS})"
)
NOT_MADE_FOR_ANOTHER = f"!({_MADE} && ({_OF_THE_CLUSTER}))"
"""What the cluster's own controllers make was judged with what they make it for. An owner that anybody else names is looked up."""
_GPU_NAMES = "gpu|mig-|gaudi|tpu|neuron|directx"
_SPEC_CHANGED = "request.operation == 'CREATE' || object.?spec != oldObject.?spec"
_ANYTHING_CHANGED = f"{_SPEC_CHANGED} || object.?resource != oldObject.?resource || object.?inference != oldObject.?inference"
"""KAITO's Workspace has no ``spec``."""
_SCALED_UP = "object.?spec.?replicas.orValue(0) > oldObject.?spec.?replicas.orValue(0)"


def _asks_for_gpus(pod: str) -> str:
    """CEL: whether a pod's containers, sidecars among them, ask for GPUs, or it claims devices."""
    amounts = " || ".join(
        f"each.?resources.?{kind}.orValue({{}}).exists(name, name.matches('{_GPU_NAMES}'))" for kind in ("limits", "requests")
    )
    containers = f"({pod}.?containers.orValue([]) + {pod}.?initContainers.orValue([]))"
    return f"{containers}.exists(each, {amounts}) || {pod}.?resourceClaims.orValue([]).size() > 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One webhook for kinds of others."""

    name: str
    rules: list[Json]
    conditions: Mapping[str, str]
    timeout_seconds: int = WEBHOOK_TIMEOUT_SECONDS


def _rules(where: str) -> list[Json]:
    return [
        {"apiGroups": [each.group], "apiVersions": sorted(each.versions), "resources": [each.plural]}
        for each in JUDGED_KINDS
        if each.gpus == where
    ]


def _other_kinds() -> list[_Entry]:
    """Objects without GPUs never reach us, but for kinds that hide them elsewhere, and a scale, which does not show them."""
    made = {"not-made-for-another": NOT_MADE_FOR_ANOTHER}
    of_template = _asks_for_gpus("object.?spec.?template.?spec.orValue({})") + " || object.?spec.?workloadRef.hasValue()"
    of_pod = _asks_for_gpus("object.spec")
    scales = [
        {"apiGroups": [each.group], "apiVersions": ["*"], "resources": [f"{each.plural}/scale"]}
        for each in JUDGED_KINDS
        if each.has_scale
    ]
    return [
        _Entry(name="templates", rules=_rules("template"), conditions={**made, "changed": _SPEC_CHANGED, "gpus": of_template}),
        _Entry(name="pods", rules=_rules("pod"), conditions={**made, "new": "request.operation == 'CREATE'", "gpus": of_pod}),
        _Entry(name="serving", rules=_rules("elsewhere"), conditions={**made, "changed": _ANYTHING_CHANGED}),
        _Entry(name="scale", rules=scales, conditions={"more": _SCALED_UP}, timeout_seconds=SCALE_TIMEOUT_SECONDS),
    ]


def _webhook(  # what differs between them
    name: str, verb: str, rules: list[Json], conditions: Mapping[str, str], client_config: Json, exempt: Sequence[str]
) -> Json:
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
        "sideEffects": "NoneOnDryRun",
    }


GUARDS = ("exceptions.shardgate.io", "grants.shardgate.io")
"""Webhooks that no installation narrows down: what they guard is believed wherever it stands."""
KUBE_NAMESPACES = ("kube-node-lease", "kube-public", "kube-system")
