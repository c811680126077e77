"""The declaration against itself and its engine: rules of ``data/engine_rules.json``, by their names there."""

from collections.abc import Iterator

from shardgate.domain.codes import finding
from shardgate.domain.engine import Holds
from shardgate.domain.model import Matrix, ModelArchitecture, Part, Split
from shardgate.domain.situation import Situation
from shardgate.domain.units import count
from shardgate.domain.verdict import Finding, FindingClass, Outcome

_DOUBT = {
    Holds.IN_SOME_VERSIONS: "not every version refuses that, and the version is not declared",
    Holds.NOT_CONFIRMED: "that this version still refuses it was not read",
}


def _by_rule(  # keyword-only: the fields of a finding
    situation: Situation, rule_name: str, code: str, *, where: str, message: str, remedy: str, usual: bool = False
) -> Iterator[Finding]:
    """Unsound where the engine's version has the rule; open where that is not sure; nothing where it has no such rule.

    ``usual``: most engines have it, so an engine that is not known leaves it open. A class of model that was not
    read leaves every rule open.
    """
    engine = situation.declaration.engine
    rule = engine.rules.get(rule_name)
    if rule is None:
        if usual and not engine.known:
            yield finding(
                code, where=where, outcome=Outcome.UNDECIDED, remedy=remedy,
                message=f"{message}; most engines refuse that, and this one is not known",
            )  # fmt: skip
        return
    source = f"{engine.name}: {rule.message} ({rule.source}; {rule.versions})"
    model = situation.declaration.model
    doubt = _DOUBT.get(rule.holds)
    if isinstance(model, ModelArchitecture) and not model.is_exact:
        doubt = f"{model.architecture or 'the model'} is no class that was read"
    yield finding(
        code,
        where=where,
        outcome=Outcome.UNDECIDED if doubt else Outcome.UNSOUND,
        message=f"{message}; {doubt}" if doubt else message,
        remedy=remedy,
        source=source,
    )


def _model(situation: Situation) -> ModelArchitecture | None:
    model = situation.declaration.model
    return model if isinstance(model, ModelArchitecture) else None


def heads_split_evenly(situation: Situation) -> Iterator[Finding]:
    """Tensor ranks hold equally many attention heads."""
    model, ranks = _model(situation), situation.declaration.strategy.attention_ranks
    if model is not None and model.attention_heads % ranks:
        yield from _by_rule(
            situation, "heads", "HeadsUneven", where="spec.strategy.tensor", usual=True,
            message=f"{model.attention_heads} attention heads cannot be split evenly over {ranks} tensor ranks",
            remedy=f"choose a divisor of {model.attention_heads}",
        )  # fmt: skip


def kv_heads_split_evenly(situation: Situation) -> Iterator[Finding]:
    """Ranks hold equally many KV heads: one count divides the other. A latent (MLA) is on every rank."""
    model, ranks = _model(situation), situation.declaration.strategy.attention_ranks
    if model is not None and not model.is_latent and model.kv_heads % ranks and ranks % model.kv_heads:
        yield from _by_rule(
            situation, "kvHeads", "KvHeadsUneven", where="spec.strategy.tensor", usual=True,
            message=f"{model.kv_heads} KV heads cannot be shared evenly by {ranks} tensor ranks",
            remedy=f"choose a divisor or a multiple of {model.kv_heads}",
        )  # fmt: skip


