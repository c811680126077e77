"""Any config.json -> ``ModelArchitecture``."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from shardgate.adapters.errors import group
from shardgate.adapters.models.fields import Fields
from shardgate.adapters.models.layers import (
    Shape,
    Traits,
    attention_of,
    dense_mlp,
    experts_mlp,
    first_count,
    linear,
    mixture_layers,
    packed,
)
from shardgate.adapters.models.quantization import WeightLayout
from shardgate.adapters.tables import table
from shardgate.domain.declaration import ModelUnknown
from shardgate.domain.model import Layer, Matrix, ModelArchitecture, Packing, Part, Split

_REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
MOST_LAYERS = 4096
VOCABULARY_PADDING = 64
"""vLLM pads the vocabulary to a multiple of 64 before it splits it (``DEFAULT_VOCAB_PADDING_SIZE``)."""

GENERIC_ERROR = 0.1
"""Uncertainty of the weights of a class that was not read."""

_ROPE_WITHIN_POSITIONS = ("llama3", "longrope", "su", "mrope", "default")
"""Kinds of rope scaling whose reach max_position_embeddings already states."""

MOST_STRETCH = 10_000

_BLOCKS = {"M": "mamba", "*": "full_attention", "-": "mlp", "E": "moe"}
"""Of a model whose layers are one thing each (Nemotron-H)."""

_DTYPES = {"float16": "fp16", "half": "fp16", "bfloat16": "bf16", "float32": "fp32", "float": "fp32"}


def dtype_of(fields: Mapping[str, Any]) -> str | None:
    """The config's own element type: fp16, bf16, fp32."""
    for name in ("dtype", "torch_dtype"):
        for values in (fields, fields.get("text_config"), fields.get("language_config"), fields.get("llm_config")):
            if isinstance(values, dict) and isinstance(values.get(name), str):
                return _DTYPES.get(values[name].removeprefix("torch."))
    return None


def class_of(config: Mapping[str, Any]) -> str:
    """The model's class; empty where it is not stated."""
    stated = config.get("architectures")
    return stated[0] if isinstance(stated, list) and stated and isinstance(stated[0], str) else ""


def traits_of(architecture: str) -> tuple[Traits, bool]:
    """What the class does, and whether it is one that was read."""
    data = table("architectures")
    known = data["classes"].get(architecture)
    return {**data["defaults"], **(known or {})}, known is not None


