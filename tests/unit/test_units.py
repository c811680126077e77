from shardgate.domain.units import count, gb, gib


def test_amounts_read_as_engines_and_model_cards_print_them() -> None:
    assert gib(18_164_105_216) == "16.9 GiB"
    assert gb(141_107_412_992) == "141.1 GB"


def test_counts_agree_with_their_nouns() -> None:
    assert count(1, "GPU") == "1 GPU"
    assert count(8, "GPU") == "8 GPUs"
    assert count(2, "entry", "entries") == "2 entries"
