"""Data of a port that came ahead of the INs that will ask for it; the other end is `iovirt_dist.hypervisor.prefetch`.

Stands where the PIIX3's IDE prefetch buffer stands (82371SB data sheet, IDETIM register): between the CPU and the data
port. An IN is answered from it only if the hypervisor would have to say the same: same port, same width, and executed
with exactly the privilege that the hypervisor allowed.
"""

from __future__ import annotations

from iovirt_dist.guest.bus import IoPrivilege
from iovirt_dist.wire.codec import Buffer

EMPTY = -1


class PrefetchBuffer:
    """What the hypervisor sent ahead, at most one port's data at a time.

    Attributes:
        held: Whether there was data since the last `clear`.
        read: Elements that the CPU has read and the hypervisor has not been told of.
    """

    __slots__ = ("_at", "_data", "_port", "_privilege", "_width", "held", "read")

    def __init__(self) -> None:
        self.read = 0
        self.clear()

    def fill(self, port: int, width: int, privilege: IoPrivilege, data: Buffer) -> None:
        """Hold data for the port whose IN it came with; whole elements of `width` bytes, little-endian."""
        self._port, self._width, self._privilege = port, width, privilege
        self._data, self._at = bytes(data[: len(data) // width * width]), 0
        self.held = True

    def clear(self) -> None:
        """Drop what is left: something else happened."""
        self._port = self._width = EMPTY
        self._privilege = IoPrivilege(EMPTY)
        self._data, self._at = b"", 0
        self.held = False

    def take(self, port: int, width: int, count: int, privilege: IoPrivilege) -> int:
        """Return the next element for an IN, or `EMPTY` if the hypervisor must be asked."""
        at = self._at
        if port != self._port or width != self._width or count != 1 or at == len(self._data):
            return EMPTY
        if privilege != self._privilege:
            return EMPTY
        self._at = at + width
        self.read += 1
        return int.from_bytes(self._data[at : at + width], "little")

    def told(self) -> int:
        """Return `read` and begin anew."""
        read, self.read = self.read, 0
        return read
