"""The memory that rings and buffers lie in, as seen from outside the CPU."""

from __future__ import annotations

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
