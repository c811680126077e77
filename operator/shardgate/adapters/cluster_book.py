"""The cluster as its objects come in, one at a time: nodes, pods, namespaces, policies -> an inventory at any moment.

Every change costs what changed: a pod touches its node's sums, a snapshot rebuilds the nodes that were touched. No
clock of its own: the caller says what time it is, in seconds of any steady clock.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from shardgate.adapters.claimed import ClaimedPods
from shardgate.adapters.gpus import known_gpus
from shardgate.adapters.karpenter import NodeClaimObject, NodePoolObject, node_of_claim, nodes_of_pool, pool_and_type, why_no_more
from shardgate.adapters.namespace_rules import NamespaceRules
from shardgate.adapters.node_memory import NodeMemory
from shardgate.adapters.node_reports import NodeReports
from shardgate.adapters.nodes import (
    ClaimObject,
    Device,
    DeviceClass,
    DeviceClassObject,
    HeartbeatObject,
    NodeFacts,
    NodeObject,
    ReportObject,
    Shapes,
    SliceObject,
    devices_of,
    read_node,
    read_node_without_gpus,
    with_device_classes,
    with_health,
)
from shardgate.adapters.pods import PodRecord
from shardgate.adapters.quantities import QuantityError
from shardgate.adapters.workloads.library import Library
from shardgate.domain.calibration import Accuracy, distrusted
from shardgate.domain.inventory import (
    DEVICE_CLASS_DOMAIN,
    GroupKey,
    HeldPod,
    Inventory,
    Node,
    NodeGroup,
    NodeState,
    Owner,
    PendingPods,
    group_key,
    grouped,
    is_device,
)

BUILT_IN_PRIORITIES = {"": 0, "system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
"""PriorityClasses that every cluster has, and that of pods without one where no other is the default."""
MOST_THAT_RAN = 100_000
"""Owners of pods that are remembered to have run; those longest ago are forgotten first."""
T = TypeVar("T")


@dataclass(slots=True)
class ClusterBook:
    """All that is known of the cluster now. Not thread-safe: one event loop writes and reads it."""

    shapes: Shapes = field(default_factory=Shapes)
    references: Library = field(default_factory=Library)
    """Objects that workloads of other kinds refer to."""
    reports: NodeReports = field(default_factory=NodeReports)
    """What nodes' agents report."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Object -> why it could not be read; it is left out, and said so."""
    version: int = 0
    """Counts changes that a verdict could depend on."""
    frozen_anew: int = 0
    """Counts nodes that were frozen again: inventories that were handed out keep those that stood in their place."""
    _distrusted: tuple[Accuracy, ...] = ()
    """Engine versions on products that were predicted badly here."""
    _may_come: dict[tuple[str, str], tuple[Node, ...]] = field(default_factory=dict)
    """(kind, name) of an autoscaler's object -> nodes that it may bring."""
    _provisionable: tuple[NodeGroup, ...] = ()
    _exhausted: dict[str, str] = field(default_factory=dict)
    """Autoscaler's pool of GPU nodes -> why it brings no more."""
    _slices: dict[str, SliceObject] = field(default_factory=dict)
    _slices_of: dict[str, dict[str, None]] = field(default_factory=dict)
    """Node -> names of its ResourceSlices."""
    _devices: dict[str, tuple[Device, ...]] = field(default_factory=dict)
    _node_of_pool: dict[tuple[str, str], str] = field(default_factory=dict)
    """(driver, pool) -> the node whose devices it lists."""
    _device_classes: dict[str, DeviceClass] = field(default_factory=dict)
    _claimed: dict[str, tuple[tuple[str, str, str], ...]] = field(default_factory=dict)
    """ResourceClaim, by uid -> (driver, pool, device) that it holds."""
    _taken: set[tuple[str, str, str]] = field(default_factory=set)
    """All of them."""
    _objects: dict[str, NodeObject] = field(default_factory=dict)
    """Nodes as they were last seen: read again when their slices or the DeviceClasses change."""
    _stated: dict[str, Node | None] = field(default_factory=dict)
    _memory: NodeMemory = field(init=False)
    _pods: dict[str, PodRecord] = field(default_factory=dict)
    _used: dict[str, dict[str, int]] = field(default_factory=dict)
    _bound: dict[str, dict[str, PodRecord]] = field(default_factory=dict)
    """Node -> uid -> pods that are bound there."""
    _repelling: dict[str, Node] = field(default_factory=dict)
    """Nodes with pods that will not have others beside them."""
    follows_all_pods: bool = False
    """Pods on nodes without GPUs bear on verdicts too: some declaration has rules between pods."""
    _without_gpus: dict[str, Node] = field(default_factory=dict)
    """Nodes that offer no GPUs, as stated, with the pods there as they last were frozen."""
    _without_gpus_dirty: set[str] = field(default_factory=set)
    _without_gpus_frozen: tuple[Node, ...] = ()
    _used_by_priority: dict[str, dict[int, dict[str, int]]] = field(default_factory=dict)
    _waiting: dict[str, str] = field(default_factory=dict)
    """uid of a pod that waits for a node -> what it has in common with others."""
    _alike: dict[str, PendingPods] = field(default_factory=dict)
    """That -> such pods, counted."""
    _pending: tuple[PendingPods, ...] | None = None
    priorities: dict[str, int] = field(default_factory=dict)
    """PriorityClass -> its value."""
    _not_preempting: frozenset[str] = frozenset()
    _default_priority: str = ""
    """The PriorityClass of pods without one, where a class is the default."""
    _held: dict[Owner, dict[str, PodRecord]] = field(default_factory=dict)
    _held_pods: dict[Owner, tuple[HeldPod, ...]] = field(default_factory=dict)
    _held_dirty: set[Owner] = field(default_factory=set)
    _pools: dict[str, NodePoolObject] = field(default_factory=dict)
    _of_pools: dict[str, dict[str, int]] = field(default_factory=dict)
    """NodePool -> instance type -> its nodes with GPUs that are here or on their way."""
    _pools_dirty: set[str] = field(default_factory=set)
    _runs: dict[str, str] = field(default_factory=dict)
    """uid of a pod with GPUs -> what its containers run. Not in its record: variables are not for what is kept of verdicts."""
    _ran: dict[Owner, None] = field(default_factory=dict)
    """What has had a ready pod, the latest last."""
    _key_of: dict[str, GroupKey] = field(default_factory=dict)
    _members: dict[GroupKey, dict[str, Node]] = field(default_factory=dict)
    _groups: dict[GroupKey, NodeGroup] = field(default_factory=dict)
    _dirty: dict[str, None] = field(default_factory=dict)
    """Names to build again, in the order in which they changed."""
    _frozen: tuple[NodeGroup, ...] = ()
    rules: NamespaceRules = field(init=False)
    """What people say holds in namespaces."""
    claims: ClaimedPods = field(init=False)
    """GPUs that are promised and not held yet."""

    def __post_init__(self) -> None:
        self.rules = NamespaceRules(self._changed, self.unreadable)
        self.claims = ClaimedPods(self)
        self._memory = NodeMemory(self.shapes)

    def _changed(self) -> None:
        self.version += 1

    # ---- nodes

    def put_node(self, node: NodeObject, now: float) -> None:
        """A node was added or changed."""
        name = node.metadata.name
        self._objects[name] = node
        try:
            stated = self._read_node(node)
            self.unreadable.pop(f"Node {name}", None)
        except QuantityError as error:
            self.unreadable[f"Node {name}"] = str(error)
            self.version += 1
            if self._memory.knows(name):
                return  # it counts as it was when it could last be read
            stated = None
        self._put_without_gpus(name, read_node_without_gpus(node, self.shapes) if stated is None else None)
        if name in self._stated and self._stated[name] == stated and not self._memory.is_gone(name):
            return  # heartbeats and images change nothing here
        self._note_standing((self._stated.get(name),), (stated,))
        self._stated[name] = stated
        self._memory.saw(name, stated, now)
        self._touch(name)

    def _read_node(self, node: NodeObject) -> Node | None:
        name = node.metadata.name
        devices = self._devices.get(name, ())
        stated = read_node(
            node,
            self.shapes,
            devices,
            self.reports.facts(name),
            self.reports.problem(name),
            has_no_cuda=self.reports.has_no_cuda(name),
        )
        return with_device_classes(stated, self._device_classes.values(), devices, self.shapes) if stated and devices else stated

    def _put_without_gpus(self, name: str, node: Node | None) -> None:
        """A node that offers no GPUs: rules between pods look at it; ``None`` where it is gone, or offers some."""
        before = self._without_gpus.get(name)
        if node is None:
            if self._without_gpus.pop(name, None) is None:
                return
        elif before is None or (before.shape, before.labels, before.hostname) != (node.shape, node.labels, node.hostname):
            self._without_gpus[name] = node
        else:
            return
        self._without_gpus_dirty.add(name)
        self.version += self.follows_all_pods

    # ---- agents' reports

    def put_report(self, item: ReportObject, now: float) -> None:
        """A GpuNodeReport was added or changed."""
        if self.reports.put(item):
            self._read_again(item.metadata.name, now)

    def drop_report(self, name: str, now: float) -> None:
        """A GpuNodeReport was deleted."""
        if self.reports.drop(name):
            self._read_again(name, now)

    def retain_reports(self, names: set[str], now: float) -> None:
        """A complete list was read: what is not in it is gone."""
        for name in [name for name in self.reports.names if name not in names]:
            self.drop_report(name, now)

    def put_heartbeat(self, item: HeartbeatObject, now: float, wall: float) -> bool:
        """An agent's Lease was added or changed: whether its node counts otherwise by that. ``wall``: Unix time."""
        is_other = self.reports.hear(item, now, wall)
        if is_other:
            self._read_again(item.metadata.name, now)
        return is_other

    def drop_heartbeat(self, name: str, now: float) -> None:
        """An agent's Lease was deleted."""
        if self.reports.unhear(name):
            self._read_again(name, now)

    def retain_heartbeats(self, names: set[str], now: float) -> None:
        """A complete list was read: what is not in it is gone."""
        for name in self.reports.heartbeats_listed(names, now):
            self.drop_heartbeat(name, now)

    def _read_again(self, node: str, now: float) -> None:
        if node in self._objects:
            self.put_node(self._objects[node], now)
            self._touch(node)

    def facts(self, node: str) -> NodeFacts | None:
        """What the node's driver says, where that counts."""
        return self.reports.facts(node)

    # ---- ResourceSlices

    def put_slice(self, item: SliceObject, now: float) -> None:
        """A ResourceSlice was added or changed. Slices of no single node are none of ours."""
        self.drop_slice(item.metadata.name, now, is_followed=True)
        if item.spec.nodeName:
            self._slices[item.metadata.name] = item
            self._slices_of.setdefault(item.spec.nodeName, {})[item.metadata.name] = None
            self._read_devices(item.spec.nodeName, now)

    def drop_slice(self, name: str, now: float, *, is_followed: bool = False) -> None:
        """A ResourceSlice was deleted."""
        before = self._slices.pop(name, None)
        if before is not None:
            node = before.spec.nodeName
            self._slices_of[node].pop(name)
            if not is_followed:
                self._read_devices(node, now)

    def retain_slices(self, names: set[str], now: float) -> None:
        """A complete list was read: what is not in it is gone."""
        for name in [name for name in self._slices if name not in names]:
            self.drop_slice(name, now)

    def put_pool(self, item: NodePoolObject) -> None:
        """A NodePool was added or changed."""
        name = item.metadata.name
        self._pools[name] = item
        standing = self._of_pools.get(name, {})
        self._may_bring("NodePool", name, lambda: nodes_of_pool(item, standing))
        origin, why = f"NodePool {name}", why_no_more(item, standing)
        if self._exhausted.get(origin, "") != why:
            self._exhausted.pop(origin, None)
            self._exhausted |= {origin: why} if why else {}
            self.version += 1

    def put_node_claim(self, item: NodeClaimObject) -> None:
        """A NodeClaim was added or changed."""

        def nodes() -> tuple[Node, ...]:
            node = node_of_claim(item)
            return () if node is None else (node,)

        self._may_bring("NodeClaim", item.metadata.name, nodes)

    def _may_bring(self, kind: str, name: str, read: Callable[[], tuple[Node, ...]]) -> None:
        try:
            nodes = read()
            self.unreadable.pop(f"{kind} {name}", None)
        except QuantityError as error:
            self.unreadable[f"{kind} {name}"] = str(error)
            nodes = ()
        before = self._may_come.get((kind, name), ())
        if before != nodes:
            if kind == "NodeClaim":
                self._note_standing(before, nodes)
            self._may_come[kind, name] = nodes
            self._refreeze_provisionable()

    def drop_autoscaled(self, kind: str, name: str) -> None:
        """A NodePool or NodeClaim was deleted."""
        self.version += self._exhausted.pop(f"{kind} {name}", None) is not None
        self._pools.pop(name if kind == "NodePool" else "", None)
        before = self._may_come.pop((kind, name), ())
        if before:
            if kind == "NodeClaim":
                self._note_standing(before, ())
            self._refreeze_provisionable()

    def retain_autoscaled(self, kind: str, names: set[str]) -> None:
        """A complete list was read: what is not in it is gone."""
        exhausted = [("NodePool", origin.removeprefix("NodePool ")) for origin in self._exhausted]
        for each in [each for each in (*self._may_come, *exhausted) if each[0] == kind and each[1] not in names]:
            self.drop_autoscaled(*each)

    def _note_standing(self, before: Iterable[Node | None], after: Iterable[Node | None]) -> None:
        """What a pool may bring besides those that it brought is read again, as its limits bound both."""
        for nodes, change in ((before, -1), (after, +1)):
            for node in nodes:
                pool, instance_type = pool_and_type(node) if node is not None else ("", "")
                if pool:
                    counts = self._of_pools.setdefault(pool, {})
                    counts[instance_type] = counts.get(instance_type, 0) + change
                    self._pools_dirty.add(pool)

    def _reread_pools(self) -> None:
        for name in self._pools_dirty:
            self._of_pools[name] = {kind: number for kind, number in self._of_pools.get(name, {}).items() if number}
            if not self._of_pools[name]:
                del self._of_pools[name]
            if name in self._pools:
                self.put_pool(self._pools[name])
        self._pools_dirty.clear()

    def _refreeze_provisionable(self) -> None:
        self._provisionable = grouped(node for nodes in self._may_come.values() for node in nodes)
        self.version += 1

    def put_device_class(self, item: DeviceClassObject, now: float) -> None:
        """A DeviceClass was added or changed."""
        found = item.read()
        if self._device_classes.get(found.name) != found:
            self._device_classes[found.name] = found
            self._classes_changed(now)

    def drop_device_class(self, name: str, now: float) -> None:
        """A DeviceClass was deleted."""
        if self._device_classes.pop(name, None) is not None:
            self._classes_changed(now)

    def _classes_changed(self, now: float) -> None:
        for node in [node for node in self._devices if node in self._objects]:
            self._memory.drop(node)  # what is offered by other names now is not lost
            self.put_node(self._objects[node], now)
            self._touch(node)

    def put_claim(self, item: ClaimObject) -> None:
        """A ResourceClaim was added or changed."""
        held = tuple((each.driver, each.pool, each.device) for each in item.devices)
        if held == self._claimed.get(item.metadata.uid, ()):
            return
        self.drop_claim(item.metadata.uid)
        self._claimed[item.metadata.uid] = held
        self._taken.update(held)
        self._touch_pools(held)

    def drop_claim(self, uid: str) -> None:
        """A ResourceClaim was deleted."""
        held = self._claimed.pop(uid, ())
        self._taken.difference_update(held)
        self._touch_pools(held)

    def retain_claims(self, uids: set[str]) -> None:
        """A complete list was read: what is not in it is gone."""
        for uid in [uid for uid in self._claimed if uid not in uids]:
            self.drop_claim(uid)

    @property
    def device_classes(self) -> tuple[str, ...]:
        """Names of all that are known."""
        return tuple(self._device_classes)

    def _touch_pools(self, held: tuple[tuple[str, str, str], ...]) -> None:
        for node in {self._node_of_pool.get((driver, pool), "") for driver, pool, _ in held} - {""}:
            self._touch(node)

    def _with_claims(self, node: Node) -> Node:
        """The node with what ResourceClaims hold of its devices counted as used."""
        devices = self._devices.get(node.name, ())
        if not devices or node.state is NodeState.GONE:
            return node
        used = dict(node.used)
        for each in self._device_classes.values():
            held = sum((device.driver, device.pool, device.name) in self._taken for device in devices if each.takes(device))
            for name in (f"{DEVICE_CLASS_DOMAIN}/{each.name}", each.extended_resource):
                if name and name in node.allocatable:
                    used[name] = max(held, used.get(name, 0))
        return replace(node, used={name: amount for name, amount in used.items() if amount})

    def _read_devices(self, node: str, now: float) -> None:
        """What the node's slices say now; a node that was seen is read again."""
        try:
            devices = devices_of(self._slices[name] for name in self._slices_of[node])
            self.unreadable.pop(f"ResourceSlices of {node}", None)
        except QuantityError as error:
            self.unreadable[f"ResourceSlices of {node}"] = str(error)
            devices = ()
        if devices == self._devices.get(node, ()):
            return
        for each in self._devices.pop(node, ()):
            self._node_of_pool.pop((each.driver, each.pool), None)
        if devices:
            self._devices[node] = devices
            self._node_of_pool |= {(each.driver, each.pool): node for each in devices}
        self._touch(node)
        if node in self._objects:
            self.put_node(self._objects[node], now)

    def devices(self, node: str) -> tuple[Device, ...]:
        """GPUs that ResourceSlices list on a node."""
        return self._devices.get(node, ())

    def drop_own_pods(self, owners: Iterable[Owner]) -> None:
        """A declaration's own pods make room: what is planned for it takes their place."""
        for uid in [uid for owner in owners for uid in self._held.get(owner, ())]:
            self.drop_pod(uid)

    def put_plain_node(self, node: Node) -> None:
        """A node that no object stands for (``--gpus``)."""
        self._stated[node.name] = node
        self._touch(node.name)

    def drop_node(self, name: str, now: float) -> None:
        """A node was deleted."""
        if name not in self._stated:
            return
        self._note_standing((self._stated.pop(name),), ())
        self._put_without_gpus(name, None)
        self._objects.pop(name, None)
        self.unreadable.pop(f"Node {name}", None)
        self._memory.went(name, now)
        self._touch(name)

    def retain_nodes(self, names: set[str], now: float) -> None:
        """A complete list was read: what is not in it is gone."""
        for name in [name for name in self._stated if name not in names]:
            self.drop_node(name, now)

    # ---- pods

    def put_pod(self, pod: PodRecord, runs: str = "") -> None:
        """A pod was added or changed, and still holds or will hold its requests. ``runs``: what its containers do."""
        if runs:
            self._runs[pod.uid] = runs
        before = self._pods.get(pod.uid)
        if before == pod:
            return
        self._queue(pod.uid, pod.waiting)
        if before is not None and _placing(before) == _placing(pod):
            self._pods[pod.uid] = pod
        else:
            if before is not None:
                self._count(before, -1)
            self._pods[pod.uid] = pod
            self._count(pod, +1)
        self._hold(before, pod)
        if before is None:
            self.claims.came(pod.uid)

    def drop_pod(self, uid: str) -> None:
        """A pod was deleted, or has ended."""
        before = self._pods.pop(uid, None)
        self._runs.pop(uid, None)
        if before is not None:
            self._queue(uid, None)
            self._count(before, -1)
            self._hold(before, None)

    def own_pods(self, owner: Owner) -> tuple[PodRecord, ...]:
        """Pods with GPUs that the owner declares, promised ones among them."""
        return tuple(self._held.get(owner, {}).values())

    def runs(self, uid: str) -> str:
        """What a pod's containers with GPUs run (``adopted_pods.runs_of``); empty where it does not tell."""
        return self._runs.get(uid, "")

    @property
    def pods(self) -> Mapping[str, PodRecord]:
        """By uid."""
        return self._pods

    def retain_pods(self, uids: set[str]) -> None:
        """A complete list was read: what is not in it is gone."""
        for uid in [uid for uid, pod in self._pods.items() if uid not in uids and not pod.is_promised]:
            self.drop_pod(uid)

    def _queue(self, uid: str, waiting: PendingPods | None) -> None:
        """A pod waits for a node, or does no longer."""
        before = self._waiting.pop(uid, None)
        if before is None and waiting is None:
            return
        if before is not None:
            self._count_alike(before, self._alike[before], -1)
        if waiting is not None:
            key = self._waiting[uid] = repr(waiting)
            self._count_alike(key, self._alike.get(key, replace(waiting, count=0)), +1)
        self._pending = None
        self.version += 1

    def _count_alike(self, key: str, alike: PendingPods, change: int) -> None:
        if alike.count + change:
            self._alike[key] = replace(alike, count=alike.count + change)
        else:
            del self._alike[key]

    def _frozen_pending(self) -> tuple[PendingPods, ...]:
        """Those that wait for a node, like ones together."""
        if self._pending is None:
            self._pending = tuple(self._alike.values())
        return self._pending

    def put_priority_class(self, name: str, value: int, *, is_default: bool, preempts: bool = True) -> None:
        """A PriorityClass was added or changed."""
        self.priorities[name] = value
        self._not_preempting = self._not_preempting - {name} if preempts else self._not_preempting | {name}
        if is_default or self._default_priority == name:
            self._default_priority = name if is_default else ""
        self.version += 1

    def drop_priority_class(self, name: str) -> None:
        """A PriorityClass was deleted."""
        if self.priorities.pop(name, None) is not None:
            self._not_preempting -= {name}
            self._default_priority = "" if self._default_priority == name else self._default_priority
            self.version += 1

    def _count(self, pod: PodRecord, sign: int) -> None:
        name = pod.node
        if not name:
            return
        bound = self._bound.setdefault(name, {})
        if sign > 0:
            bound[pod.uid] = pod
        else:
            bound.pop(pod.uid, None)
        used = self._used.setdefault(name, {})
        # What is promised is not there: there is nothing to evict.
        at_priority = {} if pod.is_promised else self._used_by_priority.setdefault(name, {}).setdefault(pod.priority, {})
        for resource, amount in pod.requests:
            used[resource] = used.get(resource, 0) + sign * amount
            at_priority[resource] = at_priority.get(resource, 0) + sign * amount
        if not bound:
            for kept in (self._bound, self._used, self._used_by_priority):
                kept.pop(name, None)
        if self._stated.get(name) is not None or self._memory.knows(name):
            self._touch(name)
        if name in self._without_gpus:
            self._without_gpus_dirty.add(name)
            self.version += self.follows_all_pods or bool(pod.repels)

    def _hold(self, before: PodRecord | None, after: PodRecord | None) -> None:
        """Pods with GPUs are known by what declares them."""
        for record, is_after in ((before, False), (after, True)):
            if record is None or not any(is_device(name) for name, _ in record.requests):
                continue
            for owner in record.owners:
                held = self._held.setdefault(owner, {})
                if is_after:
                    held[record.uid] = record
                else:
                    held.pop(record.uid, None)
                self._held_dirty.add(owner)
                self.version += 1

    def _note_ran(self, owner: Owner) -> None:
        self._ran.pop(owner, None)
        self._ran[owner] = None
        if len(self._ran) > MOST_THAT_RAN:
            del self._ran[next(iter(self._ran))]

    def has_run(self, owners: Iterable[Owner]) -> bool:
        """Whether a pod with GPUs that any of them declares was ready, since this process began."""
        return any(owner in self._ran for owner in owners)

    def _freeze_held(self) -> Mapping[Owner, tuple[HeldPod, ...]]:
        if not self._held_dirty:
            return self._held_pods
        self._held_pods = dict(self._held_pods)  # inventories that were handed out keep theirs
        for owner in self._held_dirty:
            records = self._held[owner]
            if records:
                self._held_pods[owner] = tuple(record.held() for record in records.values())
                if any(record.ready for record in records.values()):
                    self._note_ran(owner)
            else:
                del self._held[owner]
                self._held_pods.pop(owner, None)
        self._held_dirty.clear()
        return self._held_pods

    def put_accuracy(self, found: Iterable[Accuracy]) -> None:
        """How well memory was predicted here, of every engine version and product."""
        before, self._distrusted = self._distrusted, distrusted(found)
        self.version += [each.key for each in before] != [each.key for each in self._distrusted]

    # ---- the inventory

    def settle(self, now: float) -> None:
        """Bring it to this moment: what time alone changes is in ``version`` from here on."""
        self.claims.settle(tuple(self._held_dirty))
        if self._pools_dirty:
            self._reread_pools()
        for name in self.reports.fall_silent(now):
            self._read_again(name, now)
        if now >= self._memory.expires:
            self._forget(now)

    def inventory(self, now: float, age_seconds: float = 0.0, broken_seconds: float = 0.0) -> Inventory:
        """Everything, frozen at this moment."""
        self.settle(now)
        if self._dirty:
            self._rebuild(now)
            self._forget(now)  # what came and went since the last time
            if self._dirty:
                self._rebuild(now)
        if self._without_gpus_dirty:
            self._refreeze_without_gpus()
        return Inventory(
            groups=self._frozen,
            nodes_seen=len(self._stated),
            held=self._freeze_held(),
            repelling=tuple(self._repelling.values()),
            without_gpus=self._without_gpus_frozen,
            provisionable=self._provisionable,
            remembered=self._memory.left.may_return(now),
            exhausted=tuple(self._exhausted.items()),
            pending=self._frozen_pending(),
            priorities={**BUILT_IN_PRIORITIES, **self.priorities, "": self.priorities.get(self._default_priority, 0)},
            not_preempting=self._not_preempting | ({""} if self._default_priority in self._not_preempting else frozenset()),
            namespaces=self.rules.labels(),
            unreadable_nodes=self._unreadable_nodes(),
            quotas=self.rules.quotas.frozen(),
            limit_ranges=self.rules.limit_ranges.frozen(),
            known_gpus=known_gpus(),
            distrusted=self._distrusted,
            age_seconds=age_seconds,
            broken_seconds=broken_seconds,
        )

    def counts(self) -> tuple[int, int]:
        """(nodes, pods) known."""
        return len(self._stated), len(self._pods)

    def _touch(self, name: str) -> None:
        self._dirty[name] = None
        self.version += 1

    def _forget(self, now: float) -> None:
        """What was remembered for long enough counts no longer."""
        for name in self._memory.forget(self._stated, now):
            self._touch(name)
            if name in self._without_gpus:
                self._without_gpus_dirty.add(name)

    def _rebuild(self, now: float) -> None:
        """Sort the touched nodes into groups again, and freeze the groups that they left or joined."""
        left: dict[GroupKey, list[Node]] = defaultdict(list)
        joined: dict[GroupKey, list[Node]] = defaultdict(list)
        self.frozen_anew += len(self._dirty)
        for name in self._dirty:
            self._memory.note_deadlines(name)
            before = self._key_of.pop(name, None)
            if before is not None:
                left[before].append(self._members[before].pop(name))
            node = self._memory.present(name, self._stated.get(name), now)
            if node is not None:
                node = replace(
                    node,
                    used={key: amount for key, amount in self._used.get(name, {}).items() if amount},
                    **self._running_on(name),
                    daemons=self._daemons(name),
                    coming_free=self._coming_free(name),
                    used_by_priority={
                        priority: dict(amounts)
                        for priority, amounts in self._used_by_priority.get(name, {}).items()
                        if any(amounts.values())
                    },
                )
                node = self._with_claims(node)
                if (facts := self.reports.facts(name)) is not None:
                    node = with_health(node, facts, self.shapes)
                key = self._key_of[name] = group_key(node)
                self._members.setdefault(key, {})[name] = node
                joined[key].append(node)
            self._note_repelling(name, node)
        for key in (*left, *(key for key in joined if key not in left)):
            if self._members[key]:
                frozen = NodeGroup(tuple(self._members[key].values()))
                if (previous := self._groups.get(key)) is not None:
                    frozen.take_over(previous, left[key], joined[key])
                self._groups[key] = frozen
            else:
                del self._members[key]
                self._groups.pop(key, None)
        self._dirty.clear()
        self._frozen = tuple(self._groups.values())
        self._memory.note_next(now)

    def _running_on(self, name: str) -> dict[str, Any]:
        """Of a Node: what rules between pods look at."""
        bound = tuple(self._bound.get(name, {}).values())
        return {
            "pods": bound,
            "repelling": tuple(pod for pod in bound if pod.repels),
            "with_ports": tuple(pod for pod in bound if pod.host_ports),
        }

    def _daemons(self, name: str) -> dict[str, int]:
        """What one pod of each DaemonSet asks for: a second one is there while the first is replaced."""
        of_each: dict[tuple[str, str], dict[str, int]] = {}
        for pod in self._bound.get(name, {}).values():
            if pod.daemon:
                asks = of_each.setdefault((pod.namespace, pod.daemon), {})
                for resource, amount in pod.requests:
                    asks[resource] = max(amount, asks.get(resource, 0))
        total: dict[str, int] = {}
        for asks in of_each.values():
            for resource, amount in asks.items():
                total[resource] = total.get(resource, 0) + amount
        return {resource: amount for resource, amount in total.items() if amount}

    def _coming_free(self, name: str) -> dict[str, int]:
        """Devices that pods hold which are terminating."""
        total: dict[str, int] = {}
        for pod in self._bound.get(name, {}).values():
            for resource, amount in pod.requests if pod.is_terminating else ():
                if is_device(resource):
                    total[resource] = total.get(resource, 0) + amount
        return total

    def _unreadable_nodes(self) -> tuple[str, ...]:
        """Nodes of which nothing is known, each with why."""
        nodes = (name.removeprefix("Node ") for name in self.unreadable if name.startswith("Node "))
        return tuple(f"{name}: {self.unreadable[f'Node {name}']}" for name in nodes if not self._memory.knows(name))

    def _note_repelling(self, name: str, node: Node | None) -> None:
        if node is not None and node.repelling:
            self._repelling[name] = node
        else:
            self._repelling.pop(name, None)

    def _refreeze_without_gpus(self) -> None:
        for name in self._without_gpus_dirty:
            if name in self._without_gpus:
                self._without_gpus[name] = replace(self._without_gpus[name], **self._running_on(name))
            if self._stated.get(name) is None:
                self._note_repelling(name, self._without_gpus.get(name))
        self.frozen_anew += len(self._without_gpus_dirty)
        self._without_gpus_dirty.clear()
        self._without_gpus_frozen = tuple(self._without_gpus.values())


def _placing(pod: PodRecord) -> tuple[object, ...]:
    """What of a pod bears on others' places."""
    return pod.node, pod.requests, pod.priority, pod.daemon, pod.labels, pod.owners, pod.repels, pod.host_ports, pod.is_terminating
