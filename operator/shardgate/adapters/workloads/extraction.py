"""What a workload of any kind declares: serving groups, what in them is stated, defaulted or unknown, what is opaque."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shardgate.adapters.engines.arguments import Arguments
from shardgate.domain.declaration import QueueGrant, Subject
from shardgate.domain.strategy import ParallelStrategy

DEFAULT_WIDTHS: Mapping[str, Mapping[str, Any]] = {
    "vllm": {"tensor": 1, "pipeline": 1, "data": 1, "expertParallel": False},
    "sglang": {"tensor": 1, "pipeline": 1, "data": 1, "expert": 1},
    "tensorrt-llm": {"tensor": 1, "pipeline": 1, "data": 1},
    "lmdeploy": {"tensor": 1, "pipeline": 1, "data": 1},
    "tgi": {"pipeline": 1, "data": 1},
}
"""What an engine does where its command line does not say, by engine."""
SERVER, PREFILL, DECODE, LEADER_WORKER = "server", "prefill", "decode", "leader-worker"


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something that could not be read, and why."""

    where: str
    why: str


@dataclass(slots=True, kw_only=True)
class PodGroup:
    """Pods of one replica that are alike."""

    role: str
    """server, leader, worker, head, .."""
    count: int | None
    """Of one replica; ``None`` where that is not known."""
    gpus: int | None
    """Of one pod; ``None`` where the object does not say."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """``metadata`` and ``spec``."""


@dataclass(slots=True, kw_only=True)
class ServingGroup:
    """Pods that play one role, as far as the object tells."""

    role: str
    where: str
    """The field of the object that declares the group."""
    engine: str | None = None
    engine_version: str = ""
    arguments: Arguments = field(default_factory=Arguments)
    model: str | None = None
    model_also: tuple[str, ...] = ()
    """Other names of the same model in the object."""
    replicas: int | None = 1
    pods: list[PodGroup] = field(default_factory=list)
    gpu_resource: str | None = None
    node_selector: dict[str, str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    hidden: str = ""
    """Why the engine's flags are not all known: nothing is defaulted."""
    is_on_cpu: bool = False
    explicit: set[str] = field(default_factory=set)
    opaque: list[Opaque] = field(default_factory=list)
    replicas_maximum: int | None = None
    """Of an autoscaler."""
    surge: int | None = None
    """Replicas that a roll-out starts before it stops any; ``None`` where it stops one first, or the kind has none."""
    gpus_per_replica_stated: int | None = None
    """Where pods hold several replicas (Ray)."""

    # ---- values: stated, defaulted, or None

    def width(self, name: str) -> Any:  # a number, a flag, or None
        """A field of the strategy."""
        path = f"strategy.{name}"
        if path in self.arguments.fields:
            return self.arguments.fields[path]
        if path in self.arguments.unknown or self.hidden or self.arguments.more or self.engine is None:
            return None
        if name == "expert" and self.engine == "sglang" and self.arguments.settings.get("expert_backend", "none") != "none":
            return self.width("tensor")
        return DEFAULT_WIDTHS.get(self.engine, {}).get(name)

    def stated(self, path: str) -> Any:  # as the field's type
        """A field as it was written; ``None`` where it is not stated, or not known."""
        return self.arguments.fields.get(path)

    def text(self, path: str) -> str | None:
        """The same, before it was read."""
        return None if path in self.arguments.unknown else self.arguments.texts.get(path)

    @property
    def pods_per_replica(self) -> int | None:
        """All of them."""
        counts = [each.count for each in self.pods]
        return None if None in counts or not counts else sum(each or 0 for each in counts)

    @property
    def gpus_per_replica(self) -> int | None:
        """By the pods' resources alone."""
        if self.gpus_per_replica_stated is not None:
            return self.gpus_per_replica_stated
        if self.pods_per_replica is None or any(each.gpus is None for each in self.pods if each.count):
            return None
        return sum((each.count or 0) * (each.gpus or 0) for each in self.pods)

    @property
    def world_size(self) -> int | None:
        """GPUs that one replica's ranks take, by the engine's flags."""
        if self.is_on_cpu:
            return 0
        tensor, pipeline, data = (self.width(name) for name in ("tensor", "pipeline", "data"))
        if self.engine == "tgi" and tensor is None and not self.hidden and "strategy.tensor" not in self.arguments.unknown:
            return self.gpus_per_replica  # it takes what it sees
        if self.engine is None or None in (tensor, pipeline, data):
            return None
        context = self.stated("strategy.prefillContext") or 1
        return ParallelStrategy(
            tensor=tensor,
            pipeline=pipeline,
            data=data,
            prefill_context=context,
            attention_data=bool(self.stated("strategy.attentionData")),
        ).ranks_per_replica

    @property
    def mismatch(self) -> str | None:
        """``world_gt_gpus`` or ``world_lt_gpus`` where both are known and differ."""
        world, gpus = self.world_size, self.gpus_per_replica
        if world is None or gpus is None or world == gpus:
            return None
        return "world_gt_gpus" if world > gpus else "world_lt_gpus"


@dataclass(slots=True, kw_only=True)
class Workload:
    """One object that serves models."""

    subject: Subject
    groups: list[ServingGroup]
    opaque: list[Opaque] = field(default_factory=list)
    is_judged: bool = True
    """Whether a verdict may be given for the kind; else it is extracted only."""
    is_queued: bool = False
    """It is suspended, or a Kueue queue decides when its pods may start: what is free now is no matter yet."""
    grant: QueueGrant | None = None
    """The most that its queue could give, where that is known."""
