"""Alerts, runbooks and dashboard: each refers only to what exists, and every alert has all that it needs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from promql import OF_OTHERS, metrics_of, served
from shardgate.adapters.manifests import WEBHOOK_TIMEOUT_SECONDS
from shardgate.shells.cli.entry import COMMANDS
from shardgate.shells.webhook_server import DEADLINE_SHARE

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "charts/shardgate/files"
RUNBOOKS = ROOT / "docs/runbooks"
ALERTS = ROOT / "tests/alerts"

Json = dict[str, Any]
RULES: dict[str, Json] = {
    rule["alert"]: rule for group in yaml.safe_load((FILES / "rules.yaml").read_text())["groups"] for rule in group["rules"]
}
DASHBOARD: Json = json.loads((FILES / "dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
KINDS_OF_CASE = ("fires", "does not fire", "boundary of for", "missing series")
PAGES = {"ShardgateDeclarationDown", "ShardgateWebhookBlocking"}
"""What a person must act on now: a model is down and cannot come back, or nobody can apply anything."""
SECTIONS = ["What it means", "Impact", "How to see it", "What to do", "How to silence it"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("up", {"up"}),
        ('sum by (le, kind) (rate(a_total{x="b_total", y=~"c{2}"}[5m] offset 1h)) > 1e3', {"a_total"}),
        ("absent(a == 1) or on (job) group_left (z) b unless c", {"a", "b", "c"}),
        ("histogram_quantile(0.99, sum by (le) (rate(a_bucket[$__rate_interval]))) > 14 * 24 * 3600 - time()", {"a_bucket"}),
    ],
)
def test_names_are_told_from_the_rest_of_an_expression(expression: str, expected: set[str]) -> None:
    assert metrics_of(expression) == expected


@pytest.mark.parametrize("alert", sorted(RULES))
def test_an_alert_uses_only_metrics_that_exist(alert: str) -> None:
    used = metrics_of(RULES[alert]["expr"])
    assert used
    assert used <= served() | OF_OTHERS


@pytest.mark.parametrize("alert", sorted(RULES))
def test_an_alert_says_what_it_is_and_where_to_read_on(alert: str) -> None:
    rule = RULES[alert]
    assert re.fullmatch(r"Shardgate(?:[A-Z][a-z]+)+", alert)
    assert rule["labels"] == {"severity": "critical" if alert in PAGES else rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert (rule["labels"]["severity"] == "critical") == (alert in PAGES)
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{alert}.md"
    assert "{{" not in rule["annotations"]["summary"], "summaries group: figures belong into the description"


@pytest.mark.parametrize("alert", sorted(RULES))
def test_an_alert_has_a_page_with_every_section(alert: str) -> None:
    page = (ROOT / RULES[alert]["annotations"]["runbook_url"]).read_text()
    assert page.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == SECTIONS
    assert f"(severity `{RULES[alert]['labels']['severity']}`, after {RULES[alert]['for']})" in page
    assert RULES[alert]["annotations"]["summary"] in page


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_refers_only_to_what_exists(page: Path) -> None:
    text = page.read_text()
    assert page.stem in RULES or page.stem == "README"
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (page.parent / link).exists(), link
    for name in re.findall(r"\b(?:shardgate|apiserver)_\w+", text):
        assert name in served() | OF_OTHERS, name
    for command in re.findall(r"^shardgate (\w+)|`shardgate (\w+)", text, re.MULTILINE):
        assert "".join(command) in COMMANDS, command
    for name in re.findall(r"\bShardgate[A-Z]\w+", text):
        assert name in RULES, name


@pytest.mark.parametrize("alert", sorted(RULES))
def test_an_alert_has_all_kinds_of_cases(alert: str) -> None:
    document = yaml.safe_load((ALERTS / f"{alert}.yaml").read_text())
    names = [test["name"] for test in document["tests"]]
    kinds = [next(kind for kind in KINDS_OF_CASE if name == kind or name.startswith((f"{kind}:", f"{kind},"))) for name in names]
    assert set(kinds) == set(KINDS_OF_CASE)
    assert len(set(names)) == len(names)
    for test, kind in zip(document["tests"], kinds, strict=True):
        asked = test["alert_rule_test"]
        assert {each["alertname"] for each in asked} == {alert}
        does = {bool(each["exp_alerts"]) for each in asked}
        if kind == "fires":
            assert True in does
        elif kind == "does not fire":
            assert does == {False}
        elif kind == "boundary of for":
            assert does == {True, False}


def test_nobody_is_woken_for_webhooks_that_always_fail_closed() -> None:
    """Those whose failurePolicy is no value of the chart: they are of our own objects, and no workload waits for them."""
    webhooks = yaml.safe_load((FILES / "webhooks.yaml").read_text())
    both = [*webhooks["validating"], *webhooks["mutating"]]
    fixed = {each["name"] for each in both if each.get("failurePolicy") == "Fail"}
    left_out = re.findall(r'name!~"\(([^)]+)\)\[\.\]shardgate\[\.\]io"', RULES["ShardgateWebhookBlocking"]["expr"])
    assert left_out
    assert [{f"{name}.shardgate.io" for name in each.split("|")} for each in left_out] == [fixed] * len(left_out)


def test_when_a_review_is_given_up_is_told_by_the_timeout_that_is_set() -> None:
    """A text that knows but the default would be wrong wherever the value is changed."""
    (latency,) = (panel["description"] for panel in DASHBOARD["panels"] if panel["title"] == "Latency")
    (timeout,) = {WEBHOOK_TIMEOUT_SECONDS, yaml.safe_load((FILES.parent / "values.yaml").read_text())["webhooks"]["timeoutSeconds"]}
    described = RULES["ShardgateWebhookSlow"]["annotations"]["description"]
    for text in (described, (RUNBOOKS / "ShardgateWebhookSlow.md").read_text(), latency):
        plain = " ".join(text.replace("`", "").split())
        assert f"{DEADLINE_SHARE * 100:.0f} % of a webhook's timeoutSeconds" in plain
        assert f"{DEADLINE_SHARE * timeout:.1f} s of the default {timeout} s" in plain


def test_a_dry_run_is_no_refusal_anywhere() -> None:
    expressions = [*QUERIES, *(rule["expr"] for rule in RULES.values())]
    selectors = [each for text in expressions for each in re.findall(r"shardgate_admission_requests_total(?:\{[^}]*\})?", text)]
    assert len(selectors) >= 3
    assert [each for each in selectors if 'dry_run="false"' not in each] == []


def test_every_file_of_cases_is_of_an_alert() -> None:
    assert {path.stem for path in ALERTS.glob("*.yaml")} == set(RULES)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_dashboard_uses_only_metrics_that_exist(query: str) -> None:
    used = metrics_of(query)
    assert used
    assert used <= served() | OF_OTHERS


def test_the_dashboard_is_sound() -> None:
    panels = DASHBOARD["panels"]
    identifiers = [panel["id"] for panel in panels]
    assert len(set(identifiers)) == len(identifiers)
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["description"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_the_dashboard_shows_what_it_is_for() -> None:
    """Series that somebody looks for there first."""
    shown = {name for query in QUERIES for name in metrics_of(query)}
    assert shown >= {
        "shardgate_admission_requests_total", "shardgate_findings_total", "shardgate_declarations", "shardgate_declaration_mismatches",
        "shardgate_gpus", "shardgate_placeable_pods", "shardgate_admission_duration_seconds_bucket", "shardgate_leader",
        "shardgate_inventory_last_event_timestamp_seconds", "shardgate_internal_errors_total",
        "apiserver_admission_webhook_fail_open_count",
    }  # fmt: skip
