"""Laws of what a driver's word on health takes away."""

from hypothesis import given
from hypothesis import strategies as st

from builders import GPU, a_node, a_report, a_reported_gpu, an_inventory

STATES = st.lists(st.sampled_from(["Healthy", "Unhealthy", "Lost", "Unknown"]), min_size=1, max_size=8)
COUNTS = st.integers(0, 8).flatmap(lambda capacity: st.tuples(st.just(capacity), st.integers(0, capacity)))


def offered(counts: tuple[int, int], states: list[str]) -> tuple[int, int]:
    """(allocatable, unavailable) of a node that the kubelet and the driver count like this."""
    capacity, allocatable = counts
    report = a_report("node-a", *(a_reported_gpu(index, state=state) for index, state in enumerate(states)))
    (node,) = an_inventory(report, a_node(gpus=capacity).allocatable(allocatable)).nodes
    return node.allocatable[GPU], node.unavailable_gpus.get(GPU, 0)


def fit(states: list[str]) -> int:
    return sum(state in ("Healthy", "Unknown") for state in states)


@given(COUNTS, STATES)
def test_a_report_never_makes_a_node_offer_more(counts: tuple[int, int], states: list[str]) -> None:
    assert 0 <= offered(counts, states)[0] <= counts[1]


@given(COUNTS, STATES)
def test_no_more_is_offered_than_is_healthy_where_the_driver_sees_all(counts: tuple[int, int], states: list[str]) -> None:
    if counts[0] and len(states) >= counts[0]:
        assert offered(counts, states)[0] <= fit(states)


@given(COUNTS, STATES)
def test_what_is_registered_is_offered_or_unavailable(counts: tuple[int, int], states: list[str]) -> None:
    allocatable, unavailable = offered(counts, states)
    assert allocatable + unavailable >= counts[0]


@given(COUNTS, STATES, st.data())
def test_one_more_failure_never_gives_more(counts: tuple[int, int], states: list[str], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(states) - 1))
    worse = [*states[:index], "Lost", *states[index + 1 :]]
    assert offered(counts, worse)[0] <= offered(counts, states)[0]
