"""Calls that move data, and those on descriptors."""

from __future__ import annotations

import pytest

from tests.unit.hypervisor.linux.program import AT_FDCWD, BAD_ADDRESS, Disk, Program, Source

FILES = {"/etc/motd": b"hello, guest\n", "/data/zeroes": bytes(5000)}
O_CLOEXEC = 0o2000000


def opened(path: str, abi: str = "linux_x86_64") -> tuple[Program, int]:
    """Return a program that has opened a path for reading."""
    program = Program(abi, disk=Disk(), files=FILES, source=Source())
    return program, program.call("openat", AT_FDCWD, path, 0, 0)


def vector(program: Program, *lengths: int) -> bytes:
    """Return an array of ``struct iovec`` with fresh buffers."""
    word = program.abi.word_bytes
    return b"".join(part.to_bytes(word, "little") for length in lengths for part in (program.buffer(length), length))


def test_read_gives_a_file_piece_by_piece() -> None:
    """The end of the file is a read of nothing."""
    program, fd = opened("/etc/motd")

    assert [program.read(fd, 8) for _ in range(3)] == [b"hello, g", b"uest\n", b""]


def test_readv_fills_buffers_in_order() -> None:
    """One position, several buffers."""
    program, fd = opened("/etc/motd")
    vectors = vector(program, 5, 0, 100)
    first = int.from_bytes(vectors[:8], "little")
    last = int.from_bytes(vectors[32:40], "little")

    assert program.call("readv", fd, vectors, 3) == 13
    assert program.memory.read(first, 5) == b"hello"
    assert program.memory.read(last, 8) == b", guest\n"


def test_readv_of_too_many_buffers_is_einval() -> None:
    """IOV_MAX is 1024."""
    program, fd = opened("/etc/motd")

    assert program.call("readv", fd, program.buffer(16), 1025) == -22
    assert program.call("readv", fd, 0, 0) == 0


def test_writev_writes_buffers_in_order() -> None:
    """To the screen, with its newlines doubled."""
    program = Program()
    vectors = b"".join(
        word.to_bytes(8, "little") for text in (b"one ", b"two\n") for word in (program.memory.put(text), len(text))
    )

    assert program.call("writev", 1, vectors, 2) == 8
    assert program.screen.shown == b"one two\r\n"


@pytest.mark.parametrize(("abi", "offset"), [("linux_x86_64", (7,)), ("linux_i386", (7, 0)), ("linux_riscv64", (7,))])
def test_pread_leaves_the_position(abi: str, offset: tuple[int, ...]) -> None:
    """An offset in one register or in two."""
    program, fd = opened("/etc/motd", abi)
    address = program.buffer(5)

    assert program.call("pread64", fd, address, 5, *offset) == 5
    assert program.memory.read(address, 5) == b"guest"
    assert program.read(fd, 5) == b"hello"


def test_pread_of_negative_offset_is_einval() -> None:
    """As in pread(2)."""
    program, fd = opened("/etc/motd")

    assert program.call("pread64", fd, program.buffer(5), 5, -1) == -22


def test_pread_of_the_terminal_is_espipe() -> None:
    """There is no position in what is typed."""
    program = Program()

    assert program.call("pread64", 0, program.buffer(5), 5, 0) == -29
    assert program.call("lseek", 0, 0, 0) == -29


@pytest.mark.parametrize(
    ("offset", "whence", "result"),
    [(5, 0, 5), (-3, 2, 10), (4, 1, 4), (100, 0, 100), (-1, 0, -22), (-14, 2, -22), (0, 3, -22)],
)
def test_lseek_moves_the_position(offset: int, whence: int, result: int) -> None:
    """From the start, from here, from the end; never before the start."""
    program, fd = opened("/etc/motd")

    assert program.call("lseek", fd, offset, whence) == result


def test_lseek_behind_the_disk_is_einval() -> None:
    """A block device has nothing behind its end (Linux fs/read_write.c, fixed_size_llseek)."""
    program, fd = opened("/dev/vda")

    assert program.call("lseek", fd, 64 * 512, 0) == 64 * 512
    assert program.call("lseek", fd, 64 * 512 + 1, 0) == -22


def test_llseek_gives_64_bits_through_memory() -> None:
    """The result of the call is 0."""
    program, fd = opened("/etc/motd", "linux_i386")
    result = program.buffer(8)

    assert program.call("_llseek", fd, 1, 2, result, 0) == 0
    assert int.from_bytes(program.memory.read(result, 8), "little") == (1 << 32) + 2
    assert program.call("lseek", fd, 0, 1) == -75


def test_sendfile_copies_between_files() -> None:
    """What cat does: from the input's position, which moves."""
    program, fd = opened("/etc/motd")
    program.read(fd, 7)

    assert program.call("sendfile", 1, fd, 0, 1 << 24) == 6
    assert program.call("sendfile", 1, fd, 0, 1 << 24) == 0
    assert program.screen.shown == b"guest\r\n"


def test_sendfile_with_an_offset_moves_that_instead() -> None:
    """The file's own position stays."""
    program, fd = opened("/etc/motd")
    offset = program.memory.put((7).to_bytes(8, "little"))

    assert program.call("sendfile", 1, fd, offset, 3) == 3
    assert int.from_bytes(program.memory.read(offset, 8), "little") == 10
    assert program.read(fd, 5) == b"hello"


