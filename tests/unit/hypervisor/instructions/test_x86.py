"""Every x86 row of the instruction table, run on the virtual CPU."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.instructions import X86, Grant, Instruction
from tests.unit.hypervisor.instructions.x86_bench import observe

GRANTED = [(row, grant) for row in X86 for grant in row.grants]


@pytest.mark.parametrize("row", X86, ids=[row.mnemonic for row in X86])
def test_instruction_in_user_mode_does_what_its_row_says(row: Instruction) -> None:
    """At CPL 3 with IOPL 0, no port permitted and device pages for the system only."""
    assert observe(row, user=True) == (row.user, True)


@pytest.mark.parametrize("row", X86, ids=[row.mnemonic for row in X86])
def test_instruction_in_system_mode_does_what_its_row_says(row: Instruction) -> None:
    """At CPL 0."""
    assert observe(row, user=False) == (row.system, True)


@pytest.mark.parametrize(("row", "grant"), GRANTED, ids=[f"{row.mnemonic}-{grant.value}" for row, grant in GRANTED])
def test_instruction_in_user_mode_with_a_grant_does_what_its_row_says(row: Instruction, grant: Grant) -> None:
    """At CPL 3 after the OS has given the device or the flag away."""
    assert observe(row, user=True, grant=grant) == (row.granted, True)


@pytest.mark.parametrize("row", X86, ids=[row.mnemonic for row in X86])
def test_instruction_is_not_helped_by_a_grant_that_its_row_does_not_name(row: Instruction) -> None:
    """IOPL, bitmap and page tables each open what they are for, and nothing else."""
    for grant in set(Grant) - set(row.grants):
        assert observe(row, user=True, grant=grant) == (row.user, True), grant
