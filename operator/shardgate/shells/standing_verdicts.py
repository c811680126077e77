"""Every declaration that stands in a cluster, judged by the cluster's objects alone: as the operator would find them.

Pods that lost their node (``moved``) are placed again as kube-scheduler would take them, one declaration after
another, those of higher priority and then the older ones first; where there is no room for all of a declaration, its
pods wait. What nothing has acted on yet (neither pods nor a status: a manifest that is taken to stand) comes last, in
the order of the documents, and takes its GPUs too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from msgspec import structs

from shardgate.adapters.claimed import Claim, ClaimedPod, planned
from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.gpu_resources import counted_once
from shardgate.adapters.inference_deployments import is_inference_deployment
from shardgate.adapters.pods import PodRecord, pod_from, read_pod
from shardgate.adapters.standing_workloads import StandingWorkloads, key_of, referred_to
from shardgate.adapters.status import claimed_by
from shardgate.adapters.workloads.kinds import JUDGED_KINDS
from shardgate.adapters.workloads.values import mapping
from shardgate.domain.declaration import Declaration, Subject
from shardgate.domain.inventory import Owner
from shardgate.domain.verdict import Verdict
from shardgate.shells.documents import Document, Unreadable
from shardgate.shells.judge import Judge
from shardgate.shells.promises import Reason
from shardgate.shells.snapshot import Snapshot

Json = dict[str, Any]
NOW = 0.0
"""Objects of one moment: nothing of them is a while ago."""
_FOLLOWED = frozenset((each.group, each.kind) for each in JUDGED_KINDS if each.is_followed)


@dataclass(slots=True)
class StandingVerdicts:
    """By the object that declares; and what could not be read."""

    verdicts: dict[Subject, Verdict] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """One object that declares something, with what it declares."""

    body: Mapping[str, Any]
    is_own: bool
    declarations: tuple[Declaration, ...]
    moved: tuple[PodRecord, ...]

    @property
    def subject(self) -> Subject:
        metadata = mapping(self.body.get("metadata"))
        return Subject(
            api_version=str(self.body.get("apiVersion")), kind=str(self.body.get("kind")), namespace=str(metadata.get("namespace")),
            name=str(metadata.get("name")),
        )  # fmt: skip

    @property
    def owners(self) -> tuple[Owner, ...]:
        return _owners(self.declarations)

    @property
    def is_promised(self) -> bool:
        """The operator keeps GPUs for it until its pods come."""
        status, generation = mapping(self.body.get("status")), mapping(self.body.get("metadata")).get("generation")
        is_of_now = generation is None or status.get("observedGeneration") == generation
        return self.is_own and is_of_now and claimed_by(status) == ("True", Reason.PROMISED)

    @property
    def is_new(self) -> bool:
        """Neither the operator nor another controller has said anything of it."""
        return not mapping(self.body.get("status")) and not self.moved


def standing_verdicts(
    documents: Iterable[Document], moved: Sequence[Json] = (), follow: Callable[[Sequence[Any]], Iterable[Any]] = iter,
    moment: float = 0.0,
) -> StandingVerdicts:  # fmt: skip
    """All of them. ``moved``: Pods that are among no documents, and wait for a node. ``follow`` sees each as it is judged.

    ``moment``: Unix time at which a live cluster was read, by which node agents are silent; 0 where files are all there is.
    """
    documents = list(documents)
    snapshot = Snapshot(moment=moment)
    snapshot.book.reports.are_heartbeats_needed = moment > 0
    snapshot.references = snapshot.book.references
    snapshot.add(documents)
    judge = Judge(snapshot.book, lambda: (0.0, 0.0), StandingWorkloads(), clock=lambda: NOW)
    found = StandingVerdicts(unreadable=snapshot.unreadable)
    records = [record for each in moved if (record := read_pod(pod_from(each))) is not None]
    standing = _all_standing(documents, judge, records, found)
    declared = {record.uid for each in standing for record in each.moved}
    for record in records:
        if record.uid not in declared:  # nothing that stands declares it: it waits with the others
            snapshot.book.put_pod(record)
    priorities = snapshot.inventory().priorities

    places = {key_of(_with_uid(each.body)): place for place, each in enumerate(documents)}

    def turn(each: _Standing) -> tuple[object, ...]:
        urgency = max((priorities.get(one.placement.priority_class, 0) for one in each.declarations), default=0)
        created = str(mapping(each.body.get("metadata")).get("creationTimestamp") or "")
        last = places.get(key_of(each.body), 0) if each.is_new else key_of(each.body)
        return not each.is_promised, not each.moved, each.is_new, -urgency, created, last

    for each in follow(sorted(standing, key=turn)):
        _judge(each, judge, found)
    return found


def _all_standing(
    documents: Iterable[Document], judge: Judge, moved: Sequence[PodRecord], found: StandingVerdicts
) -> list[_Standing]:
    own: list[tuple[Document, str]] = []
    others: list[Json] = []
    for document in documents:
        body = _with_uid(document.body)
        key = key_of(body)
        if key[2].startswith("kube-") or mapping(body["metadata"]).get("deletionTimestamp"):
            continue
        if is_inference_deployment(body):
            judge.workloads.name(body["metadata"]["uid"], referred_to(body))
            own.append((Document(document.where, body), body["metadata"]["uid"]))
        elif key[:2] in _FOLLOWED:
            judge.workloads.put(body, NOW)
            others.append(body)
    standing: list[_Standing] = []
    for document, uid in own:
        try:
            declaration = judge.declare(document.body)
        except ExceptionGroup as problems:
            name = document.body["metadata"].get("name")
            found.unreadable += [
                Unreadable(f"{document.where}, InferenceDeployment {name}", str(each)) for each in mistakes_in(problems)
            ]
            continue
        judge.workloads.take_over(uid, is_so=referred_to(document.body) is not None and not declaration.is_partial)
        standing.append(_standing(document.body, (declaration,), moved, is_own=True))
    return standing + [
        _standing(body, tuple(judge.declared_by(body)), moved, is_own=False)
        for body in others
        if judge.workloads.get(body["metadata"]["uid"]) is body and not judge.is_judged_elsewhere(body)
    ]


def _standing(
    body: Mapping[str, Any], declarations: tuple[Declaration, ...], moved: Sequence[PodRecord], *, is_own: bool
) -> _Standing:
    owners = frozenset(_owners(declarations))
    return _Standing(
        body=body, is_own=is_own, declarations=declarations,
        moved=tuple(each for each in moved if not owners.isdisjoint(each.owners)),
    )  # fmt: skip


def _owners(declarations: Iterable[Declaration]) -> tuple[Owner, ...]:
    return tuple(dict.fromkeys(owner for each in declarations for owner in each.owners))


def _with_uid(body: Mapping[str, Any]) -> Json:
    """Objects of files may have none, and name no namespace."""
    metadata = {**mapping(body.get("metadata"))}
    metadata["namespace"] = metadata.get("namespace") or "default"
    uid = metadata.get("uid") or f"{body.get('apiVersion')}/{body.get('kind')}/{metadata['namespace']}/{metadata.get('name')}"
    return {**body, "metadata": {**metadata, "uid": uid}}


def _judge(each: _Standing, judge: Judge, found: StandingVerdicts) -> None:
    parts: list[tuple[Declaration, Verdict]] = []
    if each.is_own:
        verdict = judge.judge(each.body, each.declarations[0]).verdict
        parts.append((each.declarations[0], verdict))
    else:
        judgement = judge.judge_workload(each.body)
        if judgement is None:
            return
        verdict = judgement.workload.verdict
        parts += [
            (one.group.declaration, one.verdict) for one in judgement.workload.groups if one.group.declaration and one.verdict
        ]
    found.verdicts[each.subject] = verdict
    if parts and all(one.has_room for _, one in parts):
        pods = tuple(pod for declaration, one in parts if one.placement for pod in planned(declaration, one.placement))
        claim = Claim(uid=str(key_of(each.body)), generation=0, owners=each.owners, pods=pods)
        missing = judge.book.claims.missing(claim)
        if each.is_promised or (each.is_new and len(missing) == len(pods)):
            judge.book.claims.put(claim)
        _bind(each.moved, missing, judge)
    else:
        _bind(each.moved, (), judge)


def _bind(moved: Sequence[PodRecord], places: Sequence[ClaimedPod], judge: Judge) -> None:
    """Pods that lost their node go to these places, the largest first; those for which there is none wait."""
    by_size = sorted(moved, key=lambda each: _size(dict(each.requests)), reverse=True)
    there = sorted(places, key=lambda each: _size(each.requests), reverse=True)
    for record, place in zip_longest(by_size, there):
        if record is not None:
            bound = record if place is None else structs.replace(record, node=place.node, waiting=None)
            judge.book.put_pod(bound)


def _size(requests: Mapping[str, int]) -> int:
    return sum(requests[name] for name in counted_once(requests))
