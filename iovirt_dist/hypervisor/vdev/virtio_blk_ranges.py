"""Segments of DISCARD and WRITE_ZEROES requests (VIRTIO 1.2, sections 5.2.6.1 and 5.2.6.2)."""

from __future__ import annotations

from iovirt_dist.hypervisor.vdev.virtio_blk_config import MAX_RANGES, MAX_ZEROES_SECTORS
from iovirt_dist.virtio.block import RANGE, RANGE_UNMAP, SECTOR_BYTES, BlockStatus
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode


def unpack_ranges(data: Buffer, end: int, *, zeroes: bool) -> tuple[BlockStatus, list[tuple[Opcode, int, int]]]:
    """Decode segments, all of them or none.

    A segment of WRITE_ZEROES that may be unmapped is discarded, as what is discarded reads as zeroes.

    Args:
        data: What follows the request's header.
        end: Size of the disk, bytes.
        zeroes: WRITE_ZEROES, else DISCARD.

    Returns:
        OK and the segments as (what to do, offset, bytes), without empty ones; UNSUPP if one has a flag that it may
        not have, IOERR if one is outside the disk or too long, or they are none, too many or no whole number.
    """
    if not data or len(data) % RANGE.size or len(data) > MAX_RANGES * RANGE.size:
        return BlockStatus.IOERR, []
    segments = list(RANGE.iter_unpack(data))
    if any(flags & ~(RANGE_UNMAP if zeroes else 0) for _, _, flags in segments):
        return BlockStatus.UNSUPP, []
    if any((sector + sectors) * SECTOR_BYTES > end for sector, sectors, _ in segments):
        return BlockStatus.IOERR, []
    if zeroes and any(sectors > MAX_ZEROES_SECTORS for _, sectors, _ in segments):
        return BlockStatus.IOERR, []
    return BlockStatus.OK, [
        (
            Opcode.WRITE_ZEROES if zeroes and not flags else Opcode.DISCARD,
            sector * SECTOR_BYTES,
            sectors * SECTOR_BYTES,
        )
        for sector, sectors, flags in segments
        if sectors
    ]
