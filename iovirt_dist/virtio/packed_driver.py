"""Packed virtqueues (section 2.8), the driver's side."""

from __future__ import annotations

from collections.abc import Sequence

from iovirt_dist.virtio.chain import (
    DESCRIPTOR_BYTES,
    INDIRECT,
    NEXT,
    U16,
    WRITE,
    RingError,
    RingFullError,
    RingSetup,
    Segment,
    area,
)
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.virtio.packed import (
    AT_DESCRIPTOR,
    AVAIL,
    DESCRIPTOR,
    DISABLE,
    ENABLE,
    FLAGS_OFFSET,
    LAP,
    SUPPRESSION,
    USED,
    check_size,
    place_of,
    suppression_at,
)

_pack_descriptor = DESCRIPTOR.pack_into


class PackedDriver:
    """The driver's side; see `chain.DriverRing`. Places are counted over two laps, as in `packed.PackedDevice`.

    Args:
        memory: The guest's own memory.
        setup: Where the ring is to be; its areas are zeroed.

    Raises:
        RingError: Reason ``ring-size``, ``ring-alignment`` or ``ring-memory``.
    """

    def __init__(self, memory: ByteMemory, setup: RingSetup) -> None:
        size = setup.size
        check_size(size)
        self._memory = memory
        self._size = size
        self._event_idx = setup.event_idx
        self._table = area(memory, setup.descriptors, DESCRIPTOR_BYTES * size, 16)
        self._driver = area(memory, setup.driver_area, SUPPRESSION.size, 4)
        self._device = area(memory, setup.device_area, SUPPRESSION.size, 4)
        for part in (self._table, self._driver, self._device):
            part[:] = bytes(len(part))
        self._heads = list(range(size - 1, -1, -1))
        self._counts: dict[int, int] = {}
        self._free = size
        self._next = 0
        self._used = 0
        self._added = 0

    @property
    def free(self) -> int:
        """Descriptors that are free."""
        return self._free

    def add(self, readable: Sequence[Segment], writable: Sequence[Segment], table: int | None = None) -> int:
        """Make a request available (section 2.8.21); see `DriverRing.add`."""
        segments = [(address, length, 0) for address, length in readable]
        segments += [(address, length, WRITE) for address, length in writable]
        if table is not None and len(segments) <= self._size:
            view = self._memory.view(table, len(segments) * DESCRIPTOR_BYTES)
            for at, (address, length, flags) in enumerate(segments):
                _pack_descriptor(view, at << 4, address, length, 0, flags)
            segments = [(table, len(segments) << 4, INDIRECT)]
        count = len(segments)
        if not 0 < count <= self._free:
            raise RingFullError("no such number of free descriptors", f"{count} of {self._free}")
        head = self._heads.pop()
        self._write(head, segments)
        self._counts[head] = count
        self._free -= count
        self._added += count
        self._next = (self._next + count) % (2 * self._size)
        return head

    def _write(self, head: int, segments: list[tuple[int, int, int]]) -> None:
        """Write descriptors, the first one's flags last (section 2.8.6)."""
        size, table = self._size, self._table
        place, first_flags = self._next, 0
        last = len(segments) - 1
        for at, (address, length, flags) in enumerate(segments):
            lap, index = (AVAIL, place) if place < size else (USED, place - size)
            flags |= lap if at == last else lap | NEXT  # noqa: PLW2901 - the flags of this descriptor, completed
            if at:
                _pack_descriptor(table, index << 4, address, length, head, flags)
            else:
                _pack_descriptor(table, index << 4, address, length, head, lap ^ LAP)
                first_flags = flags
            place = (place + 1) % (2 * size)
        U16.pack_into(table, (self._next % size << 4) + FLAGS_OFFSET, first_flags)

    def notify_needed(self) -> bool:
        """Return whether the device wants to know (section 2.8.10); see `DriverRing.notify_needed`."""
        added, self._added = self._added, 0
        event, flags = SUPPRESSION.unpack_from(self._device)
        if flags & 3 == AT_DESCRIPTOR and self._event_idx:
            return (place_of(event, self._size) - self._next + added) % (2 * self._size) < added
        return bool(added and flags & 3 != DISABLE)

    def take_used(self) -> list[tuple[int, int]]:
        """Return what was used (section 2.8.22); see `DriverRing.take_used`."""
        used: list[tuple[int, int]] = []
        while (entry := self._used_at(self._used)) is not None:
            head = entry[0]
            count = self._counts.pop(head, None)
            if count is None:
                raise RingError("head-unknown", str(head))
            used.append(entry)
            self._heads.append(head)
            self._free += count
            self._used = (self._used + count) % (2 * self._size)
        return used

    def _used_at(self, place: int) -> tuple[int, int] | None:
        """Return buffer id and bytes written of a used descriptor; None if there is none."""
        expected, index = (LAP, place) if place < self._size else (0, place - self._size)
        _, written, head, flags = DESCRIPTOR.unpack_from(self._table, index << 4)
        if flags & LAP != expected:
            return None
        return head, written if flags & WRITE else 0

    def enable_interrupts(self) -> bool:
        """Ask for an interrupt with the next; see `DriverRing.enable_interrupts`."""
        SUPPRESSION.pack_into(self._driver, 0, 0, ENABLE)
        return self._used_at(self._used) is not None

    def interrupt_after(self, requests: int) -> bool:
        """Ask for an interrupt once so many more are used (section 2.8.10); see `DriverRing.interrupt_after`.

        After so many, the device is at least as far as if those with the fewest descriptors had come. It may go on
        while this looks, so the place is chosen anew until nothing was used meanwhile.
        """
        if not self._event_idx:
            return self.enable_interrupts()
        if requests > len(self._counts):  # how many descriptors those to come will have is not known
            self.enable_interrupts()
            return False
        waiting = -1
        while True:
            seen, (waiting, ahead) = waiting, self._look_ahead(requests)
            if waiting >= requests:
                return True
            if waiting == seen:
                return False
            self._driver[:] = suppression_at((self._used + ahead) % (2 * self._size), self._size)

    def _look_ahead(self, requests: int) -> tuple[int, int]:
        """Return how many used requests wait, and how many descriptors before the one that completes so many."""
        counts = self._counts.copy()
        waiting = descriptors = 0
        while counts and (entry := self._used_at((self._used + descriptors) % (2 * self._size))) is not None:
            waiting += 1
            descriptors += counts.pop(entry[0], 1)
        missing = max(requests - waiting, 0)
        return waiting, descriptors + sum(sorted(counts.values())[:missing]) - 1

    def disable_interrupts(self) -> None:
        """Ask for none; see `DriverRing.disable_interrupts`."""
        SUPPRESSION.pack_into(self._driver, 0, 0, DISABLE)
