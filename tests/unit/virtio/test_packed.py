"""Packed virtqueues, byte by byte (section 2.8)."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.virtio.chain import INDIRECT, NEXT, WRITE
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.virtio.packed import AVAIL, USED
from iovirt_dist.virtio.ring import ALWAYS, NEVER, Chain, RingError, RingSetup, device_ring

BASE = 0x8000_0000
DRIVER = BASE + 0x1000
DEVICE = BASE + 0x2000
TABLE = BASE + 0x3000
BUFFER = BASE + 0x4000
PACKED = mask(Feature.RING_PACKED, Feature.RING_INDIRECT_DESC)
EVENTS = PACKED | mask(Feature.RING_EVENT_IDX)
FIRST = AVAIL
"""What makes a descriptor available in odd laps; in even ones it is USED."""


class _Driver:
    """Writes the bytes that a driver would write, right or wrong."""

    def __init__(self, features: int = PACKED, size: int = 4) -> None:
        self.memory = ByteMemory(0x8000, BASE)
        self.device = device_ring(self.memory, RingSetup(size, BASE, DRIVER, DEVICE, features))

    def descriptor(self, index: int, address: int, length: int, head: int, flags: int = FIRST, at: int = BASE) -> None:
        """Write a descriptor: le64, le32, le16 id, le16 flags (section 2.8.13)."""
        self.memory.write(at + 16 * index, struct.pack("<QIHH", address, length, head, flags))

    def event(self, offset: int, wrap: int, flags: int) -> None:
        """Write the driver event suppression (section 2.8.14)."""
        self.memory.write(DRIVER, struct.pack("<HH", offset | wrap << 15, flags))

    def read(self, index: int) -> tuple[int, ...]:
        """Return length, id and flags of a descriptor."""
        return struct.unpack("<IHH", self.memory.read(BASE + 16 * index + 8, 8))

    def refused(self, reason: str) -> None:
        """Check that nothing can be taken."""
        with pytest.raises(RingError) as error:
            self.device.take(64)
        assert error.value.reason == reason


def test_packed_take_reads_the_id_of_the_last_descriptor() -> None:
    """Section 2.8.6: a list by NEXT, the buffer id in its last descriptor."""
    driver = _Driver()
    driver.descriptor(0, BUFFER, 16, 99, FIRST | NEXT)
    driver.descriptor(1, BUFFER + 16, 512, 98, FIRST | NEXT | WRITE)
    driver.descriptor(2, BUFFER + 600, 1, 7, FIRST | WRITE)
    assert driver.device.take(64) == [
        Chain(7, [(BUFFER, 16)], [(BUFFER + 16, 512), (BUFFER + 600, 1)], 16, 513),
    ]


def test_packed_take_ignores_what_is_not_available() -> None:
    """Section 2.8.1: zero-initialised, used, or of another lap."""
    driver = _Driver()
    for flags in (0, AVAIL | USED, USED):
        driver.descriptor(0, BUFFER, 16, 0, flags)
        assert driver.device.take(64) == []


def test_packed_publish_writes_one_used_descriptor_for_a_list() -> None:
    """Sections 2.8.2 and 2.8.6: both flags equal to the wrap counter, WRITE if anything was written."""
    driver = _Driver()
    driver.descriptor(0, BUFFER, 16, 5, FIRST | NEXT)
    driver.descriptor(1, BUFFER, 16, 5, FIRST | WRITE)
    driver.descriptor(2, BUFFER, 16, 6, FIRST)
    driver.device.take(64)
    driver.device.put(6, 0)
    driver.device.put(5, 16)
    assert driver.device.publish()
    assert driver.read(0) == (0, 6, AVAIL | USED)
    assert driver.read(1) == (16, 5, AVAIL | USED | WRITE)
    assert driver.read(2) == (16, 6, FIRST)


def test_packed_second_lap_has_the_other_flags() -> None:
    """Section 2.8.1: wrap counters flip at the end of the ring, in the middle of a list, too."""
    driver = _Driver(size=3)
    for index in range(2):
        driver.descriptor(index, BUFFER, 4, index)
    driver.device.take(64)
    driver.device.put(0, 0)
    driver.device.put(1, 0)
    driver.device.publish()
    driver.descriptor(2, BUFFER, 4, 9, FIRST | NEXT)
    driver.descriptor(0, BUFFER + 4, 4, 9, USED | NEXT)
    driver.descriptor(1, BUFFER + 8, 4, 9, USED | WRITE)
    assert driver.device.take(64) == [Chain(9, [(BUFFER, 4), (BUFFER + 4, 4)], [(BUFFER + 8, 4)], 8, 4)]
    driver.device.put(9, 1)
    driver.device.publish()
    assert driver.read(2) == (1, 9, AVAIL | USED | WRITE)
    driver.descriptor(2, BUFFER, 4, 3, USED)
    assert [chain.head for chain in driver.device.take(64)] == [3]
    driver.device.put(3, 0)
    driver.device.publish()
    assert driver.read(2) == (0, 3, 0)


def test_packed_publish_writes_the_first_flags_last() -> None:
    """Section 2.8.2: whoever sees the first used descriptor sees all of the batch."""
    written: list[tuple[int, int]] = []

    class _Memory(ByteMemory):
        def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
            """Note address and length."""
            written.append((address - BASE, len(data)))
            super().write(address, data)

    memory = _Memory(0x8000, BASE)
    device = device_ring(memory, RingSetup(3, BASE, DRIVER, DEVICE, PACKED))
    memory.write(BASE, struct.pack("<QIHH", BUFFER, 4, 0, FIRST))
    device.take(64)
    device.put(0, 0)
    device.publish()
    for index, flags in ((1, FIRST), (2, FIRST), (0, USED)):
        memory.write(BASE + 16 * index, struct.pack("<QIHH", BUFFER, 4, index, flags))
    assert len(device.take(64)) == 3
    for head in (1, 2, 0):
        device.put(head, 0)
    written.clear()
    device.publish()
    assert written == [(0, 16), (32, 16), (16, 14), (30, 2)]


def test_packed_take_of_a_list_that_is_partly_available_is_an_error() -> None:
    """Section 2.8.17: the first descriptor is made available last."""
    driver = _Driver()
    driver.descriptor(0, BUFFER, 16, 0, FIRST | NEXT)
    driver.refused("chain-partial")


def test_packed_take_of_a_list_longer_than_the_ring_is_an_error() -> None:
    """In a ring of flags that suit, the list would go on for ever."""
    driver = _Driver(size=1)
    driver.descriptor(0, BUFFER, 16, 0, FIRST | NEXT)
    driver.refused("chain-partial")
    second = _Driver(size=2)
    second.descriptor(0, BUFFER, 16, 0, FIRST)
    second.device.take(64)
    second.descriptor(0, BUFFER, 16, 1, USED)
    second.descriptor(1, BUFFER, 16, 1, FIRST | NEXT)
    second.refused("chain-long")


def test_packed_take_of_an_id_in_flight_is_an_error() -> None:
    """Ids need not be below the Queue Size, but each is in use once."""
    driver = _Driver()
    driver.descriptor(0, BUFFER, 16, 0xFFFF)
    assert [chain.head for chain in driver.device.take(64)] == [0xFFFF]
    driver.descriptor(1, BUFFER, 16, 0xFFFF)
    driver.refused("head-in-flight")


def test_packed_take_of_a_table_reads_its_descriptors_in_order() -> None:
    """Section 2.8.7: of the flags only WRITE counts, the id is that of the ring's descriptor."""
    driver = _Driver()
    driver.descriptor(0, TABLE, 48, 3, FIRST | INDIRECT | WRITE)
    driver.descriptor(0, BUFFER, 4, 77, NEXT | INDIRECT, at=TABLE)
    driver.descriptor(1, BUFFER + 4, 8, 77, 0, at=TABLE)
    driver.descriptor(2, BUFFER + 16, 16, 77, WRITE | AVAIL, at=TABLE)
    assert driver.device.take(64) == [Chain(3, [(BUFFER, 4), (BUFFER + 4, 8)], [(BUFFER + 16, 16)], 12, 16)]


