"""What the fullest rank needs: weights. Never pooled over GPUs.

The KV cache, activations and the engines' own overheads belong here too, and come with the engines' rules;
until then a verdict says in its assumptions that it rests on weights alone.
"""

from dataclasses import dataclass
from math import ceil

from shardgate.domain.model import ModelArchitecture, WeightLayout
from shardgate.domain.strategy import ParallelStrategy, layers_of_stages
from shardgate.domain.units import Bytes

VOCABULARY_PADDING = 64
"""vLLM pads the vocabulary to a multiple of 64 before splitting it (``DEFAULT_VOCAB_PADDING_SIZE``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageWeights:
    """A pipeline stage: its layers, its weights over all tensor ranks (unique ones), and on one of them."""

    stage: int
    layers: range
    total: Bytes
    per_rank: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsEstimate:
    """The weights of one replica's data rank, stage by stage."""

    parameters: int
    total: Bytes
    stages: tuple[StageWeights, ...]

    @property
    def fullest(self) -> StageWeights:
        """The stage whose ranks hold most."""
        return max(self.stages, key=lambda stage: stage.per_rank)


def weights_of(model: ModelArchitecture, layout: WeightLayout, strategy: ParallelStrategy) -> WeightsEstimate:
    """Weights of every stage, as tensor and pipeline parallelism split them.

    Attention, MLP, embedding and head are divided by the tensor width; KV heads are replicated when there are
    fewer than ranks; norms are on every rank. The embedding is on the first stage, the head and the final norm
    on the last; tied, both ends hold a copy when there are several stages. Data ranks each hold all of it.
    """
    ranks = strategy.tensor
    stages = layers_of_stages(model.layers, strategy)
    padded_vocabulary = ceil(model.vocabulary_size / VOCABULARY_PADDING) * VOCABULARY_PADDING
    vocabulary_rank = ceil(padded_vocabulary / ranks) * model.hidden_size
    linear_rank = _linear_parameters_of_a_rank(model, ranks)
    last = len(stages) - 1

    def of_stage(stage: int, layers: range) -> StageWeights:
        holds_embedding = stage == 0
        holds_head = stage == last and not (model.tied_embeddings and holds_embedding)
        matrices, final_norm = holds_embedding + holds_head, model.hidden_size * (stage == last)
        norms = len(layers) * model.norm_parameters_per_layer + final_norm
        whole = (
            len(layers) * model.linear_parameters_per_layer * layout.linear_bytes
            + (matrices * model.embedding_parameters + norms) * layout.other_bytes
        )
        part = len(layers) * linear_rank * layout.linear_bytes
        part += (matrices * vocabulary_rank + norms) * layout.other_bytes
        return StageWeights(stage=stage, layers=layers, total=Bytes(ceil(whole)), per_rank=Bytes(ceil(part)))

    per_layer = model.layers * model.linear_parameters_per_layer
    total = per_layer * layout.linear_bytes + (model.parameters - per_layer) * layout.other_bytes
    return WeightsEstimate(
        parameters=model.parameters,
        total=Bytes(ceil(total)),
        stages=tuple(of_stage(stage, layers) for stage, layers in enumerate(stages)),
    )


def _linear_parameters_of_a_rank(model: ModelArchitecture, ranks: int) -> int:
    """One layer's linear weights on one tensor rank; rounded up where a width does not divide."""
    query = ceil(model.attention_heads / ranks) * model.head_dimension
    kv = max(1, ceil(model.kv_heads / ranks)) * model.head_dimension
    intermediate = ceil(model.intermediate_size / ranks)
    attention = model.hidden_size * (2 * query + 2 * kv)
    biases = (query + 2 * kv + model.hidden_size) * model.attention_bias
    mlp = 3 * model.hidden_size * intermediate
    return attention + biases + mlp + (2 * intermediate + model.hidden_size) * model.mlp_bias
