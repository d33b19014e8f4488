"""Taking a trap: RISC-V Privileged ISA 1.10, sections 3.1.6 (mstatus), 3.1.7 (mtvec), 3.1.8 (delegation) and 4.1.

Exceptions come here. Interrupts are taken by the emulator itself at the very instruction that enables them; the
virtual CPU only presents their lines (`visible_interrupts`).
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

_MACHINE_PRIORITY: Final = (MEIP, MSIP, MTIP)


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
    privilege = registers.read_register("priv")
    if cause == Cause.ECALL_U:
        cause += privilege
    delegated = privilege < MACHINE and registers.read_register("medeleg") >> cause & 1
    level = _LEVEL_S if delegated else _LEVEL_M
    registers.write_register(level.prefix + "epc", pc)
    registers.write_register(level.prefix + "cause", cause)
    registers.write_register(level.prefix + "tval", value)
    status = registers.read_register("mstatus")
    registers.write_register("mstatus", _push(status, level, privilege))
    registers.write_register("priv", level.privilege)
    return registers.read_register(level.prefix + "tvec") & ~3


def _push(status: int, level: _Level, privilege: int) -> int:
    """Push the interrupt enable and the privilege onto the two-level stack in mstatus."""
    enabled = bool(status & level.enable)
    status &= ~(level.enable | level.previous_enable | level.previous_privilege_mask)
    return status | enabled * level.previous_enable | privilege << level.previous_privilege_shift


def visible_interrupts(pending: int, enabled: int) -> int:
    """Return the bits of mip to present so that machine-level interrupts come in the architecture's order.

    The emulator takes the lowest-numbered of several interrupts that are enabled at once. MEI, MSI, MTI is the
    order of section 3.1.14, so MSIP and MTIP stay out of sight while one that goes before them is pending and
    enabled. They are read-only for software, which therefore cannot lose a write by it.

    Args:
        pending: All of mip.
        enabled: mie.
    """
    hidden = 0
    active = pending & enabled
    for index, first in enumerate(_MACHINE_PRIORITY):
        if active & first:
            hidden = sum(bit for bit in _MACHINE_PRIORITY[index + 1 :] if bit < first)
            break
    return pending & ~(hidden & active)
