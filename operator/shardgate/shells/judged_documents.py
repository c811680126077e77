"""Documents of any kind, judged in their order against one cluster, each admitted one taking its GPUs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shardgate.adapters.alternatives import alternatives_of
from shardgate.adapters.claimed import Claim, planned
from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.inference_deployments import is_inference_deployment
from shardgate.adapters.model_profiles import describes_model
from shardgate.adapters.referred_workloads import groups_in, read_declaration
from shardgate.adapters.report import reference_of, report
from shardgate.adapters.standing_workloads import key_of, referred_to
from shardgate.adapters.workload_declarations import declare
from shardgate.adapters.workload_verdicts import judged, workload_report
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.registry import read_workload
from shardgate.domain.declaration import Declaration
from shardgate.domain.enforce import enforce
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND, Mode
from shardgate.domain.verdict import Outcome, Verdict
from shardgate.domain.verify import verify
from shardgate.shells.documents import Document, Unreadable
from shardgate.shells.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class JudgedDocument:
    """One declaration's report, whether mode Enforce would refuse it, and its outcome."""

    report: dict[str, Any]
    refused: bool
    outcome: Outcome


@dataclass(slots=True)
class JudgedDocuments:
    """All that were judged, and what could not be read, of the cluster too."""

    judged: list[JudgedDocument] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


def judge_documents(
    declared: Iterable[Document | Unreadable], snapshot: Snapshot, follow: Callable[[Sequence[Any]], Iterable[Any]] = iter
) -> JudgedDocuments:
    """In their order. What they refer to is looked for among them, and in the cluster. ``follow`` sees each as it is judged."""
    declared = list(declared)
    documents = [each for each in declared if isinstance(each, Document)]
    library = Library.of([each.body for each in documents], snapshot.references)
    snapshot.add(each for each in documents if describes_model(each.body))
    found = JudgedDocuments(unreadable=list(snapshot.unreadable))
    referred = {referred_to(each.body) for each in documents}
    for document in follow(declared):
        if isinstance(document, Unreadable):
            found.unreadable.append(document)
        elif is_inference_deployment(document.body):
            _judge(document, library, snapshot, found)
        elif key_of(document.body) not in referred:
            _judge_workload(document, library, snapshot, found)
    return found


def _judge(document: Document, library: Library, snapshot: Snapshot, found: JudgedDocuments) -> None:
    profiles = snapshot.book.rules.known_profiles
    try:
        declaration = read_declaration(document.body, profiles, groups_in(library, profiles))
    except ExceptionGroup as problems:
        name = (document.body.get("metadata") or {}).get("name") or "without a name"
        found.unreadable += [
            Unreadable(f"{document.where}, InferenceDeployment {name}", str(each)) for each in mistakes_in(problems)
        ]
        return
    subject = declaration.subject
    policy = snapshot.book.rules.policy_for(subject.namespace, subject.kind_and_group, OWN_KIND)
    verdict = verify(declaration, snapshot.inventory(), policy)
    answer = enforce(declaration, verdict, replace(policy, mode=Mode.ENFORCE), None)
    reference = reference_of(document.body.get("spec") or {}, verdict, policy)
    others = alternatives_of(declaration, snapshot.inventory(), policy)
    document_of = report(declaration, verdict, reference=reference, alternatives=others)
    found.judged.append(JudgedDocument(document_of, not answer.allowed, verdict.outcome))
    if answer.allowed:
        _take(snapshot, [(declaration, verdict)])


def _judge_workload(document: Document, library: Library, snapshot: Snapshot, found: JudgedDocuments) -> None:
    """An object of another kind; one that serves nothing is left alone."""
    workload = read_workload(document.body, library)
    if workload is None:
        return
    subject = workload.subject
    policy = snapshot.book.rules.policy_for(subject.namespace, subject.kind_and_group, FOREIGN_KIND)
    declarations = [each.declaration for each in declare(workload) if each.declaration is not None]
    snapshot.offer(name for each in declarations for name in each.placement.requests)
    verdicts = judged(workload, snapshot.book.rules.known_profiles, snapshot.inventory(), policy)
    if verdicts is None:
        return
    enforced = replace(policy, mode=Mode.ENFORCE)
    first = verdicts.declarations[0] if verdicts.declarations else None
    refused = not enforce(first, verdicts.verdict, enforced, None).allowed
    reference = reference_of(document.body.get("spec") or {}, verdicts.verdict, policy)
    others = alternatives_of(first, snapshot.inventory(), policy) if first is not None and len(verdicts.groups) == 1 else ()
    report_of = workload_report(verdicts, reference=reference, alternatives=others)
    found.judged.append(JudgedDocument(report_of, refused, verdicts.verdict.outcome))
    if not refused:
        _take(
            snapshot,
            [(each.group.declaration, each.verdict) for each in verdicts.groups if each.group.declaration and each.verdict],
        )


def _take(snapshot: Snapshot, admitted: list[tuple[Declaration, Verdict]]) -> None:
    """The admitted declarations' pods hold their GPUs from now on; those that run already are among them."""
    taken = [(declaration, verdict.placement) for declaration, verdict in admitted if verdict.placement and verdict.placement.pods]
    if taken:
        snapshot.book.drop_own_pods(taken[0][0].owners)
    for number, (declaration, placement) in enumerate(taken):
        uid = f"{declaration.subject.label} {number}"
        pods = planned(declaration, placement)
        snapshot.book.claims.put(Claim(uid=uid, generation=0, owners=(declaration.subject.owner,), pods=pods))
