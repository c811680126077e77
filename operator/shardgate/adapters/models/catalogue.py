"""Which model a name means: the built-in catalogue, profiles, and what a path or a repository's name tells."""

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

from shardgate.adapters.models.config import class_of, dtype_of, read_config
from shardgate.adapters.models.fields import TEXT_PARTS
from shardgate.adapters.models.quantization import (
    UNQUANTISED,
    UnreadQuantizationError,
    WeightLayout,
    layout_of,
    shorthand,
)
from shardgate.adapters.tables import table
from shardgate.domain.declaration import ModelUnknown
from shardgate.domain.model import ModelArchitecture

Assumptions = tuple[tuple[str, str, str], ...]

_SUFFIXES: tuple[tuple[str, str], ...] = (
    (r"unsloth-bnb-4bit", "bnb-int4-dynamic"),
    (r"bnb-4bit", "bnb-int4"),
    (r"awq(-int4|-4bit)?", "awq-int4"),
    (r"gptq-int8", "gptq-int8"),
    (r"gptq(-int4|-4bit)?", "gptq-int4"),
    (r"quantized\.w4a16", "compressed-int4"),
    (r"quantized\.w8a8", "int8"),
    (r"quantized\.w8a16", "int8"),
    (r"fp8-block", "fp8-block"),
    (r"fp8(-dynamic|-static)?", "fp8"),
    (r"nvfp4", "nvfp4"),
    (r"(bf16|fp16)", "bf16"),
)
"""What the ends of repositories' names say of how the weights are stored."""


_PUBLISHED_IN_BLOCKS = ("qwen3", "deepseek", "minimax")
"""Families whose own -FP8 repositories hold blocks of 128 x 128 (their config.json, weight_block_size)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a private name, path or URI stands for (a ``ModelProfile``)."""

    name: str
    match: tuple[str, ...]
    config: Mapping[str, Any]
    checkpoint_bytes: int | None = None

    def matches(self, model: str) -> bool:
        """Whether a declared model name is one of its own; ``*`` stands for anything."""
        return any(fnmatch.fnmatchcase(model, pattern) for pattern in self.match)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A model, how its weights are stored, and what was assumed on the way."""

    model: ModelArchitecture | ModelUnknown
    weights_name: str = ""
    dtype: str = "bf16"
    kv_cache_bits: int | None = None
    """What the checkpoint itself says of the KV cache."""
    assumptions: Assumptions = ()
    opaque: tuple[str, ...] = ()


@cache
def _catalogue() -> dict[str, dict[str, Any]]:
    return {name.lower(): entry for entry in table("models")["models"] for name in (entry["id"], *entry["aliases"])}


@cache
def _by_last_part() -> dict[str, dict[str, Any]]:
    """Entries by the part of their names after the owner; a name that two different entries have tells nothing."""
    found: dict[str, dict[str, Any] | None] = {}
    for name, entry in _catalogue().items():
        part = name.rsplit("/", 1)[-1]
        known = found.get(part, entry)
        found[part] = entry if known is entry or (known is not None and known["config"] == entry["config"]) else None
    return {part: entry for part, entry in found.items() if entry is not None}


def _resolve(name: str) -> tuple[dict[str, Any] | None, str | None, str]:
    """(catalogue entry, layout that the name tells, why) of a name that is no id of the catalogue."""
    exact = _catalogue().get(name.lower())
    if exact is not None:
        return exact, None, ""
    path = re.sub(r"[/\\]snapshots[/\\][0-9a-fA-F]{6,64}$", "", name.rstrip("/\\"))  # as the hub's cache lays it out
    part = re.split(r"[/\\]", path)[-1].lower().removeprefix("models--")
    part = part.rsplit("--", 1)[-1]
    by_part = _by_last_part().get(part)
    if by_part is not None:
        return by_part, None, f"its last part is that of {by_part['id']}"
    for suffix, layout in _SUFFIXES:
        base = re.sub(rf"[-_.]{suffix}$", "", part)
        if base != part and (entry := _by_last_part().get(base)) is not None:
            in_blocks = layout == "fp8" and part.endswith("-fp8") and base.startswith(_PUBLISHED_IN_BLOCKS)
            return (
                entry,
                "fp8-block" if in_blocks else layout,
                f"its last part is that of {entry['id']} and says how the weights are stored",
            )
    return None, None, ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a declaration says of its model."""

    name: str
    config: Mapping[str, Any] | None
    weights: str | None
    dtype: str | None
    """fp16, bf16 or fp32; ``None`` or ``auto``: the checkpoint's own."""
    online_layout: str | None = None
    """How the engine quantises 16-bit weights while it loads them."""


