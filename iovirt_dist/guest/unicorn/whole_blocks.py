"""Makes Unicorn stop between translated blocks only, so that no instruction is executed one and a half times.

Unicorn 2.1 looks for a stop request not only at the head of each block but also behind every load and store
(`check_exit_request` in qemu/tcg/tcg-op.c). A request that another thread makes while `inc [m]` is between its load and
its store ends the instruction behind the store, with EIP still at its beginning: it is executed again, and memory is
incremented twice. Measured with a loop of `inc [m]` and 260 stops: 228 increments too many. INS loses the element that
it stored, and asks the device for another one.

The checks inside of blocks can be switched off: the flag ``no_exit_request`` of ``struct uc_struct`` (uc_priv.h) makes
the translator leave them out; Unicorn sets it itself for the blocks of ARM's IT instruction. It has no public name.
Its offset belongs to one build, and is not believed: `check` tries out what it does, once per process. (The RISC-V
engine leaves it alone: there stops behind loads and stores are what makes its accesses precise.)
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, Final

from unicorn.unicorn_const import UC_ARCH_X86, UC_HOOK_INSN, UC_MODE_32
from unicorn.unicorn_py3 import Uc
from unicorn.x86_const import UC_X86_INS_IN, UC_X86_REG_EIP

from iovirt_dist.errors import LocalError

_NO_EXIT_REQUEST: Final = 0x7F2
"""Offset of the flag in ``struct uc_struct`` of Unicorn 2.1.4 on 64-bit Linux."""

_START: Final = 0x1000
_CODE: Final = b"\xed\xa3\x00\x20\x00\x00\x40\xf4"  # in eax, dx; mov [0x2000], eax; inc eax; hlt
_BEHIND_STORE: Final = _START + len(_CODE)


def stop_between_blocks(uc: Any) -> None:
    """Let this instance stop between blocks only; call it before it translates anything.

    Raises:
        LocalError: The installed Unicorn does not do that.
    """
    check()
    _flag(uc).value = 1


@functools.cache
def check() -> None:
    """Try the flag out.

    Raises:
        LocalError: It is not where we think, or does something else.
    """
    if _stops_at(whole_blocks=False) == _BEHIND_STORE or _stops_at(whole_blocks=True) != _BEHIND_STORE:
        raise LocalError("stops inside of instructions cannot be switched off", "unicorn", "install unicorn 2.1.4")


def _stops_at(*, whole_blocks: bool) -> int:
    """Ask for a stop in front of a store; returns the EIP at which the emulator stopped."""
    uc: Any = Uc(UC_ARCH_X86, UC_MODE_32)
    uc.mem_map(0, 0x4000)
    uc.mem_write(_START, _CODE)
    if _flag(uc).value:
        raise LocalError("its structure is different", "unicorn", "install unicorn 2.1.4")
    _flag(uc).value = whole_blocks

    def stop(uc: Any, _port: int, _width: int, _data: object) -> int:
        uc.emu_stop()
        return 0

    uc.hook_add(UC_HOOK_INSN, stop, None, 1, 0, UC_X86_INS_IN)
    uc.emu_start(_START, 0)
    stopped_at: int = uc.reg_read(UC_X86_REG_EIP)
    return stopped_at


def _flag(uc: Any) -> ctypes.c_ubyte:
    address = ctypes.cast(uc._uch, ctypes.c_void_p).value
    assert address is not None
    return ctypes.c_ubyte.from_address(address + _NO_EXIT_REQUEST)
