"""What the instruction table as a whole says, and its copy in ARCHITECTURE.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.hypervisor.instructions import RISCV, X86, Effect, Instruction, Kind
from iovirt_dist.hypervisor.instructions.markdown import BEGIN, END, render

ROWS = (*X86, *RISCV)
ARCHITECTURE = Path(__file__).parents[4] / "ARCHITECTURE.md"


def test_io_instructions_are_privileged_and_none_is_critical() -> None:
    """The point of the table (C6): whatever signals a device traps by itself."""
    assert {row.kind for row in ROWS if row.is_io} == {Kind.PRIVILEGED}


def test_io_instructions_that_complete_reach_the_hypervisor_at_every_level() -> None:
    """The point of the table (C10): no level completes an I/O instruction on its own."""
    outcomes = [
        (row.mnemonic, o) for row in ROWS if row.is_io for o in (row.user, row.granted, row.system, row.machine)
    ]
    assert [name for name, o in outcomes if o is not None and o.effect is not Effect.FAULTED and not o.traps] == []


@pytest.mark.parametrize("row", ROWS, ids=[row.mnemonic for row in ROWS])
def test_class_follows_from_what_user_mode_does(row: Instruction) -> None:
    """Privileged and call rows fault in user mode; critical and innocuous rows do not."""
    assert (row.user.effect is Effect.FAULTED) == (row.kind in (Kind.PRIVILEGED, Kind.CALL))


def test_only_x86_has_critical_instructions() -> None:
    """RISC-V is virtualizable in Popek and Goldberg's sense; x86 is not, but not because of its I/O."""
    assert any(row.kind is Kind.CRITICAL for row in X86)
    assert not any(row.kind is Kind.CRITICAL for row in RISCV)


@pytest.mark.parametrize("rows", [X86, RISCV], ids=["x86", "riscv"])
def test_rows_are_different_instructions(rows: tuple[Instruction, ...]) -> None:
    """No mnemonic and no encoding twice."""
    assert len({row.mnemonic for row in rows}) == len({row.code for row in rows}) == len(rows)


def test_architecture_document_holds_the_table() -> None:
    """`python -m iovirt_dist.hypervisor.instructions` prints what must stand between the markers."""
    assert ARCHITECTURE.exists(), f"{ARCHITECTURE} is missing"
    text = ARCHITECTURE.read_text("utf-8")
    assert text.count(BEGIN) == text.count(END) == 1, f"{ARCHITECTURE} needs one {BEGIN} ... {END}"
    _, rest = text.split(BEGIN)
    assert rest.split(END)[0].strip() == render().strip()
