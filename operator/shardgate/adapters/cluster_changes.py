"""What a cluster's objects are after a change that somebody only thinks of: nodes drained, cordoned, removed, added, labelled.

Pure: plain objects in, plain objects out, none of them changed in place. What follows from a change (who waits, what fits)
is judged from the objects, as if the API server had sent them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from shardgate.adapters.cluster_additions import Addition, added
from shardgate.adapters.quantities import whole
from shardgate.adapters.workloads.kinds import controller_of
from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.domain.inventory import UNSCHEDULABLE_TAINT, Taint, Toleration

Json = dict[str, Any]
_MIRROR = "kubernetes.io/config.mirror"
_ENDED = ("Succeeded", "Failed")


class NoSuchNode(Exception):
    """No node has this name, or matches this pattern."""


class Verb(StrEnum):
    """What may happen to nodes that are here."""

    DRAIN = "drain"
    """Cordoned; pods of other controllers than DaemonSets are made anew, and wait for a node."""
    CORDON = "cordon"
    UNCORDON = "uncordon"
    REMOVE = "remove"
    """Gone for good, with all that is on it; pods of other controllers than DaemonSets are made anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnNodes:
    """``drain gpu-1 gpu-2``. Names may be shell patterns."""

    verb: Verb
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelling:
    """``label gpu-1 pool=b old-``: a value of ``None`` takes the label away."""

    nodes: tuple[str, ...]
    labels: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tainting:
    """``taint gpu-1 team=a:NoSchedule old-``. Pods that do not tolerate a new taint of effect NoExecute lose their node."""

    nodes: tuple[str, ...]
    taints: tuple[tuple[str, str, str], ...] = ()
    """(key, value, effect)."""
    removed: tuple[tuple[str, str], ...] = ()
    """(key, effect; empty: of any)."""


Change = OnNodes | Labelling | Tainting | Addition


@dataclass(frozen=True, slots=True)
class ChangedCluster:
    """The objects after it, and the pods that lost their node."""

    objects: tuple[Json, ...]
    moved: tuple[Json, ...] = ()
    """Made anew by their controllers: they wait for a node."""
    ended: tuple[Json, ...] = ()
    """Gone for good: they have no controller."""
    added: tuple[str, ...] = field(default=())
    """Names of new nodes."""


def changed(objects: Iterable[Json], changes: Sequence[Change]) -> ChangedCluster:
    """One change after another. Raises ``NoSuchNode`` and ``AdditionError``."""
    cluster = ChangedCluster(tuple(objects))
    for change in changes:
        cluster = _after(cluster, change)
    return cluster


def _after(cluster: ChangedCluster, change: Change) -> ChangedCluster:
    if isinstance(change, Addition):
        new = added(cluster.objects, change)
        come = (_name(each) for each in new if each.get("kind") == "Node")
        return replace(cluster, objects=(*cluster.objects, *new), added=(*cluster.added, *come))
    names = _matching(cluster.objects, change.nodes)
    if isinstance(change, OnNodes) and change.verb is Verb.REMOVE:
        return _removed(_without_pods(cluster, names, lambda _: True), names)
    objects = tuple(
        _changed_node(each, change) if each.get("kind") == "Node" and _name(each) in names else each for each in cluster.objects
    )
    cluster = replace(cluster, objects=objects)
    if isinstance(change, OnNodes) and change.verb is Verb.DRAIN:
        return _without_pods(cluster, names, lambda pod: not _stays(pod))
    if isinstance(change, Tainting) and (evicting := _evicting(change)):
        return _without_pods(cluster, names, lambda pod: not _tolerates(pod, evicting))
    return cluster


def _matching(objects: Iterable[Json], patterns: tuple[str, ...]) -> frozenset[str]:
    names = [_name(each) for each in objects if each.get("kind") == "Node"]
    found: set[str] = set()
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            problem = f"no node {'matches' if any(sign in pattern for sign in '*?[') else 'is named'} {pattern}"
            raise NoSuchNode(problem)
        found.update(matching)
    return frozenset(found)


# ---- a node


def _changed_node(node: Json, change: OnNodes | Labelling | Tainting) -> Json:
    match change:
        case Labelling():
            return _labelled(node, change.labels)
        case Tainting():
            return _tainted(node, change)
        case OnNodes(verb=Verb.UNCORDON):
            return _uncordoned(node)
        case OnNodes():
            return _cordoned(node)


def _cordoned(node: Json) -> Json:
    taints = [each for each in _taints(node) if each.get("key") != UNSCHEDULABLE_TAINT]
    return _with_spec(node, unschedulable=True, taints=[*taints, {"key": UNSCHEDULABLE_TAINT, "effect": "NoSchedule"}])


def _uncordoned(node: Json) -> Json:
    return _with_spec(node, unschedulable=False, taints=[each for each in _taints(node) if each.get("key") != UNSCHEDULABLE_TAINT])


def _tainted(node: Json, change: Tainting) -> Json:
    new = {(key, effect) for key, _, effect in change.taints}
    left = [
        each
        for each in _taints(node)
        if (each.get("key"), each.get("effect")) not in new
        and not any(each.get("key") == key and effect in ("", each.get("effect")) for key, effect in change.removed)
    ]
    return _with_spec(
        node, taints=[*left, *({"key": key, "value": value, "effect": effect} for key, value, effect in change.taints)]
    )


def _labelled(node: Json, changes: Mapping[str, str | None]) -> Json:
    metadata = mapping(node.get("metadata"))
    labels = {**mapping(metadata.get("labels")), **changes}
    kept = {key: value for key, value in labels.items() if value is not None}
    return {**node, "metadata": {**metadata, "labels": kept}}


def _taints(node: Json) -> list[Json]:
    return dicts(mapping(node.get("spec")).get("taints"))


