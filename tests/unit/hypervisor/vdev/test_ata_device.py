"""Commands, transfers and errors of an ATA disk against ATA/ATAPI-6 (T13 1410D), clauses 8 and 9."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.ata_protocol import ABRT, BSY, DF, DRQ, ERR, IDNF, UNC
from iovirt_dist.wire.commands import Opcode, Status
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
    pattern,
)


def test_ata_read_is_busy_until_the_backend_answers() -> None:
    """U-Boot's ide_read of one sector: BSY, then DRQ, then the words, then ready."""
    bench = Bench()

    bench.command(0x20, lba=0x1234)
    busy = bench.alternate()
    request = bench.finish()
    ready = bench.inp(STATUS_REGISTER)
    data = bench.pull(512)

    assert (busy, ready, bench.inp(STATUS_REGISTER)) == (BSY, READY | DRQ, READY)
    assert (request.opcode, request.offset, request.length) == (Opcode.READ, 0x1234 * 512, 512)
    assert data == pattern(0x1234, 1)


def test_ata_read_of_many_sectors_is_one_request_and_an_interrupt_per_block() -> None:
    """The backend is asked once; the host sees a DRQ block and an interrupt per sector."""
    bench = Bench()
    bench.command(0x20, lba=100, count=4)
    bench.finish()

    blocks = []
    for _ in range(4):
        assert bench.level
        assert bench.inp(STATUS_REGISTER) & DRQ
        blocks.append(bench.pull(512))

    assert b"".join(blocks) == pattern(100, 4)
    assert len(bench.medium.requests) == 1
    assert bench.medium.edges == [True, False] * 4


def test_ata_read_count_zero_means_256_sectors() -> None:
    """Sector Count 0 (clause 8, READ SECTOR(S))."""
    bench = Bench()

    bench.command(0x21, count=0)

    assert bench.medium.requests[0].length == 256 * 512


def test_ata_write_is_gathered_into_one_request_and_acknowledged_when_stable() -> None:
    """PIO data-out: no interrupt for the first block, one per later block, BSY until the backend has written."""
    bench = Bench()
    data = pattern(7, 3)
    bench.command(0x30, lba=7, count=3)

    first = (bench.level, bench.inp(STATUS_REGISTER))
    for at in range(0, 1536, 512):
        bench.push(data[at : at + 512])
    edges_before = list(bench.medium.edges)
    busy = bench.inp(STATUS_REGISTER)
    request = bench.finish()

    assert first == (False, READY | DRQ)
    assert edges_before == [True]
    assert busy == BSY
    assert (request.opcode, request.offset, bytes(request.data)) == (Opcode.WRITE, 7 * 512, data)
    assert len(bench.medium.requests) == 1
    assert (bench.level, bench.inp(STATUS_REGISTER)) == (True, READY)


@pytest.mark.parametrize(("code", "opcode"), [(0x29, Opcode.READ), (0x24, Opcode.READ), (0x34, Opcode.WRITE)])
def test_ata_long_command_goes_chunk_by_chunk(code: int, opcode: Opcode) -> None:
    """More than 4 MiB becomes several requests, each within what a controller takes."""
    bench = Bench()
    bench.command(0xC6, count=128)

    bench.command_ext(code, lba=1, count=10_000)
    for sectors in (8192, 10_000 - 8192):
        for _ in range(2):  # reads are completed before their data moves, writes after
            bench.push(bytes(sectors * 512))
            bench.channel.complete(bench.medium.requests[-1].tag, Status.OK, bytes(bench.medium.requests[-1].length), 0)
        bench.pull(sectors * 512)

    assert [(request.opcode, request.offset, request.length) for request in bench.medium.requests] == [
        (opcode, 512, 4 << 20),
        (opcode, 512 + (4 << 20), (10_000 - 8192) * 512),
    ]
    assert bench.inp(STATUS_REGISTER) == READY


def test_ata_read_multiple_moves_blocks_of_the_set_size() -> None:
    """After SET MULTIPLE MODE 4, six sectors are blocks of four and two: two interrupts."""
    bench = Bench()
    bench.command(0xC6, count=4)
    bench.inp(STATUS_REGISTER)
    bench.medium.edges.clear()

    bench.command(0xC4, lba=10, count=6)
    bench.finish()
    bench.inp(STATUS_REGISTER)
    first = bench.pull(2048)
    bench.inp(STATUS_REGISTER)
    second = bench.pull(1024)

    assert first + second == pattern(10, 6)
    assert bench.medium.edges == [True, False, True, False]
    assert bench.identity()[59] == 0x0104


