"""``make oracle [N=...] [SEED=...] [CASE=folder]``: Shardgate's placement against the real kube-scheduler, on random clusters.

Each question is answered by ``verify`` and then by the scheduler: what is said to fit is created, pinned to the nodes
of the example, and all of it must be bound; and without pins, as many whole replicas must be bound as were said to
fit. Where pods differ (a leader and its workers) what is said not to fit is tried in five orders, none of which may bind
all. What fits and the scheduler's own order misses is counted apart, and the answer must have said that it may.
A disagreement is kept as a case (``workload.yaml``, ``nodes.yaml``, and what only the pods say) in the folder that is
named at the end. ``CASE=folder`` asks it again; moved to ``tests/oracle/kept/`` it is asked in every ``make test``.
Exit code: 1 if there was any.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deploy/local"), str(ROOT / "tests"), str(Path(__file__).parent)]

from questions import OWN, Question, kept_question, question
from scheduler import NAMESPACE, Arena, place

from builders import an_inventory
from controlplane.plane import ControlPlane, control_plane
from shardgate.adapters.pod_templates import read_pod_template
from shardgate.adapters.quantities import resources
from shardgate.adapters.referred_workloads import read_declaration
from shardgate.domain.declaration import Declaration, LeaderWish
from shardgate.domain.placement import Placement
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.verify import verify
from shardgate.shells.cluster import Cluster

Json = dict[str, Any]

BATCH = 60
DISAGREED = ROOT / ".cache/oracle"
KEPT = Path(__file__).parent / "kept"
"""Questions that were once answered wrongly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What Shardgate says to a question."""

    question: Question
    placement: Placement
    pods_per_replica: int
    replicas: int
    is_exact: bool
    """All pods are alike, and no rule between them depends on who was first."""

    @property
    def pods(self) -> int:
        """Over all replicas."""
        return self.pods_per_replica * self.replicas

    def agrees(self, bound: int) -> bool:
        """Whether the scheduler, left to itself, may have bound so many of these pods."""
        if self.placement.feasible:
            return bound == self.pods or not self.placement.in_any_order
        whole = bound // self.pods_per_replica
        fits = self.placement.replicas_that_fit
        return bound < self.pods and (whole == fits if self.is_exact else whole <= fits or self.question.leader is not None)


def declared(asked: Question) -> Declaration:
    """The workload, with what its pods' template says besides."""
    declaration = read_declaration(asked.workload)
    if asked.extras:
        template = read_pod_template(pod_of(asked, "any", None), NAMESPACE, "pod")
        return replace(declaration, placement=template.wish)
    if asked.leader is not None:
        leader = LeaderWish(gpus=asked.leader["gpus"], requests=resources(asked.leader["requests"], up=True))
        return replace(declaration, gpus=replace(declaration.gpus, leader=leader))
    return declaration


def answered(asked: Question) -> Answer | None:
    """By the way that every shell takes; nothing where the search had no answer."""
    declaration = declared(asked)
    verdict = verify(declaration, an_inventory(*asked.nodes, *asked.held), OWN_KIND)
    assert verdict.placement is not None
    assert verdict.required.pods_per_replica is not None
    if verdict.placement.is_search_spent:
        return None
    rules = declaration.placement.rules
    return Answer(
        question=asked,
        placement=verdict.placement,
        pods_per_replica=verdict.required.pods_per_replica,
        replicas=declaration.replicas,
        is_exact=asked.leader is None and not rules.affinity and len(rules.spread) + len(rules.anti_affinity) <= 1,
    )


