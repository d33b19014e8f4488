"""IDENTIFY DEVICE against ATA/ATAPI-6 (T13 1410D), table 27."""

from __future__ import annotations

import struct

from iovirt_dist.hypervisor.vdev.ata_protocol import DRQ
from tests.unit.hypervisor.vdev.ata_bench import READY, SECTORS, STATUS_REGISTER, Bench


def test_ata_identify_tells_what_the_device_is() -> None:
    """Model, serial number, capacity for both address lengths, PIO only, and a checksum of zero."""
    bench = Bench()

    words = bench.identity()

    text = struct.pack(">256H", *words)
    assert text[54:94].rstrip() == b"IOVIRT DISK"
    assert text[20:40].rstrip() == b"OIV0001"
    assert words[60] | words[61] << 16 == SECTORS
    assert words[100] | words[101] << 16 | words[102] << 32 == SECTORS
    assert (words[1], words[3], words[6]) == (SECTORS // 1008, 16, 63)
    assert (words[49] & 0x0300, words[63], words[88]) == (0x0200, 0, 0)
    assert words[83] & 0x0400
    assert sum(struct.pack("<256H", *words)) & 0xFF == 0


def test_ata_identify_of_a_huge_disk_caps_the_short_capacity() -> None:
    """Beyond 28 bits words 60-61 saturate and words 100-103 tell the truth."""
    bench = Bench(sectors=1 << 30)

    words = bench.identity()

    assert words[60] | words[61] << 16 == (1 << 28) - 1
    assert words[100] | words[101] << 16 == 1 << 30
    assert words[1] == 16383


def test_ata_identify_is_one_block_with_one_interrupt() -> None:
    """PIO data-in: an interrupt when the block is ready, none after it (section 9.5)."""
    bench = Bench()
    bench.command(0xEC)

    ready = (bench.level, bench.inp(STATUS_REGISTER))
    bench.pull(512)

    assert ready == (True, READY | DRQ)
    assert bench.medium.edges == [True, False]
    assert bench.inp(STATUS_REGISTER) == READY


def test_ata_write_cache_setting_shows_in_the_identification() -> None:
    """Word 85 bit 5 follows SET FEATURES 02h and 82h."""
    bench = Bench()
    off = bench.identity()[85]

    bench.command(0xEF, features=0x02)

    assert (off & 0x20, bench.identity()[85] & 0x20) == (0, 0x20)
