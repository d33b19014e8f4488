"""Delivery of one interrupt or exception: what the CPU does between the event and the handler's first instruction.

Real mode uses the vector table of far pointers (Intel SDM volume 3, section 21.1.4), protected mode interrupt and trap
gates, with a stack switch by the TSS when privilege rises (section 7.12), and task gates (`tasks`). Segment limits are
checked for tables and the TSS, not for the pushes (the engine does not check them either).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from iovirt_dist.guest.x86.descriptors import load_handler_code, load_inner_stack
from iovirt_dist.guest.x86.faults import (
    DOUBLE_FAULT,
    GENERAL_PROTECTION,
    NOT_FAULTS,
    PAGE_FAULT,
    SEGMENT_NOT_PRESENT,
    WITH_ERROR_CODE,
    Fault,
    combine,
)
from iovirt_dist.guest.x86.paging import Mmu
from iovirt_dist.guest.x86.state import (
    AC,
    ATTRIBUTE_BIG,
    CS,
    DS,
    ES,
    ESP,
    FS,
    GS,
    IF,
    NT,
    RF,
    SS,
    TF,
    VM,
    CpuState,
    Segment,
)
from iovirt_dist.guest.x86.tasks import switch_task

_GATE_BYTES: Final = 8
_TASK_GATE: Final = 0x5
_IDT_FLAG: Final = 2  # bit 1 of an error code: the index refers to the IDT (section 7.13)
_NULL_SEGMENT: Final = Segment(0, 0, 0, 0)


class Event(NamedTuple):
    """What is delivered.

    Attributes:
        vector: 0..255.
        error_code: Pushed by exceptions that have one.
        software: INT n, INT3 or INTO: the gate's DPL is checked; no error code is pushed.
        external: A hardware interrupt: no error code is pushed, whatever the vector.
        instruction: EIP of INT n, INT3 or INTO, which is the instruction that faults when its gate cannot be used.
    """

    vector: int
    error_code: int = 0
    software: bool = False
    external: bool = False
    instruction: int = 0

    @property
    def exception(self) -> bool:
        """Raised by the CPU itself, not by INT n or a device."""
        return not self.software and not self.external


class ShutdownError(Exception):
    """A fault during the delivery of a double fault: the CPU stops. `vectors` are the exceptions in their order."""

    def __init__(self, vectors: list[int]) -> None:
        super().__init__(vectors)
        self.vectors = vectors


def deliver(mmu: Mmu, state: CpuState, event: Event) -> int:
    """Change `state` and memory so that the handler of `event` runs next; nested faults follow section 7.15.

    Returns:
        How many exceptions and software interrupts were raised, nested ones included.

    Raises:
        ShutdownError: A triple fault.
    """
    vectors = [event.vector]
    while True:
        try:
            _deliver_once(mmu, state, event)
        except Fault as fault:
            if event.software:
                state.eip = event.instruction
            if fault.vector == PAGE_FAULT:
                state.cr2 = fault.address
            following = combine(event.vector, fault.vector) if event.exception else fault.vector
            vectors.append(fault.vector)
            if following is None:
                raise ShutdownError(vectors) from None
            event = Event(following, 0 if following == DOUBLE_FAULT else fault.error_code)
        else:
            state.shadow = False
            return len(vectors)


def _deliver_once(mmu: Mmu, state: CpuState, event: Event) -> None:
    if state.protected:
        _deliver_protected(mmu, state, event)
    else:
        _deliver_real(mmu, state, event)


def _deliver_real(mmu: Mmu, state: CpuState, event: Event) -> None:
    """Push FLAGS, CS, IP and jump through the vector table at IDTR.base (000h after RESET)."""
    entry = event.vector * 4
    if entry + 3 > state.idtr.limit:
        raise Fault(GENERAL_PROTECTION)
    offset, selector = struct.unpack("<HH", mmu.read(state, state.idtr.base + entry, 4))
    code = state.segments[CS]
    frame = struct.pack("<HHH", state.eip & 0xFFFF, code.selector, state.eflags & 0xFFFF)
    _push(mmu, state, state.segments[SS], state.registers[ESP], frame, user=False)
    state.eflags &= ~(IF | TF | AC | RF)
    state.segments[CS] = code._replace(selector=selector, base=selector << 4)
    state.eip = offset


def _deliver_protected(mmu: Mmu, state: CpuState, event: Event) -> None:
    external = 0 if event.software else 1
    kind, selector, offset = _read_gate(mmu, state, event, external)
    if kind == _TASK_GATE:
        _enter_task(mmu, state, event, selector, external)
        return
    wide = bool(kind & 8)
    code, level = load_handler_code(mmu, state, selector, external)
    image = _eflags_image(state, event)
    values = [image, state.segments[CS].selector, state.eip]
    if level < state.cpl:
        stack, pointer = load_inner_stack(mmu, state, level, external)
        values = [state.segments[SS].selector, state.registers[ESP], *values]
        if state.virtual_8086:
            values = [state.segments[index].selector for index in (GS, FS, DS, ES)] + values
    else:
        stack, pointer = state.segments[SS], state.registers[ESP]
    if event.exception and event.vector in WITH_ERROR_CODE:
        values.append(event.error_code)
    if offset > code.limit:
        raise Fault(GENERAL_PROTECTION, external)
    frame = _frame(values, wide)
    _push(mmu, state, stack, pointer, frame, user=level == 3)
    if state.virtual_8086:
        for index in (ES, DS, FS, GS):
            state.segments[index] = _NULL_SEGMENT
    state.segments[SS] = stack
    state.segments[CS] = code
    state.cpl = level
    state.eip = offset
    state.eflags &= ~(TF | NT | RF | VM)
    if not kind & 1:  # interrupt gate; a trap gate leaves IF alone (section 7.12.1.3)
        state.eflags &= ~IF


def _enter_task(mmu: Mmu, state: CpuState, event: Event, selector: int, external: int) -> None:
    """Switch to the task of a task gate and push the error code on its stack (section 7.12.2)."""
    wide = switch_task(mmu, state, selector, _eflags_image(state, event), external)
    if event.exception and event.vector in WITH_ERROR_CODE:
        frame = _frame([event.error_code], wide)
        _push(mmu, state, state.segments[SS], state.registers[ESP], frame, user=state.cpl == 3)
    if state.eip > state.segments[CS].limit:
        raise Fault(GENERAL_PROTECTION, external)


def _read_gate(mmu: Mmu, state: CpuState, event: Event, external: int) -> tuple[int, int, int]:
    """Return type (5, 6, 7, Eh, Fh), selector and offset of the event's gate."""
    error_code = event.vector * 8 | _IDT_FLAG | external
    entry = event.vector * _GATE_BYTES
    if entry + _GATE_BYTES - 1 > state.idtr.limit:
        raise Fault(GENERAL_PROTECTION, error_code)
    low, selector, flags, high = struct.unpack("<HHHH", mmu.read(state, state.idtr.base + entry, _GATE_BYTES))
    kind = flags >> 8 & 0x1F
    if kind not in {_TASK_GATE, 0x6, 0x7, 0xE, 0xF}:
        raise Fault(GENERAL_PROTECTION, error_code)
    if event.software and flags >> 13 & 3 < state.cpl:
        raise Fault(GENERAL_PROTECTION, error_code)
    if not flags & 0x8000:
        raise Fault(SEGMENT_NOT_PRESENT, error_code)
    return kind, selector, low | high << 16 if kind & 8 else low


