"""A 64-bit RISC-V CPU in user mode: the engine of the `virt` machine behind page tables of ours (Sv39), in U mode."""

from __future__ import annotations

from typing import Final

from unicorn.riscv_const import UC_RISCV_REG_A0, UC_RISCV_REG_A7

from iovirt_dist.guest.engine import Stop, StopKind
from iovirt_dist.guest.program.address_space import AddressSpace
from iovirt_dist.guest.program.architecture import RISCV64
from iovirt_dist.guest.program.engine import (
    SIGBUS,
    SIGILL,
    SIGSEGV,
    SIGTRAP,
    UserStop,
    UserStopKind,
)
from iovirt_dist.guest.program.tables import PAGE_BYTES, SV39
from iovirt_dist.guest.riscv.traps import Cause
from iovirt_dist.guest.unicorn.machine_user import MachineUserEngine, UserMemoryMap
from iovirt_dist.guest.unicorn.riscv import UnicornRiscv
from iovirt_dist.guest.unicorn.user import no_devices

_RAM_BASE: Final = 0x8000_0000
_INSTRUCTION_BYTES: Final = 4  # of ECALL
_SATP_SV39: Final = 8 << 60
_MSTATUS_FS_INITIAL: Final = 1 << 13
_CALL: Final = (UC_RISCV_REG_A7, *range(UC_RISCV_REG_A0, UC_RISCV_REG_A0 + 6))
_INTEGER_REGISTERS: Final = tuple(f"x{number}" for number in range(1, 32))
_SIGNALS: Final = {
    Cause.ILLEGAL: (SIGILL, "illegal instruction"),
    Cause.BREAKPOINT: (SIGTRAP, "breakpoint"),
    Cause.FETCH_MISALIGNED: (SIGBUS, "misaligned fetch at {:#x}"),
    Cause.LOAD_MISALIGNED: (SIGBUS, "misaligned load at {:#x}"),
    Cause.STORE_MISALIGNED: (SIGBUS, "misaligned store at {:#x}"),
    Cause.FETCH_PAGE: (SIGSEGV, "page fault at {:#x}"),
    Cause.LOAD_PAGE: (SIGSEGV, "page fault at {:#x}"),
    Cause.STORE_PAGE: (SIGSEGV, "page fault at {:#x}"),
}


class UnicornUserRiscv64(MachineUserEngine[UnicornRiscv]):
    """Implements `iovirt_dist.guest.program.engine.UserEngine`; calls have a7, and a0 to a5.

    Args:
        ram_bytes: Physical memory, a multiple of 4 KiB.

    Raises:
        LocalError: The installed Unicorn cannot be used.
    """

    def __init__(self, ram_bytes: int) -> None:
        cpu = UnicornRiscv(no_devices(Cause.LOAD_ACCESS), io_end=0)
        super().__init__(cpu, UserMemoryMap(_RAM_BASE, ram_bytes, SV39, RISCV64.user_end), _CALL)

    def _enter_address_space(self, space: AddressSpace) -> None:
        self._cpu.write_register("satp", _SATP_SV39 | space.root // PAGE_BYTES)
        self._cpu.write_register("mstatus", _MSTATUS_FS_INITIAL)

    def _set_registers(self, pc: int, stack_pointer: int) -> None:  # noqa: ARG002 - the program counter is no register
        for name in _INTEGER_REGISTERS:
            self._cpu.write_register(name, 0)
        self._cpu.write_register("sp", stack_pointer)
        self._cpu.write_register("priv", 0)

    def _outcome(self, stop: Stop) -> UserStop:
        if stop.vector == Cause.ECALL_U:
            self._pc += _INSTRUCTION_BYTES
            return UserStop(UserStopKind.SYSTEM_CALL)
        return _fault_of(stop)

    def finish_call(self, result: int) -> None:
        """Set a0."""
        self._cpu.write_register("a0", result)

    def set_thread_pointer(self, value: int) -> None:
        """Set tp; no system call of a program with one thread does."""
        self._cpu.write_register("tp", value)


def _fault_of(stop: Stop) -> UserStop:
    """Return the signal that Linux sends for an exception (arch/riscv/kernel/traps.c), SIGSEGV where it has none."""
    vector = Cause.ILLEGAL if stop.kind is StopKind.HALTED else Cause(stop.vector)
    if vector is Cause.FETCH_PAGE and stop.address < stop.pc:
        # a 16-bit illegal instruction at the start of a page: Unicorn looks for its block's end on the page before
        vector = Cause.ILLEGAL
    signal, cause = _SIGNALS.get(vector, (SIGSEGV, "access fault at {:#x}"))
    return UserStop(UserStopKind.FAULT, signal, stop.pc, cause.format(stop.address))
