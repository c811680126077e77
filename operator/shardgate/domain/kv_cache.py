"""What the KV cache takes: bytes per token, blocks, tokens in a pool, the longest sequence that fits."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor

from shardgate.domain.model import Cache, CacheKind

STATE_BLOCK_ALIGNMENT = 16

STATE_POOL_RATIO = 0.9
"""SGLang's ``mamba_full_memory_ratio``: the pool of states over that of full layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheGroup:
    """Layers of one kind that share block tables: a sequence takes the same number of blocks in each group."""

    block_tokens: int
    """Tokens in a block of this group; 0: one block holds the whole state."""
    kept_tokens: int | None
    """Tokens that are kept of a long sequence; ``None``: all."""

    def blocks(self, length: int) -> int:
        """Blocks of one sequence of so many tokens."""
        if not self.block_tokens:
            return 1
        if self.kept_tokens is not None and self.kept_tokens < length:
            return ceil(self.kept_tokens / self.block_tokens) + 1
        return ceil(length / self.block_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLayout:
    """How one rank cuts its pool. All blocks are of one size, whatever group they are given to."""

    block_bytes: int
    block_tokens: int
    """Tokens of the smallest block: what engines count tokens by."""
    groups: tuple[CacheGroup, ...]
    widths: int = 1
    """Ranks over which one sequence's tokens are spread (decode context parallelism)."""

    @classmethod
    def of(cls, block_bytes: int, groups: Iterable[CacheGroup], widths: int) -> "CacheLayout":
        """Groups of layers, over blocks of one size."""
        groups = tuple(groups)
        smallest = min((group.block_tokens for group in groups if group.block_tokens), default=1)
        return cls(block_bytes=block_bytes, block_tokens=smallest, groups=groups, widths=widths)

    @property
    def bytes_per_token(self) -> float:
        """Pool bytes for each token that the engine says it can hold."""
        return self.block_bytes * len(self.groups) / (self.block_tokens * self.widths)

    def tokens(self, pool: float, full_length: int = 0) -> int:
        """Tokens that the engine counts in a pool of so many bytes; 0 for none.

        With a ``full_length``: as many sequences of that length as fit, times it.
        """
        if self.block_bytes == 0 or pool <= 0:
            return 0
        if full_length and len(self.groups) > 1:
            return int(pool / self.bytes_for(full_length) * full_length)
        return floor(pool / self.block_bytes) // len(self.groups) * self.block_tokens * self.widths

    def bytes_for(self, length: int) -> int:
        """Pool bytes that one sequence of so many tokens takes."""
        share = ceil(length / self.widths)
        return self.block_bytes * sum(group.blocks(share) for group in self.groups)

    def longest(self, pool: float, limit: int) -> int:
        """The longest sequence, up to ``limit`` tokens, that a pool holds; 0 for none."""
        if len(self.groups) == 1 and self.groups[0].kept_tokens is None and self.groups[0].block_tokens and self.block_bytes:
            return min(max(limit, 0), max(0, floor(pool / self.block_bytes)) * self.block_tokens * self.widths)
        low, high = 0, max(limit, 0)
        while low < high:
            middle = (low + high + 1) // 2
            if self.bytes_for(middle) <= pool:
                low = middle
            else:
                high = middle - 1
        return low


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """How an engine lays out caches."""

    ranks: int
    """Tensor ranks that share attention's heads."""
    element_bits: int
    state_bits: int
    block_tokens: int
    caches_latents: bool = True
    groups_hybrid_layers: bool = True
    groups_chunked_layers: bool = True
    group_tolerance: float = 1.0
    """How many times more layers of one kind than of another still make one group size, with padding."""
    batched_tokens: int = 0
    """Tokens of a step, which a sliding window keeps besides its own."""
    window_full_ratio: float = 0.0
    """Tokens kept of sliding-window layers per token of full ones, where an engine has a pool for each (SGLang)."""
    widths: int = 1


def token_bytes(cache: Cache, options: CacheOptions) -> int:
    """Bytes that one token takes in one layer, on one rank."""
    if cache.kind is CacheKind.LATENT and not options.caches_latents:
        heads = max(1, ceil(cache.expanded_heads / options.ranks))
        return heads * cache.expanded_head_elements * options.element_bits // 8
    if cache.bytes_at_8_bits and options.element_bits == 8:  # noqa: PLR2004  # bits of a byte
        return cache.bytes_at_8_bits + cache.fixed_bytes
    heads = 1 if cache.kind in (CacheKind.LATENT, CacheKind.INDEX) else max(1, ceil(cache.heads / options.ranks))
    return heads * cache.head_elements * options.element_bits // 8 + cache.fixed_bytes


def state_bytes(cache: Cache, options: CacheOptions) -> int:
    """Bytes of one sequence's state in one layer, on one rank."""
    share = max(1, ceil(cache.state_units / options.ranks))
    bits = cache.convolution_elements * 16 + cache.state_elements * options.state_bits
    return ceil(bits * share / cache.state_units / 8)


def layout_of(caches: Iterable[tuple[Cache, int]], options: CacheOptions) -> CacheLayout:
    """The layout of a rank that holds so many layers of each kind of cache; equal kinds may stand apart."""
    growing: list[tuple[Cache, int]] = []
    states: list[tuple[Cache, int]] = []
    for each in caches:
        (growing if each[0].is_per_token else states).append(each)
    windows = any(_keeps(cache, options) is not None for cache, _ in growing)
    if options.window_full_ratio and (windows or states):
        return _pools_of_their_own(growing, options, has_states=bool(states))
    if not states and (not options.groups_hybrid_layers or not windows):
        per_token = sum(token_bytes(cache, options) * number for cache, number in growing)
        group = CacheGroup(block_tokens=options.block_tokens, kept_tokens=None)
        return CacheLayout.of(per_token * options.block_tokens, [group], options.widths)
    return _grouped(growing, states, options)


def _keeps(cache: Cache, options: CacheOptions) -> int | None:
    """Tokens that stay cached in a layer that forgets."""
    forgets = cache.kind is CacheKind.SLIDING or (cache.kind is CacheKind.CHUNKED and options.groups_chunked_layers)
    if not forgets or cache.window_tokens is None:
        return None
    return cache.window_tokens - (cache.kind is CacheKind.SLIDING) + options.batched_tokens


def _pools_of_their_own(caches: list[tuple[Cache, int]], options: CacheOptions, *, has_states: bool) -> CacheLayout:
    """A pool for full layers, a smaller one, in tokens, for those with a window, and one for states (SGLang)."""
    per_token = sum(
        token_bytes(cache, options) * number * (1 if _keeps(cache, options) is None else options.window_full_ratio)
        for cache, number in caches
    )
    if has_states:
        per_token *= 1 + STATE_POOL_RATIO
    group = CacheGroup(block_tokens=options.block_tokens, kept_tokens=None)
    return CacheLayout.of(ceil(per_token * options.block_tokens), [group], options.widths)


def _grouped(growing: list[tuple[Cache, int]], states: list[tuple[Cache, int]], options: CacheOptions) -> CacheLayout:
    """Groups of equally many layers, each layer's block of the same size (vLLM's hybrid cache manager).

    Kinds are told apart by what they keep and by the bytes of a token; blocks of lighter kinds hold more tokens.
    """
    kinds: Counter[tuple[int, int | None]] = Counter()
    for cache, number in growing:
        kinds[token_bytes(cache, options), _keeps(cache, options)] += number
    heaviest = max((weight for weight, _ in kinds), default=0)
    page = heaviest * options.block_tokens
    state_kinds: Counter[int] = Counter()
    for cache, number in states:
        state_kinds[state_bytes(cache, options)] += number
    block_tokens = options.block_tokens
    if state_kinds and heaviest:  # a token block is made at least as large as a state
        needed = ceil(max(state_kinds) / heaviest)
        block_tokens = max(block_tokens, ceil(needed / STATE_BLOCK_ALIGNMENT) * STATE_BLOCK_ALIGNMENT)
        page = heaviest * block_tokens
    elif state_kinds:
        page = max(state_kinds)
    numbers = [*kinds.values(), *state_kinds.values()]
    size = max(numbers) if max(numbers) < min(numbers) * options.group_tolerance else min(numbers)
    groups: list[CacheGroup] = []
    for (weight, kept), number in kinds.items():
        group = CacheGroup(block_tokens=_tokens_of(page, weight, block_tokens), kept_tokens=kept)
        groups += [group] * ceil(number / size)
    for number in state_kinds.values():
        groups += [CacheGroup(block_tokens=0, kept_tokens=None)] * ceil(number / size)
    return CacheLayout.of(page * size, groups, options.widths)


def _tokens_of(page: int, weight: int, block_tokens: int) -> int:
    return page // weight if page % weight == 0 else block_tokens
