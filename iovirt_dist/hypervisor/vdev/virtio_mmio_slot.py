"""A virtio-mmio slot with no device in it (VIRTIO 1.2, section 4.2.2 "MMIO Device Register Layout")."""

from __future__ import annotations

import struct

from iovirt_dist.hypervisor.vdev.device import Quiet, State
from iovirt_dist.virtio import mmio
from iovirt_dist.virtio.features import DeviceId

_HEADER = struct.pack("<4I", mmio.MAGIC, mmio.VERSION, DeviceId.NONE, 0)
"""MagicValue, Version, DeviceID, VendorID. A driver ignores a device whose DeviceID is 0 (section 4.2.2.2)."""


class VirtioMmioEmptySlot(Quiet):
    """Identifies itself as virtio-mmio with device id 0; every other register reads 0 and takes nothing."""

    max_width = 4

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Read the header or 0."""
        return int.from_bytes(_HEADER[offset : offset + width], "little")

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Nothing is there to be written."""

    def state(self) -> State:
        """There is none."""
        return {}

    def restore(self, state: State) -> None:
        """There is nothing to take over."""
