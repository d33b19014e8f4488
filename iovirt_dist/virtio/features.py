"""Feature bits that belong to no device class (section 6), as numbers of bits.

A set of features is an integer: bit n is feature n. Features of a device class are in its own module.
"""

from __future__ import annotations

import enum


class Feature(enum.IntEnum):
    """Reserved feature bits: what the ring and the transport may do."""

    RING_INDIRECT_DESC = 28
    """Descriptors may refer to a table of descriptors (sections 2.7.5.3 and 2.8.7)."""
    RING_EVENT_IDX = 29
    """Each side may say at which entry it wants to be notified (sections 2.7.7, 2.7.10 and 2.8.10)."""
    VERSION_1 = 32
    """Not the legacy interface; a driver must accept it (section 6.1)."""
    ACCESS_PLATFORM = 33
    RING_PACKED = 34
    """The packed layout (section 2.8) in place of the split one (section 2.7)."""
    IN_ORDER = 35
    """The device uses buffers in the order in which they were made available."""
    ORDER_PLATFORM = 36
    SR_IOV = 37
    NOTIFICATION_DATA = 38
    NOTIF_CONFIG_DATA = 39
    RING_RESET = 40
    """Single queues can be reset (section 2.6.1)."""


class DeviceId(enum.IntEnum):
    """Device classes (section 5)."""

    NONE = 0
    NETWORK = 1
    BLOCK = 2
    CONSOLE = 3
    ENTROPY = 4


def mask(*features: int) -> int:
    """Return the set that holds these features, each given as the number of its bit."""
    result = 0
    for feature in features:
        result |= 1 << feature
    return result


def has(features: int, feature: int) -> bool:
    """Return whether a set holds a feature."""
    return bool(features >> feature & 1)
