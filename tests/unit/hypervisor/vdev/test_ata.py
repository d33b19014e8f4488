"""The registers, data port, reset and interrupt line of an ATA channel, against ATA/ATAPI-6 and U-Boot's driver."""

from __future__ import annotations

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.hypervisor.vdev.ata import AtaChannel
from iovirt_dist.hypervisor.vdev.ata_protocol import BSY
from iovirt_dist.hypervisor.vdev.device import Disk, StringDevice
from tests.unit.hypervisor.vdev.ata_bench import (
    COMMAND,
    COUNT,
    DATA,
    DEVICE,
    LBA,
    LOW,
    READY,
    STATUS_REGISTER,
    Bench,
    Medium,
    pattern,
)


def test_ata_channel_is_a_string_device_and_a_disk() -> None:
    """The seams that the address map and the core look for."""
    bench = Bench()

    disk: Disk = bench.channel

    assert isinstance(disk, StringDevice)
    assert bench.channel.control.state() == {}


def test_ata_backend_with_large_blocks_is_refused() -> None:
    """Sectors are 512 bytes; a backend of 4096-byte blocks cannot take single ones."""
    medium = Medium()
    medium.block_bytes = 4096

    with pytest.raises(ConfigError, match="512"):
        AtaChannel(medium.irq, medium)


def test_ata_channel_without_disk_reads_zero_everywhere() -> None:
    """A poller sees nothing there instead of a busy device, and commands do nothing."""
    edges: list[bool] = []
    channel = AtaChannel(edges.append, None)

    channel.write(COMMAND, 1, 0xEC, 0)
    channel.control.write(0, 1, 0x04, 0)
    values = [channel.read(register, 1, 0) for register in range(8)] + [channel.control.read(0, 1, 0)]

    assert values == [0] * 9
    assert channel.read_string(DATA, 2, 4, 0) == bytes(8)
    assert edges == []


def test_ata_device_at_power_on_is_ready_and_signed() -> None:
    """Signature of a disk, diagnostic code 01h, Status 50h (section 9.12)."""
    bench = Bench()

    assert [bench.inp(register) for register in range(1, 8)] == [1, 1, 1, 0, 0, 0xA0, READY]
    assert bench.alternate() == READY


def test_ata_device_one_is_absent_at_once() -> None:
    """U-Boot's probe of device 1: Status 0 without waiting, IDENTIFY ignored, device 0 back afterwards (9.16.1)."""
    bench = Bench()
    bench.out(DEVICE, 0xA0 | LBA | 0x10)

    bench.out(COMMAND, 0xEC)
    statuses = (bench.inp(STATUS_REGISTER), bench.alternate())
    bench.out(DEVICE, 0xA0 | LBA)

    assert statuses == (0, 0)
    assert bench.inp(STATUS_REGISTER) == READY
    assert bench.medium.edges == []


def test_ata_selecting_device_one_releases_the_interrupt_and_keeps_it_pending() -> None:
    """INTRQ is driven by the selected device; reading the absent one's Status clears nothing (5.2.9)."""
    bench = Bench()
    bench.command(0xE7)
    bench.finish()

    bench.out(DEVICE, 0x10)
    bench.inp(STATUS_REGISTER)
    released = bench.level
    bench.out(DEVICE, 0x00)

    assert (released, bench.level) == (False, True)


def test_ata_string_read_beyond_the_command_reads_ones() -> None:
    """The words after the last block are what single reads without DRQ give."""
    bench = Bench()
    bench.command(0x20, lba=5, count=2)
    bench.finish()

    data = bench.pull(1028)

    assert data == pattern(5, 2) + b"\xff" * 4


