"""What would serve a model best on a cluster, and what hardware it would need anywhere."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from shardgate.adapters.alternatives import BF16_FROM, alternatives_of, variants_of
from shardgate.adapters.gpus import find_product, known_gpus, normalised, product_of_id
from shardgate.adapters.performance_report import performance_json, ranged
from shardgate.adapters.report import declared_json, finding_json
from shardgate.adapters.tables import table
from shardgate.api import API_VERSION
from shardgate.domain.declaration import Declaration, ModelUnknown
from shardgate.domain.inventory import Gpu, Inventory
from shardgate.domain.performance.serving import KNEE
from shardgate.domain.placement import accepts_product
from shardgate.domain.policy import Policy
from shardgate.domain.search import Alternative, Candidate, Nearness, Quota, Room, candidates, ranked
from shardgate.domain.traffic import Objectives
from shardgate.domain.units import count, rounded
from shardgate.domain.verify import verify

Json = dict[str, Any]

NAME_IT = "add a ModelProfile for it to --cluster (shardgate model add DIR prints one), or name a model of the catalogue by its id"
MOST_OPTIONS = 10
MOST_JUDGED = 40
USUAL_NODE = 8
"""GPUs of a node, where a product tells no other board."""
MOST_GPUS = 64
"""That hardware is thought of for one declaration."""
ROOMY_SEQUENCES = 8
"""Of the full length at once: what is recommended holds as many where no objective says more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanQuestion:
    """What is to be planned: a declaration without a strategy, as our own kind would state it."""

    model: str
    weights: str | None = None
    engine: str = "vllm"
    engine_version: str | None = None
    max_model_len: int | None = None
    products: tuple[str, ...] = ()
    traffic: Mapping[str, int] | None = None
    objectives: Mapping[str, float] | None = None

    @property
    def body(self) -> Json:
        """An InferenceDeployment on one GPU, to start from."""
        engine = {"name": self.engine, "version": self.engine_version, "maxModelLen": self.max_model_len}
        spec: Json = {
            "model": {"name": self.model, **({"weights": self.weights} if self.weights else {})},
            "engine": {key: value for key, value in engine.items() if value is not None},
            "gpus": {"products": list(self.products)},
        }
        if self.traffic:
            spec["traffic"] = dict(self.traffic)
        if self.objectives:
            spec["objectives"] = dict(self.objectives)
        return {
            "apiVersion": API_VERSION,
            "kind": "InferenceDeployment",
            "metadata": {"name": "planned", "namespace": "default"},
            "spec": spec,
        }


def plan_json(declaration: Declaration, inventory: Inventory, policy: Policy) -> Json:
    """The best strategies that verify Sound here, and what hardware would do; figures with their ranges."""
    verdict = verify(declaration, inventory, policy)
    options = alternatives_of(
        declaration, inventory, policy, with_smaller=False, most_judged=MOST_JUDGED, with_declared=True,
        quota=Quota(by_nearness=(MOST_OPTIONS, MOST_OPTIONS, 0), most=MOST_OPTIONS),
    )  # fmt: skip
    order = sorted(options, key=lambda each: (not each.candidate.meets_objectives, -each.candidate.rate_per_gpu))
    unknown = declaration.model if isinstance(declaration.model, ModelUnknown) else None
    return {
        "apiVersion": API_VERSION,
        "kind": "Plan",
        "declared": {**declared_json(declaration, verdict), "strategy": None, "gpusPerPod": None, "replicas": None},
        "hardware": None
        if verdict.hardware is None
        else {"gpusInstalled": verdict.hardware.gpus_installed, "gpusFree": verdict.hardware.gpus_free},
        "options": [_option(each, place) for place, each in enumerate(order, 1)],
        "problem": None if unknown is None else unknown.problem,
        "remedy": None if unknown is None else unknown.remedy if unknown.is_named else NAME_IT,
        "findings": [] if options else [finding_json(each) for each in verdict.findings],
        "needs": needs_json(declaration),
    }


def _option(option: Alternative, place: int) -> Json:
    declaration, verdict, candidate = option.declaration, option.verdict, option.candidate
    nodes = sorted({pod.node for pod in verdict.placement.pods}) if verdict.placement is not None else []
    return {
        "place": place, "strategy": declaration.strategy.label, "tensor": declaration.strategy.tensor,
        "pipeline": declaration.strategy.pipeline, "replicas": declaration.replicas, "model": declaration.model_name,
        "weights": declaration.weights_name,
        "shortenedTo": declaration.engine.settings.max_model_len if candidate.is_shortened else None,
        "gpus": verdict.required.gpus, "gpusPerPod": verdict.required.gpus_per_pod, "product": candidate.gpu.product,
        "nodes": nodes, "outcome": verdict.outcome.label, "score": verdict.score,
        "meetsObjectives": candidate.meets_objectives if declaration.objectives.any else None,
        "requestsPerSecondPerGpu": rounded(candidate.rate_per_gpu) if candidate.performance is not None else None,
        "performance": performance_json(verdict.performance),
    }  # fmt: skip


