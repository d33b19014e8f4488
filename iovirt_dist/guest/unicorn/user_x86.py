"""What the x86 CPUs in user mode share: control registers, the state at the start, and faults as signals."""

from __future__ import annotations

from typing import Final

from iovirt_dist.guest.engine import Stop
from iovirt_dist.guest.program.engine import SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP, UserStop, UserStopKind
from iovirt_dist.guest.x86.faults import ALIGNMENT_CHECK, GENERAL_PROTECTION, INVALID_OPCODE, PAGE_FAULT
from iovirt_dist.guest.x86.state import CpuState, Segment

CR0: Final = 0x8001_0033  # PG, WP, NE, ET, MP, PE (Intel SDM volume 3, section 2.5)
CR4: Final = 0x620  # OSXMMEXCPT, OSFXSR, PAE; no OSXSAVE, so that no program takes AVX to be there
MSR_EFER: Final = 0xC000_0080
EFER: Final = 0xD01  # NXE, LMA, LME, SCE
EFER_NXE: Final = 0x800

_IF: Final = 0x202
_SIGNALS: Final = {
    0: (SIGFPE, "divide error"),
    1: (SIGTRAP, "debug exception"),
    3: (SIGTRAP, "breakpoint"),
    INVALID_OPCODE: (SIGILL, "undefined instruction"),
    GENERAL_PROTECTION: (SIGSEGV, "general protection: a privileged instruction or a bad address"),
    16: (SIGFPE, "floating-point exception"),
    ALIGNMENT_CHECK: (SIGBUS, "misaligned access"),
    19: (SIGFPE, "SIMD floating-point exception"),
}


def fault_of(stop: Stop) -> UserStop:
    """Return the signal that Linux sends for an exception (arch/x86/kernel/traps.c), SIGSEGV where it has none."""
    if stop.vector == PAGE_FAULT:
        return UserStop(UserStopKind.FAULT, SIGSEGV, stop.pc, f"page fault at {stop.address:#x}")
    signal, cause = _SIGNALS.get(stop.vector, (SIGSEGV, f"exception or interrupt {stop.vector}"))
    return UserStop(UserStopKind.FAULT, signal, stop.pc, cause)


def user_state(state: CpuState, pc: int, stack_pointer: int, code: Segment, data: Segment, gdt: int) -> CpuState:
    """Change a CPU state into that of a program's first instruction: registers zero, interrupts on, level 3.

    Args:
        state: Any state of this CPU.
        pc: First instruction.
        stack_pointer: ESP or RSP.
        code: CS.
        data: SS, and on 32-bit CPUs DS and ES.
        gdt: Linear address of the descriptor table, 16 entries.
    """
    empty = Segment(0, 0, 0, 0)
    flat = data if not code.attributes & 1 << 21 else empty  # bit 21, L: a 64-bit code segment
    state.registers = [0, 0, 0, 0, stack_pointer, 0, 0, 0]
    state.eip, state.eflags, state.cpl, state.shadow = pc, _IF, 3, False
    state.segments = [flat, code, data, flat, empty, empty]
    state.ldtr = state.tr = empty
    state.gdtr, state.idtr = Segment(0, gdt, 16 * 8 - 1, 0), Segment(0, 0, 0, 0)
    return state
