"""Documents -> what they declare, whatever their kind."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.extracts import extract, extract_own, subject_of
from shardgate.adapters.inference_deployments import is_inference_deployment
from shardgate.adapters.referred_workloads import groups_in, read_declaration
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.registry import asks_for_gpus, read_workload
from shardgate.domain.declaration import Subject
from shardgate.shells.documents import Document, Unreadable

Json = dict[str, Any]


@dataclass(slots=True)
class Extracted:
    """Declarations; objects with GPUs that serve nothing, each with why; documents that cannot be read."""

    declarations: list[Json] = field(default_factory=list)
    ignored: list[Json] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


def extracted(documents: Iterable[Document]) -> Extracted:
    """In the order of the documents; what they refer to is looked for among them all."""
    documents = list(documents)
    library = Library.of(each.body for each in documents)
    found = Extracted()
    for document in documents:
        if is_inference_deployment(document.body):
            try:
                found.declarations.append(extract_own(read_declaration(document.body, (), groups_in(library))))
            except ExceptionGroup as problems:
                found.unreadable += [Unreadable(document.where, str(each)) for each in mistakes_in(problems)]
            continue
        workload = read_workload(document.body, library)
        if workload is not None:
            found.declarations.append(extract(workload))
        elif asks_for_gpus(document.body):
            found.ignored.append({"subject": _subject(document), "why": "no container starts an engine that is known"})
    return found


def _subject(document: Document) -> Json:
    metadata = document.body.get("metadata") or {}
    return subject_of(
        Subject(
            api_version=str(document.body.get("apiVersion")), kind=str(document.body.get("kind")),
            namespace=str(metadata.get("namespace") or "default"), name=str(metadata.get("name") or ""),
        )
    )  # fmt: skip
