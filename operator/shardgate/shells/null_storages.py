"""Storages with which kopf can write nothing to any object: all our handlers are stateless."""

from typing import Any

import kopf


class NullDiffBase(kopf.DiffBaseStorage):
    """No last-handled configuration."""

    def build(self, **_: Any) -> Any:  # kopf's own type is private
        """Nothing to compare with."""
        return {}

    def fetch(self, **_: Any) -> None:
        """Nothing is kept."""

    def store(self, **_: Any) -> None:
        """Refuses: a state-storing handler was registered by mistake."""
        problem = "a state-storing kopf handler is registered; this operator is stateless by design"
        raise RuntimeError(problem)


class NullProgress(kopf.ProgressStorage):
    """No handler progress."""

    def fetch(self, **_: Any) -> None:
        """Nothing is kept."""

    def store(self, **_: Any) -> None:
        """Refuses: a state-storing handler was registered by mistake."""
        problem = "a state-storing kopf handler is registered; this operator is stateless by design"
        raise RuntimeError(problem)

    def purge(self, **_: Any) -> None:
        """Nothing to purge."""

    def touch(self, **_: Any) -> None:
        """Nothing to touch."""

    def clear(self, *, essence: Any) -> Any:  # kopf's own type is private
        """Nothing to clear."""
        return essence
