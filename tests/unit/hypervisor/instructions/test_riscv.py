"""Every RISC-V row of the instruction table, run on the virtual CPU."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.instructions import RISCV, Grant, Instruction
from tests.unit.guest.riscv.support import M, S, U
from tests.unit.hypervisor.instructions.riscv_bench import observe

ROWS = pytest.mark.parametrize("row", RISCV, ids=[row.mnemonic for row in RISCV])
GRANTED = [row for row in RISCV if row.grants]
UNGRANTED = [row for row in RISCV if not row.grants]


@ROWS
def test_instruction_in_user_mode_does_what_its_row_says(row: Instruction) -> None:
    """In U mode, with device pages for the system only."""
    assert observe(row, level=U) == (row.user, True)


@ROWS
def test_instruction_in_supervisor_mode_does_what_its_row_says(row: Instruction) -> None:
    """In S mode, paging on."""
    assert observe(row, level=S) == (row.system, True)


@ROWS
def test_instruction_in_machine_mode_does_what_its_row_says(row: Instruction) -> None:
    """In M mode, at physical addresses."""
    assert observe(row, level=M) == (row.machine, True)


@pytest.mark.parametrize("row", GRANTED, ids=[row.mnemonic for row in GRANTED])
def test_instruction_in_user_mode_with_a_grant_does_what_its_row_says(row: Instruction) -> None:
    """In U mode after the OS has mapped the device for the user."""
    assert observe(row, level=U, grant=Grant.USER_PAGE) == (row.granted, True)


@pytest.mark.parametrize("row", UNGRANTED, ids=[row.mnemonic for row in UNGRANTED])
def test_instruction_is_not_helped_by_a_user_page(row: Instruction) -> None:
    """A device page for the user opens the device and nothing else."""
    assert observe(row, level=U, grant=Grant.USER_PAGE) == (row.user, True)
