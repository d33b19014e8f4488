"""Packed entries of `Doorbell` and `Completions`, as `wire.commands` is for the controller protocol.

A request is a descriptor chain as its device sees it: so many readable bytes, then so many writable ones (VIRTIO 1.2,
section 2.6). Where they lie in guest memory stays with the guest's process.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from iovirt_dist.errors import DecodeError
from iovirt_dist.wire.codec import Buffer

REQUEST = struct.Struct("<HHII")
"""12 bytes: head u16, zero u16, readable u32, writable u32; `header_bytes` of header follow, zeroes where the request
has fewer. `readable` counts the header, too."""
COMPLETION = struct.Struct("<HBBI")
"""8 bytes: head u16, has a tail u8 (0 or 1), tail u8, length of data u32."""
MAX_REQUESTS = 1024


class QueueRequest(NamedTuple):
    """One request of a doorbell.

    Attributes:
        head: Its number in the ring: index of its first descriptor, or buffer id; comes back with the completion.
        readable: Bytes that the device may read, header included.
        writable: Bytes that the device may write.
        header: First readable bytes, exactly as many as the queue was armed with, padded with zeroes.
        data: The readable bytes behind them.
    """

    head: int
    readable: int
    writable: int
    header: bytes
    data: Buffer


def check_entries(data: bytes, entry_bytes: int) -> None:
    """Check that a field holds whole entries, and not too many.

    Raises:
        DecodeError: Reason ``batch-size``.
    """
    if len(data) % entry_bytes or len(data) > MAX_REQUESTS * entry_bytes:
        raise DecodeError("batch-size", f"{len(data)} bytes, entries of {entry_bytes}, at most {MAX_REQUESTS}")
