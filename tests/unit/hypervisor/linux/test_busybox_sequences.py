"""What busybox-static of Debian 12 calls, as strace shows it, from its start to its end."""

from __future__ import annotations

import hashlib
import struct

import pytest

from iovirt_dist.wire.syscall_messages import Disposition
from tests.unit.hypervisor.linux.program import AT_FDCWD, BREAK_START, Disk, Program, Source

FILES = {"/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n"}
TIOCGWINSZ = 0x5413
O_LARGEFILE, O_DIRECTORY, O_CLOEXEC, O_TRUNC, O_CREAT = 0o100000, 0o200000, 0o2000000, 0o1000, 0o100


def start(program: Program) -> None:
    """The C library's beginning, on either x86."""
    program.call("brk", 0)
    assert program.call("brk", BREAK_START + 0xD40) == BREAK_START + 0xD40
    if program.abi.word_bytes == 8:
        assert program.call("arch_prctl", 0x1002, BREAK_START + 0x3C0) == 0
    else:
        assert program.call("set_thread_area", struct.pack("<4I", 0xFFFF_FFFF, BREAK_START, 0xFFFFF, 0x51)) == 0
    assert program.call("set_tid_address", BREAK_START + 0x690) > 0
    assert program.call("set_robust_list", BREAK_START + 0x6A0, 3 * program.abi.word_bytes) == 0
    assert program.call("rseq", BREAK_START + 0xCE0, 32, 0, 0x5305_3053) == -38
    limit = program.buffer(16)
    assert program.call("prlimit64", 0, 3, 0, limit) == 0
    assert program.call("readlink", "/proc/self/exe", program.buffer(4096), 4096) == len("/bin/busybox")
    assert program.call("getrandom", program.buffer(8), 8, 1) == 8
    assert program.call("brk", BREAK_START + 0x2_1D40) == BREAK_START + 0x2_1D40
    assert program.call("brk", BREAK_START + 0x2_2800) == BREAK_START + 0x2_2800
    assert program.call("mprotect", 0x40_0000, 28672, 1) == 0
    assert program.call("prctl", 16, program.buffer(16)) == 0
    assert program.call("getuid" if program.abi.word_bytes == 8 else "getuid32") == 0


def finish(program: Program, status: int = 0) -> None:
    """The end, with nothing that was not understood."""
    program.call("exit_group", status)
    assert program.reply.disposition is Disposition.EXIT
    assert program.interception.unknown == {}


def started(abi: str) -> Program:
    """Return a busybox that has started."""
    program = Program(abi, disk=Disk(300), files=FILES, source=Source())
    start(program)
    return program


x86 = pytest.mark.parametrize("abi", ["linux_x86_64", "linux_i386"])


@x86
def test_sha256sum_of_the_disk(abi: str) -> None:
    """Reads of 4 KiB to the end of the disk."""
    program = started(abi)
    fd = program.call("openat", AT_FDCWD, "/dev/vda", O_LARGEFILE, 0)
    address = program.buffer(4096)
    digest = hashlib.sha256()

    length = program.call("read", fd, address, 4096)
    while length:
        digest.update(program.memory.read(address, length))
        length = program.call("read", fd, address, 4096)

    assert program.disk is not None
    assert digest.digest() == hashlib.sha256(program.disk.content).digest()
    finish(program)


@x86
def test_cat_of_a_file_and_the_disk(abi: str) -> None:
    """Sendfile until it gives nothing."""
    program = started(abi)
    name = "sendfile64" if abi == "linux_i386" else "sendfile"
    sizes = []

    for path in ("/etc/passwd", "/dev/vda"):
        fd = program.call("openat", AT_FDCWD, path, O_LARGEFILE, 0)
        sizes += [program.call(name, 1, fd, 0, 16 << 20) for _ in range(2)]
        program.call("close", fd)

    assert sizes == [30, 0, 300 * 512, 0]
    assert program.screen.shown.startswith(b"root:x:0:0:root:/root:/bin/sh\r\n\0\0")
    finish(program)


@x86
def test_dd_from_the_disk_to_the_disk(abi: str) -> None:
    """Descriptors 0 and 1 are replaced; seek on both, in 64 bits."""
    program = started(abi)
    assert program.call("rt_sigaction", 10, bytes(32 if abi == "linux_x86_64" else 20), 0, 8) == 0
    for path, flags, target in (("/dev/vda", O_LARGEFILE, 0), ("/dev/vda", O_LARGEFILE | 1 | O_CREAT, 1)):
        fd = program.call("openat", AT_FDCWD, path, flags, 0o666)
        assert program.call("dup2", fd, target) == target
        assert program.call("close", fd) == 0
    assert program.disk is not None
    before = bytes(program.disk.content)

    if abi == "linux_i386":
        assert program.call("_llseek", 0, 0, 512 * 7, program.buffer(8), 1) == 0
        assert program.call("_llseek", 1, 0, 1000, program.buffer(8), 0) == 0
    else:
        assert program.call("lseek", 0, 512 * 7, 1) == 512 * 7
        assert program.call("lseek", 1, 1000, 0) == 1000
    address = program.buffer(2048)
    assert program.call("read", 0, address, 2048) == 2048
    assert program.call("write", 1, address, 2048) == 2048
    assert program.call("fsync", 1) == 0

    assert program.disk.content == before[:1000] + before[3584:5632] + before[3048:]
    finish(program)


@x86
def test_ls_of_a_directory(abi: str) -> None:
    """Window size, lstat of the argument, entries, lstat of each."""
    program = started(abi)
    i386 = abi == "linux_i386"
    status = program.buffer(144)

    assert program.call("ioctl", 0, TIOCGWINSZ, program.buffer(8)) == 0
    assert program.call("fstatat64" if i386 else "newfstatat", AT_FDCWD, "/etc", status, 0x100) == 0
    fd = program.call("openat", AT_FDCWD, "/etc", O_LARGEFILE | O_DIRECTORY | O_CLOEXEC | 0o4000, 0)
    assert program.call("fstat64" if i386 else "fstat", fd, status) == 0
    address = program.buffer(32768)
    length = program.call("getdents64", fd, address, 32768)
    names = []
    records = program.memory.read(address, length)
    while records:
        size = int.from_bytes(records[16:18], "little")
        names.append(records[19:size].split(b"\0")[0])
        records = records[size:]

    assert names == [b".", b"..", b"passwd"]
    assert program.call("getdents64", fd, address, 32768) == 0
    assert program.call("statx", AT_FDCWD, "/etc/passwd", 0x100, 0x7FF, program.buffer(256)) == 0
    finish(program)


@x86
def test_head_of_what_is_typed(abi: str) -> None:
    """A line at a time from the terminal, until there are enough."""
    program = started(abi)
    address = program.buffer(1024)
    program.begin("read", 0, address, 1024)

    program.type(b"one\n")

    assert program.memory.read(address, program.reply.result) == b"one\n"
    assert program.call("write", 1, b"one\n", 4) == 4
    assert program.screen.shown == b"one\r\none\r\n"
    finish(program)
