"""The chart's PrometheusRule is the rules file, changed by its values and nothing else; its dashboard is the file."""

import json
from typing import Any

import pytest
import yaml

from charts import say
from controlplane.chart import CHART, HelmError, rendered

RULES: list[dict[str, Any]] = yaml.safe_load((CHART / "files/rules.yaml").read_text())["groups"]

Json = dict[str, Any]


def the_only(template: str, values: Json) -> Json:
    (found,) = rendered("--show-only", f"templates/{template}.yaml", values=values, namespace="gpus", say=say)
    return found


def a_rule(**values: Any) -> Json:
    return the_only("prometheusrule", {"prometheusRule": {"enabled": True, **values}})


def by_alert(rule: Json) -> dict[str, Json]:
    return {each["alert"]: each for group in rule["spec"]["groups"] for each in group["rules"]}


def test_without_values_it_is_the_file() -> None:
    rule = a_rule()
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rule["metadata"]["namespace"] == "gpus"
    assert rule["spec"]["groups"] == RULES


def test_metadata_is_what_a_prometheus_selects_it_by() -> None:
    metadata = a_rule(namespace="monitoring", labels={"release": "prometheus"}, annotations={"owner": "ml"})["metadata"]
    assert metadata["namespace"] == "monitoring"
    assert metadata["labels"]["release"] == "prometheus"
    assert metadata["annotations"]["owner"] == "ml"


def test_values_change_what_they_name_alone() -> None:
    changed = by_alert(
        a_rule(
            **{"for": {"ShardgateDeclarationMismatch": "5s"}},
            severities={"ShardgateNoLeader": "critical"},
            ruleLabels={"team": "serving"},
            runbookUrl="https://runbooks.example/shardgate/",
        )
    )
    for group in RULES:
        for rule in group["rules"]:
            expected = {**rule, "labels": {**rule["labels"], "team": "serving"}}
            page = f"https://runbooks.example/shardgate/{rule['alert']}.md"
            expected["annotations"] = {**rule["annotations"], "runbook_url": page}
            if rule["alert"] == "ShardgateDeclarationMismatch":
                expected["for"] = "5s"
            if rule["alert"] == "ShardgateNoLeader":
                expected["labels"]["severity"] = "critical"
            assert changed[rule["alert"]] == expected


def test_what_is_disabled_is_left_out_and_so_is_a_group_without_rules() -> None:
    (first, *others) = RULES
    rule = a_rule(disabled=[each["alert"] for each in first["rules"]])
    assert rule["spec"]["groups"] == others


@pytest.mark.parametrize("field", ["for", "severities", "disabled"])
def test_an_alert_that_there_is_not_is_named(field: str) -> None:
    value: Any = {"for": {"ShardgateNope": "5m"}, "severities": {"ShardgateNope": "info"}, "disabled": ["ShardgateNope"]}[field]
    with pytest.raises(HelmError) as error:
        a_rule(**{field: value})
    assert f"prometheusRule.{field}: there is no alert ShardgateNope; there are ShardgateDeclarationDown, " in str(error.value)


def test_the_dashboard_is_the_file_and_a_sidecar_finds_it() -> None:
    shown = the_only("dashboard", {"dashboard": {"enabled": True, "annotations": {"folder": "GPUs"}}})
    assert json.loads(shown["data"]["shardgate.json"]) == json.loads((CHART / "files/dashboard.json").read_text())
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert shown["metadata"]["annotations"]["folder"] == "GPUs"


@pytest.mark.parametrize("template", ["prometheusrule", "dashboard"])
def test_neither_is_there_unless_asked_for(template: str) -> None:
    with pytest.raises(HelmError, match="could not find template"):
        the_only(template, {})
