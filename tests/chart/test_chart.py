"""What helm renders, for every set of values in the chart's ``ci`` folder, and what of it comes from the operator's own code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import render_install
from charts import SETS, Objects, Render, say
from controlplane.chart import CHART, NAMESPACE, helm, hooks_of
from shardgate import __version__
from shardgate.adapters.manifests import (
    GUARDS,
    KUBE_NAMESPACES,
    REMOVE_LEFTOVERS_CLUSTER_RULES,
    REMOVE_LEFTOVERS_NAMESPACE_RULES,
    REMOVE_WEBHOOKS_RULES,
    TRY_RULES,
    agent_rbac,
    rbac,
    user_roles,
    webhook_configurations,
)
from shardgate.api.crd import crds

Json = dict[str, Any]
MODES = {
    "self": {},
    "certManager": {"certificates": {"mode": "certManager"}},
    "secret": {"certificates": {"mode": "secret", "secret": {"name": "given", "caBundle": "YWJj"}}},
}


def test_there_are_enough_sets() -> None:
    assert len(SETS) >= 10
    assert {"default-values.yaml", "everything-values.yaml"} <= {each.name for each in SETS}


@pytest.mark.parametrize("values", SETS, ids=lambda each: each.name)
def test_a_set_lints_and_renders_what_is_right_everywhere(render: Render, lint: Callable[..., str], values: Path) -> None:
    assert "0 chart(s) failed" in lint("--values", str(values))
    objects = render(None, "--values", str(values))
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects.all]
    assert len(set(names)) == len(names)
    assert objects.one("Deployment")
    given = yaml.safe_load(values.read_text()) or {}
    elsewhere = {each.get("namespace") for each in given.values() if isinstance(each, dict)} | {"default", "serving"}
    for each in objects.all:
        assert each["metadata"].get("namespace") in {None, NAMESPACE, *elsewhere}, each
        if "more" in each["metadata"]["name"]:
            continue  # one of `extraObjects`
        assert set(each["metadata"]["labels"]) >= {
            "app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by",
            "helm.sh/chart",
        }, each["metadata"]  # fmt: skip
        assert set(given.get("commonLabels", {})) <= set(each["metadata"]["labels"])
        assert set(given.get("commonAnnotations", {})) <= set(each["metadata"].get("annotations", {}))


# ---- what comes from the code


@pytest.mark.parametrize("mode", MODES)
def test_the_rendered_roles_are_those_of_the_code_and_the_least_of_their_mode(render: Render, mode: str) -> None:
    objects = render(MODES[mode])
    for expected in rbac(NAMESPACE, keeps_certificates=mode == "self"):
        if expected["kind"] == "ServiceAccount":
            continue
        found = objects.one(expected["kind"], expected["metadata"]["name"])
        assert found["metadata"].get("namespace") == expected["metadata"].get("namespace")
        for field in ("rules", "roleRef", "subjects"):
            assert found.get(field) == expected.get(field), (expected["kind"], field)


def test_agents_may_do_what_the_code_says_and_are_held_to_their_own_node(render: Render) -> None:
    objects = render({"agent": {"enabled": True}})
    for expected in (*rbac(NAMESPACE, keeps_certificates=True, follows_agents=True), *agent_rbac(NAMESPACE)):
        if expected["kind"] != "ServiceAccount":
            found = objects.one(expected["kind"], expected["metadata"]["name"])
            for field in ("rules", "roleRef", "subjects", "spec"):
                assert found.get(field) == expected.get(field), (expected["kind"], field)


def test_an_agent_is_pod_security_restricted_unless_it_is_to_see_processes(render: Render) -> None:
    for wanted, values in ((False, {}), (True, {"hostPID": True})):
        spec = render({"agent": {"enabled": True, **values}}).one("DaemonSet")["spec"]["template"]["spec"]
        assert spec.get("hostPID", False) is wanted
        assert not {"hostNetwork", "hostIPC"} & set(spec)
        assert all({*each} - {"name"} <= {"emptyDir"} for each in spec["volumes"])
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_what_users_may_do_is_what_the_code_says(default: Objects) -> None:
    for expected in user_roles():
        found = default.one("ClusterRole", expected["metadata"]["name"])
        assert found["rules"] == expected["rules"]
        assert expected["metadata"]["labels"].items() <= found["metadata"]["labels"].items()


@pytest.mark.parametrize("policy", ["Ignore", "Fail"])
def test_the_rendered_webhooks_are_those_of_the_code(render: Render, policy: str) -> None:
    client = {"service": {"name": "shardgate-webhook", "namespace": NAMESPACE, "port": 443}}
    objects = render({"webhooks": {"failurePolicy": policy}, "config": {"exemptNamespaces": ["legacy"]}})
    for expected in webhook_configurations(client, exempt_namespaces=[NAMESPACE, "legacy"], failure_policy=policy):
        assert objects.one(expected["kind"], "shardgate")["webhooks"] == expected["webhooks"]


def test_what_values_decide_of_webhooks_leaves_alone_what_is_not_theirs(render: Render) -> None:
    """Who may not be asked whether they may override has granted nothing; a scale waits for nobody long."""
    objects = render({"webhooks": {"failurePolicy": "Ignore", "timeoutSeconds": 9, "reinvocationPolicy": "IfNeeded"}})
    found = {
        each["name"].partition(".")[0]: each
        for kind in ("Validating", "Mutating")
        for each in objects.one(f"{kind}WebhookConfiguration")["webhooks"]
    }
    assert {name for name, each in found.items() if each["failurePolicy"] == "Fail"} == {"exceptions", "grants", "decisions"}
    assert {name: each["timeoutSeconds"] for name, each in found.items() if each["timeoutSeconds"] != 9} == {
        "scale": 1,
        "decisions": 10,
    }
    assert {name for name, each in found.items() if each.get("reinvocationPolicy") == "IfNeeded"} == {"mutate"}


def test_the_rendered_crds_are_those_of_the_code_and_stay(default: Objects) -> None:
    for plural, expected in crds().items():
        found = default.one("CustomResourceDefinition", f"{plural}.shardgate.io")
        assert found["spec"] == expected["spec"]
        assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_hooks_may_do_what_the_code_says_and_no_more(default: Objects) -> None:
    webhooks, leftovers = "shardgate-uninstall-webhooks", "shardgate-uninstall-leftovers"
    assert default.one("ClusterRole", webhooks)["rules"] == REMOVE_WEBHOOKS_RULES
    assert default.find("Role", webhooks) == []
    assert default.one("ClusterRole", leftovers)["rules"] == REMOVE_LEFTOVERS_CLUSTER_RULES
    assert default.one("Role", leftovers)["rules"] == REMOVE_LEFTOVERS_NAMESPACE_RULES
    assert default.one("Role", "shardgate-test")["rules"] == TRY_RULES
    assert default.find("ClusterRole", "shardgate-test") == []


def test_nothing_that_runs_may_do_anything_without_naming_it(render: Render) -> None:
    for mode in MODES.values():
        for role in (*render(mode).find("ClusterRole"), *render(mode).find("Role")):
            for rule in role["rules"]:
                assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"]), role["metadata"]["name"]
                assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
                named = {"secrets", "mutatingwebhookconfigurations", "validatingwebhookconfigurations"} & set(rule["resources"])
                assert not named or "resourceNames" in rule or rule["verbs"] == ["create"], (role["metadata"]["name"], rule)


# ---- pods


def pods_of(objects: Objects) -> list[tuple[str, Json]]:
    found = [
        (each["metadata"]["name"], each["spec"]["template"]["spec"]) for each in (*objects.find("Deployment"), *objects.find("Job"))
    ]
    return [*found, *((each["metadata"]["name"], each["spec"]) for each in objects.find("Pod"))]


def test_every_pod_is_pod_security_restricted_with_a_read_only_root(default: Objects) -> None:
    pods = pods_of(default)
    assert len(pods) == 4
    for name, spec in pods:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert all({*each} - {"name"} <= {"configMap", "secret", "emptyDir"} for each in spec["volumes"]), name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert container["image"] == f"shardgate/shardgate:{__version__}"
            mounted = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
            writable = [each["name"] for each in spec["volumes"] if "emptyDir" in each]
            assert [mounted["/tmp"]] == writable, "keys of one's own are written there"


def test_a_pod_has_time_to_drain(default: Objects, render: Render) -> None:
    for objects, drains in ((default, 10), (render({"config": {"drainSeconds": 60}}), 60)):
        spec = objects.one("Deployment")["spec"]["template"]["spec"]
        assert spec["terminationGracePeriodSeconds"] >= drains + 20


def test_services_find_the_operators_pods_alone(default: Objects) -> None:
    """Those of hooks and tests have the release's labels, too."""
    labels = default.at("Deployment", "", "spec.template.metadata.labels")
    for each in default.find("Service"):
        assert each["spec"]["selector"].items() <= labels.items()
        for kind in ("Job", "Pod"):
            for other in default.find(kind):
                theirs = other["metadata"]["labels"] if kind == "Pod" else other["spec"]["template"]["metadata"]["labels"]
                assert not each["spec"]["selector"].items() <= theirs.items()
    assert default.at("Deployment", "", "spec.selector.matchLabels").items() <= labels.items()
    assert default.at("PodDisruptionBudget", "", "spec.selector") == default.at("Deployment", "", "spec.selector")


