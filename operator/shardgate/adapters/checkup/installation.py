"""What an installation is made of: Kubernetes' version, CRDs, webhook configurations, the operator's rights."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shardgate.adapters.checkup.check import Check, Found, Json, Unread, failed, ok, unknown, warning
from shardgate.adapters.manifests import CERTIFICATE_CLUSTER_RULES, CERTIFICATE_NAMESPACE_RULES, CLUSTER_RULES, NAMESPACE_RULES
from shardgate.adapters.webhook_registrations import chosen, differences, expected
from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.api import VERSION
from shardgate.api.crd import crds

LEAST_KUBERNETES = (1, 30)
MOST_TOLD = 4
LONGEST_TIMEOUT_SECONDS = 10
APPLY_CRDS = "apply this version's CRDs: kubectl apply --server-side -f deploy/crds/, or upgrade the chart"


def kubernetes_version(found: Found) -> Check:
    """MatchConditions are in every cluster from 1.30 on."""
    if not isinstance(found, dict):
        return unknown("kubernetes", found.why if isinstance(found, Unread) else "the API server does not tell its version")
    parts = [re.match(r"\d+", str(found.get(each) or "")) for each in ("major", "minor")]
    text, least = str(found.get("gitVersion") or "unknown"), ".".join(map(str, LEAST_KUBERNETES))
    numbers = tuple(int(part[0]) for part in parts if part)
    if len(numbers) < len(LEAST_KUBERNETES):
        return unknown("kubernetes", f"the API server's version {text} cannot be read")
    if numbers < LEAST_KUBERNETES:
        return failed("kubernetes", f"{text}: {least} or newer is needed", f"upgrade the cluster to {least}")
    return ok("kubernetes", f"{text}, at least {least}")


def definitions(found: Mapping[str, Found], served: Found) -> Check:
    """Our kinds are served, as this version has them. ``found``: by plural; ``served``: the discovery document."""
    wanted = crds()
    missing = [plural for plural in wanted if found.get(plural) is None]
    if not missing and all(isinstance(each, dict) for each in found.values()):
        stale = [text for plural, crd in wanted.items() if (text := _stale(plural, crd, mapping(found[plural])))]
        if stale:
            return failed("crds", _few(stale), APPLY_CRDS)
        return ok("crds", f"all {len(wanted)} are served, as this version has them")
    if not isinstance(served, Unread):
        listed = {str(each.get("name")) for each in dicts(mapping(served).get("resources"))}
        missing = [plural for plural in wanted if plural not in listed]
    if missing:
        return failed("crds", f"not served: {', '.join(missing)}", APPLY_CRDS)
    why = next((each.why for each in (*found.values(), served) if isinstance(each, Unread)), "")
    return unknown("crds", f"all {len(wanted)} are served; whether as this version has them: {why}")


def _stale(plural: str, wanted: Json, stands: Json) -> str:
    conditions = {each.get("type"): each.get("status") for each in dicts(mapping(stands.get("status")).get("conditions"))}
    if conditions.get("Established") != "True":
        return f"{plural} is not established"
    versions = {each.get("name"): each for each in dicts(mapping(stands.get("spec")).get("versions"))}
    if VERSION not in versions or not versions[VERSION].get("served"):
        return f"{plural} is not served as {VERSION}"
    mine = next(each for each in wanted["spec"]["versions"] if each["name"] == VERSION)
    return "" if versions[VERSION].get("schema") == mine["schema"] else f"the schema of {plural} is another version's"


def webhooks(found: Mapping[str, Found]) -> Check:
    """Both configurations are there, as this version needs them; what whoever installed them chose is taken as right."""
    told: list[str] = []
    missing = False
    for kind, wanted in expected().items():
        stands = found.get(kind)
        if isinstance(stands, Unread):
            return unknown("webhooks", stands.why)
        if stands is None:
            missing = True
            told.append(f"the {kind} shardgate is missing: nothing is judged by it")
        else:
            told += differences(wanted, stands, chosen(stands))
    if told:
        more = "; they come with the chart" if missing else "; somebody changed them, or they are another version's"
        return failed("webhooks", _few(told), f"apply deploy/install.yaml, or upgrade the chart{more}")
    open_ = sorted(each["name"] for each in _all(found) if each.get("failurePolicy") == "Ignore")
    policy = f"{len(open_)} let objects in unjudged while the operator is away" if open_ else "all fail closed"
    return ok("webhooks", f"both configurations are as this version needs them; {policy}")


def _all(found: Mapping[str, Found]) -> list[Json]:
    return [each for stands in found.values() if isinstance(stands, dict) for each in dicts(stands.get("webhooks"))]


def is_exempt(namespace: str, found: Mapping[str, Found]) -> bool:
    """Whether no webhook of ours is asked about objects of this namespace, as far as it can be seen."""
    if namespace.startswith("kube-"):
        return True
    mine = [each for each in _all(found) if each.get("name") == "validate.shardgate.io"]
    terms = [term for each in mine for term in dicts(mapping(each.get("namespaceSelector")).get("matchExpressions"))]
    return any(
        term.get("key") == "kubernetes.io/metadata.name"
        and (namespace in (term.get("values") or ())) is (term.get("operator") == "NotIn")
        for term in terms
        if term.get("operator") in ("In", "NotIn")
    )


# ---- rights


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One thing that the operator has to be allowed."""

    group: str
    resource: str
    verb: str
    name: str = ""
    namespace: str = ""
    of_certificates: bool = False
    """Needed only where the operator keeps certificates of its own."""

    @property
    def attributes(self) -> dict[str, str]:
        """As access reviews ask."""
        resource, _, part = self.resource.partition("/")
        asked = {
            "group": self.group, "resource": resource, "subresource": part, "verb": self.verb, "name": self.name,
            "namespace": self.namespace,
        }  # fmt: skip
        return {key: value for key, value in asked.items() if value}

    @property
    def text(self) -> str:
        """``patch inferencedeployments/status``."""
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        return " ".join(filter(None, (self.verb, resource, self.name, f"in {self.namespace}" if self.namespace else "")))


