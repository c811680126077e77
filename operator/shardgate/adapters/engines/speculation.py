"""Speculative decoding as declared -> what is loaded besides the model."""

from collections.abc import Callable
from typing import Any

from shardgate.domain.engine import Draft
from shardgate.domain.model import ModelArchitecture

_OWN_LAYERS = ("mtp", "nextn")
_WITHOUT_WEIGHTS = ("ngram", "[ngram]", "suffix")
_HEADS = ("eagle", "medusa", "mlp_speculator")

Find = Callable[[str], ModelArchitecture | None]


def draft_of(speculation: Any, algorithm: str, draft_path: str, find: Find) -> Draft | None:  # JSON of --speculative-config
    """VLLM's ``--speculative-config``, or SGLang's algorithm and path; ``None`` where nothing more is loaded."""
    if isinstance(speculation, dict):
        method, name = str(speculation.get("method") or "").lower(), str(speculation.get("model") or "")
    elif algorithm:
        method, name = algorithm.lower(), draft_path
    else:
        return None
    if (method or name.lower()) in _WITHOUT_WEIGHTS:
        return None
    if any(each in method for each in _OWN_LAYERS):
        return Draft(method=method, uses_own_layers=True)
    model = find(name) if name else None
    if model is not None:
        return Draft(method=method or "draft_model", model=model)
    is_head = any(each in (method or name.lower()) for each in _HEADS)
    # SGLang's EAGLE without a path of its own runs the layers that the model brings for it.
    own = is_head and not name
    return Draft(method=method or "draft_model", name=name, uses_own_layers=own, is_unknown=not is_head)