def test_selectors_outlive_labels_and_versions(render: Render) -> None:
    """They cannot be changed: nothing that an upgrade may change stands in one."""
    changed = render({"commonLabels": {"a": "b"}, "podLabels": {"app.kubernetes.io/component": "mine", "c": "d"}})
    assert set(changed.at("Deployment", "", "spec.selector.matchLabels")) == {
        "app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component",
    }  # fmt: skip
    assert changed.at("Deployment", "", "spec.template.metadata.labels[app.kubernetes.io/component]") == "operator"


def test_what_the_operator_reads_at_its_start_rolls_the_pods(default: Objects, render: Render) -> None:
    def marks(objects: Objects) -> Any:
        return objects.at("Deployment", "", "spec.template.metadata.annotations")

    assert marks(render({"config": {"exemptNamespaces": ["a"]}}))["checksum/config"] != marks(default)["checksum/config"]
    assert marks(render({"webhooks": {"failurePolicy": "Fail"}}))["checksum/webhooks"] != marks(default)["checksum/webhooks"]
    assert marks(render({"replicas": 3})) == marks(default)


# ---- certificates


def test_certificates_by_cert_manager_are_for_the_service_and_mounted(render: Render) -> None:
    objects = render(MODES["certManager"])
    leaf = objects.one("Certificate", "shardgate-webhook")["spec"]
    assert leaf["dnsNames"][0] == f"shardgate-webhook.{NAMESPACE}.svc"
    assert objects.at("Deployment", "", "spec.template.spec.volumes.certificate.secret.secretName") == leaf["secretName"]
    issuer = objects.one("Issuer", leaf["issuerRef"]["name"])
    assert issuer["spec"]["ca"]["secretName"] == objects.one("Certificate", "shardgate-authority")["spec"]["secretName"]
    for kind in ("Validating", "Mutating"):
        found = objects.one(f"{kind}WebhookConfiguration")
        assert found["metadata"]["annotations"]["cert-manager.io/inject-ca-from"] == f"{NAMESPACE}/shardgate-webhook"
        assert all("caBundle" not in each["clientConfig"] for each in found["webhooks"])