def _with_spec(node: Json, **fields: Any) -> Json:
    return {**node, "spec": {**mapping(node.get("spec")), **fields}}


# ---- its pods


def _without_pods(cluster: ChangedCluster, names: frozenset[str], goes: Callable[[Json], bool]) -> ChangedCluster:
    """Those pods of these nodes go."""
    going = [
        each for each in cluster.objects if each.get("kind") == "Pod" and mapping(each.get("spec")).get("nodeName") in names
        and goes(each)
    ]  # fmt: skip
    moved = [_made_anew(each) for each in going if _is_made_anew(each)]
    ended = [each for each in going if controller_of(each) is None and not _has_ended(each)]
    uids = {id(each) for each in going}
    left = tuple(each for each in cluster.objects if id(each) not in uids)
    return replace(cluster, objects=_without_claims_of(left, going), moved=(*cluster.moved, *moved), ended=(*cluster.ended, *ended))


def _stays(pod: Json) -> bool:
    """While a node is drained."""
    return _is_mirror(pod) or (controller_of(pod) or {}).get("kind") == "DaemonSet"


def _evicting(change: Tainting) -> list[Taint]:
    """Taints for which the taint manager deletes pods that are there already."""
    return [Taint(key=key, value=value, effect=effect) for key, value, effect in change.taints if effect == "NoExecute"]


def _tolerates(pod: Json, taints: Iterable[Taint]) -> bool:
    """For ever: a toleration of so many seconds only puts it off. Mirror pods end with the kubelet's own file alone."""
    return _is_mirror(pod) or all(_tolerates_for_ever(pod, each) for each in taints)


def _tolerates_for_ever(pod: Json, taint: Taint) -> bool:
    """By the first toleration that matches, as the taint manager goes by it."""
    for each in dicts(mapping(pod.get("spec")).get("tolerations")):
        texts = {key: str(each.get(key) or "") for key in ("key", "value", "effect")}
        if Toleration(**texts, operator=str(each.get("operator") or "Equal")).tolerates(taint):
            return each.get("tolerationSeconds") is None
    return False


def _is_mirror(pod: Json) -> bool:
    owner = controller_of(pod) or {}
    return _MIRROR in mapping(mapping(pod.get("metadata")).get("annotations")) or owner.get("kind") == "Node"


def _is_made_anew(pod: Json) -> bool:
    """Its controller makes another; of one that ends already it has."""
    is_going = bool(mapping(pod.get("metadata")).get("deletionTimestamp"))
    return controller_of(pod) is not None and not _stays(pod) and not is_going and not _has_ended(pod)


def _has_ended(pod: Json) -> bool:
    return mapping(pod.get("status")).get("phase") in _ENDED


def _made_anew(pod: Json) -> Json:
    """The pod that its controller makes in its place: the same wishes, no node yet."""
    metadata, spec = mapping(pod.get("metadata")), mapping(pod.get("spec"))
    uid = f"{metadata.get('uid') or '/'.join((str(metadata.get('namespace')), str(metadata.get('name'))))}-anew"
    return {
        **pod,
        "metadata": {**metadata, "uid": uid},
        "spec": {key: value for key, value in spec.items() if key != "nodeName"},
        "status": {"phase": "Pending"},
    }


def _without_claims_of(objects: tuple[Json, ...], pods: Sequence[Json]) -> tuple[Json, ...]:
    """ResourceClaims that were reserved for these pods alone hold no device any more."""
    gone = {(str(mapping(each.get("metadata")).get("namespace")), _name(each)) for each in pods}

    def frees(claim: Json) -> bool:
        namespace = str(mapping(claim.get("metadata")).get("namespace"))
        users = dicts(mapping(claim.get("status")).get("reservedFor"))
        return bool(users) and all((namespace, str(each.get("name"))) in gone for each in users)

    return tuple({**each, "status": {}} if each.get("kind") == "ResourceClaim" and frees(each) else each for each in objects)


# ---- a node that goes


def _removed(cluster: ChangedCluster, names: frozenset[str]) -> ChangedCluster:
    """The nodes with their ResourceSlices, NodeClaims and agents' reports; a NodePool that counted them has that room again."""
    nodes = [each for each in cluster.objects if each.get("kind") == "Node" and _name(each) in names]
    left = (each for each in cluster.objects if not _is_of(each, names))
    return replace(cluster, objects=tuple(_with_room_of(each, nodes) if each.get("kind") == "NodePool" else each for each in left))


def _is_of(body: Json, names: frozenset[str]) -> bool:
    match body.get("kind"):
        case "Node" | "GpuNodeReport":
            return _name(body) in names
        case "ResourceSlice":
            return mapping(body.get("spec")).get("nodeName") in names
        case "NodeClaim":
            return mapping(body.get("status")).get("nodeName") in names
        case _:
            return False


def _with_room_of(pool: Json, nodes: Sequence[Json]) -> Json:
    """What Karpenter counts as used by a pool, without nodes that it had launched."""
    own = [each for each in nodes if mapping(mapping(each["metadata"]).get("labels")).get("karpenter.sh/nodepool") == _name(pool)]
    status = mapping(pool.get("status"))
    used = mapping(status.get("resources"))
    if not own or not used:
        return pool

    def without(name: str, amount: Any) -> str:
        of_each = (1 if name == "nodes" else mapping(mapping(each.get("status")).get("capacity")).get(name, 0) for each in own)
        left = whole(name, amount) - sum(whole(name, each) for each in of_each)
        return f"{max(0, left)}{'m' if name == 'cpu' else ''}"

    return {**pool, "status": {**status, "resources": {name: without(name, amount) for name, amount in used.items()}}}


def _name(body: Json) -> str:
    return str(mapping(body.get("metadata")).get("name"))
