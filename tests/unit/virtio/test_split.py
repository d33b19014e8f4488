"""Split virtqueues, byte by byte (section 2.7)."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.virtio.chain import INDIRECT, NEXT, WRITE
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.virtio.ring import ALWAYS, NEVER, Chain, DeviceRing, RingError, RingSetup, device_ring

BASE = 0x8000_0000
AVAIL = BASE + 0x1000
USED = BASE + 0x2000
TABLE = BASE + 0x3000
BUFFER = BASE + 0x4000
INDIRECT_DESC = mask(Feature.RING_INDIRECT_DESC)
EVENTS = mask(Feature.RING_EVENT_IDX)


class _Driver:
    """Writes the bytes that a driver would write, right or wrong."""

    def __init__(self, features: int = INDIRECT_DESC, size: int = 4) -> None:
        self.memory = ByteMemory(0x8000, BASE)
        self.size = size
        self.device: DeviceRing = device_ring(self.memory, RingSetup(size, BASE, AVAIL, USED, features))

    def descriptor(self, index: int, address: int, length: int, flags: int = 0, following: int = 0) -> None:
        """Write a descriptor of the ring: le64, le32, le16, le16 (section 2.7.5)."""
        self.memory.write(BASE + 16 * index, struct.pack("<QIHH", address, length, flags, following))

    def indirect(self, index: int, address: int, length: int, flags: int = 0, following: int = 0) -> None:
        """Write a descriptor of the table."""
        self.memory.write(TABLE + 16 * index, struct.pack("<QIHH", address, length, flags, following))

    def avail(self, index: int, *heads: int, flags: int = 0, used_event: int = 0) -> None:
        """Write the available ring: flags, idx, ring from its start, used_event (section 2.7.6)."""
        self.memory.write(AVAIL, struct.pack(f"<HH{len(heads)}H", flags, index, *heads))
        self.memory.write(AVAIL + 4 + 2 * self.size, struct.pack("<H", used_event))

    def refused(self, reason: str) -> None:
        """Check that nothing can be taken."""
        with pytest.raises(RingError) as error:
            self.device.take(64)
        assert error.value.reason == reason


def test_split_take_follows_the_next_fields() -> None:
    """Section 2.7.5: a chain in any order of the table."""
    driver = _Driver()
    driver.descriptor(2, BUFFER, 16, NEXT, 0)
    driver.descriptor(0, BUFFER + 16, 512, NEXT | WRITE, 3)
    driver.descriptor(3, BUFFER + 600, 1, WRITE, 77)
    driver.avail(1, 2)
    assert driver.device.take(64) == [
        Chain(2, [(BUFFER, 16)], [(BUFFER + 16, 512), (BUFFER + 600, 1)], 16, 513),
    ]


def test_split_publish_writes_elements_and_then_the_index() -> None:
    """Section 2.7.8: flags, idx, then id and len of each."""
    driver = _Driver()
    driver.descriptor(0, BUFFER, 16)
    driver.descriptor(1, BUFFER, 16, WRITE)
    driver.avail(2, 1, 0)
    driver.device.take(64)
    driver.device.put(0, 0)
    driver.device.put(1, 16)
    assert driver.memory.read(USED, 20) == bytes(20)
    assert driver.device.publish()
    assert driver.memory.read(USED, 20) == struct.pack("<HHIIII", 0, 2, 0, 0, 1, 16)


class _WriteOrder(ByteMemory):
    """Memory that notes where it is written."""

    def __init__(self, size_bytes: int, base: int) -> None:
        super().__init__(size_bytes, base)
        self.written: list[tuple[int, int]] = []

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Note address and length."""
        self.written.append((address, len(data)))
        super().write(address, data)


def test_split_publish_across_the_end_writes_the_index_last() -> None:
    """Section 2.7.8.2: whoever sees the index sees the elements; those behind the end are at the start."""
    memory = _WriteOrder(0x8000, BASE)
    device = device_ring(memory, RingSetup(4, BASE, AVAIL, USED, 0))
    for index in range(4):
        memory.write(BASE + 16 * index, struct.pack("<QIHH", BUFFER, 4, 0, 0))
    memory.write(AVAIL, struct.pack("<HH4H", 0, 3, 0, 1, 2, 3))
    device.take(64)
    for head in (0, 1, 2):
        device.put(head, 0)
    device.publish()
    memory.write(AVAIL, struct.pack("<HH4H", 0, 7, 0, 1, 2, 3))
    assert [chain.head for chain in device.take(64)] == [3, 0, 1, 2]
    memory.written.clear()
    for head in (3, 0, 1):
        device.put(head, 0)
    device.publish()
    assert memory.written == [(USED + 4 + 24, 8), (USED + 4, 16), (USED + 2, 2)]


