"""The layers of a decoder, from config.json's fields and what its class does beyond them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from shardgate.adapters.models.fields import Fields
from shardgate.domain.model import Cache, CacheKind, Layer, Matrix, Packing, Part, Split

Traits = dict[str, Any]

MOST_EXPERTS = 65536

EXPANDED_LATENT_ELEMENTS = 512
"""Keys and values of a head that an engine without a latent cache stores: 192 and 128, padded to 256 each
(vLLM 0.5.1 and DeepSeek-V2: 27 x 8 x 256 x 2 x 2 bytes per token and rank were measured)."""

INDEX_BYTES_PER_TOKEN = 132
"""DeepSeek sparse attention's index: 128 elements in 8 bits and one 32-bit scale."""

SPARSE_LATENT_BYTES = 656
"""Of a token in 8 bits beside sparse attention (vLLM's ``fp8_ds_mla``): 512 in 8 bits, 4 scales, 64 in 16 bits."""

UNPACKED = Packing(name="as the model", element_bits=16)


def linear(
    name: str, part: Part, outputs: int, inputs: int, *, split: Split = Split.NONE, units: int | None = None, copies: int = 1,
    bias: bool = False,
) -> Matrix:  # fmt: skip
    """A matrix that is yet to be packed. Without ``units``, single columns of the split side."""
    side = outputs if split is Split.OUTPUTS else inputs
    return Matrix(
        name=name, part=part, outputs=outputs, inputs=inputs, packing=UNPACKED, split=split,
        units=(units if units is not None else side) if split is not Split.NONE else 1, copies=copies, bias=outputs if bias else 0,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Half a layer: matrices, vectors on every rank, and what it caches."""

    matrices: tuple[Matrix, ...]
    plain_elements: int = 0
    caches: tuple[Cache, ...] = ()
    absorbed: tuple[Matrix, ...] = ()


def attention_of(fields: Fields, traits: Traits) -> Callable[[str], Shape]:
    """A layer's attention by its type: full_attention, sliding_attention, chunked_attention, linear_attention, mamba."""
    hidden = fields.count("hidden_size", 1)
    heads = fields.count("num_attention_heads", 1)
    latent = fields.number_or_none("kv_lora_rank")

    def shape(kind: str) -> Shape:
        if kind in ("mlp", "moe"):
            return Shape(matrices=())
        if kind == "linear_attention":
            return _gated_delta_net(fields, hidden)
        if kind == "mamba":
            return _mamba(fields, hidden)
        return _latent(fields, traits, hidden, heads, latent) if latent else _grouped_query(fields, traits, hidden, heads, kind)

    return shape


def _grouped_query(fields: Fields, traits: Traits, hidden: int, heads: int, kind: str) -> Shape:
    """Multi-head, grouped-query and multi-query attention; global layers of a family may have a shape of their own."""
    kv_heads = kv_heads_of(fields, traits, heads)
    width = fields.count("head_dim", max(1, hidden // heads))
    value_width = fields.count("v_head_dim", width)
    shares_value = False
    if kind == "full_attention" and fields.raw("global_head_dim") is not None:
        width = value_width = fields.count("global_head_dim", width)
        kv_heads = fields.count("num_global_key_value_heads", kv_heads)
        shares_value = fields.flag("attention_k_eq_v")
    bias, output_bias = _attention_biases(fields, traits)
    query_width = heads * width * (2 if traits.get("queryGate") else 1)
    matrices = [
        linear("self_attn.q_proj", Part.ATTENTION, query_width, hidden, split=Split.OUTPUTS, units=heads, bias=bias),
        linear("self_attn.k_proj", Part.ATTENTION, kv_heads * width, hidden, split=Split.OUTPUTS, units=kv_heads, bias=bias),
    ]
    if not shares_value:
        matrices.append(
            linear(
                "self_attn.v_proj", Part.ATTENTION, kv_heads * value_width, hidden, split=Split.OUTPUTS, units=kv_heads, bias=bias
            )
        )
    matrices.append(
        linear("self_attn.o_proj", Part.ATTENTION, hidden, heads * value_width, split=Split.INPUTS, units=heads, bias=output_bias)
    )
    norms = {"head": 2 * width, "width": (heads + kv_heads) * width}.get(_query_key_norm(fields, traits), 0)
    sinks = heads if traits.get("sinks") else 0
    cache = Cache(
        kind={"sliding_attention": CacheKind.SLIDING, "chunked_attention": CacheKind.CHUNKED}.get(kind, CacheKind.FULL),
        heads=kv_heads,
        head_elements=width + value_width,
        window_tokens=_window(fields, kind),
    )
    return Shape(matrices=tuple(matrices), plain_elements=norms + sinks, caches=(cache,))


def kv_heads_of(fields: Fields, traits: Traits, heads: int) -> int:
    """KV heads, with the spellings of multi-query models."""
    if traits.get("multiQuery") or (traits.get("falcon") and not fields.flag("new_decoder_architecture")):
        return 1 if fields.flag("multi_query", default=True) else heads
    return fields.count("num_key_value_heads", heads)


def _window(fields: Fields, kind: str) -> int | None:
    name = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}.get(kind)
    return fields.number_or_none(name) or None if name else None


def _attention_biases(fields: Fields, traits: Traits) -> tuple[bool, bool]:
    """(of queries, keys and values; of the output)."""
    kind = traits["attentionBias"]
    if kind in _FIXED_BIASES:
        return _FIXED_BIASES[kind]
    of_inputs, of_output = _BIAS_FIELDS[kind]
    output = traits.get("outputBias", of_output)
    return any(fields.flag(name) for name in of_inputs), bool(output) and fields.flag(output)


_FIXED_BIASES = {"all": (True, True), "qkv": (True, False), "none": (False, False)}
_BIAS_FIELDS: dict[str, tuple[tuple[str, ...], str]] = {
    "config": (("attention_bias",), "attention_bias"),
    "config-qkv": (("attention_bias",), ""),
    "qkv-config": (("use_qkv_bias",), ""),
    "chatglm": (("add_qkv_bias", "add_bias_linear"), "add_bias_linear"),
    "internlm": (("bias",), "bias"),
    "internlm3": (("qkv_bias",), "bias"),
    "use_bias": (("use_bias",), "use_bias"),
}
"""A class's kind of biases -> (fields that say it of the inputs' projections, the field that says it of the output's)."""


def _query_key_norm(fields: Fields, traits: Traits) -> str:
    stated = str(traits["qkNorm"])
    if not stated.startswith("config-"):
        return stated
    return stated.removeprefix("config-") if fields.flag("use_qk_norm") else "none"


def _latent(fields: Fields, traits: Traits, hidden: int, heads: int, latent: int) -> Shape:
    """Multi-head latent attention: down-projections on every rank, up-projections split by heads."""
    rotary = fields.count("qk_rope_head_dim", 64)
    plain, value = fields.count("qk_nope_head_dim", 128), fields.count("v_head_dim", 128)
    query_latent = fields.number_or_none("q_lora_rank")
    query_width = heads * (plain + rotary)
    if query_latent:
        queries = [
            linear("self_attn.q_a_proj", Part.ATTENTION, query_latent, hidden),
            linear("self_attn.q_b_proj", Part.ATTENTION, query_width, query_latent, split=Split.OUTPUTS, units=heads),
        ]
    else:
        queries = [linear("self_attn.q_proj", Part.ATTENTION, query_width, hidden, split=Split.OUTPUTS, units=heads)]
    up = linear("self_attn.kv_b_proj", Part.ATTENTION, heads * (plain + value), latent, split=Split.OUTPUTS, units=heads)
    matrices = [
        *queries,
        linear("self_attn.kv_a_proj_with_mqa", Part.ATTENTION, latent + rotary, hidden),
        up,
        linear("self_attn.o_proj", Part.ATTENTION, hidden, heads * value, split=Split.INPUTS, units=heads),
    ]
    norms = query_latent + latent
    own_format = SPARSE_LATENT_BYTES if traits.get("index") and (latent, rotary) == (512, 64) else 0
    caches = [
        Cache(
            kind=CacheKind.LATENT, head_elements=latent + rotary, expanded_heads=heads,
            expanded_head_elements=EXPANDED_LATENT_ELEMENTS, bytes_at_8_bits=own_format,
        )
    ]  # fmt: skip
    if traits.get("index"):
        index_heads, index_width = fields.count("index_n_heads", 64), fields.count("index_head_dim", 128)
        matrices += [
            linear("self_attn.indexer.wq_b", Part.ATTENTION, index_heads * index_width, query_latent or hidden),
            linear("self_attn.indexer.wk", Part.ATTENTION, index_width, hidden),
            linear("self_attn.indexer.weights_proj", Part.ROUTER, index_heads, hidden),
        ]
        norms += 2 * index_width
        caches.append(Cache(kind=CacheKind.INDEX, fixed_bytes=INDEX_BYTES_PER_TOKEN))
    return Shape(matrices=tuple(matrices), plain_elements=norms, caches=tuple(caches), absorbed=(replace(up, name="absorbed"),))


def _gated_delta_net(fields: Fields, hidden: int) -> Shape:
    """Gated delta net (Qwen3-Next and newer): one state per sequence instead of a cache per token."""
    value_heads, key_heads = fields.count("linear_num_value_heads", 1), fields.count("linear_num_key_heads", 1)
    key_width, value_width = fields.count("linear_key_head_dim", 128), fields.count("linear_value_head_dim", 128)
    kernel = fields.count("linear_conv_kernel_dim", 4)
    keys, values = key_heads * key_width, value_heads * value_width
    mixed = 2 * keys + values
    by_heads: dict[str, Any] = {"split": Split.OUTPUTS, "units": key_heads}
    matrices = (
        linear("linear_attn.in_proj_qkvz", Part.STATE, mixed + values, hidden, **by_heads),
        linear("linear_attn.in_proj_ba", Part.ROUTER, 2 * value_heads, hidden),
        linear("linear_attn.conv1d", Part.ROUTER, mixed, kernel),
        linear("linear_attn.out_proj", Part.STATE, hidden, values, split=Split.INPUTS, units=key_heads),
    )
    state = Cache(
        kind=CacheKind.STATE, convolution_elements=mixed * (kernel - 1), state_elements=value_heads * key_width * value_width,
        state_units=key_heads,
    )  # fmt: skip
    return Shape(matrices=matrices, plain_elements=2 * value_heads + value_width, caches=(state,))


def _mamba(fields: Fields, hidden: int) -> Shape:
    """Mamba 2 mixers."""
    heads, width = (
        fields.count("mamba_num_heads", fields.count("mamba_n_heads", 1)),
        fields.count("mamba_head_dim", fields.count("mamba_d_head", 64)),
    )
    groups, state = (
        fields.count("n_groups", fields.count("mamba_n_groups", 1)),
        fields.count("ssm_state_size", fields.count("mamba_d_state", 128)),
    )
    kernel = fields.count("conv_kernel", fields.count("mamba_d_conv", 4))
    inner = heads * width  # mixers keep their own shape, whatever the hidden width
    convolved = inner + 2 * groups * state
    matrices = (
        linear("mixer.in_proj", Part.STATE, inner + convolved + heads, hidden, split=Split.OUTPUTS, units=groups),
        linear("mixer.conv1d", Part.ROUTER, convolved, kernel, bias=fields.flag("use_conv_bias", default=True)),
        linear("mixer.out_proj", Part.STATE, hidden, inner, split=Split.INPUTS, units=groups),
    )
    cache = Cache(
        kind=CacheKind.STATE, convolution_elements=convolved * (kernel - 1), state_elements=inner * state, state_units=groups
    )
    return Shape(matrices=matrices, plain_elements=3 * heads + inner, caches=(cache,))


def dense_mlp(fields: Fields, traits: Traits, hidden: int, width: int, *, part: Part = Part.MLP, name: str = "mlp") -> list[Matrix]:
    """Two or three matrices."""
    bias = (
        traits["mlpBias"] == "all" or fields.flag("mlp_bias") or (traits["attentionBias"] == "use_bias" and fields.flag("use_bias"))
    )
    names = ("up_proj",) if traits["mlp"] == "plain" else ("gate_proj", "up_proj")
    return [
        *(linear(f"{name}.{each}", part, width, hidden, split=Split.OUTPUTS, bias=bias) for each in names),
        linear(f"{name}.down_proj", part, hidden, width, split=Split.INPUTS, bias=bias),
    ]


def experts_mlp(fields: Fields, traits: Traits, hidden: int) -> list[Matrix]:
    """Routed experts, the router, and shared experts."""
    experts = fields.count("experts", 1, most=MOST_EXPERTS)
    outer, hidden = hidden, fields.number_or_none("moe_latent_size") or hidden
    intermediate = fields.count("intermediate_size", 1)
    width = (
        intermediate
        if traits.get("expertWidth") == "intermediate"
        else first_count(fields, ("moe_intermediate_size", "moe_ffn_hidden_size", "expert_dim"), intermediate)
    )
    bias = bool(traits.get("expertBias"))
    gates = ("up_proj",) if traits["mlp"] == "plain" else ("gate_proj", "up_proj")
    matrices = [linear("mlp.gate", Part.ROUTER, experts, outer, bias=bool(traits.get("routerBias")))]
    if hidden != outer:  # experts work on a narrower state
        matrices += [
            linear("mlp.fc1_latent_proj", Part.ROUTER, hidden, outer),
            linear("mlp.fc2_latent_proj", Part.ROUTER, outer, hidden),
        ]
    matrices += [
        linear(f"mlp.experts.{name}", Part.EXPERTS, width, hidden, split=Split.OUTPUTS, copies=experts, bias=bias) for name in gates
    ]
    matrices.append(linear("mlp.experts.down_proj", Part.EXPERTS, hidden, width, split=Split.INPUTS, copies=experts, bias=bias))
    shared = shared_width(fields, traits, width)
    if shared:
        matrices += dense_mlp(fields, traits, outer, shared, part=Part.SHARED_EXPERTS, name="mlp.shared_experts")
        if traits.get("sharedGate"):
            matrices.append(linear("mlp.shared_expert_gate", Part.ROUTER, 1, outer))
    return matrices


def shared_width(fields: Fields, traits: Traits, expert_width: int) -> int:
    """The width of all shared experts together; 0 for none."""
    if traits.get("oneSharedExpert"):
        return expert_width
    stated = fields.number_or_none("shared_expert_intermediate_size") or fields.number_or_none(
        "moe_shared_expert_intermediate_size"
    )
    for name in ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts"):
        number = fields.raw(name)
        if isinstance(number, list) and number and isinstance(number[0], int):
            return int(number[0]) * expert_width
        if fields.number_or_none(name):
            return fields.number_or_none(name) * (stated or expert_width)
    return stated


def first_count(fields: Fields, names: Iterable[str], default: int) -> int:
    """The first of these fields that is there; of a list, its first number."""
    for name in names:
        value = fields.raw(name)
        if isinstance(value, list) and value and isinstance(value[0], int):
            return int(value[0])
        if value is not None:
            return fields.count(name, default)
    return default


def mixture_layers(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Which layers route to experts."""
    if not fields.number_or_none("experts"):
        return (False,) * layers
    listed = fields.raw("moe_layers")
    if isinstance(listed, list) and all(isinstance(each, int) for each in listed) and listed:
        chosen = set(listed)
        return tuple(index in chosen for index in range(layers))
    freq = fields.raw("moe_layer_freq")
    if isinstance(freq, list) and len(freq) >= layers:
        return tuple(bool(each) for each in freq[:layers])
    first = fields.number_or_none("first_k_dense_replace") or fields.number_or_none("moe_layer_start_index")
    step = (
        fields.number_or_none("interleave_moe_layer_step")
        or fields.number_or_none("decoder_sparse_step")
        or (freq if isinstance(freq, int) and freq > 0 else fields.number_or_none("moe_layer_interval") or 1)
    )
    period, offset = fields.number_or_none("expert_layer_period"), fields.raw("expert_layer_offset")
    if period:
        return tuple(index % period == (offset if isinstance(offset, int) else 0) for index in range(layers))
    dense = fields.raw("mlp_only_layers")
    only = set(dense) if isinstance(dense, list) and all(isinstance(each, int) for each in dense) else set()
    counts_from_one = fields.raw("interleave_moe_layer_step") is not None or fields.raw("decoder_sparse_step") is not None
    return tuple(index >= first and index not in only and (index + counts_from_one) % step == 0 for index in range(layers))


def packed(layer: Layer, plain: Packing, pack: Callable[[str, Part], Packing], index: int) -> Layer:
    """The layer with every matrix stored as the layout says."""
    return replace(
        layer,
        matrices=tuple(replace(each, packing=pack(f"layers.{index}.{each.name}", each.part)) for each in layer.matrices),
        absorbed=tuple(replace(each, packing=plain) for each in layer.absorbed),
    )
