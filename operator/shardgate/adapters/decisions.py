"""A decision that was made at admission, kept to be shown and judged again.

What is kept is what was read, never the object: settings of the engine that are known, the model, strategy and
placement. No variable and no flag stands in it as it was written, so no token does. So what is judged again is the
declaration; how it was read from the object is not.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shardgate import __version__
from shardgate.adapters.disclosure import told
from shardgate.adapters.frozen_values import UnknownForm, packed, unpacked
from shardgate.adapters.report import disclosed_node, finding_json, report
from shardgate.adapters.workload_declarations import GroupDeclaration
from shardgate.adapters.workload_verdicts import JudgedWorkload, judged_groups, workload_report
from shardgate.api import API_VERSION
from shardgate.domain.declaration import Declaration, Subject
from shardgate.domain.inventory import Inventory, NodeGroup
from shardgate.domain.policy import Disclosure, Policy
from shardgate.domain.used_facts import used_facts
from shardgate.domain.verdict import Finding, Outcome, Verdict
from shardgate.domain.verify import verify

Json = dict[str, Any]
KIND = "Decision"
NO_FACTS = "the cluster has changed much since: what it was judged by is kept no longer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a verdict was reached by; judged again, they give it again."""

    declared: Declaration | tuple[GroupDeclaration, ...]
    """Of our own kind, or the groups of another."""
    policy: Policy
    inventory: Inventory

    @classmethod
    def of(cls, declared: Declaration | Sequence[GroupDeclaration], policy: Policy, inventory: Inventory) -> "Facts":
        """Without what was written of variables and flags: no verdict rests on it."""
        if isinstance(declared, Declaration):
            return cls(declared=_as_read(declared), policy=policy, inventory=inventory)
        groups = tuple(
            each if each.declaration is None else replace(each, declaration=_as_read(each.declaration)) for each in declared
        )
        return cls(declared=groups, policy=policy, inventory=inventory)

    @property
    def declarations(self) -> tuple[Declaration, ...]:
        """Those that can be judged."""
        if isinstance(self.declared, Declaration):
            return (self.declared,)
        return tuple(each.declaration for each in self.declared if each.declaration is not None)

    def apart(self) -> "Facts":
        """The same for another thread: what groups of nodes work out when they are asked is not shared with it."""
        here, to_come = (
            tuple(NodeGroup(group.nodes) for group in groups) for groups in (self.inventory.groups, self.inventory.provisionable)
        )
        return replace(self, inventory=replace(self.inventory, groups=here, provisionable=to_come))


def _as_read(declaration: Declaration) -> Declaration:
    return replace(declaration, engine=replace(declaration.engine, stated=()))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptDecision:
    """What was asked, by whom, and what was answered."""

    reference: str
    at: float
    """Unix time."""
    subject: Subject
    operation: str
    """CREATE, UPDATE or SCALE."""
    is_dry: bool
    user: str
    answer: str
    """allowed, warned or refused."""
    said: tuple[str, ...]
    """The refusal, or the warnings, as they were told."""
    outcome: Outcome
    findings: tuple[Finding, ...]
    """As users may read them."""
    disclosure: Disclosure
    facts: Facts | None
    """``None`` where they are kept no longer."""


def judged_again(subject: Subject, facts: Facts, reference: str, *, is_told: bool) -> tuple[Verdict, Json]:
    """The verdict by this code, and its report. ``is_told``: as users may read them."""
    if isinstance(facts.declared, Declaration):
        verdict = verify(facts.declared, facts.inventory, facts.policy)
        seen = _disclosed(verdict, facts) if is_told else verdict
        return verdict, _without_names(report(facts.declared, seen, reference=reference), is_told=is_told)
    found = judged_groups(subject, facts.declared, facts.inventory, facts.policy)
    if found is None:
        problem = "no group that is judged"
        raise UnknownForm(problem)
    seen_groups = _all_disclosed(found, facts) if is_told else found
    return found.verdict, _without_names(workload_report(seen_groups, reference=reference), is_told=is_told)


