"""``make oracle [N=...] [SEED=...]``: Shardgate's placement against the real kube-scheduler, on random clusters.

Each question is answered by ``verify`` and then by the scheduler: what is said to fit is created, pinned to the nodes
of the example, and all of it must be bound; and without pins, as many whole replicas must be bound as were said to
fit. A disagreement is kept as a case (``workload.yaml``, ``nodes.yaml``) in the folder that is named at the end.
Exit code: 1 if there was any.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deploy/local"), str(ROOT / "tests"), str(Path(__file__).parent)]

from questions import OWN, Question, question
from scheduler import NAMESPACE, Arena, place

from builders import an_inventory
from controlplane.plane import ControlPlane, control_plane
from shardgate.adapters.inference_deployments import read_inference_deployment
from shardgate.domain.placement import Placement
from shardgate.domain.policy import OWN_KIND
from shardgate.domain.verify import verify
from shardgate.shells.cluster import Cluster

Json = dict[str, Any]

BATCH = 60
KEPT = ROOT / ".cache/oracle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What Shardgate says to a question."""

    question: Question
    placement: Placement
    pods_per_replica: int
    replicas: int

    @property
    def pods(self) -> int:
        """Over all replicas."""
        return self.pods_per_replica * self.replicas

    def agrees(self, bound: int) -> bool:
        """Whether the scheduler, left to itself, may have bound so many of these equal pods."""
        if self.placement.feasible:
            return bound == self.pods
        return bound < self.pods and bound // self.pods_per_replica == self.placement.replicas_that_fit


def answered(asked: Question) -> Answer:
    """By the way that every shell takes."""
    declaration = read_inference_deployment(asked.workload)
    verdict = verify(declaration, an_inventory(*asked.nodes, *asked.held), OWN_KIND)
    assert verdict.placement is not None
    assert verdict.required.pods_per_replica is not None
    return Answer(
        question=asked,
        placement=verdict.placement,
        pods_per_replica=verdict.required.pods_per_replica,
        replicas=declaration.replicas,
    )


def pod_of(workload: Json, name: str, node: str | None) -> Json:
    """A pod as the workload's controller would make it, pinned to a node where one is named."""
    spec = workload["spec"]
    placement, gpus = spec["placement"], {"nvidia.com/gpu": str(spec["gpus"]["perPod"])}
    requests = {**placement.get("requests", {}), **gpus}
    limits = {**gpus, **{key: value for key, value in requests.items() if "/" in key}}
    pod: Json = {
        "containers": [{"name": "main", "image": "none", "resources": {"requests": requests, "limits": limits}}],
        "tolerations": placement.get("tolerations", []),
    }
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


def arenas_of(answer: Answer) -> list[Arena]:
    """Unpinned; and pinned to the example, where all is said to fit."""
    asked = answer.question
    free = Arena(
        name=f"u{asked.number}", nodes=asked.nodes, held=asked.held, agrees=answer.agrees,
        pods=[pod_of(asked.workload, f"p{index}", None) for index in range(answer.pods)],
    )  # fmt: skip
    if not answer.placement.feasible:
        return [free]
    name = f"f{asked.number}"
    pods = [pod_of(asked.workload, f"p{placed.replica}-{placed.pod}", f"{name}-{placed.node}") for placed in answer.placement.pods]
    pinned = Arena(name=name, nodes=asked.nodes, held=asked.held, pods=pods, agrees=lambda bound: bound == answer.pods)
    return [free, pinned]


async def compare(plane: ControlPlane, seed: int, numbers: range, tally: Counter[str]) -> list[tuple[Answer, str]]:
    """Ask both about each; returns what they disagree on."""
    configuration = kubernetes_client.Configuration()
    kubernetes_config.load_kube_config(str(plane.kubeconfig), client_configuration=configuration)
    disagreements: list[tuple[Answer, str]] = []
    async with Cluster(configuration) as cluster:
        for start in range(numbers.start, numbers.stop, BATCH):
            answers = [answered(question(seed, number)) for number in range(start, min(start + BATCH, numbers.stop))]
            arenas = {arena.name: (answer, arena) for answer in answers for arena in arenas_of(answer)}
            found = await place(cluster, [arena for _, arena in arenas.values()])
            for name, (answer, arena) in arenas.items():
                bound = sum(map(bool, found[name]))
                tally["feasible" if answer.placement.feasible else "infeasible"] += name.startswith("u")
                if not arena.agrees(bound):
                    said = "fits" if answer.placement.feasible else f"{answer.placement.replicas_that_fit} replicas fit"
                    how = "pinned" if name.startswith("f") else "unpinned"
                    disagreements.append((answer, f"{said}; the scheduler bound {bound} of {answer.pods} pods, {how}"))
            print(f"  {min(start + BATCH, numbers.stop)} of {numbers.stop}, {len(disagreements)} disagreements", file=sys.stderr)
    return disagreements


def keep(answer: Answer, seed: int) -> Path:
    """As a case that can be replayed."""
    folder = KEPT / f"{seed}-{answer.question.number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "workload.yaml").write_text(yaml.safe_dump(answer.question.workload, sort_keys=False))
    (folder / "nodes.yaml").write_text(yaml.safe_dump_all([*answer.question.nodes, *answer.question.held], sort_keys=False))
    return folder


def main() -> int:
    """Ask, compare, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=500, help="of questions")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    tally: Counter[str] = Counter()
    started = time.monotonic()
    with control_plane(lambda text: print(text, file=sys.stderr), large=True) as plane:
        plane.kubectl("create", "namespace", NAMESPACE)
        disagreements = asyncio.run(compare(plane, options.seed, range(options.number), tally))
    for answer, what in disagreements:
        print(f"question {answer.question.number}: Shardgate says {what}: {keep(answer, options.seed)}")
    print(
        f"{options.number} questions (seed {options.seed}) in {time.monotonic() - started:.0f} s: {tally['feasible']} fit, "
        f"{tally['infeasible']} do not; {len(disagreements)} disagreements"
    )
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