def vocabulary_splits_evenly(situation: Situation) -> Iterator[Finding]:
    """The padded vocabulary divides by the tensor width; a width that is a power of two up to 64 always does."""
    model, ranks = _model(situation), situation.declaration.strategy.tensor
    if model is None:
        return
    to = model.embedding.padded_to
    padded = -(-model.vocabulary_size // to) * to
    if padded % ranks:
        yield from _by_rule(
            situation, "vocabulary", "VocabularyUneven", where="spec.strategy.tensor",
            message=f"a vocabulary of {padded} (padded to a multiple of {to}) cannot be split evenly over {ranks} tensor ranks",
            remedy=f"choose a divisor of {padded}, such as a power of two",
        )  # fmt: skip


def widths_are_supported(situation: Situation) -> Iterator[Finding]:
    """Widths and combinations of widths that an engine does not have."""
    model, strategy = _model(situation), situation.declaration.strategy
    tensor, decode, prefill = strategy.tensor, strategy.decode_context, strategy.prefill_context
    for rule, field, is_used in (
        ("noAttentionData", "attentionData", strategy.attention_data),
        ("noDecodeContext", "decodeContext", decode > 1),
        ("noPrefillContext", "prefillContext", prefill > 1),
        ("noExpertWidth", "expert", strategy.expert is not None),
        ("noPipeline", "pipeline", strategy.pipeline > 1),
    ):
        if is_used:
            named = f"{situation.declaration.engine.name} {situation.declaration.engine.version or ''}".strip()
            yield from _by_rule(
                situation, rule, "WidthUnsupported", where=f"spec.strategy.{field}",
                message=f"{named} has no {field}", remedy=f"leave {field} out, or use an engine and a version that have it",
            )  # fmt: skip
    if tensor & (tensor - 1):
        yield from _by_rule(
            situation, "powerOfTwo", "WidthUnsupported", where="spec.strategy.tensor",
            message=f"the tensor width {tensor} is no power of two", remedy="choose a power of two",
        )  # fmt: skip
    if decode > 1 and model is not None and not model.is_latent and (tensor <= model.kv_heads or decode > tensor // model.kv_heads):
        yield from _by_rule(
            situation, "decodeContext", "WidthUnsupported", where="spec.strategy.decodeContext",
            message=f"a decode-context width of {decode} needs a tensor width of at least {decode} x {model.kv_heads} KV heads, "
            f"here it is {tensor}",
            remedy=f"use at most {max(1, tensor // model.kv_heads)}",
        )  # fmt: skip
    if prefill > 1 and strategy.data > 1:
        yield from _by_rule(
            situation, "prefillContextWithData", "WidthUnsupported", where="spec.strategy.prefillContext",
            message=f"a prefill-context width of {prefill} does not go with {strategy.data} data ranks",
            remedy="use one or the other",
        )  # fmt: skip
    if prefill > 1 and decode not in (1, prefill, tensor * prefill):
        yield from _by_rule(
            situation, "prefillContextWithDecode", "WidthUnsupported", where="spec.strategy.decodeContext",
            message=f"with a prefill-context width of {prefill} the decode-context width may be 1, {prefill} or "
            f"{tensor * prefill}, not {decode}",
            remedy="choose one of these",
        )  # fmt: skip
    if prefill > 1 and strategy.expert is not None:
        yield from _by_rule(
            situation, "contextWithExperts", "WidthUnsupported", where="spec.strategy.prefillContext",
            message=f"a context width of {prefill} does not go with an expert width of {strategy.expert}",
            remedy="use one or the other",
        )  # fmt: skip
    if strategy.load_balancing == "external" and strategy.data > 1 and model is not None and not model.is_mixture:
        yield from _by_rule(
            situation, "externalBalancingOfDense", "WidthUnsupported", where="spec.strategy.loadBalancing",
            message=f"{model.name} is no mixture of experts: its data ranks are independent servers",
            remedy="declare replicas instead of data",
        )  # fmt: skip


def experts_split_evenly(situation: Situation) -> Iterator[Finding]:
    """Experts and their ranks divide where the engine needs it."""
    model, declared = _model(situation), situation.declaration
    strategy = declared.strategy
    if model is None or not model.experts:
        return
    groups, _ = strategy.expert_widths(over_data=True)
    where = "spec.strategy.expert" if strategy.expert is not None else "spec.strategy.expertParallel"
    message = f"{model.experts} experts cannot be dealt out evenly to {groups} ranks"
    remedy = f"choose a width that divides {model.experts}"
    if model.experts % groups:
        yield from _by_rule(situation, "experts", "ExpertsUneven", where=where, message=message, remedy=remedy)
        if declared.engine.settings.balances_experts:
            yield from _by_rule(situation, "balancedExperts", "ExpertsUneven", where=where, message=message, remedy=remedy)
    if declared.engine.settings.balances_experts and not strategy.expert_parallel:
        yield from _by_rule(
            situation, "balancesExpertParallel", "DeclarationContradicts", where="spec.strategy.expertParallel",
            message="expert load balancing (--enable-eplb) is asked for without expert parallelism",
            remedy="set expertParallel, or leave --enable-eplb out",
        )  # fmt: skip
    if strategy.expert is not None and strategy.tensor % strategy.expert:
        yield from _by_rule(
            situation, "expertWidth", "ExpertsUneven", where="spec.strategy.expert",
            message=f"an expert width of {strategy.expert} does not divide the tensor width {strategy.tensor}",
            remedy=f"choose a divisor of {strategy.tensor}",
        )  # fmt: skip
    rule = declared.engine.rules.get("expertsFewer")
    if rule is not None and strategy.tensor > model.experts and model.architecture in rule.values.get("classes", ()):
        yield from _by_rule(
            situation, "expertsFewer", "ExpertsUneven", where="spec.strategy.tensor",
            message=f"the tensor width {strategy.tensor} is more than the {model.experts} experts",
            remedy=f"use at most {model.experts}",
        )  # fmt: skip


def every_stage_has_layers(situation: Situation) -> Iterator[Finding]:
    """A pipeline has no more stages than the model has layers."""
    model, stages = _model(situation), situation.declaration.strategy.pipeline
    if model is None or stages <= model.layers:
        return
    message = f"{stages} pipeline stages over {model.layers} layers leave {stages - model.layers} without a layer"
    remedy, where = f"choose at most {model.layers}", "spec.strategy.pipeline"
    if "layersTooFew" in situation.declaration.engine.rules:
        yield from _by_rule(situation, "layersTooFew", "LayersTooFew", where=where, message=message, remedy=remedy)
    else:
        # No engine is known to serve from an empty stage, and none but TensorRT-LLM documents the refusal.
        yield finding(
            "LayersTooFew", where=where, outcome=Outcome.UNDECIDED, message=message, remedy=remedy,
            bears_on=(FindingClass.SHAPE, FindingClass.MEMORY),
        )  # fmt: skip


def declared_stages_add_up(situation: Situation) -> Iterator[Finding]:
    """A declared split names every layer once."""
    model, declared = _model(situation), situation.declaration.strategy.layers_per_stage
    if model is None or declared is None or sum(declared) == model.layers:
        return
    rule = situation.declaration.engine.rules.get("stagesAddUp")
    yield finding(
        "DeclarationContradicts",
        where="spec.strategy.layersPerStage",
        outcome=Outcome.UNSOUND if model.is_exact else Outcome.UNDECIDED,
        message=f"the stages hold {sum(declared)} layers in all, the model has {model.layers}",
        remedy=f"make them add up to {model.layers}, or leave layersPerStage out",
        source=f"{situation.declaration.engine.name}: {rule.message} ({rule.source})" if rule else "",
    )


def pipeline_is_supported(situation: Situation) -> Iterator[Finding]:
    """The engine's version can cut this class of model into stages."""
    model, declared = _model(situation), situation.declaration
    if declared.strategy.pipeline == 1:
        return
    if model is not None and not model.has_cache:
        yield from _by_rule(
            situation, "pipelineOfEncoder", "PipelineUnsupported", where="spec.strategy.pipeline",
            message=f"{model.architecture} cannot be cut into pipeline stages", remedy="use a tensor width alone",
        )  # fmt: skip
    message = f"{declared.engine.name} {declared.engine.version or ''}".strip() + " cannot cut the model into pipeline stages"
    remedy = "use a newer version, or a tensor width alone"
    where = "spec.strategy.pipeline"
    yield from _by_rule(situation, "pipelineUnsupported", "PipelineUnsupported", where=where, message=message, remedy=remedy)
    rule = declared.engine.rules.get("pipelineListed")
    if rule is None or model is None:
        return
    is_listed = model.architecture in rule.values.get("classes", ())
    is_packed = any(matrix.packing.is_quantised for kind in model.kinds for matrix in kind.matrices)
    if not is_listed or (is_packed and model.architecture in rule.values.get("unquantisedOnly", ())):
        yield from _by_rule(
            situation, "pipelineListed", "PipelineUnsupported", where=where, remedy=remedy,
            message=f"{message}: {'quantised ' if is_listed else ''}{model.architecture} is not among the classes that it lists",
        )  # fmt: skip


def quantisation_divides(situation: Situation) -> Iterator[Finding]:
    """Blocks and groups of quantised weights are not cut by the split over ranks."""
    model, strategy = _model(situation), situation.declaration.strategy
    if model is None or not situation.declaration.weights_name:
        return
    seen: set[tuple[str, str]] = set()
    groups, expert_ranks = strategy.expert_widths(over_data=True)
    for matrix in (matrix for kind in model.kinds for matrix in kind.matrices):
        ranks = {Part.EXPERTS: expert_ranks, Part.ATTENTION: strategy.attention_ranks}.get(matrix.part, strategy.tensor)
        uneven = _uneven_block(matrix, ranks)
        if uneven is None:
            continue
        size, block, side = uneven
        rule = "quantisationBlocks" if matrix.packing.block_outputs > 1 else "quantisationGroups"
        if rule == "quantisationGroups" and matrix.part is Part.EXPERTS:
            rule = "quantisationGroupsOfExperts"
        grouped = matrix.packing.name.startswith(("awq", "gptq"))  # others pad, or have no groups along a side
        if (rule, matrix.part) in seen or (rule != "quantisationBlocks" and not grouped):
            continue
        seen.add((rule, matrix.part))
        remedy = "choose a narrower tensor width"
        if matrix.part is Part.EXPERTS and groups == 1:
            remedy += ", or whole experts (expertParallel)"
        yield from _by_rule(
            situation, rule, "QuantizationBlockUneven", where="spec.strategy.tensor", remedy=remedy,
            message=f"{matrix.name}: {ranks} ranks hold {size} {side} each, not a multiple of the block of {block} in "
            f"{matrix.packing.name} weights",
        )  # fmt: skip


def _uneven_block(matrix: Matrix, ranks: int) -> tuple[int, int, str] | None:
    """(a rank's share, the block that it cuts, the side) of a matrix that ranks split; ``None`` where none is cut."""
    if ranks == 1 or (not matrix.packing.is_quantised and not matrix.packing.block_bits) or matrix.split is Split.NONE:
        return None
    if matrix.inputs % max(1, matrix.packing.block_inputs) and matrix.packing.block_outputs == 1:
        return None  # the model's own width is no multiple of the group: the checkpoint's must be another one
    outputs, inputs = matrix.shape_on(ranks)
    if matrix.split is Split.INPUTS and matrix.packing.block_inputs > 1 and inputs % matrix.packing.block_inputs:
        return inputs, matrix.packing.block_inputs, "inputs"
    if matrix.split is Split.OUTPUTS and matrix.packing.block_outputs > 1 and outputs % matrix.packing.block_outputs:
        return outputs, matrix.packing.block_outputs, "outputs"
    return None


def length_may_be_left_to_the_engine(situation: Situation) -> Iterator[Finding]:
    """The version knows -1 as "as long as fits"."""
    if situation.declaration.engine.settings.max_model_len == -1:
        yield from _by_rule(
            situation, "noAutoLength", "DeclarationContradicts", where="spec.engine.maxModelLen",
            message="-1 (as long as fits) is no length that this engine's version takes",
            remedy="give a number of tokens; the report says how many fit",
        )  # fmt: skip


def nodes_divide_the_ranks(situation: Situation) -> Iterator[Finding]:
    """The nodes that the engine is told of share the ranks of a model copy evenly."""
    nodes, strategy = situation.declaration.engine.settings.nodes, situation.declaration.strategy
    ranks = strategy.tensor * strategy.pipeline
    executor = situation.declaration.engine.settings.executor
    if nodes is not None and nodes > 1 and executor not in ("", "mp", "uni", "external_launcher"):
        yield from _by_rule(
            situation, "nodesBackend", "WidthUnsupported", where="spec.engine.args",
            message=f"{nodes} nodes are told of (--nnodes), and the executor {executor} does not take that",
            remedy="leave --nnodes out, or use the executor mp",
        )  # fmt: skip
    if nodes is not None and nodes > 0 and ranks % nodes and strategy.data == 1:  # data groups are dealt to nodes first
        yield from _by_rule(
            situation, "nodesDivide", "WorldSizeMismatch", where="spec.engine.args",
            message=f"{ranks} ranks (tensor x pipeline) cannot be shared evenly by {count(nodes, 'node')}",
            remedy=f"tell the engine of a number of nodes that divides {ranks}",
        )  # fmt: skip


_MAY_STRETCH = ("--rope-scaling", "--hf-overrides", "--hf-config-path", "--config", "--json-model-override-args")
"""Flags that can change how long a context the model is made for."""


def context_is_within_the_model(situation: Situation) -> Iterator[Finding]:
    """No longer context is declared than the model was made for."""
    model, settings = _model(situation), situation.declaration.engine.settings
    asked = settings.max_model_len
    if model is None or asked is None or model.max_context_tokens is None or settings.allows_long_context:
        return
    if asked <= model.max_context_tokens:
        return
    stretching = [flag for flag in settings.unmodelled if flag in _MAY_STRETCH]
    if stretching:
        yield finding(
            "ContextTooLong", where="spec.engine.maxModelLen", outcome=Outcome.UNDECIDED,
            message=f"{asked} tokens are declared, the model is made for {model.max_context_tokens} unless {stretching[0]} "
            "says more",
            remedy="give rope scaling in spec.model.config, where it is read",
        )  # fmt: skip
    else:
        yield from _by_rule(
            situation, "contextTooLong", "ContextTooLong", where="spec.engine.maxModelLen",
            message=f"{asked} tokens are declared, the model is made for {model.max_context_tokens}",
            remedy=f"set it to at most {model.max_context_tokens}, or give rope scaling in spec.model.config",
        )  # fmt: skip


def ranks_divide_over_pods(situation: Situation) -> Iterator[Finding]:
    """All pods of a replica hold equally many ranks, and the engine can span them."""
    pod, strategy = situation.pod, situation.declaration.strategy
    engine = situation.declaration.engine
    where = "spec.gpus.perPod"
    if situation.declaration.unknown_strategy:
        return
    if pod.pods_per_replica > 1:
        yield from _over_several_pods(situation)
    if pod.ranks_per_replica % pod.pods_per_replica == 0 or pod.leader is not None:
        return
    ranks = count(pod.ranks_per_replica, "rank")
    message = (
        f"{strategy.label} is {ranks}, which {count(pod.pods_per_replica, 'pod')} of {count(pod.gpus, 'GPU')} cannot share evenly"
    )
    remedy = f"choose a divisor of {pod.ranks_per_replica} for spec.gpus.perPod"
    if "ranksOverPods" in engine.rules or not engine.known:
        yield from _by_rule(
            situation, "ranksOverPods", "WorldSizeMismatch", where=where, message=message, remedy=remedy, usual=True
        )
    else:
        # vLLM's own launcher refuses it; through Ray it runs, and leaves GPUs over.
        yield finding("WorldSizeMismatch", where=where, outcome=Outcome.RISKY, message=message, remedy=remedy)


def _over_several_pods(situation: Situation) -> Iterator[Finding]:
    pod, declared = situation.pod, situation.declaration
    strategy, settings, where = declared.strategy, declared.engine.settings, "spec.gpus.perPod"
    per_replica = (
        f"a replica is {count(pod.ranks_per_replica, 'rank')} on {count(pod.pods_per_replica, 'pod')} of {count(pod.gpus, 'GPU')}"
    )
    yield from _by_rule(
        situation, "oneNode", "WorldSizeMismatch", where=where,
        message=f"{per_replica}, and {declared.engine.name} runs in one pod",
        remedy=f"ask for {count(pod.ranks_per_replica, 'GPU')} per pod, or a narrower strategy",
    )  # fmt: skip
    if settings.executor in ("mp", "uni") and settings.nodes is None and pod.gpus < strategy.tensor * strategy.pipeline:
        yield from _by_rule(
            situation, "localExecutor", "WorldSizeMismatch", where="spec.engine.args",
            message=f"{per_replica}, and the executor {settings.executor} spans one pod unless told of nodes",
            remedy="use --distributed-executor-backend ray, or --nnodes",
        )  # fmt: skip
    if strategy.data_ranks_per_replica > 1 and not strategy.attention_data:
        yield from _by_rule(
            situation, "dataOverNodes", "WorldSizeMismatch", where="spec.strategy.data",
            message=f"{per_replica}: data ranks of one server cannot span pods without attentionData",
            remedy="declare replicas instead of data, or attentionData",
        )  # fmt: skip


def ranks_have_gpus(situation: Situation) -> Iterator[Finding]:
    """Where pods are declared, those of a replica have a GPU for every rank."""
    declared, gpus = situation.declaration, situation.required.gpus_per_replica
    ranks = declared.strategy.ranks_per_replica
    if declared.gpus.pods_per_replica is None or declared.unknown_strategy or ranks <= gpus:
        return
    yield finding(
        "WorldSizeMismatch",
        where="spec.strategy",
        outcome=Outcome.UNSOUND,
        message=f"{declared.strategy.label} is {count(ranks, 'rank')}, "
        f"the {count(situation.pod.pods_per_replica, 'pod')} of a replica have {count(gpus, 'GPU')}",
        remedy=f"ask for {count(-(-ranks // situation.pod.pods_per_replica), 'GPU')} per pod, or a narrower strategy",
    )


def nothing_is_said_twice(situation: Situation) -> Iterator[Finding]:
    """What is stated twice is stated alike."""
    for where, what in situation.declaration.contradictions:
        yield finding(
            "DeclarationContradicts", where=where, outcome=Outcome.UNSOUND, message=what, remedy="state it once, or alike",
        )  # fmt: skip
    for where, what in situation.declaration.disagreements:  # parts may be applied in any order
        yield finding(
            "DeclarationContradicts", where=where, outcome=Outcome.UNDECIDED, message=what,
            remedy="leave it to the workload, or state it alike", bears_on=(FindingClass.SHAPE, FindingClass.MEMORY),
        )  # fmt: skip


def requests_fit_the_context(situation: Situation) -> Iterator[Finding]:
    """Requests of the declared lengths are no longer than the engine lets in."""
    declaration = situation.declaration
    traffic, model = declaration.traffic, declaration.model
    own = model.max_context_tokens if isinstance(model, ModelArchitecture) else None
    stated = declaration.engine.settings.max_model_len
    longest = own if stated is None or stated < 0 else stated
    asked = (traffic.prompt_tokens or 0) + (traffic.output_tokens or 0)
    if longest is not None and asked > longest:
        yield finding(
            "DeclarationContradicts",
            where="spec.traffic",
            outcome=Outcome.RISKY,
            message=f"requests of {asked} tokens on average are expected, the engine lets in {longest} and turns longer ones away",
            remedy=f"declare shorter requests, or raise spec.engine.maxModelLen to {asked} and more",
        )


CHECKS = (
    requests_fit_the_context,
    nothing_is_said_twice,
    ranks_have_gpus,
    ranks_divide_over_pods,
    heads_split_evenly,
    kv_heads_split_evenly,
    vocabulary_splits_evenly,
    widths_are_supported,
    experts_split_evenly,
    quantisation_divides,
    pipeline_is_supported,
    every_stage_has_layers,
    declared_stages_add_up,
    context_is_within_the_model,
    length_may_be_left_to_the_engine,
    nodes_divide_the_ranks,
)
