"""What each rank needs besides weights, never pooled over GPUs; and what that leaves for the KV cache."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from shardgate.domain.engine import BudgetBasis, Draft, Engine, MemoryRules
from shardgate.domain.estimate import ZERO, Estimate, difference, total
from shardgate.domain.inventory import Gpu, Visible
from shardgate.domain.kv_cache import CacheLayout, CacheOptions, layout_of
from shardgate.domain.model import Cache, ModelArchitecture, Part, Split
from shardgate.domain.units import GIBI, MEBI, Bytes
from shardgate.domain.weights import Load, WeightsEstimate, held_weights

UNMEASURED_DRIVER_SHARE = 3 * GIBI // 4
"""What CUDA's total may be below the memory that NVML reports, where a product has no measurement of its own: 0.26
(T4) to 0.73 GiB (B200) over the products that have one (``data/gpus.json``), nothing on an MI300X."""


class Shortage(StrEnum):
    """What a GPU is too small for, if it is."""

    NONE = "none"
    WEIGHTS = "weights"
    CACHE = "KV cache"
    CONTEXT = "context"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """One rank of a stage on one GPU, in bytes."""

    stage: int
    weights: Estimate
    """With adapter slots and draft layers."""
    activation: Estimate
    overhead: Estimate
    """CUDA libraries and communicators, graphs where they are budgeted."""
    budget: Estimate
    """What the engine allows itself of the memory that it sees."""
    kv_cache: Estimate
    """What is left; may be negative, never clamped."""
    needed: Bytes
    """Pool bytes without which the engine would not start: one sequence of the full length, or one block."""
    layout: CacheLayout
    margin: Estimate
    """What is left beyond what is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """One replica's ranks on one kind of GPU, under one span of an engine's versions."""

    rules: MemoryRules
    visible: Estimate
    stages: tuple[RankMemory, ...]
    fullest: RankMemory
    """The rank with the least to spare."""
    margin: Estimate
    """What the fullest rank may have to spare, at least and at most."""
    is_pool_given: bool
    """Whether the KV cache has a declared size, so that the engine takes it whatever its fraction says."""
    has_unknown_draft: bool
    """Whether speculation loads a model of unknown size."""
    fraction: float
    """The engine's own, as declared; the middle of what its versions default to where it is not."""
    length: int | None
    """Tokens of the longest sequence that the engine is to serve; ``None`` where nothing tells."""
    sequences: int
    """That a step holds at most, of one data rank."""
    step_tokens: int
    """That a step takes in at most, of one data rank."""
    kv_tokens: Estimate
    """Tokens that the fullest rank's pool holds: what the engine prints; per data rank."""
    longest: Estimate
    """The longest sequence that fits, up to what the model can."""
    needed_layout: CacheLayout | None
    """Where one sequence is held against the layers of all stages together."""
    limit: int
    """Tokens that the model was made for at most."""
    start: Estimate
    """In use before the engine reads how much is free."""
    non_torch: Estimate
    graphs: Estimate
    """CUDA graphs, inside the budget or not."""
    held: Bytes = Bytes(0)  # noqa: RUF009  # a NewType of int: immutable
    """In use by processes of no pod, and part of ``start``."""

    def longest_in(self, pool: float) -> int:
        """The longest sequence that fits, were each rank's pool of so many bytes."""
        return min((self.needed_layout or rank.layout).longest(pool, self.limit) for rank in self.stages)

    @property
    def needs(self) -> float:
        """Bytes that a rank takes at least: weights, activations, overheads, and the KV cache without which it does not start."""
        pools = (rank.kv_cache.value if self.is_pool_given else rank.needed for rank in self.stages)
        return max(
            total([rank.weights, rank.activation, rank.overhead]).value + pool
            for rank, pool in zip(self.stages, pools, strict=True)
        )

    @property
    def concurrency_at_full_length(self) -> Estimate | None:
        """Sequences of the full length that the fullest rank's pool holds at once; ``None`` without a length or a cache."""
        if self.length is None:
            return None
        wanted = [(rank.kv_cache, each) for rank in self.stages if (each := rank.layout.bytes_for(self.length))]
        return Estimate(*(min(pool[side] / each for pool, each in wanted) for side in range(3))) if wanted else None

    @property
    def exceeds_gpu_by(self) -> Estimate:
        """By how much a pool of a declared size and what stands beside it exceed the GPU; negative where they fit."""
        if not self.is_pool_given:
            return Estimate(-inf, -inf, -inf)
        held = [total([rank.weights, rank.activation, self.start, rank.kv_cache]) for rank in self.stages]
        over = [difference(each, [self.visible]) for each in held]
        return max(over, key=lambda each: each.value)

    @property
    def shortage(self) -> Shortage:
        """What the fullest rank surely lacks, at the best that its uncertainty allows."""
        short = [rank for rank in self.stages if rank.margin.high < 0]
        if not short:
            return Shortage.NONE
        if any(rank.weights.low > rank.budget.high for rank in short):
            return Shortage.WEIGHTS
        one_block = min(rank.layout.block_bytes * len(rank.layout.groups) for rank in short)
        return Shortage.CACHE if any(rank.kv_cache.high < one_block for rank in short) else Shortage.CONTEXT

    @property
    def graphs_short_by(self) -> Estimate:
        """By how much the least that graphs outside the budget take exceeds what it leaves; negative where they fit."""
        rules = self.rules
        if rules.basis is not BudgetBasis.TOTAL or rules.are_graphs_budgeted or self.graphs.high == 0:
            return Estimate(-inf, -inf, -inf)
        used = [self.stages[0].budget, self.start] if rules.checks_free_at_start else [self.stages[0].budget]
        return difference(Estimate.exactly(self.graphs.low), [difference(self.visible, used)])

    @property
    def cannot_start_by(self) -> Estimate:
        """By how much the fraction asks for more than is free at start; negative where it does not.

        Engines that do not look run into what others hold later.
        """
        if not self.rules.checks_free_at_start and not (self.held and self.rules.basis is BudgetBasis.TOTAL):
            return Estimate(-inf, -inf, -inf)
        budget = self.stages[0].budget
        return difference(budget, [difference(self.visible, [self.start])])