def needs_json(declaration: Declaration) -> Json:
    """Hardware that would do, by accepted product; ``meetsObjectives`` is null where there are none, or nothing meets them.

    ``minimum``: the least memory in all that one replica fits. ``recommended``: the fewest GPUs that serve what is aimed at with
    15 % to spare, tensor ranks joined by NVLink or its like; without a rate aimed at, with room for 8 sequences of the full length.
    """
    accepted = [gpu for gpu in _products() if accepts_product(declaration.gpus.products, gpu.product)]
    aims = declaration.objectives.any
    products = [(gpu, _fewest(declaration, gpu), _best(declaration, gpu)) for gpu in accepted]
    fitting = [(gpu, fewest, best) for gpu, fewest, best in products if fewest is not None]
    minimum = min((fewest for _, fewest, _ in fitting), key=_total_memory, default=None)
    spared = _with_room_to_spare(declaration)
    roomy = [best for gpu, fewest, _ in fitting if fewest.gpus <= USUAL_NODE and (best := _best(spared, gpu)) and _is_roomy(best)]
    recommended = min(roomy, key=lambda each: (each.gpus, _total_memory(each)), default=None)
    by_size = sorted(fitting, key=lambda each: (each[1].gpus, _total_memory(each[1])))
    return {
        "minimum": None if minimum is None else _need(minimum),
        "recommended": None if recommended is None else _need(recommended),
        "byProduct": [
            {
                "product": gpu.product, "memoryBytes": gpu.memory, "fits": _need(fewest),
                "meetsObjectives": _need(best) if aims and best is not None and best.meets_objectives else None,
            }
            for gpu, fewest, best in by_size
        ],
    }  # fmt: skip


def _total_memory(candidate: Candidate) -> int:
    return candidate.gpus * (candidate.gpu.memory or 0)


def _products() -> Iterator[Gpu]:
    """Each product whose rates are known once, by the memory that it has at most."""
    known: dict[str, Gpu] = {}
    for gpu in known_gpus():
        if gpu.rates is not None and gpu.product is not None and gpu.memory is not None:
            best = known.get(gpu.product)
            if best is None or (best.memory or 0) < gpu.memory:
                known[gpu.product] = gpu
    main = {normalised(row.label) for each in table("gpu_rates")["gpus"] if (row := product_of_id(each["id"])) is not None}
    return (gpu for name, gpu in known.items() if name in main)


def _fewest(declaration: Declaration, gpu: Gpu) -> Candidate | None:
    """One replica on the fewest GPUs that it fits, the whole context if it can be."""
    found = _on(replace(declaration, objectives=Objectives()), gpu)
    return min(found, key=lambda each: (each.is_shortened, each.gpus, -each.rate_per_gpu), default=None)


def _best(declaration: Declaration, gpu: Gpu) -> Candidate | None:
    """For what is aimed at."""
    return next(iter(ranked(_on(declaration, gpu), declaration)), None)


def _on(declaration: Declaration, gpu: Gpu) -> list[Candidate]:
    is_old = gpu.compute_capability is not None and gpu.compute_capability < BF16_FROM
    room = Room(gpus=MOST_GPUS, largest_node=_node_of(gpu), product=gpu)
    variants = [each for each in variants_of(declaration, is_old=is_old, with_smaller=False) if each.nearness is Nearness.STRATEGY]
    return list(candidates(variants, room, declaration))


def _node_of(gpu: Gpu) -> int:
    row = find_product(gpu.product or "")
    return row.board_gpus or USUAL_NODE if row is not None else USUAL_NODE


def _with_room_to_spare(declaration: Declaration) -> Declaration:
    """Aiming at so much more that the declared rate is no load at which latencies cannot be told."""
    wanted = declaration.objectives.requests_per_second
    if wanted is None:
        return declaration
    return replace(declaration, objectives=replace(declaration.objectives, requests_per_second=wanted / KNEE))


def _is_roomy(candidate: Candidate) -> bool:
    declaration = candidate.declaration
    joined = declaration.strategy.tensor == 1 or bool(candidate.gpu.rates and candidate.gpu.rates.is_made_joined)
    if candidate.is_shortened or candidate.performance is None or not joined:
        return False
    if declaration.objectives.requests_per_second is not None:
        return candidate.meets_objectives
    return candidate.sequences_at_once >= ROOMY_SEQUENCES


def _need(candidate: Candidate) -> Json:
    declaration, found = candidate.declaration, candidate.performance
    nodes = -(-candidate.gpus // _node_of(candidate.gpu))
    return {
        "product": candidate.gpu.product, "memoryBytes": candidate.gpu.memory, "gpus": candidate.gpus,
        "what": f"{count(candidate.gpus, 'GPU')} of {candidate.gpu.product}" + (f" on {nodes} nodes" if nodes > 1 else ""),
        "strategy": declaration.strategy.label, "replicas": declaration.replicas, "weights": declaration.weights_name,
        "maxModelLen": declaration.engine.settings.max_model_len if candidate.is_shortened else None,
        "requestsPerSecond": None if found is None else ranged(found.capacity),
    }  # fmt: skip