def pod_of(asked: Question, name: str, node: str | None, *, leads: bool = False) -> Json:
    """A pod as the workload's controller would make it, pinned to a node where one is named."""
    spec = asked.workload["spec"]
    placement, leader = spec["placement"], asked.leader if leads else None
    gpus = {"nvidia.com/gpu": str(spec["gpus"]["perPod"] if leader is None else leader["gpus"])}
    requests = {**(placement.get("requests", {}) if leader is None else leader["requests"]), **gpus}
    limits = {**gpus, **{key: value for key, value in requests.items() if "/" in key}}
    container = {"name": "main", "image": "none", "resources": {"requests": requests, "limits": limits}}
    extras = dict(asked.extras)
    if ports := extras.pop("ports", None):
        container["ports"] = ports
    pod: Json = {"containers": [container], "tolerations": placement.get("tolerations", []), **extras}
    for key in ("nodeSelector", "affinity"):
        if key in placement:
            pod[key] = placement[key]
    if node is not None:
        pin = [{"key": "metadata.name", "operator": "In", "values": [node]}]
        required = "requiredDuringSchedulingIgnoredDuringExecution"
        stated = pod.get("affinity", {}).get("nodeAffinity", {}).get(required, {}).get("nodeSelectorTerms", [{}])
        terms = [{**term, "matchFields": pin} for term in stated]
        pod["affinity"] = {**pod.get("affinity", {}), "nodeAffinity": {required: {"nodeSelectorTerms": terms}}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": OWN}, "spec": pod}


ORDERS = 5
"""In which pods that differ are tried, where they are said not to fit."""


def arenas_of(answer: Answer, seed: int) -> list[Arena]:
    """Unpinned, in several orders where they matter; and pinned to the example, where all is said to fit."""
    asked = answer.question
    pods = [
        pod_of(asked, f"p{replica}-{pod}", None, leads=pod == 0)
        for replica in range(answer.replicas)
        for pod in range(answer.pods_per_replica)
    ]
    orders = [pods]
    if asked.leader is not None and not answer.placement.feasible:
        orders = [random.Random(f"{seed}/{asked.number}/{order}").sample(pods, len(pods)) for order in range(ORDERS)]
    free = [
        Arena(name=f"u{order}-{asked.number}", nodes=asked.nodes, held=asked.held, agrees=answer.agrees, pods=each)
        for order, each in enumerate(orders)
    ]
    if not answer.placement.feasible:
        return free
    name = f"f{asked.number}"
    pods = [
        pod_of(asked, f"p{placed.replica}-{placed.pod}", f"{name}-{placed.node}", leads=placed.pod == 0)
        for placed in answer.placement.pods
    ]
    nodes = _spread_by_own_labels(answer, name, pods) if "topologySpreadConstraints" in asked.extras else asked.nodes
    pinned = Arena(name=name, nodes=nodes, held=asked.held, pods=pods, agrees=lambda bound: bound == answer.pods)
    return [*free, pinned]


def _spread_by_own_labels(answer: Answer, arena: str, pods: list[Json]) -> list[Json]:
    """The nodes, those that the pods' selector and affinity let in labelled anew; the pods are spread by those labels.

    A pin leaves one domain to each pod, and would let any skew pass: domains are told by labels instead.
    """
    wish = declared(answer.question).placement
    let_in = {
        node.name for node in an_inventory(*answer.question.nodes).present if node.is_selected(wish.node_selector, wish.node_terms)
    }
    nodes = copy.deepcopy(answer.question.nodes)
    for pod in pods:
        pod["spec"]["topologySpreadConstraints"] = [
            {**each, "topologyKey": f"{arena}.example.com/{each['topologyKey'].rpartition('/')[2]}", "nodeAffinityPolicy": "Ignore"}
            for each in pod["spec"]["topologySpreadConstraints"]
        ]
    for node in nodes:
        labels = node["metadata"]["labels"]
        if node["metadata"]["name"] in let_in:
            labels |= {f"{arena}.example.com/{key.rpartition('/')[2]}": value for key, value in labels.items()}
    return nodes


async def compare(plane: ControlPlane, seed: int, questions: Sequence[Question], tally: Counter[str]) -> list[tuple[Answer, str]]:
    """Ask both about each; returns what they disagree on. The seed shuffles the orders that are tried."""
    configuration = kubernetes_client.Configuration()
    kubernetes_config.load_kube_config(str(plane.kubeconfig), client_configuration=configuration)
    disagreements: list[tuple[Answer, str]] = []
    async with Cluster(configuration) as cluster:
        for start in range(0, len(questions), BATCH):
            asked = questions[start : start + BATCH]
            answers = [answer for each in asked if (answer := answered(each)) is not None]
            tally["undecided"] += len(asked) - len(answers)
            arenas = {arena.name: (answer, arena) for answer in answers for arena in arenas_of(answer, seed)}
            found = await place(cluster, [arena for _, arena in arenas.values()])
            for name, (answer, arena) in arenas.items():
                bound = sum(map(bool, found[name]))
                tally["feasible" if answer.placement.feasible else "infeasible"] += name.startswith("u0")
                tally["missed"] += name.startswith("u") and answer.placement.feasible and bound < answer.pods
                if not arena.agrees(bound):
                    said = "fits" if answer.placement.feasible else f"{answer.placement.replicas_that_fit} replicas fit"
                    how = "pinned" if name.startswith("f") else "unpinned"
                    disagreements.append((answer, f"{said}; the scheduler bound {bound} of {answer.pods} pods, {how}"))
            print(f"  {start + len(asked)} of {len(questions)}, {len(disagreements)} disagreements", file=sys.stderr)
    return disagreements


def main() -> int:
    """Ask, compare, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=500, help="of questions")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=Path, metavar="FOLDER", help="one that was kept, instead of random ones")
    options = parser.parse_args()
    tally: Counter[str] = Counter()
    if options.case is None:
        questions = [question(options.seed, number) for number in range(options.number)]
    else:
        questions = [kept_question(options.case)]
    started = time.monotonic()
    with control_plane(lambda text: print(text, file=sys.stderr), large=True) as plane:
        plane.kubectl("create", "namespace", NAMESPACE)
        disagreements = asyncio.run(compare(plane, options.seed, questions, tally))
    for answer, what in disagreements:
        folder = DISAGREED / f"{options.seed}-{answer.question.number}"
        answer.question.keep(folder)
        print(f"question {answer.question.number}: Shardgate says {what}: {folder}")
    print(
        f"{len(questions)} questions (seed {options.seed}) in {time.monotonic() - started:.0f} s: {tally['feasible']} fit, "
        f"{tally['infeasible']} do not, {tally['undecided']} undecided; {tally['missed']} that fit were missed by the "
        f"scheduler's own order, as was said; {len(disagreements)} disagreements"
    )
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
