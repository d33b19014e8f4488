"""Virtqueues (sections 2.6 to 2.8): the one module that users of rings import.

A request is one `Chain` to the device, whatever the layout. `device_ring` gives the side that walks untrusted memory,
`driver_ring` the other, which is for script guests and tests.
"""

from __future__ import annotations

from iovirt_dist.virtio import packed, split
from iovirt_dist.virtio.chain import (
    ALWAYS,
    CHAIN_BYTES_MAX,
    DESCRIPTOR_BYTES,
    NEVER,
    SIZE_MAX,
    Chain,
    DeviceRing,
    DriverRing,
    RingError,
    RingFullError,
    RingSetup,
    Segment,
)
from iovirt_dist.virtio.features import Feature, has
from iovirt_dist.virtio.memory import ByteMemory, GuestMemory
from iovirt_dist.virtio.packed_driver import PackedDriver
from iovirt_dist.virtio.split_driver import SplitDriver

__all__ = [
    "ALWAYS",
    "CHAIN_BYTES_MAX",
    "DESCRIPTOR_BYTES",
    "NEVER",
    "SIZE_MAX",
    "Chain",
    "DeviceRing",
    "DriverRing",
    "RingError",
    "RingFullError",
    "RingSetup",
    "Segment",
    "device_ring",
    "driver_ring",
    "ring_bytes",
    "ring_setup",
]


def device_ring(memory: GuestMemory, setup: RingSetup) -> DeviceRing:
    """Return the device's side of a ring that was just enabled: nothing is in flight and both indices are 0.

    Args:
        memory: Guest memory; the ring's areas are looked up once, so RAM must not move.
        setup: What the driver told its transport; RING_PACKED chooses the layout.

    Raises:
        RingError: Reason ``ring-size``, ``ring-alignment`` or ``ring-memory``.
    """
    return packed.PackedDevice(memory, setup) if setup.packed else split.SplitDevice(memory, setup)


def driver_ring(memory: ByteMemory, setup: RingSetup) -> DriverRing:
    """Return the driver's side of a new ring, whose areas are filled with zeroes.

    Args:
        memory: The guest's own memory.
        setup: Where the ring is to be; RING_PACKED chooses the layout.

    Raises:
        RingError: As `device_ring`.
    """
    return PackedDriver(memory, setup) if setup.packed else SplitDriver(memory, setup)


def ring_bytes(size: int) -> int:
    """Return how much memory `ring_setup` lays out for a ring of this size, of either layout."""
    return (DESCRIPTOR_BYTES * size + split.avail_bytes(size) + 3 & ~3) + split.used_bytes(size)


def ring_setup(address: int, size: int, features: int) -> RingSetup:
    """Lay out the areas of a ring one behind the other.

    Args:
        address: Where; a multiple of 16.
        size: Queue Size.
        features: Negotiated features.
    """
    driver_area = address + DESCRIPTOR_BYTES * size
    if has(features, Feature.RING_PACKED):
        device_area = driver_area + packed.SUPPRESSION.size
    else:
        device_area = driver_area + split.avail_bytes(size) + 3 & ~3
    return RingSetup(size, address, driver_area, device_area, features)
