"""Packed virtqueues (section 2.8), the device's side.

One ring of descriptors in guest memory that both sides write, and two small structures by which each says when it
wants to be notified. A descriptor is available if its AVAIL flag equals the wrap counter of the lap and its USED flag
does not, and used if both equal it. A request of n descriptors is used by one descriptor, behind which n - 1 are
skipped.
"""

from __future__ import annotations

import struct

from iovirt_dist.virtio.chain import (
    ALWAYS,
    CHAIN_BYTES_MAX,
    DESCRIPTOR_BYTES,
    INDIRECT,
    NEVER,
    NEXT,
    SIZE_MAX,
    WRITE,
    Chain,
    RingError,
    RingSetup,
    Segment,
    area,
    indirect_table,
)
from iovirt_dist.virtio.device_side import DeviceSide
from iovirt_dist.virtio.memory import GuestMemory

DESCRIPTOR = struct.Struct("<QIHH")
"""Address u64, length u32, buffer id u16, flags u16 (section 2.8.13)."""
FLAGS_OFFSET = 14
"""Of a descriptor's flags."""
AVAIL = 1 << 7
"""VIRTQ_DESC_F_AVAIL."""
USED = 1 << 15
"""VIRTQ_DESC_F_USED."""
LAP = AVAIL | USED
"""Both flags: an available descriptor has one of them, and which one changes with each lap."""
SUPPRESSION = struct.Struct("<HH")
"""Offset of a descriptor (15 bits) and wrap counter (bit 15), then flags (section 2.8.14)."""
ENABLE = 0
"""RING_EVENT_FLAGS_ENABLE: notify always."""
DISABLE = 1
"""RING_EVENT_FLAGS_DISABLE."""
AT_DESCRIPTOR = 2
"""RING_EVENT_FLAGS_DESC: notify when that descriptor is made available or used; with RING_EVENT_IDX only."""
WRAP_SHIFT = 15

_Entry = tuple[int, int, int, int]
"""A descriptor that was read: address, length, buffer id, flags."""
_unpack_descriptor = DESCRIPTOR.unpack_from


def check_size(size: int) -> None:
    """Check a Queue Size (section 2.8.10.1): it need not be a power of two.

    Raises:
        RingError: Reason ``ring-size``.
    """
    if not 1 <= size <= SIZE_MAX:
        raise RingError("ring-size", f"{size} entries")


def suppression_at(place: int, size: int) -> bytes:
    """Return the event suppression for a place of a ring, counted over two laps: 0 to 2 * size - 1."""
    if place < size:
        return SUPPRESSION.pack(place | 1 << WRAP_SHIFT, AT_DESCRIPTOR)
    return SUPPRESSION.pack(place - size, AT_DESCRIPTOR)


def place_of(event: int, size: int) -> int:
    """Return the place over two laps that an offset with its wrap counter means; inverse of `suppression_at`.

    Offsets outside the ring give some place: they are the other side's to answer for.
    """
    return (event & 0x7FFF) + (0 if event >> WRAP_SHIFT else size)


