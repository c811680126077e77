"""What people say holds in namespaces: labels, policies, exceptions, quotas, limit ranges, and names of models.

Every change costs what changed: what is handed out is made anew for the namespaces that changed since, and never changes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from shardgate.adapters.limit_ranges import LimitRangeObject, read_limit_range
from shardgate.adapters.models.catalogue import Profile
from shardgate.adapters.quantities import QuantityError
from shardgate.adapters.quotas import QuotaObject, read_quota
from shardgate.domain.declaration import Subject
from shardgate.domain.enforce import Override
from shardgate.domain.inventory import LimitRange, Node, Quota
from shardgate.domain.policy import Policy, StatedPolicy, effective_policy

T = TypeVar("T")
Item = TypeVar("Item", QuotaObject, LimitRangeObject)
Key = tuple[str, str]
"""Namespace, name."""


@dataclass(slots=True)
class ByNamespace(Generic[Item, T]):
    """Objects of one kind as they come in, and what each namespace has of them, by name."""

    kind: str
    read: Callable[[Item], T | None]
    """What an object says; ``None``: nothing of ours. Raises ``QuantityError``."""
    changed: Callable[[], None]
    unreadable: dict[str, str]
    _of: dict[str, dict[str, T]] = field(default_factory=dict)
    _frozen: dict[str, tuple[T, ...]] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)

    def put(self, item: Item) -> None:
        """One was added or changed; where an amount is no quantity it is left out, and named."""
        key = (item.metadata.namespace, item.metadata.name)
        named = f"{self.kind} {'/'.join(key)}"
        said: T | None = None
        try:
            said = self.read(item)
            self.unreadable.pop(named, None)
        except QuantityError as error:
            self.unreadable[named] = str(error)
        self._keep(key, said)

    def drop(self, key: Key) -> None:
        """One was deleted."""
        self._keep(key, None)

    def retain(self, keys: set[str]) -> None:
        """A complete list was read (``namespace/name``): what is not in it is gone."""
        known = [(namespace, name) for namespace, objects in self._of.items() for name in objects]
        for key in known:
            if "/".join(key) not in keys:
                self.drop(key)

    def _keep(self, key: Key, said: T | None) -> None:
        namespace, name = key
        objects = self._of.get(namespace, {})
        if objects.get(name) == said:
            return
        if said is None:
            del objects[name]
        else:
            self._of.setdefault(namespace, objects)[name] = said
        if not objects:
            self._of.pop(namespace, None)
        self._changed.add(namespace)
        self.changed()

    def frozen(self) -> Mapping[str, tuple[T, ...]]:
        """Namespace -> what its objects say, by name."""
        if self._changed:
            self._frozen = dict(self._frozen)  # what was handed out stays as it is
            for namespace in self._changed:
                if namespace in self._of:
                    objects = self._of[namespace]
                    self._frozen[namespace] = tuple(objects[name] for name in sorted(objects))
                else:
                    self._frozen.pop(namespace, None)
            self._changed.clear()
        return self._frozen


@dataclass(slots=True)
class NamespaceRules:
    """All of them. ``changed`` is called when a verdict could be another one by what came."""

    changed: Callable[[], None]
    unreadable: dict[str, str]
    """Object -> why it could not be read; it is left out, and said so."""
    policies: dict[str, StatedPolicy] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)
    """What private names of models stand for, by the profile's name."""
    profiles_version: int = 0
    """Counts changes of profiles: declarations are read anew."""
    overrides: dict[str, Override] = field(default_factory=dict)
    """Exceptions that were granted, by namespace and name."""
    _labels: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _labels_handed_out: bool = False
    quotas: ByNamespace[QuotaObject, Quota] = field(init=False)
    limit_ranges: ByNamespace[LimitRangeObject, LimitRange] = field(init=False)

    def __post_init__(self) -> None:
        self.quotas = ByNamespace("ResourceQuota", read_quota, self.changed, self.unreadable)
        self.limit_ranges = ByNamespace("LimitRange", read_limit_range, self.changed, self.unreadable)

    # ---- namespaces

    def put_namespace(self, name: str, labels: Mapping[str, str]) -> None:
        """A namespace was added or changed."""
        if self._labels.get(name) != labels:
            self._own_labels()[name] = labels
            self.changed()

    def drop_namespace(self, name: str) -> None:
        """A namespace was deleted."""
        if name in self._labels:
            del self._own_labels()[name]
            self.changed()

    def retain_namespaces(self, names: set[str]) -> None:
        """A complete list was read: what is not in it is gone."""
        for name in [name for name in self._labels if name not in names]:
            self.drop_namespace(name)

    def _own_labels(self) -> dict[str, Mapping[str, str]]:
        if self._labels_handed_out:
            self._labels, self._labels_handed_out = dict(self._labels), False
        return self._labels

    def labels(self) -> Mapping[str, Mapping[str, str]]:
        """Namespace -> its labels, of those that were seen."""
        self._labels_handed_out = True
        return self._labels

    def labels_of(self, namespace: str) -> dict[str, str]:
        """Of a namespace; its name is one, whether or not it was seen."""
        return {**self._labels.get(namespace, {}), "kubernetes.io/metadata.name": namespace}

    # ---- policies and exceptions

    def put_policy(self, policy: StatedPolicy) -> None:
        """A policy was added or changed."""
        if self.policies.get(policy.name) != policy:
            self.policies[policy.name] = policy
            self.changed()

    def drop_policy(self, name: str) -> None:
        """A policy was deleted."""
        self.policies.pop(name, None)
        self.changed()

    def policy_for(self, namespace: str, kind: str, default: Policy) -> Policy:
        """The policy that holds for objects of a kind (``Kind.group``) in a namespace."""
        return effective_policy(self.policies.values(), self.labels_of(namespace), kind, default)

    @property
    def pools(self) -> tuple[Node, ...]:
        """Nodes that any policy names as provisionable, by pool."""
        stated = (each.stated.get("provisionable", ()) for each in self.policies.values())
        return tuple({node.name: node for nodes in stated for node in nodes}.values())  # type: ignore[attr-defined]  # of this field

    def overrides_for(self, subject: Subject, now: float) -> tuple[Override, ...]:
        """Those that hold for an object at this Unix time."""
        return tuple(each for each in self.overrides.values() if each.holds(subject.namespace, subject.kind, subject.name, now))

    # ---- profiles

    def put_profile(self, profile: Profile) -> None:
        """A profile was added or changed."""
        if self.profiles.get(profile.name) != profile:
            self.profiles[profile.name] = profile
            self._profiles_changed()

    def drop_profile(self, name: str) -> None:
        """A profile was deleted."""
        if self.profiles.pop(name, None) is not None:
            self._profiles_changed()

    def _profiles_changed(self) -> None:
        self.profiles_version += 1
        self.changed()

    @property
    def known_profiles(self) -> tuple[Profile, ...]:
        """All of them, by name: of several that match, the first counts."""
        return tuple(self.profiles[name] for name in sorted(self.profiles))
