"""Direct access to Unicorn's saved x86 CPU state.

Unicorn's register interface cannot express what the delivery of an exception needs: writing CS or SS at a lower
privilege level fails, reading a descriptor for it may fault with no way out, hidden parts of segment registers, the
error code of an exception and the interrupt shadow are not registers at all. A saved context holds all of them: it is a
copy of the emulator's CPU structure (``CPUX86State`` in QEMU's target/i386/cpu.h). `StateBlock` saves the state into
such a context, reads and writes fields at their offsets, and restores it.

The offsets belong to one build of Unicorn. They are therefore not believed: `layout` sets registers through the public
interface, finds them in a saved context, provokes an exception to find its error code, and refuses a Unicorn whose
structure is different. It does so once per process.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import struct
from typing import Any, Final, NamedTuple

from unicorn.unicorn_const import UC_ARCH_X86, UC_HOOK_INTR, UC_MODE_32
from unicorn.unicorn_py3 import Uc
from unicorn.x86_const import (
    UC_X86_REG_CR3,
    UC_X86_REG_EAX,
    UC_X86_REG_EBP,
    UC_X86_REG_EBX,
    UC_X86_REG_ECX,
    UC_X86_REG_EDI,
    UC_X86_REG_EDX,
    UC_X86_REG_EFLAGS,
    UC_X86_REG_EIP,
    UC_X86_REG_ESI,
    UC_X86_REG_ESP,
    UC_X86_REG_GDTR,
    UC_X86_REG_IDTR,
)

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.x86.state import CS, DS, ES, SS, VM, CpuState, Segment

REGISTER_IDS: Final = (
    UC_X86_REG_EAX,
    UC_X86_REG_ECX,
    UC_X86_REG_EDX,
    UC_X86_REG_EBX,
    UC_X86_REG_ESP,
    UC_X86_REG_EBP,
    UC_X86_REG_ESI,
    UC_X86_REG_EDI,
)

# Offsets in CPUX86State
_EIP: Final = 128
_EFLAGS: Final = 136
_CC_OP: Final = 168
_HFLAGS: Final = 176
_SEGMENTS: Final = 184
_SEGMENT_BYTES: Final = 24
_LDTR: Final = 6
_TR: Final = 7
_GDTR: Final = 8
_IDTR: Final = 9
_CR: Final = _SEGMENTS + 10 * _SEGMENT_BYTES

# Hidden flags (HF_* in cpu.h)
_HF_CPL: Final = 3
_HF_INHIBIT_IRQ: Final = 1 << 3
_HF_CS32: Final = 1 << 4
_HF_SS32: Final = 1 << 5
_HF_ADDSEG: Final = 1 << 6
_HF_PE: Final = 1 << 7
_CC_OP_EFLAGS: Final = 1
_OLD_EXCEPTION: Final = 4 + 4 + 8 + 8 * 8 + 4 * 8  # behind the error code
_NO_EXCEPTION: Final = 0xFFFF_FFFF
_DESCRIPTOR_BIG: Final = 1 << 22

_QUADWORD: Final = struct.Struct("<Q")
_DOUBLEWORD: Final = struct.Struct("<I")
_GENERAL: Final = struct.Struct("<8Q")
_SEGMENT_TABLE: Final = struct.Struct("<" + 10 * "I4xQII")


class Layout(NamedTuple):
    """Where the CPU structure starts in a saved context, and where in it the last error code lies.

    Behind the error code follow ``exception_is_int``, ``exception_next_eip``, eight debug registers, four pointers and
    ``old_exception``, the exception in flight. Unicorn never resets the latter, because it delivers nothing, and then
    reports every second contributory exception as a double fault; `StateBlock.load` resets it.
    """

    start: int
    error_code: int


class StateBlock:
    """A saved copy of one Unicorn's CPU state.

    Args:
        uc: The Unicorn instance.

    Raises:
        LocalError: This Unicorn's CPU structure is not the expected one.
    """

    def __init__(self, uc: Any) -> None:
        self._uc = uc
        self._layout = layout()
        self._context = uc.context_save()
        address = ctypes.cast(self._context.context, ctypes.c_void_p).value or 0
        size = self._context.size - self._layout.start
        self._bytes = (ctypes.c_ubyte * size).from_address(address + self._layout.start)

    def save(self) -> None:
        """Copy the CPU's state into this block."""
        self._uc.context_update(self._context)

    def restore(self) -> None:
        """Copy this block into the CPU. The emulator's TLB is not flushed."""
        self._uc.context_restore(self._context)

    def eip(self) -> int:
        """EIP."""
        return self._quadword(_EIP) & 0xFFFF_FFFF

    def error_code(self) -> int:
        """Error code of the last exception."""
        return self._doubleword(self._layout.error_code)

    def is_software_interrupt(self) -> bool:
        """Whether the last exception was INT n, INT3 or INTO."""
        return bool(self._doubleword(self._layout.error_code + 4))

    @property
    def cr0(self) -> int:
        """Control register 0."""
        return self._quadword(_CR) & 0xFFFF_FFFF

    @property
    def cr2(self) -> int:
        """Page fault address."""
        return self._quadword(_CR + 2 * 8) & 0xFFFF_FFFF

    @property
    def cr3(self) -> int:
        """Page directory base."""
        return self._quadword(_CR + 3 * 8) & 0xFFFF_FFFF

    @property
    def cr4(self) -> int:
        """Control register 4."""
        return self._quadword(_CR + 4 * 8) & 0xFFFF_FFFF

    def code_segment_base(self) -> int:
        """CS.base."""
        return self._quadword(_SEGMENTS + CS * _SEGMENT_BYTES + 8) & 0xFFFF_FFFF

    def io_level(self) -> tuple[int, int, bool]:
        """Return CPL, IOPL and whether virtual-8086 mode is on; (0, 0, False) in real mode."""
        hidden = self._doubleword(_HFLAGS)
        if not hidden & _HF_PE:
            return 0, 0, False
        eflags = self._doubleword(_EFLAGS)
        return hidden & _HF_CPL, eflags >> 12 & 3, bool(eflags & VM)

    def state(self, eflags: int) -> CpuState:
        """Return the saved state; `eflags` comes from the register interface, which adds up the lazy flags."""
        hidden = self._doubleword(_HFLAGS)
        raw = _SEGMENT_TABLE.unpack_from(self._bytes, _SEGMENTS)
        segments = [Segment(*raw[start : start + 4]) for start in range(0, 40, 4)]
        return CpuState(
            registers=[value & 0xFFFF_FFFF for value in _GENERAL.unpack_from(self._bytes)],
            eip=self.eip(),
            eflags=eflags,
            cpl=hidden & _HF_CPL if hidden & _HF_PE else 0,
            shadow=bool(hidden & _HF_INHIBIT_IRQ),
            segments=segments[:6],
            ldtr=segments[_LDTR],
            tr=segments[_TR],
            gdtr=segments[_GDTR],
            idtr=segments[_IDTR],
            cr0=self.cr0,
            cr2=self.cr2,
            cr3=self.cr3,
            cr4=self.cr4,
        )

    def load(self, state: CpuState) -> None:
        """Put `state` into this block, hidden flags included; CR0, CR3 and CR4 are left alone."""
        _GENERAL.pack_into(self._bytes, 0, *state.registers)
        _QUADWORD.pack_into(self._bytes, _EIP, state.eip)
        table = (*state.segments, state.ldtr, state.tr, state.gdtr, state.idtr)
        _SEGMENT_TABLE.pack_into(self._bytes, _SEGMENTS, *itertools.chain.from_iterable(table))
        _QUADWORD.pack_into(self._bytes, _CR + 2 * 8, state.cr2)
        # the lazy flags: Unicorn's register interface cannot be used before the privilege level is in place
        arithmetic, df = state.eflags & 0x8D5, -1 if state.eflags & 0x400 else 1
        _QUADWORD.pack_into(self._bytes, _EFLAGS, state.eflags & ~0xCD5 | 2)
        struct.pack_into("<QQQIi", self._bytes, _EFLAGS + 8, 0, arithmetic, 0, _CC_OP_EFLAGS, df)
        _DOUBLEWORD.pack_into(self._bytes, _HFLAGS, self._hidden_flags(state))
        _DOUBLEWORD.pack_into(self._bytes, self._layout.error_code + _OLD_EXCEPTION, _NO_EXCEPTION)

    def set_control(self, number: int, value: int) -> None:
        """Set CR0, CR2, CR3 or CR4 in this block, without any of the effects of writing the register."""
        _QUADWORD.pack_into(self._bytes, _CR + 8 * number, value)

    def _hidden_flags(self, state: CpuState) -> int:
        """As QEMU's cpu_x86_load_seg_cache computes them."""
        hidden = self._doubleword(_HFLAGS) & ~(_HF_CPL | _HF_INHIBIT_IRQ | _HF_CS32 | _HF_SS32 | _HF_ADDSEG)
        hidden |= state.cpl | (_HF_INHIBIT_IRQ if state.shadow else 0)
        big_code = bool(state.segments[CS].attributes & _DESCRIPTOR_BIG)
        hidden |= _HF_CS32 if big_code else 0
        hidden |= _HF_SS32 if state.segments[SS].attributes & _DESCRIPTOR_BIG else 0
        flat = not any(state.segments[index].base for index in (DS, ES, SS))
        if not (flat and big_code and state.protected and not state.virtual_8086):
            hidden |= _HF_ADDSEG
        return hidden

    def _quadword(self, offset: int) -> int:
        value: int = _QUADWORD.unpack_from(self._bytes, offset)[0]
        return value

    def _doubleword(self, offset: int) -> int:
        value: int = _DOUBLEWORD.unpack_from(self._bytes, offset)[0]
        return value


