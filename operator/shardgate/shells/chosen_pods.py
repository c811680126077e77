"""How many GPUs each pod of a declaration has that does not say it: as first chosen, until its spec changes.

The choice stands in the object's status, which others can write. Whoever leads goes by what it chose; other replicas by
what they saw first at a generation, so that a status that somebody forges later changes no verdict of theirs.
"""

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


class ChosenPods:
    """By the declaration's uid."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, Any]] = {}
        """uid -> (generation, ``status.required`` as it was told for it)."""

    def seen(self, body: Mapping[str, Any]) -> None:
        """What stands of an object; only the first choice at its generation counts."""
        self._keep(body, is_ours=False)

    def wrote(self, body: Mapping[str, Any]) -> None:
        """What our own write made of an object: that is what was chosen."""
        self._keep(body, is_ours=True)

    def _keep(self, body: Mapping[str, Any], *, is_ours: bool) -> None:
        metadata, status = body["metadata"], body.get("status") or {}
        uid, generation = metadata["uid"], metadata.get("generation") or 0
        is_first = self._known.get(uid, (-1, None))[0] != generation
        if (is_ours or is_first) and status.get("required") and status.get("observedGeneration") == generation:
            self._known[uid] = (generation, status["required"])

    def forget(self, uid: str) -> None:
        """It is gone."""
        self._known.pop(uid, None)

    def believed(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The object with no more of a status than what was chosen for it, whatever it brings along itself."""
        metadata = body.get("metadata")
        uid = metadata.get("uid") if isinstance(metadata, Mapping) else None
        known = self._known.get(uid) if isinstance(uid, str) else None
        bare = {name: value for name, value in body.items() if name != "status"}
        return bare if known is None else {**bare, "status": {"observedGeneration": known[0], "required": known[1]}}