@pytest.mark.parametrize(
    ("address", "length", "flags", "reason"),
    [
        (TABLE, 32, INDIRECT | NEXT, "indirect-next"),
        (TABLE, 0, INDIRECT, "indirect-length"),
        (TABLE, 24, INDIRECT, "indirect-length"),
        (TABLE, 0xFFFF_FFF0, INDIRECT, "indirect-memory"),
        (BASE - 16, 32, INDIRECT, "indirect-memory"),
        (TABLE, 80, INDIRECT, "chain-long"),
    ],
)
def test_packed_take_of_a_table_that_cannot_be_is_an_error(address: int, length: int, flags: int, reason: str) -> None:
    """Section 2.8.19: what a driver must not do."""
    driver = _Driver()
    driver.descriptor(0, address, length, 0, FIRST | flags)
    driver.refused(reason)


def test_packed_take_of_a_table_in_a_list_is_an_error() -> None:
    """Section 2.8.19: a list holds descriptors of one kind."""
    driver = _Driver()
    driver.descriptor(0, BUFFER, 4, 0, FIRST | NEXT)
    driver.descriptor(1, TABLE, 16, 0, FIRST | INDIRECT)
    driver.refused("indirect-next")


def test_packed_take_of_a_table_that_was_not_negotiated_is_an_error() -> None:
    """Section 2.8.19."""
    driver = _Driver(features=mask(Feature.RING_PACKED))
    driver.descriptor(0, TABLE, 16, 0, FIRST | INDIRECT)
    driver.refused("indirect-feature")


