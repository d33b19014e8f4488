"""Taking a trap: RISC-V Privileged ISA 1.10, sections 3.1.6 (mstatus), 3.1.7 (mtvec), 3.1.8 (delegation) and 4.1.

Exceptions come here, and interrupts when several are pending (see `iovirt_dist.guest.riscv.vcpu`).
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple, Protocol


class Cause(enum.IntEnum):
    """Exception causes (table 3.6)."""

    FETCH_MISALIGNED = 0
    FETCH_ACCESS = 1
    ILLEGAL = 2
    BREAKPOINT = 3
    LOAD_MISALIGNED = 4
    LOAD_ACCESS = 5
    STORE_MISALIGNED = 6
    STORE_ACCESS = 7
    ECALL_U = 8
    ECALL_S = 9
    ECALL_M = 11
    FETCH_PAGE = 12
    LOAD_PAGE = 13
    STORE_PAGE = 15


USER: Final = 0
SUPERVISOR: Final = 1
MACHINE: Final = 3

SSIP: Final = 1 << 1
MSIP: Final = 1 << 3
STIP: Final = 1 << 5
MTIP: Final = 1 << 7
SEIP: Final = 1 << 9
MEIP: Final = 1 << 11
LINES: Final = MSIP | MTIP | SEIP | MEIP
"""Bits of mip that are inputs of the CPU."""

PRIORITY: Final = (MEIP, MSIP, MTIP, SEIP, SSIP, STIP)
"""Interrupts of one level, the first to be taken first (section 3.1.9)."""

INTERRUPT: Final = 1 << 63
"""The bit of mcause and scause that tells an interrupt from an exception."""


class Registers(Protocol):
    """Register access at any privilege, by lower-case name; part of the engine protocol."""

    def read_register(self, name: str) -> int:
        """Read a register."""
        ...

    def write_register(self, name: str, value: int) -> None:
        """Write a register."""
        ...


class _Level(NamedTuple):
    """Names of one level's trap registers and its fields in mstatus."""

    privilege: int
    prefix: str
    enable: int
    previous_enable: int
    previous_privilege_mask: int
    previous_privilege_shift: int


_LEVEL_M: Final = _Level(MACHINE, "m", 1 << 3, 1 << 7, 3 << 11, 11)
_LEVEL_S: Final = _Level(SUPERVISOR, "s", 1 << 1, 1 << 5, 1 << 8, 8)


def enter_exception(registers: Registers, cause: int, pc: int, value: int) -> int:
    """Let the CPU take an exception.

    Args:
        registers: The CPU.
        cause: Exception code; ECALL_U stands for the ecall of any privilege.
        pc: Address of the instruction.
        value: For mtval or stval.

    Returns:
        Address of the handler; exceptions go to the base of tvec in both of its modes.
    """
    if cause == Cause.ECALL_U:
        cause += registers.read_register("priv")
    return _enter(registers, cause, pc, value, 0) & ~3


def _enter(registers: Registers, cause: int, pc: int, value: int, interrupt: int) -> int:
    """Fill the trap registers of the level that takes the trap, go there, and return its tvec."""
    privilege = registers.read_register("priv")
    delegation = registers.read_register("mideleg" if interrupt else "medeleg")
    level = _LEVEL_S if privilege < MACHINE and delegation >> cause & 1 else _LEVEL_M
    registers.write_register(level.prefix + "epc", pc)
    registers.write_register(level.prefix + "cause", interrupt | cause)
    registers.write_register(level.prefix + "tval", value)
    status = registers.read_register("mstatus")
    registers.write_register("mstatus", _push(status, level, privilege))
    registers.write_register("priv", level.privilege)
    return registers.read_register(level.prefix + "tvec")


def _push(status: int, level: _Level, privilege: int) -> int:
    """Push the interrupt enable and the privilege onto the two-level stack in mstatus."""
    enabled = bool(status & level.enable)
    status &= ~(level.enable | level.previous_enable | level.previous_privilege_mask)
    return status | enabled * level.previous_enable | privilege << level.previous_privilege_shift


def choose_interrupt(registers: Registers) -> int | None:
    """Return the interrupt cause that the CPU must take now, None if none is both pending and enabled.

    Sections 3.1.9 and 3.1.14: machine-level interrupts first; then MEI, MSI, MTI, SEI, SSI, STI.
    """
    pending = registers.read_register("mip") & registers.read_register("mie")
    if not pending:
        return None
    privilege, status = registers.read_register("priv"), registers.read_register("mstatus")
    delegated = registers.read_register("mideleg")
    machine = pending & ~delegated if privilege < MACHINE or status & _LEVEL_M.enable else 0
    open_to_supervisor = privilege < SUPERVISOR or (privilege == SUPERVISOR and status & _LEVEL_S.enable)
    supervisor = pending & delegated if open_to_supervisor else 0
    candidates = machine or supervisor
    return next((bit.bit_length() - 1 for bit in PRIORITY if candidates & bit), None)


def enter_interrupt(registers: Registers, cause: int, pc: int) -> int:
    """Let the CPU take an interrupt in front of the instruction at `pc`; returns the address of the handler."""
    vector = _enter(registers, cause, pc, 0, INTERRUPT)
    return (vector & ~3) + (4 * cause if vector & 1 else 0)
