"""An ATA channel against ATA/ATAPI-6, and against what U-Boot's ide driver does with it."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.hypervisor.vdev.ata import AtaChannel
from iovirt_dist.hypervisor.vdev.ata_protocol import ABRT, BSY, DF, DRDY, DRQ, ERR, IDNF, STATUS, TRANSITIONS, UNC
from iovirt_dist.hypervisor.vdev.device import Disk, DiskRequest, StringDevice
from iovirt_dist.wire.commands import Opcode, Status

DATA, ERROR, FEATURES, COUNT, LOW, MID, HIGH, DEVICE, STATUS_REGISTER, COMMAND = 0, 1, 1, 2, 3, 4, 5, 6, 7, 7
LBA = 0x40
READY = DRDY | 0x10
SECTORS = 20_000


class Medium:
    """A disk backend that keeps its requests until the test completes them."""

    block_bytes = 512
    serial = "OIV0001"

    def __init__(self, sectors: int = SECTORS, read_only: bool = False) -> None:
        self.size_bytes = sectors * 512
        self.read_only = read_only
        self.requests: list[DiskRequest] = []
        self.edges: list[bool] = []

    def submit(self, request: DiskRequest) -> None:
        """Take a request."""
        self.requests.append(request)

    def irq(self, level: bool) -> None:
        """Record INTRQ."""
        self.edges.append(level)


def pattern(first: int, count: int) -> bytes:
    """Sectors whose bytes tell their address."""
    return b"".join(struct.pack("<Q", sector) * 64 for sector in range(first, first + count))


class Bench:
    """A channel with a medium, and the accesses that a driver makes."""

    def __init__(self, sectors: int = SECTORS, read_only: bool = False) -> None:
        self.medium = Medium(sectors, read_only)
        self.channel = AtaChannel(self.medium.irq, self.medium)

    @property
    def level(self) -> bool:
        """INTRQ now."""
        return bool(self.medium.edges) and self.medium.edges[-1]

    def out(self, register: int, value: int) -> None:
        """OUT of a byte to the command block."""
        self.channel.write(register, 1, value, 0)

    def inp(self, register: int) -> int:
        """IN of a byte from the command block."""
        return self.channel.read(register, 1, 0)

    def control(self, value: int) -> None:
        """OUT to Device Control."""
        self.channel.control.write(0, 1, value, 0)

    def alternate(self) -> int:
        """IN from Alternate Status."""
        return self.channel.control.read(0, 1, 0)

    def command(self, code: int, lba: int = 0, count: int = 1, features: int = 0) -> None:
        """Issue a command with a 28-bit address."""
        self.out(FEATURES, features)
        self.out(COUNT, count & 0xFF)
        self.out(LOW, lba & 0xFF)
        self.out(MID, lba >> 8 & 0xFF)
        self.out(HIGH, lba >> 16 & 0xFF)
        self.out(DEVICE, 0xA0 | LBA | lba >> 24)
        self.out(COMMAND, code)

    def command_ext(self, code: int, lba: int, count: int) -> None:
        """Issue a command with a 48-bit address, high bytes first."""
        for shift in (1, 0):
            self.out(COUNT, count >> 8 * shift & 0xFF)
            self.out(LOW, lba >> 24 * shift & 0xFF)
            self.out(MID, lba >> 24 * shift + 8 & 0xFF)
            self.out(HIGH, lba >> 24 * shift + 16 & 0xFF)
        self.out(DEVICE, LBA)
        self.out(COMMAND, code)

    def finish(self, status: Status = Status.OK) -> DiskRequest:
        """Complete the last request, reads with their pattern."""
        request = self.medium.requests[-1]
        good_read = request.opcode is Opcode.READ and status is Status.OK
        data = pattern(request.offset // 512, request.length // 512) if good_read else b""
        self.channel.complete(request.tag, status, data, 0)
        return request

    def pull(self, length: int) -> bytes:
        """REP INSW."""
        return self.channel.read_string(DATA, 2, length // 2, 0)

    def push(self, data: bytes) -> None:
        """REP OUTSW."""
        self.channel.write_string(DATA, 2, data, 0)

    def identity(self) -> tuple[int, ...]:
        """Words of IDENTIFY DEVICE."""
        self.command(0xEC)
        return struct.unpack("<256H", self.pull(512))


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


def test_ata_write_cache_setting_shows_in_the_identification() -> None:
    """Word 85 bit 5 follows SET FEATURES 02h and 82h."""
    bench = Bench()
    off = bench.identity()[85]

    bench.command(0xEF, features=0x02)

    assert (off & 0x20, bench.identity()[85] & 0x20) == (0, 0x20)


def test_ata_diagnostic_signs_the_task_file_whichever_device_is_selected() -> None:
    """EXECUTE DEVICE DIAGNOSTIC: code 01h, signature, interrupt; device 0 is selected afterwards."""
    bench = Bench()
    bench.command(0x00, lba=0x123456)
    bench.out(DEVICE, 0x10)

    bench.out(COMMAND, 0x90)

    assert bench.level
    assert [bench.inp(register) for register in range(1, 8)] == [1, 1, 1, 0, 0, 0xA0, READY]


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


@pytest.mark.parametrize(("feature", "multiple"), [(0xCC, 0), (0x66, 0x0108)])
def test_ata_reset_reverts_settings_unless_told_to_keep_them(feature: int, multiple: int) -> None:
    """SET FEATURES 66h and CCh."""
    bench = Bench()
    bench.command(0xC6, count=8)
    bench.command(0xEF, features=feature)

    bench.control(0x04)
    bench.control(0x00)

    assert bench.identity()[59] == multiple


def test_ata_registers_and_commands_are_ignored_while_busy() -> None:
    """The command under way keeps its operands."""
    bench = Bench()
    bench.command(0x20, lba=9)

    bench.command(0x30, lba=5)
    bench.finish()

    assert bench.pull(512) == pattern(9, 1)
    assert bench.inp(LOW) == 9
    assert len(bench.medium.requests) == 1


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


def test_ata_restored_in_a_block_goes_on_reading() -> None:
    """Half a sector read before, half after."""
    bench, twin = Bench(), Bench()
    bench.command(0x20, lba=77)
    bench.finish()
    first = bench.pull(256)

    twin.channel.restore(bench.channel.state())

    assert twin.level
    assert first + twin.pull(256) == pattern(77, 1)


def test_ata_restored_with_a_request_in_flight_submits_it_again() -> None:
    """The twin asks its own backend, with the same tag, and finishes the command."""
    bench, twin = Bench(), Bench()
    bench.command(0x30, lba=3)
    bench.push(pattern(3, 1))

    twin.channel.restore(bench.channel.state())
    twin.finish()

    assert twin.medium.requests == bench.medium.requests
    assert twin.inp(STATUS_REGISTER) == READY


def test_ata_transition_table_names_a_status_for_every_phase() -> None:
    """No phase is without a Status value, and no move leads to an unknown one."""
    reached = {phase for phase, _ in TRANSITIONS.values()} | {phase for phase, _ in TRANSITIONS}

    assert reached == set(STATUS)
