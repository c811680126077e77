"""Replicas of a leader and workers that differ, against trying every way."""

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from builders import a_node
from shardgate.adapters.nodes import Shapes, node_from, read_node
from shardgate.domain.inventory import Node
from shardgate.domain.packing import packed

Amounts = tuple[int, int]
"""(GPUs, CPU)."""


def node(index: int) -> Node:
    found = read_node(node_from(a_node(f"n{index}").body), Shapes())
    assert found is not None
    return found


NODES = [node(index) for index in range(4)]


def named(amounts: Amounts) -> dict[str, int]:
    return {"gpu": amounts[0], "cpu": amounts[1]}


def by_trying(nodes: list[Amounts], leader: Amounts, worker: Amounts, workers_each: int, replicas: int) -> int:
    @cache
    def fits(pods: tuple[Amounts, ...], free: tuple[Amounts, ...]) -> bool:
        if not pods:
            return True
        gpus, cpu = pods[0]
        return any(
            fits(pods[1:], (*free[:index], (has[0] - gpus, has[1] - cpu), *free[index + 1 :]))
            for index, has in enumerate(free)
            if has[0] >= gpus and has[1] >= cpu
        )

    return max(
        number for number in range(replicas + 1) if fits((leader,) * number + (worker,) * (number * workers_each), tuple(nodes))
    )


amounts = st.tuples(st.integers(1, 8), st.integers(0, 8))


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12)), min_size=1, max_size=4),
    amounts,
    amounts,
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_as_many_replicas_as_any_way_of_placing_them(
    free: list[Amounts], leader: Amounts, worker: Amounts, workers_each: int, replicas: int
) -> None:
    found = packed(
        [(NODES[index], named(each)) for index, each in enumerate(free)], named(leader), named(worker), workers_each, replicas
    )
    assert found.replicas == found.most == by_trying(free, leader, worker, workers_each, replicas)
    assert (len(found.leaders), len(found.workers)) == (found.replicas, found.replicas * workers_each)
    for index, has in enumerate(free):
        on = [leader] * found.leaders.count(NODES[index]) + [worker] * found.workers.count(NODES[index])
        for held, amount in zip(map(sum, zip(*on, strict=True)) if on else (0, 0), has, strict=True):
            assert held <= amount


def test_a_step_that_costs_nothing_now_may_cost_more_later() -> None:
    """One leader of 1 GPU costs a node of 8 a worker of 4; seven more beside it cost only one more."""
    free = [named((8, 0)) for _ in range(3)]
    found = packed([(NODES[index], each) for index, each in enumerate(free)], named((1, 0)), named((4, 0)), 1, 4)
    assert found.replicas == 4  # all leaders on one node, four workers on the two others
    assert {each.name for each in found.leaders} == {found.leaders[0].name}


def test_budget_spent_is_said() -> None:
    """Too many leaders and nodes to look at every way: what was found, and what no way can exceed."""
    nodes = [(NODES[0], {"gpu": 1, "cpu": 50})] * 500 + [(NODES[1], {"gpu": 3, "cpu": 100})] * 500
    found = packed(nodes, {"gpu": 1, "cpu": 1}, {"gpu": 1, "cpu": 50}, 1, 900)
    assert 0 < found.replicas < found.most == 900