@pytest.mark.parametrize(("count", "size"), [(5, 4), (65535, 4), (2, 1), (32768, 4)])
def test_split_take_of_an_index_that_jumps_is_an_error(count: int, size: int) -> None:
    """More cannot be available than the ring has entries; going back is going far ahead (section 2.7.6.1)."""
    driver = _Driver(size=size)
    driver.avail(count, 0)
    driver.refused("index-jump")


def test_split_take_of_a_head_outside_the_table_is_an_error() -> None:
    """The first that is not there."""
    driver = _Driver()
    driver.avail(1, 4)
    driver.refused("head-range")


def test_split_take_of_a_head_in_flight_is_an_error() -> None:
    """Twice in one go, or again before it was used."""
    driver = _Driver()
    driver.descriptor(0, BUFFER, 4)
    driver.avail(1, 0, 0)
    driver.device.take(64)
    driver.avail(2, 0, 0)
    driver.refused("head-in-flight")


def test_split_take_of_a_next_field_outside_the_table_is_an_error() -> None:
    """The first that is not there."""
    driver = _Driver()
    driver.descriptor(0, BUFFER, 4, NEXT, 4)
    driver.avail(1, 0)
    driver.refused("chain-range")


@pytest.mark.parametrize("following", [0, 1])
def test_split_take_of_a_loop_is_an_error(following: int) -> None:
    """Section 2.7.5.2: loops are forbidden, of one descriptor or of more."""
    driver = _Driver()
    driver.descriptor(0, BUFFER, 0, NEXT, following)
    driver.descriptor(1, BUFFER, 0, NEXT, 0)
    driver.avail(1, 0)
    driver.refused("chain-long")


def test_split_take_of_chains_that_share_a_tail_is_an_error() -> None:
    """A descriptor belongs to one request until that is used."""
    driver = _Driver()
    for index in range(4):
        driver.descriptor(index, BUFFER, 4, NEXT if index < 3 else 0, 3)
    driver.avail(3, 0, 1, 2)
    driver.refused("chain-long")


def test_split_take_of_many_heads_with_one_long_tail_is_an_error_at_once() -> None:
    """32768 heads that lead to 32768 descriptors each: a thousand million steps if all were walked."""
    size = 32768
    memory = ByteMemory(0x20_0000, BASE)
    device = device_ring(memory, RingSetup(size, BASE, BASE + 0x8_0000, BASE + 0xA_0000, 0))
    table = b"".join(struct.pack("<QIHH", BASE, 0, NEXT, index + 1) for index in range(size - 1))
    memory.write(BASE, table + struct.pack("<QIHH", BASE, 0, 0, 0))
    memory.write(BASE + 0x8_0000, struct.pack(f"<HH{size}H", 0, size, *range(size)))
    with pytest.raises(RingError, match="chain-long"):
        device.take(size)


def test_split_take_of_direct_descriptors_before_a_table_is_one_request() -> None:
    """Section 2.7.5.3.2: chained descriptors followed by one that refers to a table; its WRITE flag is ignored."""
    driver = _Driver()
    driver.descriptor(0, BUFFER, 4, NEXT, 1)
    driver.descriptor(1, TABLE, 48, INDIRECT | WRITE, 0)
    driver.indirect(0, BUFFER + 8, 8, NEXT, 2)
    driver.indirect(2, BUFFER + 16, 16, WRITE, 0)
    driver.avail(1, 0)
    assert driver.device.take(64) == [Chain(0, [(BUFFER, 4), (BUFFER + 8, 8)], [(BUFFER + 16, 16)], 12, 16)]