def _eflags_image(state: CpuState, event: Event) -> int:
    """EFLAGS as pushed: fault-class exceptions set RF so that the restarted instruction meets no code breakpoint."""
    return state.eflags | RF if event.exception and event.vector not in NOT_FAULTS else state.eflags


def _frame(values: list[int], wide: bool) -> bytes:
    """Bytes of the pushed values; the first one pushed lies highest."""
    width, mask = (4, 0xFFFF_FFFF) if wide else (2, 0xFFFF)
    return b"".join((value & mask).to_bytes(width, "little") for value in reversed(values))


def _push(mmu: Mmu, state: CpuState, stack: Segment, pointer: int, frame: bytes, *, user: bool) -> None:
    """Write `frame` below `pointer` and move ESP, or only SP on a 16-bit stack."""
    mask = 0xFFFF_FFFF if stack.attributes & ATTRIBUTE_BIG and state.protected else 0xFFFF
    top = (pointer - len(frame)) & mask
    if top + len(frame) - 1 > mask:  # the frame wraps around the stack segment
        head = mask + 1 - top
        mmu.write(state, stack.base + top, frame[:head], user=user)
        mmu.write(state, stack.base, frame[head:], user=user)
    else:
        mmu.write(state, stack.base + top, frame, user=user)
    state.registers[ESP] = (pointer & ~mask & 0xFFFF_FFFF) | top
