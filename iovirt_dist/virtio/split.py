"""Split virtqueues (section 2.7), the device's side.

Three areas in guest memory: the descriptor table; the available ring (flags, index, heads, `used_event`), which the
driver writes; the used ring (flags, index, elements, `avail_event`), which the device writes. Both indices run freely
over 16 bits.
"""

from __future__ import annotations

import struct

from iovirt_dist.step import Record
from iovirt_dist.virtio.chain import (
    ALWAYS,
    CHAIN_BYTES_MAX,
    DESCRIPTOR_BYTES,
    INDIRECT,
    NEVER,
    NEXT,
    SIZE_MAX,
    U16,
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
"""Address u64, length u32, flags u16, next u16 (section 2.7.5)."""
AVAIL_INDEX_OFFSET = 2
AVAIL_RING_OFFSET = 4
"""Of the available ring (section 2.7.6): flags u16, index u16, heads u16 each, used_event u16."""
USED_INDEX_OFFSET = 2
USED_RING_OFFSET = 4
"""Of the used ring (section 2.7.8): flags u16, index u16, elements (id u32, length u32), avail_event u16."""
ELEMENT_BYTES = 8
NO_INTERRUPT = 1
"""VIRTQ_AVAIL_F_NO_INTERRUPT."""
NO_NOTIFY = 1
"""VIRTQ_USED_F_NO_NOTIFY."""

_unpack_descriptor = DESCRIPTOR.unpack_from


def avail_bytes(size: int) -> int:
    """Return the length of the available ring (section 2.7)."""
    return 6 + 2 * size


def used_bytes(size: int) -> int:
    """Return the length of the used ring (section 2.7)."""
    return 6 + ELEMENT_BYTES * size


def check_size(size: int) -> None:
    """Check a Queue Size (section 2.7).

    Raises:
        RingError: Reason ``ring-size``: no power of two, or above 32768.
    """
    if not 1 <= size <= SIZE_MAX or size & (size - 1):
        raise RingError("ring-size", f"{size} entries")


class KnownChain(Record, frozen=True, gc=False):
    """A chain with the descriptors that it was made of: as long as they are the same, so is the chain.

    Attributes:
        chain: The request.
        taken: Descriptors of the ring that it consists of.
        start: Where in the table the first of them is, bytes.
        end: Where the last one ends.
        descriptors: What was there.
    """

    chain: Chain
    taken: int
    start: int
    end: int
    descriptors: bytes


_UNLIKE = KnownChain(Chain(0, [], [], 0, 0), SIZE_MAX + 1, 0, 0, b"")
"""Like no chain: it takes more descriptors than any ring has."""
_SPAN = 8
"""Most descriptors from the first to the last of a known chain; those between may belong to others."""

_LEARN_AFTER = 8
"""Chains with a head that are unlike the known one before another is learned."""


def known_chain(table: memoryview, chain: Chain, taken: int) -> KnownChain | None:
    """Return what is needed to know a chain again.

    Args:
        table: The descriptor table.
        chain: As it was walked.
        taken: Descriptors that it consists of.

    Returns:
        None if they are not near each other in their order, refer to a table, or have changed since.
    """
    start = chain.head << 4
    descriptors = bytes(table[start : start + _SPAN * DESCRIPTOR_BYTES])
    segments: dict[int, list[Segment]] = {0: [], WRITE: []}
    at = -1
    flags, following = NEXT, chain.head
    for _ in range(taken):
        before, at = at, following - chain.head
        if not flags & NEXT or not before < at < len(descriptors) >> 4:
            return None
        address, length, flags, following = _unpack_descriptor(descriptors, at << 4)
        if length:
            segments[flags & WRITE].append((address, length))
    if flags & (NEXT | INDIRECT) or (segments[0], segments[WRITE]) != (chain.readable, chain.writable):
        return None
    end = (at + 1) * DESCRIPTOR_BYTES
    return KnownChain(chain, taken, start, start + end, descriptors[:end])


class SplitDevice(DeviceSide):
    """The device's side; see `chain.DeviceRing`.

    Args:
        memory: Guest memory.
        setup: Where the ring lies.

    Raises:
        RingError: Reason ``ring-size``, ``ring-alignment`` or ``ring-memory``.
    """

    def __init__(self, memory: GuestMemory, setup: RingSetup) -> None:
        size = setup.size
        check_size(size)
        super().__init__(memory, setup)
        self._avail = area(memory, setup.driver_area, avail_bytes(size), 2)
        area(memory, setup.device_area, used_bytes(size), 4)
        self._used_event_offset = AVAIL_RING_OFFSET + 2 * size
        self._avail_event = setup.device_area + USED_RING_OFFSET + ELEMENT_BYTES * size
        self._in_flight = [0] * size  # descriptors of the request with that head
        self._known: list[KnownChain | None] = [None] * size
        self._misses = bytearray(size)
        self._done: list[int] = []

    def _ask_for_next(self) -> None:
        """Write the available index behind which the driver notifies."""
        self._memory.write(self._avail_event, U16.pack(self._next))

    def _take_available(self, most: int) -> list[Chain]:
        """Take requests up to the available index as it is now."""
        count = (U16.unpack_from(self._avail, AVAIL_INDEX_OFFSET)[0] - self._next) & 0xFFFF
        if not count:
            return []
        size, in_flight = self._size, self._in_flight
        if count > size:
            raise RingError("index-jump", f"{count} available in a ring of {size}")
        chains = []
        walk, table, all_known = self._walk, self._table, self._known
        heads = self._heads(min(count, most))
        for head in heads:
            if head >= size:
                raise RingError("head-range", f"{head} in a table of {size}")
            if in_flight[head]:
                raise RingError("head-in-flight", str(head))
            known = all_known[head]
            if (
                known is not None
                and known.taken <= self._free
                and table[known.start : known.end].tobytes() == known.descriptors
            ):
                in_flight[head] = known.taken
                self._free -= known.taken
                chains.append(known.chain)
            else:
                chains.append(walk(head))
        self._next = (self._next + len(heads)) & 0xFFFF
        return chains

    def _heads(self, count: int) -> tuple[int, ...]:
        """Return the next entries of the available ring, each read once."""
        start = self._next & (self._size - 1)
        until_end = self._size - start
        offset = AVAIL_RING_OFFSET + 2 * start
        if count <= until_end:
            return struct.unpack_from(f"<{count}H", self._avail, offset)
        return struct.unpack_from(f"<{until_end}H", self._avail, offset) + struct.unpack_from(
            f"<{count - until_end}H", self._avail, AVAIL_RING_OFFSET
        )

    def _walk(self, head: int) -> Chain:
        """Walk a chain that is not known; know it from now on if it is the first with this head.

        Later ones are learned now and then only: a driver that changes its descriptors for one request mostly does so
        for most, but one that wrote and now reads has changed them for a long time.
        """
        chain = self._chain(head)
        if self._known[head] is None or self._misses[head] >= _LEARN_AFTER:
            self._known[head] = known_chain(self._table, chain, self._in_flight[head]) or _UNLIKE
            self._misses[head] = 0
        else:
            self._misses[head] += 1
        return chain

    def _chain(self, head: int) -> Chain:
        """Walk a chain, reading each descriptor once; requests in flight share none, which bounds the work."""
        table, index, limit, free = self._table, head, self._size, self._free
        ram, left, count = self._ram, free, 0
        readable: list[Segment] = []
        writable: list[Segment] = []
        readable_bytes = writable_bytes = 0
        while index < limit and left:
            address, length, flags, following = _unpack_descriptor(table, index << 4)
            if flags & INDIRECT:
                count = self._direct(table, left)
                table = indirect_table(self._memory, self._indirect_allowed, address, length, flags)
                index, limit, left = 0, length >> 4, self._size - count + 1
                continue
            if length:
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
            left -= 1
            if not flags & NEXT:
                break
            index = following
        else:
            raise self._bad_next(index, limit)
        if readable_bytes + writable_bytes > CHAIN_BYTES_MAX:
            raise RingError("chain-bytes", f"{readable_bytes} readable, {writable_bytes} writable")
        self._in_flight[head] = count = count or free - left
        self._free = free - count
        return Chain(head, readable, writable, readable_bytes, writable_bytes)

    def _direct(self, table: memoryview, left: int) -> int:
        """Return how many descriptors of the ring a request has that goes on in a table."""
        if table is not self._table:
            raise RingError("indirect-nested")
        return self._free - left + 1

    def _bad_next(self, following: int, limit: int) -> RingError:
        """Return what is wrong with a next field."""
        if following >= limit:
            return RingError("chain-range", f"next is {following} in a table of {limit}")
        return RingError("chain-long", f"{self._free} of {self._size} descriptors are free")

    def put(self, head: int, written: int) -> None:
        """Use a request; see `DeviceRing.put`."""
        count = self._in_flight[head] if 0 <= head < self._size else 0
        if not count:
            raise RingError("head-unknown", str(head))
        if not 0 <= written <= CHAIN_BYTES_MAX:
            raise RingError("used-length", str(written))
        self._in_flight[head] = 0
        self._free += count
        self._done += (head, written)

    def publish(self) -> bool:
        """Write the used ring, its index last (section 2.7.8.2); see `DeviceRing.publish`."""
        done = self._done
        if not done:
            return False
        elements = struct.pack(f"<{len(done)}I", *done)
        count = len(done) >> 1
        self._done = []
        write, used = self._memory.write, self._setup.device_area
        start = self.completed & (self._size - 1)
        until_end = (self._size - start) * ELEMENT_BYTES
        write(used + USED_RING_OFFSET + ELEMENT_BYTES * start, elements[:until_end])
        if until_end < len(elements):
            write(used + USED_RING_OFFSET, elements[until_end:])
        self.completed += count
        write(used + USED_INDEX_OFFSET, U16.pack(self.completed & 0xFFFF))
        return self._interrupt_due(count)

    def _interrupt_due(self, count: int) -> bool:
        """Whether the driver wants an interrupt for the last so many that were used (sections 2.7.7 and 2.7.10)."""
        if self._event_idx:
            event: int = U16.unpack_from(self._avail, self._used_event_offset)[0]
            return (self.completed - event - 1) & 0xFFFF < count
        return not self._avail[0] & NO_INTERRUPT

    def interrupt_at(self) -> int:
        """Return with which completion an interrupt is wanted (section 2.7.7); see `DeviceRing.interrupt_at`."""
        if self._event_idx:
            event: int = U16.unpack_from(self._avail, self._used_event_offset)[0]
            return self.completed + 1 + ((event - self.completed) & 0xFFFF)
        return NEVER if self._avail[0] & NO_INTERRUPT else ALWAYS
