"""One declaration, judged by the cluster as this process sees it now. Webhook and reconciler share it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shardgate.adapters.cluster_book import ClusterBook
from shardgate.adapters.disclosure import told
from shardgate.adapters.inference_deployments import read_inference_deployment
from shardgate.adapters.report import reference_of
from shardgate.adapters.workload_verdicts import JudgedWorkload, judged
from shardgate.adapters.workloads.registry import read_workload
from shardgate.api import GROUP
from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import HeldPod, Inventory
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND, Policy
from shardgate.domain.verdict import Verdict
from shardgate.domain.verify import verify

OWN_KIND_NAME = f"InferenceDeployment.{GROUP}"


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
        return told(self.verdict, self.inventory, self.policy.disclosure)

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
        return told(self.workload.verdict, self.inventory, self.policy.disclosure)

    @property
    def own_pods(self) -> tuple[HeldPod, ...]:
        """The workload's own pods."""
        return self.inventory.held_by([self.workload.subject.owner])


class Judge:
    """Reads declarations, and judges them by the book. ``freshness`` gives the age of the book and of a broken watch."""

    def __init__(self, book: ClusterBook, freshness: Callable[[], tuple[float, float]]) -> None:
        self.book, self._freshness = book, freshness

    def inventory(self) -> Inventory:
        """The cluster now."""
        age, broken = self._freshness()
        return self.book.inventory(time.monotonic(), age, broken)

    def declare(self, body: Mapping[str, Any]) -> Declaration:
        """What the object declares. Raises an ``ExceptionGroup`` of ``DeclarationError``."""
        return read_inference_deployment(body, self.book.known_profiles)

    def judge_workload(self, body: Mapping[str, Any], *, rolls_out: bool = False) -> WorkloadJudgement | None:
        """An object of another kind; ``None`` where it serves nothing that is judged. ``rolls_out``: its pods are replaced."""
        workload = read_workload(body, self.book.references)
        if workload is None:
            return None
        subject = workload.subject
        kind = f"{subject.kind}.{subject.api_version.rpartition('/')[0]}"
        policy = self.book.policy_for(subject.namespace, kind, FOREIGN_KIND)
        inventory = self.inventory()
        found = judged(workload, self.book.known_profiles, inventory, policy, rolls_out=rolls_out)
        if found is None:
            return None
        self.book.follows_all_pods |= any(each.placement.rules.demands for each in found.declarations)
        reference = reference_of(body.get("spec") or {}, found.verdict, policy)
        return WorkloadJudgement(workload=found, policy=policy, inventory=inventory, reference=reference)

    def judge(self, body: Mapping[str, Any], declaration: Declaration | None = None) -> Judgement:
        """Raises an ``ExceptionGroup`` of ``DeclarationError`` for a declaration that cannot be read."""
        declared = declaration or self.declare(body)
        self.book.follows_all_pods |= declared.placement.rules.demands
        policy = self.book.policy_for(declared.subject.namespace, OWN_KIND_NAME, OWN_KIND)
        inventory = self.inventory()
        verdict = verify(declared, inventory, policy)
        return Judgement(
            declaration=declared,
            policy=policy,
            inventory=inventory,
            verdict=verdict,
            reference=reference_of(body.get("spec") or {}, verdict, policy),
        )
