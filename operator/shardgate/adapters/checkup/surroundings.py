"""What an installation works on: nodes, policies, alerts, and what passed it by."""

import re
from collections.abc import Sequence

from pydantic.alias_generators import to_camel

from shardgate.adapters.checkup.check import Check, Json, Listed, Unread, failed, ok, unknown, warning
from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.policies import read_policy
from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.api import GROUP
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND, weaker_fields
from shardgate.domain.units import count

MOST_TOLD = 3
_OPEN = re.compile(r"^apiserver_admission_webhook_fail_open_count\{(?P<labels>[^}]*)\} (?P<value>[0-9.e+]+)$", re.MULTILINE)
_NAME = re.compile(r'name="(?P<name>[^"]*\.shardgate\.io)"')
OWN = f"InferenceDeployment.{GROUP}"
_FIELDS = {"refuse_waiting": "refuse.waiting", "refuse_undecided": "refuse.undecided"}


def gpu_nodes(reports: Sequence[Json] | Unread, unreadable: Sequence[str]) -> Check:
    """Nodes with GPUs are there, and their facts can be read. ``reports``: of ``shardgate nodes``."""
    if isinstance(reports, Unread):
        return unknown("nodes", reports.why)
    with_gpus = [each for each in reports if each["gpusSchedulable"] or each["vendor"]]
    gpus = sum(each["gpusSchedulable"] or 0 for each in with_gpus)
    products = sorted({str(each["product"]) for each in with_gpus if each["product"]})
    if unreadable:
        return warning(
            "nodes",
            f"cannot be read: {'; '.join(unreadable[:MOST_TOLD])}",
            "correct what is named: such a node counts as it last was",
        )
    if not gpus:
        return warning(
            "nodes",
            f"none of {count(len(reports), 'node')} offers a GPU: declarations wait or are not decided",
            "see that the device plugin runs: shardgate nodes",
        )
    nameless = [each["name"] for each in with_gpus if not each["product"]]
    message = f"{count(gpus, 'GPU')} on {count(len(with_gpus), 'node')}: {', '.join(products) or 'of unknown product'}"
    if nameless:
        return warning(
            "nodes",
            f"{message}; the product of {len(nameless)} is not known ({', '.join(nameless[:MOST_TOLD])})",
            "run GPU Feature Discovery, or label them: shardgate nodes says what is missing",
        )
    odd = [f"{each['name']}: {finding['message']}" for each in with_gpus for finding in each["findings"] if finding["code"]]
    if odd:
        return warning("nodes", f"{message}; {'; '.join(odd[:MOST_TOLD])}", "shardgate nodes shows where each fact comes from")
    return ok("nodes", message)


def policies(found: Listed) -> Check:
    """Which policies are in effect, which are weaker than the default, and which fields count for nothing."""
    if isinstance(found, Unread):
        return unknown("policies", found.why)
    bad: list[str] = []
    idle: list[str] = []
    weak: list[str] = []
    for body in found:
        name = str(mapping(body.get("metadata")).get("name"))
        try:
            policy = read_policy(body)
        except ExceptionGroup as problems:
            bad.append(f"{name}: {'; '.join(map(str, mistakes_in(problems)))}")
            continue
        default = OWN_KIND if not policy.kinds or OWN in policy.kinds else FOREIGN_KIND
        fields = [_FIELDS.get(each, to_camel(each)) for each in weaker_fields(policy, default)]
        if fields:
            (weak if policy.by_namespace_name else idle).append(f"{name} ({', '.join(fields)})")
    if bad:
        return failed("policies", f"not read, so not in effect: {'; '.join(bad[:MOST_TOLD])}", "correct the fields that are named")
    if idle:
        return warning(
            "policies", f"weaker than the default and without effect: {'; '.join(idle[:MOST_TOLD])}",
            "select namespaces by kubernetes.io/metadata.name: other labels can be a tenant's",
        )  # fmt: skip
    if not found:
        return ok("policies", "none: our own kind is held to Enforce and Closed, others to Warn and Open")
    more = f"; weaker than the default: {'; '.join(weak)}" if weak else ""
    return ok("policies", f"{len(found)} in effect{more}")


def alerts(found: Listed | None, namespace: str) -> Check:
    """A PrometheusRule with rules on our metrics is loaded. ``None``: the kind is not served."""
    repair = "turn on prometheusRule.enabled in the chart, or load deploy/monitoring/rules.yaml into your Prometheus"
    if found is None:
        return unknown("alerts", "PrometheusRule is not served here: whether a Prometheus has the rules cannot be seen", repair)
    if isinstance(found, Unread):
        return unknown("alerts", found.why)
    named = [each for each in found if _rules(each)]
    if not named:
        return warning("alerts", f"no PrometheusRule asks for a metric of ours ({len(found)} looked at)", repair)
    metadata = mapping(named[0].get("metadata"))
    rules = sum(len(_rules(each)) for each in named)
    return ok(
        "alerts", f"{count(rules, 'alert')} in PrometheusRule {metadata.get('namespace') or namespace}/{metadata.get('name')}"
    )


def _rules(body: Json) -> list[Json]:
    groups = dicts(mapping(body.get("spec")).get("groups"))
    return [
        rule
        for group in groups
        for rule in dicts(group.get("rules"))
        if rule.get("alert") and "shardgate_" in str(rule.get("expr"))
    ]


def failing_open(exposition: str | Unread) -> Check:
    """Requests that the API server let by because no webhook of ours answered, by its own counter."""
    if isinstance(exposition, Unread):
        return unknown("failingOpen", exposition.why)
    passed: dict[str, float] = {}
    for each in _OPEN.finditer(exposition):
        name = _NAME.search(each["labels"])
        if name:
            passed[name["name"]] = passed.get(name["name"], 0.0) + float(each["value"])
    total = int(sum(passed.values()))
    if not total:
        return ok("failingOpen", "this API server let no request by unjudged since it started")
    which = ", ".join(f"{name} {int(value)}" for name, value in sorted(passed.items()) if value)
    return warning(
        "failingOpen", f"this API server let {count(total, 'request')} by unjudged since it started: {which}",
        "see the checks answer and deployment; what slipped through is judged by the leader (kubectl get workloadverdicts -A)",
    )  # fmt: skip
