"""A workload of any kind, judged: a verdict for each of its groups, and the one that answers for all of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from shardgate.adapters.models.catalogue import Profile
from shardgate.adapters.performance_report import (
    balance_json,
    communication_json,
    graph_json,
    performance_json,
    risks_json,
    score_json,
)
from shardgate.adapters.report import Json, aspect_labels, declared_json, finding_json, memory_json, placement_json, report
from shardgate.adapters.workload_declarations import GroupDeclaration, declare
from shardgate.adapters.workloads.extraction import Workload
from shardgate.domain.codes import finding
from shardgate.domain.declaration import Declaration, Subject
from shardgate.domain.inventory import Inventory
from shardgate.domain.policy import Policy
from shardgate.domain.risks import risks_of
from shardgate.domain.search import Alternative
from shardgate.domain.together import verify_together
from shardgate.domain.verdict import STATUS, Finding, FindingClass, Outcome, Requirement, Verdict, aspects_of, worst_first

_OWN_WORDS = {
    "spec.gpus.perPod": "the GPUs of a pod",
    "spec.gpus.products": "the accepted products",
    "spec.placement.nodeSelector": "the pods' nodeSelector",
    "spec.placement.priorityClassName": "the pods' priorityClassName",
    "spec.engine.maxModelLen": "the maximum model length",
    "spec.engine.memoryUtilization": "the memory utilization",
    "spec.model.config": "a ModelProfile",
    "spec.model.name": "the model's name",
}
"""Fields of our own kind, as remedies name them -> what other kinds have instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedGroup:
    """A group with its verdict; without one where nothing of it can be judged."""

    group: GroupDeclaration
    verdict: Verdict | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedWorkload:
    """All groups, and the verdict on the whole."""

    subject: Subject
    groups: tuple[JudgedGroup, ...]
    verdict: Verdict

    @property
    def declarations(self) -> tuple[Declaration, ...]:
        """Of those groups that can be judged."""
        return tuple(each.group.declaration for each in self.groups if each.group.declaration is not None)


def judged(
    workload: Workload, profiles: Sequence[Profile], inventory: Inventory, policy: Policy, *, rolls_out: bool = False
) -> JudgedWorkload | None:
    """``None`` where no group asks for GPUs, or the kind is not judged. ``rolls_out``: an update replaces its pods."""
    groups = declare(workload, profiles, rolls_out=rolls_out) if workload.is_judged else []
    return judged_groups(workload.subject, groups, inventory, policy)


def judged_groups(
    subject: Subject, groups: Sequence[GroupDeclaration], inventory: Inventory, policy: Policy
) -> JudgedWorkload | None:
    """The same for groups that are declared already."""
    if not groups:
        return None
    verdicts = iter(verify_together([each.declaration for each in groups if each.declaration is not None], inventory, policy))
    found = tuple(JudgedGroup(group=each, verdict=next(verdicts) if each.declaration is not None else None) for each in groups)
    return JudgedWorkload(subject=subject, groups=found, verdict=_whole(found))


def _whole(groups: tuple[JudgedGroup, ...]) -> Verdict:
    """All findings, each with the group that it is of; what all groups need together."""
    findings = worst_first(each for group in groups for each in _findings(group, several=len(groups) > 1))
    verdicts = [each.verdict for each in groups if each.verdict is not None]
    needed = sum(each.required.gpus for each in verdicts)
    first = (
        verdicts[0]
        if verdicts
        else Verdict(findings=(), required=Requirement(gpus_per_replica=0, gpus=0, pods_per_replica=None, gpus_per_pod=None))
    )
    required = first.required if len(verdicts) == 1 else replace(first.required, gpus=needed)
    needs = tuple(need for each in verdicts for need in each.rank_needs)
    return replace(first, findings=findings, required=required, aspects=aspects_of(findings), rank_needs=needs)


def _findings(judged_group: JudgedGroup, *, several: bool) -> list[Finding]:
    group = judged_group.group
    if judged_group.verdict is None:
        return [
            finding(
                "DeclarationOpaque", where=group.where, outcome=Outcome.UNDECIDED, message=f"the {group.role}: {group.problem}",
                remedy="state it in the object, or give what it refers to",
                bears_on=(FindingClass.SHAPE, FindingClass.MEMORY, FindingClass.CAPACITY),
            )
        ]  # fmt: skip
    prefix = f"{group.role}: " if several else ""
    return [
        replace(each, where=group.where, message=f"{prefix}{each.message}", remedy=_in_other_words(each.remedy))
        for each in judged_group.verdict.findings
    ]


def _in_other_words(remedy: str) -> str:
    for own, other in _OWN_WORDS.items():
        remedy = remedy.replace(own, other)
    return remedy


def workload_report(workload: JudgedWorkload, *, reference: str, alternatives: Iterable[Alternative] = ()) -> Json:
    """The report: of the first group, with the findings and the placement of all, and each group by itself."""
    judged_groups = [(each.group, each.verdict) for each in workload.groups if each.verdict is not None and each.group.declaration]
    verdict = workload.verdict
    status, recommendation = STATUS[verdict.outcome]
    parts = [(group, group.declaration, found) for group, found in judged_groups if group.declaration is not None and found]
    if not parts:
        return _report_of_none(workload, reference)
    _, declaration, first = parts[0]
    document = report(declaration, first, reference=reference, alternatives=alternatives)
    document |= {
        "outcome": verdict.outcome.label, "aspects": aspect_labels(verdict.aspects), "status": status,
        "recommendation": recommendation, "score": verdict.score, "findings": [finding_json(each) for each in verdict.findings],
        "risks": risks_json(risks_of(declaration, verdict)),
    }  # fmt: skip
    pods = [{**pod, "group": group.role} for group, _, found in parts for pod in placement_json(found.placement)["pods"] or ()]
    feasible = [found.placement.feasible for _, _, found in parts if found.placement is not None]
    document["placement"] = {
        **document["placement"],
        "pods": pods,
        "feasible": all(feasible) if len(feasible) == len(parts) else None,
    }
    if len(workload.groups) > 1:
        document["groups"] = [
            {
                "role": group.role, "declared": declared_json(declared, found), "memory": memory_json(declared, found),
                "performance": performance_json(found.performance), "balance": balance_json(declared, found.performance),
                "communication": communication_json(declared, found), "scoreTerms": score_json(found.score_terms),
                "risks": risks_json(risks_of(declared, found)), "graph": graph_json(declared, found),
                "placement": placement_json(found.placement), "findings": [finding_json(each) for each in found.findings],
            }
            for group, declared, found in parts
        ]  # fmt: skip
    return document


def _report_of_none(workload: JudgedWorkload, reference: str) -> Json:
    """Where nothing could be judged: the same keys, all unknown but the findings."""
    verdict, subject = workload.verdict, workload.subject
    status, recommendation = STATUS[verdict.outcome]
    unknown = (
        "declared", "hardware", "memory", "placement", "performance", "balance", "communication", "graph", "risks", "alternatives",
        "scoreTerms",
    )  # fmt: skip
    return {
        "apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationReport", "ref": reference,
        "subject": {
            "apiVersion": subject.api_version, "kind": subject.kind, "namespace": subject.namespace, "name": subject.name,
        },
        "outcome": verdict.outcome.label, "aspects": aspect_labels(verdict.aspects), "status": status,
        "recommendation": recommendation, "score": verdict.score, **dict.fromkeys(unknown),
        "findings": [finding_json(each) for each in verdict.findings], "assumptions": [],
    }  # fmt: skip
