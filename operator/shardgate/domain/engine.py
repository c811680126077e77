"""An inference engine as it was declared: its rules, its settings, and how its versions budget memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shardgate.domain.estimate import Estimate
from shardgate.domain.model import ModelArchitecture
from shardgate.domain.performance.rates import Pace
from shardgate.domain.strategy import Remainder
from shardgate.domain.units import GIBI


class Holds(StrEnum):
    """Whether the declared version has a rule."""

    YES = "yes"
    IN_SOME_VERSIONS = "in some versions"
    """The version is not declared, and not every known one has it."""
    NOT_CONFIRMED = "not confirmed"
    """The version is newer than those that were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRule:
    """A start-up rule that an engine has: the message a user would meet, its versions, and where it was read."""

    message: str
    versions: str
    source: str
    holds: Holds = Holds.YES
    values: Mapping[str, Any] = field(default_factory=dict)
    """What the rule is about: least capabilities by name, lists of classes."""


class BudgetBasis(StrEnum):
    """What an engine's memory fraction is a fraction of."""

    TOTAL = "total"
    """vLLM: weights, activations, overheads and KV cache, of all the memory that CUDA sees."""
    STATIC = "static"
    """SGLang: weights and KV cache, of what is free before loading; activations live in the rest."""
    FREE_AFTER_LOAD = "freeAfterLoad"
    """TensorRT-LLM: the KV cache alone, of what loading and a trial run leave free."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class BySize:
    """A default that engines choose by the GPU's memory."""

    small: int
    large: int
    large_from: int = 70 * GIBI
    never_large: str = ""
    """Products whose name holds this count as small."""

    def for_gpu(self, memory: float, product: str) -> int:
        """The one for a GPU of this much memory."""
        is_large = memory >= self.large_from and not (self.never_large and self.never_large in product.lower())
        return self.large if is_large else self.small


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBySize:
    """SGLang's chunk of a prefill, and its largest CUDA graph, for GPUs of up to so much memory."""

    up_to_mib: float
    chunk_tokens: int
    graph_batch: int
    graph_batch_wide: int
    """From a tensor width of 4 on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticReserve:
    """What SGLang leaves out of its static share where none is declared (``server_args.py``, from 0.5.3 on)."""

    steps: tuple[StepBySize, ...]
    base_mib: float = 512
    per_chunk_token_mib: float = 1.5
    per_graph_batch_mib: float = 2
    per_rank_mib: float = 128
    least_mib: float = 10240
    least_from_mib: float = 60 * 1024

    def fraction(self, memory_mib: float, tensor: int, pipeline: int, attention_data: int, chunk: int | None = None) -> float:
        """The default static share on a GPU that reports so much memory; ``attention_data`` is 0 without it.

        ``chunk``: tokens of a declared chunk of prefill.
        """
        step = next(each for each in self.steps if memory_mib < each.up_to_mib)
        graph = step.graph_batch_wide if tensor >= 4 else step.graph_batch  # noqa: PLR2004  # SGLang's own bound
        reserved = (
            self.base_mib + self.per_chunk_token_mib * max(chunk or step.chunk_tokens, 2048) + self.per_graph_batch_mib * graph
        )
        reserved += tensor * pipeline * self.per_rank_mib + 3 * graph * attention_data
        if memory_mib > self.least_from_mib:
            reserved = max(reserved, self.least_mib)
        return max(0.0, 1 - reserved / memory_mib)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRules:
    """How one span of an engine's versions uses a GPU's memory (``data/engine_memory.json``, with sources and errors).

    Byte figures are per rank.
    """

    versions: str
    basis: BudgetBasis
    utilization_low: float
    utilization_high: float
    """The engine's default fraction, as a range where it depends on things that are not known."""
    reserve: StaticReserve | None
    """Where the default fraction follows from it."""
    sequences: BySize
    batched_tokens: BySize | None
    """``None``: a whole prompt at once, so as many as the longest sequence has."""
    long_prompt_batched_tokens: int | None
    """Of models of more than 32,768 tokens, where a whole prompt is else taken at once."""
    block_tokens: int
    latent_workspace_tokens: int
    """Tokens of context that MLA's prefill expands at once in the trial run."""
    sampler_copies: Estimate
    """Peak of the sampler's trial run, in copies of (sequences x vocabulary) 32-bit numbers."""
    step_copies: Estimate
    """Peak of one step, in copies of the widest projection's output: gate and up, and what the activation makes of them."""
    tower: Estimate
    """Trial run of a vision or audio tower."""
    only_driver_samples: bool
    """Whether the first tensor rank alone samples."""
    mixture_copies: Estimate
    """Peak of a mixture's buffers, in copies of what its fused kernel needs."""
    activation_base: Estimate
    non_torch_single: Estimate
    """CUDA libraries, and whatever else PyTorch does not count, on one GPU."""
    non_torch_linked: Estimate
    """The same with communication buffers, over NVLink."""
    non_torch_unlinked: Estimate
    """The same with communication over PCIe or the network."""
    start_single: Estimate
    """In use before the engine's first reading of free memory: CUDA context."""
    start_linked: Estimate
    """The same with communicators over NVLink."""
    start_unlinked: Estimate
    """The same with communicators over PCIe or the network."""
    graphs: Estimate
    """CUDA graphs."""
    are_graphs_budgeted: bool
    """Whether graphs come out of the engine's budget, rather than out of what it leaves."""
    checks_free_at_start: bool
    """Whether it refuses to start where less is free than its fraction asks for."""
    group_tolerance: float
    """How many times more layers of one kind than of another still make one group size, with padding."""
    counts_tokens_by_concurrency: bool
    """Whether the tokens that it prints are full-length sequences times their length."""
    groups_hybrid_layers: bool
    """Whether sliding-window layers keep only their window (else they are cached as full ones)."""
    groups_chunked_layers: bool
    """Whether that goes for layers of chunked attention too."""
    caches_latents: bool
    """Whether MLA keeps one latent per token (else expanded heads)."""
    absorbs_latents: bool
    remainder: Remainder
    adapts_experts: bool
    """Whether LoRA slots cover the experts of a mixture."""
    loads_before_quantising: bool
    """Whether weights that it quantises itself are all loaded in 16 bits first."""
    shards_experts_over_data: bool
    needs_full_length: bool
    """Whether it refuses to start where not one sequence of the full length fits the pool."""
    counts_all_stages: bool
    """Whether that check takes the layers of all stages against the smallest pool."""
    window_full_ratio: float
    """SGLang: tokens of sliding-window layers per token of full ones; 0: no pool of their own."""
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSlots:
    """Adapter slots that an engine allocates at start."""

    slots: int
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What speculative decoding loads besides the model, on the last stage."""

    method: str
    uses_own_layers: bool = False
    """The checkpoint's own layers that predict further tokens (MTP, NextN)."""
    model: ModelArchitecture | None = None
    """A model of its own; ``None`` for heads whose size is only roughly known."""
    name: str = ""
    is_unknown: bool = False
    """A model of its own that is not in the catalogue: any size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is declared of an engine's behaviour; ``None`` where the engine's own default applies."""

    max_model_len: int | None = None
    """Tokens; -1: as long as fits."""
    max_sequences: int | None = None
    max_batched_tokens: int | None = None
    utilization: float | None = None
    enforce_eager: bool = False
    block_tokens: int | None = None
    kv_cache: int | None = None
    """A pool of so many bytes, whatever the fraction."""
    kv_blocks: int | None = None
    offload: int = 0
    """Bytes of a rank's weights that are kept in the host's memory."""
    lora: LoraSlots | None = None
    draft: Draft | None = None
    """What speculation loads besides the model."""
    is_text_only: bool = False
    """No images or audio: the tower's trial run is left out."""
    groups_hybrid_layers: bool | None = None
    balances_experts: bool = False
    """Expert-parallel load balancing (EPLB)."""
    allows_long_context: bool = False
    """A longer context than the model's own is let in."""
    executor: str = ""
    """What starts the ranks: mp, ray, uni, external_launcher; empty: the engine's choice."""
    nodes: int | None = None
    """Nodes that the ranks are spread over, as declared to the engine."""
    quantises_while_loading: bool = False
    """The checkpoint is read in 16 bits and quantised on the GPU."""
    unmodelled: tuple[str, ...] = ()
    """Settings that bear on memory in a way that is not modelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An inference engine, as far as its rules are known here."""

    name: str
    version: str | None
    known: bool
    rules: Mapping[str, EngineRule]
    """Name of a rule -> the rule. What is not here is not a rule of this engine in this version."""
    memory: tuple[MemoryRules, ...] = ()
    """Of every version that it could be, the one that figures assume first; empty where memory is not modelled."""
    pace: Pace | None = None
    """How fast its steps are; ``None`` where that is not modelled."""
    is_newer_than_known: bool = False
    settings: Settings = Settings()
    stated: tuple[tuple[str, str], ...] = ()
    """All that is declared of it, as written: a change of it is a change of the declaration."""