@pytest.mark.parametrize(
    ("address", "length", "flags", "reason"),
    [
        (TABLE, 32, INDIRECT | NEXT, "indirect-next"),
        (TABLE, 0, INDIRECT, "indirect-length"),
        (TABLE, 24, INDIRECT, "indirect-length"),
        (TABLE, 0xFFFF_FFF0, INDIRECT, "indirect-memory"),
        (BASE - 16, 32, INDIRECT, "indirect-memory"),
        (BASE + 0x8000, 16, INDIRECT, "indirect-memory"),
        ((1 << 64) - 16, 32, INDIRECT, "indirect-memory"),
        (TABLE, 32, INDIRECT, "chain-range"),
        (TABLE, 64, INDIRECT, "indirect-nested"),
        (TABLE + 48, 48, INDIRECT, "chain-long"),
    ],
)
def test_split_take_of_a_table_that_cannot_be_is_an_error(address: int, length: int, flags: int, reason: str) -> None:
    """Section 2.7.5.3.1: what a driver must not do."""
    driver = _Driver()
    driver.descriptor(0, address, length, flags, 1)
    driver.indirect(0, BUFFER, 4, NEXT, 2)
    driver.indirect(2, TABLE, 16, INDIRECT, 0)
    driver.indirect(3, BUFFER, 4, NEXT, 1)
    driver.indirect(4, BUFFER, 4, NEXT, 0)
    driver.avail(1, 0)
    driver.refused(reason)


def test_split_take_of_a_table_that_was_not_negotiated_is_an_error() -> None:
    """Section 2.7.5.3.1."""
    driver = _Driver(features=0)
    driver.descriptor(0, TABLE, 16, INDIRECT)
    driver.avail(1, 0)
    driver.refused("indirect-feature")


def test_split_request_may_be_as_long_as_the_ring() -> None:
    """Section 2.7.5.3.1: no longer than the Queue Size, tables included."""
    driver = _Driver()
    driver.descriptor(0, BUFFER, 4, NEXT, 1)
    driver.descriptor(1, TABLE, 80, INDIRECT)
    for index in range(3):
        driver.indirect(index, BUFFER, 4, NEXT if index < 2 else 0, index + 1)
    driver.avail(1, 0)
    assert driver.device.take(64)[0].readable_bytes == 16
    driver.indirect(2, BUFFER, 4, NEXT, 3)
    driver.indirect(3, BUFFER, 4)
    driver.descriptor(2, BUFFER, 4, NEXT, 3)
    driver.descriptor(3, TABLE, 80, INDIRECT)
    driver.avail(2, 0, 2)
    driver.refused("chain-long")


def test_split_avail_event_follows_what_was_taken() -> None:
    """Section 2.7.10: with the event index, behind the used ring; without, nothing is written there."""
    driver = _Driver(features=EVENTS)
    driver.descriptor(0, BUFFER, 4)
    driver.descriptor(1, BUFFER, 4)
    driver.avail(2, 0, 1)
    driver.device.take(1)
    assert driver.memory.read(USED + 36, 2) == b"\1\0"
    driver.device.take(1)
    assert driver.memory.read(USED + 36, 2) == b"\2\0"
    plain = _Driver(features=0)
    plain.descriptor(0, BUFFER, 4)
    plain.avail(1, 0)
    plain.device.take(1)
    assert plain.memory.read(USED, 38) == bytes(38)


def test_split_interrupt_at_counts_completions_of_16_bits() -> None:
    """Section 2.7.7: `used_event` is an index; what lies behind means the next time round."""
    driver = _Driver(features=EVENTS)
    driver.avail(0, used_event=0)
    assert driver.device.interrupt_at() == 1
    driver.avail(0, used_event=5)
    assert driver.device.interrupt_at() == 6
    driver.avail(0, used_event=65535)
    assert driver.device.interrupt_at() == 65536


def test_split_interrupt_at_ignores_the_flag_with_event_index() -> None:
    """Section 2.7.7.2; without it, the flag decides and `used_event` is ignored."""
    driver = _Driver(features=EVENTS)
    driver.avail(0, flags=1, used_event=0)
    assert driver.device.interrupt_at() == 1
    plain = _Driver(features=0)
    plain.avail(0, flags=1, used_event=3)
    assert plain.device.interrupt_at() == NEVER
    plain.avail(0, flags=0, used_event=3)
    assert plain.device.interrupt_at() == ALWAYS


def test_split_size_that_is_no_power_of_two_is_refused() -> None:
    """Section 2.7."""
    with pytest.raises(RingError, match="ring-size"):
        _Driver(size=6)


