"""How a checkpoint stores each matrix: from config.json's quantization_config, or from a shorthand for a published layout."""

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

from shardgate.adapters.tables import table
from shardgate.domain.model import Packing, Part

UNQUANTISED = {"fp32": 32, "bf16": 16, "fp16": 16}
BODY_PARTS = frozenset({Part.ATTENTION, Part.MLP, Part.EXPERTS, Part.SHARED_EXPERTS, Part.STATE})
"""Parts that quantisation tools convert unless told otherwise; routers, embeddings, heads and towers stay as they are."""

MOST_PATTERNS = 4096
LONGEST_PATTERN = 2000
MOST_REPEATS = 3
"""A pattern of more open repeats could take very long to match, so it is not tried."""
_COST = (1, 1, 4, 40)
_COST_BY_LAYER = 20
MOST_COST = 200
"""Of all patterns that must be tried on every matrix: by their repeats, more where every layer must be tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightLayout:
    """How all of a model's matrices are stored."""

    name: str
    plain: Packing
    """What is not quantised."""
    packed: Packing | None = None
    parts: frozenset[Part] = BODY_PARTS
    kept: tuple[str, ...] = ()
    """Modules that stay as ``plain``, as the checkpoint's config names them."""
    only: tuple[str, ...] = ()
    """Where given: the modules that are quantised (all others are not)."""
    error: float = 0.0
    source: str = ""
    kv_cache_bits: int | None = None
    """What the checkpoint says of the KV cache."""
    unread: tuple[str, ...] = field(default=())
    """Patterns that were not understood."""

    def packer(self) -> "Callable[[str, Part], Packing]":
        """How each matrix is stored, by its module (``layers.3.self_attn.q_proj``, ``lm_head``) and its part."""
        plain, packed, parts = self.plain, self.packed, self.parts
        is_only, is_kept = (_matcher(patterns) if patterns else None for patterns in (self.only, self.kept))

        def packing(module: str, part: Part) -> Packing:
            if packed is None or part not in parts or (is_only is not None and not is_only(module)):
                return plain
            return plain if is_kept is not None and is_kept(module) else packed

        return packing

    @property
    def by_layer(self) -> bool:
        """Whether layers may differ: a pattern speaks of single ones."""
        return any(map(_tells_layers_apart, (*self.kept, *self.only)))


@lru_cache(maxsize=64)
def _matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a module is named by one of the patterns, or stands inside one that is."""
    exact: set[str] = set()
    parts: set[str] = set()
    others: list[Callable[[str], object]] = []
    for pattern in patterns:
        if pattern.startswith("re:"):
            others.append(_regular(pattern[3:]))
        elif "*" in pattern:
            others.append(_glob(_suffix(pattern)))
        elif "layers." in pattern:
            exact.add(_suffix(pattern))
        else:
            parts.add(pattern.strip("."))
    if parts:
        others.append(partial(_has_part, frozenset(parts)))
    if exact:
        others.append(partial(_is_inside, frozenset(exact)))
    return lambda module: any(matches(module) for matches in others)


def _is_inside(names: frozenset[str], module: str) -> bool:
    """Whether the module, or one that holds it, is named."""
    words = module.split(".")
    return any(".".join(words[:end]) in names for end in range(1, len(words) + 1))


def _has_part(names: frozenset[str], module: str) -> bool:
    """Whether a run of the module's dotted parts is one of the names."""
    words = module.split(".")
    return any(".".join(words[i:j]) in names for i in range(len(words)) for j in range(i + 1, len(words) + 1))


def _tells_layers_apart(pattern: str) -> bool:
    """Whether it could match one layer and not another: it has a digit, or a class of characters."""
    text = pattern.replace("\\.", "")
    if pattern.startswith("re:"):
        return any(each.isdigit() for each in text) or "[" in text or "\\" in text
    return ("layers" in text or "*" in text) and any(each.isdigit() for each in text)


def _glob(pattern: str) -> Callable[[str], object]:
    """A module of that name, or one inside it."""
    itself, inside = (re.compile(fnmatch.translate(each)) for each in (f"*{pattern}", f"*{pattern}.*"))
    return lambda module: itself.match(module) or inside.match(module)


def _suffix(pattern: str) -> str:
    """Without what stands before ``layers``: models nest their decoder under different names."""
    return pattern[pattern.index("layers.") :] if "layers." in pattern else pattern


_PREFIXES = ("", "model.", "model.language_model.", "language_model.model.")


def _regular(text: str) -> Callable[[str], object]:
    expression = re.compile(text)
    return lambda module: any(expression.match(prefix + module) for prefix in _PREFIXES)