def test_where_somebody_signs_no_authority_is_made(render: Render) -> None:
    issuer = {"name": "corporate", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    objects = render({"certificates": {"mode": "certManager", "certManager": {"issuerRef": issuer}}})
    assert objects.find("Issuer") == []
    assert objects.one("Certificate")["spec"]["issuerRef"] == issuer


def test_in_no_other_mode_there_is_anything_of_cert_managers(render: Render) -> None:
    for mode in ("self", "secret"):
        objects = render(MODES[mode])
        assert [each for each in objects.all if each["apiVersion"].startswith("cert-manager")] == []
        assert "annotations" not in objects.one("MutatingWebhookConfiguration")["metadata"]


# ---- the release


def test_another_release_in_another_namespace_names_itself(render: Render) -> None:
    objects = render(None, release="blue", namespace="judges")
    assert objects.one("Deployment")["metadata"]["name"] == "blue-shardgate"
    for kind in ("Validating", "Mutating"):
        found = objects.one(f"{kind}WebhookConfiguration", "shardgate")
        for each in found["webhooks"]:
            assert each["clientConfig"]["service"]["namespace"] == "judges"
            assert each["clientConfig"]["service"]["name"] == "blue-shardgate-webhook"
            assert ("judges" in each["namespaceSelector"]["matchExpressions"][0]["values"]) is (each["name"] not in GUARDS)
            assert NAMESPACE not in each["namespaceSelector"]["matchExpressions"][0]["values"]
    config = yaml.safe_load(objects.one("ConfigMap", "blue-shardgate")["data"]["config.yaml"])
    assert (config["namespace"], config["serviceName"]) == ("judges", "blue-shardgate-webhook")
    assert NAMESPACE not in yaml.safe_dump(objects.all)


def test_exceptions_are_guarded_in_every_namespace(render: Render) -> None:
    """One that is made where nothing is judged counts once something is."""
    narrow = {"matchLabels": {"judged": "yes"}, "matchExpressions": [{"key": "team", "operator": "In", "values": ["a"]}]}
    webhooks = {"namespaceSelector": narrow, "objectSelector": narrow}
    objects = render({"webhooks": webhooks, "config": {"exemptNamespaces": ["legacy"]}})
    found = [each for kind in ("Validating", "Mutating") for each in objects.one(f"{kind}WebhookConfiguration")["webhooks"]]
    guards = [each for each in found if each["name"] in GUARDS]
    assert len(guards) == 2
    everywhere = {
        "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": list(KUBE_NAMESPACES)}]
    }
    for each in guards:
        assert each["namespaceSelector"] == everywhere
        assert "objectSelector" not in each
        assert each["failurePolicy"] == "Fail"
        assert [rule["resources"] for rule in each["rules"]] == [["verificationexceptions"]], "nothing else waits for it"
        assert {operation for rule in each["rules"] for operation in rule["operations"]} == {"CREATE", "UPDATE"}
    assert all(each["namespaceSelector"]["matchLabels"] == {"judged": "yes"} for each in found if each not in guards)