def test_ata_write_multiple_moves_blocks_of_the_set_size() -> None:
    """One interrupt between two blocks and one at the end."""
    bench = Bench()
    bench.command(0xC6, count=2)
    bench.inp(STATUS_REGISTER)
    bench.medium.edges.clear()

    bench.command(0xC5, lba=10, count=4)
    bench.push(pattern(10, 2))
    bench.inp(STATUS_REGISTER)
    bench.push(pattern(12, 2))
    bench.finish()

    assert bytes(bench.medium.requests[0].data) == pattern(10, 4)
    assert bench.medium.edges == [True, False, True]


@pytest.mark.parametrize("code", [0x40, 0x41])
def test_ata_read_verify_reads_and_returns_no_data(code: int) -> None:
    """The medium is read; the host sees one interrupt and no DRQ."""
    bench = Bench()

    bench.command(code, lba=3, count=9)
    request = bench.finish()

    assert (request.opcode, request.length) == (Opcode.READ, 9 * 512)
    assert bench.medium.edges == [True]
    assert bench.inp(STATUS_REGISTER) == READY


@pytest.mark.parametrize("code", [0xE7, 0xEA])
def test_ata_flush_is_busy_until_the_backend_answers(code: int) -> None:
    """FLUSH CACHE and FLUSH CACHE EXT."""
    bench = Bench()

    bench.command(code)
    busy = bench.alternate()
    request = bench.finish()

    assert (busy, request.opcode) == (BSY, Opcode.FLUSH)
    assert (bench.level, bench.inp(STATUS_REGISTER)) == (True, READY)


@pytest.mark.parametrize("code", [0x00, 0x08, 0xA0, 0xA1, 0xB0, 0xC8, 0xCA, 0xF1, 0xFF])
def test_ata_command_that_is_not_supported_aborts(code: int) -> None:
    """NOP, DEVICE RESET, packet, SMART, DMA, security and unknown commands."""
    bench = Bench()

    bench.command(code)

    assert bench.level
    assert (bench.inp(STATUS_REGISTER), bench.inp(ERROR)) == (READY | ERR, ABRT)


@pytest.mark.parametrize("code", [0x10, 0x1F, 0x70, 0x95, 0xE1, 0xE3])
def test_ata_command_without_data_ends_at_once_with_an_interrupt(code: int) -> None:
    """RECALIBRATE, SEEK, IDLE."""
    bench = Bench()

    bench.command(code)

    assert bench.level
    assert bench.inp(STATUS_REGISTER) == READY


def test_ata_seek_beyond_the_disk_is_not_found() -> None:
    """SEEK checks its address."""
    bench = Bench()

    bench.command(0x70, lba=SECTORS)

    assert bench.inp(ERROR) == IDNF


@pytest.mark.parametrize(("code", "mode"), [(0xE0, 0x00), (0x96, 0x00), (0xE1, 0xFF), (0xE3, 0xFF)])
def test_ata_check_power_mode_tells_standby_from_active(code: int, mode: int) -> None:
    """U-Boot asks this before every ide_read."""
    bench = Bench()
    bench.command(code)

    bench.command(0xE5)

    assert (bench.inp(COUNT), bench.inp(STATUS_REGISTER)) == (mode, READY)


def test_ata_read_wakes_from_standby() -> None:
    """A media access makes the device active."""
    bench = Bench()
    bench.command(0xE0)
    bench.command(0x20)
    bench.finish()
    bench.pull(512)

    bench.command(0x98)

    assert bench.inp(COUNT) == 0xFF


def test_ata_sleep_ends_with_a_reset_only() -> None:
    """Commands are ignored until SRST."""
    bench = Bench()
    bench.command(0xE6)
    bench.inp(STATUS_REGISTER)

    bench.command(0xEC)
    asleep = bench.alternate()
    bench.control(0x04)
    bench.control(0x00)
    bench.command(0xEC)

    assert asleep == READY
    assert bench.alternate() == READY | DRQ


def test_ata_diagnostic_signs_the_task_file_whichever_device_is_selected() -> None:
    """EXECUTE DEVICE DIAGNOSTIC: code 01h, signature, interrupt; device 0 is selected afterwards."""
    bench = Bench()
    bench.command(0x00, lba=0x123456)
    bench.out(DEVICE, 0x10)

    bench.out(COMMAND, 0x90)

    assert bench.level
    assert [bench.inp(register) for register in range(1, 8)] == [1, 1, 1, 0, 0, 0xA0, READY]


