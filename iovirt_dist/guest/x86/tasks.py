"""The hardware task switch of an interrupt or exception through a task gate (Intel SDM volume 3, section 8.3).

Operating systems use it for double faults: a new task has a stack of its own, whatever became of the old one. All
other task switches (JMP, CALL and IRET) are instructions, which the engine executes by itself.

The switch has a point of no return. Faults before it leave the interrupted task as it was; faults behind it, such as a
bad segment in the new task, belong to the new task (table 8-1). Not modelled: the T bit of a TSS (debug trap) and the
local breakpoints of DR7.
"""

from __future__ import annotations

import struct
from typing import Final

from iovirt_dist.guest.x86.descriptors import fetch_descriptor, mark_accessed
from iovirt_dist.guest.x86.faults import (
    GENERAL_PROTECTION,
    INVALID_TSS,
    SEGMENT_NOT_PRESENT,
    STACK_FAULT,
    Fault,
)
from iovirt_dist.guest.x86.paging import Mmu
from iovirt_dist.guest.x86.state import (
    ATTRIBUTE_CODE,
    ATTRIBUTE_CONFORMING,
    ATTRIBUTE_P,
    ATTRIBUTE_READABLE,
    ATTRIBUTE_S,
    ATTRIBUTE_WRITABLE,
    CR0_PG,
    CR0_TS,
    CS,
    DS,
    ES,
    FS,
    GS,
    NT,
    SS,
    VM,
    CpuState,
    Segment,
)

# What a TSS keeps: (CR3,) EIP, EFLAGS, 8 general registers, ES, CS, SS, DS(, FS, GS); LDT follows (figures 8-2, 8-10)
_TASK_32: Final = struct.Struct("<10I" + 6 * "H2x")
_TASK_16: Final = struct.Struct("<10H4H")
_TASK_OFFSET_32: Final = 32
_TASK_OFFSET_16: Final = 14
_CR3_OFFSET: Final = 28
_LDT_OFFSET_32: Final = 96
_LDT_OFFSET_16: Final = 42
_LAST_BYTE_32: Final = 0x67
_LAST_BYTE_16: Final = 0x2B

_TYPE_MASK: Final = 0x1F00
_AVAILABLE_16: Final = 0x0100
_AVAILABLE_32: Final = 0x0900
_BUSY: Final = 0x0200
_WIDE: Final = 0x0800
_TYPE_LDT: Final = 0x0200
_VIRTUAL_8086_SEGMENT: Final = 0xF300
_UPPER_HALF: Final = 0xFFFF_0000  # of registers that a 16-bit task does not define
_TASK_EFLAGS: Final = 0x003F_7FD7
_ALWAYS_SET: Final = 2


def switch_task(mmu: Mmu, state: CpuState, selector: int, eflags: int, external: int) -> bool:
    """Save the current task in its TSS and make `state` that of the new task, nested in the old one.

    Args:
        mmu: Linear memory.
        state: Changed; CR0 and CR3 too.
        selector: TSS selector of the task gate.
        eflags: EFLAGS to be saved in the old TSS.
        external: EXT bit of error codes.

    Returns:
        Whether the new task has a 32-bit TSS, and so a 32-bit error code.

    Raises:
        Fault: #GP, #NP, #TS or a page fault of the old task; #TS, #NP, #SS or a page fault of the new task.
    """
    task = _find_task(mmu, state, selector, external)
    wide = bool(task.attributes & _WIDE)
    image = mmu.read(state, task.base, (_LAST_BYTE_32 if wide else _LAST_BYTE_16) + 1)
    mmu.translate(state, task.base, write=True, user=False)
    _save(mmu, state, eflags, external)
    mmu.write(state, task.base, struct.pack("<H", state.tr.selector))
    _mark_busy(mmu, state, task)
    state.tr = task._replace(attributes=task.attributes | _BUSY)
    state.cr0 |= CR0_TS
    selectors, local_table = _load_registers(state, image, wide)
    state.eflags |= NT
    _load_segments(mmu, state, selectors, local_table, external)
    return wide


def _find_task(mmu: Mmu, state: CpuState, selector: int, external: int) -> Segment:
    """Read the descriptor of an available TSS."""
    error_code = (selector & 0xFFFC) | external
    refusal = Fault(GENERAL_PROTECTION, error_code)
    if selector & 4 or not selector & 0xFFFC:
        raise refusal
    task = fetch_descriptor(mmu, state, selector & 0xFFFC, refusal)
    kind = task.attributes & _TYPE_MASK
    if kind not in {_AVAILABLE_16, _AVAILABLE_32}:
        raise refusal
    if not task.attributes & ATTRIBUTE_P:
        raise Fault(SEGMENT_NOT_PRESENT, error_code)
    if task.limit < (_LAST_BYTE_32 if kind == _AVAILABLE_32 else _LAST_BYTE_16):
        raise Fault(INVALID_TSS, error_code)
    return task


def _save(mmu: Mmu, state: CpuState, eflags: int, external: int) -> None:
    """Write the dynamic fields of the current TSS."""
    wide = bool(state.tr.attributes & _WIDE)
    if state.tr.limit < (_LAST_BYTE_32 if wide else _LAST_BYTE_16) or not state.tr.attributes & ATTRIBUTE_P:
        raise Fault(INVALID_TSS, (state.tr.selector & 0xFFFC) | external)
    values = [state.eip, eflags, *state.registers]
    selectors = [segment.selector for segment in state.segments]  # in the order of a TSS: ES, CS, SS, DS, FS, GS
    if wide:
        mmu.write(state, state.tr.base + _TASK_OFFSET_32, _TASK_32.pack(*values, *selectors))
    else:
        words = [value & 0xFFFF for value in values]
        mmu.write(state, state.tr.base + _TASK_OFFSET_16, _TASK_16.pack(*words, *selectors[:4]))


