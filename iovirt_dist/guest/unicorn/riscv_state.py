"""The three fields of Unicorn's saved RISC-V CPU state that its register interface does not reach.

- ``mip``: the interface lets nobody write MSIP, MTIP and MEIP, which are inputs of the CPU.
- ``miclaim``: bits of mip that software cannot write. SEIP is both an input and writable; while the input is up it must
  read as 1, whatever software writes.
- ``badaddr``: the virtual address of the last misaligned access, access fault or page fault (for mtval/stval).

A saved context is a copy of the emulator's CPU structure (``CPURISCVState`` in QEMU's target/riscv/cpu.h), whose layout
belongs to one build of Unicorn. The offsets are therefore found by experiment, once per process: `layout` changes them,
or their neighbours, in ways that the public interface can cause and looks where the values turn up.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from typing import Any, Final, NamedTuple

from unicorn.riscv_const import (
    UC_CPU_RISCV64_SIFIVE_U54,
    UC_RISCV_REG_A1,
    UC_RISCV_REG_MIDELEG,
    UC_RISCV_REG_MIE,
    UC_RISCV_REG_MIP,
    UC_RISCV_REG_MSTATUS,
    UC_RISCV_REG_SATP,
)
from unicorn.unicorn_const import UC_ARCH_RISCV, UC_HOOK_INTR, UC_MODE_RISCV64
from unicorn.unicorn_py3 import Uc

from iovirt_dist.errors import LocalError

_SOFTWARE_BITS: Final = 0x222
_LINE_BITS: Final = 0xAAA
_SEIP: Final = 0x200
_MIP: Final = struct.Struct("<QII")
_MIP_AND_ENABLES: Final = struct.Struct("<Q8xQQ")
_ADDRESS: Final = struct.Struct("<Q")


class Layout(NamedTuple):
    """Offsets in a saved context's bytes: of mip, which miclaim, mie and mideleg follow, and of badaddr."""

    mip: int
    badaddr: int


class StateBlock:
    """A saved copy of one Unicorn's CPU state.

    Args:
        uc: The Unicorn instance.

    Raises:
        LocalError: The fields cannot be found in this Unicorn.
    """

    def __init__(self, uc: Any) -> None:
        self._uc = uc
        self._layout = layout()
        self._context = uc.context_save()
        self._bytes = _view(self._context)

    def trap_value(self) -> int:
        """Faulting virtual address of the last exception that has one."""
        self._uc.context_update(self._context)
        value: int = _ADDRESS.unpack_from(self._bytes, self._layout.badaddr)[0]
        return value

    def write_mip(self, value: int, lines: int, *, armed: bool) -> None:
        """Replace all of mip.

        Unicorn keeps its interrupt request beside mip. Each write through the register interface, the guest's too,
        sets it if any bit of mip is then set, and clears it otherwise.

        Args:
            value: All bits.
            lines: Those that are inputs; software cannot clear them.
            armed: Whether Unicorn takes what is enabled, or leaves it alone until software next writes mip.
        """
        self._put(0, 0)
        self._uc.reg_write(UC_RISCV_REG_MIP, 0)
        self._put(value, lines & _SEIP)
        if armed and value:
            self._uc.reg_write(UC_RISCV_REG_MIP, value)

    def _put(self, mip: int, claimed: int) -> None:
        self._uc.context_update(self._context)
        _MIP.pack_into(self._bytes, self._layout.mip, mip, claimed, 0)
        self._uc.context_restore(self._context)


def _view(context: Any) -> Any:
    """Give access to a context's own memory, header included."""
    address = ctypes.cast(context.context, ctypes.c_void_p).value or 0
    return (ctypes.c_ubyte * context.size).from_address(address)


@functools.cache
def layout() -> Layout:
    """Find the fields.

    Raises:
        LocalError: They are not where they can be found: an unknown Unicorn.
    """
    uc: Any = Uc(UC_ARCH_RISCV, UC_MODE_RISCV64)
    uc.ctl_set_cpu_model(UC_CPU_RISCV64_SIFIVE_U54)
    context = uc.context_save()
    found = Layout(_find_mip(uc, context), _find_badaddr(uc, context))
    uc.context_update(context)
    _MIP.pack_into(_view(context), found.mip, _LINE_BITS, _SEIP, 0)
    uc.context_restore(context)
    uc.reg_write(UC_RISCV_REG_MIP, 0)  # clears SSIP and STIP, but not the inputs
    if uc.reg_read(UC_RISCV_REG_MIP) != _LINE_BITS & ~_SOFTWARE_BITS | _SEIP:
        raise _unknown_layout()
    return found


def _find_mip(uc: Any, context: Any) -> int:
    candidates = set(range(0, context.size - _MIP_AND_ENABLES.size + 1, 8))
    for values in ((0, 0, 0), (_SOFTWARE_BITS, 0x80, 0x22), (0x20, 0x888, 0x200), (0, 0, 0)):
        for register, value in zip((UC_RISCV_REG_MIP, UC_RISCV_REG_MIE, UC_RISCV_REG_MIDELEG), values, strict=True):
            uc.reg_write(register, value)
        uc.context_update(context)
        view = bytes(_view(context))
        candidates = {offset for offset in candidates if _MIP_AND_ENABLES.unpack_from(view, offset) == values}
    return _only(candidates)


def _find_badaddr(uc: Any, context: Any) -> int:
    """Load through an empty page table (mstatus.MPRV with MPP = S) and look for the address that faulted."""
    code, table = 0x1000, 0x2000
    uc.mem_map(code, 0x2000)
    uc.mem_write(code, bytes.fromhex("03b55500"))  # ld a0, 5(a1)
    uc.hook_add(UC_HOOK_INTR, lambda uc, _cause, _data: uc.emu_stop())
    uc.reg_write(UC_RISCV_REG_SATP, 8 << 60 | table >> 12)
    uc.reg_write(UC_RISCV_REG_MSTATUS, 1 << 17 | 1 << 11)
    candidates = set(range(0, context.size - 7, 8))
    for address in (0x12_3456_7890, 0x21_0FED_CBA8):
        uc.reg_write(UC_RISCV_REG_A1, address)
        uc.emu_start(code, 0)
        uc.context_update(context)
        view = bytes(_view(context))
        candidates = {offset for offset in candidates if _ADDRESS.unpack_from(view, offset)[0] == address + 5}
    return _only(candidates)


def _only(candidates: set[int]) -> int:
    if len(candidates) != 1:
        raise _unknown_layout()
    return candidates.pop()


def _unknown_layout() -> LocalError:
    return LocalError("this Unicorn lays out its CPU state in an unknown way", "unicorn", "install unicorn 2.1.4")
