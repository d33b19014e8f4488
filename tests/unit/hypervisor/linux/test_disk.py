"""``/dev/vda``: bytes on blocks, the end of the device, read-only disks, errors, ioctls."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.linux.disk import DiskDevice
from iovirt_dist.hypervisor.linux.waits import DiskTransfer, Outcome
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Opcode, Status
from tests.unit.hypervisor.linux.program import Disk, Program

SECTOR = 512
O_RDONLY, O_WRONLY, O_RDWR = 0, 1, 2
O_DIRECT, O_DSYNC, O_PATH = 0o40000, 0o10000, 0o10000000


def with_disk(disk: Disk, flags: int = O_RDWR, abi: str = "linux_x86_64") -> tuple[Program, int]:
    """Return a program that has opened the disk."""
    program = Program(abi, disk=disk)
    return program, program.open_disk(flags)


@pytest.mark.parametrize(
    ("offset", "length", "asked"),
    [
        (0, SECTOR, (0, SECTOR)),
        (100, 10, (0, SECTOR)),
        (500, 20, (0, 2 * SECTOR)),
        (SECTOR, 3 * SECTOR, (SECTOR, 3 * SECTOR)),
        (64 * SECTOR - 5, 100, (63 * SECTOR, SECTOR)),
    ],
)
def test_read_asks_for_the_blocks_around_it(offset: int, length: int, asked: tuple[int, int]) -> None:
    """Bytes come as they are on the disk, in one request of whole blocks."""
    disk = Disk()
    program, fd = with_disk(disk)
    address = program.buffer(length)
    expected = bytes(disk.content[offset : offset + length])

    result = program.call("pread64", fd, address, length, offset)

    assert program.memory.read(address, result) == expected
    assert disk.asked == [(Opcode.READ, *asked)]


def test_read_moves_the_position() -> None:
    """The second read begins where the first one ended."""
    program, fd = with_disk(Disk())

    first, second = program.read(fd, 1000), program.read(fd, 100)

    assert first[-1] == 1
    assert second[:24] == b"\0\1" * 12
    assert second[24:] == b"\0\2" * 38


def test_read_at_the_end_gives_nothing() -> None:
    """End of file, without a request."""
    disk = Disk(2)
    program, fd = with_disk(disk)
    program.call("lseek", fd, 0, 2)

    assert program.read(fd, 10) == b""
    assert disk.asked == []


def test_read_of_most_bytes_unaligned_is_short() -> None:
    """A command moves 4 MiB at most, and the start of the first block is not wanted."""
    steps = DiskDevice("/dev/vda", 1, Disk(9000)).read(1, MAX_DATA_BYTES, 0)

    wait = next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send(Outcome(Status.OK, bytes(MAX_DATA_BYTES), 0))

    assert wait == DiskTransfer(Opcode.READ, 0, MAX_DATA_BYTES)
    assert len(end.value.value) == MAX_DATA_BYTES - 1


def test_write_of_whole_blocks_is_one_request() -> None:
    """Nothing is read first."""
    disk = Disk()
    program, fd = with_disk(disk)

    result = program.call("write", fd, b"w" * 4 * SECTOR, 4 * SECTOR)

    assert result == 4 * SECTOR
    assert disk.asked == [(Opcode.WRITE, 0, 4 * SECTOR)]
    assert disk.content[: 5 * SECTOR] == b"w" * 4 * SECTOR + b"\0\4" * 256


def test_write_across_blocks_changes_its_bytes_only() -> None:
    """Both edges are read, changed and written back; what lies between goes out as it is."""
    disk = Disk()
    program, fd = with_disk(disk)
    before = bytes(disk.content)

    result = program.call("pwrite64", fd, b"w" * 1500, 1500, 200)

    assert result == 1500
    assert disk.content == before[:200] + b"w" * 1500 + before[1700:]
    assert disk.asked == [
        (Opcode.READ, 0, SECTOR),
        (Opcode.WRITE, 0, SECTOR),
        (Opcode.WRITE, SECTOR, 2 * SECTOR),
        (Opcode.READ, 3 * SECTOR, SECTOR),
        (Opcode.WRITE, 3 * SECTOR, SECTOR),
    ]


def test_write_at_the_end_is_enospc() -> None:
    """A disk does not grow; what fits is written (Linux block/fops.c, blkdev_write_iter)."""
    program, fd = with_disk(Disk(2))

    fits = program.call("pwrite64", fd, b"x" * 20, 20, 2 * SECTOR - 8)
    does_not = program.call("pwrite64", fd, b"x" * 20, 20, 2 * SECTOR)

    assert (fits, does_not) == (8, -28)


def test_write_with_o_dsync_is_flushed() -> None:
    """The write returns when it is durable."""
    disk = Disk()
    program, fd = with_disk(disk, O_RDWR | O_DSYNC)

    program.call("write", fd, b"x" * SECTOR, SECTOR)

    assert disk.asked == [(Opcode.WRITE, 0, SECTOR), (Opcode.FLUSH, 0, 0)]


def test_direct_access_must_be_aligned() -> None:
    """With O_DIRECT nothing is cut and patched."""
    program, fd = with_disk(Disk(), O_RDWR | O_DIRECT)

    assert program.call("pread64", fd, program.buffer(100), 100, 0) == -22
    assert program.call("pwrite64", fd, b"x" * SECTOR, SECTOR, 1) == -22
    assert len(program.read(fd, SECTOR)) == SECTOR


def test_blocks_of_4096_bytes_are_respected() -> None:
    """No request is smaller than the disk's blocks."""
    disk = Disk(64, block_bytes=4096)
    program, fd = with_disk(disk)

    program.call("pwrite64", fd, b"x", 1, 5000)

    assert disk.asked == [(Opcode.READ, 4096, 4096), (Opcode.WRITE, 4096, 4096)]


