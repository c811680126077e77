"""Workloads of other kinds that stand in the cluster, as the watches bring them: by uid, by name, by what made them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shardgate.adapters.pods import OWN_KIND
from shardgate.adapters.workloads.kinds import BETWEEN, MADE_BY, controller_of
from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.domain.inventory import Owner

Json = dict[str, Any]
Key = tuple[str, str, str, str]
"""API group, kind, namespace, name."""
_FINISHED = ("Complete", "Failed")
MOST_GONE = 1000
OWN_AFTER_SECONDS = 10 * 60
"""For so long after an object was deleted, pods of what was made for it count as those of one that is made anew in its place."""


def plausible_owner(body: Mapping[str, Any]) -> tuple[str, str, str, str] | None:
    """(uid, kind, namespace, name) of the owner that its controller names, where that is of a kind that makes such objects."""
    owner = controller_of(body)
    if owner is None or str(body.get("kind")) not in MADE_BY.get(str(owner.get("kind")), ()):
        return None
    namespace = str(mapping(body.get("metadata")).get("namespace") or "")
    return str(owner.get("uid")), str(owner.get("kind")), namespace, str(owner.get("name"))


@dataclass(slots=True)
class StandingWorkloads:
    """What stands, and what of it is judged in another object's stead."""

    _bodies: dict[str, Json] = field(default_factory=dict)
    _uids: dict[Key, str] = field(default_factory=dict)
    _made: dict[str, set[str]] = field(default_factory=dict)
    """uid of a controller's owner -> uids of what was made for it."""
    _named: dict[str, Key] = field(default_factory=dict)
    """uid of an InferenceDeployment -> the workload that it names."""
    _taken_over: set[str] = field(default_factory=set)
    """Those of them that are judged in their workload's stead."""
    _left: dict[Key, tuple[float, tuple[Owner, ...]]] = field(default_factory=dict)
    """An object that was deleted -> when, and by whom pods said that they were made for it."""
    _gone: dict[Key, tuple[float, Json]] = field(default_factory=dict)
    """An object that was deleted -> when, and what it was; the latest last."""
    referrals: int = 0
    """Grows with every change of which workloads are named, and of what those declare."""

    def put(self, body: Json, now: float = 0.0) -> bool:
        """Add one, or what it is now; whether it declares something else than before. ``now``: seconds of a steady clock."""
        uid, key = _uid(body), key_of(body)
        if self._uids.get(key, uid) != uid:
            self.drop(self._uids[key], now)  # it was deleted and made anew while nobody looked
        before = self._bodies.get(uid)
        if before is not None:
            self._unlink(before)
        self._bodies[uid], self._uids[key] = body, uid
        owner = controller_of(body)
        if owner is not None:
            self._made.setdefault(str(owner.get("uid")), set()).add(uid)
        changed = before is None or not _is_alike(before, body)
        self.referrals += changed and self.is_named(body)
        return changed

    def drop(self, uid: str, now: float = 0.0) -> bool:
        """It is gone; whether it was here."""
        made = self.owners_made_for(uid)
        body = self._bodies.pop(uid, None)
        if body is None:
            return False
        for key in [key for key, (since, _) in self._left.items() if now - since >= OWN_AFTER_SECONDS]:
            del self._left[key]
        if made:
            self._left[key_of(body)] = now, made
        self.note_gone(body, now)
        self._unlink(body)
        self.referrals += self.is_named(body)
        del self._uids[key_of(body)]
        return True

    def _unlink(self, body: Json) -> None:
        owner = controller_of(body)
        if owner is not None:
            made = self._made.get(str(owner.get("uid")), set())
            made.discard(_uid(body))
            if not made:
                self._made.pop(str(owner.get("uid")), None)

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

    def by_owner(self) -> dict[Owner, Json]:
        """By what their pods say that they are made for."""
        return {Owner(*_place(body)): body for body in self._bodies.values()}

    def made_for(self, uid: str) -> list[Json]:
        """What controllers made for an object, and for what they made."""
        found: list[Json] = []
        waiting, seen = [uid], {uid}
        for each in waiting:
            new = self._made.get(each, set()) - seen
            seen |= new
            waiting += sorted(new)
            found += [self._bodies[made] for made in sorted(new)]
        return found

    def owners_made_for(self, uid: str) -> tuple[Owner, ...]:
        """By whom pods of an object may say that they are made, besides itself."""
        return tuple(Owner(*_place(body)) for body in self.made_for(uid))

    def owners_left_by(self, body: Mapping[str, Any], now: float) -> tuple[Owner, ...]:
        """The same of an object of that kind and name that was deleted not long ago: its pods are still going."""
        since, owners = self._left.get(key_of(body), (0.0, ()))
        return owners if now - since < OWN_AFTER_SECONDS else ()

    def note_gone(self, body: Json, now: float) -> None:
        """It was deleted: what is made anew in its place is compared with it."""
        key = key_of(body)
        self._gone.pop(key, None)
        self._gone[key] = now, body
        for each in [each for each, (since, _) in self._gone.items() if now - since >= OWN_AFTER_SECONDS]:
            del self._gone[each]
        if len(self._gone) > MOST_GONE:
            del self._gone[next(iter(self._gone))]

    def predecessor(self, body: Mapping[str, Any], now: float) -> Json | None:
        """What an object that is made now takes the place of: of its kind and name, deleted not long ago."""
        key = key_of(body)
        if self._uids.get(key, _uid(body)) != _uid(body):
            return self._bodies[self._uids[key]]  # its end is on its way to us
        since, gone = self._gone.get(key, (0.0, None))
        return gone if now - since < OWN_AFTER_SECONDS else None

    # ---- who is judged in whose stead

    def is_made_for_another(
        self, body: Mapping[str, Any], is_judged: Callable[[Json], bool], owners_of_pod: Callable[[str], Iterable[Owner]]
    ) -> bool:
        """Whether the owner that its controller names is judged in its stead.

        The owner stands in the same namespace, under the uid, kind and name that are said, makes such objects, and is
        judged itself, or made for one that is. An owner that only an operator's own objects lead to (``BETWEEN``) counts
        where a judged object of that operator stands in the namespace. ``owners_of_pod``: whose a pod is, by uid.
        """
        owner = controller_of(body)
        if owner is None:
            return False
        namespace, kind = str(mapping(body.get("metadata")).get("namespace") or ""), str(owner.get("kind"))
        group = str(owner.get("apiVersion") or "").rpartition("/")[0]
        made = str(body.get("kind"))
        behind = BETWEEN.get((group, kind))
        if behind is not None:
            return any(is_judged(self._bodies[uid]) for uid in self.uids(*behind) if key_of(self._bodies[uid])[2] == namespace)
        if (group, kind) == ("", "Pod"):  # the leader of a group owns its workers
            leads = [each for each in owners_of_pod(str(owner.get("uid"))) if each.namespace == namespace]
            sets = (self.named("leaderworkerset.x-k8s.io", each.kind, namespace, each.name) for each in leads)
            return made == "StatefulSet" and any(each is not None and is_judged(each) for each in sets)
        stands = self._bodies.get(str(owner.get("uid")))
        if stands is None or key_of(stands) != (group, kind, namespace, str(owner.get("name"))):
            return False
        if made not in MADE_BY.get(kind, ()):
            return False
        return is_judged(stands) or self.is_made_for_another(stands, is_judged, owners_of_pod)

    def name(self, uid: str, key: Key | None) -> None:
        """The InferenceDeployment of this uid names that workload, or none."""
        before = self._named.pop(uid, None)
        if key is not None:
            self._named[uid] = key
        if before != key:
            self._taken_over.discard(uid)
            self.referrals += 1

    def take_over(self, uid: str, *, is_so: bool) -> None:
        """Whether the InferenceDeployment of this uid is judged in the stead of the workload that it names."""
        if (uid in self._taken_over) != is_so:
            (self._taken_over.add if is_so else self._taken_over.discard)(uid)
            self.referrals += 1

    def is_named(self, body: Mapping[str, Any]) -> bool:
        """Whether an InferenceDeployment names it."""
        return key_of(body) in self._named.values()

    def is_taken_over(self, body: Mapping[str, Any]) -> bool:
        """Whether an InferenceDeployment is judged in its stead."""
        return bool(self._taken_over) and key_of(body) in {self._named[uid] for uid in self._taken_over}