class PackedDevice(DeviceSide):
    """The device's side; see `chain.DeviceRing`.

    Places are counted over two laps, from 0 to 2 * size - 1, so that they tell the wrap counter as well: it is 1 in the
    first lap and 0 in the second.

    Args:
        memory: Guest memory.
        setup: Where the ring lies.

    Raises:
        RingError: Reason ``ring-size``, ``ring-alignment`` or ``ring-memory``.
    """

    def __init__(self, memory: GuestMemory, setup: RingSetup) -> None:
        check_size(setup.size)
        super().__init__(memory, setup)
        self._driver = area(memory, setup.driver_area, SUPPRESSION.size, 4)
        area(memory, setup.device_area, SUPPRESSION.size, 4)
        self._used = 0
        self._in_flight: dict[int, int] = {}
        self._done: list[tuple[int, int, int]] = []

    def _ask_for_next(self) -> None:
        """Write the place at which the driver notifies."""
        self._memory.write(self._setup.device_area, suppression_at(self._next, self._size))

    def _take_available(self, most: int) -> list[Chain]:
        """Take requests up to the first descriptor that is not available."""
        chains: list[Chain] = []
        while len(chains) < most:
            chain = self._chain()
            if chain is None:
                break
            chains.append(chain)
        return chains

    def _chain(self) -> Chain | None:
        """Take the next request; None if there is none."""
        entries = self._entries()
        if not entries:
            return None
        count = len(entries)
        address, length, head, flags = entries[-1]
        if head in self._in_flight:
            raise RingError("head-in-flight", str(head))
        if flags & INDIRECT:
            entries = self._indirect(address, length, flags)
        chain = self._request(head, entries)
        self._in_flight[head] = count
        self._free -= count
        self._next = (self._next + count) % (2 * self._size)
        return chain

    def _entries(self) -> list[_Entry]:
        """Return the descriptors of the next request, each read once; none if the first is not available."""
        size, table, free = self._size, self._table, self._free
        place = self._next
        expected, index = (AVAIL, place) if place < size else (USED, place - size)
        entries: list[_Entry] = []
        while True:
            entry: _Entry = _unpack_descriptor(table, index << 4)
            flags = entry[3]
            if flags & LAP != expected:
                if not entries:
                    return entries
                raise RingError("chain-partial", f"descriptor {index} is not available")
            if len(entries) == free:
                raise RingError("chain-long", f"{free} of {size} descriptors are free")
            entries.append(entry)
            if flags & INDIRECT and len(entries) > 1:
                raise RingError("indirect-next")
            if not flags & NEXT or flags & INDIRECT:
                return entries
            index += 1
            if index == size:
                index, expected = 0, expected ^ LAP

    def _indirect(self, address: int, length: int, flags: int) -> list[_Entry]:
        """Read a table (section 2.8.7): of its flags WRITE alone counts, and its order is that of the request."""
        table = indirect_table(self._memory, self._indirect_allowed, address, length, flags)
        if length >> 4 > self._size:
            raise RingError("chain-long", f"{length >> 4} descriptors in a table, {self._size} in the ring")
        return list(DESCRIPTOR.iter_unpack(table))

    def _request(self, head: int, entries: list[_Entry]) -> Chain:
        """Sort the segments of a request."""
        ram = self._ram
        readable: list[Segment] = []
        writable: list[Segment] = []
        readable_bytes = writable_bytes = 0
        for address, length, _, flags in entries:
            if not length:
                continue
            if address < ram.low or address + length > ram.high:
                ram.admit(address, length)
            if flags & WRITE:
                writable.append((address, length))
                writable_bytes += length
            elif writable:
                raise RingError("chain-order")
            else:
                readable.append((address, length))
                readable_bytes += length
        if readable_bytes + writable_bytes > CHAIN_BYTES_MAX:
            raise RingError("chain-bytes", f"{readable_bytes} readable, {writable_bytes} writable")
        return Chain(head, readable, writable, readable_bytes, writable_bytes)

    def put(self, head: int, written: int) -> None:
        """Use a request; see `DeviceRing.put`."""
        if head not in self._in_flight:
            raise RingError("head-unknown", str(head))
        if not 0 <= written <= CHAIN_BYTES_MAX:
            raise RingError("used-length", str(written))
        self._done.append((head, written, self._in_flight.pop(head)))

    def publish(self) -> bool:
        """Write the used descriptors, the first one's flags last (section 2.8.2); see `DeviceRing.publish`.

        All from the first to the last is written as one stretch. What lies between was taken and belongs to the
        device: it is written as it was, and the driver skips it.
        """
        done = self._done
        if not done:
            return False
        size, first = self._size, self._used
        span = sum(count for _, _, count in done)
        stretch = self._stretch(first, span)
        at, place = 0, first
        pack_into = DESCRIPTOR.pack_into
        for head, written, count in done:
            flags = LAP if place % (2 * size) < size else 0
            pack_into(stretch, at, 0, written, head, flags | WRITE if written else flags)
            at += count * DESCRIPTOR_BYTES
            place += count
        self._write_stretch(first, stretch)
        self._done = []
        self._used = place % (2 * size)
        self._free += span
        self.completed += len(done)
        return self._interrupt_due(first, span)

    def _stretch(self, first: int, span: int) -> bytearray:
        """Copy descriptors of the ring, from a place on."""
        index = first % self._size
        stretch = bytearray(self._table[index * DESCRIPTOR_BYTES : (index + span) * DESCRIPTOR_BYTES])
        if index + span > self._size:
            stretch += self._table[: (index + span - self._size) * DESCRIPTOR_BYTES]
        return stretch

    def _write_stretch(self, first: int, stretch: bytearray) -> None:
        """Write descriptors back, the flags of the first after all else."""
        write, ring = self._memory.write, self._setup.descriptors
        index = first % self._size
        until_end = (self._size - index) * DESCRIPTOR_BYTES
        start = ring + index * DESCRIPTOR_BYTES
        view = memoryview(stretch)
        if len(view) > until_end:
            write(ring, view[until_end:])
        if len(view) > DESCRIPTOR_BYTES:
            write(start + DESCRIPTOR_BYTES, view[DESCRIPTOR_BYTES:until_end])
        write(start, view[:FLAGS_OFFSET])
        write(start + FLAGS_OFFSET, view[FLAGS_OFFSET:DESCRIPTOR_BYTES])

    def _interrupt_due(self, first: int, span: int) -> bool:
        """Return whether the driver wants an interrupt for the descriptors used from a place on (section 2.8.10)."""
        event, flags = SUPPRESSION.unpack_from(self._driver)
        if flags & 3 == AT_DESCRIPTOR and self._event_idx:
            return (place_of(event, self._size) - first) % (2 * self._size) < span
        return bool(flags & 3 != DISABLE)

    def interrupt_at(self) -> int:
        """Return with which completion an interrupt is wanted (section 2.8.10); see `DeviceRing.interrupt_at`."""
        event, flags = SUPPRESSION.unpack_from(self._driver)
        if flags & 3 == DISABLE:
            return NEVER
        if flags & 3 != AT_DESCRIPTOR or not self._event_idx:
            return ALWAYS
        distance = (place_of(event, self._size) - self._used) % (2 * self._size)
        number = self.completed
        for count in (*(count for _, _, count in self._done), *self._in_flight.values()):
            number += 1
            distance -= count
            if distance < 0:
                return number
        return NEVER  # not within what was taken; a later doorbell tells
