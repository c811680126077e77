"""The chart, rendered by the real helm."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from charts import Objects, Render, say
from controlplane.chart import CHART, HelmError, helm, rendered

Json = dict[str, Any]


@pytest.fixture(scope="session")
def render() -> Render:
    """Values, or further arguments -> objects, which nobody changes: the same are rendered once."""
    kept: dict[str, Objects] = {}

    def made(values: Mapping[str, Any] | None = None, *arguments: str, **more: str) -> Objects:
        asked = json.dumps([values, arguments, more])
        if asked not in kept:
            kept[asked] = Objects(rendered(*arguments, say=say, values=values, **more))
        return kept[asked]

    return made


@pytest.fixture(scope="session")
def default(render: Render) -> Objects:
    return render()


@pytest.fixture(scope="session")
def refusal() -> Callable[[Mapping[str, Any]], str]:
    """What helm says to values that it does not take; it has to refuse them."""

    def said(values: Mapping[str, Any]) -> str:
        with pytest.raises(HelmError) as refused:
            rendered(say=say, values=values)
        return str(refused.value)

    return said


@pytest.fixture(scope="session")
def lint() -> Callable[..., str]:
    return lambda *arguments: helm("lint", "--strict", str(CHART), *arguments, say=say)
