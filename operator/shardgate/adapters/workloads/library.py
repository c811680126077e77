"""Objects that a workload refers to: ConfigMaps, claim templates, runtimes, presets, caches. What is not here is unknown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shardgate.adapters.workloads.values import mapping

Json = Mapping[str, Any]

_ELSEWHERE = frozenset({"LLMInferenceServiceConfig"})
"""KServe looks for presets in its own namespace too."""


@dataclass(slots=True)
class Library:
    """Objects by kind and name; those of files often name no namespace."""

    _objects: dict[tuple[str, str], list[Json]] = field(default_factory=dict)
    version: int = 0
    """Grows with every change."""

    @classmethod
    def of(cls, objects: Iterable[Json], also: "Library | None" = None) -> "Library":
        """All of them; what stands in ``also`` too, where these have nothing of its name."""
        library = cls() if also is None else also.copy()
        for body in objects:
            library.put(body)
        return library

    def copy(self) -> "Library":
        """One that may get more."""
        return Library({key: list(bodies) for key, bodies in self._objects.items()})

    def put(self, body: Json) -> None:
        """Add one, in the place of what stood under its name."""
        name = mapping(body.get("metadata")).get("name")
        if isinstance(name, str):
            if body in self._objects.get((str(body.get("kind")), name), ()):
                return  # its status changed, or nothing
            self.drop(body)
            self.version += 1
            self._objects.setdefault((str(body.get("kind")), name), []).append(body)

    def drop(self, body: Json) -> None:
        """Take away what stands under the kind, namespace and name of this one."""
        metadata = mapping(body.get("metadata"))
        key = (str(body.get("kind")), str(metadata.get("name")))
        namespace = metadata.get("namespace") or ""
        stored = self._objects.get(key, [])
        left = [each for each in stored if (mapping(each.get("metadata")).get("namespace") or "") != namespace]
        self.version += len(left) < len(stored)
        if left:
            self._objects[key] = left
        else:
            self._objects.pop(key, None)

    def find(self, kind: str, name: object, namespace: str) -> Json | None:
        """The one in the namespace, else one that names none; another namespace's only where ours is not stated, or of presets."""
        if not isinstance(name, str):
            return None
        found = self._objects.get((kind, name), [])
        for wanted in (namespace, ""):
            for body in found:
                if (mapping(body.get("metadata")).get("namespace") or "") == wanted:
                    return body
        return found[0] if found and (not namespace or kind in _ELSEWHERE) else None

    def all(self, kind: str) -> list[Json]:
        """Of one kind."""
        return [body for (each, _), bodies in self._objects.items() if each == kind for body in bodies]