def rights(namespace: str) -> list[Right]:
    """Every right that the operator's roles grant, one by one."""
    parts = (
        (CLUSTER_RULES, "", False), (NAMESPACE_RULES, namespace, False), (CERTIFICATE_CLUSTER_RULES, "", True),
        (CERTIFICATE_NAMESPACE_RULES, namespace, True),
    )  # fmt: skip
    return [
        Right(group=group, resource=resource, verb=verb, name=name, namespace=where, of_certificates=of_certificates)
        for rules, where, of_certificates in parts
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    ]


def access(account: str, granted: Mapping[Right, bool] | Unread) -> Check:
    """``granted``: what the API server said of each right of this ServiceAccount."""
    if isinstance(granted, Unread):
        return unknown("rbac", granted.why, "ask somebody who may create subjectaccessreviews, or run it as the operator")
    lacking = [each.text for each, is_granted in granted.items() if not is_granted and not each.of_certificates]
    own = [(each.text, is_granted) for each, is_granted in granted.items() if each.of_certificates]
    keeps = any(is_granted for _, is_granted in own)
    lacking += [text for text, is_granted in own if keeps and not is_granted]
    if lacking:
        return failed(
            "rbac", f"{account} may not: {_few(lacking)}", "apply deploy/install.yaml, or upgrade the chart with rbac.create on"
        )  # fmt: skip
    has = sum(granted.values())
    certificates = "keeps certificates of its own" if keeps else "is given its certificates"
    return ok("rbac", f"{account} has all {has} rights that it needs, and {certificates}")


def _few(texts: Sequence[str]) -> str:
    more = f"; {len(texts) - MOST_TOLD} more" if len(texts) > MOST_TOLD else ""
    return "; ".join(texts[:MOST_TOLD]) + more


def slow_webhooks(found: Mapping[str, Found]) -> list[Check]:
    """One that is waited for long holds up what it is about; nothing where none is."""
    slow = [
        f"{each['name']} waits up to {each['timeoutSeconds']} s"
        for each in _all(found)
        if int(each.get("timeoutSeconds") or 0) > LONGEST_TIMEOUT_SECONDS
    ]
    return (
        [warning("timeouts", _few(slow), "set timeoutSeconds to 3, as this version has it: an apply waits for it")] if slow else []
    )