def find_model(asked: Question, profiles: Iterable[Profile] = ()) -> Found:
    """The architecture behind a name, with its weights stored as declared.

    Fields of a stated config win over the profile's, those over the catalogue's. Raises an ``ExceptionGroup`` of
    ``DeclarationError`` for fields that are not what config.json allows.
    """
    profile = next((each for each in profiles if each.matches(asked.name)), None)
    is_complete = profile is not None and bool(profile.config)  # one that tells only a size is held against the catalogue
    entry, told, why = (None, None, "") if is_complete else _resolve(asked.name)
    if entry is None and not is_complete and not asked.config:
        return Found(
            model=ModelUnknown(
                problem=f"{asked.name} is not in the catalogue and no config is given",
                remedy="give the model's config.json fields in spec.model.config, create a ModelProfile for its name "
                "(shardgate model add DIR), or use a catalogue id",
                is_named=False,
            )
        )
    weights = asked.weights or told
    if not is_complete and not asked.config and entry is not None:
        found = _from_catalogue(entry["id"], asked.name, weights, asked.dtype, asked.online_layout)
    else:
        base = profile.config if profile is not None and is_complete else {}
        if entry is not None:
            base = _without_other_layout(entry["config"], weights)
        where = "spec.model.config" if asked.config else f"ModelProfile {profile.name}: spec.config" if profile else ""
        try:
            found = _read(
                asked.name, _over(asked.config or {}, base), weights, asked.dtype, asked.online_layout,
                source=where, where=where, tower_parameters=0 if entry is None else entry.get("towerParameters", 0),
            )  # fmt: skip
        except ExceptionGroup as problems:
            if profile is None or asked.config:
                raise
            remedy = "mend the ModelProfile, or give the config in spec.model.config"  # another's object: no mistake of this one
            return Found(model=ModelUnknown(problem=str(problems.exceptions[0]), remedy=remedy))
    if profile is not None and profile.checkpoint_bytes is not None:
        found = _held_to(found, profile.checkpoint_bytes)
    assumptions = list(found.assumptions)
    if why:
        assumptions.insert(0, ("spec.model.name", asked.name, f"taken for {entry['id'] if entry else ''}: {why}"))
    return replace(found, assumptions=tuple(assumptions))


