"""Requests of a virtio block device that are several commands of its backend."""

from __future__ import annotations

from dataclasses import dataclass, field

from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Opcode


@dataclass(slots=True)
class Job:
    """A request that is several backend requests.

    Attributes:
        left: Parts that are not complete.
        flush: Whether a FLUSH comes after them.
        status: The driver's status (`BlockStatus`) so far: the first failure stays.
        pieces: Data by part, for a read.
    """

    left: int
    flush: bool = False
    status: int = 0
    pieces: list[Buffer] = field(default_factory=list)


def spans(offset: int, length: int) -> list[tuple[int, int]]:
    """Divide a range into ranges that a command can move."""
    return [(at, min(MAX_DATA_BYTES, offset + length - at)) for at in range(offset, offset + length, MAX_DATA_BYTES)]


def cost(request: DiskRequest) -> int:
    """Bytes of data that a request keeps in memory while it is in flight."""
    return request.length if request.opcode is Opcode.READ or request.opcode is Opcode.WRITE else 0
