"""What a virtio block device says of itself (VIRTIO 1.2, sections 5.2.3 and 5.2.4)."""

from __future__ import annotations

from iovirt_dist.drivers.backend import DiskBackend
from iovirt_dist.errors import ConfigError
from iovirt_dist.virtio.block import SECTOR_BYTES, BlockConfig, BlockFeature
from iovirt_dist.virtio.features import mask
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES

QUEUE_SIZE = 256
SEG_MAX = 126
"""Most segments of a request's data. A VMM may give its guest a shorter ring than ours (QEMU's has 128 entries), and we
are not told first; Linux makes chains of as many segments as we say, whether its ring takes them or not. A request has
two descriptors more, and no chain may be longer than the ring (section 2.7.5.3.1)."""
MAX_REQUEST_BYTES = MAX_PAYLOAD_BYTES
"""Most data of one request: it must fit one message. No feature tells a driver; larger ones end in IOERR."""
MAX_QUEUES = 8
"""Most request queues of a device."""
MAX_RANGES = 16
"""Most segments of a DISCARD or WRITE_ZEROES."""
MAX_ZEROES_SECTORS = (64 << 20) // SECTOR_BYTES
"""Most sectors of a segment of WRITE_ZEROES: where the medium has no better way they are written, and others wait."""
_MAX_DISCARD_SECTORS = 0xFFFF_FFFF // SECTOR_BYTES
"""Most sectors of a segment of DISCARD: its bytes are a 32-bit number."""


def offered_features(read_only: bool, queues: int = 1) -> int:
    """Features of the device class (section 5.2.3); MQ where there is more than one request queue."""
    features = mask(BlockFeature.SEG_MAX, BlockFeature.BLK_SIZE, BlockFeature.FLUSH, BlockFeature.TOPOLOGY)
    writing = mask(BlockFeature.DISCARD, BlockFeature.WRITE_ZEROES)
    features |= mask(BlockFeature.MQ) if queues > 1 else 0
    return features | (mask(BlockFeature.RO) if read_only else writing)


def configuration(disk: DiskBackend, queues: int = 1) -> bytes:
    """The configuration space (section 5.2.4).

    Raises:
        ConfigError: The disk's blocks do neither divide 512 bytes nor consist of as many.
    """
    block_bytes = max(disk.block_bytes, SECTOR_BYTES)
    if block_bytes % SECTOR_BYTES or SECTOR_BYTES % min(disk.block_bytes, SECTOR_BYTES):
        raise ConfigError(f"a virtio disk needs blocks that fit 512 bytes, not {disk.block_bytes}", disk.serial)
    config = BlockConfig(
        capacity=disk.size_bytes // SECTOR_BYTES,
        seg_max=SEG_MAX,
        blk_size=block_bytes,
        min_io_size=1,
        num_queues=queues,
        max_discard_sectors=0 if disk.read_only else _MAX_DISCARD_SECTORS,
        max_discard_seg=0 if disk.read_only else MAX_RANGES,
        discard_sector_alignment=block_bytes // SECTOR_BYTES,
        max_write_zeroes_sectors=0 if disk.read_only else MAX_ZEROES_SECTORS,
        max_write_zeroes_seg=0 if disk.read_only else MAX_RANGES,
        write_zeroes_may_unmap=0 if disk.read_only else 1,
    )
    return config.pack()
