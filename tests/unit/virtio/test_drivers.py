"""The driver's side against a device that breaks the format."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.virtio.packed import AVAIL, USED
from iovirt_dist.virtio.ring import RingError, driver_ring, ring_setup

BASE = 0x8000_0000
BUFFER = BASE + 0x1000
PACKED = mask(Feature.RING_PACKED)


def test_split_driver_index_that_jumps_is_an_error() -> None:
    """No more can be used than the ring has."""
    memory = ByteMemory(0x2000, BASE)
    setup = ring_setup(BASE, 4, 0)
    driver = driver_ring(memory, setup)
    driver.add([(BUFFER, 4)], [])
    memory.write(setup.device_area + 2, struct.pack("<H", 5))
    with pytest.raises(RingError, match="used-jump"):
        driver.take_used()


def test_split_driver_head_that_was_not_added_is_an_error() -> None:
    """Twice the same, for example."""
    memory = ByteMemory(0x2000, BASE)
    setup = ring_setup(BASE, 4, 0)
    driver = driver_ring(memory, setup)
    head = driver.add([(BUFFER, 4)], [])
    memory.write(setup.device_area, struct.pack("<HHIIII", 0, 2, head, 0, head, 0))
    with pytest.raises(RingError, match="head-unknown"):
        driver.take_used()


def test_packed_driver_id_that_was_not_added_is_an_error() -> None:
    """Whatever the device writes, it is looked up."""
    memory = ByteMemory(0x2000, BASE)
    driver = driver_ring(memory, ring_setup(BASE, 4, PACKED))
    driver.add([(BUFFER, 4)], [])
    memory.write(BASE, struct.pack("<QIHH", 0, 0, 77, AVAIL | USED))
    with pytest.raises(RingError, match="head-unknown"):
        driver.take_used()


def test_packed_driver_length_without_write_flag_is_ignored() -> None:
    """Section 2.8.4: Element Length is reserved then."""
    memory = ByteMemory(0x2000, BASE)
    driver = driver_ring(memory, ring_setup(BASE, 4, PACKED))
    head = driver.add([(BUFFER, 4)], [])
    memory.write(BASE, struct.pack("<QIHH", 0, 99, head, AVAIL | USED))
    assert driver.take_used() == [(head, 0)]


def test_drivers_zero_the_areas_that_they_are_given() -> None:
    """Sections 2.7.10.1 and 2.8.13: memory may hold what an earlier life of the queue left."""
    memory = ByteMemory(0x2000, BASE)
    memory.data[:] = b"\xff" * len(memory.data)
    for features in (0, PACKED):
        driver = driver_ring(memory, ring_setup(BASE, 4, features))
        assert driver.take_used() == []
        driver.add([(BUFFER, 4)], [])
        assert driver.notify_needed()
