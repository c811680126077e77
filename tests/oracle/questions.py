"""Random clusters, and deployments to be placed on them: the questions that Shardgate and kube-scheduler are both asked.

Everything that placement looks at varies: products, GPUs in use, taints, selectors, affinities, other resources, pod
room. A question is plain manifests, so that it can be kept and replayed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

GPU, ODD = "nvidia.com/gpu", "rdma/hca"
PRODUCTS = ("NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-SXM4-80GB", "Tesla-T4")
ZONE, TIER = "topology.kubernetes.io/zone", "example.com/tier"
OWN = {"shardgate.io/inference-deployment": "llama"}
"""What the deployment's own pods carry."""
OTHER = {"shardgate.io/inference-deployment": "other"}
"""What some of the pods that are bound already carry."""
PORTS = (8000, 8080, 9000)
TAINTS: tuple[Json, ...] = (
    {"key": "dedicated", "value": "inference", "effect": "NoSchedule"},
    {"key": "dedicated", "value": "training", "effect": "NoSchedule"},
    {"key": "team", "value": "a", "effect": "NoExecute"},
    {"key": GPU, "value": "present", "effect": "NoSchedule"},
    {"key": "spot", "value": "", "effect": "PreferNoSchedule"},
)
TOLERATIONS: tuple[Json, ...] = (
    {"key": "dedicated", "operator": "Equal", "value": "inference", "effect": "NoSchedule"},
    {"key": "dedicated", "operator": "Exists"},
    {"key": "team", "value": "a"},
    {"key": "team", "operator": "Equal", "value": "b", "effect": "NoExecute"},
    {"key": GPU, "operator": "Exists", "effect": "NoSchedule"},
    {"operator": "Exists", "effect": "NoExecute"},
    {"operator": "Exists"},
    {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A cluster and a deployment."""

    number: int
    nodes: list[Json]
    held: list[Json]
    """Pods that are bound already."""
    workload: Json
    extras: Json
    """Fields of the pods' template that the workload cannot say itself; empty where it says all."""
    leader: Json | None
    """``gpus`` and ``requests`` of a replica's first pod, where it differs."""

    def keep(self, folder: Path) -> None:
        """Written so that it can be asked again: ``kept_question`` reads it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "workload.yaml").write_text(yaml.safe_dump(self.workload, sort_keys=False))
        (folder / "nodes.yaml").write_text(yaml.safe_dump_all([*self.nodes, *self.held], sort_keys=False))
        (folder / "besides.yaml").write_text(yaml.safe_dump({"extras": self.extras, "leader": self.leader}))


def kept_question(folder: Path) -> Question:
    """What ``Question.keep`` wrote; its number ends the folder's name."""
    objects = list(yaml.safe_load_all((folder / "nodes.yaml").read_text()))
    return Question(
        number=int(folder.name.rpartition("-")[2]),
        nodes=[each for each in objects if each["kind"] == "Node"],
        held=[each for each in objects if each["kind"] == "Pod"],
        workload=yaml.safe_load((folder / "workload.yaml").read_text()),
        **yaml.safe_load((folder / "besides.yaml").read_text()),
    )


def question(seed: int, number: int) -> Question:
    """The same for the same seed and number, on every machine."""
    dice = random.Random(f"{seed}/{number}")  # reproducible, not secret
    nodes = [_node(dice, f"n{number}-{index}") for index in range(dice.randint(1, 8))]
    held = [_held(dice, f"h{number}-{index}", dice.choice(nodes)["metadata"]["name"]) for index in range(dice.randint(0, 8))]
    workload = _workload(dice, [node["metadata"]["labels"]["kubernetes.io/hostname"] for node in nodes])
    leader = _leader(dice, workload) if dice.random() < 0.15 else None
    extras = _extras(dice) if leader is None and dice.random() < 0.4 else {}
    return Question(number=number, nodes=nodes, held=held, workload=workload, extras=extras, leader=leader)


def _leader(dice: random.Random, workload: Json) -> Json:
    """A leader that asks for other amounts; rules between pods go with like pods alone."""
    spec = workload["spec"]
    gpus, pods = dice.choice((1, 2, 4, 8)), dice.choice((2, 2, 3))
    spec["strategy"] = {"tensor": 1, "pipeline": gpus + spec["gpus"]["perPod"] * (pods - 1)}
    for kind in ("podAffinity", "podAntiAffinity"):
        spec["placement"].get("affinity", {}).pop(kind, None)
    return {"gpus": gpus, "requests": {"cpu": dice.choice(("1", "3", "12")), "memory": dice.choice(("4Gi", "100Gi"))}}


def _extras(dice: random.Random) -> Json:
    """Ports of the host, and a spread over zones, hosts or tiers."""
    extras: Json = {}
    if dice.random() < 0.4:
        extras["ports"] = [{"containerPort": port, "hostPort": port} for port in dice.sample(PORTS, dice.choice((1, 2)))]
    if dice.random() < 0.8:
        extras["topologySpreadConstraints"] = [
            {
                "maxSkew": dice.choice((1, 1, 2, 3)),
                "topologyKey": key,
                "whenUnsatisfiable": dice.choice(("DoNotSchedule", "DoNotSchedule", "DoNotSchedule", "ScheduleAnyway")),
                "labelSelector": {"matchLabels": dice.choice((OWN, OWN, OWN, OTHER))},
                **({"minDomains": dice.choice((1, 2, 3))} if dice.random() < 0.2 else {}),
                **({"nodeTaintsPolicy": "Honor"} if dice.random() < 0.3 else {}),
            }
            for key in dice.sample(("kubernetes.io/hostname", ZONE, TIER), dice.choice((1, 1, 2)))
        ]
        for each in extras["topologySpreadConstraints"]:
            if each["whenUnsatisfiable"] != "DoNotSchedule":
                each.pop("minDomains", None)
    return extras


def _node(dice: random.Random, name: str) -> Json:
    labels = {
        "kubernetes.io/hostname": name if dice.random() < 0.9 else f"host-of-{name}",
        "nvidia.com/gpu.product": dice.choice(PRODUCTS),
        ZONE: dice.choice("ab"),
    }
    if dice.random() < 0.7:
        labels[TIER] = str(dice.choice((1, 5, 10, "gold")))
    amounts = {
        "cpu": dice.choice(("8", "16", "63500m", "96")),
        "memory": dice.choice(("32Gi", "128Gi", "1Ti")),
        "pods": dice.choice(("3", "6", "110", "110")),
        GPU: str(dice.choice((0, 2, 4, 8, 8, 8))),
    }
    if amounts[GPU] == "0" and dice.random() < 0.7:
        del amounts[GPU]
    if dice.random() < 0.4:
        amounts[ODD] = str(dice.randint(0, 8))
    taints = {(each["key"], each["effect"]): each for each in dice.sample(TAINTS, dice.choice((0, 0, 0, 0, 1, 2)))}
    spec: Json = {"taints": list(taints.values())}
    if dice.random() < 0.1:
        spec["unschedulable"] = True
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def _held(dice: random.Random, name: str, node: str) -> Json:
    def container(label: str, **more: Any) -> Json:
        requests = {"cpu": dice.choice(("100m", "2", "6"))}
        if dice.random() < 0.5:
            requests["memory"] = dice.choice(("1Gi", "20G", "100Mi"))
        gpus = {GPU: str(dice.choice((1, 1, 2, 4)))} if dice.random() < 0.6 else {}
        return {"name": label, "image": "none", "resources": {"requests": {**requests, **gpus}, "limits": gpus}, **more}

    spec: Json = {"nodeName": node, "containers": [container("main")]}
    if dice.random() < 0.3:
        spec["containers"].append(container("second"))
    if dice.random() < 0.3:
        spec["initContainers"] = [
            container("sidecar", restartPolicy="Always") if dice.random() < 0.5 else container("first"),
            container("then"),
        ]
    if dice.random() < 0.1:
        term: Json = {"topologyKey": dice.choice(("kubernetes.io/hostname", ZONE)), "labelSelector": {"matchLabels": OWN}}
        if dice.random() < 0.3:
            where = dice.choice(("oracle", "elsewhere"))
            term["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": where}}
        spec["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    labels = OTHER if dice.random() < 0.3 else {}
    if dice.random() < 0.2:
        port = dice.choice(PORTS)
        spec["containers"][0]["ports"] = [{"containerPort": port, "hostPort": port, "protocol": dice.choice(("TCP", "TCP", "UDP"))}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "oracle", "labels": labels}, "spec": spec}


def _workload(dice: random.Random, hosts: list[str]) -> Json:
    gpus, pods = dice.choice((1, 1, 2, 2, 4, 8)), dice.choice((1, 1, 1, 2, 3, 4))
    requests: Json = {}
    for name, amounts in (("cpu", ("1", "3", "7500m", "12")), ("memory", ("4Gi", "30Gi", "100Gi")), (ODD, ("1", "2", "4"))):
        if dice.random() < (0.1 if name == ODD else 0.5):
            requests[name] = dice.choice(amounts)
    placement: Json = {"requests": requests, "tolerations": dice.sample(TOLERATIONS, dice.choice((0, 1, 2, 3)))}
    if dice.random() < 0.15:
        placement["nodeSelector"] = dict(
            dice.sample([(ZONE, dice.choice("ab")), (TIER, "5"), ("nvidia.com/gpu.product", dice.choice(PRODUCTS))], 1)
        )
    if dice.random() < 0.3:
        terms = [_term(dice, hosts) for _ in range(dice.randint(1, 3))]
        required = {"nodeSelectorTerms": terms}
        placement["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    rules = _pod_rules(dice)
    if rules:
        placement["affinity"] = {**placement.get("affinity", {}), **rules}
    return {
        "apiVersion": "shardgate.io/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": "llama", "namespace": "oracle"},
        "spec": {
            "model": {"name": "acme/of-unknown-size"},
            "engine": {"name": "other"},
            "strategy": {"tensor": gpus, "pipeline": pods},
            "replicas": dice.choice((1, 1, 1, 2, 2, 3, 4)),
            "gpus": {"perPod": gpus},
            "placement": placement,
        },
    }


def _pod_rules(dice: random.Random) -> Json:
    """Affinity and anti-affinity between pods, to its own and to others."""
    rules: Json = {}
    for kind, chance in (("podAffinity", 0.1), ("podAntiAffinity", 0.2)):
        if dice.random() < chance:
            key = dice.choice(("kubernetes.io/hostname", ZONE, TIER))
            labels = dice.choice((OWN, OWN, OTHER))
            term = {"topologyKey": key, "labelSelector": {"matchLabels": labels}}
            rules[kind] = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    return rules


def _term(dice: random.Random, hosts: list[str]) -> Json:
    def expression() -> Json:
        key = dice.choice((ZONE, TIER, "nvidia.com/gpu.product", "example.com/absent", "kubernetes.io/hostname"))
        operator = dice.choice(("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"))
        if operator in ("Exists", "DoesNotExist"):
            return {"key": key, "operator": operator}
        if operator in ("Gt", "Lt"):
            return {"key": TIER, "operator": operator, "values": [str(dice.choice((0, 4, 5, 9)))]}
        values = {ZONE: ["a", "b", "c"], TIER: ["1", "5", "gold"], "nvidia.com/gpu.product": list(PRODUCTS)}.get(
            key, [*hosts, "x", "y"]
        )
        return {"key": key, "operator": operator, "values": dice.sample(values, dice.randint(1, 2))}

    return {"matchExpressions": [expression() for _ in range(dice.randint(1, 2))]}
