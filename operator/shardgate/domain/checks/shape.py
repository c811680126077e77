"""The declaration against itself and its engine."""

from collections.abc import Iterator

from shardgate.domain.codes import finding
from shardgate.domain.declaration import Engine
from shardgate.domain.model import ModelArchitecture
from shardgate.domain.situation import Situation
from shardgate.domain.units import count
from shardgate.domain.verdict import Finding, FindingClass, Outcome


def _by_rule(  # keyword-only: the fields of a finding
    engine: Engine, code: str, *, where: str, message: str, remedy: str, unknown_engine: bool = True
) -> Iterator[Finding]:
    """Unsound where the engine has the rule; open where the engine is not known; nothing where it has no such rule."""
    rule = engine.rules.get(code)
    if rule is not None:
        source = f"{engine.name}: {rule.message} ({rule.source})"
        yield finding(code, where=where, outcome=Outcome.UNSOUND, message=message, remedy=remedy, source=source)
    elif not engine.known and unknown_engine:
        open_message = f"{message}; most engines refuse that, and this one is not known"
        yield finding(code, where=where, outcome=Outcome.UNDECIDED, message=open_message, remedy=remedy)


def heads_split_evenly(situation: Situation) -> Iterator[Finding]:
    """Tensor ranks hold equally many attention heads."""
    model, ranks = situation.declaration.model, situation.declaration.strategy.attention_ranks
    if isinstance(model, ModelArchitecture) and model.attention_heads % ranks:
        yield from _by_rule(
            situation.declaration.engine,
            "HeadsUneven",
            where="spec.strategy.tensor",
            message=f"{model.attention_heads} attention heads cannot be split evenly over {ranks} tensor ranks",
            remedy=f"choose a divisor of {model.attention_heads}",
        )


def kv_heads_split_evenly(situation: Situation) -> Iterator[Finding]:
    """Ranks hold equally many KV heads: one count divides the other."""
    model, ranks = situation.declaration.model, situation.declaration.strategy.attention_ranks
    if isinstance(model, ModelArchitecture) and model.kv_heads % ranks and ranks % model.kv_heads:
        yield from _by_rule(
            situation.declaration.engine,
            "KvHeadsUneven",
            where="spec.strategy.tensor",
            message=f"{model.kv_heads} KV heads cannot be shared evenly by {ranks} tensor ranks",
            remedy=f"choose a divisor or a multiple of {model.kv_heads}",
        )


def every_stage_has_layers(situation: Situation) -> Iterator[Finding]:
    """A pipeline has no more stages than the model has layers."""
    model, stages = situation.declaration.model, situation.declaration.strategy.pipeline
    if isinstance(model, ModelArchitecture) and stages > model.layers:
        engine = situation.declaration.engine
        message = f"{stages} pipeline stages over {model.layers} layers leave {stages - model.layers} without a layer"
        remedy = f"choose at most {model.layers}"
        where = "spec.strategy.pipeline"
        if "LayersTooFew" in engine.rules:
            yield from _by_rule(engine, "LayersTooFew", where=where, message=message, remedy=remedy)
        else:
            # No engine is known to serve from an empty stage, and none but TensorRT-LLM documents the refusal.
            yield finding(
                "LayersTooFew", where=where, outcome=Outcome.UNDECIDED, message=message, remedy=remedy,
                bears_on=(FindingClass.SHAPE, FindingClass.MEMORY),
            )  # fmt: skip


def declared_stages_add_up(situation: Situation) -> Iterator[Finding]:
    """A declared split names every layer once."""
    model, declared = situation.declaration.model, situation.declaration.strategy.layers_per_stage
    if isinstance(model, ModelArchitecture) and declared is not None and sum(declared) != model.layers:
        yield finding(
            "DeclarationContradicts",
            where="spec.strategy.layersPerStage",
            outcome=Outcome.UNSOUND,
            message=f"the stages hold {sum(declared)} layers in all, the model has {model.layers}",
            remedy=f"make them add up to {model.layers}, or leave layersPerStage out",
            source="vLLM VLLM_PP_LAYER_PARTITION: ValueError on another sum (vllm/distributed/utils.py)",
        )


def ranks_divide_over_pods(situation: Situation) -> Iterator[Finding]:
    """All pods of a replica hold equally many ranks."""
    pod, strategy = situation.pod, situation.declaration.strategy
    if pod.ranks_per_replica % pod.pods_per_replica == 0:
        return
    ranks = count(pod.ranks_per_replica, "rank")
    message = (
        f"{strategy.label} is {ranks}, which {count(pod.pods_per_replica, 'pod')} of {count(pod.gpus, 'GPU')} cannot share evenly"
    )
    remedy = f"choose a divisor of {pod.ranks_per_replica} for spec.gpus.perPod"
    where = "spec.gpus.perPod"
    engine = situation.declaration.engine
    if "WorldSizeMismatch" in engine.rules or not engine.known:
        yield from _by_rule(engine, "WorldSizeMismatch", where=where, message=message, remedy=remedy)
    else:
        # vLLM's own launcher refuses it; through Ray it runs, and leaves GPUs over.
        yield finding("WorldSizeMismatch", where=where, outcome=Outcome.RISKY, message=message, remedy=remedy)


CHECKS = (
    ranks_divide_over_pods,
    heads_split_evenly,
    kv_heads_split_evenly,
    every_stage_has_layers,
    declared_stages_add_up,
)
