"""Each value does what its comment says, seen in what helm renders; none is left out, and none is misspelt unnoticed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import chart_readme
from charts import Objects, Render
from controlplane.chart import CHART
from shardgate.shells.config import OperatorConfig, read_config

Json = dict[str, Any]
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DIGEST = "sha256:" + "0" * 64
MON, POD = {"serviceMonitor.enabled": True}, {"podMonitor.enabled": True}
NET, FLOW = {"networkPolicy.enabled": True}, {"flowControl.enabled": True}
MANAGED = {"certificates.mode": "certManager"}
GIVEN = {"certificates.mode": "secret", "certificates.secret.name": "given", "certificates.secret.caBundle": "YWJj"}
CLIENTS = {"webhooks.clientAuthentication.secretName": "clients"}
AGENT = {"agent.enabled": True}
AGENTS = "spec.template.spec.containers.agent"
SPEC, CONTAINER = "spec.template.spec", "spec.template.spec.containers.operator"
PEER = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
ONE = [{"name": "one"}]

# value -> [(it, what else has to be set), kind, name, path, what stands there]; `config:` paths are read from the ConfigMap's file
CASES: list[tuple[str, Any, Json, str, str, str, Any]] = [
    ("nameOverride", "judge", {}, "Deployment", "shardgate-judge", "spec.template.metadata.labels[app.kubernetes.io/name]", "judge"),
    ("fullnameOverride", "gate", {}, "Service", "gate-webhook", "metadata.name", "gate-webhook"),
    ("commonLabels", {"a": "b"}, {}, "ConfigMap", "shardgate", "metadata.labels.a", "b"),
    ("commonAnnotations", {"a": "b"}, {}, "Service", "shardgate-webhook", "metadata.annotations.a", "b"),
    ("image.registry", "r.example", {}, "Deployment", "", f"{CONTAINER}.image", "r.example/shardgate/shardgate:0.1.0"),
    ("image.repository", "mine/it", {}, "Deployment", "", f"{CONTAINER}.image", "mine/it:0.1.0"),
    ("image.tag", "9", {}, "Deployment", "", f"{CONTAINER}.image", "shardgate/shardgate:9"),
    ("image.digest", DIGEST, {}, "Job", "shardgate-uninstall-webhooks", f"{SPEC}.containers.uninstall.image",
     f"shardgate/shardgate:0.1.0@{DIGEST}"),
    ("image.pullPolicy", "Always", {}, "Deployment", "", f"{CONTAINER}.imagePullPolicy", "Always"),
    ("imagePullSecrets", ONE, {}, "Deployment", "", f"{SPEC}.imagePullSecrets", ONE),
    ("replicas", 5, {}, "Deployment", "", "spec.replicas", 5),
    ("autoscaling.enabled", True, {}, "Deployment", "", "spec.replicas", None),
    ("autoscaling.minReplicas", 3, {"autoscaling.enabled": True}, "HorizontalPodAutoscaler", "", "spec.minReplicas", 3),
    ("autoscaling.maxReplicas", 7, {"autoscaling.enabled": True}, "HorizontalPodAutoscaler", "", "spec.maxReplicas", 7),
    ("autoscaling.targetCPUUtilizationPercentage", 55, {"autoscaling.enabled": True}, "HorizontalPodAutoscaler", "",
     "spec.metrics.0.resource.target.averageUtilization", 55),
    ("config.exemptNamespaces", ["legacy"], {}, "ConfigMap", "shardgate", "config:exempt_namespaces", ("legacy",)),
    ("config.drainSeconds", 30, {}, "Deployment", "", f"{SPEC}.terminationGracePeriodSeconds", 50),
    ("config.drainSeconds", 2.5, {}, "ConfigMap", "shardgate", "config:drain_seconds", 2.5),
    ("config.bindAddress", "::", {}, "ConfigMap", "shardgate", "config:bind_address", "::"),
    ("config.prometheusUrl", "http://p:9090", {}, "ConfigMap", "shardgate", "config:prometheus_url", "http://p:9090"),
    ("config.prometheusTokenFile", "/t/token", {}, "ConfigMap", "shardgate", "config:prometheus_token_file", "/t/token"),
    ("config.prometheusCa", "/t/ca.crt", {}, "ConfigMap", "shardgate", "config:prometheus_ca", "/t/ca.crt"),
    ("config.certificateHosts", ["a.example"], {}, "ConfigMap", "shardgate", "config:certificate_hosts", ("a.example",)),
    ("ports.webhook", 10250, {}, "ConfigMap", "shardgate", "config:webhook_port", 10250),
    ("ports.webhook", 10250, {}, "Deployment", "", f"{CONTAINER}.ports.webhook.containerPort", 10250),
    ("ports.metrics", 9090, {}, "ConfigMap", "shardgate", "config:metrics_port", 9090),
    ("certificates.mode", "certManager", {}, "ConfigMap", "shardgate", "config:tls_cert", "/certificate/tls.crt"),
    ("certificates.certManager.issuerRef", {"name": "a", "kind": "ClusterIssuer"}, MANAGED, "Certificate", "", "spec.issuerRef.name", "a"),
    ("certificates.certManager.duration", "100h", MANAGED, "Certificate", "shardgate-webhook", "spec.duration", "100h"),
    ("certificates.certManager.renewBefore", "10h", MANAGED, "Certificate", "shardgate-webhook", "spec.renewBefore", "10h"),
    ("certificates.secret.name", "mine", GIVEN, "Deployment", "", f"{SPEC}.volumes.certificate.secret.secretName", "mine"),
    ("certificates.secret.caBundle", "eA==", GIVEN, "MutatingWebhookConfiguration", "", "webhooks.0.clientConfig.caBundle", "eA=="),
    ("webhooks.failurePolicy", "Fail", {}, "ValidatingWebhookConfiguration", "", "webhooks.0.failurePolicy", "Fail"),
    ("webhooks.timeoutSeconds", 7, {}, "ValidatingWebhookConfiguration", "", "webhooks.0.timeoutSeconds", 7),
    ("webhooks.namespaceSelector", {"matchLabels": {"a": "b"}}, {}, "MutatingWebhookConfiguration", "",
     "webhooks.0.namespaceSelector.matchLabels", {"a": "b"}),
    ("webhooks.objectSelector", {"matchLabels": {"a": "b"}}, {}, "ValidatingWebhookConfiguration", "",
     "webhooks.0.objectSelector.matchLabels", {"a": "b"}),
    ("webhooks.matchConditions", [{"name": "mine", "expression": "true"}], {}, "ValidatingWebhookConfiguration", "",
     "webhooks.0.matchConditions.mine.expression", "true"),
    ("webhooks.reinvocationPolicy", "IfNeeded", {}, "MutatingWebhookConfiguration", "", "webhooks.0.reinvocationPolicy", "IfNeeded"),
    ("webhooks.annotations", {"a": "b"}, {}, "MutatingWebhookConfiguration", "", "metadata.annotations.a", "b"),
    ("webhooks.url", "https://a.example:8443", {}, "ValidatingWebhookConfiguration", "", "webhooks.0.clientConfig",
     {"url": "https://a.example:8443/validate"}),
    ("webhooks.clientAuthentication.secretName", "clients", {}, "Deployment", "",
     f"{SPEC}.volumes.client-authority.secret.secretName", "clients"),
    ("webhooks.clientAuthentication.key", "a.pem", CLIENTS, "ConfigMap", "shardgate", "config:client_ca", "/client-authority/a.pem"),
    ("webhooks.clientAuthentication.names", ["api"], CLIENTS, "ConfigMap", "shardgate", "config:client_names", frozenset({"api"})),
    ("serviceAccount.name", "sa", {}, "Deployment", "", f"{SPEC}.serviceAccountName", "sa"),
    ("serviceAccount.create", False, {}, "Deployment", "", f"{SPEC}.serviceAccountName", "default"),
    ("serviceAccount.annotations", {"a": "b"}, {}, "ServiceAccount", "shardgate", "metadata.annotations.a", "b"),
    ("serviceAccount.automount", False, {}, "Deployment", "", f"{SPEC}.automountServiceAccountToken", False),
    ("crds.keep", False, {}, "CustomResourceDefinition", "modelprofiles.shardgate.io", "metadata.annotations", None),
    ("service.type", "NodePort", {}, "Service", "shardgate-webhook", "spec.type", "NodePort"),
    ("service.port", 8443, {}, "Service", "shardgate-webhook", "spec.ports.webhook.port", 8443),
    ("service.port", 8443, {}, "MutatingWebhookConfiguration", "", "webhooks.0.clientConfig.service.port", 8443),
    ("service.annotations", {"a": "b"}, {}, "Service", "shardgate-webhook", "metadata.annotations.a", "b"),
    ("service.ipFamilyPolicy", "PreferDualStack", {}, "Service", "shardgate-webhook", "spec.ipFamilyPolicy", "PreferDualStack"),
    ("metricsService.port", 80, {}, "Service", "shardgate-metrics", "spec.ports.metrics.port", 80),
    ("metricsService.annotations", {"a": "b"}, {}, "Service", "shardgate-metrics", "metadata.annotations.a", "b"),
    ("resources", {"limits": {"memory": "1Gi"}}, {}, "Deployment", "", f"{CONTAINER}.resources.limits.memory", "1Gi"),
    ("updateStrategy", {"type": "Recreate"}, {}, "Deployment", "", "spec.strategy", {"type": "Recreate"}),
    ("revisionHistoryLimit", 1, {}, "Deployment", "", "spec.revisionHistoryLimit", 1),
    ("terminationGracePeriodSeconds", 0, {}, "Deployment", "", f"{SPEC}.terminationGracePeriodSeconds", 0),
    ("priorityClassName", "high", {}, "Deployment", "", f"{SPEC}.priorityClassName", "high"),
    ("runtimeClassName", "gvisor", {}, "Deployment", "", f"{SPEC}.runtimeClassName", "gvisor"),
    ("nodeSelector", {"a": "b"}, {}, "Deployment", "", f"{SPEC}.nodeSelector", {"a": "b"}),
    ("tolerations", [{"operator": "Exists"}], {}, "Deployment", "", f"{SPEC}.tolerations", [{"operator": "Exists"}]),
    ("affinity", {"nodeAffinity": {}}, {}, "Deployment", "", f"{SPEC}.affinity", {"nodeAffinity": {}}),
    ("topologySpreadConstraints", [{"topologyKey": "k", "labelSelector": {}}], {}, "Deployment", "",
     f"{SPEC}.topologySpreadConstraints.0.topologyKey", "k"),
    ("hostNetwork", True, {}, "Deployment", "", f"{SPEC}.hostNetwork", True),
    ("hostNetwork", True, {}, "Deployment", "", f"{SPEC}.dnsPolicy", "ClusterFirstWithHostNet"),
    ("dnsPolicy", "Default", {"hostNetwork": True}, "Deployment", "", f"{SPEC}.dnsPolicy", "Default"),
    ("podLabels", {"a": "b"}, {}, "Deployment", "", "spec.template.metadata.labels.a", "b"),
    ("podAnnotations", {"a": "b"}, {}, "Deployment", "", "spec.template.metadata.annotations.a", "b"),
    ("podSecurityContext", {"runAsUser": 7}, {}, "Deployment", "", f"{SPEC}.securityContext.runAsUser", 7),
    ("securityContext", {"privileged": False}, {}, "Deployment", "", f"{CONTAINER}.securityContext.privileged", False),
    ("probes.liveness", {"failureThreshold": 9}, {}, "Deployment", "", f"{CONTAINER}.livenessProbe.failureThreshold", 9),
    ("probes.readiness", {"failureThreshold": 9}, {}, "Deployment", "", f"{CONTAINER}.readinessProbe.failureThreshold", 9),
    ("probes.startup", {"failureThreshold": 9}, {}, "Deployment", "", f"{CONTAINER}.startupProbe.failureThreshold", 9),
    ("podDisruptionBudget.maxUnavailable", "50%", {}, "PodDisruptionBudget", "", "spec.maxUnavailable", "50%"),
    ("podDisruptionBudget.minAvailable", 0, {}, "PodDisruptionBudget", "", "spec.minAvailable", 0),
    ("extraArgs", ["--verbose"], {}, "Deployment", "", f"{CONTAINER}.args", ["--verbose"]),
    ("extraEnv", [{"name": "A", "value": "b"}], {}, "Deployment", "", f"{CONTAINER}.env.A.value", "b"),
    ("extraEnvFrom", [{"secretRef": {"name": "s"}}], {}, "Deployment", "", f"{CONTAINER}.envFrom", [{"secretRef": {"name": "s"}}]),
    ("extraVolumes", [{"name": "v", "emptyDir": {}}], {}, "Deployment", "", f"{SPEC}.volumes.v.emptyDir", {}),
    ("extraVolumeMounts", [{"name": "v", "mountPath": "/v"}], {}, "Deployment", "", f"{CONTAINER}.volumeMounts.v.mountPath", "/v"),
    ("extraContainers", [{"name": "c", "image": "i"}], {}, "Deployment", "", f"{SPEC}.containers.c.image", "i"),
    ("extraInitContainers", [{"name": "c", "image": "i"}], {}, "Deployment", "", f"{SPEC}.initContainers.c.image", "i"),
    ("extraObjects", [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "{{ .Release.Name }}-x"}}], {}, "Secret", "",
     "metadata.name", "shardgate-x"),
    ("networkPolicy.webhookFrom", PEER, NET, "NetworkPolicy", "", "spec.ingress.0.from", PEER),
    ("networkPolicy.metricsFrom", PEER, NET, "NetworkPolicy", "", "spec.ingress.1.from", PEER),
    ("networkPolicy.apiServerTo", PEER, NET, "NetworkPolicy", "", "spec.egress.0.to", PEER),
    ("networkPolicy.apiServerPorts", [1], NET, "NetworkPolicy", "", "spec.egress.0.ports", [{"port": 1, "protocol": "TCP"}]),
    ("networkPolicy.dnsTo", PEER, NET, "NetworkPolicy", "", "spec.egress.1.to", PEER),
    ("networkPolicy.extraEgress", [{"to": PEER}], NET, "NetworkPolicy", "", "spec.egress.2.to", PEER),
    ("flowControl.matchingPrecedence", 9, FLOW, "FlowSchema", "", "spec.matchingPrecedence", 9),
    ("flowControl.nominalConcurrencyShares", 9, FLOW, "PriorityLevelConfiguration", "", "spec.limited.nominalConcurrencyShares", 9),
    *(
        case
        for value, on, kind, endpoint in (
            ("serviceMonitor", MON, "ServiceMonitor", "endpoints"), ("podMonitor", POD, "PodMonitor", "podMetricsEndpoints"),
        )
        for case in (
            (f"{value}.namespace", "m", on, kind, "", "metadata.namespace", "m"),
            (f"{value}.labels", {"a": "b"}, on, kind, "", "metadata.labels.a", "b"),
            (f"{value}.annotations", {"a": "b"}, on, kind, "", "metadata.annotations.a", "b"),
            (f"{value}.interval", "7s", on, kind, "", f"spec.{endpoint}.0.interval", "7s"),
            (f"{value}.scrapeTimeout", "7s", on, kind, "", f"spec.{endpoint}.0.scrapeTimeout", "7s"),
            (f"{value}.relabelings", [{"a": "b"}], on, kind, "", f"spec.{endpoint}.0.relabelings", [{"a": "b"}]),
            (f"{value}.metricRelabelings", [{"a": "b"}], on, kind, "", f"spec.{endpoint}.0.metricRelabelings", [{"a": "b"}]),
        )
    ),
    ("agent.enabled", True, {}, "ConfigMap", "shardgate", "config:node_agents", True),
    ("agent.staleAfterSeconds", 45, AGENT, "ConfigMap", "shardgate", "config:report_stale_after_seconds", 45.0),
    ("agent.intervalSeconds", 5, AGENT, "DaemonSet", "", f"{AGENTS}.args.1", "--interval=5"),
    ("agent.port", 9100, AGENT, "DaemonSet", "", f"{AGENTS}.ports.metrics.containerPort", 9100),
    ("agent.port", 9100, {**AGENT, **NET}, "NetworkPolicy", "", "spec.ingress.1.ports.1.port", 9100),
    ("agent.hostPID", True, AGENT, "DaemonSet", "", f"{SPEC}.hostPID", True),
    ("agent.serviceAccount.name", "sa", AGENT, "DaemonSet", "", f"{SPEC}.serviceAccountName", "sa"),
    ("agent.serviceAccount.name", "sa", AGENT, "ValidatingAdmissionPolicy", "", "spec.matchConditions.agents.expression",
     "request.userInfo.username == 'system:serviceaccount:shardgate-system:sa'"),
    ("agent.serviceAccount.annotations", {"a": "b"}, AGENT, "ServiceAccount", "shardgate-agent", "metadata.annotations.a", "b"),
    ("agent.resources", {"limits": {"memory": "1Gi"}}, AGENT, "DaemonSet", "", f"{AGENTS}.resources.limits.memory", "1Gi"),
    ("agent.runtimeClassName", "own", AGENT, "DaemonSet", "", f"{SPEC}.runtimeClassName", "own"),
    ("agent.env", [{"name": "A", "value": "b"}], AGENT, "DaemonSet", "", f"{AGENTS}.env.A.value", "b"),
    ("agent.extraArgs", ["--more"], AGENT, "DaemonSet", "", f"{AGENTS}.args.3", "--more"),
    ("agent.extraVolumes", [{"name": "v", "hostPath": {"path": "/d"}}], AGENT, "DaemonSet", "", f"{SPEC}.volumes.v.hostPath.path", "/d"),
    ("agent.extraVolumeMounts", [{"name": "v", "mountPath": "/v"}], AGENT, "DaemonSet", "", f"{AGENTS}.volumeMounts.v.mountPath", "/v"),
    ("agent.nodeSelector", {"a": "b"}, AGENT, "DaemonSet", "", f"{SPEC}.nodeSelector.a", "b"),
    ("agent.tolerations", [{"key": "a"}], AGENT, "DaemonSet", "", f"{SPEC}.tolerations", [{"key": "a"}]),
    ("agent.affinity", {"nodeAffinity": {}}, AGENT, "DaemonSet", "", f"{SPEC}.affinity", {"nodeAffinity": {}}),
    ("agent.priorityClassName", "high", AGENT, "DaemonSet", "", f"{SPEC}.priorityClassName", "high"),
    ("agent.updateStrategy", {"type": "OnDelete"}, AGENT, "DaemonSet", "", "spec.updateStrategy.type", "OnDelete"),
    ("agent.podLabels", {"a": "b"}, AGENT, "DaemonSet", "", "spec.template.metadata.labels.a", "b"),
    ("agent.podAnnotations", {"a": "b"}, AGENT, "DaemonSet", "", "spec.template.metadata.annotations.a", "b"),
    ("agent.podSecurityContext", {"runAsUser": 7}, AGENT, "DaemonSet", "", f"{SPEC}.securityContext.runAsUser", 7),
    ("agent.securityContext", {"privileged": False}, AGENT, "DaemonSet", "", f"{AGENTS}.securityContext.privileged", False),
    ("uninstall.activeDeadlineSeconds", 9, {}, "Job", "shardgate-uninstall-leftovers", "spec.activeDeadlineSeconds", 9),
    ("test.namespace", "team", {}, "Role", "shardgate-test", "metadata.namespace", "team"),
]  # fmt: skip

# value -> (what it is set to, kinds and names that then are there, or are not)
PRESENCE: list[tuple[str, bool, Json, list[tuple[str, str]]]] = [
    ("autoscaling.enabled", True, {}, [("HorizontalPodAutoscaler", "shardgate")]),
    (
        "webhooks.create",
        False,
        {},
        [("ValidatingWebhookConfiguration", "shardgate"), ("MutatingWebhookConfiguration", "shardgate")],
    ),
    ("serviceAccount.create", False, {}, [("ServiceAccount", "")]),
    ("rbac.create", False, {}, [("ClusterRole", ""), ("ClusterRoleBinding", ""), ("Role", ""), ("RoleBinding", "")]),
    ("rbac.aggregateToUsers", False, {}, [("ClusterRole", "shardgate-view"), ("ClusterRole", "shardgate-edit")]),
    ("crds.install", False, {}, [("CustomResourceDefinition", "")]),
    ("metricsService.create", False, {}, [("Service", "shardgate-metrics")]),
    ("podDisruptionBudget.enabled", False, {}, [("PodDisruptionBudget", "")]),
    ("networkPolicy.enabled", True, {}, [("NetworkPolicy", "shardgate")]),
    ("flowControl.enabled", True, {}, [("FlowSchema", "shardgate"), ("PriorityLevelConfiguration", "shardgate")]),
    ("serviceMonitor.enabled", True, {}, [("ServiceMonitor", "shardgate")]),
    ("podMonitor.enabled", True, {}, [("PodMonitor", "shardgate")]),
    (
        "agent.enabled",
        True,
        {},
        [
            ("DaemonSet", "shardgate-agent"),
            ("ServiceAccount", "shardgate-agent"),
            ("ClusterRole", "shardgate-agent"),
            ("Role", "shardgate-agent"),
            ("ValidatingAdmissionPolicy", "shardgate-agent"),
            ("ValidatingAdmissionPolicyBinding", "shardgate-agent"),
        ],
    ),
    ("agent.enabled", True, POD, [("PodMonitor", "shardgate-agent")]),
    ("agent.enabled", True, MON, [("PodMonitor", "shardgate-agent")]),
    (
        "agent.admissionPolicy.create",
        False,
        AGENT,
        [("ValidatingAdmissionPolicy", "shardgate-agent"), ("ValidatingAdmissionPolicyBinding", "shardgate-agent")],
    ),
    ("uninstall.enabled", False, {}, [("Job", "shardgate-uninstall-webhooks"), ("Job", "shardgate-uninstall-leftovers")]),
    ("test.enabled", False, {}, [("Pod", "shardgate-test")]),
]
ELSEWHERE = ("prometheusRule.", "dashboard.")
"""Values of what is tested with the alerts."""


def nested(flat: Mapping[str, Any]) -> Json:
    made: Json = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        at = made
        for each in parents:
            at = at.setdefault(each, {})
        at[last] = value
    return made


def read(objects: Objects, kind: str, name: str, path: str, tmp_path: Path) -> Any:
    if not path.startswith("config:"):
        return objects.at(kind, name, path)
    config = config_of(objects, tmp_path)
    value = getattr(config, path.removeprefix("config:"))
    return str(value) if isinstance(value, Path) else value


def config_of(objects: Objects, tmp_path: Path) -> OperatorConfig:
    """As the operator itself reads it."""
    file = tmp_path / "config.yaml"
    named = [each for each in objects.find("ConfigMap") if "config.yaml" in each.get("data", {})]
    file.write_text(named[0]["data"]["config.yaml"])
    return read_config({"SHARDGATE_CONFIG": str(file)})


@pytest.mark.parametrize("case", CASES, ids=[each[0] for each in CASES])
def test_a_value_reaches_what_it_is_for(
    render: Render, default: Objects, tmp_path: Path, case: tuple[str, Any, Json, str, str, str, Any]
) -> None:
    value, given, others, kind, name, path, expected = case
    assert read(render(nested({**others, value: given})), kind, name, path, tmp_path) == expected
    before = render(nested(others)) if others else default
    if value not in others and len(before.find(kind, name)) == 1:
        assert read(before, kind, name, path, tmp_path) != expected, "it is so without it"


@pytest.mark.parametrize(("value", "given", "others", "objects"), PRESENCE, ids=[each[0] for each in PRESENCE])
def test_a_switch_brings_or_takes_away_its_objects(
    render: Render, default: Objects, value: str, given: bool, others: Json, objects: list[tuple[str, str]]
) -> None:
    switched = render(nested({**others, value: given}))
    before = render(nested(others)) if others else default
    for kind, name in objects:
        assert bool(switched.find(kind, name)) is given, (kind, name)
        assert bool(before.find(kind, name)) is not given, (kind, name)


def test_agents_are_held_to_their_node_whoever_makes_their_role(render: Render) -> None:
    objects = render(nested({**AGENT, "rbac.create": False}))
    assert not objects.find("ClusterRole", "shardgate-agent")
    assert objects.at("ValidatingAdmissionPolicyBinding", "shardgate-agent", "spec.validationActions") == ["Deny"]
    assert objects.one("ValidatingAdmissionPolicy", "shardgate-agent")


def test_no_value_is_left_out_of_these_tables() -> None:
    known = {".".join(each.path) for each in chart_readme.leaves(chart_readme.read_values((CHART / "values.yaml").read_text()))}
    covered = {each[0] for each in CASES} | {each[0] for each in PRESENCE}
    assert covered <= known
    assert {each for each in known - covered if not each.startswith(ELSEWHERE)} == set()


def test_every_value_has_a_meaning_in_the_readme() -> None:
    for each in chart_readme.leaves(chart_readme.read_values((CHART / "values.yaml").read_text())):
        assert each.meaning, each.path


def test_every_field_of_the_operators_configuration_can_be_set(render: Render) -> None:
    objects = render(nested({**GIVEN, **CLIENTS, "webhooks.clientAuthentication.names": ["a"]}))
    written = yaml.safe_load(objects.one("ConfigMap", "shardgate")["data"]["config.yaml"])
    fields = {field.alias for field in OperatorConfig.model_fields.values()}
    assert fields - set(written) - set(SCHEMA["properties"]["config"]["properties"]) == set()


# ---- the schema


def objects_in(schema: Any, path: str = "") -> list[tuple[str, Json]]:
    found = []
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            found.append((path, schema))
        for key, each in schema.items():
            found += objects_in(each, f"{path}/{key}")
    return found


def test_every_object_with_named_keys_takes_no_others() -> None:
    assert [path for path, each in objects_in(SCHEMA) if each.get("additionalProperties") is not False] == []
    assert len(objects_in(SCHEMA)) > 20


def test_schema_and_values_have_the_same_keys() -> None:
    def keys(value: Any, schema: Json, path: str = "") -> None:
        named = schema.get("properties")
        if isinstance(value, dict) and named and value:
            assert set(value) <= set(named), path
            if path != ".resources" and "$ref" not in schema and not path.startswith((".webhooks.namespaceSelector",)):
                assert set(named) - set(value) <= {"global", "enabled", "claims"}, path
            for key, each in value.items():
                keys(each, named[key], f"{path}.{key}")

    keys(VALUES, SCHEMA)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"replica": 3}, "replica"),
        ({"image": {"tags": "1"}}, "tags"),
        ({"webhooks": {"failurePolcy": "Fail"}}, "failurePolcy"),
        ({"webhooks": {"clientAuthentication": {"secret": "a"}}}, "secret"),
        ({"certificates": {"mode": "cert-manager"}}, "mode"),
        ({"certificates": {"certManager": {"issuer": {}}}}, "issuer"),
        ({"config": {"drainSecond": 1}}, "drainSecond"),
        ({"config": {"drainSeconds": 61}}, "drainSeconds"),
        ({"webhooks": {"timeoutSeconds": 31}}, "timeoutSeconds"),
        ({"webhooks": {"url": "http://insecure.example"}}, "url"),
        ({"image": {"digest": "sha256:short"}}, "digest"),
        ({"commonLabels": {"a": 1}}, "commonLabels"),
        ({"serviceMonitor": {"intervall": "1s"}}, "intervall"),
        ({"podDisruptionBudget": {"maxUnavailble": 1}}, "maxUnavailble"),
        ({"networkPolicy": {"apiServerPorts": []}}, "apiServerPorts"),
        ({"probes": {"liveness": {"path": "/x"}}}, "path"),
        ({"updateStrategy": {"type": "Rolling"}}, "updateStrategy"),
        ({"prometheusRule": {"severities": {"ShardgateWebhookDown": "page"}}}, "severities"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_wrong_value_is_refused_by_its_name(refusal: Callable[[Json], str], wrong: Json, said: str) -> None:
    message = refusal(wrong)
    assert "values don't meet the specifications of the schema" in message
    assert said in message.partition("shardgate:")[2]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"certificates": {"mode": "secret", "secret": {"caBundle": "YWJj"}}},
            "certificates.secret.name: mode secret needs the name of a Secret",
        ),
        ({"certificates": {"mode": "secret", "secret": {"name": "a"}}}, "certificates.secret.caBundle: mode secret needs"),
        ({"podDisruptionBudget": {"maxUnavailable": ""}}, "one of maxUnavailable and minAvailable has to be set"),
    ],
)
def test_what_a_mode_needs_is_said(refusal: Callable[[Json], str], values: Json, said: str) -> None:
    assert said in refusal(values)


def test_as_a_part_of_another_chart_its_values_are_taken(render: Render) -> None:
    assert render({"global": {"imageRegistry": "x"}, "enabled": True}).one("Deployment")