def test_sendfile_from_the_disk_waits_for_it() -> None:
    """Data of a device goes through the same way."""
    program, fd = opened("/dev/vda")
    null = program.call("openat", AT_FDCWD, "/dev/null", 1, 0)

    assert program.call("sendfile", null, fd, 0, 1 << 20) == 64 * 512


def test_sendfile_from_the_terminal_is_einval() -> None:
    """The input must have a position; cat then reads and writes."""
    program = Program()

    assert program.call("sendfile", 1, 0, 0, 100) == -22


def test_descriptor_that_is_not_open_is_ebadf() -> None:
    """Whatever the call."""
    program = Program()

    assert program.call("read", 9, BAD_ADDRESS, 1) == -9
    assert program.call("fstat", -1, BAD_ADDRESS) == -9
    assert program.call("ioctl", 9, 0x5401, BAD_ADDRESS) == -9


def test_dup_shares_the_position() -> None:
    """Two numbers for one open file; it stays open until both are closed."""
    program, fd = opened("/etc/motd")

    other = program.call("dup", fd)
    program.read(fd, 7)
    program.call("close", fd)

    assert other == fd + 1
    assert program.read(other, 10) == b"guest\n"


def test_dup2_replaces_what_was_there() -> None:
    """What a shell's redirection does."""
    program, fd = opened("/etc/motd")

    assert program.call("dup2", fd, 0) == 0
    assert program.read(0, 5) == b"hello"
    assert program.call("dup2", fd, fd) == fd
    assert program.call("dup2", fd, 100_000) == -9


def test_dup3_sets_close_on_exec() -> None:
    """Unlike dup2 it refuses the same number."""
    program, fd = opened("/etc/motd")

    assert program.call("dup3", fd, 10, O_CLOEXEC) == 10
    assert program.call("fcntl", 10, 1, 0) == 1
    assert program.call("dup3", fd, fd, 0) == -22
    assert program.call("dup3", fd, 11, 1) == -22


def test_descriptors_are_bounded() -> None:
    """EMFILE at RLIMIT_NOFILE."""
    program = Program(files=FILES)
    results = [program.call("dup", 0) for _ in range(254)]

    assert results[-2:] == [255, -24]


def test_fcntl_duplicates_from_a_number_on() -> None:
    """F_DUPFD, F_DUPFD_CLOEXEC, and the flags of both."""
    program, fd = opened("/etc/motd")

    assert program.call("fcntl", fd, 0, 20) == 20
    assert program.call("fcntl", fd, 1030, 20) == 21
    assert [program.call("fcntl", number, 1, 0) for number in (20, 21)] == [0, 1]
    assert program.call("fcntl", fd, 0, 1 << 30) == -22


def test_fcntl_changes_status_flags_that_can_be() -> None:
    """O_NONBLOCK yes, the access mode no; a dup sees the change."""
    program = Program()
    other = program.call("dup", 0)

    program.call("fcntl", 0, 4, 0o4001)

    assert program.call("fcntl", other, 3, 0) == 0o4002


def test_getdents64_lists_a_directory_once() -> None:
    """Records are padded to eight bytes, and the end is a call that gives nothing."""
    program, fd = opened("/etc")
    address = program.buffer(500)

    length = program.call("getdents64", fd, address, 500)
    records = program.memory.read(address, length)

    assert length == 24 + 24 + 24
    assert [records[at + 19 : at + 19 + 4].rstrip(b"\0") for at in (0, 24, 48)] == [b".", b"..", b"motd"]
    assert [records[at + 18] for at in (0, 24, 48)] == [4, 4, 8]
    assert program.call("getdents64", fd, address, 500) == 0


def test_getdents64_continues_where_the_buffer_ended() -> None:
    """A buffer too small for any entry is EINVAL; lseek to 0 begins anew."""
    program, fd = opened("/etc")
    address = program.buffer(60)

    assert [program.call("getdents64", fd, address, 50) for _ in range(3)] == [48, 24, 0]
    program.call("lseek", fd, 0, 0)
    assert program.call("getdents64", fd, address, 23) == -22


def test_getdents64_of_a_file_is_enotdir() -> None:
    """And read of a directory is EISDIR."""
    program, fd = opened("/etc/motd")
    directory = program.call("openat", AT_FDCWD, "/etc", 0, 0)

    assert program.call("getdents64", fd, program.buffer(100), 100) == -20
    assert program.call("read", directory, program.buffer(100), 100) == -21


def test_null_and_zero_do_what_they_are_known_for() -> None:
    """One takes everything and gives nothing, the other gives zeroes."""
    program, zero = opened("/dev/zero")
    null = program.call("openat", AT_FDCWD, "/dev/null", 2, 0)

    assert program.read(zero, 5) == bytes(5)
    assert program.read(null, 5) == b""
    assert program.call("write", null, b"abc", 3) == 3


def test_sync_flushes_the_disks_that_are_open() -> None:
    """Once each."""
    program, _ = opened("/dev/vda")
    assert program.disk is not None

    assert program.call("sync") == 0
    assert len(program.disk.asked) == 1


def test_fsync_of_the_terminal_is_einval() -> None:
    """As Linux says of what cannot be synchronised."""
    program = Program()

    assert program.call("fsync", 1) == -22


def test_ftruncate_is_einval() -> None:
    """Dd tries it on its output."""
    program, fd = opened("/dev/vda")

    assert program.call("ftruncate", fd, 0) == -22
