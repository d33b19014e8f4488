"""Direct access to Unicorn's RISC-V state (`iovirt_dist.guest.unicorn.riscv_state`)."""

from __future__ import annotations

from typing import Any

import pytest
from unicorn.riscv_const import UC_CPU_RISCV64_SIFIVE_U54, UC_RISCV_REG_MIE, UC_RISCV_REG_MIP, UC_RISCV_REG_SEPC
from unicorn.unicorn_const import UC_ARCH_RISCV, UC_MODE_RISCV64
from unicorn.unicorn_py3 import Uc

from iovirt_dist.guest.unicorn.riscv_state import StateBlock

LINES = 0xA88
SEIP = 0x200


@pytest.fixture
def uc() -> Any:  # the binding carries no types
    """A Unicorn with the CPU model that the engine uses."""
    instance: Any = Uc(UC_ARCH_RISCV, UC_MODE_RISCV64)
    instance.ctl_set_cpu_model(UC_CPU_RISCV64_SIFIVE_U54)
    return instance


@pytest.mark.parametrize("armed", [False, True])
def test_write_mip_replaces_inputs_and_software_bits(uc: Any, armed: bool) -> None:
    """All six bits read back, and nothing else has changed."""
    uc.reg_write(UC_RISCV_REG_MIE, 0xAAA)
    uc.reg_write(UC_RISCV_REG_SEPC, 0x1234)
    block = StateBlock(uc)

    block.write_mip(LINES | 0x22, LINES, armed=armed)
    first = uc.reg_read(UC_RISCV_REG_MIP)
    block.write_mip(0x80, 0x80, armed=armed)

    assert (first, uc.reg_read(UC_RISCV_REG_MIP)) == (LINES | 0x22, 0x80)
    assert (uc.reg_read(UC_RISCV_REG_MIE), uc.reg_read(UC_RISCV_REG_SEPC)) == (0xAAA, 0x1234)


def test_software_clears_its_own_bits_but_not_an_input(uc: Any) -> None:
    """A write of 0 to mip leaves the inputs, SEIP among them, and clears the rest."""
    StateBlock(uc).write_mip(LINES | 0x22, LINES, armed=True)

    uc.reg_write(UC_RISCV_REG_MIP, 0)

    assert uc.reg_read(UC_RISCV_REG_MIP) == LINES


def test_software_writes_external_bit_again_once_the_input_is_down(uc: Any) -> None:
    """SEIP is software's while the line is not asserted."""
    block = StateBlock(uc)
    block.write_mip(SEIP, SEIP, armed=True)
    block.write_mip(SEIP, 0, armed=True)

    uc.reg_write(UC_RISCV_REG_MIP, 0)

    assert uc.reg_read(UC_RISCV_REG_MIP) == 0
