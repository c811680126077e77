"""The forms by the names that people ask for them."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

FORMS = ("markdown", "html", "dot")


def drawn(reports: Sequence[Mapping[str, Any]], form: str) -> str:
    """All reports in one of ``FORMS``; empty for none. A form's module, and what it builds on, is loaded when it is asked for."""
    if not reports:
        return ""
    draw = getattr(importlib.import_module(f"shardgate.adapters.forms.{form}"), form)
    return cast("str", draw(reports))
