"""The limit is that of the control group, in both of its versions; what is no limit is 0."""

from pathlib import Path

import pytest

from shardgate.shells.memory_limit import memory_limit_bytes


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("memory.max", "268435456\n", 268435456),
        ("memory.max", "max\n", 0),
        ("memory/memory.limit_in_bytes", "268435456\n", 268435456),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", 0),
        ("memory.stat", "anon 1\n", 0),
    ],
)
def test_the_limit(tmp_path: Path, name: str, text: str, expected: int) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    assert memory_limit_bytes(tmp_path) == expected
