"""Data that a device has ready, sent to the guest ahead of the INs that will ask for it.

A guest without ``rep ins`` moves a disk sector with 256 INs of one word, and each of them costs a round trip that
tells nobody anything new. The PIIX3's IDE function prefetches in that place: it reads the data port ahead of the host
(82371SB data sheet, IDETIM register, "Prefetch and Posting Enable"). So do we. The reply to an IN of a data port brings
what further reads of it would return without any other effect; the guest's process answers that many INs by itself,
and tells how many before it says anything else. Until then the device stands where it stood.
"""

from __future__ import annotations

from iovirt_dist.hypervisor.address_map import Range
from iovirt_dist.hypervisor.vdev.device import PrefetchDevice
from iovirt_dist.wire.messages import Trap


class Prefetch:
    """What one guest holds of its devices' data, at most one port's at a time."""

    def __init__(self) -> None:
        self._device: PrefetchDevice | None = None
        self._offset = self._width = self._left = 0
        self._name = ""

    def offer(self, trap: Trap, touched: Range | None) -> bytes:
        """Return what goes with the reply to an IN of one element; replaces what was offered before.

        Args:
            trap: The IN, done already.
            touched: The range that answered.
        """
        self.withdraw()
        device = touched.prefetch if touched is not None else None
        if touched is None or device is None:
            return b""
        offset, width = trap.address - touched.base, trap.width
        data = device.peek(offset, width)
        if data:
            self._device, self._offset, self._width, self._name = device, offset, width, touched.name
            self._left = len(data) // width
        return data

    def withdraw(self) -> None:
        """Any other trap voids what the guest holds; its process drops it when it raises one."""
        self._device, self._left = None, 0

    def read(self, elements: int, now_ns: int) -> tuple[int, int, str]:
        """The guest has read this many elements of what it holds: let the device know.

        Returns:
            Elements, at most what was offered; bytes of one; the device's name.
        """
        taken = min(elements, self._left)
        if taken and self._device is not None:
            self._left -= taken
            self._device.read_string(self._offset, self._width, taken, now_ns)
        return taken, self._width, self._name