def test_packed_device_event_follows_what_was_taken() -> None:
    """Section 2.8.10: the place behind, with its wrap counter; the next lap has the other."""
    driver = _Driver(features=EVENTS, size=2)
    driver.descriptor(0, BUFFER, 4, 0)
    driver.device.take(64)
    assert driver.memory.read(DEVICE, 4) == struct.pack("<HH", 1 | 1 << 15, 2)
    driver.descriptor(1, BUFFER, 4, 1)
    driver.device.take(64)
    assert driver.memory.read(DEVICE, 4) == struct.pack("<HH", 0, 2)


def test_packed_interrupt_flags_decide_without_event_index() -> None:
    """Section 2.8.10: enable, disable; a descriptor that was not negotiated and the reserved value enable."""
    driver = _Driver()
    answers = []
    for flags in range(4):
        driver.event(3, 1, flags)
        answers.append(driver.device.interrupt_at())
    assert answers == [ALWAYS, NEVER, ALWAYS, ALWAYS]


def test_packed_interrupt_at_counts_descriptors_of_requests_in_order() -> None:
    """Section 2.8.10: the event is a place in the ring; the third request covers places 3 to 5."""
    driver = _Driver(features=EVENTS, size=8)
    for index, flags in enumerate((0, NEXT, 0, NEXT, NEXT, 0)):
        driver.descriptor(index, BUFFER, 4, 10 + index, FIRST | flags)
    heads = [chain.head for chain in driver.device.take(64)]
    assert heads == [10, 12, 15]
    answers = []
    for place in range(8):
        driver.event(place, 1, 2)
        answers.append(driver.device.interrupt_at())
    assert answers == [1, 2, 2, 3, 3, 3, NEVER, NEVER]
    driver.event(0, 0, 2)
    assert driver.device.interrupt_at() == NEVER


def test_packed_publish_interrupts_at_its_place_only() -> None:
    """Section 2.8.10: when the descriptor at that place is used, in that lap."""
    driver = _Driver(features=EVENTS, size=4)
    for index in range(4):
        driver.descriptor(index, BUFFER, 4, index)
    driver.device.take(64)
    due = []
    for head, (offset, wrap) in enumerate(((1, 1), (1, 1), (2, 0), (0x7FFF, 1))):
        driver.event(offset, wrap, 2)
        driver.device.put(head, 0)
        due.append(driver.device.publish())
    assert due[:3] == [False, True, False]