def _mark_busy(mmu: Mmu, state: CpuState, task: Segment) -> None:
    kind = (task.attributes | _BUSY) >> 8 & 0xFF
    mmu.write(state, state.gdtr.base + (task.selector & 0xFFF8) + 5, bytes([kind]))


def _load_registers(state: CpuState, image: bytes, wide: bool) -> tuple[list[int], int]:
    """Load what needs no descriptor; return the selectors of ES, CS, SS, DS, FS, GS, and that of the LDT."""
    if wide:
        values = list(_TASK_32.unpack_from(image, _TASK_OFFSET_32))
        selectors, local_offset = values[10:], _LDT_OFFSET_32
        if state.cr0 & CR0_PG:
            state.cr3 = int.from_bytes(image[_CR3_OFFSET : _CR3_OFFSET + 4], "little")
    else:
        words = _TASK_16.unpack_from(image, _TASK_OFFSET_16)
        values = [*words[:2], *(word | _UPPER_HALF for word in words[2:10])]
        selectors, local_offset = [*words[10:], 0, 0], _LDT_OFFSET_16
    state.eip = values[0]
    state.eflags = (values[1] & _TASK_EFLAGS) | _ALWAYS_SET
    state.registers = values[2:10]
    return selectors, int.from_bytes(image[local_offset : local_offset + 2], "little")


def _load_segments(mmu: Mmu, state: CpuState, selectors: list[int], local_table: int, external: int) -> None:
    """Load LDTR and the segment registers; those not reached when a fault is raised hold no segment."""
    state.segments = [Segment(selector, 0, 0, 0) for selector in selectors]
    state.ldtr = Segment(local_table, 0, 0, 0)
    state.cpl = 3 if state.eflags & VM else selectors[CS] & 3
    if local_table & 0xFFFC:
        state.ldtr = _local_table(mmu, state, local_table, external)
    if state.eflags & VM:
        state.segments = [Segment(value, value << 4, 0xFFFF, _VIRTUAL_8086_SEGMENT) for value in selectors]
        return
    state.segments[CS] = _code(mmu, state, selectors[CS], external)
    state.segments[SS] = _stack(mmu, state, selectors[SS], external)
    for index in (DS, ES, FS, GS):
        if selectors[index] & 0xFFFC:
            state.segments[index] = _data(mmu, state, selectors[index], external)


def _local_table(mmu: Mmu, state: CpuState, selector: int, external: int) -> Segment:
    refusal = Fault(INVALID_TSS, (selector & 0xFFFC) | external)
    if selector & 4:
        raise refusal
    table = fetch_descriptor(mmu, state, selector, refusal)
    if table.attributes & (_TYPE_MASK | ATTRIBUTE_P) != _TYPE_LDT | ATTRIBUTE_P:
        raise refusal
    return table


def _code(mmu: Mmu, state: CpuState, selector: int, external: int) -> Segment:
    code = _segment(mmu, state, selector, external)
    conforming = bool(code.attributes & ATTRIBUTE_CONFORMING)
    right_level = code.dpl <= state.cpl if conforming else code.dpl == state.cpl
    return _accept(mmu, state, code, bool(code.attributes & ATTRIBUTE_CODE) and right_level, external)


def _stack(mmu: Mmu, state: CpuState, selector: int, external: int) -> Segment:
    stack = _segment(mmu, state, selector, external)
    writable = stack.attributes & (ATTRIBUTE_CODE | ATTRIBUTE_WRITABLE) == ATTRIBUTE_WRITABLE
    fits = writable and stack.dpl == selector & 3 == state.cpl
    return _accept(mmu, state, stack, fits, external, STACK_FAULT)


def _data(mmu: Mmu, state: CpuState, selector: int, external: int) -> Segment:
    data = _segment(mmu, state, selector, external)
    code = bool(data.attributes & ATTRIBUTE_CODE)
    readable = not code or bool(data.attributes & ATTRIBUTE_READABLE)
    conforming = code and bool(data.attributes & ATTRIBUTE_CONFORMING)
    return _accept(mmu, state, data, readable and (conforming or data.dpl >= max(state.cpl, selector & 3)), external)


def _segment(mmu: Mmu, state: CpuState, selector: int, external: int) -> Segment:
    refusal = Fault(INVALID_TSS, (selector & 0xFFFC) | external)
    if not selector & 0xFFFC:
        raise refusal
    segment = fetch_descriptor(mmu, state, selector, refusal)
    if not segment.attributes & ATTRIBUTE_S:
        raise refusal
    return segment


def _accept(
    mmu: Mmu, state: CpuState, segment: Segment, fits: bool, external: int, absent: int = SEGMENT_NOT_PRESENT
) -> Segment:
    """Return the segment, marked accessed, if it fits its register and is present."""
    error_code = (segment.selector & 0xFFFC) | external
    if not fits:
        raise Fault(INVALID_TSS, error_code)
    if not segment.attributes & ATTRIBUTE_P:
        raise Fault(absent, error_code)
    mark_accessed(mmu, state, segment)
    return segment