def read_config(
    name: str, config: Mapping[str, Any], layout: WeightLayout, *, source: str, where: str, tower_parameters: int = 0
) -> ModelArchitecture | ModelUnknown:
    """The architecture that config.json describes, stored by the layout.

    Raises an ``ExceptionGroup`` of ``DeclarationError`` for fields that are not what config.json allows.
    """
    architecture = class_of(config)
    traits, known = traits_of(architecture)
    fields = Fields.of(config, where)
    missing = [field for field in _REQUIRED if fields.raw(field) is None]
    unmodelled = table("architectures")["unmodelled"].get(architecture)
    if missing and unmodelled is None:
        return ModelUnknown(
            problem=f"the config of {name} lacks {', '.join(missing)}",
            remedy=f"add them from the model's config.json to {where}",
        )
    if unmodelled is None and fields.raw("is_encoder_decoder") is True:
        unmodelled = "an encoder beside the decoder"
    if unmodelled is not None:
        return ModelUnknown(
            problem=f"{architecture} has {unmodelled}, which is not modelled", remedy="none in this version; GPU counts are judged"
        )
    reading = _Reading(fields=fields, traits=traits, layout=layout, architecture=architecture)
    found = reading.architecture_named(name, source, known=known, config=config, tower_parameters=tower_parameters)
    if fields.errors:
        raise group(fields.errors)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    fields: Fields
    traits: Traits
    layout: WeightLayout
    architecture: str

    def architecture_named(
        self, name: str, source: str, *, known: bool, config: Mapping[str, Any], tower_parameters: int
    ) -> ModelArchitecture:
        fields, traits, layout = self.fields, self.traits, self.layout
        hidden, layers = fields.count("hidden_size", 1), fields.count("num_hidden_layers", 1, most=MOST_LAYERS)
        heads, vocabulary = fields.count("num_attention_heads", 1), fields.count("vocab_size", 1)
        if not fields.errors:
            self._contradictions(hidden, heads)
        if fields.errors:
            layers = 1  # what follows only looks for further mistakes
        kinds, pattern = self._layers(layers)
        tied = bool(traits.get("noHead")) or fields.flag("tie_word_embeddings", default=bool(traits["tied"]))
        tower, tower_error = self._tower(config, hidden, tower_parameters)
        encoder = bool(traits.get("encoder"))
        return ModelArchitecture(
            name=name,
            architecture=self.architecture,
            hidden_size=hidden,
            attention_heads=heads,
            kv_heads=max((cache.heads for kind in kinds for cache in kind.caches if cache.is_per_token), default=heads),
            intermediate_size=self._dense_width(),
            vocabulary_size=vocabulary,
            kinds=kinds,
            pattern=pattern,
            embedding=self._vocabulary_matrix("embed_tokens", Part.EMBEDDING, vocabulary, hidden),
            head=None if tied or encoder else self._vocabulary_matrix("lm_head", Part.HEAD, vocabulary, hidden),
            plain_elements=self._outside(hidden),
            dtype=dtype_of(config) or ("fp32" if encoder else "bf16"),
            source=source,
            max_context_tokens=self._longest_context(),
            active_experts=_first_number(fields.raw("active_experts")) or fields.number_or_none("active_experts"),
            tower=tower,
            draft_layers=self._draft_layers(kinds, pattern, hidden),
            rotary_elements=self._rotary(hidden, heads),
            has_cache=not encoder,
            is_exact=known,
            weight_error=max(layout.error, 0.003 if known else GENERIC_ERROR, tower_error),
        )

    def _longest_context(self) -> int | None:
        """Positions that the model was made for, stretched by its rope scaling as vLLM reads it; ``None`` where it is not told."""
        fields = self.fields
        told = fields.number_or_none("model_max_length")
        if told:  # vLLM takes it before all others (Command R)
            return told
        positions = fields.number_or_none("max_position_embeddings")
        scaling = fields.raw("rope_scaling") or fields.raw("rope_parameters")
        if not positions or not isinstance(scaling, dict):
            return positions or None
        kind, factor = str(scaling.get("rope_type") or scaling.get("type") or ""), scaling.get("factor")
        if (
            kind in _ROPE_WITHIN_POSITIONS
            or isinstance(factor, bool)
            or not isinstance(factor, int | float)
            or not 1 <= factor < MOST_STRETCH
        ):
            return positions
        original = scaling.get("original_max_position_embeddings")
        if kind == "yarn" and isinstance(original, int) and 0 < original <= positions:
            positions = original
        return int(positions * factor)

    def _contradictions(self, hidden: int, heads: int) -> None:
        """What a config may not say at once."""
        fields = self.fields
        if fields.raw("head_dim") is None and fields.number_or_none("kv_lora_rank") == 0 and heads > hidden:
            fields.wrong("num_attention_heads", f"at most hidden_size ({hidden})", heads)
        kv_heads = fields.raw("num_key_value_heads")
        if isinstance(kv_heads, int) and not isinstance(kv_heads, bool) and kv_heads > heads:
            fields.wrong("num_key_value_heads", f"at most num_attention_heads ({heads})", kv_heads)
        experts, active = fields.number_or_none("experts"), fields.raw("active_experts")
        if experts and isinstance(active, int) and active > experts:
            fields.wrong("num_experts_per_tok", f"at most the {experts} experts", active)

    def _vocabulary_matrix(self, name: str, part: Part, vocabulary: int, hidden: int) -> Matrix:
        matrix = linear(name, part, vocabulary, hidden, split=Split.OUTPUTS, bias=part is Part.HEAD and self.traits["headBias"])
        return replace(matrix, packing=self.layout.packer()(name, part), padded_to=VOCABULARY_PADDING)

    def _dense_width(self) -> int:
        """Of a dense layer's MLP."""
        fields, hidden = self.fields, self.fields.count("hidden_size", 1)
        if self.fields.raw("intermediate_size_mlp") is not None:
            return fields.count("intermediate_size_mlp")
        nested = fields.raw("ffn_config")
        if fields.raw("intermediate_size") is None and isinstance(nested, dict) and isinstance(nested.get("ffn_hidden_size"), int):
            return int(nested["ffn_hidden_size"])
        value = first_count(fields, ("intermediate_size", "ffn_hidden_size", "inner_hidden_size"), 0)
        if value == 0 and (self.traits["mlp"] == "plain" or self.traits.get("encoder")):
            ratio = fields.raw("expansion_ratio")
            value = hidden * (ratio if isinstance(ratio, int) else 4)
        return value or fields.count("moe_intermediate_size", 4 * hidden)

    def _layers(self, layers: int) -> tuple[tuple[Layer, ...], tuple[int, ...]]:
        """Each kind of layer once, and the kind of every layer."""
        fields, traits, layout = self.fields, self.traits, self.layout
        hidden = fields.count("hidden_size", 1)
        pack, by_layer = layout.packer(), layout.by_layer
        attention = attention_of(fields, traits)
        types = self._layer_types(layers)
        mixed = mixture_layers(fields, layers)
        shapes: dict[tuple[str, bool], Layer] = {}
        kinds: list[Layer] = []
        index_of: dict[object, int] = {}
        pattern: list[int] = []
        for index, key in enumerate(zip(types, mixed, strict=True)):
            if key not in shapes:
                shapes[key] = self._layer(attention(key[0]), key[0], is_mixture=key[1], hidden=hidden)
            shape = shapes[key]
            if layout.packed is None:
                packings: tuple[Packing, ...] = ()
            elif by_layer:
                packings = tuple(pack(f"layers.{index}.{each.name}", each.part) for each in shape.matrices)
            else:
                packings = (layout.packed,)
            signature = (*key, *map(id, packings))
            if signature not in index_of:
                index_of[signature] = len(kinds)
                kinds.append(packed(shape, layout.plain, pack, index))
            pattern.append(index_of[signature])
        return tuple(kinds), tuple(pattern)

    def _layer(self, attention: Shape, kind: str, *, is_mixture: bool, hidden: int) -> Layer:
        fields, traits = self.fields, self.traits
        matrices = list(attention.matrices)
        norms = int(traits["norms"])
        if traits.get("single"):
            norms = 1
            if kind == "mlp":
                matrices += dense_mlp(fields, traits, hidden, self._dense_width())
            elif kind == "moe":
                matrices += experts_mlp(fields, traits, hidden)
        elif is_mixture:
            matrices += experts_mlp(fields, traits, hidden)
            if traits.get("denseBesideExperts"):
                matrices += dense_mlp(fields, traits, hidden, self._dense_width(), name="mlp.dense")
        elif not traits.get("sharedBesideAll"):
            matrices += dense_mlp(fields, traits, hidden, self._dense_width())
        if traits.get("sharedBesideAll"):
            width = fields.number_or_none("shared_intermediate_size") or self._dense_width()
            matrices += dense_mlp(fields, traits, hidden, width, part=Part.SHARED_EXPERTS, name="shared_mlp")
        if traits.get("falcon") and not (fields.flag("new_decoder_architecture") or not fields.flag("parallel_attn", default=True)):
            norms = 1
        bias = bool(traits["normBias"]) or bool(traits.get("falcon"))
        return Layer(
            matrices=tuple(matrices),
            plain_elements=attention.plain_elements + norms * hidden * (1 + bias),
            caches=() if traits.get("encoder") else attention.caches,
            absorbed=attention.absorbed,
        )

    def _layer_types(self, layers: int) -> list[str]:
        """The attention of every layer."""
        fields, traits = self.fields, self.traits
        blocks = fields.raw("hybrid_override_pattern")
        if traits.get("single") and isinstance(blocks, str) and len(blocks) == layers:
            return [_BLOCKS.get(each, "mlp") for each in blocks]
        stated = fields.texts("layer_types", layers)
        if stated is not None:
            return stated if traits["sliding"] != "none" or self._has_other_types(stated) else ["full_attention"] * layers
        other, every = self._other_attention()
        return ["full_attention" if every and (index + 1) % every == 0 else other for index in range(layers)]

    def _other_attention(self) -> tuple[str, int]:
        """(the attention of most layers, every how many of them one is full; 0: none is)."""
        fields, traits = self.fields, self.traits
        interval = fields.number_or_none("full_attention_interval")
        if interval and traits.get("linear"):
            return "linear_attention", interval
        if "chunked" in traits and fields.number_or_none("attention_chunk_size"):
            return "chunked_attention", int(traits["chunked"]["every"])
        sliding = traits["sliding"]
        if sliding == "none" or not fields.number_or_none("sliding_window") or fields.raw("use_sliding_window") is False:
            return "full_attention", 0
        every = int(sliding["every"]) if isinstance(sliding, dict) else 2 if sliding == "even" else 0
        return "sliding_attention", (fields.number_or_none("sliding_window_pattern") or every) if every else 0

    def _has_other_types(self, stated: list[str]) -> bool:
        return bool(self.fields.number_or_none("sliding_window")) or any(
            each.startswith(("linear", "mamba", "chunked")) for each in stated
        )

    def _outside(self, hidden: int) -> int:
        """Vectors and tables outside the layers: the final norm, learned positions."""
        fields, traits = self.fields, self.traits
        norm = hidden * (2 if traits["normBias"] or traits.get("falcon") else 1)
        if traits.get("encoder"):
            types = fields.number_or_none("type_vocab_size")
            positions = 0 if fields.raw("rotary_emb_fraction") is not None else fields.number_or_none("max_position_embeddings")
            pooler = 0 if self.architecture == "NomicBertModel" else hidden * hidden + hidden
            return hidden * (positions + types + 2) + pooler
        positions = 0
        if "learnedPositions" in traits:
            positions = (fields.number_or_none("max_position_embeddings") + int(traits["learnedPositions"])) * hidden
        return norm + positions + (2 * hidden if traits.get("embeddingNorm") else 0)

    def _rotary(self, hidden: int, heads: int) -> int:
        """Elements of the tables of sines and cosines: every position times the rotated part of a head."""
        fields, traits = self.fields, self.traits
        if "learnedPositions" in traits or traits.get("encoder") or self.architecture in ("MPTForCausalLM", "BloomForCausalLM"):
            return 0
        positions = fields.number_or_none("max_position_embeddings")
        if fields.number_or_none("kv_lora_rank"):
            width = fields.count("qk_rope_head_dim", 64)
        else:
            share = fields.ratio("partial_rotary_factor", fields.ratio("rotary_pct", 1.0))
            width = int(fields.count("head_dim", max(1, hidden // heads)) * share)
        return positions * width * (2 if traits.get("localRotary") else 1)

    def _draft_layers(self, kinds: tuple[Layer, ...], pattern: tuple[int, ...], hidden: int) -> tuple[Layer, ...]:
        """Layers that predict further tokens: like the last one, with a projection of two hidden states."""
        number = self.fields.number_or_none("num_nextn_predict_layers") or self.fields.number_or_none("mtp_num_hidden_layers")
        if not number or not kinds:
            return ()
        like = kinds[pattern[-1]]
        joint = linear("eh_proj", Part.ROUTER, hidden, 2 * hidden)
        return (
            replace(
                like,
                matrices=(*like.matrices, replace(joint, packing=self.layout.plain)),
                plain_elements=like.plain_elements + 3 * hidden,
            ),
        ) * min(number, MOST_LAYERS)

    def _tower(self, config: Mapping[str, Any], hidden: int, parameters: int) -> tuple[tuple[Matrix, ...], float]:
        """Encoders of images or sound: their known total, else an estimate from their widths. With its uncertainty."""
        if parameters:
            return (_tower_matrix(parameters, self.layout),), 0.0
        vision = next((config[key] for key in ("vision_config", "vit_config", "visual") if isinstance(config.get(key), dict)), None)
        if vision is None:
            return (), 0.0
        fields = Fields(values=vision, where=f"{self.fields.where}.vision_config")
        width = first_count(fields, ("hidden_size", "width", "embed_dim"), 1152)
        depth = first_count(fields, ("num_hidden_layers", "layers", "depth"), 27)
        inner = fields.count("intermediate_size", 4 * width)
        gated = 3 if str(vision.get("hidden_act")) == "silu" else 2
        total = depth * (4 * width * width + gated * width * inner) + 2 * width * hidden + hidden * hidden
        self.fields.errors.extend(fields.errors)
        share = total / max(1, hidden * hidden * 12 * self.fields.count("num_hidden_layers", 1))
        return (_tower_matrix(total, self.layout),), min(0.05, 0.3 * share)


def _first_number(value: object) -> int:
    """Of a list that says it for every layer."""
    return int(value[0]) if isinstance(value, list) and value and isinstance(value[0], int) else 0


def _tower_matrix(parameters: int, layout: WeightLayout) -> Matrix:
    """Towers are split over tensor ranks like any MLP; their widths decide nothing here."""
    matrix = linear("vision_tower", Part.TOWER, parameters, 1, split=Split.OUTPUTS)
    return replace(matrix, packing=layout.plain)
