"""Segments of DISCARD and WRITE_ZEROES requests (VIRTIO 1.2, sections 5.2.6.1 and 5.2.6.2)."""

from __future__ import annotations

from iovirt_dist.hypervisor.vdev.virtio_blk_config import MAX_RANGES
from iovirt_dist.virtio.block import RANGE, SECTOR_BYTES, BlockStatus
from iovirt_dist.wire.codec import Buffer


def unpack_ranges(data: Buffer, end: int, flags_allowed: int) -> tuple[BlockStatus, list[tuple[int, int]]]:
    """Decode segments, all of them or none.

    Args:
        data: What follows the request's header.
        end: Size of the disk, bytes.
        flags_allowed: Flags that a segment may have.

    Returns:
        OK and the segments as (offset, bytes), without empty ones; UNSUPP if one has another flag, IOERR if one is
        outside the disk or they are none, too many or no whole number.
    """
    if not data or len(data) % RANGE.size or len(data) > MAX_RANGES * RANGE.size:
        return BlockStatus.IOERR, []
    segments = list(RANGE.iter_unpack(data))
    if any(flags & ~flags_allowed for _, _, flags in segments):
        return BlockStatus.UNSUPP, []
    if any((sector + sectors) * SECTOR_BYTES > end for sector, sectors, _ in segments):
        return BlockStatus.IOERR, []
    return BlockStatus.OK, [
        (sector * SECTOR_BYTES, sectors * SECTOR_BYTES) for sector, sectors, _ in segments if sectors
    ]
