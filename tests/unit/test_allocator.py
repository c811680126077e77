"""What glibc is told, and that others are not."""

import ctypes
import platform

import pytest

from shardgate.shells.allocator import give_back_large_blocks


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is of glibc")
def test_glibc_takes_it() -> None:
    assert give_back_large_blocks()


def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not give_back_large_blocks()
