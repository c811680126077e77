"""What a model is made of: matrices, how each is stored and split, and what its layers cache."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import ceil


class Part(StrEnum):
    """Which part of a model a matrix belongs to: how it is split, and by what rule, follows from it."""

    ATTENTION = "attention"
    MLP = "mlp"
    EXPERTS = "experts"
    SHARED_EXPERTS = "shared experts"
    ROUTER = "router"
    STATE = "linear attention"
    EMBEDDING = "embedding"
    HEAD = "head"
    TOWER = "vision or audio tower"


class Split(StrEnum):
    """Along which side tensor parallelism cuts a matrix."""

    OUTPUTS = "outputs"
    INPUTS = "inputs"
    NONE = "none"
    """Every tensor rank holds all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How a matrix is stored: bits of an element, and bits that a block of elements shares (scales, zero points)."""

    name: str
    element_bits: int
    block_outputs: int = 0
    """Outputs that share a block; 0: all of them."""
    block_inputs: int = 0
    block_bits: int = 0

    def bits_of(self, outputs: int, inputs: int) -> int:
        """Bits of one matrix of this shape."""
        if not self.block_bits:
            return outputs * inputs * self.element_bits
        blocks = -(-outputs // (self.block_outputs or outputs)) * -(-inputs // (self.block_inputs or inputs))
        return outputs * inputs * self.element_bits + blocks * self.block_bits

    @property
    def is_quantised(self) -> bool:
        """Stored in fewer than 16 bits."""
        return self.element_bits < 16  # noqa: PLR2004  # 16-bit elements are what models are trained in


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """One linear weight, or ``copies`` equal ones (experts).

    ``units`` are the pieces along the split side that are never cut: heads, or single columns. With fewer units than
    ranks, each rank holds a whole one, as engines replicate KV heads.
    """

    name: str
    part: Part
    outputs: int
    inputs: int
    packing: Packing
    split: Split = Split.NONE
    units: int = 1
    copies: int = 1
    bias: int = 0
    """Elements of the bias, in 16 bits or the model's own width."""
    padded_to: int = 1
    """Engines pad the units to a multiple of this before they split them (vocabularies)."""

    @property
    def elements(self) -> int:
        """All of them, the bias included."""
        return self.copies * (self.outputs * self.inputs + self.bias)

    def shape_on(self, ranks: int) -> tuple[int, int]:
        """(outputs, inputs) of one copy on one of so many tensor ranks; the largest share where it is uneven.

        With 0 ranks: of the checkpoint's own matrix, not padded.
        """
        if ranks == 0:
            return self.outputs, self.inputs
        side = self.outputs if self.split is Split.OUTPUTS else self.inputs
        units = ceil(self.units / self.padded_to) * self.padded_to
        share = max(1, ceil(units / ranks)) * (side // self.units)
        if self.split is Split.OUTPUTS:
            return share, self.inputs
        return (self.outputs, share) if self.split is Split.INPUTS else (self.outputs, self.inputs)

    def bits_on(self, ranks: int, copies: int, plain_bits: int) -> int:
        """Bits on one of so many tensor ranks that holds ``copies`` of them."""
        outputs, inputs = self.shape_on(ranks)
        bias = -(-self.bias * outputs // self.outputs) if self.split is Split.OUTPUTS else self.bias
        return copies * (self.packing.bits_of(outputs, inputs) + bias * plain_bits)


class CacheKind(StrEnum):
    """What an attention layer keeps of past tokens."""

    FULL = "full"
    SLIDING = "sliding window"
    CHUNKED = "chunked"
    LATENT = "latent (MLA)"
    INDEX = "sparse attention's index"
    STATE = "state of linear attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """What one layer keeps: per token (``heads`` x ``head_elements``), or one state per sequence."""

    kind: CacheKind
    heads: int = 1
    """KV heads; a latent is one head that every tensor rank holds."""
    head_elements: int = 0
    """Elements of a head and token, keys and values together."""
    window_tokens: int | None = None
    expanded_heads: int = 0
    """For a latent: attention heads, and below the elements of each, of engines that cache it expanded."""
    expanded_head_elements: int = 0
    convolution_elements: int = 0
    """For a state, per sequence: elements in the model's type, and elements of the recurrent state."""
    state_elements: int = 0
    state_units: int = 1
    """Heads over which tensor parallelism splits the state."""
    bytes_at_8_bits: int = 0
    """Of a token where the cache is of 8 bits, if a format of its own holds it."""
    fixed_bytes: int = 0
    """Bytes per token that do not follow the cache's type (the index: 128 in 8 bits and a scale)."""

    @property
    def is_per_token(self) -> bool:
        """Whether it grows with the sequence."""
        return self.kind is not CacheKind.STATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One kind of transformer layer."""

    matrices: tuple[Matrix, ...]
    plain_elements: int
    """Norms and other vectors that every tensor rank holds, in the model's own width."""
    caches: tuple[Cache, ...] = ()
    absorbed: tuple[Matrix, ...] = ()
    """Copies that an engine which absorbs a latent's up-projection (MLA) keeps besides the checkpoint's weights."""

    @property
    def elements(self) -> int:
        """Parameters of the layer."""
        return sum(matrix.elements for matrix in self.matrices) + self.plain_elements

    def stored_bits(self, plain_bits: int) -> int:
        """What a checkpoint takes for it."""
        return sum(each.bits_on(0, each.copies, plain_bits) for each in self.matrices) + self.plain_elements * plain_bits

    @property
    def experts(self) -> int:
        """Routed experts; 0 in a dense layer."""
        return max((matrix.copies for matrix in self.matrices if matrix.part is Part.EXPERTS), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArchitecture:
    """A model as a checkpoint stores it: shapes, layers, and the packing of every matrix.

    ``source`` is where the figures were read. ``is_exact`` is false where the architecture's class is not one that
    was read: shapes then follow the common reading of its fields, and nothing is refused by them.
    """

    name: str
    architecture: str
    hidden_size: int
    attention_heads: int
    kv_heads: int
    intermediate_size: int
    """Of a dense MLP, or of one expert where every layer is a mixture."""
    vocabulary_size: int
    kinds: tuple[Layer, ...]
    """Each kind of layer once: work is done once for each."""
    pattern: tuple[int, ...]
    """The kind of every layer, first to last."""
    embedding: Matrix
    head: Matrix | None
    """``None``: the head is the embedding (tied)."""
    plain_elements: int
    """Final norm, learned positions and the like, outside the layers."""
    dtype: str
    source: str
    max_context_tokens: int | None = None
    active_experts: int = 0
    tower: tuple[Matrix, ...] = ()
    """Vision or audio encoders and their projectors, as matrices."""
    draft_layers: tuple[Layer, ...] = ()
    """Layers that predict further tokens; loaded only where speculation uses them."""
    rotary_elements: int = 0
    """Of the tables of sines and cosines that each rank builds (positions x rotary width, each distinct table once)."""
    has_cache: bool = True
    """False for encoders that keep nothing between passes."""
    is_exact: bool = True
    weight_scale: float = 1.0
    """By how much the checkpoint's own index differs from what the shapes tell."""
    weight_error: float = 0.0
    """Relative uncertainty of its weights' bytes."""

    @property
    def tied_embeddings(self) -> bool:
        """Whether the output head is the embedding."""
        return self.head is None

    @property
    def is_mixture(self) -> bool:
        """Whether any layer routes tokens to experts."""
        return any(layer.experts for layer in self.kinds)

    @property
    def experts(self) -> int:
        """Routed experts of the layers that have most."""
        return max((layer.experts for layer in self.kinds), default=0)

    @property
    def is_latent(self) -> bool:
        """Whether attention keeps one latent per token (MLA)."""
        return any(cache.kind is CacheKind.LATENT for layer in self.kinds for cache in layer.caches)

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return len(self.pattern)

    def kinds_in(self, layers: range) -> Iterator[tuple[Layer, int]]:
        """Each kind of layer in a run of them, with how many there are."""
        if len(self.kinds) == 1:
            yield self.kinds[0], len(layers)
            return
        for kind, number in Counter(self.pattern[layers.start : layers.stop]).items():
            yield self.kinds[kind], number

    def stored_bits(self, plain_bits: int) -> int:
        """What a checkpoint takes, by its shapes; layers that only speculation loads are left out."""
        layers = sum(layer.stored_bits(plain_bits) * number for layer, number in self.kinds_in(range(self.layers)))
        others = [self.embedding, *self.tower, *([self.head] if self.head is not None else [])]
        return layers + sum(each.bits_on(0, each.copies, plain_bits) for each in others) + self.plain_elements * plain_bits

    @property
    def parameters(self) -> int:
        """Unique parameters, a tied head counted once; layers that only speculation loads are left out."""
        ends = self.embedding.elements + (self.head.elements if self.head is not None else 0)
        tower = sum(matrix.elements for matrix in self.tower)
        layers = sum(layer.elements * number for layer, number in self.kinds_in(range(self.layers)))
        return layers + ends + tower + self.plain_elements
