"""Segment descriptors and the privileged stacks of the TSS (Intel SDM volume 3, sections 3.4.5 and 8.2)."""

from __future__ import annotations

from typing import Final

from iovirt_dist.guest.x86.faults import (
    GENERAL_PROTECTION,
    INVALID_TSS,
    SEGMENT_NOT_PRESENT,
    STACK_FAULT,
    Fault,
)
from iovirt_dist.guest.x86.paging import Mmu
from iovirt_dist.guest.x86.state import (
    ATTRIBUTE_ACCESSED,
    ATTRIBUTE_CODE,
    ATTRIBUTE_CONFORMING,
    ATTRIBUTE_G,
    ATTRIBUTE_P,
    ATTRIBUTE_S,
    ATTRIBUTE_WRITABLE,
    CpuState,
    Segment,
)

_TSS_TYPE_32BIT: Final = 1 << 11  # type 9 or Bh; a 16-bit TSS has type 1 or 3
_ATTRIBUTE_MASK: Final = 0x00F0_FF00


def fetch_descriptor(mmu: Mmu, state: CpuState, selector: int, fault: Fault) -> Segment:
    """Read the descriptor that `selector` names.

    Raises:
        Fault: `fault` when it lies beyond its table, or the page fault of reading it.
    """
    table = state.ldtr if selector & 4 else state.gdtr
    offset = selector & 0xFFF8
    if offset + 7 > table.limit or (selector & 4 and not table.selector & 0xFFFC):
        raise fault
    raw = int.from_bytes(mmu.read(state, table.base + offset, 8), "little")
    low, high = raw & 0xFFFF_FFFF, raw >> 32
    limit = (low & 0xFFFF) | (high & 0xF0000)
    if high & ATTRIBUTE_G:
        limit = limit << 12 | 0xFFF
    base = low >> 16 | (high & 0xFF) << 16 | (high & 0xFF00_0000)
    return Segment(selector, base, limit, high & _ATTRIBUTE_MASK)


def load_handler_code(mmu: Mmu, state: CpuState, selector: int, external: int) -> tuple[Segment, int]:
    """Check and read the code segment of an interrupt gate.

    Returns:
        The segment with RPL set to the new privilege level, and that level.

    Raises:
        Fault: #GP or #NP (section 7.12.1.1).
    """
    if not selector & 0xFFFC:
        raise Fault(GENERAL_PROTECTION, external)
    refusal = Fault(GENERAL_PROTECTION, (selector & 0xFFFC) | external)
    code = fetch_descriptor(mmu, state, selector, refusal)
    if code.attributes & (ATTRIBUTE_S | ATTRIBUTE_CODE) != ATTRIBUTE_S | ATTRIBUTE_CODE or code.dpl > state.cpl:
        raise refusal
    if not code.attributes & ATTRIBUTE_P:
        raise Fault(SEGMENT_NOT_PRESENT, (selector & 0xFFFC) | external)
    level = state.cpl if code.attributes & ATTRIBUTE_CONFORMING else code.dpl
    if state.virtual_8086 and level != 0:
        raise refusal
    mark_accessed(mmu, state, code)
    return code._replace(selector=(selector & 0xFFFC) | level), level


def load_inner_stack(mmu: Mmu, state: CpuState, level: int, external: int) -> tuple[Segment, int]:
    """Read the stack of privilege level `level` from the 32-bit or 16-bit TSS.

    Returns:
        The stack segment and the stack pointer.

    Raises:
        Fault: #TS, #SS or a page fault.
    """
    wide = bool(state.tr.attributes & _TSS_TYPE_32BIT)
    offset = 4 + 8 * level if wide else 2 + 4 * level
    length = 6 if wide else 4
    if offset + length - 1 > state.tr.limit or not state.tr.attributes & ATTRIBUTE_P:
        raise Fault(INVALID_TSS, (state.tr.selector & 0xFFFC) | external)
    raw = mmu.read(state, state.tr.base + offset, length)
    pointer, selector = int.from_bytes(raw[:-2], "little"), int.from_bytes(raw[-2:], "little")
    if not selector & 0xFFFC:
        raise Fault(INVALID_TSS, external)
    refusal = Fault(INVALID_TSS, (selector & 0xFFFC) | external)
    stack = fetch_descriptor(mmu, state, selector, refusal)
    kind = stack.attributes & (ATTRIBUTE_S | ATTRIBUTE_CODE | ATTRIBUTE_WRITABLE)
    if selector & 3 != level or stack.dpl != level or kind != ATTRIBUTE_S | ATTRIBUTE_WRITABLE:
        raise refusal
    if not stack.attributes & ATTRIBUTE_P:
        raise Fault(STACK_FAULT, (selector & 0xFFFC) | external)
    mark_accessed(mmu, state, stack)
    return stack, pointer


def mark_accessed(mmu: Mmu, state: CpuState, segment: Segment) -> None:
    """Set the accessed bit in the descriptor that `segment` was read from."""
    if segment.attributes & ATTRIBUTE_ACCESSED:
        return
    table = state.ldtr if segment.selector & 4 else state.gdtr
    kind_address = table.base + (segment.selector & 0xFFF8) + 5
    mmu.write(state, kind_address, bytes([segment.attributes >> 8 & 0xFF | 1]))
