"""Bytes per token, blocks, tokens, the longest sequence."""

from dataclasses import replace

import pytest

from shardgate.domain.kv_cache import CacheOptions, layout_of
from shardgate.domain.model import Cache, CacheKind
from shardgate.domain.units import GIBI

FULL = Cache(kind=CacheKind.FULL, heads=8, head_elements=256)
WINDOW = Cache(kind=CacheKind.SLIDING, heads=8, head_elements=256, window_tokens=1024)
LATENT = Cache(kind=CacheKind.LATENT, head_elements=576, expanded_heads=128, expanded_head_elements=512)
STATE = Cache(kind=CacheKind.STATE, convolution_elements=3 * 8192, state_elements=32 * 128 * 128, state_units=16)
ONE = CacheOptions(ranks=1, element_bits=16, state_bits=16, block_tokens=16, batched_tokens=8192)


@pytest.mark.parametrize(
    ("ranks", "bits", "bytes_per_token"),
    [(1, 16, 80 * 8 * 256 * 2), (8, 16, 80 * 256 * 2), (16, 16, 80 * 256 * 2), (8, 8, 80 * 256)],
)
def test_heads_are_split_and_a_rank_never_has_less_than_one(ranks: int, bits: int, bytes_per_token: int) -> None:
    layout = layout_of(list({FULL: 80}.items()), replace(ONE, ranks=ranks, element_bits=bits))
    assert layout.bytes_per_token == bytes_per_token


def test_a_latent_is_on_every_rank() -> None:
    """61 layers of 576 elements: 70,272 bytes per token were printed at TP8 and TP16."""
    for ranks in (1, 8, 16):
        assert layout_of(list({LATENT: 61}.items()), replace(ONE, ranks=ranks)).bytes_per_token == 70_272


def test_engines_without_a_latent_cache_keep_expanded_heads() -> None:
    """DeepSeek-V2-Lite at TP2 on vLLM 0.5.1: 221,184 bytes per token (issue 6211)."""
    lite = replace(LATENT, expanded_heads=16)
    assert layout_of(list({lite: 27}.items()), replace(ONE, ranks=2, caches_latents=False)).bytes_per_token == 221_184


def test_the_index_of_sparse_attention_does_not_follow_the_caches_type() -> None:
    index = Cache(kind=CacheKind.INDEX, fixed_bytes=132)
    assert layout_of(list({LATENT: 61, index: 61}.items()), replace(ONE, element_bits=8)).bytes_per_token == 61 * (576 + 132)


def test_a_latent_beside_an_index_has_a_format_of_its_own_in_8_bits() -> None:
    sparse = replace(LATENT, bytes_at_8_bits=656)
    assert layout_of([(sparse, 61)], replace(ONE, element_bits=8)).bytes_per_token == 61 * 656
    assert layout_of([(sparse, 61)], ONE).bytes_per_token == 61 * 1152


def test_decode_context_spreads_a_sequence() -> None:
    plain, spread = (layout_of(list({LATENT: 61}.items()), replace(ONE, widths=widths)) for widths in (1, 8))
    assert spread.tokens(40 * GIBI) == pytest.approx(8 * plain.tokens(40 * GIBI), rel=0.001)
    assert spread.bytes_for(8000) == pytest.approx(plain.bytes_for(1000))


# ---- windows (figures printed by vLLM 0.19, tests/data/memory_cases.json)


def test_kinds_of_layers_make_groups_of_the_rarer_ones_size() -> None:
    """Gemma 3 27B: 52 layers with a window and 10 without make 7 groups of 10, so 573,440 bytes a token."""
    full, window = (replace(each, heads=16) for each in (FULL, WINDOW))
    layout = layout_of(list({window: 52, full: 10}.items()), ONE)
    assert len(layout.groups) == 7
    assert layout.bytes_per_token == 573_440
    assert layout.tokens(19.53 * GIBI) == pytest.approx(36_560, rel=0.001)


def test_nearly_as_many_make_one_size_where_the_version_pads() -> None:
    layers = {replace(WINDOW, window_tokens=128): 13, FULL: 12}
    assert len(layout_of(layers.items(), ONE).groups) == 3
    assert len(layout_of(layers.items(), replace(ONE, group_tolerance=1.25)).groups) == 2


def test_a_window_keeps_itself_and_one_step() -> None:
    layout = layout_of(list({WINDOW: 10, FULL: 10}.items()), replace(ONE, batched_tokens=2048))
    full = layout.block_bytes * (100_000 // 16)
    window = layout.block_bytes * (-(-(1023 + 2048) // 16) + 1)
    assert layout.bytes_for(100_000) == full + window


def test_without_groups_a_window_is_cached_as_if_it_were_none() -> None:
    layout = layout_of(list({WINDOW: 10, FULL: 10}.items()), replace(ONE, groups_hybrid_layers=False))
    assert layout.bytes_for(100_000) == 20 * 8 * 256 * 2 * 100_000


def test_a_pool_of_its_own_holds_fewer_tokens_of_windows() -> None:
    layout = layout_of(list({WINDOW: 10, FULL: 10}.items()), replace(ONE, block_tokens=1, window_full_ratio=0.8))
    assert layout.bytes_per_token == 8 * 256 * 2 * (10 + 8)


def test_tokens_may_be_counted_by_sequences_of_the_full_length() -> None:
    layout = layout_of(list({WINDOW: 50, FULL: 10}.items()), ONE)
    pool = 50 * GIBI
    assert layout.tokens(pool, 131_072) > 4 * layout.tokens(pool)
    assert layout.tokens(pool, 131_072) == int(pool / layout.bytes_for(131_072) * 131_072)


# ---- states


def test_a_block_of_tokens_is_made_as_large_as_a_state() -> None:
    layout = layout_of(list({STATE: 30, replace(FULL, heads=2, head_elements=512): 10}.items()), ONE)
    assert len(layout.groups) == 4
    assert layout.block_tokens % 16 == 0
    assert layout.block_bytes // 10 >= 3 * 8192 * 2 + 32 * 128 * 128 * 2
    assert layout.bytes_for(1) == 4 * layout.block_bytes


def test_states_may_have_a_pool_of_their_own() -> None:
    plain, hybrid = (
        layout_of(layers, replace(ONE, block_tokens=1, window_full_ratio=0.8))
        for layers in ([(FULL, 10)], [(FULL, 10), (STATE, 30)])
    )
    assert hybrid.bytes_per_token == pytest.approx(1.9 * plain.bytes_per_token, rel=1e-3)


# ---- pools


def test_tokens_come_in_whole_blocks() -> None:
    layout = layout_of(list({FULL: 32}.items()), ONE)
    assert layout.tokens(layout.block_bytes * 10.9) == 160
    assert layout.tokens(-5) == layout.tokens(0) == 0


def test_the_longest_sequence_that_fits() -> None:
    """Qwen3-4B in 4.89 GiB: the engine estimated 35,600 tokens (vLLM issue 38516)."""
    layout = layout_of(list({FULL: 36}.items()), ONE)
    assert layout.longest(4.89 * GIBI, 40_960) == pytest.approx(35_600, rel=0.001)
    assert layout.longest(100 * GIBI, 40_960) == 40_960
    assert layout.longest(0, 40_960) == 0


def test_a_model_without_a_cache_needs_no_pool() -> None:
    layout = layout_of(list({}.items()), ONE)
    assert layout.bytes_for(8192) == 0
    assert layout.longest(0, 8192) == 8192
