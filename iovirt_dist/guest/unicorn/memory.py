"""RAM of a Unicorn engine as devices see it.

Reads are slices of the host memory behind it. A write copies into it and then discards the code that Unicorn has
translated from there (`translations`): 1.4 us for 4 KiB, of which the copy takes 0.2.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import NamedTuple

from iovirt_dist.guest.unicorn.translations import Translations
from iovirt_dist.virtio.memory import MemoryRangeError


class _Region(NamedTuple):
    """Guest physical `start`, inclusive, to `end`, exclusive; RAM address of `start` in Unicorn's own numbering."""

    start: int
    end: int
    ram_start: int
    memory: memoryview
    shown: memoryview


class UnicornMemory:
    """RAM, not ROM; implements `iovirt_dist.virtio.memory.GuestMemory`.

    For the thread that runs the engine, between two runs or inside a hook.

    Args:
        translations: The engine's.
    """

    def __init__(self, translations: Translations) -> None:
        self._translations = translations
        self._discard = translations.discard
        self._regions: list[_Region] = []

    def add(self, start: int, memory: mmap.mmap) -> None:
        """Take a region that Unicorn has mapped at `start`."""
        ram_start = self._translations.ram_address(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
        view = memoryview(memory)
        self._regions.append(_Region(start, start + len(memory), ram_start, view, view.toreadonly()))

    def read(self, address: int, length: int) -> bytes:
        """Return a copy.

        Raises:
            MemoryRangeError: As `GuestMemory` says.
        """
        return bytes(self.view(address, length))

    def view(self, address: int, length: int) -> memoryview:
        """Return the memory itself, for reading; it stays valid as long as somebody holds it.

        Raises:
            MemoryRangeError: As `GuestMemory` says.
        """
        if length >= 0:
            for start, end, _, _, shown in self._regions:
                if start <= address and address + length <= end:
                    return shown[address - start : address - start + length]
        raise MemoryRangeError("not wholly in RAM", f"{length} bytes at {address:#x}")

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write, and forget what was translated from there.

        Raises:
            MemoryRangeError: As `GuestMemory` says; nothing is written then.
        """
        length = len(data)
        for start, end, ram_start, memory, _ in self._regions:
            if start <= address and address + length <= end:
                offset = address - start
                memory[offset : offset + length] = data
                self._discard(ram_start + offset, ram_start + offset + length)
                return
        raise MemoryRangeError("not wholly in RAM", f"{length} bytes at {address:#x}")
