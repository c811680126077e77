import pytest

from shardgate.adapters.quantities import QuantityError, resources, whole


@pytest.mark.parametrize(
    ("resource", "value", "up", "expected"),
    [
        ("nvidia.com/gpu", "8", False, 8),
        ("nvidia.com/gpu", 8, False, 8),
        ("nvidia.com/gpu", "8000m", False, 8),
        ("nvidia.com/gpu", "1500m", False, 1),
        ("nvidia.com/gpu", "1500m", True, 2),
        ("cpu", "3500m", False, 3500),
        ("cpu", "4", False, 4000),
        ("cpu", 0.5, True, 500),
        ("memory", "64Gi", False, 64 << 30),
        ("memory", "1e3", False, 1000),
    ],
)
def test_quantities_are_whole_numbers(resource: str, value: str | float, up: bool, expected: int) -> None:
    assert whole(resource, value, up=up) == expected


@pytest.mark.parametrize("value", ["", "x", "8 GPUs", "1Gx", "--1", "8\n9"])
def test_what_is_no_quantity_is_an_error(value: str) -> None:
    with pytest.raises(QuantityError):
        whole("memory", value)


def test_a_missing_list_is_empty() -> None:
    assert resources(None) == {}
