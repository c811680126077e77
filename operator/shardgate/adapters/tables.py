"""The package's tables of facts, read once."""

import json
from functools import cache
from importlib import resources
from typing import Any


@cache
def table(name: str) -> Any:  # JSON
    """``data/<name>.json``."""
    return json.loads(resources.files("shardgate.data").joinpath(f"{name}.json").read_text(encoding="utf-8"))
