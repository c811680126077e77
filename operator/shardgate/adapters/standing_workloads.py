"""Workloads of other kinds that stand in the cluster, as the watches bring them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shardgate.adapters.pods import OWN_KIND
from shardgate.adapters.workloads.kinds import BETWEEN, controller_of
from shardgate.adapters.workloads.values import mapping

Json = dict[str, Any]
Key = tuple[str, str, str, str]
"""API group, kind, namespace, name."""


@dataclass(slots=True)
class StandingWorkloads:
    """By uid and by name."""

    _bodies: dict[str, Json] = field(default_factory=dict)
    _uids: dict[Key, str] = field(default_factory=dict)
    _referred: dict[str, Key] = field(default_factory=dict)
    """uid of an InferenceDeployment -> the workload that it is about."""
    referrals: int = 0
    """Grows with every change of which workloads are referred to, and of what those declare."""

    def put(self, body: Json) -> bool:
        """Add one, or what it is now; whether it declares something else than before."""
        uid, key = str(mapping(body.get("metadata")).get("uid")), key_of(body)
        before = self._bodies.get(uid)
        self._bodies[uid] = body
        self._uids[key] = uid
        changed = before is None or not _is_alike(before, body)
        self.referrals += changed and self.is_referred_to(body)
        return changed

    def drop(self, uid: str) -> None:
        """It is gone."""
        body = self._bodies.pop(uid, None)
        if body is not None:
            key = key_of(body)
            self.referrals += self.is_referred_to(body)
            if self._uids.get(key) == uid:  # not one of the same name that came since
                del self._uids[key]

    def refer(self, uid: str, key: Key | None) -> None:
        """The InferenceDeployment of this uid is about that workload, or about none."""
        before = self._referred.pop(uid, None)
        if key is not None:
            self._referred[uid] = key
        self.referrals += before != key

    def is_referred_to(self, body: Mapping[str, Any]) -> bool:
        """Whether an InferenceDeployment is judged in its stead."""
        return key_of(body) in self._referred.values()

    def __len__(self) -> int:
        return len(self._bodies)

    def get(self, uid: str) -> Json | None:
        """By uid."""
        return self._bodies.get(uid)

    def named(self, group: str, kind: str, namespace: str, name: str) -> Json | None:
        """By name."""
        uid = self._uids.get((group, kind, namespace, name))
        return None if uid is None else self._bodies[uid]

    def uids(self, group: str, kind: str) -> list[str]:
        """Of one kind."""
        return [uid for (of_group, of_kind, _, _), uid in self._uids.items() if (of_group, of_kind) == (group, kind)]

    def all_uids(self) -> Iterable[str]:
        """Of every kind."""
        return list(self._bodies)

    def is_made_for_another(self, body: Mapping[str, Any], pods: Mapping[str, object]) -> bool:
        """Whether its controller's owner is judged in its stead: it stands here with that uid.

        ``pods``: those that are known, by uid: the leader of a group owns its workers.
        """
        owner = controller_of(body)
        if owner is None:
            return False
        kind = (str(owner.get("apiVersion") or "").rpartition("/")[0], str(owner.get("kind")))
        uid = str(owner.get("uid"))
        return uid in self._bodies or kind in BETWEEN or (kind == ("", "Pod") and uid in pods)


def is_controller(requester: str) -> bool:
    """Whether a user's name is one that controllers have; a person's object names any owner it likes."""
    return requester.startswith("system:serviceaccount:") or requester == "system:kube-controller-manager"


def key_of(body: Mapping[str, Any]) -> Key:
    """API group, kind, namespace and name of an object."""
    metadata = mapping(body.get("metadata"))
    group = str(body.get("apiVersion") or "").rpartition("/")[0]
    return (group, str(body.get("kind")), str(metadata.get("namespace") or ""), str(metadata.get("name")))


def referred_to(body: Mapping[str, Any]) -> Key | None:
    """The workload that an InferenceDeployment is about; ``None`` where it is about none, or another object."""
    reference = mapping(mapping(body.get("spec")).get("workloadRef"))
    if body.get("kind") != OWN_KIND or not reference:
        return None
    group, namespace = str(reference.get("apiVersion") or "").rpartition("/")[0], mapping(body.get("metadata")).get("namespace")
    return (group, str(reference.get("kind")), str(namespace or ""), str(reference.get("name")))


def declares(body: Mapping[str, Any]) -> Json:
    """What of an object says how it serves: all but metadata and status (KAITO's Workspace has no ``spec``)."""
    return {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata", "status")}


def _is_alike(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Labels may name a queue, owner references an owner."""
    then, metadata = mapping(before.get("metadata")), mapping(now.get("metadata"))
    same = all(then.get(part) == metadata.get(part) for part in ("labels", "ownerReferences", "deletionTimestamp"))
    return same and declares(before) == declares(now)
