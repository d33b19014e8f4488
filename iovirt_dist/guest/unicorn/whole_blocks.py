"""Makes Unicorn stop between translated blocks only, so that no instruction is executed one and a half times.

Unicorn 2.1 looks for a stop request not only at the head of each block but also behind every load and store of it
(`check_exit_request` in qemu/tcg/tcg-op.c), and stops there with EIP still at the instruction that made the access.
A request from another thread, or from a callback, that comes between an effect of an instruction and one of its loads
or stores thus lets the effect happen again: `inc [m]` adds two (measured: 228 of 260 stops), INS loses the element that
it has read from the device, a load from a device is performed twice.

The checks inside of blocks can be switched off: the flag ``no_exit_request`` of ``struct uc_struct`` (uc_priv.h) makes
the translator leave them out; Unicorn sets it itself for the blocks of ARM's IT instruction. Every block starts with a
check, blocks are short (512 instructions at most, one iteration of a REP) and every backward jump starts one, so that a
request takes effect within microseconds all the same. The flag has no public name (`internals`); `check` tries out what
it does, once per process.

With the checks goes the exit behind a store to unmapped memory that a hook answers (`riscv`): the rest of its block is
executed all the same. Where the store must fault the engine undoes that.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, Final

from unicorn.unicorn_const import UC_ARCH_X86, UC_HOOK_INSN, UC_MODE_32
from unicorn.unicorn_py3 import Uc
from unicorn.x86_const import UC_X86_INS_IN, UC_X86_REG_EIP

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.unicorn.internals import NO_EXIT_REQUEST, structure

_START: Final = 0x1000
_CODE: Final = b"\xed\xa3\x00\x20\x00\x00\x40\xf4"  # in eax, dx; mov [0x2000], eax; inc eax; hlt
_BEHIND_BLOCK: Final = _START + len(_CODE)


def stop_between_blocks(uc: Any) -> None:
    """Let this instance stop between blocks only; call it before it translates anything.

    Raises:
        LocalError: The installed Unicorn does not do that.
    """
    check()
    _set(uc)


@functools.cache
def check() -> None:
    """Try the flag out.

    Raises:
        LocalError: It is not where we think, or does something else.
    """
    if _stops_at(whole_blocks=False) == _BEHIND_BLOCK or _stops_at(whole_blocks=True) != _BEHIND_BLOCK:
        raise _unusable()


def _stops_at(*, whole_blocks: bool) -> int:
    """Ask for a stop in front of a store; returns the EIP at which the emulator stopped."""
    uc: Any = Uc(UC_ARCH_X86, UC_MODE_32)
    uc.mem_map(0, 0x4000)
    uc.mem_write(_START, _CODE)
    if whole_blocks:
        _set(uc)

    def stop(uc: Any, _port: int, _width: int, _data: object) -> int:
        uc.emu_stop()
        return 0

    uc.hook_add(UC_HOOK_INSN, stop, None, 1, 0, UC_X86_INS_IN)
    uc.emu_start(_START, 0)
    stopped_at: int = uc.reg_read(UC_X86_REG_EIP)
    return stopped_at


def _set(uc: Any) -> None:
    flag = ctypes.c_bool.from_address(structure(uc) + NO_EXIT_REQUEST)
    if flag.value:
        raise _unusable()
    flag.value = True


def _unusable() -> LocalError:
    return LocalError("stops inside of instructions cannot be switched off", "unicorn", "install unicorn 2.1.4")
