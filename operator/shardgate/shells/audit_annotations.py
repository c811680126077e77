"""What the API server's audit log shall say of a review; kept beside the answer, until that is put into words."""

from contextvars import ContextVar

_annotations: ContextVar[dict[str, str] | None] = ContextVar("audit_annotations", default=None)


def collect() -> dict[str, str]:
    """Begin with none, for the review that is answered next in this task; what is noted comes into the mapping."""
    found: dict[str, str] = {}
    _annotations.set(found)
    return found


def note(name: str, value: str) -> None:
    """Say this of the review that is being answered."""
    found = _annotations.get()
    if found is not None:
        found[name] = value
