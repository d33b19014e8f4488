"""Registers in batches agree with the binding's own access to one register."""

from __future__ import annotations

from typing import Any

from unicorn.unicorn_const import UC_ARCH_X86, UC_MODE_32, UC_MODE_64
from unicorn.unicorn_py3 import Uc
from unicorn.x86_const import UC_X86_REG_EAX, UC_X86_REG_EBX, UC_X86_REG_R11, UC_X86_REG_RAX

from iovirt_dist.guest.unicorn.registers import RegisterBatch


def test_registers_of_64_bits_are_read_and_written() -> None:
    """In the order of their numbers."""
    uc: Any = Uc(UC_ARCH_X86, UC_MODE_64)
    batch = RegisterBatch(uc, (UC_X86_REG_R11, UC_X86_REG_RAX))
    batch.write(((1 << 64) - 2, 3))
    assert (uc.reg_read(UC_X86_REG_R11), uc.reg_read(UC_X86_REG_RAX)) == ((1 << 64) - 2, 3)
    assert batch.read() == [(1 << 64) - 2, 3]


def test_registers_of_32_bits_are_zero_extended() -> None:
    """Whatever was in the array before."""
    uc: Any = Uc(UC_ARCH_X86, UC_MODE_32)
    batch = RegisterBatch(uc, (UC_X86_REG_EAX, UC_X86_REG_EBX))
    batch.write((0x1_8000_0001, 0xFFFF_FFFF_FFFF_FFFF))
    assert batch.read() == [0x8000_0001, 0xFFFF_FFFF]
