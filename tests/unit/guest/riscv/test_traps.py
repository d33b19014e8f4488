"""Trap rules without an engine (`iovirt_dist.guest.riscv.traps`)."""

from __future__ import annotations

import pytest

from iovirt_dist.guest.riscv.traps import (
    INTERRUPT,
    MEIP,
    MSIP,
    MTIP,
    SEIP,
    SSIP,
    STIP,
    choose_interrupt,
    enter_exception,
    enter_interrupt,
)


class FakeRegisters(dict[str, int]):
    """A register file without rules."""

    def read_register(self, name: str) -> int:
        """Unset registers are 0."""
        return self.get(name, 0)

    def write_register(self, name: str, value: int) -> None:
        """Keep."""
        self[name] = value


def test_enter_exception_in_machine_mode_fills_machine_registers() -> None:
    """The whole machine-level trap entry, register by register."""
    registers = FakeRegisters(priv=1, mstatus=1 << 3 | 1 << 1, mtvec=0x1001)

    handler = enter_exception(registers, 2, 0x80, 0xFFFF)

    assert handler == 0x1000
    assert registers == {
        "priv": 3,
        "mstatus": 1 << 11 | 1 << 7 | 1 << 1,
        "mtvec": 0x1001,
        "mepc": 0x80,
        "mcause": 2,
        "mtval": 0xFFFF,
    }


@pytest.mark.parametrize(
    ("privilege", "status", "mip", "mie", "mideleg", "cause"),
    [
        (3, 1 << 3, MEIP | MSIP | MTIP, 0xAAA, 0, 11),
        (3, 1 << 3, MSIP | MTIP, 0xAAA, 0, 3),
        (3, 1 << 3, MEIP | MTIP, MTIP, 0, 7),
        (3, 0, MEIP | MTIP, 0xAAA, 0, None),
        (3, 1 << 1, SEIP | SSIP, 0xAAA, 0x222, None),
        (1, 1 << 1, SEIP | SSIP | STIP, 0xAAA, 0x222, 9),
        (1, 1 << 1, SSIP | STIP, 0xAAA, 0x222, 1),
        (1, 0, SEIP | STIP, 0xAAA, 0x222, None),
        (0, 0, SEIP | STIP, 0xAAA, 0x222, 9),
        (1, 1 << 1, SEIP | MTIP, 0xAAA, 0x222, 7),
        (1, 0, SEIP | STIP, 0xAAA, 0, 9),
    ],
)
def test_choose_interrupt_follows_priority_and_enables(  # the columns of the architecture's rules
    privilege: int, status: int, mip: int, mie: int, mideleg: int, cause: int | None
) -> None:
    """Machine level first, then MEI, MSI, MTI, SEI, SSI, STI, each only where its level is open."""
    registers = FakeRegisters(priv=privilege, mstatus=status, mip=mip, mie=mie, mideleg=mideleg)

    assert choose_interrupt(registers) == cause


@pytest.mark.parametrize(("vector", "handler"), [(0x1000, 0x1000), (0x1001, 0x1024)])
def test_enter_interrupt_goes_through_the_vector(vector: int, handler: int) -> None:
    """A delegated external interrupt: direct, and vectored with four bytes a cause."""
    registers = FakeRegisters(priv=0, mideleg=SEIP, stvec=vector, mstatus=1 << 1)

    assert enter_interrupt(registers, 9, 0x80) == handler
    assert registers["scause"] == INTERRUPT | 9
    assert registers["mstatus"] == 1 << 5