@functools.cache
def layout() -> Layout:
    """Find the CPU structure in a saved context of this Unicorn and check it.

    Raises:
        LocalError: It is not the expected one.
    """
    uc: Any = Uc(UC_ARCH_X86, UC_MODE_32)
    values = [0x5A00_0000 + number for number in range(8)]
    for register, value in zip(REGISTER_IDS, values, strict=True):
        uc.reg_write(register, value)
    uc.reg_write(UC_X86_REG_EIP, 0x12345)
    uc.reg_write(UC_X86_REG_EFLAGS, 0x202)
    uc.reg_write(UC_X86_REG_CR3, 0x7000)
    uc.reg_write(UC_X86_REG_GDTR, (0, 0x10000, 0x37, 0))
    uc.reg_write(UC_X86_REG_IDTR, (0, 0x20000, 0x47, 0))
    saved = bytes(uc.context_save())
    start = saved.find(_GENERAL.pack(*values))
    expected = (
        (_EIP, _QUADWORD.pack(0x12345)),
        (_EFLAGS, _QUADWORD.pack(0x202)),
        (_CC_OP, struct.pack("<Ii", _CC_OP_EFLAGS, 1)),
        (_SEGMENTS + _GDTR * _SEGMENT_BYTES + 8, struct.pack("<QI", 0x10000, 0x37)),
        (_SEGMENTS + _IDTR * _SEGMENT_BYTES + 8, struct.pack("<QI", 0x20000, 0x47)),
        (_CR, struct.pack("<QQQQ", 0x11, 0, 0, 0x7000)),
    )
    if start < 0 or any(saved[start + offset :][: len(raw)] != raw for offset, raw in expected):
        raise _unknown_layout()
    return Layout(start, _error_code_offset(uc, start))


