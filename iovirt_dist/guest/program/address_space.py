"""A program's virtual memory: which pages it has, how they are protected, and where they lie in physical memory."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.program.tables import ENTRY_BYTES, EXECUTE, PAGE_BYTES, READ, WRITE, TableFormat
from iovirt_dist.wire.codec import Buffer

_ALL: Final = READ | WRITE | EXECUTE
_ZERO_PAGE: Final = bytes(PAGE_BYTES)
_FRAME: Final = ~(PAGE_BYTES - 1)


class PhysicalMemory(Protocol):
    """RAM that pages and tables are taken from."""

    def read_memory(self, address: int, length: int) -> bytes:
        """Read RAM; LocalError outside."""
        ...

    def write_memory(self, address: int, data: Buffer) -> None:
        """Write RAM, so that the CPU sees it; LocalError outside."""
        ...


class OutOfMemoryError(LocalError):
    """The program has no RAM left; nothing was changed."""


class AddressSpace:
    """Pages of one program; implements `iovirt_dist.guest.program.marshal.UserMemory`.

    Args:
        memory: RAM; all of it is zero.
        base: Where RAM begins, page-aligned.
        size: Bytes of RAM.
        layout: How page tables are written.
        user_end: First virtual address behind the part that a program may use.
        flush: Called when the CPU must forget translations.

    Attributes:
        root: Physical address of the top table.
    """

    def __init__(
        self,
        memory: PhysicalMemory,
        base: int,
        size: int,
        layout: TableFormat,
        user_end: int,
        flush: Callable[[], None],
    ) -> None:
        self._memory = memory
        self._layout = layout
        self._user_end = user_end
        self._flush = flush
        self._next = base
        self._size = size
        self._end = base + size
        self._free: list[int] = []
        self._pages: dict[int, int] = {}  # page number -> frame address | protection
        self._tables: dict[tuple[int, ...], int] = {}
        self.root = self._take_frames(1)[0]
        self._tables[()] = self.root

    # What effects and loaders do

    def map(self, address: int, length: int, protection: int) -> bool:
        """Map zeroed memory in place of whatever is there; the length is rounded up to whole pages.

        Returns:
            False, with nothing changed, if the range is not page-aligned, empty, or not the program's.

        Raises:
            OutOfMemoryError: There is not that much RAM.
        """
        pages = self._range(address, length)
        if pages is None:
            return False
        if length > self._size:
            raise _no_memory(length)
        needed = len(pages) + self._new_tables(pages)
        held = [page for page in pages if page in self._pages]
        if needed > len(self._free) + len(held) + (self._end - self._next) // PAGE_BYTES:
            raise _no_memory(length)
        self._drop(held)
        protection &= _ALL
        for page, frame in zip(pages, self._take_frames(len(pages)), strict=True):
            self._pages[page] = frame | protection
        self._write_entries(pages)
        return True

    def unmap(self, address: int, length: int) -> bool:
        """Forget pages; those that are not mapped are no error. Returns False as `map` does."""
        pages = self._range(address, length)
        if pages is None:
            return False
        held = self._held(pages)
        self._drop(held)
        self._write_entries(held)
        return True

    def protect(self, address: int, length: int, protection: int) -> bool:
        """Change the protection of the pages that are mapped. Returns False as `map` does."""
        pages = self._range(address, length)
        if pages is None:
            return False
        held = self._held(pages)
        for page in held:
            self._pages[page] = self._pages[page] & _FRAME | protection & _ALL
        self._write_entries(held)
        return True

    def map_system(self, address: int, data: bytes) -> int:
        """Map one page that the CPU reads and the program cannot access, outside the program's part.

        Returns:
            Its physical address.
        """
        frame = self._take_frames(1)[0]
        self._memory.write_memory(frame, data)
        entry = self._layout.entry(frame, self._layout.system)
        *path, index = self._layout.indices(address)
        self._write_table(self._table(tuple(path)), index, [entry])
        return frame

    # What the program may access

    def accessible(self, address: int, length: int, *, write: bool) -> int:
        """How many of `length` bytes from `address` on the program may read or write."""
        wanted = WRITE if write else READ
        rights = self._layout.rights
        end = address + length
        at = address
        while at < end:
            entry = self._pages.get(at // PAGE_BYTES)
            if entry is None or not rights[entry & _ALL] & wanted:
                return at - address
            at = (at // PAGE_BYTES + 1) * PAGE_BYTES
        return length

    def read(self, address: int, length: int) -> bytes:
        """Read mapped memory, whatever its protection; ends early where nothing is mapped."""
        read = self._memory.read_memory
        runs = self._runs(address, length)
        return read(*runs[0]) if len(runs) == 1 else b"".join([read(*run) for run in runs])

    def write(self, address: int, data: Buffer) -> None:
        """Write as the program could; what it could not write, and all behind that, is dropped."""
        self.load(address, memoryview(data)[: self.accessible(address, len(data), write=True)])

    def load(self, address: int, data: Buffer) -> None:
        """Write mapped memory, whatever its protection; ends early where nothing is mapped."""
        view = memoryview(data)
        for physical, length in self._runs(address, len(view)):
            self._memory.write_memory(physical, view[:length])
            view = view[length:]

    # Pages and frames

    def _range(self, address: int, length: int) -> range | None:
        end = address + length
        if address % PAGE_BYTES or length <= 0 or end > self._user_end:
            return None
        return range(address // PAGE_BYTES, -(-end // PAGE_BYTES))

    def _held(self, pages: range) -> list[int]:
        """Those of `pages` that are mapped; a range may be far larger than what is mapped in it."""
        if len(pages) > len(self._pages):
            return sorted(page for page in self._pages if page in pages)
        return [page for page in pages if page in self._pages]

    def _runs(self, address: int, length: int) -> list[tuple[int, int]]:
        """Physical ranges behind a virtual one, neighbours joined, up to the first page that is not mapped."""
        runs: list[tuple[int, int]] = []
        while length > 0:
            entry = self._pages.get(address // PAGE_BYTES)
            if entry is None:
                break
            offset = address % PAGE_BYTES
            size = min(length, PAGE_BYTES - offset)
            physical = (entry & _FRAME) + offset
            if runs and sum(runs[-1]) == physical:
                physical, size_before = runs.pop()
                runs.append((physical, size_before + size))
            else:
                runs.append((physical, size))
            address += size
            length -= size
        return runs

    def _drop(self, pages: list[int]) -> None:
        for page in pages:
            self._free.append(self._pages.pop(page) & _FRAME)

    def _take_frames(self, count: int) -> list[int]:
        """Zeroed frames, from memory never used as long as there is some: it needs no zeroing, and lies together."""
        fresh = min(count, (self._end - self._next) // PAGE_BYTES)
        frames = list(range(self._next, self._next + fresh * PAGE_BYTES, PAGE_BYTES))
        self._next += fresh * PAGE_BYTES
        for _ in range(count - fresh):
            frame = self._free.pop()
            self._memory.write_memory(frame, _ZERO_PAGE)
            frames.append(frame)
        return frames

    # Page tables

    def _new_tables(self, pages: range) -> int:
        """An upper bound for the tables that `pages` need besides those there are."""
        missing: set[tuple[int, ...]] = set()
        for first in range(pages.start >> 9, (pages.stop - 1 >> 9) + 1):
            path = tuple(self._layout.indices(first << 9 + 12)[:-1])
            missing.update(path[:depth] for depth in range(1, len(path) + 1) if path[:depth] not in self._tables)
        return len(missing)

    def _write_entries(self, pages: Sequence[int]) -> None:
        """Write the entries of ascending `pages` into their tables, neighbours in one table at once."""
        start = 0
        while start < len(pages):
            first = pages[start]
            stop = start + 1
            while stop < len(pages) and pages[stop] - first == stop - start and pages[stop] >> 9 == first >> 9:
                stop += 1
            *path, index = self._layout.indices(first * PAGE_BYTES)
            entries = [self._entry(page) for page in pages[start:stop]]
            self._write_table(self._table(tuple(path)), index, entries)
            start = stop
        self._flush()

    def _entry(self, page: int) -> int:
        held = self._pages.get(page)
        flags = 0 if held is None else self._layout.leaf[held & _ALL]
        return self._layout.entry(held & _FRAME, flags) if held is not None and flags else 0

    def _table(self, path: tuple[int, ...]) -> int:
        """Return the table that `path` leads to, made if it is missing."""
        table = self._tables.get(path)
        if table is None:
            parent = self._table(path[:-1])
            table = self._tables[path] = self._take_frames(1)[0]
            entry = self._layout.entry(table, self._layout.branch[len(path) - 1])
            self._write_table(parent, path[-1], [entry])
        return table

    def _write_table(self, table: int, index: int, entries: list[int]) -> None:
        self._memory.write_memory(table + index * ENTRY_BYTES, struct.pack(f"<{len(entries)}Q", *entries))


def _no_memory(length: int) -> OutOfMemoryError:
    return OutOfMemoryError(f"no memory for {length} bytes", "program", "it uses too much")
