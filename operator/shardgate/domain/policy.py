"""What the cluster's owners decided: how strict, what may be refused, what tenants may see."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum

from shardgate.domain.inventory import Node


class Mode(IntEnum):
    """What is done about a refusal, strictest last."""

    AUDIT = 0
    WARN = 1
    ENFORCE = 2


class Capacity(IntEnum):
    """Whether anything may come that is not here."""

    OPEN = 0
    CLOSED = 1


class CodeAnswer(IntEnum):
    """What one code does to the answer; never to outcome or score."""

    IGNORE = 0
    WARN = 1
    REFUSE = 2


class Disclosure(IntEnum):
    """What messages to users say about nodes, most guarded last."""

    NODES = 0
    POOLS = 1
    NONE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The policy that holds for one object."""

    mode: Mode = Mode.ENFORCE
    capacity: Capacity = Capacity.CLOSED
    refuse_waiting: bool = False
    refuse_undecided: bool = False
    codes: Mapping[str, CodeAnswer] = field(default_factory=dict)
    disclosure: Disclosure = Disclosure.POOLS
    stale_after_seconds: int = 90
    claim_seconds: int = 900
    provisionable: tuple[Node, ...] = ()


OWN_KIND = Policy()
"""No policy matches an InferenceDeployment: it is a plan for this cluster."""

FOREIGN_KIND = Policy(mode=Mode.WARN, capacity=Capacity.OPEN)
"""No policy matches a foreign kind: its pods may wait, and GitOps does not retry a refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedPolicy:
    """One VerificationPolicy object: only the fields that it states.

    ``by_namespace_name``: its selector names ``kubernetes.io/metadata.name``, which a tenant cannot set; only
    then may a field be weaker than the default.
    """

    name: str
    match_labels: Mapping[str, str]
    match_expressions: tuple[tuple[str, str, tuple[str, ...]], ...]
    kinds: tuple[str, ...]
    by_namespace_name: bool
    stated: Mapping[str, object]

    @property
    def selects_all(self) -> bool:
        """Whether it is for every namespace, whatever its labels."""
        return not self.match_labels and not self.match_expressions

    def selects(self, namespace_labels: Mapping[str, str], kind: str) -> bool:
        """Whether it is for this kind (``Kind.group``) in a namespace with these labels."""
        if self.kinds and kind not in self.kinds:
            return False
        return all(namespace_labels.get(key) == value for key, value in self.match_labels.items()) and all(
            _expression_holds(namespace_labels, *expression) for expression in self.match_expressions
        )


def _expression_holds(labels: Mapping[str, str], key: str, operator: str, values: tuple[str, ...]) -> bool:
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False


def effective_policy(stated: Iterable[StatedPolicy], namespace_labels: Mapping[str, str], kind: str, default: Policy) -> Policy:
    """The strictest of all that match, field by field.

    A field that no matching policy states keeps its default. Modes, capacity, refusals, codes and disclosure take
    the most guarded value, seconds the least, pools are united.
    """
    matching = [policy for policy in stated if policy.selects(namespace_labels, kind)]
    if not matching:
        return default
    merged: dict[str, object] = {}
    for each in fields(Policy):
        floor = getattr(default, each.name)
        values = [_guarded(policy, each.name, floor) for policy in matching if each.name in policy.stated]
        merged[each.name] = _strictest(each.name, values) if values else floor
    return Policy(**merged)  # type: ignore[arg-type]  # the names come from Policy's own fields


def weaker_fields(policy: StatedPolicy, default: Policy) -> tuple[str, ...]:
    """Fields that state something weaker than the default: they count only where the policy names its namespaces."""
    as_a_tenants = replace(policy, by_namespace_name=False)
    return tuple(name for name, value in policy.stated.items() if _guarded(as_a_tenants, name, getattr(default, name)) != value)


def _guarded(policy: StatedPolicy, name: str, floor: object) -> object:
    """What a policy states of a field; a policy that a tenant's label can call in may only make it stricter."""
    value = policy.stated[name]
    if policy.by_namespace_name:
        return value
    if name == "codes":
        return {code: answer for code, answer in value.items() if answer is CodeAnswer.REFUSE}  # type: ignore[attr-defined]  # a mapping
    if name == "provisionable":
        return value if policy.selects_all else ()
    return _strictest(name, [value, floor])


def _strictest(name: str, values: list[object]) -> object:
    if name == "provisionable":
        return tuple({node.name: node for pool in values for node in pool}.values())  # type: ignore[attr-defined]  # tuples of nodes
    if name == "codes":
        codes: dict[str, CodeAnswer] = {}
        for stated in values:
            for code, answer in stated.items():  # type: ignore[attr-defined]  # mappings of answers
                codes[code] = max(codes.get(code, answer), answer)
        return codes
    return min(values) if name.endswith("_seconds") else max(values)  # type: ignore[type-var]  # enums, flags and numbers
