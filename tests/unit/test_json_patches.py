"""The JSON patch that sets annotations."""

import base64
import json
from typing import Any

import pytest

from shardgate.shells.json_patches import annotation_patch


@pytest.mark.parametrize(
    ("present", "wanted", "steps"),
    [
        (None, {"a/b": "1"}, [{"op": "add", "path": "/metadata/annotations", "value": {"a/b": "1"}}]),
        ({}, {"a/b": "1", "c": None}, [{"op": "add", "path": "/metadata/annotations", "value": {"a/b": "1"}}]),
        ({"other": "x"}, {"a/b": "1"}, [{"op": "add", "path": "/metadata/annotations/a~1b", "value": "1"}]),
        ({"a/b": "0"}, {"a/b": "1"}, [{"op": "add", "path": "/metadata/annotations/a~1b", "value": "1"}]),
        ({"a~b": "0"}, {"a~b": None}, [{"op": "remove", "path": "/metadata/annotations/a~0b"}]),
        ({"a": "1"}, {"a": "1", "b": None}, []),
        (None, {"a": None}, []),
    ],
)
def test_it_sets_what_differs_and_nothing_else(present: Any, wanted: dict[str, str | None], steps: list[Any]) -> None:
    answer = annotation_patch({"metadata": {"annotations": present}}, wanted)
    if not steps:
        assert answer == {}
    else:
        assert answer["patchType"] == "JSONPatch"
        assert json.loads(base64.b64decode(answer["patch"])) == steps
