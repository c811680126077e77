"""Standing verdicts before and after a change of the cluster -> one JSON document of those that differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardgate.adapters.cluster_changes import ChangedCluster
from shardgate.adapters.gpu_resources import counted_once
from shardgate.adapters.pods import effective_requests, pod_from
from shardgate.adapters.report import finding_json
from shardgate.api import API_VERSION
from shardgate.domain.declaration import Subject
from shardgate.domain.verdict import Verdict

Json = dict[str, Any]
KIND = "WhatIf"
WORSE, BETTER, OTHER = "worse", "better", "other"


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """One declaration whose outcome or codes differ."""

    subject: Subject
    before: Verdict
    after: Verdict

    @property
    def direction(self) -> str:
        """By outcome; ``other`` where only the codes differ."""
        if self.after.outcome == self.before.outcome:
            return OTHER
        return WORSE if self.after.outcome > self.before.outcome else BETTER

    def json(self) -> Json:
        """As it is printed."""
        subject = self.subject
        return {
            "subject": {
                "apiVersion": subject.api_version, "kind": subject.kind, "namespace": subject.namespace, "name": subject.name,
            },
            "change": self.direction,
            "before": _verdict(self.before),
            "after": _verdict(self.after),
        }  # fmt: skip


def _verdict(verdict: Verdict) -> Json:
    worst = verdict.findings[0] if verdict.findings else None
    return {
        "outcome": verdict.outcome.label,
        "codes": list(verdict.codes),
        "replicasThatFit": None if verdict.placement is None else verdict.placement.replicas_that_fit,
        "worst": None if worst is None else finding_json(worst),
    }


def verdict_changes(before: Mapping[Subject, Verdict], after: Mapping[Subject, Verdict]) -> list[VerdictChange]:
    """Those that become worse first, then by kind and name."""
    found = [
        VerdictChange(subject, verdict, after[subject])
        for subject, verdict in before.items()
        if subject in after and (verdict.outcome, verdict.codes) != (after[subject].outcome, after[subject].codes)
    ]
    order = (WORSE, OTHER, BETTER)
    return sorted(found, key=lambda each: (order.index(each.direction), each.subject.owner))


def what_if_report(words: Sequence[str], cluster: ChangedCluster, judged: int, changes: Sequence[VerdictChange]) -> Json:
    """The whole answer. ``judged``: how many declarations stand."""
    counts = {direction: sum(each.direction == direction for each in changes) for direction in (WORSE, BETTER, OTHER)}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "change": " ".join(words),
        "added": list(cluster.added),
        "moved": _pods(cluster.moved),
        "ended": _pods(cluster.ended),
        "declarations": {"judged": judged, "unchanged": judged - len(changes), **counts},
        "changed": [each.json() for each in changes],
    }


def _pods(pods: Sequence[Json]) -> Json:
    """How many, and the GPUs that they ask for."""
    asked = [effective_requests(pod_from(each).spec) for each in pods]
    return {"pods": len(pods), "gpus": sum(amounts[name] for amounts in asked for name in counted_once(amounts))}
