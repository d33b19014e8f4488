"""Formats of the block device (section 5.2)."""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

SECTOR_BYTES = 512
"""Unit of `sector` and `capacity`, whatever the device's block size is (section 5.2.5)."""
REQUEST = 0
"""Number of the request queue."""
HEADER = struct.Struct("<IIQ")
"""Start of each request (section 5.2.6): type u32, reserved u32, sector u64; device-readable."""
HEADER_BYTES = HEADER.size
STATUS_BYTES = 1
"""Last device-writable byte of each request: a `BlockStatus`."""
ID_BYTES = 20
"""What GET_ID returns: a name, padded with zeroes; not terminated if it has 20 characters."""
RANGE = struct.Struct("<QII")
"""A segment of DISCARD, WRITE_ZEROES or SECURE_ERASE: sector u64, number of sectors u32, flags u32 (bit 0: unmap)."""
RANGE_UNMAP = 1
"""Flag of a WRITE_ZEROES segment; for DISCARD and SECURE_ERASE all flags must be 0."""
_CONFIG = struct.Struct("<QIIHBBIBBHIBxHIIIIIB3xIII")
CONFIG_BYTES = _CONFIG.size
"""72: the layout without the fields for lifetime and zoned devices."""


class BlockFeature(enum.IntEnum):
    """Feature bits (section 5.2.3)."""

    SIZE_MAX = 1
    SEG_MAX = 2
    GEOMETRY = 4
    RO = 5
    BLK_SIZE = 6
    FLUSH = 9
    TOPOLOGY = 10
    CONFIG_WCE = 11
    MQ = 12
    DISCARD = 13
    WRITE_ZEROES = 14
    LIFETIME = 15
    SECURE_ERASE = 16
    ZONED = 17


class BlockRequest(enum.IntEnum):
    """Types of requests (section 5.2.6)."""

    IN = 0
    """Read."""
    OUT = 1
    """Write."""
    FLUSH = 4
    GET_ID = 8
    GET_LIFETIME = 10
    DISCARD = 11
    WRITE_ZEROES = 13
    SECURE_ERASE = 14


class BlockStatus(enum.IntEnum):
    """Outcome of a request (section 5.2.6)."""

    OK = 0
    IOERR = 1
    UNSUPP = 2


class BlockConfig(NamedTuple):
    """Configuration space (section 5.2.4); a field is valid if its feature was negotiated.

    Attributes:
        capacity: Size of the device in sectors of 512 bytes.
        size_max: SIZE_MAX: most bytes of one segment.
        seg_max: SEG_MAX: most segments of data in one request.
        cylinders: GEOMETRY, as are `heads` and `sectors`.
        heads: As `cylinders`.
        sectors: As `cylinders`.
        blk_size: BLK_SIZE: best unit of access, bytes.
        physical_block_exp: TOPOLOGY: logical blocks of a physical one, as a power of two.
        alignment_offset: TOPOLOGY: first aligned logical block.
        min_io_size: TOPOLOGY: suggested least access in blocks.
        opt_io_size: TOPOLOGY: suggested greatest access in blocks.
        writeback: CONFIG_WCE: 1 for a write-back cache; the one field that a driver writes.
        num_queues: MQ.
        max_discard_sectors: DISCARD: most sectors of one segment.
        max_discard_seg: DISCARD: most segments.
        discard_sector_alignment: DISCARD: in sectors.
        max_write_zeroes_sectors: WRITE_ZEROES: most sectors of one segment.
        max_write_zeroes_seg: WRITE_ZEROES: most segments.
        write_zeroes_may_unmap: WRITE_ZEROES: 1 if the unmap flag can deallocate.
        max_secure_erase_sectors: SECURE_ERASE.
        max_secure_erase_seg: SECURE_ERASE.
        secure_erase_sector_alignment: SECURE_ERASE.
    """

    capacity: int
    size_max: int = 0
    seg_max: int = 0
    cylinders: int = 0
    heads: int = 0
    sectors: int = 0
    blk_size: int = SECTOR_BYTES
    physical_block_exp: int = 0
    alignment_offset: int = 0
    min_io_size: int = 0
    opt_io_size: int = 0
    writeback: int = 0
    num_queues: int = 1
    max_discard_sectors: int = 0
    max_discard_seg: int = 0
    discard_sector_alignment: int = 0
    max_write_zeroes_sectors: int = 0
    max_write_zeroes_seg: int = 0
    write_zeroes_may_unmap: int = 0
    max_secure_erase_sectors: int = 0
    max_secure_erase_seg: int = 0
    secure_erase_sector_alignment: int = 0

    def pack(self) -> bytes:
        """Return the 72 bytes of configuration space.

        Raises:
            struct.error: A value does not fit its field.
        """
        return _CONFIG.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> BlockConfig:
        """Decode exactly `CONFIG_BYTES` bytes.

        Raises:
            struct.error: The length is another.
        """
        return cls(*_CONFIG.unpack(data))