def _all_disclosed(found: JudgedWorkload, facts: Facts) -> JudgedWorkload:
    groups = (replace(each, verdict=_disclosed(each.verdict, facts) if each.verdict else None) for each in found.groups)
    return replace(found, groups=tuple(groups), verdict=_disclosed(found.verdict, facts))


def _disclosed(verdict: Verdict, facts: Facts) -> Verdict:
    """What the policy lets users see: pools instead of nodes, or nothing of either."""
    disclosure, placement = facts.policy.disclosure, verdict.placement
    if placement is not None:
        pods = tuple(replace(pod, node=disclosed_node(disclosure, pod.node, pod.pool)) for pod in placement.pods)
        placement = replace(placement, pods=pods)
    seen = replace(told(verdict, facts.inventory, facts.policy), placement=placement)
    if disclosure is not Disclosure.NONE:
        return seen
    assumptions = tuple(each for each in seen.assumptions if each.field not in ("hardware", "performance"))
    return replace(seen, hardware=None, best_gpu=None, performance=None, score_terms=(), assumptions=assumptions)


def _without_names(document: Json, *, is_told: bool) -> Json:
    """Nodes that were left out are counted, not named."""
    for part in (document, *document.get("groups", ())) if is_told else ():
        for each in ((part["placement"] or {}).get("excluded")) or ():
            each["nodes"] = []
    return document


def record(decision: KeptDecision, replica: str, *, may_see_nodes: bool) -> Json:
    """The decision as it is handed out: judged again by this code, and with the facts for those who may see nodes."""
    facts = None if decision.facts is None else decision.facts.apart()
    again = None if facts is None else judged_again(decision.subject, facts, decision.reference, is_told=not may_see_nodes)
    subject = decision.subject
    return {
        "apiVersion": API_VERSION, "kind": KIND, "ref": decision.reference,
        "decidedAt": datetime.datetime.fromtimestamp(decision.at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "replica": replica, "operation": decision.operation, "dryRun": decision.is_dry, "requestedBy": decision.user or None,
        "subject": {
            "apiVersion": subject.api_version, "kind": subject.kind, "namespace": subject.namespace, "name": subject.name,
        },
        "answer": decision.answer, "outcome": decision.outcome.label, "said": list(decision.said),
        "findings": [finding_json(each) for each in decision.findings],
        "report": None if again is None else again[1],
        "replay": None if again is None or facts is None else _replay(decision, again[0], facts, __version__),
        "facts": packed((facts.declared, facts.policy, used_facts(facts.inventory, facts.declarations)))
        if facts is not None and may_see_nodes
        else None,
        "noFacts": NO_FACTS if facts is None else None if may_see_nodes else "they name nodes, and you may not list nodes",
    }  # fmt: skip


def _replay(decision: KeptDecision, verdict: Verdict, facts: Facts, version: str) -> Json:
    seen = told(verdict, facts.inventory, facts.policy)
    agrees = (seen.outcome, seen.findings) == (decision.outcome, decision.findings)
    return {"by": version, "outcome": verdict.outcome.label, "codes": list(verdict.codes), "agrees": agrees}


def replayed(document: Mapping[str, Any]) -> Json:
    """The record with a report by this code, node names included. Raises ``UnknownForm`` where its facts are of another form.

    ``document`` has facts.
    """
    declared, policy, inventory = unpacked(document["facts"])
    facts = Facts(declared=declared, policy=policy, inventory=inventory)
    about = document["subject"]
    subject = Subject(api_version=about["apiVersion"], kind=about["kind"], namespace=about["namespace"], name=about["name"])
    verdict, again = judged_again(subject, facts, document["ref"], is_told=False)
    seen = told(verdict, inventory, policy)
    findings = [finding_json(each) for each in seen.findings]
    agrees = (seen.outcome.label, findings) == (document["outcome"], document["findings"])
    replay = {"by": __version__, "outcome": verdict.outcome.label, "codes": list(verdict.codes), "agrees": agrees}
    return {**document, "report": again, "replay": replay}
