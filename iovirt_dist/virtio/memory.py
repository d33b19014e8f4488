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


class ByteMemory:
    """`GuestMemory` that is a bytearray: the memory of script guests and of tests.

    Args:
        size_bytes: Its length.
        base: Guest physical address of its first byte.
    """

    __slots__ = ("_view", "base", "data", "size_bytes")

    def __init__(self, size_bytes: int, base: int = 0) -> None:
        self.data = bytearray(size_bytes)
        self.base = base
        self.size_bytes = size_bytes
        self._view = memoryview(self.data)

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
        return self._view[start : start + length]

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write.

        Raises:
            MemoryRangeError: As `GuestMemory` says; nothing is written then.
        """
        start = address - self.base
        end = start + len(data)
        if start < 0 or end > self.size_bytes:
            raise MemoryRangeError("not wholly in RAM", f"{len(data)} bytes at {address:#x}")
        self._view[start:end] = data
