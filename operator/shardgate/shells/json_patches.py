"""The part of a mutating answer that changes the object."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]


def json_patch(steps: Sequence[Json]) -> Json:
    """``patchType`` and ``patch`` of a response, of these steps."""
    return {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(steps).encode()).decode()}


def annotation_patch(body: Mapping[str, Any], wanted: Mapping[str, str | None]) -> Json:
    """``patchType`` and ``patch`` of a response; empty where all is so already. ``None`` takes an annotation away."""
    present = (body.get("metadata") or {}).get("annotations") or {}
    steps: list[Json] = []
    if not present and (said := {name: value for name, value in wanted.items() if value is not None}):
        steps.append({"op": "add", "path": "/metadata/annotations", "value": said})
    for name, value in wanted.items() if present else ():
        path = f"/metadata/annotations/{name.replace('~', '~0').replace('/', '~1')}"
        if value is None and name in present:
            steps.append({"op": "remove", "path": path})
        elif value is not None and present.get(name) != value:
            steps.append({"op": "add", "path": path, "value": value})
    return json_patch(steps) if steps else {}
