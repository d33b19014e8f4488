"""Page tables for a program's address space, in the format of each architecture.

All formats used here have entries of eight bytes and pages of 4 KiB: x86-64 with four levels (Intel SDM volume 3,
section 4.5), x86 with PAE (section 4.4), RISC-V Sv39 (Privileged ISA 1.10, section 4.4). The accessed and dirty bits
are set from the start: nobody looks at them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

PAGE_BYTES: Final = 4096
ENTRY_BYTES: Final = 8

READ: Final = 1
WRITE: Final = 2
EXECUTE: Final = 4


class TableFormat(NamedTuple):
    """How an architecture writes its page tables.

    Attributes:
        bits: Index bits of each level, the root's first.
        shift: How far a physical address is shifted right in an entry.
        branch: Flags of an entry that points to a table, for each level but the last.
        leaf: Flags of a user page's entry for each protection 0..7; 0 where the page cannot be accessed.
        rights: What each protection 0..7 really allows: x86 cannot express a page that is not readable, RISC-V none
            that is writable only.
        system: Flags of the entry of a page that is the CPU's, not the program's; read-only.
    """

    bits: tuple[int, ...]
    shift: int
    branch: tuple[int, ...]
    leaf: tuple[int, ...]
    rights: tuple[int, ...]
    system: int

    def entry(self, physical: int, flags: int) -> int:
        """Return the entry for a physical page or table."""
        return physical >> self.shift | flags

    def indices(self, address: int) -> list[int]:
        """Return the index of a virtual address in the table of each level."""
        found: list[int] = []
        address >>= 12
        for bits in reversed(self.bits):
            found.append(address & ((1 << bits) - 1))
            address >>= bits
        return found[::-1]


_NO_EXECUTE: Final = 1 << 63
_X86_PRESENT: Final = 0x61  # P, A, D
_X86_RIGHTS: Final = tuple(protection | READ if protection else 0 for protection in range(8))


def _x86_leaf(protection: int) -> int:
    if not protection:
        return 0
    writable = 2 if protection & WRITE else 0
    return _X86_PRESENT | 4 | writable | (0 if protection & EXECUTE else _NO_EXECUTE)


def _riscv_leaf(protection: int) -> int:
    if not protection:
        return 0
    readable = 2 if protection & (READ | WRITE) else 0
    return 0xD1 | readable | (4 if protection & WRITE else 0) | (8 if protection & EXECUTE else 0)  # V, U, A, D


_X86_LEAVES: Final = tuple(map(_x86_leaf, range(8)))
LONG_MODE: Final = TableFormat((9, 9, 9, 9), 0, (7, 7, 7), _X86_LEAVES, _X86_RIGHTS, _X86_PRESENT)
PAE: Final = TableFormat((2, 9, 9), 0, (1, 7), _X86_LEAVES, _X86_RIGHTS, _X86_PRESENT)
SV39: Final = TableFormat((9, 9, 9), 2, (1, 1), tuple(map(_riscv_leaf, range(8))), (0, 1, 3, 3, 4, 5, 7, 7), 0xC3)
