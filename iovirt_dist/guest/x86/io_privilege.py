"""The facts that decide whether an I/O instruction may complete (Intel SDM volume 1, section 19.5).

The CPU only reports: level, IOPL and the I/O permission bitmap. The hypervisor's `privilege` room decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from iovirt_dist.guest.bus import IoPrivilege
from iovirt_dist.guest.x86.faults import Fault
from iovirt_dist.guest.x86.paging import Mmu
from iovirt_dist.guest.x86.state import ATTRIBUTE_P, CpuState

_TSS_32BIT_TYPES: Final = frozenset({9, 11})
_MAP_BASE_OFFSET: Final = 0x66
_MINIMUM_TSS_LIMIT: Final = 0x67


def bitmap_permits(mmu: Mmu, state: CpuState, port: int, width: int) -> bool:
    """Whether the TSS I/O permission bitmap allows all of ``port .. port + width - 1`` (section 19.5.2).

    The bitmap exists in 32-bit TSSs only; the two bytes that hold the bits must lie within the TSS limit.

    Raises:
        Fault: The page fault of reading the TSS.
    """
    tss = state.tr
    kind = tss.attributes >> 8 & 0xF
    if kind not in _TSS_32BIT_TYPES or not tss.attributes & ATTRIBUTE_P or tss.limit < _MINIMUM_TSS_LIMIT:
        return False
    base = int.from_bytes(mmu.read(state, tss.base + _MAP_BASE_OFFSET, 2), "little")
    offset = base + (port >> 3)
    if offset + 1 > tss.limit:
        return False
    bits = int.from_bytes(mmu.read(state, tss.base + offset, 2), "little")
    return not bits >> (port & 7) & ((1 << width) - 1)


def io_privilege(
    mmu: Mmu, level: tuple[int, int, bool], capture: Callable[[], CpuState], port: int, width: int
) -> IoPrivilege:
    """Return what the bus is told about an I/O instruction.

    The bitmap is looked up only where it counts: at a level above IOPL, and always in virtual-8086 mode, which is
    reported with IOPL 0 because IOPL does not allow I/O there. A page fault on the TSS counts as "not permitted".

    Args:
        mmu: Access to the TSS.
        level: Privilege level, IOPL, and whether virtual-8086 mode is on.
        capture: Returns the whole state; called only when the bitmap counts.
        port: First port.
        width: Bytes, 1, 2 or 4.
    """
    cpl, iopl, virtual_8086 = level
    if cpl <= iopl and not virtual_8086:
        return IoPrivilege(cpl, iopl)
    try:
        permitted = bitmap_permits(mmu, capture(), port, width)
    except Fault:
        permitted = False
    return IoPrivilege(cpl, 0 if virtual_8086 else iopl, permitted)
