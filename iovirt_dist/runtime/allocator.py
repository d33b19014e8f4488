"""Settings of the C library's allocator, for processes that pass large payloads on.

A payload of 64 KiB or more lives for one step: it is allocated, filled, sent and freed. By default glibc gives such
memory back to the kernel and asks for it again, and each page of it is then zeroed and mapped anew: measured, 240 page
faults and half of the processor time of a 1 MiB read. So it is told to keep what was in use once.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

KEPT_BYTES: Final = 128 << 20
"""Free memory at the end of the heap up to which nothing is given back."""
LARGEST_BYTES: Final = 32 << 20
"""Requests below it are served from the heap; glibc takes no more (HEAP_MAX_SIZE / 2)."""

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3


def keep_memory(library: Any = None) -> bool:
    """Let freed memory stay with the process (mallopt(3)); once, at its start.

    Args:
        library: The C library; the one that this process uses if None.

    Returns:
        False if it has no such settings (musl) or does not take them: nothing is wrong then, only slower.
    """
    mallopt = getattr(library or ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_THRESHOLD, LARGEST_BYTES), (_M_TRIM_THRESHOLD, KEPT_BYTES))
    return [mallopt(option, value) for option, value in settings] == [1, 1]