def _is_safe(text: str) -> bool:
    """Whether a regular expression surely matches in a short time, and is one at all."""
    if (
        _repeats(text) > MOST_REPEATS
        or re.search(r"\)[*+{?]", text)
        or "(?" in text.replace("(?:", "").replace("(?!", "")
        or len(text) > LONGEST_PATTERN
    ):
        return False
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _repeats(text: str) -> int:
    """Open repeats of a regular expression, or stars of a glob."""
    return len(re.findall(r"(?<!\\)[*+{?]", text.replace("(?:", "").replace("(?!", "")))


def _affordable(patterns: Iterable[str]) -> list[str]:
    """Those that are tried: all that are looked up, and of those that must be matched as many as the budget allows."""
    spent, kept = 0, []
    for pattern in patterns:
        if pattern.startswith("re:") or "*" in pattern:
            repeats = _repeats(pattern)
            spent += _COST[min(repeats, MOST_REPEATS)] * (_COST_BY_LAYER if _tells_layers_apart(pattern) else 1)
            if spent > MOST_COST or repeats > MOST_REPEATS or (pattern.startswith("re:") and not _is_safe(pattern[3:])):
                continue
        kept.append(pattern)
    return kept


class UnreadQuantizationError(ValueError):
    """A quantization_config of a kind that is not read."""


def shorthand(name: str) -> WeightLayout:
    """A published layout by its name in ``spec.model.weights``; fp32, bf16 and fp16 among them."""
    if name in UNQUANTISED:
        return WeightLayout(name=name, plain=Packing(name=name, element_bits=UNQUANTISED[name]), source="IEEE 754, bfloat16")
    row = table("weight_layouts")["layouts"][name]
    return WeightLayout(
        name=name,
        plain=Packing(name="bf16", element_bits=16),
        packed=_packing(name, row),
        parts=frozenset(Part(part) for part in row["parts"]) if "parts" in row else BODY_PARTS,
        kept=tuple(row.get("kept", ())),
        error=row["error"],
        source=row["source"],
    )


def _packing(name: str, row: Mapping[str, Any], group_size: int | None = None) -> Packing:
    outputs, inputs = row.get("block", (0, 0))
    if group_size is not None and inputs > 0 and outputs == 1:
        inputs = max(0, group_size)
    return Packing(
        name=name, element_bits=row["bits"], block_outputs=outputs, block_inputs=inputs, block_bits=row.get("blockBits", 0)
    )


def layout_of(config: object, model_type: str) -> WeightLayout:
    """From ``quantization_config``. Raises ``UnreadQuantizationError`` for a kind that is not read."""
    if not isinstance(config, dict):
        problem = f"needs an object, not {type(config).__name__}"
        raise UnreadQuantizationError(problem)
    nested = config.get("quantization")
    if isinstance(nested, dict):  # as NVIDIA's hf_quant_config.json nests it
        config = {**nested, **{key: value for key, value in config.items() if key != "quantization"}}
    method = str(config.get("quant_method") or config.get("quant_algo") or "").lower().replace("_", "-")
    if method in ("compressed-tensors", "modelopt", "") and isinstance(config.get("config_groups"), dict):
        layout = _compressed(config)
    else:
        layout = _by_method(method, config, model_type)
    kept = _names(config, "modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers", "llm_int8_skip_modules")
    tried = _affordable(kept)
    unread = tuple(set(kept) - set(tried))
    return replace(
        layout,
        kept=(*layout.kept, *tried),
        unread=unread,
        error=max(layout.error, 0.1 if unread else 0.0),
        kv_cache_bits=_kv_cache_bits(config),
    )