def test_hooks_run_with_what_they_need_made_first(default: Objects) -> None:
    for moment, job in (("pre-delete", "shardgate-uninstall-webhooks"), ("post-delete", "shardgate-uninstall-leftovers")):
        made = hooks_of(default.all, moment)
        assert (made[-1]["kind"], made[-1]["metadata"]["name"]) == ("Job", job)
        assert made[-1]["spec"]["template"]["spec"]["serviceAccountName"] in {
            each["metadata"]["name"] for each in made if each["kind"] == "ServiceAccount"
        }
        assert all("hook-succeeded" in each["metadata"]["annotations"]["helm.sh/hook-delete-policy"] for each in made)
    tried = hooks_of(default.all, "test")
    assert [each["kind"] for each in tried if each["kind"] == "Pod"] == [tried[-1]["kind"]]


def test_no_template_asks_the_cluster() -> None:
    """What is rendered is what is applied, by helm 3, helm 4 and whoever renders for them."""
    templates = [path for path in (CHART / "templates").rglob("*") if path.is_file()]
    assert len(templates) > 15
    for path in templates:
        text = path.read_text()
        assert "lookup" not in text, path
        assert "Capabilities" not in text, path


def test_the_plain_manifests_are_what_helm_renders(default: Objects, render: Render) -> None:
    wanted = render_install.manifests(say)
    assert {path.name for path in wanted} == {"install.yaml", "agents.yaml"}
    for path, text in wanted.items():
        assert path.read_text() == text, "run `make install-manifests`"
    plain, added = (list(yaml.load_all(text, Loader=yaml.CSafeLoader)) for text in wanted.values())
    assert plain[0]["kind"] == "Namespace"
    assert plain[1:] == hooks_of(default.all, "")
    over = {(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]): each for each in [*plain[1:], *added]}
    with_agents = hooks_of(render({"agent": {"enabled": True}}).all, "")
    assert sorted(over.values(), key=str) == sorted(with_agents, key=str), "applied one after the other"


