import pytest

from shardgate.domain.strategy import ParallelStrategy, layers_of_stages


def test_the_reference_strategy_is_eight_ranks_tensor_fastest() -> None:
    strategy = ParallelStrategy(tensor=2, pipeline=4)
    assert strategy.ranks_per_replica == 8
    assert strategy.label == "TP2 x PP4 x DP1"
    groups = [[rank.number for rank in strategy.ranks() if rank.stage == stage] for stage in range(4)]
    assert groups == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize(
    ("widths", "ranks"),
    [
        ({"tensor": 4, "data": 2}, 8),
        ({"tensor": 4, "data": 4, "attention_data": True}, 4),
        ({"tensor": 4, "data": 8, "load_balancing": "external"}, 4),
        ({"tensor": 2, "prefill_context": 2}, 4),
        ({"tensor": 8, "decode_context": 4}, 8),
        ({"tensor": 2, "data": 4, "expert_parallel": True}, 8),
    ],
)
def test_only_some_widths_multiply(widths: dict[str, int], ranks: int) -> None:
    strategy = ParallelStrategy(**widths)  # type: ignore[arg-type]
    assert strategy.ranks_per_replica == ranks
    assert [rank.number for rank in strategy.ranks()] == list(range(ranks))


def test_eighty_layers_on_four_stages() -> None:
    assert layers_of_stages(80, ParallelStrategy(pipeline=4)) == (range(20), range(20, 40), range(40, 60), range(60, 80))


def test_a_remainder_goes_before_the_last_stage() -> None:
    assert [len(stage) for stage in layers_of_stages(82, ParallelStrategy(pipeline=4))] == [20, 21, 21, 20]


def test_declared_stages_are_taken_as_they_are() -> None:
    strategy = ParallelStrategy(pipeline=4, layers_per_stage=(20, 20, 21, 19))
    assert [len(stage) for stage in layers_of_stages(80, strategy)] == [20, 20, 21, 19]
