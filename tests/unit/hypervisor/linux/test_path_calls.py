"""Calls about paths, and the tree that they walk."""

from __future__ import annotations

import mmap
import struct

import pytest

from iovirt_dist.abi.layouts import STATX
from iovirt_dist.abi.registry import LAYOUTS
from tests.unit.hypervisor.linux.program import AT_FDCWD, BAD_ADDRESS, Disk, Program, Source

FILES = {"/etc/motd": b"hello, guest\n", "/data/deep/file": b"x" * 700, "/proc/version": b"Linux\n"}
O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_DIRECTORY, O_NOFOLLOW = 0, 1, 0o100, 0o200, 0o200000, 0o400000
AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW = 0x1000, 0x100


def program_of(abi: str = "linux_x86_64") -> Program:
    """Return a program with files, disk and randomness."""
    return Program(abi, disk=Disk(), files=FILES, source=Source())


def status_of(program: Program, path: str, flags: int = 0) -> dict[str, int]:
    """Return what newfstatat tells of a path."""
    layout = LAYOUTS["linux_x86_64"].stat
    address = program.buffer(layout.size)
    assert program.call("newfstatat", AT_FDCWD, path, address, flags) == 0
    return layout.unpack(program.memory.read(address, layout.size))


@pytest.mark.parametrize(
    ("path", "flags", "result"),
    [
        ("/etc/motd", O_RDONLY, 3),
        ("//etc/./../etc//motd", O_RDONLY, 3),
        ("etc/motd", O_RDONLY, 3),
        ("/../../etc/motd", O_RDONLY, 3),
        ("/etc/motd/", O_RDONLY, -20),
        ("/etc/motd/x", O_RDONLY, -20),
        ("/etc/none", O_RDONLY, -2),
        ("", O_RDONLY, -2),
        ("/etc/none", O_WRONLY | O_CREAT, -30),
        ("none", O_WRONLY | O_CREAT, -30),
        ("/none", O_WRONLY | O_CREAT, -30),
        ("/none/file", O_WRONLY | O_CREAT, -2),
        ("none//file", O_WRONLY | O_CREAT, -2),
        ("/etc/motd/x", O_WRONLY | O_CREAT, -20),
        ("", O_WRONLY | O_CREAT, -2),
        ("/etc/motd", O_WRONLY, -30),
        ("/etc/motd", O_CREAT | O_EXCL, -17),
        ("/etc", O_RDONLY | O_DIRECTORY, 3),
        ("/etc", O_WRONLY, -21),
        ("/etc/motd", O_DIRECTORY, -20),
        ("/proc/self/exe", O_RDONLY | O_NOFOLLOW, -40),
        ("/dev/stdin", O_RDONLY, 3),
        ("/dev/fd/1", O_RDONLY, 3),
        ("/proc/self/fd/9", O_RDONLY, -2),
        ("/proc/self/cwd/etc/motd", O_RDONLY, 3),
        ("/proc/version", O_RDONLY, 3),
        ("/dev/tty", 2, 3),
        ("/" + "x" * 256, O_RDONLY, -36),
        ("/" + "./" * 2100, O_RDONLY, -36),
    ],
)
def test_open_resolves_paths(path: str, flags: int, result: int) -> None:
    """As path_resolution(7) and open(2) say, in a tree that cannot be written."""
    program = program_of()

    assert program.call("openat", AT_FDCWD, path, flags, 0o644) == result


def test_open_relative_to_a_directory() -> None:
    """Openat with a descriptor; one that is no directory is ENOTDIR."""
    program = program_of()
    directory = program.call("openat", AT_FDCWD, "/data", O_DIRECTORY, 0)
    file = program.call("openat", directory, "deep/file", 0, 0)

    assert (directory, file) == (3, 4)
    assert program.call("openat", file, "x", 0, 0) == -20
    assert program.call("openat", 99, "x", 0, 0) == -9
    assert program.call("openat", 99, "/etc/motd", 0, 0) == 5


