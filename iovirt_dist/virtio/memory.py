"""The memory that rings and buffers lie in, as seen from outside the CPU."""

from __future__ import annotations

import mmap
from typing import Protocol

from iovirt_dist.errors import LocalError


class MemoryRangeError(LocalError):
    """An address range is not, or not wholly, memory that a device may reach."""


class GuestMemory(Protocol):
    """Guest physical memory. The addresses come from the guest: any value may be asked for.

    Each method raises `MemoryRangeError` unless the whole range lies in one piece of RAM; a length of 0 is none of an
    error anywhere inside RAM. Called from one thread at a time.
    """

    def read(self, address: int, length: int) -> bytes:
        """Return a copy."""
        ...

    def view(self, address: int, length: int) -> memoryview:
        """Return the memory itself, for reading; the guest may change it later."""
        ...

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write, as DMA does: the CPU executes what is written if it jumps there later."""
        ...


class ByteMemory:
    """`GuestMemory` of script guests and of tests. What was never touched takes no memory of the host.

    Args:
        size_bytes: Its length, above 0.
        base: Guest physical address of its first byte.

    Attributes:
        data: All of it, zeroes at first.
    """

    __slots__ = ("_pages", "base", "data", "size_bytes")

    def __init__(self, size_bytes: int, base: int = 0) -> None:
        self._pages = mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.data = memoryview(self._pages)
        self.base = base
        self.size_bytes = size_bytes

    def clear(self) -> None:
        """Make all of it zeroes again, and give it back to the host (madvise(2), MADV_DONTNEED)."""
        self._pages.madvise(mmap.MADV_DONTNEED)

    def read(self, address: int, length: int) -> bytes:
        """Return a copy.

        Raises:
            MemoryRangeError: As `GuestMemory` says.
        """
        return bytes(self.view(address, length))

    def view(self, address: int, length: int) -> memoryview:
        """Return the memory itself; a change to either is a change to both.

        Raises:
            MemoryRangeError: As `GuestMemory` says.
        """
        start = address - self.base
        if start < 0 or length < 0 or start + length > self.size_bytes:
            raise MemoryRangeError("not wholly in RAM", f"{length} bytes at {address:#x}")
        return self.data[start : start + length]

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write.

        Raises:
            MemoryRangeError: As `GuestMemory` says; nothing is written then.
        """
        start = address - self.base
        end = start + len(data)
        if start < 0 or end > self.size_bytes:
            raise MemoryRangeError("not wholly in RAM", f"{len(data)} bytes at {address:#x}")
        self.data[start:end] = data