def visible_memory(gpu: Gpu) -> Visible | None:
    """What an engine would see of this GPU; ``None`` when its memory is not known."""
    if gpu.visible is not None or gpu.memory is None:
        return gpu.visible
    low = Bytes(max(gpu.memory - UNMEASURED_DRIVER_SHARE, gpu.memory * 9 // 10))
    return Visible(low=low, high=gpu.memory, source="reported memory less 0 to 0.75 GiB, as measured on other products")


def memory_of(load: Load, weights: WeightsEstimate, rules: MemoryRules, gpu: Gpu, seen: Visible) -> MemoryEstimate:
    """What every stage's fullest rank needs on this GPU, of which an engine sees so much."""
    visible = Estimate(seen.low, (seen.low + seen.high) / 2, seen.high)
    batch = _Batch.of(load, rules, visible, gpu.product or "")
    strategy = load.strategy
    many = strategy.tensor * strategy.pipeline * strategy.prefill_context > 1 or (strategy.data > 1 and load.model.is_mixture)
    start = _by_link(gpu, rules.start_linked, rules.start_unlinked) if many else rules.start_single
    held = Estimate.exactly(gpu.held)
    start = total([start, held])
    low, high = _fraction(load, rules, gpu, visible)
    budget = _budget(rules, visible, start, low, high)
    non_torch = _by_link(gpu, rules.non_torch_linked, rules.non_torch_unlinked) if many else rules.non_torch_single
    if rules.basis is BudgetBasis.TOTAL and not rules.checks_free_at_start:
        non_torch = total([non_torch, held])  # such engines take whatever is in use beside them for their own overhead
    graphs = ZERO if load.engine.settings.enforce_eager else rules.graphs
    layout_of_stage = _layouts(load, rules, batch, weights)
    counts_all = rules.counts_all_stages and len(weights.stages) > 1
    whole = _cache_layout(load, rules, batch, range(load.model.layers)) if counts_all else None
    overhead = total([non_torch, graphs]) if rules.are_graphs_budgeted else non_torch
    inner, final = (_activation(load, rules, batch, is_last=is_last) for is_last in (False, True))
    stages = []
    for stage, layout in zip(weights.stages, layout_of_stage, strict=True):
        held = held_weights(load, rules, stage, weights.error)
        activation = final if stage.stage == len(weights.stages) - 1 else inner
        pool = _pool(load.engine, rules, layout, budget, [held, activation, overhead], (low, high))
        needed = _needed(batch, rules, whole or layout)
        stages.append(
            RankMemory(
                stage=stage.stage, weights=held, activation=activation, overhead=overhead, budget=budget, kv_cache=pool,
                needed=Bytes(needed), layout=layout,
                margin=Estimate(pool.low - needed, pool.value - needed, pool.high - needed),
            )
        )  # fmt: skip
    limit = load.model.max_context_tokens or batch.length or _NO_LIMIT
    counted = batch.length or 0 if rules.counts_tokens_by_concurrency else 0
    return MemoryEstimate(
        rules=rules,
        visible=visible,
        stages=tuple(stages),
        fullest=min(stages, key=lambda rank: rank.margin.value),
        margin=Estimate(*(min(rank.margin[side] for rank in stages) for side in range(3))),
        is_pool_given=load.engine.settings.kv_blocks is not None or load.engine.settings.kv_cache is not None,
        has_unknown_draft=load.engine.settings.draft is not None and load.engine.settings.draft.is_unknown,
        fraction=(low + high) / 2,
        length=batch.length,
        sequences=batch.sequences,
        step_tokens=batch.tokens,
        kv_tokens=_least(stages, lambda rank, pool: rank.layout.tokens(pool, counted)),
        longest=_least(stages, lambda rank, pool: (whole or rank.layout).longest(pool, limit)),
        needed_layout=whole,
        limit=limit,
        start=start,
        non_torch=non_torch,
        graphs=graphs,
        held=gpu.held,
    )


def _least(stages: list[RankMemory], measure: Callable[[RankMemory, float], int]) -> Estimate:
    """A measure of the pools, of the rank that has least, at the low end, the middle and the high end."""
    return Estimate(*(min(measure(rank, rank.kv_cache[side]) for rank in stages) for side in range(3)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Sequences and tokens of one step, and the longest sequence."""

    length: int | None
    is_length_free: bool
    sequences: int
    tokens: int

    @classmethod
    def of(cls, load: Load, rules: MemoryRules, visible: Estimate, product: str) -> "_Batch":
        settings = load.engine.settings
        stated = settings.max_model_len
        is_free = stated == -1
        length = load.model.max_context_tokens if stated is None or is_free else stated
        sequences = settings.max_sequences or rules.sequences.for_gpu(visible.value, product)
        if settings.max_batched_tokens is not None:
            tokens = settings.max_batched_tokens
        elif rules.batched_tokens is not None:
            tokens = rules.batched_tokens.for_gpu(visible.value, product)
        elif rules.long_prompt_batched_tokens is not None and _is_cut(load, rules, length):
            tokens = rules.long_prompt_batched_tokens
        else:
            tokens = max(length or 0, _LEAST_WHOLE_PROMPT)
        return cls(length=length, is_length_free=is_free, sequences=min(sequences, tokens), tokens=tokens)


def _is_cut(load: Load, rules: MemoryRules, length: int | None) -> bool:
    """Whether vLLM's first engine cuts prompts into chunks by itself: long ones, and those of latent caches."""
    return (length or 0) > _LONG_PROMPT or (load.model.is_latent and rules.caches_latents)


_NO_LIMIT = 2**31

_LEAST_WHOLE_PROMPT = 2048
"""vLLM without chunked prefill: max_num_batched_tokens is at least this, else the longest sequence."""

_LONG_PROMPT = 32_768
"""vLLM's first engine cut prompts into chunks by itself where the longest sequence has more tokens."""


def _fraction(load: Load, rules: MemoryRules, gpu: Gpu, visible: Estimate) -> tuple[float, float]:
    """The declared memory fraction, or the range of these versions' default."""
    stated, strategy = load.engine.settings.utilization, load.strategy
    if stated is not None:
        return stated, stated
    if rules.reserve is None:
        return rules.utilization_low, rules.utilization_high
    reported = (gpu.memory or visible.value) / MEBI
    attention_data = strategy.data if strategy.attention_data else 0
    chunk = load.engine.settings.max_batched_tokens
    fraction = rules.reserve.fraction(reported, strategy.tensor, strategy.pipeline, attention_data, chunk)
    return fraction * 0.98, fraction  # prefill graphs and drafts take up to 2 % more than the formula in newer versions


def _budget(rules: MemoryRules, visible: Estimate, start: Estimate, low: float, high: float) -> Estimate:
    """What the engine allows itself: a share of the total, of what is free before loading, or all of that."""
    if rules.basis is BudgetBasis.TOTAL:
        whole = visible
    else:
        whole = difference(visible, [start])
        if rules.basis is not BudgetBasis.STATIC:
            return whole
    return Estimate(whole.low * low, whole.value * (low + high) / 2, whole.high * high)


def _by_link(gpu: Gpu, linked: Estimate, unlinked: Estimate) -> Estimate:
    """What communication takes, by how the GPUs of a node are joined; either where that is not known."""
    if gpu.has_nvlink is None:
        low, high = min(linked.low, unlinked.low), max(linked.high, unlinked.high)
        return Estimate(low, (linked.value + unlinked.value) / 2, high)
    return linked if gpu.has_nvlink else unlinked


def _layouts(load: Load, rules: MemoryRules, batch: _Batch, weights: WeightsEstimate) -> list[CacheLayout]:
    """Of every stage; stages of the same kinds of layers share one."""
    known: dict[object, CacheLayout] = {}
    layouts = []
    for stage in weights.stages:
        is_last = stage.layers.stop == load.model.layers
        key = (
            is_last and load.engine.settings.draft is not None,
            *((id(kind), n) for kind, n in load.model.kinds_in(stage.layers)),
        )
        if key not in known:
            known[key] = _cache_layout(load, rules, batch, stage.layers)
        layouts.append(known[key])
    return layouts


def _cache_layout(load: Load, rules: MemoryRules, batch: _Batch, layers: range) -> CacheLayout:
    model, settings, strategy = load.model, load.engine.settings, load.strategy
    caches: list[tuple[Cache, int]] = []
    if model.has_cache:
        caches += [(cache, number) for layer, number in model.kinds_in(layers) for cache in layer.caches]
        if settings.draft is not None and layers.stop == model.layers:
            caches += _draft_caches(model, settings.draft)
    grouped = rules.groups_hybrid_layers if settings.groups_hybrid_layers is None else settings.groups_hybrid_layers
    return layout_of(
        caches,
        CacheOptions(
            ranks=max(1, strategy.attention_ranks),
            element_bits=load.kv_cache_bits,
            state_bits=load.plain_bytes * 8,
            block_tokens=settings.block_tokens or rules.block_tokens,
            caches_latents=rules.caches_latents,
            groups_hybrid_layers=grouped,
            groups_chunked_layers=rules.groups_chunked_layers,
            group_tolerance=rules.group_tolerance,
            batched_tokens=batch.tokens,
            window_full_ratio=rules.window_full_ratio if grouped else 0.0,
            widths=max(strategy.decode_context, strategy.prefill_context),
        ),
    )


def _draft_caches(model: ModelArchitecture, draft: Draft) -> list[tuple[Cache, int]]:
    """What the layers that speculation adds cache."""
    if draft.uses_own_layers and model.draft_layers:
        return [(cache, 1) for layer in model.draft_layers for cache in layer.caches]
    if draft.model is not None:
        other = draft.model
        return [(cache, number) for layer, number in other.kinds_in(range(other.layers)) for cache in layer.caches]
    return [(cache, 1) for cache in model.kinds[model.pattern[-1]].caches if cache.is_per_token]


def _activation(load: Load, rules: MemoryRules, batch: _Batch, *, is_last: bool) -> Estimate:
    """The peak of the engine's trial run: a full step of tokens, then the sampler's work on a full set of sequences.

    The step's widest moment is a dense MLP's or the projections' output; buffers of mixtures stay allocated beside
    the sampler's.
    """
    model, plain = load.model, load.plain_bytes
    tokens, tensor = batch.tokens, load.strategy.tensor
    hidden = tokens * model.hidden_size * plain
    widest, mixture, expanded = 0, 0, 0
    for layer in model.kinds:
        if rules.absorbs_latents:
            for each in layer.absorbed:
                outputs, _ = each.shape_on(max(1, load.strategy.attention_ranks))
                expanded = max(expanded, rules.latent_workspace_tokens * outputs * plain)
        dense = max(
            (each.shape_on(tensor)[0] for each in layer.matrices if each.part is not Part.EXPERTS and each.split is Split.OUTPUTS),
            default=0,
        )
        widest = max(widest, dense)
        for each in layer.matrices:
            if each.part is Part.EXPERTS and each.split is Split.OUTPUTS:
                _, cut = load.strategy.expert_widths(over_data=rules.shards_experts_over_data)
                inner = each.shape_on(cut)[0]
                rows = tokens * max(1, model.active_experts)
                mixture = max(mixture, rows * (max(2 * inner, model.hidden_size) + inner) * plain)
    step = rules.step_copies.value * tokens * widest * plain + expanded
    sampler = ZERO
    if is_last and model.has_cache:
        logits = batch.sequences * model.vocabulary_size * 4
        sampler = rules.sampler_copies.times(logits)
        if rules.only_driver_samples and load.strategy.tensor > 1:
            sampler = Estimate(0.0, sampler.value, sampler.high)
    low, high = rules.step_copies.low / rules.step_copies.value, rules.step_copies.high / rules.step_copies.value
    peak = Estimate(max(step * low, sampler.low), max(step, sampler.value), max(step * high, sampler.high))
    if mixture:
        peak = total([peak, rules.mixture_copies.times(mixture)])
    tower = rules.tower if model.tower and not load.engine.settings.is_text_only else ZERO
    return total([Estimate.exactly(hidden), peak, rules.activation_base, tower])


def _pool(
    engine: Engine, rules: MemoryRules, layout: CacheLayout, budget: Estimate, used: list[Estimate], fraction: tuple[float, float]
) -> Estimate:
    """Bytes for the KV cache."""
    settings = engine.settings
    if settings.kv_blocks is not None:
        return Estimate.exactly(settings.kv_blocks * layout.block_bytes)
    if settings.kv_cache is not None:
        return Estimate.exactly(settings.kv_cache)
    if rules.basis is BudgetBasis.STATIC:  # activations, graphs and libraries live in what the fraction leaves
        return difference(budget, used[:1])
    left = difference(budget, used)
    if rules.basis is BudgetBasis.FREE_AFTER_LOAD:
        low, high = fraction
        return Estimate(
            left.low * (low if left.low > 0 else 1), left.value * (low + high) / 2, left.high * (high if left.high > 0 else 1)
        )
    return left


def _needed(batch: _Batch, rules: MemoryRules, layout: CacheLayout) -> int:
    one_block = layout.block_bytes * len(layout.groups)
    if batch.length is None or batch.is_length_free or not rules.needs_full_length:
        return one_block
    return max(one_block, layout.bytes_for(batch.length))