def test_ata_data_port_takes_bytes_words_and_doublewords() -> None:
    """A doubleword is two words; a byte access moves a word and carries its low byte."""
    bench = Bench()
    bench.command(0x20, lba=0x0302)
    bench.finish()

    values = [bench.channel.read(DATA, width, 0) for width in (2, 1, 4)]
    rest = bench.channel.read_string(DATA, 4, 126, 0)

    assert values == [0x0302, 0x00, 0x0000_0000]
    assert rest == pattern(0x0302, 1)[8:]
    assert bench.inp(STATUS_REGISTER) == READY


def test_ata_wide_access_to_byte_registers_reads_them_in_turn() -> None:
    """The ISA bus splits what an 8-bit register cannot take; beyond the block the bus floats."""
    bench = Bench()

    bench.channel.write(COUNT, 2, 0x2211, 0)

    assert bench.channel.read(COUNT, 2, 0) == 0x2211
    assert bench.channel.read(STATUS_REGISTER, 2, 0) == 0xFF00 | READY


def test_ata_string_write_beyond_the_command_is_dropped() -> None:
    """What no block takes goes nowhere."""
    bench = Bench()
    bench.command(0x31, lba=7)

    bench.push(pattern(7, 2))

    assert [request.length for request in bench.medium.requests] == [512]


def test_ata_write_by_single_accesses_equals_a_string_write() -> None:
    """OUTW, OUTL and byte accesses assemble the same sector."""
    bench = Bench()
    bench.command(0x30)

    bench.channel.write(DATA, 2, 0x0201, 0)
    bench.channel.write(DATA, 4, 0x06050403, 0)
    bench.channel.write(DATA, 1, 0x07, 0)
    bench.push(bytes(504))

    assert bytes(bench.medium.requests[0].data)[:8] == bytes((1, 2, 3, 4, 5, 6, 7, 0))


def test_ata_status_read_clears_the_interrupt_and_alternate_status_does_not() -> None:
    """The difference between the two registers."""
    bench = Bench()
    bench.command(0xE7)
    bench.finish()

    bench.alternate()
    after_alternate = bench.level
    bench.inp(STATUS_REGISTER)

    assert (after_alternate, bench.level) == (True, False)


def test_ata_nien_holds_the_interrupt_back_and_releases_it_later() -> None:
    """Setting nIEN releases INTRQ without forgetting that it is pending."""
    bench = Bench()
    bench.control(0x02)
    bench.command(0xE7)
    bench.finish()

    held = bench.level
    bench.control(0x00)

    assert (held, bench.level) == (False, True)


def test_ata_new_command_clears_the_interrupt() -> None:
    """Writing Command clears a pending interrupt, so that the next one is an edge."""
    bench = Bench()
    bench.command(0xE7)
    bench.finish()

    bench.command(0x20)

    assert bench.medium.edges == [True, False]


def test_ata_software_reset_is_busy_while_held_and_signs_afterwards() -> None:
    """SRST: BSY, no interrupt, then signature and diagnostic code."""
    bench = Bench()
    bench.command(0xE7)
    bench.finish()

    bench.control(0x04)
    held = (bench.alternate(), bench.level)
    bench.out(COMMAND, 0xEC)
    bench.control(0x00)

    assert held == (BSY, False)
    assert [bench.inp(register) for register in range(1, 8)] == [1, 1, 1, 0, 0, 0xA0, READY]
    assert bench.medium.edges == [True, False]


def test_ata_registers_and_commands_are_ignored_while_busy() -> None:
    """The command under way keeps its operands."""
    bench = Bench()
    bench.command(0x20, lba=9)

    bench.command(0x30, lba=5)
    bench.finish()

    assert bench.pull(512) == pattern(9, 1)
    assert bench.inp(LOW) == 9
    assert len(bench.medium.requests) == 1


def test_ata_restored_in_a_block_goes_on_reading() -> None:
    """Half a sector read before, half after."""
    bench, twin = Bench(), Bench()
    bench.command(0x20, lba=77)
    bench.finish()
    first = bench.pull(256)

    twin.channel.restore(bench.channel.state())

    assert twin.level
    assert first + twin.pull(256) == pattern(77, 1)
