"""Whether one kind of GPU will do for the ranks of a declaration: precision, memory, and what is not known of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from shardgate.domain.calibration import Accuracy, doubt_of
from shardgate.domain.declaration import Declaration
from shardgate.domain.engine import EngineRule, Holds, MemoryRules
from shardgate.domain.inventory import Gpu, Sharing, Visible
from shardgate.domain.memory import MemoryEstimate, Shortage, memory_of, visible_memory
from shardgate.domain.model import ModelArchitecture
from shardgate.domain.units import Bytes, gib
from shardgate.domain.weights import Load, WeightsEstimate, unquantised_weights_of, weights_of


class Fit(IntEnum):
    """Whether a GPU will do for the fullest rank, best first."""

    FITS = 0
    TIGHT = 1
    """The need lies inside the estimate's uncertainty, or not every version that it could be would do."""
    SHARED = 2
    UNKNOWN = 3
    UNFIT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFit:
    """What was found for one kind of GPU."""

    gpu: Gpu
    fit: Fit
    code: str = ""
    """The finding that says why it will not surely do."""
    message: str = ""
    rule: EngineRule | None = None
    estimate: MemoryEstimate | None = None
    """Figures of the version that is declared or assumed; ``None`` where memory is not modelled or not known."""


def load_of(declaration: Declaration) -> Load | None:
    """What is to be loaded; ``None`` where a fact is missing, or the stages do not add up (a finding of its own)."""
    model, strategy = declaration.model, declaration.strategy
    if not isinstance(model, ModelArchitecture) or not declaration.weights_name:
        return None
    if strategy.pipeline > model.layers or sum(strategy.layers_per_stage or [model.layers]) != model.layers:
        return None
    return Load(
        model=model, strategy=strategy, engine=declaration.engine, dtype=declaration.dtype,
        kv_cache_bits=declaration.kv_cache_bits,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """A declaration's load, and its weights under the rules that are assumed."""

    load: Load
    weights: WeightsEstimate
    _by_rules: dict[object, WeightsEstimate] = field(default_factory=dict)
    """Worked out when first asked for; they follow from the load alone."""

    def under(self, rules: MemoryRules) -> WeightsEstimate:
        """The weights as an engine with these rules splits them."""
        key = (rules.remainder, rules.absorbs_latents, rules.shards_experts_over_data)
        if key not in self._by_rules:
            self._by_rules[key] = weights_of(self.load, rules)
        return self._by_rules[key]

    @classmethod
    def of(cls, declaration: Declaration) -> "Weighed | None":
        """``None`` where a fact is missing, or the stages do not add up (a finding of its own)."""
        load = load_of(declaration)
        if load is None:
            return None
        memory = declaration.engine.memory
        found = cls(load=load, weights=weights_of(load, memory[0] if memory else None))
        if memory:
            rules = memory[0]
            found._by_rules[rules.remainder, rules.absorbs_latents, rules.shards_experts_over_data] = found.weights
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RankNeed:
    """What a declaration asks of the memory of one rank's GPU, whatever that has."""

    weights: Bytes
    """Of the fullest rank."""
    memory: float | None = None
    """Bytes of the rank that takes most, with the KV cache that it cannot do without; ``None`` where that is not modelled."""
    fraction: float | None = None
    """Of the GPU, that the engine takes for itself."""

    @classmethod
    def of(cls, weighed: Weighed, found: Iterable[GpuFit]) -> "RankNeed":
        """By the GPU on which it needs most: some defaults of engines follow from the GPU."""
        estimates = [each.estimate for each in found if each.estimate is not None]
        weights = weighed.weights.fullest.per_rank
        if not estimates:
            return cls(weights=weights)
        memory = max(each.needs for each in estimates)
        rules = estimates[0].rules
        if weighed.load.engine.settings.quantises_while_loading and rules.loads_before_quantising:
            memory = max(memory, unquantised_weights_of(weighed.load, rules))
        return cls(weights=weights, memory=memory, fraction=max(each.fraction for each in estimates))

    def is_within(self, other: "RankNeed") -> bool:
        """Whether none of it is more than the other's."""
        if self.weights > other.weights:
            return False
        pairs = ((self.memory, other.memory), (self.fraction, other.fraction))
        return all(one is None or (than is not None and one <= than) for one, than in pairs)


PREDICTED = frozenset({"WeightsDoNotFit", "NoRoomForKvCache", "ContextDoesNotFit", "UtilizationTooHigh"})
"""Codes that rest on how much memory was predicted."""


def fit_of(gpu: Gpu, declaration: Declaration, weighed: Weighed, distrusted: Sequence[Accuracy] = ()) -> GpuFit:
    """Whether this GPU will do; not known where readings that stay possible differ in it.

    ``distrusted``: engine versions on products whose predictions failed here. What they would refuse is not decided.
    """
    found = _read_fit_of(gpu, declaration, weighed)
    if found.fit is not Fit.UNFIT or found.code not in PREDICTED:
        return found
    doubt = doubt_of(declaration.engine, gpu.product, distrusted)
    if doubt is None:
        return found
    message = f"{found.message}; but {doubt.text}"
    return GpuFit(gpu=gpu, fit=Fit.TIGHT, code="MemoryNotModelled", message=message, estimate=found.estimate)


def _read_fit_of(gpu: Gpu, declaration: Declaration, weighed: Weighed) -> GpuFit:
    found = _fit_beside_others(gpu, declaration, weighed)
    for other in gpu.alternatives:
        if _fit_beside_others(other, declaration, weighed).fit is not found.fit:
            code = "GpuFactsContradict" if gpu.contradiction else "GpuFactsMissing"
            return GpuFit(gpu=gpu, fit=Fit.UNKNOWN, code=code, message=gpu.contradiction, estimate=found.estimate)
    return found


def _fit_beside_others(gpu: Gpu, declaration: Declaration, weighed: Weighed) -> GpuFit:
    """What processes of no pod hold may be gone in a minute: it leaves open what would do without them, and refuses nothing."""
    found = _fit_of(gpu, declaration, weighed)
    if not gpu.held or found.fit in (Fit.FITS, Fit.SHARED, Fit.UNKNOWN):
        return found
    alone = _fit_of(replace(gpu, held=Bytes(0)), declaration, weighed)
    if alone.fit >= found.fit:
        return alone
    message = f"processes of no pod hold {gib(gpu.held)} of a {_name(gpu)}, without which it would do: {found.message}"
    return replace(found, fit=Fit.TIGHT, code="GpuMemoryHeld", message=message)


def _fit_of(gpu: Gpu, declaration: Declaration, weighed: Weighed) -> GpuFit:
    visible = visible_memory(gpu)
    unsupported = _precision(gpu, declaration)
    if unsupported is not None and unsupported.fit is Fit.UNFIT:
        return unsupported
    if visible is None:
        return GpuFit(gpu=gpu, fit=Fit.UNKNOWN, code="GpuFactsMissing")
    found = _memory(gpu, visible, declaration, weighed)
    if found.fit is Fit.UNFIT:
        return found
    if gpu.product is None and declaration.gpus.products:
        return GpuFit(gpu=gpu, fit=Fit.UNKNOWN, code="GpuFactsMissing", estimate=found.estimate)  # perhaps not an accepted one
    if gpu.sharing is not Sharing.NONE and not _is_isolated(gpu, declaration):
        return GpuFit(gpu=gpu, fit=Fit.SHARED, code="GpuShared", estimate=found.estimate)
    return unsupported if unsupported is not None and found.fit is Fit.FITS else found


def _is_isolated(gpu: Gpu, declaration: Declaration) -> bool:
    """A part that has its memory to itself, and need not talk to other parts: NCCL joins no two MIG instances."""
    alone = declaration.strategy.ranks_per_replica == 1
    return gpu.sharing is Sharing.VGPU or (gpu.sharing in (Sharing.MIG_SINGLE, Sharing.MIG_MIXED) and alone)


def _precision(gpu: Gpu, declaration: Declaration) -> GpuFit | None:
    """Element types and quantisation methods that the GPU's generation does not have."""
    if gpu.compute_capability is None:
        return None
    major, minor = gpu.compute_capability
    worst: GpuFit | None = None
    for name, key, what in _precision_rules(declaration):
        rule = declaration.engine.rules.get(name)
        least = None if rule is None else rule.values.get(key)
        if rule is None or least is None or major * 10 + minor >= least:
            continue
        fit = Fit.UNFIT if rule.holds is Holds.YES else Fit.TIGHT
        message = f"{what} compute capability {least // 10}.{least % 10}, a {_name(gpu)} has {major}.{minor}"
        if worst is None or fit > worst.fit:
            worst = GpuFit(gpu=gpu, fit=fit, code="PrecisionUnsupported", message=message, rule=rule)
    return worst


def _precision_rules(declaration: Declaration) -> list[tuple[str, str, str]]:
    """(rule, which of its numbers, what needs it)."""
    needs = f"{declaration.weights_name} weights need"
    rules = [
        ("leastGpu", "least", f"{declaration.engine.name} needs"),
        ("leastCapability", declaration.weights_name, needs),
        ("leastCapabilityOlder", declaration.weights_name, needs),
    ]
    if declaration.dtype == "bf16":
        rules.append(("bfloat16" if declaration.is_dtype_declared else "bfloat16ByDefault", "least", "bf16 needs"))
    return rules


def _memory(gpu: Gpu, visible: Visible, declaration: Declaration, weighed: Weighed) -> GpuFit:
    """By the figures of the version that is assumed; unfit only if every version that it could be would fail."""
    engine, weights = declaration.engine, weighed.weights
    if not engine.memory:
        room = Bytes(visible.high - gpu.held)
        if weights.fullest.per_rank * (1 - weights.error) <= room:
            return GpuFit(gpu=gpu, fit=Fit.FITS)
        message = f"the fullest rank holds {gib(weights.fullest.per_rank)} of weights, a {_name(gpu)} has {gib(room)}"
        rule = engine.rules.get("weightsExceed")
        return GpuFit(gpu=gpu, fit=Fit.UNFIT, code="WeightsDoNotFit", message=message, rule=rule)
    first = _by_rules(gpu, visible, weighed, engine.memory[0])
    if first.fit is not Fit.UNFIT or weights.fullest.per_rank * (1 - weights.error) - engine.settings.offload > visible.high:
        return first  # it does, or no version could: the weights alone exceed the GPU
    for rules in engine.memory[1:]:
        other = _by_rules(gpu, visible, weighed, rules)
        if other.fit is not Fit.UNFIT:
            message = f"{first.message}; {rules.versions} would {'do' if other.fit is Fit.FITS else 'perhaps do'}"
            return GpuFit(gpu=gpu, fit=Fit.TIGHT, code="MemoryTight", estimate=first.estimate, message=message)
    return first


def _by_rules(gpu: Gpu, visible: Visible, weighed: Weighed, rules: MemoryRules) -> GpuFit:
    load = weighed.load
    estimate = memory_of(load, weighed.under(rules), rules, gpu, visible)
    for look in (_load_fails, _given_pool_is_too_large, _shortage, _fraction_is_too_high):
        obstacle = look(estimate, gpu, load)
        if obstacle is not None:
            code, message, rule = obstacle
            rule_of = load.engine.rules.get(rule)
            return GpuFit(gpu=gpu, fit=Fit.UNFIT, code=code, message=message, rule=rule_of, estimate=estimate)
    doubt = _doubt(estimate, gpu)
    if doubt is not None:
        return GpuFit(gpu=gpu, fit=Fit.TIGHT, code="MemoryTight", message=doubt, estimate=estimate)
    return GpuFit(gpu=gpu, fit=Fit.FITS, estimate=estimate)


Obstacle = tuple[str, str, str]
"""(finding code, message, name of the engine's rule)."""


def _load_fails(estimate: MemoryEstimate, gpu: Gpu, load: Load) -> Obstacle | None:
    """The weights alone are too large, or are while they are quantised."""
    rank = estimate.fullest
    if estimate.shortage is Shortage.WEIGHTS:
        offers = f"a {_name(gpu)} offers {gib(int(rank.budget.high))} of {gib(gpu.memory or int(estimate.visible.high))}"
        return "WeightsDoNotFit", f"the fullest rank holds {gib(int(rank.weights.value))} of weights, {offers}", "weightsExceed"
    if load.engine.settings.quantises_while_loading and estimate.rules.loads_before_quantising:
        peak, room = unquantised_weights_of(load, estimate.rules), estimate.visible.high
        if peak > room:
            holds = f"it is quantised while loading: a rank first holds {gib(int(peak))} in 16 bits"
            message = f"{holds}, a {_name(gpu)} has {gib(int(room))}"
            return "WeightsDoNotFit", message, "weightsExceed"
    return None


def _given_pool_is_too_large(estimate: MemoryEstimate, gpu: Gpu, _: Load) -> Obstacle | None:
    """A pool of a declared size, which the engine allocates whatever the fraction says, and what stands beside it."""
    if estimate.exceeds_gpu_by.low <= 0:
        return None
    rank, has = estimate.fullest, gib(int(estimate.visible.high))
    message = (
        f"a KV cache of {rank.kv_cache.text} is declared; with {rank.weights.text} of weights and "
        f"{rank.activation.text} of activations it exceeds the {has} of a {_name(gpu)}"
    )
    return "NoRoomForKvCache", message, "weightsExceed"


def _shortage(estimate: MemoryEstimate, gpu: Gpu, _: Load) -> Obstacle | None:
    """No room for the KV cache, or for one sequence of the whole length."""
    rank = estimate.fullest
    if estimate.shortage is Shortage.CACHE:
        offers = f"a {_name(gpu)} offers {gib(int(rank.budget.high))} of {gib(gpu.memory or int(estimate.visible.high))}"
        message = (
            f"{rank.weights.text} of weights, {rank.activation.text} of activations and {rank.overhead.text} of overheads "
            f"leave {rank.kv_cache.text} for the KV cache; {offers}"
        )
        return "NoRoomForKvCache", message, "noBlocks"
    if estimate.shortage is Shortage.CONTEXT:
        message = (
            f"one sequence of {estimate.length} tokens needs {gib(rank.needed)} of KV cache, {rank.kv_cache.text} are left "
            f"on a {_name(gpu)}: {int(estimate.longest.low)} to {int(estimate.longest.high)} tokens fit"
        )
        return "ContextDoesNotFit", message, "fullLength"
    return None


def _fraction_is_too_high(estimate: MemoryEstimate, gpu: Gpu, _: Load) -> Obstacle | None:
    """The memory fraction leaves too little for what is outside of it."""
    asks = f"the memory fraction asks for {estimate.fullest.budget.text} of {gib(int(estimate.visible.high))} of a {_name(gpu)}"
    if estimate.cannot_start_by.low > 0:
        free = gib(int(estimate.visible.value - estimate.start.value))
        return "UtilizationTooHigh", f"{asks}, about {free} are free once CUDA has started", "freeAtStart"
    if estimate.graphs_short_by.low > 0:
        return "UtilizationTooHigh", f"{asks}, and CUDA graphs take {estimate.graphs.text} outside of it", "weightsExceed"
    return None


def _doubt(estimate: MemoryEstimate, gpu: Gpu) -> str | None:
    """Why it may not do, although it may."""
    rank = estimate.fullest
    if estimate.has_unknown_draft:
        return "the weights of the draft model that speculation loads are not known"
    if estimate.exceeds_gpu_by.high > 0:
        return (
            f"a KV cache of {rank.kv_cache.text} is declared, and what stands beside it on a {_name(gpu)} "
            f"({rank.weights.text} of weights) may leave less: inside the estimate's uncertainty"
        )
    if estimate.margin.low < 0:
        what = "one block" if estimate.length is None else f"a sequence of {estimate.length} tokens"
        return (
            f"{rank.kv_cache.text} are left for the KV cache on a {_name(gpu)}, {what} needs {gib(rank.needed)}: "
            "inside the estimate's uncertainty"
        )
    if estimate.cannot_start_by.high > 0 or estimate.graphs_short_by.high > 0:
        free = estimate.visible.value - estimate.start.value
        return (
            f"the memory fraction asks for {rank.budget.text}, about {gib(int(free))} of a {_name(gpu)} are free at start, "
            f"and CUDA graphs take {estimate.graphs.text}: inside the estimate's uncertainty"
        )
    return None


def _name(gpu: Gpu) -> str:
    return f"{gpu.part} of a {gpu.product or 'GPU'}" if gpu.part else gpu.product or "GPU"
