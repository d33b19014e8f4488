"""Names and numbers that travel end to end."""

from __future__ import annotations

import struct
from typing import NamedTuple, NewType

HostName = NewType("HostName", str)
"""A host's name as in the topology."""

NO_HOST = HostName("")
"""In a topology that names no hosts."""

GuestName = NewType("GuestName", str)
"""A guest's name as in the topology, e.g. ``alice`` or ``alice-2``."""

ProcessName = NewType("ProcessName", str)
"""Any process of the topology: guest, hypervisor or controller."""


class RequestId(NamedTuple):
    """Identity of one device request from the guest's register write to the controller's completion.

    Attributes:
        guest: Instance number that the hypervisor gave the guest, 0..2**32-1; new for every guest epoch.
        queue: Virtual queue of the guest's device, 0..2**32-1.
        sequence: Count within the queue, 0..2**64-1.
    """

    guest: int
    queue: int
    sequence: int

    def pack(self) -> bytes:
        """Return the 16 bytes that travel: little-endian u32, u32, u64. Only the requester looks into them."""
        return _REQUEST_ID.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> RequestId:
        """Decode what `pack` made of it; any 16 bytes are an id."""
        return cls(*_REQUEST_ID.unpack(data))


_REQUEST_ID = struct.Struct("<IIQ")
