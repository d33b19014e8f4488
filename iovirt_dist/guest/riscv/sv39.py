"""Sv39 translation of an instruction address (RISC-V Privileged ISA 1.10, section 4.4).

The emulator translates by itself while it runs. This walk serves only to read the instruction that has just
trapped, so rights are not checked again and no accessed bit is set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from iovirt_dist.errors import LocalError

PAGE_SHIFT: Final = 12
_LEVELS: Final = 3
_INDEX_BITS: Final = 9
_SATP_MODE_SV39: Final = 8
_PPN_MASK: Final = (1 << 44) - 1
_VALID, _READ, _EXECUTE = 1, 2, 8

ReadMemory = Callable[[int, int], bytes]
"""(physical address, length) -> bytes; LocalError outside RAM."""


def translate(read_memory: ReadMemory, satp: int, address: int) -> int | None:
    """Return the physical address, or None if no valid leaf maps `address`.

    Args:
        read_memory: Access to physical RAM.
        satp: The register; any mode but Sv39 passes for Bare.
        address: Virtual address.
    """
    if satp >> 60 != _SATP_MODE_SV39:
        return address
    table = (satp & _PPN_MASK) << PAGE_SHIFT
    for level in reversed(range(_LEVELS)):
        shift = PAGE_SHIFT + level * _INDEX_BITS
        index = address >> shift & ((1 << _INDEX_BITS) - 1)
        try:
            entry = int.from_bytes(read_memory(table + 8 * index, 8), "little")
        except LocalError:
            return None
        if not entry & _VALID:
            return None
        target = (entry >> 10 & _PPN_MASK) << PAGE_SHIFT
        if entry & (_READ | _EXECUTE):
            return target & -(1 << shift) | address & ((1 << shift) - 1)
        table = target
    return None
