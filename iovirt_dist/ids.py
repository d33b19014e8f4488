"""Names and numbers that travel end to end."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, NewType

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
        guest: Instance number that the hypervisor gave the guest, 0..2**32-1; new for every life of its machine.
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


MERGED: Final = 1 << 31
"""Bit of a request id's queue number: the command consists of several requests of that queue, and has an id that no
request has; its sequence is the first one's."""

_PARTS_SHIFT: Final = 16
_QUEUE_MASK: Final = (1 << _PARTS_SHIFT) - 1
_PARTS_MASK: Final = (1 << 15) - 1


def merged_queue(queue: int, parts: int) -> int:
    """The queue number in the id of a command that consists of so many requests of a queue.

    Args:
        queue: The queue's own number, 0..65535.
        parts: 1..32767.
    """
    return MERGED | parts << _PARTS_SHIFT | queue


def parts_of(queue: int) -> tuple[int, int]:
    """Split the queue number of any id: the queue's own number, and how many requests the command consists of."""
    return (queue & _QUEUE_MASK, queue >> _PARTS_SHIFT & _PARTS_MASK) if queue & MERGED else (queue, 1)


_REQUEST_ID = struct.Struct("<IIQ")
