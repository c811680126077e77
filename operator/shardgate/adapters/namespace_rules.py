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
from shardgate.domain.inventory import LimitRange, Quota
from shardgate.domain.policy import Policy, StatedPolicy, effective_policy

T = TypeVar("T")
Key = tuple[str, str]
"""Namespace, name."""


@dataclass(slots=True)
class _ByNamespace(Generic[T]):
    """Objects of one sort, and what each namespace has of them, by name."""

    _of: dict[str, dict[str, T]] = field(default_factory=dict)
    _frozen: dict[str, tuple[T, ...]] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)

    def put(self, key: Key, item: T | None) -> bool:
        """Keep it, or nothing under this name; whether that is new."""
        namespace, name = key
        objects = self._of.get(namespace, {})
        if objects.get(name) == item:
            return False
        if item is None:
            del objects[name]
        else:
            self._of.setdefault(namespace, objects)[name] = item
        if not objects:
            self._of.pop(namespace, None)
        self._changed.add(namespace)
        return True

    def known(self) -> list[Key]:
        return [(namespace, name) for namespace, objects in self._of.items() for name in objects]

    def frozen(self) -> Mapping[str, tuple[T, ...]]:
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
    _quotas: _ByNamespace[Quota] = field(default_factory=_ByNamespace)
    _limit_ranges: _ByNamespace[LimitRange] = field(default_factory=_ByNamespace)

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

    # ---- quotas and limit ranges

    def put_quota(self, item: QuotaObject) -> None:
        """A ResourceQuota was added or changed; one that limits nothing of ours is none."""
        key = (item.metadata.namespace, item.metadata.name)
        if self._quotas.put(key, self._read(f"ResourceQuota {'/'.join(key)}", lambda: read_quota(item))):
            self.changed()

    def drop_quota(self, key: Key) -> None:
        """A ResourceQuota was deleted."""
        if self._quotas.put(key, None):
            self.changed()

    def retain_quotas(self, keys: set[str]) -> None:
        """A complete list was read (``namespace/name``): what is not in it is gone."""
        for key in [key for key in self._quotas.known() if "/".join(key) not in keys]:
            self.drop_quota(key)

    def quotas(self) -> Mapping[str, tuple[Quota, ...]]:
        """Namespace -> what is limited there, by name."""
        return self._quotas.frozen()

    def put_limit_range(self, item: LimitRangeObject) -> None:
        """A LimitRange was added or changed; one that says nothing of pods is none."""
        key = (item.metadata.namespace, item.metadata.name)
        if self._limit_ranges.put(key, self._read(f"LimitRange {'/'.join(key)}", lambda: read_limit_range(item))):
            self.changed()

    def drop_limit_range(self, key: Key) -> None:
        """A LimitRange was deleted."""
        if self._limit_ranges.put(key, None):
            self.changed()

    def retain_limit_ranges(self, keys: set[str]) -> None:
        """A complete list was read (``namespace/name``): what is not in it is gone."""
        for key in [key for key in self._limit_ranges.known() if "/".join(key) not in keys]:
            self.drop_limit_range(key)

    def limit_ranges(self) -> Mapping[str, tuple[LimitRange, ...]]:
        """Namespace -> what is said of its pods, by name."""
        return self._limit_ranges.frozen()

    def _read(self, name: str, read: Callable[[], T | None]) -> T | None:
        """What an object says; nothing where an amount is no quantity, which is named."""
        try:
            found = read()
        except QuantityError as error:
            self.unreadable[name] = str(error)
            return None
        self.unreadable.pop(name, None)
        return found