def test_read_only_disk_cannot_be_opened_for_writing() -> None:
    """EACCES at open, as for a block device that is set read-only."""
    program = Program(disk=Disk(read_only=True))

    assert program.open_disk(O_RDWR) == -13
    assert program.open_disk(O_RDONLY) == 3


def test_access_mode_is_kept() -> None:
    """EBADF for a read of what was opened for writing, and the other way round."""
    program = Program(disk=Disk())
    reader, writer = program.open_disk(O_RDONLY), program.open_disk(O_WRONLY)

    assert program.call("read", writer, program.buffer(4), 4) == -9
    assert program.call("write", reader, b"abcd", 4) == -9


@pytest.mark.parametrize(
    ("status", "errno"), [(Status.MEDIUM_ERROR, 5), (Status.READ_ONLY, 30), (Status.OUT_OF_RANGE, 6)]
)
def test_failure_of_the_disk_is_an_error_of_the_call(status: Status, errno: int) -> None:
    """The position stays where it was."""
    disk = Disk()
    program, fd = with_disk(disk)
    disk.status = status

    assert program.call("read", fd, program.buffer(4), 4) == -errno
    assert program.call("lseek", fd, 0, 1) == 0


def test_fsync_waits_for_the_flush() -> None:
    """Durable means that the disk has said so."""
    disk = Disk()
    program, fd = with_disk(disk)

    program.begin("fsync", fd)
    before = len(program.replies)
    program.serve()

    assert (before, program.reply.result) == (1, 0)
    assert disk.asked == [(Opcode.FLUSH, 0, 0)]


def test_ioctls_tell_the_geometry() -> None:
    """Sizes in the widths that Linux has for each."""
    program, fd = with_disk(Disk(64, block_bytes=4096))
    requests = {0x1260: 8, 0x80081272: 8, 0x1268: 4, 0x127B: 4, 0x125E: 4, 0x80081270: 4}
    values = {}

    for request, size in requests.items():
        address = program.buffer(size)
        assert program.call("ioctl", fd, request, address) == 0
        values[request] = int.from_bytes(program.memory.read(address, size), "little")

    assert values == {0x1260: 64, 0x80081272: 64 * SECTOR, 0x1268: 4096, 0x127B: 4096, 0x125E: 0, 0x80081270: 4096}


def test_ioctl_blkgetsize64_on_i386_writes_eight_bytes() -> None:
    """The request's number says size_t, the value has 64 bits all the same."""
    program, fd = with_disk(Disk(), abi="linux_i386")
    address = program.buffer(12)

    program.call("ioctl", fd, 0x80041272, address)

    assert program.memory.read(address, 12) == (64 * SECTOR).to_bytes(8, "little") + b"\xee" * 4


def test_ioctl_that_disks_do_not_have_is_enotty() -> None:
    """HDIO_GETGEO and TCGETS."""
    program, fd = with_disk(Disk())

    assert program.call("ioctl", fd, 0x301, program.buffer(16)) == -25
    assert program.call("ioctl", fd, 0x5401, program.buffer(36)) == -25


def test_discard_is_checked_and_passed_on() -> None:
    """BLKDISCARD takes a range of whole blocks."""
    disk = Disk()
    program, fd = with_disk(disk)

    done = program.call("ioctl", fd, 0x1277, (1024).to_bytes(8, "little") + (512).to_bytes(8, "little"))
    crooked = program.call("ioctl", fd, 0x1277, (1000).to_bytes(8, "little") + (512).to_bytes(8, "little"))
    beyond = program.call("ioctl", fd, 0x1277, (63 * 512).to_bytes(8, "little") + (1024).to_bytes(8, "little"))

    assert (done, crooked, beyond) == (0, -22, -22)
    assert disk.asked == [(Opcode.DISCARD, 1024, 512)]


@pytest.mark.parametrize("read_only", [False, True])
def test_discard_needs_a_descriptor_for_writing(read_only: bool) -> None:
    """EBADF, before the range is looked at (Linux block/ioctl.c, blk_ioctl_discard)."""
    disk = Disk(read_only=read_only)
    program, fd = with_disk(disk, O_RDONLY)

    assert program.call("ioctl", fd, 0x1277, (1024).to_bytes(8, "little") + (512).to_bytes(8, "little")) == -9
    assert program.call("ioctl", fd, 0x1277, 0) == -9
    assert disk.asked == []


def test_descriptor_of_a_path_is_for_no_io() -> None:
    """O_PATH: EBADF for all that would reach the disk; the descriptor itself can be handled (open(2))."""
    disk = Disk()
    program, fd = with_disk(disk, O_PATH)
    calls: dict[str, tuple[int | bytes, ...]] = {
        "fsync": (),
        "syncfs": (),
        "lseek": (0, 0),
        "ioctl": (0x1277, (1024).to_bytes(8, "little") + (512).to_bytes(8, "little")),
        "read": (program.buffer(4), 4),
        "pwrite64": (b"abcd", 4, 0),
        "fcntl": (4, 0),
    }

    results = {name: program.call(name, fd, *arguments) for name, arguments in calls.items()}

    assert results == dict.fromkeys(calls, -9)
    assert program.call("fcntl", program.call("dup", fd), 3, 0) & O_PATH
    assert disk.asked == []


def test_blkflsbuf_flushes() -> None:
    """There is no cache here; the disk's is flushed."""
    disk = Disk()
    program, fd = with_disk(disk)

    assert program.call("ioctl", fd, 0x1261, 0) == 0
    assert disk.asked == [(Opcode.FLUSH, 0, 0)]
