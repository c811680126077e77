"""What the real helm makes of the chart, for tests to look into."""

import re
import sys
from collections.abc import Callable
from typing import Any

from controlplane.chart import CHART

Json = dict[str, Any]
SETS = sorted((CHART / "ci").glob("*-values.yaml"))
_STEP = re.compile(r"\[([^\]]+)\]|([^.\[\]]+)")


def say(text: str) -> None:
    """A build of helm takes a while."""
    print(text, file=sys.stderr, flush=True)


class Objects:
    """What a release has."""

    def __init__(self, objects: list[Json]) -> None:
        self.all = objects

    def find(self, kind: str, name: str = "") -> list[Json]:
        return [each for each in self.all if each["kind"] == kind and name in ("", each["metadata"]["name"])]

    def one(self, kind: str, name: str = "") -> Json:
        found = self.find(kind, name)
        assert len(found) == 1, (kind, name, [each["metadata"]["name"] for each in found])
        return found[0]

    def at(self, kind: str, name: str, path: str) -> Any:
        """By keys with dots between, `[a.key]` where it has dots; a list by index, or by the `name` of what is in it."""
        value: Any = self.one(kind, name)
        for bracketed, plain in _STEP.findall(path):
            key = bracketed or plain
            if isinstance(value, list):
                named = [each for each in value if isinstance(each, dict) and each.get("name") == key]
                value = named[0] if named else dict(enumerate(value)).get(int(key)) if key.isdecimal() else None
            elif value is not None:
                value = value.get(key)
        return value


Render = Callable[..., Objects]
