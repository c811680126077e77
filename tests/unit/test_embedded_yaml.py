"""YAML in texts of objects: what is usual is read, what was made to take long is none."""

import pytest
import yaml

from shardgate.adapters.workloads.embedded_yaml import MOST_DEPTH, MOST_NODES, read_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


def test_what_is_usual_is_read() -> None:
    assert read_yaml("a: &x {b: [1, 2.5, true]}\nc: *x\n") == {"a": {"b": [1, 2.5, True]}, "c": {"b": [1, 2.5, True]}}
    assert read_yaml("") is None
    assert read_yaml("[" * MOST_DEPTH + "]" * MOST_DEPTH) is not None


@pytest.mark.parametrize(
    "text",
    [
        "a: {b: " + "[" * 1100,
        "[" * 100_000,
        "[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1),
        "- " * 2000 + "x",
        BOMB,
        "&a [*a]",
        "&a {b: *a}",
        "[" + "x, " * MOST_NODES + "x]",
        "a: 2024-13-45",
        "a: [",
        "a: *b",
        "a: 1\n---\nb: 2",
    ],
    ids=lambda text: text[:20],
)
def test_what_is_none_or_would_not_end_is_told(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        read_yaml(text)
