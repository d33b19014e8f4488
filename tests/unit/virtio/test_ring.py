"""What both layouts have in common, through `virtio.ring`."""

from __future__ import annotations

import pytest

from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.memory import ByteMemory, MemoryRangeError
from iovirt_dist.virtio.ring import (
    ALWAYS,
    NEVER,
    Chain,
    DeviceRing,
    DriverRing,
    RingError,
    RingFullError,
    RingSetup,
    device_ring,
    driver_ring,
    ring_bytes,
    ring_setup,
)
from iovirt_dist.wire import queue_messages

BASE = 0x8000_0000
BUFFERS = BASE + 0x4000
TABLE = BASE + 0x8000
SPLIT = mask(Feature.VERSION_1, Feature.RING_INDIRECT_DESC)
PACKED = SPLIT | mask(Feature.RING_PACKED)
EVENTS = mask(Feature.RING_EVENT_IDX)
LAYOUTS = pytest.mark.parametrize("features", [SPLIT, PACKED], ids=["split", "packed"])


def _pair(features: int, size: int = 8) -> tuple[ByteMemory, DriverRing, DeviceRing]:
    """Return a memory and both sides of a ring at its start."""
    memory = ByteMemory(0x1_0000, BASE)
    setup = ring_setup(BASE, size, features)
    return memory, driver_ring(memory, setup), device_ring(memory, setup)


def test_interrupt_at_values_are_those_of_the_doorbell() -> None:
    """The ring lies below the wire, so it has names of its own for them."""
    assert NEVER == queue_messages.NEVER
    assert ALWAYS == queue_messages.ALWAYS


@LAYOUTS
def test_ring_request_travels_from_driver_to_device_and_back(features: int) -> None:
    """Section 2.6: readable segments first, then writable ones; the used length comes back."""
    _, driver, device = _pair(features)
    head = driver.add([(BUFFERS, 16)], [(BUFFERS + 512, 4096), (BUFFERS + 16, 1)])
    assert device.take(64) == [Chain(head, [(BUFFERS, 16)], [(BUFFERS + 512, 4096), (BUFFERS + 16, 1)], 16, 4097)]
    device.put(head, 4097)
    assert driver.take_used() == []
    assert device.publish()
    assert driver.take_used() == [(head, 4097)]
    assert driver.free == 8
    assert device.completed == 1


@LAYOUTS
def test_ring_indirect_request_is_the_same_to_the_device(features: int) -> None:
    """Sections 2.7.5.3 and 2.8.7: one descriptor of the ring, any number in the table."""
    _, driver, device = _pair(features)
    head = driver.add([(BUFFERS, 16)], [(BUFFERS + 512, 512), (BUFFERS + 16, 1)], TABLE)
    assert driver.free == 7
    assert device.take(64) == [Chain(head, [(BUFFERS, 16)], [(BUFFERS + 512, 512), (BUFFERS + 16, 1)], 16, 513)]


@LAYOUTS
def test_ring_indirect_table_needs_no_alignment(features: int) -> None:
    """Only the parts of a virtqueue have to be aligned (section 2.6)."""
    _, driver, device = _pair(features)
    driver.add([(BUFFERS, 16), (BUFFERS + 16, 16)], [], TABLE + 5)
    assert device.take(64)[0].readable_bytes == 32


@LAYOUTS
def test_ring_empty_segments_are_left_out(features: int) -> None:
    """An element of no bytes has no place, so it may say any."""
    _, driver, device = _pair(features)
    driver.add([(0, 0), (BUFFERS, 4)], [(1 << 60, 0)])
    driver.add([(0, 0)], [])
    assert [(chain.readable, chain.writable) for chain in device.take(64)] == [([(BUFFERS, 4)], []), ([], [])]


@LAYOUTS
def test_ring_take_gives_as_many_as_asked_for(features: int) -> None:
    """The rest comes with the next call."""
    _, driver, device = _pair(features)
    heads = [driver.add([(BUFFERS, 4)], []) for _ in range(5)]
    assert [chain.head for chain in device.take(3)] == heads[:3]
    assert [chain.head for chain in device.take(3)] == heads[3:]
    assert device.take(3) == []