def is_controller(requester: str, namespace: str) -> bool:
    """Whether a user's name is one that operators' controllers have: a ServiceAccount of another namespace.

    A person's object, or that of a ServiceAccount beside it, names any owner it likes.
    """
    parts = requester.split(":")
    return requester == "system:kube-controller-manager" or (
        parts[:2] == ["system", "serviceaccount"] and parts[2:3] != [namespace]
    )


def is_finished(body: Mapping[str, Any]) -> bool:
    """Whether a Job has ended: it starts no pod any more."""
    conditions = dicts(mapping(body.get("status")).get("conditions")) if body.get("kind") == "Job" else []
    return any(each.get("type") in _FINISHED and each.get("status") == "True" for each in conditions)


def key_of(body: Mapping[str, Any]) -> Key:
    """API group, kind, namespace and name of an object."""
    group = str(body.get("apiVersion") or "").rpartition("/")[0]
    namespace, kind, name = _place(body)
    return (group, kind, namespace, name)


def _place(body: Mapping[str, Any]) -> tuple[str, str, str]:
    """(namespace, kind, name)."""
    metadata = mapping(body.get("metadata"))
    return str(metadata.get("namespace") or ""), str(body.get("kind")), str(metadata.get("name"))


def _uid(body: Mapping[str, Any]) -> str:
    return str(mapping(body.get("metadata")).get("uid"))


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
    """Labels may name a queue, annotations a class of devices, owner references an owner."""
    then, metadata = mapping(before.get("metadata")), mapping(now.get("metadata"))
    parts = ("labels", "annotations", "ownerReferences", "deletionTimestamp")
    same = all(then.get(part) == metadata.get(part) for part in parts) and is_finished(before) == is_finished(now)
    return same and declares(before) == declares(now)
