"""Rings for requests of one shape: header, data, status; each in a slot of its own that it uses again and again.

`SplitRequests` writes the descriptors of a slot when its shape changes, and otherwise only the available ring, a whole
batch at a time. `PackedRequests` builds each chain anew, as a packed ring's descriptors are the ring itself (VIRTIO
1.2, section 2.8).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from iovirt_dist.virtio.chain import NEXT, U16, WRITE
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.virtio.ring import RingError, RingSetup, Segment, driver_ring
from iovirt_dist.virtio.split import AVAIL_INDEX_OFFSET, AVAIL_RING_OFFSET, DESCRIPTOR
from iovirt_dist.virtio.split_driver import SplitDriver

DESCRIPTORS = 3
"""Of a request: header, data, status."""

_SIDE_BY_SIDE = tuple(struct.Struct(f"<{count}H") for count in range(129))
"""Layouts of stretches of the available ring, by number of entries."""


class Shape(NamedTuple):
    """Where a slot's parts lie: guest physical address and length of each.

    Attributes:
        header: Device-readable.
        buffer: Address of its data.
        status: Device-writable.
    """

    header: Segment
    buffer: int
    status: Segment


class RequestRing(Protocol):
    """The driver's side of a ring whose requests are slots, numbered from 0."""

    def describe(self, slot: int, length: int, *, writable: bool) -> None:
        """Say what data a slot's next request has: so many bytes, 0 for none, and which way. Stays until changed."""
        ...

    def offer(self, slots: Sequence[int]) -> None:
        """Make the requests of slots available, in this order; none of them is in flight."""
        ...

    def take(self) -> Sequence[int]:
        """Return the slots that were used since the last call, in order.

        Raises:
            RingError: The device used what it did not have.
        """
        ...

    def notify_needed(self) -> bool:
        """As `DriverRing.notify_needed`."""
        ...

    def enable_interrupts(self) -> bool:
        """As `DriverRing.enable_interrupts`."""
        ...

    def disable_interrupts(self) -> None:
        """As `DriverRing.disable_interrupts`."""
        ...


class SplitRequests(SplitDriver):
    """A `RequestRing` in a split ring: slot n has descriptors 3n to 3n+2.

    Args:
        memory: The guest's memory.
        setup: Where the ring is to be.
        shapes: The slots; three descriptors each must fit.
    """

    def __init__(self, memory: ByteMemory, setup: RingSetup, shapes: Sequence[Shape]) -> None:
        super().__init__(memory, setup)
        self._shapes = tuple(shapes)
        self._in_flight = bytearray(len(shapes))
        for slot, shape in enumerate(shapes):
            DESCRIPTOR.pack_into(self._table, self._at(slot) + 32, *shape.status, WRITE, 0)
            self.describe(slot, 0, writable=False)

    def _at(self, slot: int) -> int:
        return DESCRIPTORS * slot << 4

    def describe(self, slot: int, length: int, *, writable: bool) -> None:
        """Write the descriptors of header and data; see `RequestRing`."""
        at, first, shape = self._at(slot), DESCRIPTORS * slot, self._shapes[slot]
        DESCRIPTOR.pack_into(self._table, at, *shape.header, NEXT, first + 1 if length else first + 2)
        flags = NEXT | WRITE if writable else NEXT
        DESCRIPTOR.pack_into(self._table, at + 16, shape.buffer, length, flags, first + 2)

    def offer(self, slots: Sequence[int]) -> None:
        """Write the available ring, its index last (section 2.7.13.3); see `RequestRing`."""
        heads = [DESCRIPTORS * slot for slot in slots]
        in_flight = self._in_flight
        for slot in slots:
            in_flight[slot] = 1
        start = self._available & (self._size - 1)
        until_end = self._size - start
        self._write_heads(start, heads[:until_end])
        if len(heads) > until_end:
            self._write_heads(0, heads[until_end:])
        self._available = available = (self._available + len(heads)) & 0xFFFF
        U16.pack_into(self._avail, AVAIL_INDEX_OFFSET, available)

    def _write_heads(self, start: int, heads: list[int]) -> None:
        count = len(heads)
        layout = _SIDE_BY_SIDE[count] if count < len(_SIDE_BY_SIDE) else struct.Struct(f"<{count}H")
        layout.pack_into(self._avail, AVAIL_RING_OFFSET + 2 * start, *heads)

    def take(self) -> Sequence[int]:
        """Return what was used (section 2.7.14); see `RequestRing`."""
        count = self._waiting()
        if not count:
            return ()
        if count > self._size:
            raise RingError("used-jump", f"{count} used in a ring of {self._size}")
        start = self._taken & (self._size - 1)
        until_end = self._size - start
        values = self._elements(start, min(count, until_end))
        if count > until_end:
            values += self._elements(0, count - until_end)
        self._taken = (self._taken + count) & 0xFFFF
        in_flight = self._in_flight
        slots = []
        for head in values[::2]:
            slot = head // DESCRIPTORS
            if slot >= len(in_flight) or not in_flight[slot] or head % DESCRIPTORS:
                raise RingError("head-unknown", str(head))
            in_flight[slot] = 0
            slots.append(slot)
        return slots


class PackedRequests:
    """A `RequestRing` in a ring of any layout, which builds each chain anew; arguments as of `SplitRequests`."""

    def __init__(self, memory: ByteMemory, setup: RingSetup, shapes: Sequence[Shape]) -> None:
        self._ring = driver_ring(memory, setup)
        self._shapes = tuple(shapes)
        self._readable: list[list[Segment]] = [[shape.header] for shape in shapes]
        self._writable: list[list[Segment]] = [[shape.status] for shape in shapes]
        self._slots: dict[int, int] = {}
        self.notify_needed = self._ring.notify_needed
        self.enable_interrupts = self._ring.enable_interrupts
        self.disable_interrupts = self._ring.disable_interrupts

    def describe(self, slot: int, length: int, *, writable: bool) -> None:
        """Note what the slot's descriptors will be; see `RequestRing`."""
        shape = self._shapes[slot]
        data = [(shape.buffer, length)] if length else []
        self._readable[slot] = [shape.header, *([] if writable else data)]
        self._writable[slot] = [*(data if writable else []), shape.status]

    def offer(self, slots: Sequence[int]) -> None:
        """Write the descriptors of each; see `RequestRing`."""
        for slot in slots:
            self._slots[self._ring.add(self._readable[slot], self._writable[slot])] = slot

    def take(self) -> Sequence[int]:
        """Return what was used; see `RequestRing`."""
        return [self._slots.pop(head) for head, _ in self._ring.take_used()]


def request_ring(memory: ByteMemory, setup: RingSetup, shapes: Sequence[Shape]) -> RequestRing:
    """Return the ring for slots of these shapes, in the layout that was negotiated."""
    return (PackedRequests if setup.packed else SplitRequests)(memory, setup, shapes)
