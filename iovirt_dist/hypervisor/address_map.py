"""Second room: which virtual device answers at this port or address?"""

from __future__ import annotations

import enum
from bisect import bisect_right
from typing import NamedTuple

from iovirt_dist.errors import ConfigError
from iovirt_dist.hypervisor.vdev.device import Device, PrefetchDevice, StringDevice


class Space(enum.IntEnum):
    """The two address spaces of I/O."""

    PORT = 0
    """x86 I/O ports, 0..FFFFh."""
    MEMORY = 1
    """Guest physical addresses outside RAM."""


class Range(NamedTuple):
    """A device's registers in an address space.

    Attributes:
        base: First port or address.
        end: First one behind it.
        device: What answers, with offsets from `base`.
        name: The device's name, as it appears in counters and traces.
        strings: The device, if it takes string I/O whole.
        prefetch: The device, if its data may be read ahead.
    """

    base: int
    end: int
    device: Device
    name: str
    strings: StringDevice | None = None
    prefetch: PrefetchDevice | None = None

    def __str__(self) -> str:
        return f"{self.name} at {self.base:#x}-{self.end - 1:#x}"


class AddressMap:
    """Sorted ranges that never overlap, one list per address space.

    Args:
        owner: The guest's name, for messages.
    """

    def __init__(self, owner: str = "") -> None:
        self._owner = owner
        self._ranges: dict[Space, list[Range]] = {space: [] for space in Space}
        self._bases: dict[Space, list[int]] = {space: [] for space in Space}

    def add(self, space: Space, base: int, size: int, device: Device, name: str) -> None:
        """Place a device's registers.

        Raises:
            ConfigError: The range is empty or overlaps one that is there; both are named.
        """
        strings = device if isinstance(device, StringDevice) else None
        prefetch = device if isinstance(device, PrefetchDevice) else None
        new = Range(base, base + size, device, name, strings, prefetch)
        if size <= 0 or base < 0:
            raise ConfigError(f"{name} has an empty or negative range at {base:#x}", self._owner)
        ranges = self._ranges[space]
        at = bisect_right(self._bases[space], base)
        for neighbour in ranges[max(at - 1, 0) : at + 1]:
            if neighbour.base < new.end and new.base < neighbour.end:
                raise ConfigError(f"{new} overlaps {neighbour}", self._owner, "move or remove one of them")
        ranges.insert(at, new)
        self._bases[space].insert(at, base)

    def find(self, space: Space, address: int) -> Range | None:
        """Return the range that holds `address`, or None where nothing answers."""
        at = bisect_right(self._bases[space], address) - 1
        if at < 0:
            return None
        found = self._ranges[space][at]
        return found if address < found.end else None

    def ranges(self, space: Space) -> tuple[Range, ...]:
        """All ranges in ascending order."""
        return tuple(self._ranges[space])
