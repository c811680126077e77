"""``ModelProfile`` objects, and ConfigMaps that hold a config.json -> profiles."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from shardgate.adapters.errors import DeclarationError, group, problems_of
from shardgate.adapters.models.catalogue import Profile
from shardgate.api import API_VERSION
from shardgate.api.model_profile import ModelProfile

KIND = "ModelProfile"
CONFIG_KEY = "config.json"
MODEL_ANNOTATION = "shardgate.io/model"
"""On a ConfigMap: the model's name, as declarations spell it."""


def is_profile(body: Mapping[str, Any]) -> bool:
    """Whether the object is a profile, in the version that we read."""
    return body.get("kind") == KIND and body.get("apiVersion") == API_VERSION


def read_profile(body: Mapping[str, Any]) -> Profile:
    """Raises an ``ExceptionGroup`` of ``DeclarationError``."""
    try:
        spec = ModelProfile.read(body.get("spec")).spec
    except ValidationError as error:
        raise problems_of(error) from None
    return Profile(
        name=(body.get("metadata") or {}).get("name") or "",
        match=tuple(spec.match),
        config=spec.config or {},
        checkpoint_bytes=spec.safetensors.total_bytes if spec.safetensors else None,
    )


_MODEL_FIELDS = ("model_type", "architectures")
"""One of these stands in every model's config.json; other programs' files of that name have neither."""


def holds_config(body: Mapping[str, Any]) -> bool:
    """Whether the object is a ConfigMap with a config.json."""
    data = body.get("data")
    if body.get("kind") != "ConfigMap" or not isinstance(data, dict) or not isinstance(data.get(CONFIG_KEY), str):
        return False
    annotations = (body.get("metadata") or {}).get("annotations") or {}
    return MODEL_ANNOTATION in annotations or any(f'"{field}"' in data[CONFIG_KEY] for field in _MODEL_FIELDS)


def describes_model(body: Mapping[str, Any]) -> bool:
    """Whether the object tells what a model's name stands for."""
    return is_profile(body) or holds_config(body)


def profile_of(body: Mapping[str, Any]) -> Profile:
    """Of either kind. Raises an ``ExceptionGroup`` of ``DeclarationError``."""
    return read_profile(body) if is_profile(body) else profile_of_config_map(body)


def profile_of_config_map(body: Mapping[str, Any]) -> Profile:
    """For the model that the annotation names; without one, for models whose last part is the ConfigMap's name.

    Raises an ``ExceptionGroup`` of ``DeclarationError``.
    """
    metadata = body.get("metadata") or {}
    name = str(metadata.get("name") or "")
    where = f"data[{CONFIG_KEY}]"
    try:
        config = json.loads(body["data"][CONFIG_KEY])
    except (json.JSONDecodeError, RecursionError) as error:
        raise group([DeclarationError(where, f"is no JSON: {error}")]) from None
    if not isinstance(config, dict):
        raise group([DeclarationError(where, f"needs an object, not {type(config).__name__}")])
    told = (metadata.get("annotations") or {}).get(MODEL_ANNOTATION)
    return Profile(name=f"ConfigMap {name}", match=(str(told),) if told else (name, f"*/{name}"), config=config)
