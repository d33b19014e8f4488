"""Which operating system and architecture a program is for, told from its ELF header."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from iovirt_dist.topology.guest_specs import UNKNOWN_ABI

ELFCLASS32: Final = 1
ELFCLASS64: Final = 2

PROGRAM_ABIS: Final = {
    "linux_i386": (ELFCLASS32, 3),
    "linux_x86_64": (ELFCLASS64, 62),
    "linux_aarch64": (ELFCLASS64, 183),
    "linux_riscv64": (ELFCLASS64, 243),
}
"""ABIs by name: EI_CLASS and e_machine of their programs (System V ABI, "ELF Header", and the processor supplements).

Their system calls are declared in `iovirt_dist.abi`."""

_LITTLE_ENDIAN: Final = 1
_HEADER: Final = struct.Struct("<4sBB10xHH")
"""Magic, EI_CLASS, EI_DATA, padding, e_type, e_machine."""


def program_abi(image: Path) -> str:
    """Look at a program.

    Args:
        image: ELF file; may be absent or anything else.

    Returns:
        A name of `PROGRAM_ABIS`, or `UNKNOWN_ABI`.
    """
    if not image.is_file():  # a FIFO would block
        return UNKNOWN_ABI
    try:
        with image.open("rb") as file:
            magic, word_class, order, _, machine = _HEADER.unpack(file.read(_HEADER.size))
    except (OSError, struct.error):
        return UNKNOWN_ABI
    if magic != b"\x7fELF" or order != _LITTLE_ENDIAN:
        return UNKNOWN_ABI
    return next((name for name, known in PROGRAM_ABIS.items() if known == (word_class, machine)), UNKNOWN_ABI)
