"""A program's address space as Linux manages it: the heap (brk) and mapped ranges (mmap).

The memory itself is the guest's; here it is decided where what may be. The loader has given the borders: the heap
grows up from the program's end, ranges are mapped downwards from below the stack. What lies outside of that window
(the program itself, its stack) may change its protection and be unmapped, but nothing is mapped over it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from iovirt_dist.hypervisor.linux.errno import CallError, Errno
from iovirt_dist.hypervisor.linux.request import Effect
from iovirt_dist.wire.syscall_messages import EffectKind

PAGE_BYTES = 4096
MAX_RANGES = 1024
READ, WRITE = 1, 2


class Range(NamedTuple):
    """Addresses, `start` up to but not including `end`, both page-aligned; of mapped ones also the protection."""

    start: int
    end: int
    protection: int = 0


class AddressSpace:
    """Heap and mapped ranges of one process.

    Args:
        break_start: Where the heap begins.
        map_top: Below this memory may be mapped.
        user_end: First address behind what a program may use, page-aligned.
        limit_bytes: Most memory that heap and ranges take together.

    Attributes:
        break_end: Where the heap ends.
    """

    def __init__(self, break_start: int, map_top: int, user_end: int, limit_bytes: int) -> None:
        self.break_end = min(break_start, user_end)
        self._break_start = self.break_end
        self._top = _page_down(min(map_top, user_end))
        self._user_end = user_end
        self._limit = limit_bytes
        self._ranges: list[Range] = []  # sorted, disjoint; where two touch they differ
        self._mapped_bytes = 0

    def set_break(self, address: int) -> tuple[Effect, ...]:
        """Move the heap's end, or leave it where it is if that cannot be (brk(2)); `break_end` tells."""
        if address < self._break_start:
            return ()
        old, new = _page_up(self.break_end), _page_up(address)
        if new > old:
            ceiling = self._ranges[0].start if self._ranges else self._top
            if new > ceiling or self._mapped_bytes + new - self._heap_start > self._limit:
                return ()
            self.break_end = address
            return ((EffectKind.MAP, old, new - old, READ | WRITE),)
        self.break_end = address
        return ((EffectKind.UNMAP, new, old - new, 0),) if new < old else ()

    def map(self, hint: int, length: int, protection: int, *, fixed: bool, replace: bool) -> tuple[int, Effect]:
        """Map zeroed memory.

        Args:
            hint: Where to; 0 for anywhere.
            length: Bytes, more than 0; rounded up to pages.
            protection: 1 read, 2 write, 4 execute.
            fixed: There or nowhere.
            replace: With `fixed`: what is mapped there makes room.

        Returns:
            The address, and what the guest must do.

        Raises:
            CallError: ENOMEM, EEXIST, or EINVAL for a fixed address that is not aligned.
        """
        length = _page_up(length)
        if fixed and hint % PAGE_BYTES:
            raise CallError(Errno.EINVAL)
        wanted = Range(_page_down(hint), _page_down(hint) + length)
        free = self._is_free(wanted)
        if fixed and not free:
            if not self._is_inside(wanted):
                raise CallError(Errno.ENOMEM)
            if not replace:
                raise CallError(Errno.EEXIST)
        if not (fixed or (hint and free)):
            wanted = self._find_room(length)
        added = length - self._covered(wanted)
        if self.used_bytes + added > self._limit:
            raise CallError(Errno.ENOMEM)
        self._check_count()
        self._insert(Range(wanted.start, wanted.end, protection))
        return wanted.start, (EffectKind.MAP, wanted.start, length, protection)

    def unmap(self, address: int, length: int) -> tuple[Effect, ...]:
        """Unmap whatever is in a range; nothing need be.

        Raises:
            CallError: EINVAL: not aligned, empty, or not the program's. ENOMEM: there would be too many ranges.
        """
        gone = _aligned(address, length)
        if gone.end > self._user_end:
            raise CallError(Errno.EINVAL)
        self._check_count()
        self._remove(gone)
        return ((EffectKind.UNMAP, gone.start, gone.end - gone.start, 0),)

    def protect(self, address: int, length: int, protection: int) -> tuple[Effect, ...]:
        """Change the protection of a range.

        Raises:
            CallError: ENOMEM: part of it is not mapped, or there would be too many ranges. EINVAL: not aligned.
        """
        if not length and not address % PAGE_BYTES:
            return ()
        changed = _aligned(address, length)
        if not self.is_mapped(changed):
            raise CallError(Errno.ENOMEM)
        self._check_count()
        held = self._overlapping(changed)
        if held:  # without gaps, for all of it is mapped
            self._insert(Range(max(held[0].start, changed.start), min(held[-1].end, changed.end), protection))
        return ((EffectKind.PROTECT, changed.start, changed.end - changed.start, protection),)

    def remap(self, address: int, old_length: int, length: int) -> tuple[Effect, ...]:
        """Change the size of a range where it is (mremap(2)); moving it would need the guest to copy.

        What is added has the protection of the rest, which must be the same everywhere.

        Raises:
            CallError: ENOMEM: there is no room behind it. EFAULT: it is not mapped, or not one range. EINVAL: not
                aligned or empty.
        """
        old, new = _aligned(address, old_length), _aligned(address, length)
        if self._covered(old) != old.end - old.start:
            raise CallError(Errno.EFAULT)
        if new.end <= old.end:
            return self.unmap(new.end, old.end - new.end) if new.end < old.end else ()
        grown, *others = self._overlapping(old)
        if others:
            raise CallError(Errno.EFAULT)
        added = Range(old.end, new.end, grown.protection)
        if not self._is_free(added) or self.used_bytes + added.end - added.start > self._limit:
            raise CallError(Errno.ENOMEM)
        self._check_count()
        self._insert(added)
        return ((EffectKind.MAP, added.start, added.end - added.start, added.protection),)

    def is_mapped(self, range_: Range) -> bool:
        """Whether all of a range is mapped, or the program's but outside of what is managed here."""
        if range_.end > self._user_end:
            return False
        start, end = max(range_.start, self._heap_end), min(range_.end, self._top)
        return start >= end or self._covered(Range(start, end)) == end - start

    @property
    def used_bytes(self) -> int:
        """Bytes of heap and mapped ranges."""
        return self._mapped_bytes + self._heap_bytes

    # Ranges

    @property
    def _heap_start(self) -> int:
        return _page_up(self._break_start)

    @property
    def _heap_end(self) -> int:
        return _page_up(self.break_end)

    @property
    def _heap_bytes(self) -> int:
        return self._heap_end - self._heap_start

    def _is_inside(self, range_: Range) -> bool:
        """Whether a range lies where ranges may be."""
        return self._heap_end <= range_.start and range_.end <= self._top

    def _is_free(self, range_: Range) -> bool:
        return self._is_inside(range_) and not self._covered(range_)

    def _covered(self, range_: Range) -> int:
        """Bytes of a range that are mapped."""
        total = 0
        for held in self._overlapping(range_):
            total += min(held.end, range_.end) - max(held.start, range_.start)
        return total

    def _overlapping(self, range_: Range) -> list[Range]:
        first = max(bisect_right(self._ranges, range_) - 1, 0)
        found = []
        for candidate in self._ranges[first:]:
            if candidate.start >= range_.end:
                break
            if candidate.end > range_.start:
                found.append(candidate)
        return found

    def _find_room(self, length: int) -> Range:
        """Return the highest free range of a length."""
        end = self._top
        for taken in reversed(self._ranges):
            if end - taken.end >= length:
                break
            end = taken.start
        if end - length < self._heap_end:
            raise CallError(Errno.ENOMEM)
        return Range(end - length, end)

    def _insert(self, range_: Range) -> None:
        """Add a range, joined with neighbours of the same protection."""
        self._remove(range_)
        alike = [r for r in self._ranges if r.protection == range_.protection]
        touching = [r for r in alike if r.end == range_.start or r.start == range_.end]
        for neighbour in touching:
            self._ranges.remove(neighbour)
        start = min([range_.start, *(r.start for r in touching)])
        end = max([range_.end, *(r.end for r in touching)])
        joined = Range(start, end, range_.protection)
        self._ranges.insert(bisect_right(self._ranges, joined), joined)
        self._mapped_bytes += range_.end - range_.start

    def _check_count(self) -> None:
        """Refuse a change that could split a range when there are many (Linux: ``max_map_count``)."""
        if len(self._ranges) >= MAX_RANGES:
            raise CallError(Errno.ENOMEM)

    def _remove(self, range_: Range) -> None:
        """Take a range out of what is mapped; what sticks out on either side stays."""
        gone = self._overlapping(range_)
        if not gone:
            return
        self._mapped_bytes -= self._covered(range_)
        first, last = gone[0], gone[-1]
        at = self._ranges.index(first)
        rest = [Range(first.start, range_.start, first.protection), Range(range_.end, last.end, last.protection)]
        self._ranges[at : at + len(gone)] = [r for r in rest if r.start < r.end]


def _page_down(address: int) -> int:
    return address & -PAGE_BYTES


def _page_up(address: int) -> int:
    return -(-address // PAGE_BYTES) * PAGE_BYTES


def _aligned(address: int, length: int) -> Range:
    """Return the whole pages of a range.

    Raises:
        CallError: EINVAL: its start is not aligned, or it is empty.
    """
    if address % PAGE_BYTES or length <= 0:
        raise CallError(Errno.EINVAL)
    return Range(address, address + _page_up(length))