def _over(stated: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """A stated config over another, field by field, wherever the other nests them."""
    inner = {
        key: {name: each for name, each in value.items() if name not in stated}
        for key, value in base.items()
        if isinstance(value, dict) and key in TEXT_PARTS and key not in stated
    }
    return {**base, **inner, **stated}


@lru_cache(maxsize=128)
def _from_catalogue(entry_id: str, name: str, weights: str | None, dtype: str | None, online_layout: str | None) -> Found:
    entry = _catalogue()[entry_id.lower()]
    return _read(
        name, _without_other_layout(entry["config"], weights), weights, dtype, online_layout,
        source=entry["source"], where="catalogue",
        tower_parameters=entry.get("towerParameters", 0),
    )  # fmt: skip


def _without_other_layout(config: Mapping[str, Any], weights: str | None) -> Mapping[str, Any]:
    """A catalogue entry's config, without its own quantisation where another layout is declared or told by the name."""
    own = config.get("quantization_config")
    if own is None or weights is None:
        return config
    try:
        same = layout_of(own, "").name == weights
    except UnreadQuantizationError:
        same = False
    return config if same else {key: value for key, value in config.items() if key != "quantization_config"}


def _read(
    name: str, config: Mapping[str, Any], weights: str | None, dtype: str | None, online_layout: str | None = None,
    *, source: str, where: str, tower_parameters: int,
) -> Found:  # fmt: skip
    layout, why, opaque = _layout(config, weights, dtype, online_layout, where)
    model = read_config(
        name, config, layout or shorthand("bf16"), source=source, where=where or "spec.model.config",
        tower_parameters=tower_parameters,
    )  # fmt: skip
    assumptions: list[tuple[str, str, str]] = []
    own = dtype_of(config) or (model.dtype if isinstance(model, ModelArchitecture) else "bf16")
    chosen = dtype if dtype in UNQUANTISED else "bf16" if own == "fp32" and dtype != "fp32" else own
    if isinstance(model, ModelArchitecture):
        model = replace(model, dtype=chosen)
        if not model.is_exact:
            assumptions.append(
                (
                    "spec.model",
                    class_of(config) or "no class",
                    "not a class that was read: its fields are taken as they usually are",
                )
            )
        if layout is not None and weights is None:
            assumptions.append(("spec.model.weights", layout.name, f"unset: {why}"))
        if layout is not None and layout.unread:
            assumptions.append(
                (
                    "spec.model.config.quantization_config",
                    layout.unread[0],
                    "a pattern that was not read; weights are 10 % less certain",
                )
            )
    return Found(
        model=model,
        weights_name=layout.name if layout is not None else "",
        dtype=chosen,
        kv_cache_bits=layout.kv_cache_bits if layout is not None else None,
        assumptions=tuple(assumptions),
        opaque=opaque if isinstance(model, ModelArchitecture) else (),
    )


def _layout(
    config: Mapping[str, Any], weights: str | None, dtype: str | None, online_layout: str | None, where: str
) -> tuple[WeightLayout | None, str, tuple[str, ...]]:
    """(layout, why, what was opaque): config's quantization_config, else the shorthand, else the config's dtype."""
    nested = [config[key] for key in ("text_config", "language_config") if isinstance(config.get(key), dict)]
    own_quantization = [each.get("quantization_config") for each in (config, *nested)]
    quantization = next((each for each in own_quantization if each), config.get("compression_config"))
    if quantization:
        try:
            return layout_of(quantization, str(config.get("model_type") or "")), "quantization_config", ()
        except UnreadQuantizationError as problem:
            return None, "", (f"{where or 'the catalogue'}.quantization_config: {problem}",)
    if online_layout is not None and (weights is None or weights in UNQUANTISED):
        name, why = online_layout, "quantised while loading, by a flag of spec.engine"
    elif weights is not None:
        name, why = weights, "spec.model.weights"
    else:
        own = dtype_of(config)
        if own is None:
            own = "bf16"
            why = "the config states no dtype: 16 bits, as nearly all checkpoints of its kind"
        else:
            why = "the config's dtype"
        name = "bf16" if own == "fp32" and dtype not in UNQUANTISED else own
    if name in UNQUANTISED and dtype in UNQUANTISED and dtype != name:
        name, why = str(dtype), f"{why}, loaded as spec.model.dtype"  # engines convert as they load
    return shorthand(name), why, ()


_NEAR = 0.25
"""A checkpoint whose size differs by more than this share from what its config tells is another one."""


def _held_to(found: Found, checkpoint_bytes: int) -> Found:
    """Weights scaled to what the checkpoint's index says, where that is near what the config tells.

    Checkpoints may hold layers that are not loaded (they predict further tokens), and a tied head twice.
    """
    model = found.model
    if not isinstance(model, ModelArchitecture):
        return found
    plain = UNQUANTISED[found.dtype]
    loaded = model.stored_bits(plain) / 8
    drafts = sum(layer.stored_bits(plain) for layer in model.draft_layers) / 8
    tied = model.embedding.bits_on(0, 1, plain) / 8 if model.tied_embeddings else 0.0
    extra = min((0.0, drafts, tied, drafts + tied), key=lambda more: abs(loaded + more - checkpoint_bytes))
    scale = (checkpoint_bytes - extra) / loaded
    told = f"{checkpoint_bytes / 1e9:.1f} GB by the checkpoint's index"
    if abs(scale - 1) > _NEAR:
        problem = f"the checkpoint's index says {checkpoint_bytes / 1e9:.1f} GB, the config tells {(loaded + extra) / 1e9:.1f} GB"
        return replace(found, opaque=(*found.opaque, problem))
    return replace(
        found,
        model=replace(model, weight_scale=scale, weight_error=min(model.weight_error, 0.01)),
        assumptions=(*found.assumptions, ("spec.model.weights", told, "beats what the config tells")),
    )


def are_same_model(one: str, other: str) -> bool | None:
    """Whether two names mean the same checkpoint; ``None`` where one of them tells nothing."""
    (first, first_layout, _), (second, second_layout, _) = _resolve(one), _resolve(other)
    if one.lower() == other.lower():
        return True
    if first is None or second is None:
        return None
    return first is second and first_layout == second_layout


def is_known(name: str) -> tuple[bool, bool]:
    """(whether a name tells which model it is, whether it tells how the weights are quantised)."""
    entry, told, _ = _resolve(name)
    return entry is not None, told is not None or (entry is not None and bool(entry["config"].get("quantization_config")))


def positions_of(name: str) -> int:
    """Positions that the model of this name was made for; 0 where it does not say."""
    entry, _, _ = _resolve(name)
    return int(entry["config"].get("max_position_embeddings") or 0) if entry is not None else 0
