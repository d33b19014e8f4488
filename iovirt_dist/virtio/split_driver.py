"""Split virtqueues (section 2.7), the driver's side."""

from __future__ import annotations

import struct
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
from iovirt_dist.virtio.split import (
    AVAIL_INDEX_OFFSET,
    AVAIL_RING_OFFSET,
    DESCRIPTOR,
    ELEMENT_BYTES,
    NO_INTERRUPT,
    NO_NOTIFY,
    USED_INDEX_OFFSET,
    USED_RING_OFFSET,
    avail_bytes,
    check_size,
    used_bytes,
)

_pack_descriptor = DESCRIPTOR.pack_into
_pack_u16 = U16.pack_into


class SplitDriver:
    """The driver's side; see `chain.DriverRing`.

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
        self._avail = area(memory, setup.driver_area, avail_bytes(size), 2)
        self._used = area(memory, setup.device_area, used_bytes(size), 4)
        for part in (self._table, self._avail, self._used):
            part[:] = bytes(len(part))
        self._used_event_offset = AVAIL_RING_OFFSET + 2 * size
        self._avail_event_offset = USED_RING_OFFSET + ELEMENT_BYTES * size
        self._free = list(range(size - 1, -1, -1))
        self._chains: dict[int, list[int]] = {}
        self._available = 0
        self._notified = 0
        self._taken = 0

    @property
    def free(self) -> int:
        """Descriptors that are free."""
        return len(self._free)

    def add(self, readable: Sequence[Segment], writable: Sequence[Segment], table: int | None = None) -> int:
        """Make a request available (section 2.7.13); see `DriverRing.add`."""
        count = len(readable) + len(writable)
        if table is not None:
            view = self._memory.view(table, count * DESCRIPTOR_BYTES)
            indices = self._allocate(1 if count <= self._size else count)
            self._describe(view, range(count), readable, writable)
            _pack_descriptor(self._table, indices[0] << 4, table, count * DESCRIPTOR_BYTES, INDIRECT, 0)
        else:
            indices = self._allocate(count)
            self._describe(self._table, indices, readable, writable)
        head = indices[0]
        self._chains[head] = indices
        _pack_u16(self._avail, AVAIL_RING_OFFSET + 2 * (self._available & (self._size - 1)), head)
        self._available = available = (self._available + 1) & 0xFFFF
        _pack_u16(self._avail, AVAIL_INDEX_OFFSET, available)
        return head

    def _allocate(self, count: int) -> list[int]:
        """Take free descriptors."""
        free = self._free
        if not 0 < count <= len(free):
            raise RingFullError("no such number of free descriptors", f"{count} of {len(free)}")
        indices = free[: -count - 1 : -1]
        del free[-count:]
        return indices

    def _describe(
        self, table: memoryview, indices: Sequence[int], readable: Sequence[Segment], writable: Sequence[Segment]
    ) -> None:
        """Write descriptors, chained in their order (section 2.7.13.1)."""
        last = len(indices) - 1
        at = 0
        for segments, flags in ((readable, 0), (writable, WRITE)):
            for address, length in segments:
                if at < last:
                    _pack_descriptor(table, indices[at] << 4, address, length, flags | NEXT, indices[at + 1])
                else:
                    _pack_descriptor(table, indices[at] << 4, address, length, flags, 0)
                at += 1

    def notify_needed(self) -> bool:
        """Return whether the device wants to know (section 2.7.10); see `DriverRing.notify_needed`."""
        added = (self._available - self._notified) & 0xFFFF
        self._notified = self._available
        if self._event_idx:
            event: int = U16.unpack_from(self._used, self._avail_event_offset)[0]
            return (self._available - event - 1) & 0xFFFF < added
        return bool(added) and not self._used[0] & NO_NOTIFY

    def take_used(self) -> list[tuple[int, int]]:
        """Return what was used (section 2.7.14); see `DriverRing.take_used`."""
        count = self._waiting()
        if not count:
            return []
        if count > self._size:
            raise RingError("used-jump", f"{count} used in a ring of {self._size}")
        start = self._taken & (self._size - 1)
        values = self._elements(start, min(count, self._size - start))
        if len(values) < 2 * count:
            values += self._elements(0, count - self._size + start)
        used = list(zip(values[::2], values[1::2], strict=True))
        chains, free = self._chains, self._free
        for head, _ in used:
            indices = chains.pop(head, None)
            if indices is None:
                raise RingError("head-unknown", str(head))
            indices.reverse()
            free += indices
        self._taken = (self._taken + count) & 0xFFFF
        return used

    def _elements(self, start: int, count: int) -> tuple[int, ...]:
        """Return elements of the used ring: id, length, id, length, and so on."""
        return struct.unpack_from(f"<{2 * count}I", self._used, USED_RING_OFFSET + ELEMENT_BYTES * start)

    def _waiting(self) -> int:
        """Return how many used elements were not taken yet."""
        index: int = U16.unpack_from(self._used, USED_INDEX_OFFSET)[0]
        return (index - self._taken) & 0xFFFF

    def enable_interrupts(self) -> bool:
        """Ask for an interrupt with the next (section 2.7.7); see `DriverRing.enable_interrupts`."""
        return self.interrupt_after(1)

    def interrupt_after(self, requests: int) -> bool:
        """Ask for an interrupt with the last of so many; see `DriverRing.interrupt_after`."""
        if not self._event_idx:
            _pack_u16(self._avail, 0, 0)
            return self._waiting() > 0
        _pack_u16(self._avail, self._used_event_offset, (self._taken + requests - 1) & 0xFFFF)
        return self._waiting() >= requests

    def disable_interrupts(self) -> None:
        """Ask for none; see `DriverRing.disable_interrupts`."""
        if self._event_idx:
            _pack_u16(self._avail, self._used_event_offset, (self._taken - 1) & 0xFFFF)
        else:
            _pack_u16(self._avail, 0, NO_INTERRUPT)
