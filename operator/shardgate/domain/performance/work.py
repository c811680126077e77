"""What one pass does on one rank: operations, bytes read, messages; worked out once for a load."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from shardgate.domain.kv_cache import CacheOptions, state_bytes, token_bytes
from shardgate.domain.model import Cache, CacheKind, Layer, ModelArchitecture, Packing, Part
from shardgate.domain.performance.rates import Arithmetic
from shardgate.domain.strategy import ParallelStrategy, Remainder, layers_of_stages
from shardgate.domain.weights import Load

_ARITHMETIC = {
    "fp8": Arithmetic.FP8,
    "fp8-block": Arithmetic.FP8,
    "int8": Arithmetic.INT8,
    "nvfp4": Arithmetic.FP4,
    "mxfp4": Arithmetic.FP8,
}
"""Layouts that are multiplied in fewer than 16 bits where the GPU can; the others are unpacked first (weight-only).

MXFP4 experts are multiplied with 8-bit activations at best (gpt-oss: mxfp8 on Blackwell, 16 bits before).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Matrix products of one kind that a rank makes in a layer."""

    elements: float
    """Multiplied per token that the rank serves; of experts: on average."""
    weight_bytes: float
    """Read in a pass; of experts: were all of them touched."""
    arithmetic: Arithmetic
    over_replica: bool
    """Whether the rank takes part in all tokens of the replica, else in those of its data rank."""
    routed_share: float = 1.0
    """Experts that a token goes to, of all: 1 where nothing is routed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """What a layer's attention does with what is cached."""

    cache_bytes: float
    """Per token of context and sequence, on one rank."""
    prefill_operations: float
    """Per new token and token of context, on one rank."""
    decode_operations: float
    window_tokens: int | None
    """Beyond which tokens are forgotten."""
    state_bytes: float
    """Of a sequence, read and written in a step, whatever its length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWork:
    """One kind of layer, on one rank."""

    products: tuple[Product, ...]
    attentions: tuple[Attention, ...]
    is_mixture: bool
    attention_reduces: bool
    """Whether its ranks sum up after attention."""
    mlp_reduces: bool
    routed_bytes: float
    """Sent and received per token of the rank, to and from experts on other ranks; 0 where none are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageWork:
    """A pipeline stage, on one rank: kinds of layers, each with how many there are, and the head on the last."""

    layers: tuple[tuple[LayerWork, int], ...]
    head: Product | None

    @property
    def number(self) -> int:
        """Layers."""
        return sum(number for _, number in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A replica's pass."""

    stages: tuple[StageWork, ...]
    hidden_bytes: int
    """Of one token between layers: activations stay in 16 bits whatever the weights are."""
    attention_ranks: int
    tensor_ranks: int
    data_ranks: int
    """Over which the replica's sequences are split."""
    operations_per_token: float
    """Of the whole model, attention aside."""
    is_mixture: bool
    has_routed_ranks: bool


def work_of(load: Load, remainder: Remainder) -> Work:
    """What a pass of a load does. The result is kept for loads of the same values."""
    over_data = bool(load.engine.memory) and load.engine.memory[0].shards_experts_over_data
    caches_latents = not load.engine.memory or load.engine.memory[0].caches_latents
    ways = _Ways(
        strategy=load.strategy, dtype_bytes=load.plain_bytes, kv_cache_bits=load.kv_cache_bits, over_data=over_data,
        caches_latents=caches_latents, remainder=remainder,
    )  # fmt: skip
    return _work_of(_ById(load.model), ways)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ways:
    strategy: ParallelStrategy
    dtype_bytes: int
    kv_cache_bits: int
    over_data: bool
    caches_latents: bool
    remainder: Remainder


class _ById:
    """A model as a key: by identity, as catalogues keep theirs, for its own hash goes through all of it."""

    __slots__ = ("model",)

    def __init__(self, model: ModelArchitecture) -> None:
        self.model = model

    def __hash__(self) -> int:
        return id(self.model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.model is other.model


@lru_cache(maxsize=256)
def _work_of(key: _ById, ways: _Ways) -> Work:
    model, strategy = key.model, ways.strategy
    groups, _ = strategy.expert_widths(over_data=ways.over_data)
    ranges = layers_of_stages(model.layers, strategy, ways.remainder)
    of_kind = {id(kind): _layer(model, kind, ways) for kind in model.kinds}
    stages = tuple(
        StageWork(
            layers=tuple((of_kind[id(kind)], number) for kind, number in model.kinds_in(layers)),
            head=_head(model, ways) if index == len(ranges) - 1 else None,
        )
        for index, layers in enumerate(ranges)
    )
    data = strategy.data if strategy.attention_data else strategy.data_ranks_per_replica
    return Work(
        stages=stages,
        hidden_bytes=model.hidden_size * 2,
        attention_ranks=max(1, strategy.attention_ranks),
        tensor_ranks=strategy.tensor,
        data_ranks=data,
        operations_per_token=2.0 * _active_elements(model),
        is_mixture=model.is_mixture,
        has_routed_ranks=groups > 1 and model.is_mixture,
    )


def _active_elements(model: ModelArchitecture) -> float:
    """Elements that one token is multiplied with."""
    total = 0.0
    for layer, number in model.kinds_in(range(model.layers)):
        for matrix in layer.matrices:
            routed = model.active_experts / matrix.copies if matrix.part is Part.EXPERTS else 1.0
            total += number * matrix.copies * routed * matrix.outputs * matrix.inputs
    head = model.head or model.embedding
    return total + head.outputs * head.inputs


_OF_ATTENTION = (Part.ATTENTION, Part.STATE)


def _layer(model: ModelArchitecture, kind: Layer, ways: _Ways) -> LayerWork:
    strategy = ways.strategy
    groups, cut = strategy.expert_widths(over_data=ways.over_data)
    spans_data = groups * cut > strategy.tensor or strategy.attention_data
    products: dict[tuple[str, Arithmetic], Product] = {}

    def add(group: str, product: Product) -> None:
        key = (group, product.arithmetic)
        known = products.get(key)
        if known is not None:
            product = Product(
                elements=known.elements + product.elements, weight_bytes=known.weight_bytes + product.weight_bytes,
                arithmetic=product.arithmetic, over_replica=product.over_replica, routed_share=product.routed_share,
            )  # fmt: skip
        products[key] = product

    plain = 8 * ways.dtype_bytes
    for matrix in kind.matrices:
        arithmetic = _ARITHMETIC.get(matrix.packing.name, Arithmetic.HALF)
        if matrix.part is Part.EXPERTS:
            outputs, inputs = matrix.shape_on(cut)
            held = -(-matrix.copies // groups)
            share = model.active_experts / matrix.copies
            product = Product(
                elements=model.active_experts * outputs * inputs / groups,
                weight_bytes=matrix.bits_on(cut, held, plain) / 8,
                arithmetic=arithmetic, over_replica=spans_data, routed_share=share,
            )  # fmt: skip
            add("experts", product)
            continue
        of_attention = matrix.part in _OF_ATTENTION
        ranks = max(1, strategy.attention_ranks) if of_attention else strategy.tensor
        outputs, inputs = matrix.shape_on(ranks)
        product = Product(
            elements=float(matrix.copies * outputs * inputs), weight_bytes=matrix.bits_on(ranks, matrix.copies, plain) / 8,
            arithmetic=arithmetic, over_replica=strategy.attention_data and not of_attention,
        )  # fmt: skip
        add("attention" if of_attention else "mlp", product)
    is_mixture = kind.experts > 0
    exchanges = is_mixture and groups > 1 and spans_data
    return LayerWork(
        products=tuple(products.values()),
        attentions=tuple(_attention(model, cache, ways) for cache in kind.caches if cache.kind is not CacheKind.INDEX),
        is_mixture=is_mixture,
        attention_reduces=strategy.attention_ranks > 1,
        mlp_reduces=strategy.tensor > 1 and not exchanges,
        routed_bytes=_routed_bytes(model, groups) if exchanges else 0.0,
    )


DISPATCH_AND_COMBINE_BYTES = 3
"""Per element of a token that goes to an expert elsewhere and comes back: fp8 there, 16 bits back (DeepEP)."""


def _routed_bytes(model: ModelArchitecture, ranks: int) -> float:
    """One copy for each rank that has an expert of the token's, at most."""
    copies = min(model.active_experts, ranks)
    return copies * model.hidden_size * DISPATCH_AND_COMBINE_BYTES * (ranks - 1) / ranks


def _attention(model: ModelArchitecture, cache: Cache, ways: _Ways) -> Attention:
    ranks = max(1, ways.strategy.attention_ranks)
    options = CacheOptions(
        ranks=ranks, element_bits=ways.kv_cache_bits, state_bits=ways.dtype_bytes * 8, block_tokens=1,
        caches_latents=ways.caches_latents,
    )  # fmt: skip
    if cache.kind is CacheKind.STATE:
        return Attention(
            cache_bytes=0.0, prefill_operations=0.0, decode_operations=0.0, window_tokens=None,
            state_bytes=2.0 * state_bytes(cache, options),
        )  # fmt: skip
    heads = ceil(model.attention_heads / ranks)
    # Scores and values: 2 operations an element of a query's key and value; a latent's decode works on the latent itself.
    decode = 2.0 * heads * cache.head_elements * (2 if cache.kind is CacheKind.LATENT else 1)
    prefill = 2.0 * heads * (cache.expanded_head_elements or cache.head_elements)
    windowed = cache.kind in (CacheKind.SLIDING, CacheKind.CHUNKED)
    return Attention(
        cache_bytes=token_bytes(cache, options) / max(1, ways.strategy.decode_context),
        prefill_operations=prefill,
        decode_operations=decode,
        window_tokens=cache.window_tokens if windowed else None,
        state_bytes=0.0,
    )


def _head(model: ModelArchitecture, ways: _Ways) -> Product:
    matrix = model.head or model.embedding
    ranks = 1 if ways.strategy.attention_data else ways.strategy.tensor
    outputs, inputs = matrix.shape_on(ranks)
    packing: Packing = matrix.packing
    return Product(
        elements=float(outputs * inputs), weight_bytes=matrix.bits_on(ranks, matrix.copies, 8 * ways.dtype_bytes) / 8,
        arithmetic=_ARITHMETIC.get(packing.name, Arithmetic.HALF), over_replica=False,
    )  # fmt: skip