@LAYOUTS
def test_ring_used_out_of_order_comes_back_in_that_order(features: int) -> None:
    """A device may complete in any order; the driver frees what was used."""
    _, driver, device = _pair(features)
    first, second, third = (driver.add([(BUFFERS, 4)], [(BUFFERS + 8, 4)]) for _ in range(3))
    device.take(64)
    device.put(third, 1)
    device.put(first, 2)
    device.publish()
    assert driver.take_used() == [(third, 1), (first, 2)]
    assert driver.free == 6
    device.put(second, 3)
    device.publish()
    assert driver.take_used() == [(second, 3)]


@LAYOUTS
def test_ring_full_refuses_and_stays_as_it_was(features: int) -> None:
    """A request that does not fit changes nothing."""
    _, driver, device = _pair(features, size=4)
    driver.add([(BUFFERS, 4)] * 3, [])
    with pytest.raises(RingFullError):
        driver.add([(BUFFERS, 4)] * 2, [])
    driver.add([(BUFFERS, 4)], [])
    assert driver.free == 0
    assert [chain.readable_bytes for chain in device.take(64)] == [12, 4]


@LAYOUTS
def test_ring_request_longer_than_the_ring_is_refused(features: int) -> None:
    """Not even a table may have more descriptors than the queue."""
    _, driver, _ = _pair(features, size=4)
    with pytest.raises(RingFullError):
        driver.add([(BUFFERS, 4)] * 5, [], TABLE)
    with pytest.raises(RingFullError):
        driver.add([], [])


@LAYOUTS
def test_publish_of_nothing_wants_no_interrupt(features: int) -> None:
    """Nothing is written either."""
    memory, _, device = _pair(features)
    before = bytes(memory.data)
    assert not device.publish()
    assert memory.data == before


@LAYOUTS
def test_interrupts_without_event_index_are_on_or_off(features: int) -> None:
    """Sections 2.7.7 and 2.8.10: a flag of the driver's."""
    _, driver, device = _pair(features)
    heads = [driver.add([(BUFFERS, 4)], []) for _ in range(4)]
    device.take(64)
    assert device.interrupt_at() == ALWAYS
    driver.disable_interrupts()
    assert device.interrupt_at() == NEVER
    device.put(heads[0], 0)
    assert not device.publish()
    assert driver.enable_interrupts()
    assert driver.take_used() == [(heads[0], 0)]
    assert not driver.enable_interrupts()
    device.put(heads[1], 0)
    assert device.publish()


@LAYOUTS
def test_interrupt_after_comes_with_that_request(features: int) -> None:
    """Section 2.7.7: `used_event` is the entry at which to interrupt."""
    _, driver, device = _pair(features | EVENTS)
    heads = [driver.add([(BUFFERS, 4)], []) for _ in range(6)]
    device.take(64)
    assert not driver.interrupt_after(3)
    assert device.interrupt_at() == 3
    device.put(heads[0], 0)
    device.put(heads[1], 0)
    assert not device.publish()
    device.put(heads[2], 0)
    device.put(heads[3], 0)
    assert device.publish()
    device.put(heads[4], 0)
    assert not device.publish()
    assert driver.interrupt_after(5)
    assert not driver.interrupt_after(6)
    device.put(heads[5], 0)
    assert device.publish()


@LAYOUTS
def test_interrupts_disabled_with_event_index_do_not_come(features: int) -> None:
    """The split layout can only move the event far away; the packed one can switch off."""
    _, driver, device = _pair(features | EVENTS)
    heads = [driver.add([(BUFFERS, 4)], []) for _ in range(6)]
    device.take(64)
    driver.disable_interrupts()
    assert device.interrupt_at() in (NEVER, 65536)
    for head in heads:
        device.put(head, 0)
    assert not device.publish()


