"""The weights of every rank, as tensor, pipeline, data and expert parallelism split them."""

from dataclasses import dataclass, replace

from shardgate.domain.engine import Engine, MemoryRules
from shardgate.domain.estimate import ZERO, Estimate, total
from shardgate.domain.model import Layer, Matrix, ModelArchitecture, Packing, Part, Split
from shardgate.domain.strategy import ParallelStrategy, Remainder, layers_of_stages
from shardgate.domain.units import Bytes

BYTES_OF_DTYPE = {"fp32": 4, "bf16": 2, "fp16": 2}

LORA_ERROR = 0.3
"""Which side of a pair is cut, and which matrices get slots, differs by model class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is to be loaded: a model split by a strategy for an engine."""

    model: ModelArchitecture
    strategy: ParallelStrategy
    engine: Engine
    dtype: str
    kv_cache_bits: int

    @property
    def plain_bytes(self) -> int:
        """Bytes of an element that is not quantised."""
        return BYTES_OF_DTYPE[self.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageWeights:
    """A pipeline stage: its layers, its weights over all tensor ranks (unique ones), and on one of them."""

    stage: int
    layers: range
    total: Bytes
    per_rank: Bytes
    built: Bytes
    """Of ``per_rank``: what the engine builds besides the checkpoint's weights (rotary tables, absorbed matrices)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsEstimate:
    """The weights of one replica's data rank, stage by stage."""

    parameters: int
    total: Bytes
    stages: tuple[StageWeights, ...]
    error: float
    """Relative uncertainty."""

    @property
    def fullest(self) -> StageWeights:
        """The stage whose ranks hold most."""
        return max(self.stages, key=lambda stage: stage.per_rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Widths:
    """Over how many ranks each part is cut; 0: the checkpoint's own matrix, on no ranks."""

    tensor: int = 0
    attention: int = 0
    embedding: int = 0
    expert_groups: int = 1
    expert_tensor: int = 0

    @classmethod
    def of(cls, load: Load, rules: MemoryRules | None) -> "_Widths":
        strategy = load.strategy
        groups, tensor = strategy.expert_widths(over_data=rules is not None and rules.shards_experts_over_data)
        return cls(
            tensor=strategy.tensor,
            attention=max(1, strategy.attention_ranks),
            embedding=1 if strategy.attention_data else strategy.tensor,
            expert_groups=groups,
            expert_tensor=tensor,
        )

    def bits_of(self, matrix: Matrix, plain_bits: int) -> int:
        """Bits of a matrix on the rank that holds most of it."""
        part = matrix.part
        if part is Part.EXPERTS:
            return matrix.bits_on(self.expert_tensor, -(-matrix.copies // self.expert_groups), plain_bits)
        ranks = self.tensor
        if part is Part.ATTENTION or part is Part.STATE:
            ranks = self.attention
        elif part is Part.EMBEDDING:
            ranks = self.embedding
        return matrix.bits_on(ranks, matrix.copies, plain_bits)

    def bits_of_layer(self, layer: Layer, plain_bits: int) -> int:
        """Of all its matrices, and of the vectors that every rank holds."""
        return sum(self.bits_of(each, plain_bits) for each in layer.matrices) + layer.plain_elements * plain_bits


_WHOLE = _Widths()


def weights_of(load: Load, rules: MemoryRules | None) -> WeightsEstimate:
    """Weights of every stage.

    Matrices are cut along their own side, by whole heads or columns; KV heads are replicated when there are fewer
    than ranks; norms, routers and a latent's down-projections are on every rank. The embedding (and a tower) is on
    the first stage, the head and the final norm on the last; tied, both ends hold a copy when there are several
    stages. Data ranks each hold all of it, save experts. Without rules, nothing that an engine builds is counted.
    """
    model, plain = load.model, 8 * load.plain_bytes
    widths = _Widths.of(load, rules)
    ranges = layers_of_stages(model.layers, load.strategy, rules.remainder if rules is not None else Remainder.BEFORE_LAST)
    whole_of, part_of = ({id(layer): each.bits_of_layer(layer, plain) for layer in model.kinds} for each in (_WHOLE, widths))
    absorbed_of = dict.fromkeys(whole_of, 0)
    if rules is not None and rules.absorbs_latents:
        absorbed_of = {id(layer): sum(widths.bits_of(each, plain) for each in layer.absorbed) for layer in model.kinds}
    rotary = model.rotary_elements * plain if rules is not None else 0
    last = len(ranges) - 1

    def of_stage(stage: int, layers: range) -> StageWeights:
        kinds = [(id(layer), number) for layer, number in model.kinds_in(layers)]
        whole, part = (
            _ends(load, at, is_first=stage == 0, is_last=stage == last) + sum(of[kind] * number for kind, number in kinds)
            for at, of in ((_WHOLE, whole_of), (widths, part_of))
        )
        built = rotary + sum(absorbed_of[kind] * number for kind, number in kinds)
        return StageWeights(
            stage=stage,
            layers=layers,
            total=_bytes(whole * model.weight_scale),
            per_rank=_bytes(part * model.weight_scale + built),
            built=_bytes(built),
        )

    stages = tuple(of_stage(stage, layers) for stage, layers in enumerate(ranges))
    twice = _WHOLE.bits_of(model.embedding, plain) * model.weight_scale if model.head is None and last > 0 else 0
    return WeightsEstimate(
        parameters=model.parameters,
        total=Bytes(sum(stage.total for stage in stages) - _bytes(twice)),
        stages=stages,
        error=model.weight_error,
    )


def _ends(load: Load, widths: _Widths, *, is_first: bool, is_last: bool) -> int:
    """Bits of what only the first and the last stage hold."""
    model, plain, held = load.model, 8 * load.plain_bytes, 0
    if is_first:
        held += widths.bits_of(model.embedding, plain) + sum(widths.bits_of(each, plain) for each in model.tower)
    if is_last:
        held += model.plain_elements * plain
        if model.head is not None:
            held += widths.bits_of(model.head, plain)
        elif not is_first:
            held += widths.bits_of(model.embedding, plain)
    return held


def _bytes(bits: float) -> Bytes:
    """Rounded up to whole bytes."""
    return Bytes(-int(-bits // 8))


def unquantised_weights_of(load: Load, rules: MemoryRules) -> Bytes:
    """Of the fullest rank, before they are quantised."""
    plain = Packing(name=load.dtype, element_bits=8 * load.plain_bytes)

    def unpacked(layer: Layer) -> Layer:
        return replace(layer, matrices=tuple(replace(each, packing=plain) for each in layer.matrices))

    model = replace(load.model, kinds=tuple(unpacked(layer) for layer in load.model.kinds))
    return weights_of(replace(load, model=model), rules).fullest.per_rank


def held_weights(load: Load, rules: MemoryRules, stage: StageWeights, error: float) -> Estimate:
    """Bytes that stay on the GPU: without what is offloaded to the host, with adapter slots and draft layers."""
    held = max(0, stage.per_rank - load.engine.settings.offload)
    spread = (stage.per_rank - stage.built) * error
    slots, drafts = _adapter_slots(load, rules, stage), _draft_weights(load, stage)
    spread += slots * LORA_ERROR
    value = float(held + slots)
    return total([Estimate(max(0.0, value - spread), value, value + spread + _padding(load, rules, stage)), drafts])


def _padding(load: Load, rules: MemoryRules, stage: StageWeights) -> float:
    """Bytes by which kernels may pad the shares of MXFP4 experts: none (Triton on Hopper) up to this (Marlin).

    Marlin rounds a rank's intermediate width up to 128 and the hidden size to 256 (vllm, quantization/mxfp4.py).
    """
    groups, ranks = load.strategy.expert_widths(over_data=rules.shards_experts_over_data)
    bits = 0
    for layer, number in load.model.kinds_in(stage.layers):
        for each in layer.matrices:
            if each.part is Part.EXPERTS and each.packing.name == "mxfp4":
                outputs, inputs = each.shape_on(ranks)
                inner, outer = (outputs, inputs) if each.split is Split.OUTPUTS else (inputs, outputs)
                padded = each.packing.bits_of(-(-inner // 128) * 128, -(-outer // 256) * 256)
                bits += number * -(-each.copies // groups) * (padded - each.packing.bits_of(inner, outer))
    return bits / 8


def _adapter_slots(load: Load, rules: MemoryRules, stage: StageWeights) -> float:
    """LoRA slots of the stage's layers; those of embedding and head on the last stage."""
    lora, tensor = load.engine.settings.lora, load.strategy.tensor
    if lora is None:
        return 0.0
    parts = (Part.ATTENTION, Part.MLP, Part.SHARED_EXPERTS)
    groups, expert_tensor = load.strategy.expert_widths(over_data=rules.shards_experts_over_data)

    def sides_of(matrix: Matrix) -> int:
        if matrix.part is Part.EXPERTS and rules.adapts_experts:
            return sum(matrix.shape_on(expert_tensor)) * -(-matrix.copies // groups)
        return sum(matrix.shape_on(tensor)) if matrix.part in parts else 0

    sides = sum(number * sum(map(sides_of, layer.matrices)) for layer, number in load.model.kinds_in(stage.layers))
    if stage.layers.stop == load.model.layers:
        sides += 2 * sum(load.model.embedding.shape_on(tensor))
    return float(lora.slots * lora.rank * load.plain_bytes * sides)


def _draft_weights(load: Load, stage: StageWeights) -> Estimate:
    """What speculation loads, on the last stage: the model's own further layers, another model, or a head.

    A head that is not known is taken for nothing at least, a layer of the model's last kind, and with an embedding
    and an output head of its own at most.
    """
    draft, model, plain = load.engine.settings.draft, load.model, 8 * load.plain_bytes
    if draft is None or stage.layers.stop != model.layers:
        return ZERO
    widths = _Widths.of(load, None)
    if draft.uses_own_layers and model.draft_layers:
        held = sum(widths.bits_of_layer(layer, plain) for layer in model.draft_layers) / 8
        return Estimate(held * (1 - model.weight_error), held, held * (1 + model.weight_error))
    if draft.model is not None:
        alone = replace(load.strategy, pipeline=1, layers_per_stage=None)
        other = weights_of(replace(load, model=draft.model, strategy=alone), None)
        held = other.fullest.per_rank
        return Estimate(held * (1 - other.error), held, held * (1 + other.error))
    layer = widths.bits_of_layer(model.kinds[model.pattern[-1]], plain) / 8
    ends = widths.bits_of(model.embedding, plain) / 8
    return Estimate(0.0, layer, layer + 2 * ends)
