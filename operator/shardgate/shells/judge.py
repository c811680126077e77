"""One declaration, judged by the cluster as this process sees it now. Webhook and reconciler share it."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shardgate.adapters.adopted_pods import adopted
from shardgate.adapters.claimed import PodGpus, gpus_of_pods
from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.disclosure import told
from shardgate.adapters.inference_deployments import content_of
from shardgate.adapters.referred_workloads import read_declaration
from shardgate.adapters.report import reference_of
from shardgate.adapters.standing_workloads import StandingWorkloads, is_finished
from shardgate.adapters.workload_declarations import GroupDeclaration, declare
from shardgate.adapters.workload_verdicts import JudgedWorkload, judged_groups
from shardgate.adapters.workloads.registry import read_workload
from shardgate.adapters.workloads.values import mapping
from shardgate.domain.declaration import Declaration, Subject
from shardgate.domain.inventory import HeldPod, Inventory, Owner
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND, Policy
from shardgate.domain.situation import is_stale, is_too_old
from shardgate.domain.verdict import Verdict
from shardgate.domain.verify import verify
from shardgate.shells.chosen_pods import ChosenPods
from shardgate.shells.time_limit import within_time

MOST_RECENT = 512
MOST_RECENT_BYTES = 32 * 1024
"""Larger specs are read anew each time: whoever may create objects chooses how many of them, and how large, are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict, with what it was reached by."""

    declaration: Declaration
    policy: Policy
    inventory: Inventory
    verdict: Verdict
    reference: str

    @property
    def told(self) -> Verdict:
        """The verdict as its users may read it."""
        return told(self.verdict, self.inventory, self.policy)

    @property
    def own_pods(self) -> tuple[HeldPod, ...]:
        """The declaration's own pods."""
        return self.inventory.held_by(self.declaration.owners)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadJudgement:
    """The same for an object of another kind."""

    workload: JudgedWorkload
    policy: Policy
    inventory: Inventory
    reference: str

    @property
    def told(self) -> Verdict:
        """The verdict as its users may read it."""
        return told(self.workload.verdict, self.inventory, self.policy)

    @property
    def own_pods(self) -> tuple[HeldPod, ...]:
        """The workload's own pods."""
        return self.inventory.held_by([owner for each in self.workload.declarations for owner in each.owners])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A workload that stands, as it was read from its object and what that refers to."""

    body: Mapping[str, Any]
    facts: tuple[int, int]
    subject: Subject | None
    groups: list[GroupDeclaration]


class Recent:
    """What was read and judged a moment ago. One ``kubectl apply`` asks two webhooks, an update about what stood there, too.

    A judgement is kept for as long as nothing changed that another one could rest on; its age is that of the first.
    """

    def __init__(self) -> None:
        self._declarations: OrderedDict[bytes, Declaration] = OrderedDict()
        """By a digest of what the object says."""
        self._kept: set[int] = set()
        """Identities of those."""
        self._judgements: dict[int, Judgement] = {}
        """By the identity of the declaration, which the judgement keeps alive."""
        self._profiles = -1
        self._version: tuple[int, ...] = ()

    def declaration(
        self, body: Mapping[str, Any], profiles_version: int, declare: Callable[[Mapping[str, Any]], Declaration]
    ) -> Declaration:
        """What the object declares, read anew if need be. Raises what ``declare`` does."""
        written = content_of(body)
        if written is None or len(written) > MOST_RECENT_BYTES:
            return declare(body)
        content = hashlib.blake2b(written).digest()
        if profiles_version != self._profiles:
            self._declarations.clear()
            self._kept.clear()
            self._profiles = profiles_version
        found = self._declarations.get(content)
        if found is not None:
            self._declarations.move_to_end(content)
            return found
        found = self._declarations[content] = declare(body)
        self._kept.add(id(found))
        if len(self._declarations) > MOST_RECENT:
            _, oldest = self._declarations.popitem(last=False)
            self._kept.discard(id(oldest))
            self._judgements.pop(id(oldest), None)
        return found

    def holds(self, declaration: Declaration) -> bool:
        """Whether it is kept."""
        return id(declaration) in self._kept

    def judgement(self, declaration: Declaration, policy: Policy, version: tuple[int, ...]) -> Judgement | None:
        """What was found for it at this version of everything."""
        if version != self._version:
            self._judgements.clear()
            self._version = version
        found = self._judgements.get(id(declaration))
        return found if found is not None and found.policy == policy else None

    def keep(self, judgement: Judgement, version: tuple[int, ...]) -> None:
        """For whoever asks next."""
        if version != self._version or len(self._judgements) >= 2 * MOST_RECENT:
            self._judgements.clear()
            self._version = version
        self._judgements[id(judgement.declaration)] = judgement


class Judge:
    """Reads declarations, and judges them by the book. ``freshness`` gives the age of the book and of a broken watch."""

    def __init__(
        self, book: ClusterBook, freshness: Callable[[], tuple[float, float]], workloads: StandingWorkloads | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """``clock``: the steady clock, in seconds, that the book is written by."""
        self.book, self._freshness, self._clock = book, freshness, clock
        self.workloads = StandingWorkloads() if workloads is None else workloads  # an empty one is falsy
        self._read: dict[str, _Read] = {}
        self._recent = Recent()
        self.chosen = ChosenPods()

    @property
    def version(self) -> tuple[int, ...]:
        """Grows with everything that verdicts of others may rest on."""
        return self.book.version, self.book.references.version, self.workloads.referrals

    def inventory(self) -> Inventory:
        """The cluster now."""
        age, broken = self._freshness()
        return self.book.inventory(self._clock(), age, broken)

    def declare(self, body: Mapping[str, Any]) -> Declaration:
        """What the object declares. Raises an ``ExceptionGroup`` of ``DeclarationError``."""
        return read_declaration(self.chosen.believed(body), self.book.rules.known_profiles, self._groups_named)

    def _groups_named(self, api_version: str, kind: str, namespace: str, name: str) -> list[GroupDeclaration] | None:
        body = self.workloads.named(api_version.rpartition("/")[0], kind, namespace, name)
        if body is None:
            return None
        subject, groups = self._declared(body, rolls_out=False)
        return None if subject is None else self._with_owners(groups, body)

    def judge_workload(self, body: Mapping[str, Any], *, rolls_out: bool = False) -> WorkloadJudgement | None:
        """An object of another kind; ``None`` where it serves nothing that is judged. ``rolls_out``: its pods are replaced."""
        subject, groups = self._declared(body, rolls_out=rolls_out)
        if subject is None:
            return None
        policy = self.book.rules.policy_for(subject.namespace, subject.kind_and_group, FOREIGN_KIND)
        inventory = self.inventory()
        found = within_time(judged_groups, subject, self._with_owners(groups, body), inventory, policy)
        if found is None:
            return None
        self.book.follows_all_pods |= any(each.placement.rules.demands for each in found.declarations)
        reference = reference_of(body.get("spec") or {}, found.verdict, policy)
        return WorkloadJudgement(workload=found, policy=policy, inventory=inventory, reference=reference)

    def _declared(self, body: Mapping[str, Any], *, rolls_out: bool) -> tuple[Subject | None, list[GroupDeclaration]]:
        """What a workload declares; of one that stands it is kept until it, or what it refers to, changes."""
        uid = str((body.get("metadata") or {}).get("uid") or "")
        stands = not rolls_out and self.workloads.get(uid) is body
        facts = (self.book.references.version, self.book.rules.profiles_version)
        known = self._read.get(uid) if stands else None
        if known is not None and known.body is body and known.facts == facts:
            return known.subject, known.groups
        resolved = self._with_template(body)
        stands = stands and resolved is body
        workload = within_time(read_workload, resolved, self.book.references)
        is_judged = workload is not None and workload.is_judged and not is_finished(body)
        profiles = self.book.rules.known_profiles
        groups = declare(workload, profiles, rolls_out=rolls_out) if workload is not None and is_judged else []
        subject = workload.subject if workload is not None else None
        if stands:
            if len(self._read) > 2 * len(self.workloads) + 100:
                self._read.clear()  # most are of what went
            self._read[uid] = _Read(body=body, facts=facts, subject=subject, groups=groups)
        return subject, groups

    def _with_template(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Argo's Rollout may take its pods from a Deployment that it names."""
        spec = body.get("spec")
        reference = spec.get("workloadRef") if isinstance(spec, Mapping) and body.get("kind") == "Rollout" else None
        if not isinstance(spec, Mapping) or not isinstance(reference, Mapping):
            return body
        group, namespace = str(reference.get("apiVersion") or "").rpartition("/")[0], (body.get("metadata") or {}).get("namespace")
        named = self.workloads.named(group, str(reference.get("kind")), str(namespace or ""), str(reference.get("name")))
        template = mapping(mapping(named).get("spec")).get("template")
        return {**body, "spec": {**spec, "template": template}} if template is not None else body

    def _with_owners(self, groups: list[GroupDeclaration], body: Mapping[str, Any]) -> list[GroupDeclaration]:
        """Pods of what was made for it are its own; for a while so are those of what was made for one of its name before."""
        makes = self.workloads.owners_made_for(str((body.get("metadata") or {}).get("uid") or ""))
        makes += tuple(each for each in self.workloads.owners_left_by(body, self._clock()) if each not in makes)
        if not makes:
            return groups
        return [
            replace(each, declaration=replace(each.declaration, makes=each.declaration.makes + makes))
            if each.declaration is not None
            else each
            for each in groups
        ]

    def predecessor(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What stood under the name of an object that is made now, until not long ago."""
        return self.workloads.predecessor(body, self._clock())

    def adopted(self, parts: Sequence[tuple[Declaration, Verdict]], stood: Declaration | None = None) -> list[HeldPod]:
        """Own pods that were here before their object, and run what it declares as far as they tell.

        ``stood``: what it declared before; then those that surely run what it declares now.
        """
        own = {pod.uid: pod for declaration, _ in parts for owner in declaration.owners for pod in self.book.own_pods(owner)}
        pods = [(pod, self.book.runs(pod.uid)) for pod in own.values() if pod.ready and not pod.is_terminating]
        return [each.held() for each in within_time(adopted, pods, parts, self.book.rules.known_profiles, stood)]

    def declarations(self) -> Iterator[Declaration]:
        """Of workloads of other kinds that stand and are judged themselves."""
        for uid in self.workloads.all_uids():
            body = self.workloads.get(uid)
            if body is None or self.is_judged_elsewhere(body):
                continue
            yield from self.declared_by(body)

    def declared_by(self, body: Mapping[str, Any]) -> list[Declaration]:
        """By a workload of another kind that stands: its groups that can be judged."""
        _, groups = self._declared(body, rolls_out=False)
        return [each.declaration for each in self._with_owners(groups, body) if each.declaration is not None]

    def asked_by(self, body: Mapping[str, Any]) -> tuple[PodGpus, ...] | None:
        """GPUs of each pod that a workload of another kind asks for; ``None`` where not all are stated."""
        subject, groups = self._declared(body, rolls_out=False)
        pods = [None if each.declaration is None else gpus_of_pods(each.declaration) for each in groups]
        return None if subject is None or None in pods else tuple(pod for each in pods for pod in each or ())

    def is_made_for_another(self, body: Mapping[str, Any]) -> bool:
        """Whether its controller's owner stands and is judged in its stead."""

        def is_judged(owner: dict[str, Any]) -> bool:
            subject, groups = self._declared(owner, rolls_out=False)
            return subject is not None and bool(groups)

        def owners_of_pod(uid: str) -> tuple[Owner, ...]:
            pod = self.book.pods.get(uid)
            return () if pod is None else pod.owners

        return self.workloads.is_made_for_another(body, is_judged, owners_of_pod)

    def is_judged_elsewhere(self, body: Mapping[str, Any]) -> bool:
        """Whether another object that stands is judged in this one's stead: its owner, or a declaration that names it."""
        return self.is_made_for_another(body) or self.workloads.is_taken_over(body)

    def judge(self, body: Mapping[str, Any], declaration: Declaration | None = None) -> Judgement:
        """Raises an ``ExceptionGroup`` of ``DeclarationError`` for a declaration that cannot be read."""
        declared = declaration or self._recent.declaration(
            self.chosen.believed(body), self.book.rules.profiles_version, self.declare
        )
        self.book.follows_all_pods |= declared.placement.rules.demands
        policy = self.book.rules.policy_for(declared.subject.namespace, declared.subject.kind_and_group, OWN_KIND)
        self.book.settle(self._clock())
        known = self._recent.judgement(declared, policy, self.version)
        if known is not None and not is_too_old(*self._freshness(), policy):
            return known
        inventory = self.inventory()
        verdict = within_time(verify, declared, inventory, policy)
        found = Judgement(
            declaration=declared,
            policy=policy,
            inventory=inventory,
            verdict=verdict,
            reference=reference_of(body.get("spec") or {}, verdict, policy),
        )
        stands = declaration is not None
        if (stands or self._recent.holds(declared)) and not is_stale(inventory, policy):
            self._recent.keep(found, self.version)
        return found