def test_ata_reset_during_a_read_makes_its_completion_stale() -> None:
    """The late completion changes nothing, and the next command works."""
    bench = Bench()
    bench.command(0x20, lba=1)
    bench.control(0x04)
    bench.control(0x00)

    stale = bench.finish()
    after = bench.inp(STATUS_REGISTER)
    bench.command(0x20, lba=2)
    bench.channel.complete(stale.tag, Status.OK, pattern(1, 1), 0)
    busy = bench.alternate()
    bench.finish()

    assert (after, busy) == (READY, BSY)
    assert bench.pull(512) == pattern(2, 1)


@pytest.mark.parametrize(
    ("status", "error"),
    [(Status.OUT_OF_RANGE, IDNF), (Status.MEDIUM_ERROR, UNC), (Status.ABORTED, ABRT), (Status.QUEUE_FULL, ABRT)],
)
def test_ata_read_error_shows_in_the_registers(status: Status, error: int) -> None:
    """ERR, the Error register, an interrupt, no DRQ, and the address of the sector."""
    bench = Bench()
    bench.command(0x20, lba=0x0102)

    bench.finish(status)

    assert bench.level
    assert (bench.inp(STATUS_REGISTER), bench.inp(ERROR)) == (READY | ERR, error)
    assert [bench.inp(register) for register in (LOW, MID, HIGH)] == [2, 1, 0]


@pytest.mark.parametrize(
    ("status", "error", "flags"),
    [(Status.MEDIUM_ERROR, ABRT, DF), (Status.OUT_OF_RANGE, IDNF, 0), (Status.READ_ONLY, ABRT, 0)],
)
def test_ata_write_error_shows_in_the_registers(status: Status, error: int, flags: int) -> None:
    """A write that the medium refused is a device fault."""
    bench = Bench()
    bench.command(0x30)
    bench.push(bytes(512))

    bench.finish(status)

    assert (bench.inp(STATUS_REGISTER), bench.inp(ERROR)) == (READY | ERR | flags, error)


def test_ata_error_is_cleared_by_the_next_command() -> None:
    """ERR and the Error register belong to one command."""
    bench = Bench()
    bench.command(0xFF)

    bench.command(0xE5)

    assert (bench.inp(STATUS_REGISTER), bench.inp(ERROR)) == (READY, 0)


def test_ata_medium_error_in_a_long_read_is_narrowed_down() -> None:
    """The host gets the sectors before the bad one, then UNC with its address."""
    bench = Bench()
    bench.command(0x20, lba=50, count=8)

    bench.finish(Status.MEDIUM_ERROR)
    good = []
    for _ in range(2):
        bench.finish()
        good.append(bench.pull(512))
    bench.finish(Status.MEDIUM_ERROR)

    assert b"".join(good) == pattern(50, 2)
    assert (bench.inp(STATUS_REGISTER), bench.inp(ERROR), bench.inp(LOW)) == (READY | ERR, UNC, 52)
    assert [request.length for request in bench.medium.requests] == [8 * 512, 512, 512, 512]


def test_ata_read_completed_with_too_little_data_is_a_medium_error() -> None:
    """A backend that lies about success does not hang the guest."""
    bench = Bench()
    bench.command(0x20)

    bench.channel.complete(bench.medium.requests[0].tag, Status.OK, b"short", 0)

    assert (bench.inp(STATUS_REGISTER), bench.inp(ERROR)) == (READY | ERR, UNC)


def test_ata_write_to_a_read_only_disk_aborts_before_any_data() -> None:
    """No DRQ, no request."""
    bench = Bench(read_only=True)

    bench.command(0x30)

    assert (bench.inp(STATUS_REGISTER), bench.inp(ERROR)) == (READY | ERR, ABRT)
    assert bench.medium.requests == []


def test_ata_restored_with_a_request_in_flight_submits_it_again() -> None:
    """The twin asks its own backend, with the same tag, and finishes the command."""
    bench, twin = Bench(), Bench()
    bench.command(0x30, lba=3)
    bench.push(pattern(3, 1))

    twin.channel.restore(bench.channel.state())
    twin.finish()

    assert twin.medium.requests == bench.medium.requests
    assert twin.inp(STATUS_REGISTER) == READY


def test_ata_medium_error_in_a_read_multiple_is_narrowed_down_to_its_block() -> None:
    """DRQ blocks keep the size that the driver counts on; the first bad block ends the command."""
    bench = Bench()
    bench.command(0xC6, count=2)
    bench.command(0xC4, lba=50, count=6)

    bench.finish(Status.MEDIUM_ERROR)
    bench.finish()
    good = bench.pull(1024)
    bench.finish(Status.MEDIUM_ERROR)

    assert good == pattern(50, 2)
    assert (bench.inp(ERROR), bench.inp(LOW)) == (UNC, 52)
    assert [request.length for request in bench.medium.requests] == [6 * 512, 1024, 1024]
