"""Model architectures: the built-in catalogue, and any ``config.json`` of the families that are modelled."""

from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from typing import Any

from shardgate.adapters.errors import DeclarationError, group
from shardgate.adapters.tables import table
from shardgate.domain.declaration import ModelUnknown
from shardgate.domain.model import ModelArchitecture, WeightLayout

MODELLED = ("LlamaForCausalLM",)
_UNQUANTISED = ("fp32", "bf16", "fp16")
_DTYPES = {"float16": "fp16", "half": "fp16", "bfloat16": "bf16", "float32": "fp32", "float": "fp32"}
_REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
MAX_DIMENSION = 2**31


@cache
def _catalogue() -> dict[str, dict[str, Any]]:
    return {name.lower(): entry for entry in table("models")["models"] for name in (entry["id"], *entry["aliases"])}


def model_of(name: str, config: Mapping[str, Any] | None) -> tuple[ModelArchitecture | ModelUnknown, Mapping[str, Any]]:
    """The architecture, and the merged config.json fields it was read from.

    Fields of ``config`` win over the catalogue's. Raises an ``ExceptionGroup`` of ``DeclarationError`` for fields
    that are not what config.json allows.
    """
    entry = _catalogue().get(name.lower())
    fields: dict[str, Any] = {**(entry["config"] if entry else {}), **(config or {})}
    if not entry and not config:
        remedy = "give the model's config.json fields in spec.model.config, or use a catalogue id"
        return ModelUnknown(problem=f"{name} is not in the catalogue and no config is given", remedy=remedy), fields
    architectures = fields.get("architectures") or ["unnamed"]
    if not isinstance(architectures, list) or architectures[0] not in MODELLED:
        problem = f"architecture {architectures[0] if isinstance(architectures, list) else architectures} is not modelled"
        return ModelUnknown(problem=problem, remedy=f"modelled so far: {', '.join(MODELLED)}"), fields
    missing = [field for field in _REQUIRED if fields.get(field) is None]
    if missing:
        problem = f"config lacks {', '.join(missing)}"
        return ModelUnknown(problem=problem, remedy="add them from the model's config.json to spec.model.config"), fields
    source = "spec.model.config" if config else entry["source"] if entry else ""
    return _architecture(name, fields, source), fields


def _architecture(name: str, fields: Mapping[str, Any], source: str) -> ModelArchitecture:
    errors: list[DeclarationError] = []

    def count(field: str, default: int | None = None) -> int:
        value = fields.get(field)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_DIMENSION:
            errors.append(DeclarationError(f"spec.model.config.{field}", f"needs a whole number of at least 1, not {value!r}"))
            return 1
        return value

    def flag(field: str) -> bool:
        value = fields.get(field)
        if value is not None and not isinstance(value, bool):
            errors.append(DeclarationError(f"spec.model.config.{field}", f"needs true or false, not {value!r}"))
        return bool(value)

    heads, hidden = count("num_attention_heads"), count("hidden_size")
    architecture = ModelArchitecture(
        name=name,
        layers=count("num_hidden_layers"),
        hidden_size=hidden,
        attention_heads=heads,
        kv_heads=count("num_key_value_heads", heads),
        head_dimension=count("head_dim", max(1, hidden // heads)),
        intermediate_size=count("intermediate_size"),
        vocabulary_size=count("vocab_size"),
        tied_embeddings=flag("tie_word_embeddings"),
        attention_bias=flag("attention_bias"),
        mlp_bias=flag("mlp_bias"),
        dtype=_dtype(fields) or "bf16",
        max_context_tokens=count("max_position_embeddings", 0) or None,
        source=source,
    )
    if errors:
        raise group(errors)
    return architecture


def _dtype(fields: Mapping[str, Any]) -> str | None:
    stated = fields.get("dtype") or fields.get("torch_dtype")
    return _DTYPES.get(str(stated).removeprefix("torch.")) if stated else None


def layout_of(weights: str | None, dtype: str | None, fields: Mapping[str, Any]) -> tuple[WeightLayout | None, str, str]:
    """(layout, its name, why): config's quantization_config, else the declared shorthand, else the config's dtype.

    ``None`` for a quantization_config that is not read yet.
    """
    quantization = fields.get("quantization_config")
    if quantization:
        name = _quantized(quantization)
        if name is None:
            return None, "", "spec.model.config.quantization_config is of a kind that is not read yet"
        why = "quantization_config"
    elif weights is not None:
        name, why = weights, "spec.model.weights"
    else:
        name = _dtype(fields)
        if name is None:
            return None, "", "neither spec.model.weights nor the config's dtype tells the weights' element type"
        why = "the config's dtype"
    if name in _UNQUANTISED and dtype in _UNQUANTISED and dtype != name:
        name, why = dtype, f"{why}, loaded as spec.model.dtype"  # engines convert as they load
    row = table("weight_layouts")["layouts"][name]
    linear = Fraction(row["bits"], 8) + (Fraction(row["groupBits"], 8 * row["groupSize"]) if "groupSize" in row else 0)
    other = Fraction(32 if dtype == "fp32" and row["bits"] < row["otherBits"] else row["otherBits"], 8)
    return WeightLayout(name=name, linear_bytes=linear, other_bytes=other, source=row["source"]), name, why


def _quantized(config: Any) -> str | None:  # whatever the user wrote
    if not isinstance(config, dict):
        return None
    match config.get("quant_method"), config.get("bits"), config.get("group_size"):
        case "awq", 4, 128:
            return "awq-int4"
        case "gptq", 4, 128:
            return "gptq-int4"
        case "gptq", 8, 128:
            return "gptq-int8"
        case _:
            return None
