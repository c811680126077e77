"""Which nodes and pods a selector means, as Kubernetes evaluates it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

HOST_LABEL = "kubernetes.io/hostname"
NAME_FIELD = "metadata.name"
ANY_ADDRESS = "0.0.0.0"  # noqa: S104  # what a host port without an address means


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """One requirement on a label: In, NotIn, Exists, DoesNotExist, Gt, Lt, and Karpenter's Gte and Lte."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """As ``labels.Requirement.Matches``: a missing key satisfies NotIn and DoesNotExist alone."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case _:
                return value is not None and bool(self.values) and compares(value, self.operator, self.values[0])


_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")


def compares(left: str, operator: str, right: str) -> bool:
    """Gt, Lt, Gte and Lte, on whole numbers of 64 bits as Go reads them; what is none matches nothing."""
    if not _WHOLE.fullmatch(left) or not _WHOLE.fullmatch(right):
        return False
    numbers = int(left), int(right)
    if any(not -(2**63) <= each < 2**63 for each in numbers):
        return False
    order = (numbers[0] > numbers[1]) - (numbers[0] < numbers[1])
    return {"Gt": order > 0, "Lt": order < 0, "Gte": order >= 0, "Lte": order <= 0}.get(operator, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTerm:
    """Requirements that all hold; a term without any matches no node."""

    expressions: tuple[Expression, ...] = ()
    fields: tuple[Expression, ...] = ()
    """On ``metadata.name``."""

    @property
    def is_of_hosts(self) -> bool:
        """Whether like nodes may differ in it: it names hosts."""
        return bool(self.fields) or any(each.key == HOST_LABEL for each in self.expressions)

    def may_match(self, labels: Mapping[str, str]) -> bool:
        """Whether some node with these labels (which leave its host name out) could match."""
        if not self.expressions and not self.fields:
            return False
        return all(each.matches(labels) for each in self.expressions if each.key != HOST_LABEL)

    def matches(self, labels: Mapping[str, str], name: str, hostname: str) -> bool:
        """Whether one node matches."""
        told = {**labels, HOST_LABEL: hostname} if hostname else labels
        return self.may_match(labels) and all(
            each.matches(where)
            for expressions, where in ((self.expressions, told), (self.fields, {NAME_FIELD: name}))
            for each in expressions
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTerm:
    """Pods that an affinity or anti-affinity is about, and how near: nodes with one value of the topology key."""

    topology_key: str
    expressions: tuple[Expression, ...] | None
    """``None`` means no pod, none at all every pod."""
    namespaces: tuple[str, ...]
    namespace_expressions: tuple[Expression, ...] | None = None
    """Of the labels of further namespaces; none at all means every namespace."""

    def selects(self, namespace: str, labels: Mapping[str, str], labels_of: Mapping[str, Mapping[str, str]]) -> bool:
        """Whether it is about a pod with these labels. ``labels_of``: namespace -> its labels."""
        if self.expressions is None or not all(each.matches(labels) for each in self.expressions):
            return False
        if namespace in self.namespaces:
            return True
        told = {"kubernetes.io/metadata.name": namespace, **labels_of.get(namespace, {})}
        return self.namespace_expressions is not None and all(each.matches(told) for each in self.namespace_expressions)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPort:
    """A port of the host that a pod takes."""

    port: int
    protocol: str = "TCP"
    address: str = ANY_ADDRESS

    def clashes(self, other: "HostPort") -> bool:
        """Whether both cannot be on one node."""
        return (self.port, self.protocol) == (other.port, other.protocol) and (
            ANY_ADDRESS in (self.address, other.address) or self.address == other.address
        )
