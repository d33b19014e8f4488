"""What IDENTIFY DEVICE returns: 256 words after ATA/ATAPI-6 (T13 1410D), section 8.15, table 27."""

from __future__ import annotations

import struct
from typing import NamedTuple

SECTOR_BYTES = 512
LBA28_SECTORS = (1 << 28) - 1
"""Most sectors that words 60-61 may report (section 6.2)."""
MODEL = "IOVIRT DISK"
FIRMWARE = "1.0"
MAX_MULTIPLE = 128
"""Sectors per DRQ block of READ/WRITE MULTIPLE at most: 64 KiB, so that one `rep insw` moves one block."""

_MAX_CYLINDERS = 16383
_HEADS, _SECTORS_PER_TRACK = 16, 63
_WORDS = struct.Struct("<256H")


class Geometry(NamedTuple):
    """A cylinder-head-sector translation.

    Attributes:
        cylinders: 0..65535.
        heads: 1..16.
        sectors: Sectors per track, 1..255.
    """

    cylinders: int
    heads: int
    sectors: int

    @property
    def capacity(self) -> int:
        """Sectors that the translation reaches."""
        return self.cylinders * self.heads * self.sectors


def default_geometry(total_sectors: int) -> Geometry:
    """Return the power-on translation: 16 heads of 63 sectors, fewer for a disk smaller than such a cylinder."""
    if total_sectors >= _HEADS * _SECTORS_PER_TRACK:
        return translate(total_sectors, _HEADS, _SECTORS_PER_TRACK, _MAX_CYLINDERS)
    return translate(total_sectors, 1, max(1, min(total_sectors, _SECTORS_PER_TRACK)), _MAX_CYLINDERS)


def translate(total_sectors: int, heads: int, sectors: int, max_cylinders: int = 65535) -> Geometry:
    """Return the translation with these heads and sectors per track (INITIALIZE DEVICE PARAMETERS, section 6.2.1)."""
    return Geometry(min(total_sectors // (heads * sectors), max_cylinders), heads, sectors)


class DiskFacts(NamedTuple):
    """What the identification depends on.

    Attributes:
        total_sectors: Capacity in sectors of 512 bytes, up to 2**48 - 1.
        serial: Up to 20 ASCII characters; others are replaced.
        current: The translation in use now.
        multiple: Sectors per DRQ block as set by SET MULTIPLE MODE, 0 for none.
        write_cache: Whether SET FEATURES enabled the write cache.
    """

    total_sectors: int
    serial: str
    current: Geometry
    multiple: int
    write_cache: bool


def identify_data(facts: DiskFacts) -> bytes:
    """Return the 512 bytes of IDENTIFY DEVICE."""
    words = [0] * 256
    default = default_geometry(facts.total_sectors)
    words[0] = 0x0040  # ATA device, not removable
    words[1], words[3], words[6] = default
    words[2] = 0xC837  # needs no SET FEATURES to spin up
    words[10:20] = _text(facts.serial, 20)
    words[23:27] = _text(FIRMWARE, 8)
    words[27:47] = _text(MODEL, 40)
    words[47] = 0x8000 | MAX_MULTIPLE
    words[49] = 0x0A00  # IORDY and LBA supported, no DMA
    words[50] = 0x4000
    words[51] = 0x0200
    words[53] = 0x0003  # words 54-58 and 64-70 are valid, 88 is not
    words[54:57] = facts.current
    words[57:59] = _low_first(facts.current.capacity, 2)
    words[59] = 0x0100 | facts.multiple if facts.multiple else 0
    words[60:62] = _low_first(min(facts.total_sectors, LBA28_SECTORS), 2)
    words[64] = 0x0003  # PIO modes 3 and 4
    words[67] = words[68] = 120  # ns per PIO cycle
    words[80] = 0x0078  # ATA-3 to ATA/ATAPI-6
    words[82] = 0x4028  # NOP, write cache, power management
    words[83] = 0x7400  # FLUSH CACHE EXT, FLUSH CACHE, 48-bit addresses
    words[84] = 0x4000
    words[85] = 0x4028 if facts.write_cache else 0x4008
    words[86] = 0x3400
    words[87] = 0x4000
    words[93] = 0x400B  # device 0, passed diagnostics, number by jumper
    words[100:104] = _low_first(facts.total_sectors, 4)
    words[255] = 0x00A5
    words[255] |= _checksum(words) << 8
    return _WORDS.pack(*words)


def _text(text: str, length: int) -> list[int]:
    """Words of an ATA string: padded with spaces, first character in the high byte (clause 3)."""
    raw = text.encode("ascii", "replace")[:length].ljust(length)
    return [raw[at] << 8 | raw[at + 1] for at in range(0, length, 2)]


def _low_first(value: int, count: int) -> list[int]:
    """Words of a number, least significant first."""
    return [value >> 16 * index & 0xFFFF for index in range(count)]


def _checksum(words: list[int]) -> int:
    """Byte that makes the sum of all 512 bytes zero (word 255, bits 15:8)."""
    return -sum((word & 0xFF) + (word >> 8) for word in words) & 0xFF
