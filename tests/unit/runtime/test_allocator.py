"""The allocator's settings."""

from __future__ import annotations

import platform

import pytest

from iovirt_dist.runtime.allocator import KEPT_BYTES, LARGEST_BYTES, keep_memory


class Library:
    """A C library that notes what it is told.

    Args:
        result: Of every call; 1 is success.
    """

    def __init__(self, result: int = 1) -> None:
        self.told: list[tuple[int, int]] = []
        self._result = result

    def mallopt(self, option: int, value: int) -> int:
        """Take a setting."""
        self.told.append((option, value))
        return self._result


def test_memory_is_kept_by_two_settings() -> None:
    """M_MMAP_THRESHOLD (-3) and M_TRIM_THRESHOLD (-1) of malloc.h."""
    library = Library()

    assert keep_memory(library)
    assert library.told == [(-3, LARGEST_BYTES), (-1, KEPT_BYTES)]


@pytest.mark.parametrize("library", [object(), Library(result=0)])
def test_library_without_the_settings_is_no_error(library: object) -> None:
    """As musl is."""
    assert not keep_memory(library)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other settings")
def test_this_process_takes_the_settings() -> None:
    """The values are within what glibc allows."""
    assert keep_memory()
