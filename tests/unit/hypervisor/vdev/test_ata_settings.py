"""What commands set in an ATA device."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.ata_protocol import ABRT, ERR
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


@pytest.mark.parametrize("count", [3, 255])
def test_ata_set_multiple_mode_of_an_odd_size_aborts_and_switches_off(count: int) -> None:
    """Only powers of two up to 128; afterwards READ MULTIPLE aborts."""
    bench = Bench()
    bench.command(0xC6, count=8)

    bench.command(0xC6, count=count)
    refused = (bench.inp(STATUS_REGISTER), bench.inp(ERROR))
    bench.command(0xC4)

    assert refused == (READY | ERR, ABRT)
    assert (bench.inp(STATUS_REGISTER), bench.inp(ERROR)) == (READY | ERR, ABRT)


def test_ata_initialize_device_parameters_changes_the_translation() -> None:
    """8 heads of 32 sectors: IDENTIFY shows it and addresses follow it."""
    bench = Bench()
    bench.out(COUNT, 32)
    bench.out(DEVICE, 0xA7)
    bench.out(COMMAND, 0x91)

    words = bench.identity()
    for register, value in ((COUNT, 1), (LOW, 1), (MID, 1), (HIGH, 0), (DEVICE, 0xA0), (COMMAND, 0x20)):
        bench.out(register, value)

    assert words[54:57] == (SECTORS // 256, 8, 32)
    assert words[57] | words[58] << 16 == SECTORS // 256 * 256
    assert bench.medium.requests[0].offset == 256 * 512


@pytest.mark.parametrize(
    ("feature", "mode", "accepted"),
    [
        (0x03, 0x00, True),
        (0x03, 0x0C, True),
        (0x03, 0x22, False),
        (0x03, 0x45, False),
        (0x82, 0, True),
        (0x55, 0, False),
    ],
)
def test_ata_set_features_accepts_what_the_device_has(feature: int, mode: int, accepted: bool) -> None:
    """PIO modes and the write cache; DMA modes abort."""
    bench = Bench()

    bench.command(0xEF, count=mode, features=feature)

    assert bench.inp(ERROR) == (0 if accepted else ABRT)


@pytest.mark.parametrize(("feature", "multiple"), [(0xCC, 0), (0x66, 0x0108)])
def test_ata_reset_reverts_settings_unless_told_to_keep_them(feature: int, multiple: int) -> None:
    """SET FEATURES 66h and CCh."""
    bench = Bench()
    bench.command(0xC6, count=8)
    bench.command(0xEF, features=feature)

    bench.control(0x04)
    bench.control(0x00)

    assert bench.identity()[59] == multiple
