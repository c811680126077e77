"""Which metrics a PromQL expression reads: enough of its grammar to tell names from the rest."""

import re

from prometheus_client.metrics_core import Metric

from shardgate.shells.metrics import Metrics

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTORS = re.compile(r"\{[^}]*\}")
_RANGES = re.compile(r"\[[^\]]*\]")
_GROUPINGS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAME = re.compile(r"(?<![\w.$])([a-zA-Z_:][\w:]*)(?!\s*\()\b(?!\s*\()")
_WORDS = {"and", "or", "unless", "offset", "bool", "atan2", "inf", "nan", "by", "without", "on", "ignoring"}

OF_OTHERS = {
    "up",
    "apiserver_admission_webhook_rejection_count",
    "apiserver_admission_webhook_fail_open_count",
    "apiserver_admission_webhook_request_total",
    "apiserver_admission_webhook_admission_duration_seconds_bucket",
}
"""What Prometheus makes itself, and what the API server tells of our webhooks (Kubernetes 1.36, apiserver/pkg/admission/metrics)."""


def metrics_of(expression: str) -> set[str]:
    """Names of the series that it reads."""
    text = _GROUPINGS.sub(" ", _RANGES.sub(" ", _SELECTORS.sub(" ", _STRINGS.sub('""', expression))))
    return {name for name in _NAME.findall(text) if name.casefold() not in _WORDS}


def _series(family: Metric) -> set[str]:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}
    return {family.name + suffix for suffix in suffixes.get(family.type, ("",))}


def served() -> set[str]:
    """Names of all series that the operator serves."""
    return {name for family in Metrics().registry.collect() for name in _series(family)}