# --- chains that come again


def _read_chain(driver: _Driver, data_bytes: int = 512) -> None:
    """A request in descriptors 0, 1 and 3: header, data, status."""
    driver.descriptor(0, BUFFER, 16, NEXT, 1)
    driver.descriptor(1, BUFFER + 16, data_bytes, NEXT | WRITE, 3)
    driver.descriptor(3, BUFFER + 0x800, 1, WRITE)


def _again(driver: _Driver, index: int) -> list[Chain]:
    """The request of head 0 is offered once more, taken and used."""
    driver.avail(index, 0, 0, 0, 0)
    taken = driver.device.take(64)
    driver.device.put(0, 0)
    return taken


def test_split_chain_that_comes_again_is_known() -> None:
    """The same descriptors are the same request; if one between them changes, it is walked."""
    driver = _Driver()
    _read_chain(driver)

    first, second = _again(driver, 1), _again(driver, 2)
    driver.descriptor(2, 0, 0xFFFF_FFFF, INDIRECT, 9)
    third = _again(driver, 3)

    assert first[0] is second[0]
    assert first == third == [Chain(0, [(BUFFER, 16)], [(BUFFER + 16, 512), (BUFFER + 0x800, 1)], 16, 513)]


def test_split_chain_that_changed_is_another_one() -> None:
    """Each time, and also when it changes back."""
    driver = _Driver()
    taken = []
    for index, length in enumerate([512, 512, 256, 128, 512], 1):
        _read_chain(driver, length)
        taken += _again(driver, index)

    assert [chain.writable for chain in taken] == [
        [(BUFFER + 16, length), (BUFFER + 0x800, 1)] for length in (512, 512, 256, 128, 512)
    ]


def test_split_chain_that_has_changed_for_good_is_known_again() -> None:
    """Not at once: a driver may change its descriptors with every request."""
    driver = _Driver()
    _read_chain(driver)
    _again(driver, 1)
    _read_chain(driver, 256)

    taken = [_again(driver, index)[0] for index in range(2, 20)]

    assert taken[0] is not taken[1]
    assert taken[-1] is taken[-2]
    assert {chain.writable_bytes for chain in taken} == {257}


def test_split_chain_that_is_known_still_needs_free_descriptors() -> None:
    """Another request has taken two of the four."""
    driver = _Driver()
    _read_chain(driver)
    _again(driver, 1)
    driver.descriptor(2, BUFFER, 16, NEXT, 1)
    driver.descriptor(1, BUFFER + 16, 512, WRITE)
    driver.avail(2, 0, 2)
    driver.device.take(64)

    _read_chain(driver)
    driver.avail(3, 0, 2, 0)
    driver.refused("chain-long")


def test_split_chain_that_goes_back_or_far_is_walked_every_time() -> None:
    """It is taken all the same."""
    driver = _Driver(size=16)
    driver.descriptor(12, BUFFER, 16, NEXT, 2)
    driver.descriptor(2, BUFFER + 16, 512, WRITE)
    driver.descriptor(0, BUFFER, 16, NEXT, 9)
    driver.descriptor(9, BUFFER + 16, 512, WRITE)
    driver.avail(4, 12, 0, 12, 0)
    taken = []
    for index in (1, 2, 3, 4):
        driver.avail(index, 12, 0, 12, 0)
        taken += driver.device.take(64)
        driver.device.put(taken[-1].head, 0)

    assert [(chain.head, chain.readable, chain.writable) for chain in taken] == [
        (head, [(BUFFER, 16)], [(BUFFER + 16, 512)]) for head in (12, 0, 12, 0)
    ]


def test_split_driver_is_asked_to_notify_only_by_who_does_not_look_again() -> None:
    """The event index stays where it was until somebody asks, even if nothing is new then."""
    driver = _Driver(features=EVENTS)
    for head in (0, 1):
        driver.descriptor(head, BUFFER, 16)
    driver.avail(2, 0, 1)
    event = USED + 4 + 8 * driver.size

    taken = len(driver.device.take(64, ask=False))
    before = driver.memory.read(event, 2)
    asked = len(driver.device.take(64))

    assert (taken, before, asked, driver.memory.read(event, 2)) == (2, b"\0\0", 0, b"\2\0")