def _names(config: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    names: list[str] = []
    for key in keys:
        value = config.get(key)
        if isinstance(value, list):
            names += [each for each in value if isinstance(each, str) and each.strip(".* ")]
    if len(names) > MOST_PATTERNS:
        problem = f"names {len(names)} modules, more than {MOST_PATTERNS} are not read"
        raise UnreadQuantizationError(problem)
    return tuple(names)


def _kv_cache_bits(config: Mapping[str, Any]) -> int | None:
    scheme = config.get("kv_cache_scheme")
    if isinstance(scheme, str):
        return 8 if scheme.upper() == "FP8" else None
    if isinstance(scheme, dict) and isinstance(bits := scheme.get("num_bits"), int):
        return bits
    return 8 if str(config.get("kv_cache_quant_algo") or "").upper() == "FP8" else None


def _name_of(method: str, bits: object, config: Mapping[str, Any]) -> str | None:
    """The published layout that a method and its bits stand for."""
    algorithm = str(config.get("quant_algo") or "").upper()
    told = {
        "bitsandbytes": "4" if config.get("load_in_4bit") else "8" if config.get("load_in_8bit") else "",
        "fp8": "block" if config.get("weight_block_size") else "",
    }.get(method, algorithm if method.startswith("modelopt") else str(bits or ""))
    return _LAYOUTS.get((method, told))


_GPTQ_LIKE = ("gptq", "gptqmodel", "auto-round", "autoround", "intel/auto-round")
_LAYOUTS = {
    **{(method, bits): f"gptq-int{bits}" for method in _GPTQ_LIKE for bits in ("4", "8")},
    ("awq", "4"): "awq-int4",
    ("awq", ""): "awq-int4",
    ("fp8", ""): "fp8",
    ("fp8", "block"): "fp8-block",
    ("fbgemm-fp8", ""): "fp8",
    ("bitsandbytes", "4"): "bnb-int4",
    ("bitsandbytes", "8"): "int8",
    ("mxfp4", ""): "mxfp4",
    ("modelopt", "NVFP4"): "nvfp4",
    ("modelopt", "FP8"): "fp8",
    ("modelopt-fp4", ""): "nvfp4",
    ("modelopt-fp4", "NVFP4"): "nvfp4",
}
"""(method, bits or algorithm) -> layout."""


def _by_method(method: str, config: Mapping[str, Any], model_type: str) -> WeightLayout:
    bits, group = config.get("bits") or config.get("w_bit"), config.get("group_size") or config.get("q_group_size")
    name = _name_of(method, bits, config)
    if name is None:
        problem = f"quant_method {config.get('quant_method')!r} with {bits!r} bits is not read"
        raise UnreadQuantizationError(problem)
    layout = shorthand(name)
    row = table("weight_layouts")["layouts"][name]
    packed = _packing(name, row, group if isinstance(group, int) and not isinstance(group, bool) else None)
    if name == "fp8-block":
        block = config.get("weight_block_size")
        if not (isinstance(block, list) and len(block) == 2 and all(isinstance(each, int) and each > 0 for each in block)):  # noqa: PLR2004
            problem = f"weight_block_size needs two whole numbers, not {block!r}"
            raise UnreadQuantizationError(problem)
        packed = replace(packed, block_outputs=block[0], block_inputs=block[1])
    if config.get("desc_act") and name.startswith("gptq"):
        layout = replace(layout, error=max(layout.error, 0.01))
    return replace(layout, packed=packed, source=f"quantization_config of the {model_type or 'model'}'s config.json")


def _compressed(config: Mapping[str, Any]) -> WeightLayout:
    """Of compressed-tensors: groups of modules, each with its scheme. One scheme of weights is read."""
    groups = config.get("config_groups")
    schemes = [group for group in groups.values() if isinstance(group, dict)] if isinstance(groups, dict) else []
    weights = [group["weights"] for group in schemes if isinstance(group.get("weights"), dict)]
    if not weights or any(each.get("num_bits") != weights[0].get("num_bits") for each in weights):
        problem = "config_groups of compressed-tensors with none or several schemes are not read"
        raise UnreadQuantizationError(problem)
    scheme = weights[0]
    bits, kind, strategy = scheme.get("num_bits"), scheme.get("type"), str(scheme.get("strategy") or "")
    group = scheme.get("group_size")
    if not isinstance(bits, int) or not isinstance(kind, str):
        problem = f"num_bits and type need a whole number and a word, not {bits!r} and {kind!r}"
        raise UnreadQuantizationError(problem)
    table_name = {
        (8, "float"): "fp8-block" if strategy == "block" else "fp8", (8, "int"): "int8", (4, "int"): "compressed-int4",
        (4, "float"): "nvfp4",
    }.get((bits, kind))  # fmt: skip
    if table_name is None:
        problem = f"weights of {bits!r} bits, type {kind!r} are not read"
        raise UnreadQuantizationError(problem)
    layout = shorthand(table_name)
    packed = _packing(table_name, table("weight_layouts")["layouts"][table_name], group if isinstance(group, int) else None)
    lists = [each["targets"] for each in schemes if isinstance(each.get("targets"), list)]
    targets = [name for each in lists for name in each if isinstance(name, str)][:MOST_PATTERNS]
    only = tuple(_affordable(name for name in targets if name != "Linear"))
    return replace(layout, packed=packed, only=() if "Linear" in targets else only)