@LAYOUTS
def test_notify_with_event_index_is_needed_once(features: int) -> None:
    """Sections 2.7.10 and 2.8.10: the device asks for the next entry each time it has emptied the ring."""
    _, driver, device = _pair(features | EVENTS)
    assert not driver.notify_needed()
    driver.add([(BUFFERS, 4)], [])
    assert driver.notify_needed()
    device.take(64)
    driver.add([(BUFFERS, 4)], [])
    assert driver.notify_needed()
    driver.add([(BUFFERS, 4)], [])
    assert not driver.notify_needed()
    assert len(device.take(64)) == 2


@LAYOUTS
def test_notify_without_event_index_is_needed_for_each_addition(features: int) -> None:
    """This device switches nothing off."""
    _, driver, device = _pair(features)
    assert not driver.notify_needed()
    driver.add([(BUFFERS, 4)], [])
    assert driver.notify_needed()
    device.take(64)
    driver.add([(BUFFERS, 4)], [])
    assert driver.notify_needed()
    assert not driver.notify_needed()


class _BusyDriver(ByteMemory):
    """A driver on another CPU, which adds a request while the device says where it wants to be notified."""

    driver: DriverRing | None = None

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Add first, then let the device write."""
        driver, self.driver = self.driver, None
        if driver:
            driver.add([(BUFFERS, 5)], [])
            assert not driver.notify_needed()
        super().write(address, data)


@LAYOUTS
def test_take_finds_what_was_added_before_the_event_was_set(features: int) -> None:
    """Section 2.7.10: the driver did not notify for it, so the device has to look again."""
    memory = _BusyDriver(0x1_0000, BASE)
    setup = ring_setup(BASE, 8, features | EVENTS)
    driver, device = driver_ring(memory, setup), device_ring(memory, setup)
    driver.add([(BUFFERS, 4)], [])
    device.take(64)
    driver.add([(BUFFERS, 4)], [])
    driver.notify_needed()
    memory.driver = driver
    assert [chain.readable_bytes for chain in device.take(64)] == [4, 5]


@LAYOUTS
def test_put_of_what_is_not_in_flight_is_an_error(features: int) -> None:
    """A completion may be wrong, too: of another request, twice, or too long for the ring."""
    _, driver, device = _pair(features)
    head = driver.add([(BUFFERS, 4)], [])
    for wrong in (head, -1, 8, 65535):
        with pytest.raises(RingError, match="head-unknown"):
            device.put(wrong, 0)
    device.take(64)
    for length in (-1, 1 << 32):
        with pytest.raises(RingError, match="used-length"):
            device.put(head, length)
    device.put(head, 0)
    with pytest.raises(RingError, match="head-unknown"):
        device.put(head, 0)


@LAYOUTS
@pytest.mark.parametrize(
    ("address", "length"),
    [(0, 1), (BASE - 1, 2), (BASE + 0x1_0000, 1), (BASE + 0xFFFF, 2), (BUFFERS, 0xFFFF_FFFF), ((1 << 64) - 1, 2)],
)
def test_take_of_a_buffer_outside_ram_is_an_error(features: int, address: int, length: int) -> None:
    """Wild addresses, and lengths that overflow."""
    _, driver, device = _pair(features)
    driver.add([(BUFFERS, 4), (address, length)], [])
    with pytest.raises(RingError, match="buffer-memory"):
        device.take(64)


@LAYOUTS
def test_take_after_an_error_raises_the_same(features: int) -> None:
    """A broken ring stays broken, though the driver repairs it."""
    memory, driver, device = _pair(features)
    driver.add([(0, 4)], [])
    with pytest.raises(RingError) as first:
        device.take(64)
    memory.data[:16] = bytes(16)
    with pytest.raises(RingError) as second:
        device.take(64)
    assert second.value is first.value


@LAYOUTS
def test_take_of_readable_behind_writable_is_an_error(features: int) -> None:
    """Section 2.7.4.2: device-writable elements come last."""
    memory, driver, device = _pair(features)
    driver.add([(BUFFERS, 4)], [(BUFFERS, 4)])
    flags_at = 14 if features == PACKED else 12
    memory.data[flags_at] ^= 2
    memory.data[16 + flags_at] ^= 2
    with pytest.raises(RingError, match="chain-order"):
        device.take(64)


@LAYOUTS
def test_take_of_four_gibibytes_is_an_error(features: int) -> None:
    """Section 2.7.5.2, less one byte that 32 bits cannot tell; buffers may be the same memory again and again."""
    memory = ByteMemory(0x10_0000, BASE)
    setup = ring_setup(BASE, 16384, features)
    driver, device = driver_ring(memory, setup), device_ring(memory, setup)
    half_mebibyte = (BASE + 0x8_0000, 0x8_0000)
    driver.add([half_mebibyte] * 8191, [(BASE, 0x7_FFFF)])
    assert device.take(1)[0].readable_bytes == 8191 * 0x8_0000
    driver.add([half_mebibyte] * 8191, [half_mebibyte])
    with pytest.raises(RingError, match="chain-bytes"):
        device.take(1)


@LAYOUTS
def test_take_across_two_pieces_of_ram_is_an_error(features: int) -> None:
    """Each buffer lies in one piece of RAM; buffers of one request may lie in several."""
    memory = _TwoPieces(0x1_0000, BASE)
    setup = ring_setup(BASE, 8, features)
    driver, device = driver_ring(memory, setup), device_ring(memory, setup)
    driver.add([(BUFFERS, 4), (TABLE + 16, 4), (BUFFERS + 8, 4)], [])
    assert device.take(1)[0].readable_bytes == 12
    driver.add([(TABLE - 2, 4)], [])
    with pytest.raises(RingError, match="buffer-memory"):
        device.take(1)


class _TwoPieces(ByteMemory):
    """RAM with a seam at `TABLE`."""

    def view(self, address: int, length: int) -> memoryview:
        """Refuse what crosses the seam."""
        if address < TABLE < address + length:
            raise MemoryRangeError("not in one piece")
        return super().view(address, length)


@LAYOUTS
@pytest.mark.parametrize(
    ("setup", "reason"),
    [
        (RingSetup(0, BASE, BASE + 0x1000, BASE + 0x2000, 0), "ring-size"),
        (RingSetup(32769, BASE, BASE + 0x1000, BASE + 0x2000, 0), "ring-size"),
        (RingSetup(8, BASE + 8, BASE + 0x1000, BASE + 0x2000, 0), "ring-alignment"),
        (RingSetup(8, BASE, BASE + 0x1001, BASE + 0x2000, 0), "ring-alignment"),
        (RingSetup(8, BASE, BASE + 0x1000, BASE + 0x2002, 0), "ring-alignment"),
        (RingSetup(8, BASE - 16, BASE + 0x1000, BASE + 0x2000, 0), "ring-memory"),
        (RingSetup(8, BASE, (1 << 64) - 4, BASE + 0x2000, 0), "ring-memory"),
        (RingSetup(8, BASE, BASE + 0x1000, BASE + 0x1_0000, 0), "ring-memory"),
        (RingSetup(8192, BASE, BASE + 0x1000, BASE + 0x2000, 0), "ring-memory"),
    ],
)
def test_ring_whose_areas_cannot_be_is_refused(features: int, setup: RingSetup, reason: str) -> None:
    """Section 2.6: sizes and alignments; both sides refuse it."""
    memory = ByteMemory(0x1_0000, BASE)
    with pytest.raises(RingError, match=reason):
        device_ring(memory, setup._replace(features=features))
    with pytest.raises(RingError, match=reason):
        driver_ring(memory, setup._replace(features=features))


@LAYOUTS
@pytest.mark.parametrize("size", [1, 2, 256, 32768])
def test_ring_setup_lays_areas_out_without_overlap(features: int, size: int) -> None:
    """Whatever the size, the areas fit into `ring_bytes`."""
    memory = ByteMemory(ring_bytes(size), BASE)
    setup = ring_setup(BASE, size, features)
    driver, device = driver_ring(memory, setup), device_ring(memory, setup)
    head = driver.add([(BASE, 1)], [])
    device.take(1)
    device.put(head, 0)
    assert device.publish()
    assert driver.take_used() == [(head, 0)]
    assert setup.descriptors + 16 * size <= setup.driver_area < setup.device_area