def _error_code_offset(uc: Any, start: int) -> int:
    """Load a selector beyond the GDT: #GP with the selector as error code; look where it turns up."""
    address = 0x1000
    uc.mem_map(0, 0x2000)
    uc.mem_write(address, b"\x8e\xd8")  # mov ds, ax
    uc.hook_add(UC_HOOK_INTR, lambda uc, _vector, _data: uc.emu_stop())
    clean = uc.context_save()
    offsets: set[int] | None = None
    for selector in (0x5A58, 0xA5A0):
        uc.context_restore(clean)
        uc.reg_write(UC_X86_REG_EAX, selector)
        uc.emu_start(address, 0)
        saved = bytes(uc.context_save())[start:]
        pattern = struct.pack("<II", selector, 0)  # error_code, then exception_is_int
        found = {o for o in range(_CR, len(saved) - 7, 4) if saved[o : o + 8] == pattern}
        offsets = found if offsets is None else offsets & found
    if not offsets or len(offsets) != 1:
        raise _unknown_layout()
    offset = offsets.pop()
    if saved[offset + _OLD_EXCEPTION :][:4] != b"\x0d\0\0\0":
        raise _unknown_layout()
    return offset


def _unknown_layout() -> LocalError:
    return LocalError("this Unicorn lays out its CPU state in an unknown way", "unicorn", "install unicorn 2.1.4")
