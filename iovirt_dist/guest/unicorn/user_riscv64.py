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
from iovirt_dist.guest.unicorn.registers import RegisterBatch
from iovirt_dist.guest.unicorn.riscv import UnicornRiscv
from iovirt_dist.guest.unicorn.user import flush_tlb, no_devices
from iovirt_dist.virtio.memory import GuestMemory

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


class UnicornUserRiscv64:
    """Implements `iovirt_dist.guest.program.engine.UserEngine`.

    Args:
        ram_bytes: Physical memory, a multiple of 4 KiB.

    Raises:
        LocalError: The installed Unicorn cannot be used.
    """

    def __init__(self, ram_bytes: int) -> None:
        self._cpu = UnicornRiscv(no_devices(Cause.LOAD_ACCESS), io_end=0)
        self._ram_bytes = ram_bytes
        self._cpu.map_ram(_RAM_BASE, ram_bytes)
        self._call = RegisterBatch(self._cpu.uc, _CALL)
        self._pc = 0

    @property
    def memory(self) -> GuestMemory:
        """Physical RAM."""
        return self._cpu.memory

    def reset(self) -> AddressSpace:
        """Forget everything, and return the empty address space of the next program."""
        cpu = self._cpu
        cpu.clear_ram()
        cpu.power_on()
        space = AddressSpace(cpu, _RAM_BASE, self._ram_bytes, SV39, RISCV64.user_end, lambda: flush_tlb(cpu.uc))
        cpu.write_register("satp", _SATP_SV39 | space.root // PAGE_BYTES)
        cpu.write_register("mstatus", _MSTATUS_FS_INITIAL)
        return space

    def start(self, pc: int, stack_pointer: int) -> None:
        """Set all registers for a program's first instruction; its address space must be filled."""
        for name in _INTEGER_REGISTERS:
            self._cpu.write_register(name, 0)
        self._cpu.write_register("sp", stack_pointer)
        self._cpu.write_register("priv", 0)
        flush_tlb(self._cpu.uc)
        self._pc = pc

    def run(self) -> UserStop:
        """Execute until something must be done."""
        stop = self._cpu.run(self._pc)
        self._pc = stop.pc
        if stop.kind is StopKind.KICKED:
            return UserStop(UserStopKind.KICKED)
        if stop.vector == Cause.ECALL_U:
            self._pc += _INSTRUCTION_BYTES
            return UserStop(UserStopKind.SYSTEM_CALL)
        return _fault_of(stop)

    def call(self) -> tuple[int, tuple[int, ...]]:
        """After SYSTEM_CALL: a7 (Linux takes its lower half), and a0 to a5."""
        number, *arguments = self._call.read()
        return number & 0xFFFF_FFFF, tuple(arguments)

    def finish_call(self, result: int) -> None:
        """Set a0."""
        self._cpu.write_register("a0", result)

    def set_thread_pointer(self, value: int) -> None:
        """Set tp; no system call of a program with one thread does."""
        self._cpu.write_register("tp", value)

    def kick(self) -> None:
        """Make `run` return soon; from any thread."""
        self._cpu.kick()


def _fault_of(stop: Stop) -> UserStop:
    """Return the signal that Linux sends for an exception (arch/riscv/kernel/traps.c), SIGSEGV where it has none."""
    vector = Cause.ILLEGAL if stop.kind is StopKind.HALTED else Cause(stop.vector)
    if vector is Cause.FETCH_PAGE and stop.address < stop.pc:
        # a 16-bit illegal instruction at the start of a page: Unicorn looks for its block's end on the page before
        vector = Cause.ILLEGAL
    signal, cause = _SIGNALS.get(vector, (SIGSEGV, "access fault at {:#x}"))
    return UserStop(UserStopKind.FAULT, signal, stop.pc, cause.format(stop.address))
