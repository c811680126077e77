"""Fields of a Hugging Face config.json, read strictly: every mistake is kept, with its path."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from shardgate.adapters.errors import DeclarationError

MAX_DIMENSION = 2**31
TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
_SUB_CONFIGS = ("attn_config", "ffn_config")
_ALIASES = {
    "hidden_size": ("n_embd", "d_model", "dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("num_kv_heads", "multi_query_group_num", "n_head_kv", "kv_n_heads"),
    "intermediate_size": ("ffn_dim", "n_inner", "ffn_hidden_size", "d_ff"),
    "vocab_size": ("padded_vocab_size", "n_vocab"),
    "max_position_embeddings": ("n_positions", "max_seq_len", "seq_length", "n_ctx", "max_sequence_length"),
    "head_dim": ("kv_channels", "attention_head_dim"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "active_experts": ("num_experts_per_tok", "num_experts_per_token", "moe_k", "top_k_experts", "moe_topk", "moe_top_k"),
}
"""One name here for what model families spell differently."""


@dataclass(slots=True, kw_only=True)
class Fields:
    """The decoder's fields, those of a nested text config over those around it."""

    values: Mapping[str, Any]
    where: str
    errors: list[DeclarationError] = field(default_factory=list)

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str) -> "Fields":
        """Of a whole config.json."""
        values: dict[str, Any] = dict(config)
        for part in _SUB_CONFIGS:
            if isinstance(values.get(part), dict):
                values = {**{k: v for k, v in values[part].items() if k != "model_type"}, **values}
        for part in TEXT_PARTS:
            nested = values.get(part)
            if isinstance(nested, dict):
                inner = nested.get("text_config")
                values = {**values, **{k: v for k, v in nested.items() if v is not None and k != "architectures"}}
                if isinstance(inner, dict):
                    values.update({k: v for k, v in inner.items() if v is not None and k != "architectures"})
        return cls(values=values, where=where)

    def raw(self, name: str) -> Any:  # JSON
        """A field under its own name or an alias; ``None`` where it is missing."""
        value = self.values.get(name)
        for alias in _ALIASES.get(name, ()) if value is None else ():
            value = self.values.get(alias)
            if value is not None:
                break
        return value

    def wrong(self, name: str, needs: str, value: object) -> None:
        """Keep a mistake, once."""
        where, problem = f"{self.where}.{name}", f"needs {needs}, not {repr(value)[:60]}"
        if all((each.where, each.problem) != (where, problem) for each in self.errors):
            self.errors.append(DeclarationError(where, problem))

    def count(self, name: str, default: int = 0, *, most: int = MAX_DIMENSION) -> int:
        """A whole number of at least 1 (or the default, where it is missing)."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, float) and isfinite(value) and value == int(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            self.wrong(name, f"a whole number from 1 to {most}", value)
            return max(default, 1)
        return value

    def number_or_none(self, name: str) -> int:
        """A whole number; 0 for null, missing, 0 and negative ones, which configs use for "none"."""
        value = self.raw(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value <= 0):
            return 0
        return self.count(name)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """True or false."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.wrong(name, "true or false", value)
            return default
        return value

    def ratio(self, name: str, default: float) -> float:
        """A number from 0 to 1."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            self.wrong(name, "a number from 0 to 1", value)
            return default
        return float(value)

    def texts(self, name: str, length: int) -> list[str] | None:
        """A list of words, one for each layer; ``None`` where it is missing. A longer list is cut: the rest are draft layers."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) < length or not all(isinstance(each, str) for each in value):
            self.wrong(name, f"a list of {length} words, one for each layer", value)
            return None
        return value[:length]
