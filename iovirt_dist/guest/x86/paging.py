"""Linear to physical addresses by the guest's page tables, for the accesses that we make in the CPU's name.

The engine walks the tables itself for the instructions that it executes. Ours are the stack pushes of an exception,
descriptor tables, the I/O permission bitmap and the elements of string I/O. 32-bit paging with 4 KiB and 4 MiB pages
and PAE paging with 4 KiB and 2 MiB pages (Intel SDM volume 3, sections 4.3 and 4.4); no-execute, protection keys, SMEP
and SMAP do not matter for these accesses or are not modelled.
"""

from __future__ import annotations

from typing import Final, Protocol

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.x86.faults import PAGE_FAULT, Fault
from iovirt_dist.guest.x86.state import CR0_PG, CR0_WP, CR4_PAE, CR4_PSE

PAGE_BYTES: Final = 4096
PRESENT: Final = 1 << 0
WRITABLE: Final = 1 << 1
USER: Final = 1 << 2
ACCESSED: Final = 1 << 5
DIRTY: Final = 1 << 6
LARGE: Final = 1 << 7

ERROR_PRESENT: Final = 1 << 0
ERROR_WRITE: Final = 1 << 1
ERROR_USER: Final = 1 << 2

_PAE_ADDRESS: Final = 0x000F_FFFF_FFFF_F000


class PagingControls(Protocol):
    """The control registers that paging depends on."""

    @property
    def cr0(self) -> int:
        """PG and WP."""
        ...

    @property
    def cr3(self) -> int:
        """Physical address of the top table."""
        ...

    @property
    def cr4(self) -> int:
        """PSE and PAE."""
        ...


class Memory(Protocol):
    """Guest physical memory."""

    def read_memory(self, address: int, length: int) -> bytes:
        """Read RAM or ROM; LocalError outside."""
        ...

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write RAM or ROM; LocalError outside."""
        ...

    def is_ram(self, address: int, length: int) -> bool:
        """Whether the whole range is RAM."""
        ...


class Mmu:
    """Reads and writes linear memory in the name of a CPU.

    Args:
        memory: Guest physical memory.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def translate(self, state: PagingControls, linear: int, *, write: bool, user: bool) -> int:
        """Return the physical address, and set the accessed and dirty bits on the way.

        Args:
            state: Control registers.
            linear: Linear address; taken modulo 4 GiB.
            write: Whether the access writes.
            user: Whether it is a user-mode access (CPL 3, and not to a system table).

        Raises:
            Fault: The page fault that the access causes.
        """
        linear &= 0xFFFF_FFFF
        if not state.cr0 & CR0_PG:
            return linear
        if state.cr4 & CR4_PAE:
            return self._walk_pae(state, linear, write, user)
        return self._walk_32(state, linear, write, user)

    def read(self, state: PagingControls, linear: int, length: int, *, user: bool = False) -> bytes:
        """Read `length` bytes, across pages; what is neither RAM nor ROM reads as ones.

        Raises:
            Fault: A page fault; nothing is read.
        """
        parts = []
        while length:
            chunk = min(length, PAGE_BYTES - linear % PAGE_BYTES)
            physical = self.translate(state, linear, write=False, user=user)
            parts.append(self.read_physical(physical, chunk))
            linear += chunk
            length -= chunk
        return b"".join(parts)

    def write(self, state: PagingControls, linear: int, data: bytes, *, user: bool = False) -> None:
        """Write `data`, across pages; what is not RAM ignores it.

        Raises:
            Fault: A page fault; nothing is written.
        """
        pieces = []
        offset = 0
        while offset < len(data):
            chunk = min(len(data) - offset, PAGE_BYTES - (linear + offset) % PAGE_BYTES)
            physical = self.translate(state, linear + offset, write=True, user=user)
            pieces.append((physical, data[offset : offset + chunk]))
            offset += chunk
        for physical, piece in pieces:
            if self._memory.is_ram(physical, len(piece)):
                self._memory.write_memory(physical, piece)

    def read_physical(self, address: int, length: int) -> bytes:
        """Read physical memory; ones where there is none."""
        try:
            return self._memory.read_memory(address, length)
        except LocalError:
            return b"\xff" * length

    def _walk_32(self, state: PagingControls, linear: int, write: bool, user: bool) -> int:
        directory_entry = (state.cr3 & ~0xFFF) + (linear >> 20 & 0xFFC)
        entry = self._entry(directory_entry, 4)
        if not entry & PRESENT:
            raise _page_fault(linear, 0, write, user)
        if entry & LARGE and state.cr4 & CR4_PSE:
            _check(state, linear, entry, write, user)
            self._mark(directory_entry, entry, 4, write)
            # PSE-36 (section 4.3): bits 13..20 of the entry are bits 32..39 of the address
            return (entry & 0xFFC0_0000) | (entry >> 13 & 0xFF) << 32 | (linear & 0x3F_FFFF)
        table_entry = (entry & ~0xFFF) + (linear >> 10 & 0xFFC)
        page = self._entry(table_entry, 4)
        rights = page & entry & (PRESENT | WRITABLE | USER)
        _check(state, linear, rights, write, user)
        self._mark(directory_entry, entry, 4, write=False)
        self._mark(table_entry, page, 4, write)
        return (page & ~0xFFF) | (linear & 0xFFF)

    def _walk_pae(self, state: PagingControls, linear: int, write: bool, user: bool) -> int:
        pointer = self._entry((state.cr3 & ~0x1F) + (linear >> 27 & 0x18), 8)
        if not pointer & PRESENT:
            raise _page_fault(linear, 0, write, user)
        directory_entry = (pointer & _PAE_ADDRESS) + (linear >> 18 & 0xFF8)
        entry = self._entry(directory_entry, 8)
        if not entry & PRESENT:
            raise _page_fault(linear, 0, write, user)
        if entry & LARGE:
            _check(state, linear, entry, write, user)
            self._mark(directory_entry, entry, 8, write)
            return (entry & _PAE_ADDRESS & ~0x1F_FFFF) | (linear & 0x1F_FFFF)
        table_entry = (entry & _PAE_ADDRESS) + (linear >> 9 & 0xFF8)
        page = self._entry(table_entry, 8)
        _check(state, linear, page & entry & (PRESENT | WRITABLE | USER), write, user)
        self._mark(directory_entry, entry, 8, write=False)
        self._mark(table_entry, page, 8, write)
        return (page & _PAE_ADDRESS) | (linear & 0xFFF)

    def _entry(self, address: int, width: int) -> int:
        return int.from_bytes(self.read_physical(address, width), "little")

    def _mark(self, address: int, entry: int, width: int, write: bool) -> None:
        marked = entry | ACCESSED | (DIRTY if write else 0)
        if marked != entry and self._memory.is_ram(address, width):
            self._memory.write_memory(address, marked.to_bytes(width, "little"))


def _check(state: PagingControls, linear: int, rights: int, write: bool, user: bool) -> None:
    """Raise the page fault of an access that `rights` do not allow (section 4.6.1)."""
    if not rights & PRESENT:
        raise _page_fault(linear, 0, write, user)
    denied_user = user and not rights & USER
    denied_write = write and not rights & WRITABLE and (user or state.cr0 & CR0_WP)
    if denied_user or denied_write:
        raise _page_fault(linear, ERROR_PRESENT, write, user)


def _page_fault(linear: int, present: int, write: bool, user: bool) -> Fault:
    error_code = present | (ERROR_WRITE if write else 0) | (ERROR_USER if user else 0)
    return Fault(PAGE_FAULT, error_code, linear)
