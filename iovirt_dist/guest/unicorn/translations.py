"""Discards code that Unicorn has translated, by where it lies in RAM.

Unicorn notices that guest code overwrites guest code. It does not notice writes from outside: ``uc_mem_write`` leaves
the translations of what it overwrites in place (unicorn-engine issue 1148), and the public remedy
``uc_ctl_remove_cache`` takes virtual addresses, as the program that happens to run maps them. A device writes to
physical memory, so what the remedy calls inside is called here: ``tb_invalidate_phys_range``, an exported symbol of
the library without a public declaration. That it does what it should is tried out once per process and architecture.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from unicorn.arm64_const import UC_ARM64_REG_X0
from unicorn.riscv_const import UC_RISCV_REG_A0
from unicorn.unicorn_const import UC_ARCH_ARM64, UC_ARCH_RISCV, UC_ARCH_X86, UC_MODE_32, UC_MODE_RISCV64, UC_PROT_ALL
from unicorn.unicorn_py3 import Uc
from unicorn.unicorn_py3 import unicorn as binding
from unicorn.x86_const import UC_X86_REG_EAX

from iovirt_dist.errors import LocalError


class _Architecture(NamedTuple):
    """How the library's symbols end, and a trial.

    Attributes:
        suffix: End of the symbols' names.
        mode: ``UC_MODE_*``.
        register: What the trial sets.
        jump: A jump forward by 100h.
        one: Sets `register` to 1 and jumps, from where it begins, forward by 100h.
        two: The same with 2.
    """

    suffix: str
    mode: int
    register: int
    jump: bytes
    one: bytes
    two: bytes


_ARCHITECTURES: Final = {
    # jmp; mov eax, 1; jmp
    UC_ARCH_X86: _Architecture(
        "x86_64",
        UC_MODE_32,
        UC_X86_REG_EAX,
        bytes.fromhex("e9fb000000"),
        bytes.fromhex("b801000000 e9f6000000"),
        bytes.fromhex("b802000000 e9f6000000"),
    ),
    # j; c.li a0, 1; c.nop; j
    UC_ARCH_RISCV: _Architecture(
        "riscv64",
        UC_MODE_RISCV64,
        UC_RISCV_REG_A0,
        bytes.fromhex("6f000010"),
        bytes.fromhex("0545 0100 6f00c00f"),
        bytes.fromhex("0945 0100 6f00c00f"),
    ),
    # b; movz x0, 1; b
    UC_ARCH_ARM64: _Architecture(
        "aarch64",
        0,
        UC_ARM64_REG_X0,
        bytes.fromhex("40000014"),
        bytes.fromhex("200080d2 3f000014"),
        bytes.fromhex("400080d2 3f000014"),
    ),
}
_TRIAL: Final = 0x1000
_STEP: Final = 0x100
_PAGE_BYTES: Final = 4096


class Translations:
    """What one instance has translated.

    Args:
        uc: A 32- or 64-bit x86, 64-bit RISC-V or 64-bit Arm instance.
        architecture: Its ``UC_ARCH_*``.

    Attributes:
        discard: Forgets the translations of a range of RAM addresses, start inclusive to end exclusive; in the thread
            that runs the instance, between two runs or inside a hook, whose own block runs to its end.

    Raises:
        LocalError: This Unicorn is not known to do it.
    """

    discard: Callable[[int, int], None]

    def __init__(self, uc: Any, architecture: int) -> None:
        _check(architecture)
        self._attach(uc, _ARCHITECTURES[architecture].suffix)

    def ram_address(self, pointer: int) -> int:
        """Return the RAM address, Unicorn's own numbering, of the host memory at `pointer` that was mapped.

        Raises:
            LocalError: It was not.
        """
        address: int = self._address_of(self._structure, pointer)
        if address == _NO_ADDRESS:
            raise _unknown()
        return address

    def _attach(self, uc: Any, suffix: str) -> None:
        """Take the symbols. They hold the interpreter lock: they take a microsecond."""
        library = ctypes.PyDLL(binding.uclib._name)
        self._uc = uc  # the structure lives as long
        self._structure = structure = ctypes.c_void_p(ctypes.cast(uc._uch, ctypes.c_void_p).value)
        try:
            invalidate = getattr(library, f"tb_invalidate_phys_range_{suffix}")
            self._address_of = getattr(library, f"qemu_ram_addr_from_host_{suffix}")
        except AttributeError:
            raise _unknown() from None
        invalidate.argtypes, invalidate.restype = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64), None
        self._address_of.argtypes, self._address_of.restype = (ctypes.c_void_p, ctypes.c_void_p), ctypes.c_uint64
        self.discard = functools.partial(invalidate, structure)


_NO_ADDRESS: Final = (1 << 64) - 1  # RAM_ADDR_INVALID


@functools.cache
def _check(architecture: int) -> None:
    """Overwrite a block that has run, and see that the new one runs.

    It is neither where the run begins nor where it ends: Unicorn translates those anew.
    """
    trial = _ARCHITECTURES.get(architecture)
    if trial is None:
        raise _unknown()
    uc: Any = Uc(architecture, trial.mode)
    memory = mmap.mmap(-1, _PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pointer = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    uc.mem_map_ptr(_TRIAL, _PAGE_BYTES, UC_PROT_ALL, pointer)
    translations = object.__new__(Translations)
    translations._attach(uc, trial.suffix)
    base = translations.ram_address(pointer)
    memory[: len(trial.jump)] = trial.jump
    results = []
    for code in (trial.one, trial.two):
        memory[_STEP : _STEP + len(code)] = code
        translations.discard(base + _STEP, base + _STEP + len(code))
        uc.emu_start(_TRIAL, _TRIAL + 2 * _STEP)
        results.append(uc.reg_read(trial.register))
    if results != [1, 2]:
        raise _unknown()


def _unknown() -> LocalError:
    return LocalError("translated code cannot be discarded", "unicorn", "install unicorn 2.1.4 from PyPI")
