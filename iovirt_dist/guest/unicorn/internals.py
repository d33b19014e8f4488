"""Fields of Unicorn's own structures that have no public name, with proof that they are where we think.

The offsets belong to Unicorn 2.1.4 on 64-bit systems. They are not believed: `structure` compares fields with what is
known of an instance by other ways, and each user tries out, once per process, that its field does what it should.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from typing import Any, Final

from unicorn.unicorn_const import UC_ARCH_X86, UC_HOOK_INSN, UC_MODE_32
from unicorn.unicorn_py3 import Uc
from unicorn.x86_const import UC_X86_INS_IN

from iovirt_dist.errors import LocalError

# struct uc_struct (uc_priv.h)
_CPU: Final = 0x1B8
_CONTEXT_BYTES: Final = 0x7E0  # and uint64_t next_pc behind it
_FLAGS: Final = 0x7F0  # bool hook_insert, first_tb, no_exit_request, init_done
NO_EXIT_REQUEST: Final = _FLAGS + 2
_CONTEXT_HEADER_BYTES: Final = 0x28

# struct CPUState (qemu/include/hw/core/cpu.h)
_HALTED: Final = 0x8198

_START: Final = 0x1000
_CODE: Final = b"\xe4\x00\xeb\x00\xf4"  # in al, 0; jmp to the next instruction; hlt


def structure(uc: Any) -> int:
    """Return the address of an instance's ``struct uc_struct``; the instance is initialized and has not run.

    Raises:
        LocalError: It does not look as expected.
    """
    context_bytes = uc.context_save().size - _CONTEXT_HEADER_BYTES  # initializes the instance
    address = ctypes.cast(uc._uch, ctypes.c_void_p).value or 0
    sizes = ctypes.string_at(address + _CONTEXT_BYTES, 16)
    flags = ctypes.string_at(address + _FLAGS, 4)
    if sizes != struct.pack("<QQ", context_bytes, 0) or flags[0] != 0 or flags[3] != 1:
        raise _unknown()
    return address


class HaltFlag:
    """Tells whether the last run of an x86 instance was ended by HLT.

    A run that HLT ends and one that a stop request ends leave the same registers; the opcode in front of EIP may be
    the last byte of another instruction.

    Args:
        uc: An x86 instance that has not run.

    Raises:
        LocalError: The installed Unicorn keeps the flag elsewhere.
    """

    def __init__(self, uc: Any) -> None:
        _check_halt_flag()
        self._flag = _halt_flag(uc)

    def is_set(self) -> bool:
        """Whether HLT was executed last; to be asked between runs."""
        return self._flag.value == 1

    def clear(self) -> None:
        """Forget the last run, as the start of the next one does."""
        self._flag.value = 0


def _halt_flag(uc: Any) -> ctypes.c_uint32:
    cpu = ctypes.c_void_p.from_address(structure(uc) + _CPU).value
    if cpu is None:
        raise _unknown()
    return ctypes.c_uint32.from_address(cpu + _HALTED)


@functools.cache
def _check_halt_flag() -> None:
    """Look at the flag before a run, after a stop request, and after HLT."""
    uc: Any = Uc(UC_ARCH_X86, UC_MODE_32)
    uc.mem_map(_START, 0x1000)
    uc.mem_write(_START, _CODE)
    flag = _halt_flag(uc)
    stop_at_in = uc.hook_add(UC_HOOK_INSN, _stop, None, 1, 0, UC_X86_INS_IN)
    seen = [flag.value]
    uc.emu_start(_START, 0)
    seen.append(flag.value)
    uc.hook_del(stop_at_in)
    uc.emu_start(_START, 0)
    seen.append(flag.value)
    uc.hook_add(UC_HOOK_INSN, _stop, None, 1, 0, UC_X86_INS_IN)
    uc.emu_start(_START, 0)
    seen.append(flag.value)
    if seen != [0, 0, 1, 0]:
        raise _unknown()


def _stop(uc: Any, _port: int, _width: int, _data: object) -> int:
    uc.emu_stop()
    return 0


def _unknown() -> LocalError:
    return LocalError("this Unicorn lays out its structures in an unknown way", "unicorn", "install unicorn 2.1.4")