def test_open_flags_of_arm_have_other_numbers() -> None:
    """O_DIRECTORY of AArch64 is O_DIRECT elsewhere; F_GETFL gives back what was given, and O_LARGEFILE."""
    program = program_of("linux_aarch64")

    directory = program.call("openat", AT_FDCWD, "/etc", 0o40000, 0)

    assert program.call("openat", AT_FDCWD, "/etc/motd", 0o40000, 0) == -20
    assert program.call("fcntl", directory, 3, 0) == 0o440000


def test_open_of_bad_pointer_is_efault() -> None:
    """And of NULL."""
    program = program_of()

    assert program.call("openat", AT_FDCWD, BAD_ADDRESS, 0, 0) == -14
    assert program.call("openat", AT_FDCWD, 0, 0, 0) == -14


@pytest.mark.parametrize("path", ["/etc/motd", "/data/deep/file"])
def test_stat_tells_size_and_kind(path: str) -> None:
    """A regular file that everybody may read."""
    fields = status_of(program_of(), path)

    assert fields["mode"] == 0o100555
    assert fields["size"] == len(FILES[path])
    assert fields["blocks"] == -(-len(FILES[path]) // 512)


def test_stat_of_device_files() -> None:
    """Kind and numbers; a program finds the disk by them."""
    program = program_of()

    disk, console = status_of(program, "/dev/vda"), status_of(program, "/dev/console")

    assert (disk["mode"], disk["rdev"]) == (0o060660, 254 << 8)
    assert (console["mode"], console["rdev"]) == (0o020620, 5 << 8 | 1)


def test_stat_of_a_directory_counts_links() -> None:
    """Two, and one for each directory in it."""
    assert status_of(program_of(), "/data")["nlink"] == 3


def test_stat_follows_links_unless_told_not_to() -> None:
    """``/dev/stdin`` is the terminal; the link is a link."""
    program = program_of()

    assert status_of(program, "/dev/stdin")["mode"] == 0o020620
    assert status_of(program, "/dev/stdin", AT_SYMLINK_NOFOLLOW)["mode"] == 0o120777


def test_inodes_are_unique() -> None:
    """Programs compare them to see whether two files are one."""
    program = program_of()
    paths = ("/", "/etc", "/etc/motd", "/dev", "/dev/vda", "/dev/null", "/dev/zero", "/data", "/data/deep")

    assert len({status_of(program, path)["ino"] for path in paths}) == len(paths)


def test_fstatat_of_an_empty_path_is_the_descriptor() -> None:
    """What a C library makes of fstat."""
    program = program_of()
    fd = program.call("openat", AT_FDCWD, "/etc/motd", 0, 0)
    address = program.buffer(144)

    assert program.call("newfstatat", fd, "", address, AT_EMPTY_PATH) == 0
    assert LAYOUTS["linux_x86_64"].stat.unpack(program.memory.read(address, 144))["size"] == 13
    assert program.call("newfstatat", fd, "", address, 0) == -2


@pytest.mark.parametrize(("abi", "name"), [("linux_i386", "stat64"), ("linux_i386", "stat"), ("linux_x86_64", "stat")])
def test_stat_has_each_architectures_layout(abi: str, name: str) -> None:
    """The size lies where the layout says, and nothing is written behind it."""
    program = program_of(abi)
    layout = LAYOUTS[abi].stat64 if name == "stat64" else LAYOUTS[abi].stat
    address = program.buffer(layout.size + 8)

    assert program.call(name, "/data/deep/file", address) == 0
    assert layout.unpack(program.memory.read(address, layout.size))["size"] == 700
    assert program.memory.read(address + layout.size, 8) == b"\xee" * 8


def test_statx_tells_the_same() -> None:
    """With the basic mask."""
    program = program_of()
    address = program.buffer(256)

    assert program.call("statx", AT_FDCWD, "/dev/vda", 0, 0xFFF, address) == 0
    fields = STATX.unpack(program.memory.read(address, 256))
    assert (fields["mask"], fields["mode"], fields["rdev_major"]) == (0x7FF, 0o060660, 254)


def test_lstat64_does_not_follow() -> None:
    """On i386."""
    program = program_of("linux_i386")
    address = program.buffer(96)

    program.call("lstat64", "/dev/stdout", address)

    assert struct.unpack_from("<I", program.memory.read(address, 96), 16)[0] == 0o120777


@pytest.mark.parametrize(
    ("path", "mode", "result"),
    [
        ("/etc/motd", 0, 0),
        ("/etc/motd", 4, 0),
        ("/etc/motd", 2, -30),
        ("/dev/vda", 2, 0),
        ("/dev/vda", 1, -13),
        ("/etc/none", 0, -2),
        ("/etc/motd", 8, -22),
    ],
)
def test_access_of_root(path: str, mode: int, result: int) -> None:
    """Everything but writing where nothing can be written, and running what nobody may run."""
    program = program_of()

    assert program.call("access", path, mode) == result
    assert program.call("faccessat", AT_FDCWD, path, mode) == result


def test_readlink_of_self_exe_is_the_program() -> None:
    """Without a zero, and cut to the buffer."""
    program = program_of()
    address = program.buffer(20)

    assert program.call("readlink", "/proc/self/exe", address, 20) == 12
    assert program.memory.read(address, 13) == b"/bin/busybox\xee"
    assert program.call("readlink", "/proc/self/exe", address, 4) == 4
    assert program.call("readlink", "/etc/motd", address, 20) == -22
    assert program.call("readlink", "/proc/self/exe", address, 0) == -22
    assert program.call("readlinkat", AT_FDCWD, "/dev/stdin", address, 20) == 15


def test_link_to_itself_is_eloop() -> None:
    """A program may have any name, also that of the link to it."""
    program = program_of()
    program.start("/proc/self/exe")

    assert program.call("openat", AT_FDCWD, "/proc/self/exe", 0, 0) == -40


def test_stat_of_a_file_too_large_for_its_structure_is_eoverflow() -> None:
    """The old one of i386 has 32 bits; its memory is never touched."""
    content = memoryview(mmap.mmap(-1, 1 << 32))
    program = Program("linux_i386", files={"/large": content})
    address = program.buffer(96)

    assert program.call("stat", "/large", address) == -75
    assert program.call("stat64", "/large", address) == 0


def test_chdir_changes_where_relative_paths_begin() -> None:
    """And what getcwd tells."""
    program = program_of()
    address = program.buffer(20)

    assert program.call("chdir", "/data/deep") == 0
    assert program.call("openat", AT_FDCWD, "file", 0, 0) == 3
    assert program.call("openat", AT_FDCWD, "../../etc/motd", 0, 0) == 4
    assert program.call("getcwd", address, 20) == 11
    assert program.memory.read(address, 11) == b"/data/deep\0"
    assert program.call("getcwd", address, 10) == -34
    assert program.call("chdir", "/etc/motd") == -20


def test_fchdir_takes_a_directory() -> None:
    """Nothing else."""
    program = program_of()
    directory = program.call("openat", AT_FDCWD, "/etc", 0, 0)

    assert program.call("fchdir", directory) == 0
    assert program.call("fchdir", 0) == -20
    assert program.call("access", "motd", 0) == 0


def test_umask_returns_the_old_one() -> None:
    """022 at the start."""
    program = program_of()

    assert [program.call("umask", 0o77), program.call("umask", 0o1022)] == [0o22, 0o77]


def test_proc_self_fd_can_be_listed() -> None:
    """The descriptors of the process, that for the listing among them."""
    program = program_of()
    fd = program.call("openat", AT_FDCWD, "/proc/self/fd", O_DIRECTORY, 0)
    address = program.buffer(400)

    length = program.call("getdents64", fd, address, 400)

    assert [program.memory.read(address + at + 18, 2)[1:] for at in range(48, length, 24)] == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    "files",
    [
        {"relative": b""},
        {"/": b""},
        {"/a/../b": b""},
        {"/a//b": b""},
        {"/a": b"", "/a/b": b""},
        {"/a/b": b"", "/a": b""},
        {"/dev/null": b""},
    ],
)
def test_files_that_contradict_are_refused(files: dict[str, bytes]) -> None:
    """What the topology says must be a tree."""
    with pytest.raises(ValueError, match=r"path|file"):
        Program(files=files)