def test_the_chart_tells_what_it_is() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"], about["kubeVersion"]) == (__version__, __version__, ">=1.30.0-0")
    told = {key.removeprefix("artifacthub.io/"): value for key, value in about["annotations"].items()}
    assert told["category"] in ("ai-machine-learning", "security")
    assert told["license"] == "Apache-2.0"
    assert {each["name"] for each in yaml.safe_load(told["crds"])} == {f"{plural}.shardgate.io" for plural in crds()}
    assert yaml.safe_load(told["images"])[0]["image"] == f"shardgate/shardgate:{__version__}"
    for example in yaml.safe_load(told["crdsExamples"]):
        assert example["kind"] in {each["spec"]["names"]["kind"] for each in crds().values()}
    assert {each["kind"] for each in yaml.safe_load(told["changes"])} <= {
        "added",
        "changed",
        "deprecated",
        "removed",
        "fixed",
        "security",
    }


def test_too_old_a_kubernetes_is_refused_by_its_version() -> None:
    with pytest.raises(Exception, match=r"requires kubeVersion: >=1.30.0-0 which is incompatible with Kubernetes v1.29"):
        helm("template", "a", str(CHART), "--kube-version", "1.29.9", say=say)


def test_what_guards_rights_cannot_be_passed_by(render: Render) -> None:
    """Who may leave a label out would grant himself an exception; a condition on workloads would refuse every other object."""
    chosen = [{"name": "mine", "expression": "object.spec.replicas > 0"}]
    objects = render({"webhooks": {"objectSelector": {"matchLabels": {"shardgate": "on"}}, "matchConditions": chosen}})
    for kind in ("Validating", "Mutating"):
        for each in objects.one(f"{kind}WebhookConfiguration")["webhooks"]:
            is_guard = each["name"].partition(".")[0] in ("exceptions", "grants", "decisions")
            assert ("objectSelector" in each) is not is_guard, each["name"]
            assert (chosen[0] in each["matchConditions"]) is not is_guard, each["name"]


def test_an_address_is_no_name_of_a_certificate(render: Render) -> None:
    hosts = ["gate.example.com", "10.0.0.5", "fd00::5"]
    spec = render({"certificates": {"mode": "certManager"}, "config": {"certificateHosts": hosts}}).one(
        "Certificate", "shardgate-webhook"
    )["spec"]
    assert spec["dnsNames"][-1] == "gate.example.com"
    assert spec["ipAddresses"] == ["10.0.0.5", "fd00::5"]


@pytest.mark.parametrize(
    ("values", "have"),
    [
        ({}, True),
        ({"rbac": {"create": False}}, False),
        ({"rbac": {"create": False}, "serviceAccount": {"create": False, "name": "given"}}, True),
    ],
)
def test_hooks_that_nobody_granted_anything_are_not_made(render: Render, values: dict[str, object], have: bool) -> None:
    made = [each for each in render(values).all if "helm.sh/hook" in (each["metadata"].get("annotations") or {})]
    assert bool(made) is have
