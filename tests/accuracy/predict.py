"""What Shardgate predicts for a launch, keyed as launches are recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from launches import Launch

from shardgate.domain.estimate import Estimate
from shardgate.domain.fitting import Weighed, fit_of
from shardgate.domain.inventory import Inventory, Node, NodeShape, NodeState, Visible, grouped
from shardgate.domain.memory import memory_of, visible_memory
from shardgate.domain.policy import Policy
from shardgate.domain.units import GIBI, Bytes
from shardgate.domain.verdict import Outcome
from shardgate.domain.verify import verify

Json = dict[str, Any]

FIGURES = (
    "weights_gib_per_gpu", "non_torch_gib", "activation_peak_gib", "cuda_graph_gib", "kv_cache_gib", "kv_tokens",
    "num_gpu_blocks", "max_concurrency", "kv_needed_for_max_len_gib", "estimated_max_model_len",
)  # fmt: skip
OUTCOMES = ("runs", "doesNotStart", "undecided")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Figures with their range, the outcome, and why."""

    figures: dict[str, Estimate | None]
    kv_bytes_per_token_per_gpu: float | None
    outcome: str
    codes: tuple[str, ...]
    message: str
    longest_in: Callable[[float], int] | None = None
    """The longest sequence that a pool of so many bytes would hold."""

    def as_json(self) -> Json:
        """Keyed as the file's ``measured``, with outcome, low and high."""
        predicted: Json = {name: None if each is None else round(each.value, 4) for name, each in self.figures.items()}
        predicted["kv_bytes_per_token_per_gpu"] = self.kv_bytes_per_token_per_gpu
        predicted["outcome"] = self.outcome
        predicted["low"] = {name: None if each is None else round(each.low, 4) for name, each in self.figures.items()}
        predicted["high"] = {name: None if each is None else round(each.high, 4) for name, each in self.figures.items()}
        predicted["codes"] = list(self.codes)
        return predicted


def predict(launch: Launch) -> Prediction:
    """Judge the launch as if it were declared on its own GPUs, with nothing else there."""
    declaration = launch.declaration
    if not launch.is_split_known:
        return Prediction(
            figures=dict.fromkeys(FIGURES), kv_bytes_per_token_per_gpu=None, outcome="undecided", codes=(),
            message="how the model was split is not stated",
        )  # fmt: skip
    verdict = verify(declaration, _inventory(launch), Policy())
    figures: dict[str, Estimate | None] = dict.fromkeys(FIGURES)
    per_token = None
    weighed = Weighed.of(declaration)
    if weighed is not None and "PipelineUnsupported" not in verdict.codes:  # no figures of a split that the engine does not have
        fullest = weighed.weights.fullest
        spread = (fullest.per_rank - fullest.built) * weighed.weights.error
        figures["weights_gib_per_gpu"] = _gib(Estimate(fullest.per_rank - spread, fullest.per_rank, fullest.per_rank + spread))
        estimate = fit_of(launch.gpu, declaration, weighed).estimate
        if estimate is not None:
            rank = estimate.fullest
            layout = rank.layout
            figures["weights_gib_per_gpu"] = _gib(rank.weights)
            figures["non_torch_gib"] = _gib(estimate.non_torch)
            figures["activation_peak_gib"] = _gib(rank.activation)
            figures["cuda_graph_gib"] = _gib(estimate.graphs)
            figures["kv_cache_gib"] = _gib(rank.kv_cache)
            figures["kv_tokens"] = estimate.kv_tokens
            if layout.block_bytes:
                per_token = layout.bytes_per_token
                figures["num_gpu_blocks"] = _each(rank.kv_cache, lambda pool: max(0, pool // layout.block_bytes))
                if estimate.length:
                    figures["max_concurrency"] = estimate.concurrency_at_full_length
                    figures["kv_needed_for_max_len_gib"] = _gib(Estimate.exactly(rank.needed))
                    figures["estimated_max_model_len"] = estimate.longest
    return Prediction(
        figures=figures,
        kv_bytes_per_token_per_gpu=per_token,
        outcome=_outcome(verdict.outcome),
        codes=verdict.codes,
        message=verdict.findings[0].message if verdict.findings else "",
        longest_in=None if weighed is None else _longest(weighed, launch),
    )


def _longest(weighed: Weighed, launch: Launch) -> Callable[[float], int] | None:
    """By the layout of the fullest rank, which does not depend on the GPU (one of ordinary size stands in)."""
    if not weighed.load.engine.memory:
        return None
    rules = weighed.load.engine.memory[0]
    seen = visible_memory(launch.gpu) or Visible(low=Bytes(80 * GIBI), high=Bytes(80 * GIBI), source="stands in")
    estimate = memory_of(weighed.load, weighed.weights, rules, launch.gpu, seen)
    return estimate.longest_in


def _each(pool: Estimate, measure: Any) -> Estimate:
    return Estimate(measure(pool.low), measure(pool.value), measure(pool.high))


def _gib(amount: Estimate) -> Estimate:
    return Estimate(amount.low / GIBI, amount.value / GIBI, amount.high / GIBI)


def _outcome(outcome: Outcome) -> str:
    return {Outcome.UNSOUND: "doesNotStart", Outcome.UNDECIDED: "undecided"}.get(outcome, "runs")


def _inventory(launch: Launch) -> Inventory:
    resource = launch.declaration.gpus.resource
    shape = NodeShape(taints=(), gpu=launch.gpu)
    node = Node(name="node", shape=shape, state=NodeState.USABLE, allocatable={resource: launch.gpus, "pods": 1000})
    return Inventory(groups=grouped([node]), nodes_seen=1)
