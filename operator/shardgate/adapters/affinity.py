"""``affinity`` as in a pod -> node terms; what else is required is named."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from shardgate.adapters.errors import DeclarationError, group
from shardgate.domain.selectors import Expression, NodeTerm, PodTerm

REQUIRED, PREFERRED = (f"{which}DuringSchedulingIgnoredDuringExecution" for which in ("required", "preferred"))
_WITH_VALUES, _WITHOUT_VALUES = ("In", "NotIn"), ("Exists", "DoesNotExist")


class _Requirement(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[str] | None = None


class _Term(msgspec.Struct, forbid_unknown_fields=True):
    matchExpressions: list[_Requirement] | None = None  # noqa: N815  # as the API spells it
    matchFields: list[_Requirement] | None = None  # noqa: N815


class _NodeSelector(msgspec.Struct, forbid_unknown_fields=True):
    nodeSelectorTerms: list[_Term]  # noqa: N815


class _NodeAffinity(msgspec.Struct, forbid_unknown_fields=True, rename={"required": REQUIRED, "preferred": PREFERRED}):
    required: _NodeSelector | None = None
    preferred: list[Any] | None = None


def read_node_affinity(affinity: Mapping[str, Any], where: str) -> tuple[NodeTerm, ...] | None:
    """The terms of which one must hold; ``None`` without a requirement. Raises an ``ExceptionGroup`` of ``DeclarationError``."""
    stated = affinity.get("nodeAffinity")
    if stated is None:
        return None
    try:
        read = msgspec.convert(stated, _NodeAffinity)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise group([DeclarationError(f"{where}.nodeAffinity{path.rstrip('`')}", problem)]) from None
    if read.required is None:
        return None
    at = f"{where}.nodeAffinity.{REQUIRED}.nodeSelectorTerms"
    problems: list[DeclarationError] = []
    if not read.required.nodeSelectorTerms:
        problems.append(DeclarationError(at, "needs at least one term"))
    terms = tuple(_term(term, f"{at}[{index}]", problems) for index, term in enumerate(read.required.nodeSelectorTerms))
    if problems:
        raise group(problems)
    return terms


class LabelSelector(msgspec.Struct, forbid_unknown_fields=True):
    """A selector of pods by their labels."""

    matchLabels: dict[str, str] | None = None  # noqa: N815
    matchExpressions: list[_Requirement] | None = None  # noqa: N815


class _PodTerm(msgspec.Struct, forbid_unknown_fields=True):
    topologyKey: str  # noqa: N815
    labelSelector: LabelSelector | None = None  # noqa: N815
    namespaces: list[str] | None = None
    namespaceSelector: LabelSelector | None = None  # noqa: N815
    matchLabelKeys: list[str] | None = None  # noqa: N815
    mismatchLabelKeys: list[str] | None = None  # noqa: N815


class _PodAffinity(msgspec.Struct, forbid_unknown_fields=True, rename={"required": REQUIRED, "preferred": PREFERRED}):
    required: list[_PodTerm] | None = None
    preferred: list[Any] | None = None


class _AdmittedPodTerm(_PodTerm, forbid_unknown_fields=False):
    """Of a pod that the API server took: fields that are newer than this are no mistake."""


class _AdmittedPodAffinity(msgspec.Struct, rename={"required": REQUIRED, "preferred": PREFERRED}):
    required: list[_AdmittedPodTerm] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTerms:
    """Required terms that are read, and whether there are others."""

    terms: tuple[PodTerm, ...] = ()
    is_complete: bool = True
    """Without label keys that follow the pod's own labels."""


def read_pod_terms(affinity: Mapping[str, Any], kind: str, namespace: str, where: str, *, is_admitted: bool = False) -> PodTerms:
    """Of ``podAffinity`` or ``podAntiAffinity``. Raises an ``ExceptionGroup`` of ``DeclarationError``.

    ``is_admitted``: the API server has merged label keys into the selector already.
    """
    stated = affinity.get(kind)
    if stated is None:
        return PodTerms()
    try:
        required: Sequence[_PodTerm] = (
            (msgspec.convert(stated, _AdmittedPodAffinity).required or ())
            if is_admitted
            else (msgspec.convert(stated, _PodAffinity).required or ())
        )
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise group([DeclarationError(f"{where}.{kind}{path.rstrip('`')}", problem)]) from None
    problems: list[DeclarationError] = []
    terms, is_complete = [], True
    for index, term in enumerate(required):
        at = f"{where}.{kind}.{REQUIRED}[{index}]"
        if not term.topologyKey:
            problems.append(DeclarationError(f"{at}.topologyKey", "needs a label's key"))
        if not is_admitted and (term.matchLabelKeys or term.mismatchLabelKeys):
            is_complete = False
            continue
        of_namespaces = read_label_selector(term.namespaceSelector, at, problems)
        terms.append(
            PodTerm(
                topology_key=term.topologyKey,
                expressions=read_label_selector(term.labelSelector, at, problems),
                namespaces=tuple(term.namespaces or (() if of_namespaces is not None else (namespace,))),
                namespace_expressions=of_namespaces,
            )
        )
    if problems:
        raise group(problems)
    return PodTerms(terms=tuple(terms), is_complete=is_complete)


def read_label_selector(
    stated: LabelSelector | None, where: str, problems: list[DeclarationError]
) -> tuple[Expression, ...] | None:
    """``None`` where there is none, which selects nothing; problems are added to those given."""
    if stated is None:
        return None
    labels = (Expression(key=key, operator="In", values=(value,)) for key, value in (stated.matchLabels or {}).items())
    others = (
        _expression(each, f"{where}.labelSelector.matchExpressions[{index}]", problems)
        for index, each in enumerate(stated.matchExpressions or ())
    )
    return (*labels, *others)


def _term(term: _Term, where: str, problems: list[DeclarationError]) -> NodeTerm:
    expressions, fields = (
        tuple(_expression(each, f"{where}.{name}[{index}]", problems) for index, each in enumerate(stated or ()))
        for name, stated in (("matchExpressions", term.matchExpressions), ("matchFields", term.matchFields))
    )
    for index, each in enumerate(fields):
        if each.key != "metadata.name" or each.operator not in _WITH_VALUES or len(each.values) != 1:
            problems.append(DeclarationError(f"{where}.matchFields[{index}]", "needs metadata.name, In or NotIn, and one value"))
    return NodeTerm(expressions=expressions, fields=fields)


def _expression(stated: _Requirement, where: str, problems: list[DeclarationError]) -> Expression:
    values = tuple(stated.values or ())
    if stated.operator in _WITH_VALUES and not values:
        problems.append(DeclarationError(f"{where}.values", f"needs a value for {stated.operator}"))
    if stated.operator in _WITHOUT_VALUES and values:
        problems.append(DeclarationError(f"{where}.values", f"must be left out for {stated.operator}"))
    if stated.operator in ("Gt", "Lt") and (len(values) != 1 or not values[0].removeprefix("-").isdecimal()):
        problems.append(DeclarationError(f"{where}.values", f"needs one whole number for {stated.operator}"))
    return Expression(key=stated.key, operator=stated.operator, values=values)
