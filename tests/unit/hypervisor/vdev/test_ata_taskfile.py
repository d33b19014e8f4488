"""How the ATA registers name sectors: 28-bit, 48-bit and cylinder-head-sector addresses."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.ata_protocol import ABRT, BSY, ERR, IDNF
from tests.unit.hypervisor.vdev.ata_bench import (
    COMMAND,
    COUNT,
    DEVICE,
    ERROR,
    HIGH,
    LOW,
    MID,
    READY,
    SECTORS,
    STATUS_REGISTER,
    Bench,
)


@pytest.mark.parametrize(
    ("lba", "count", "legal"), [(SECTORS - 1, 1, True), (SECTORS - 1, 2, False), (SECTORS, 1, False), (1, 0, True)]
)
def test_ata_address_at_the_end_of_the_disk(lba: int, count: int, legal: bool) -> None:
    """A command that does not fit ends with IDNF and asks nothing of the backend."""
    bench = Bench()

    bench.command(0x20, lba=lba, count=count)

    assert len(bench.medium.requests) == legal
    assert bench.inp(ERROR) == (0 if legal else IDNF)
    assert bench.inp(STATUS_REGISTER) == (BSY if legal else READY | ERR)


def test_ata_chs_address_follows_the_translation() -> None:
    """Cylinder 2, head 3, sector 4 with 16 heads of 63."""
    bench = Bench()
    for register, value in ((COUNT, 1), (LOW, 4), (MID, 2), (HIGH, 0), (DEVICE, 0xA3), (COMMAND, 0x20)):
        bench.out(register, value)

    assert bench.medium.requests[0].offset == ((2 * 16 + 3) * 63 + 3) * 512


@pytest.mark.parametrize(("low", "mid", "device"), [(0, 0, 0xA0), (64, 0, 0xA0), (1, 20, 0xA0)])
def test_ata_chs_address_outside_the_translation_is_not_found(low: int, mid: int, device: int) -> None:
    """Sector 0, a sector beyond the track, a cylinder beyond the last."""
    bench = Bench()
    for register, value in ((COUNT, 1), (LOW, low), (MID, mid), (HIGH, 0), (DEVICE, device), (COMMAND, 0x20)):
        bench.out(register, value)

    assert bench.inp(ERROR) == IDNF


def test_ata_48_bit_registers_keep_both_bytes() -> None:
    """HOB shows the byte written before the last; any write to the command block ends it (6.2.2)."""
    bench = Bench()
    bench.out(LOW, 0x12)
    bench.out(LOW, 0x34)

    bench.control(0x80)
    before = bench.inp(LOW)
    bench.out(COUNT, 1)

    assert (before, bench.inp(LOW)) == (0x12, 0x34)


def test_ata_48_bit_address_reaches_beyond_28_bits() -> None:
    """U-Boot's LBA48 path: high bytes first."""
    bench = Bench(sectors=1 << 33)

    bench.command_ext(0x24, lba=0x1_2345_6789, count=1)

    assert bench.medium.requests[0].offset == 0x1_2345_6789 * 512


def test_ata_48_bit_command_without_lba_bit_aborts() -> None:
    """48-bit commands know no cylinders."""
    bench = Bench()
    bench.out(DEVICE, 0xA0)

    bench.out(COMMAND, 0x24)

    assert bench.inp(ERROR) == ABRT
