"""Results of odd calls, as Linux 6.18 on x86-64 gives them: recorded by a program that made them there.

Open files: 3 a regular file, 4 ``/dev/null``, 5 ``/dev/zero``, 6 a directory.
"""

from __future__ import annotations

import struct

import pytest

from tests.unit.hypervisor.linux.program import AT_FDCWD, Program

FILE, NULL, ZERO, DIRECTORY = 3, 4, 5, 6
BAD = 0x10
BUFFER = 0x18_0000
"""In the program's memory, behind all that a test puts there."""
NANOSECOND = struct.pack("<qq", 0, 1)
SECOND_TOO_LONG = struct.pack("<qq", 0, 10**9)
Row = tuple[str, tuple[int | str | bytes, ...], int]

TRANSFERS: list[Row] = [
    ("read", (FILE, BAD, 4), -14),
    ("read", (FILE, BAD, 0), 0),
    ("read", (NULL, BAD, 4), 0),
    ("read", (DIRECTORY, BUFFER, 4), -21),
    ("read", (DIRECTORY, BAD, 4), -21),
    ("read", (99, BUFFER, 4), -9),
    ("write", (FILE, BUFFER, 4), -9),
    ("write", (NULL, BAD, 0), 0),
    ("write", (NULL, BAD, 4), 4),
    ("pread64", (FILE, BUFFER, 4, -1), -22),
    ("pread64", (NULL, BUFFER, 4, 0), 0),
    ("pread64", (ZERO, BUFFER, 4, 0), 4),
    ("preadv", (FILE, BUFFER, 0, 0, 0), 0),
    ("readv", (FILE, BUFFER, -1), -22),
    ("readv", (FILE, BUFFER, 1025), -22),
    ("readv", (FILE, BAD, 1), -14),
    ("readv", (FILE, BAD, 0), 0),
    ("lseek", (FILE, 2, 0), 2),
    ("lseek", (FILE, -5, 1), -22),
    ("lseek", (FILE, 0, 9), -22),
    ("lseek", (NULL, 100, 0), 0),
    ("lseek", (ZERO, 5, 2), 0),
    ("lseek", (NULL, 0, 9), -22),
    ("lseek", (DIRECTORY, 0, 0), 0),
    ("sendfile", (FILE, FILE, 0, 100), -9),
    ("sendfile", (NULL, FILE, BAD, 1), -14),
    ("sendfile", (99, 98, 0, 1), -9),
    ("fsync", (NULL,), -22),
    ("fsync", (FILE,), 0),
    ("fsync", (DIRECTORY,), 0),
    ("fsync", (99,), -9),
    ("ftruncate", (FILE, 0), -22),
    ("ftruncate", (NULL, -1), -22),
    ("fadvise64", (FILE, 0, 0, 0), 0),
    ("fadvise64", (FILE, 0, 0, 99), -22),
    ("getdents64", (FILE, BUFFER, 100), -20),
    ("getdents64", (DIRECTORY, BUFFER, 10), -22),
    ("getdents64", (DIRECTORY, BAD, 1000), -14),
    ("ioctl", (NULL, 0x5401, BUFFER), -25),
    ("ioctl", (FILE, 0x5401, BUFFER), -25),
    ("ioctl", (99, 0x5401, BUFFER), -9),
]
DESCRIPTORS: list[Row] = [
    ("dup2", (FILE, FILE), FILE),
    ("dup2", (FILE, -1), -9),
    ("dup2", (99, 7), -9),
    ("dup3", (FILE, FILE, 0), -22),
    ("dup3", (FILE, 20, 1), -22),
    ("dup3", (FILE, 20, 0o2000000), 20),
    ("close", (20,), -9),
    ("close", (-1,), -9),
    ("fcntl", (NULL, 3), 0o100002),
    ("fcntl", (FILE, 3), 0o100000),
    ("fcntl", (DIRECTORY, 3), 0o300000),
    ("fcntl", (NULL, 9999), -22),
    ("fcntl", (NULL, 0, 1 << 30), -22),
    ("fcntl", (NULL, 0, -1), -22),
    ("fcntl", (NULL, 0, 30), 30),
]
PATHS: list[Row] = [
    ("open", ("/etc/none", 0, 0), -2),
    ("open", ("/etc", 1, 0), -21),
    ("open", ("/etc/hostname/x", 0, 0), -20),
    ("open", ("/etc/hostname/", 0, 0), -20),
    ("open", ("", 0, 0), -2),
    ("open", (BAD, 0, 0), -14),
    ("open", (0, 0, 0), -14),
    ("open", ("/etc/hostname", 0o200000, 0), -20),
    ("open", ("/etc/hostname", 0o300, 0), -17),
    ("open", ("/etc", 0o100, 0), -21),
    ("open", ("/dev/null/", 0, 0), -20),
    ("open", ("/proc/self/exe", 0o400000, 0), -40),
    ("open", ("a" * 5000, 0, 0), -36),
    ("open", ("a" * 300, 0, 0), -36),
    ("openat", (99, "/dev/null", 0, 0), 7),
    ("openat", (99, "x", 0, 0), -9),
    ("openat", (FILE, "x", 0, 0), -20),
    ("openat", (DIRECTORY, "", 0, 0), -2),
    ("access", ("/etc/hostname", 0), 0),
    ("access", ("/etc/hostname", 8), -22),
    ("access", ("/none", 0), -2),
    ("access", ("/none", 8), -22),
    ("access", ("/dev/null", 1), -13),
    ("faccessat2", (AT_FDCWD, "/etc", 0, 0x8000), -22),
    ("faccessat2", (FILE, "", 0, 0x1000), 0),
    ("readlink", ("/etc/hostname", BUFFER, 100), -22),
    ("readlink", ("/proc/self/exe", BUFFER, 0), -22),
    ("readlink", ("/proc/self/exe", BUFFER, -1), -22),
    ("readlink", ("/proc/self/exe", BAD, 10), -14),
    ("readlinkat", (FILE, "", BUFFER, 10), -2),
    ("getcwd", (BUFFER, 1), -34),
    ("getcwd", (BUFFER, 0), -34),
    ("getcwd", (BAD, 100), -14),
    ("chdir", ("/etc/hostname",), -20),
    ("fchdir", (FILE,), -20),
    ("fchdir", (DIRECTORY,), 0),
    ("stat", ("/etc/hostname", BAD), -14),
    ("fstat", (99, BAD), -9),
    ("newfstatat", (AT_FDCWD, "/etc", BUFFER, 0x8000), -22),
    ("newfstatat", (FILE, "", BUFFER, 0x1000), 0),
    ("newfstatat", (FILE, "", BUFFER, 0), -2),
    ("newfstatat", (AT_FDCWD, "", BUFFER, 0x1000), 0),
    ("statx", (FILE, "", 0x8000, 0, BUFFER), -22),
    ("statx", (FILE, "", 0x1000, 0x8000_0000, BUFFER), -22),
]
MEMORY: list[Row] = [
    ("mmap", (0, 0, 3, 0x22, -1, 0), -22),
    ("mmap", (0, 4096, 3, 0x20, -1, 0), -22),
    ("mmap", (0, 4096, 3, 2, 99, 0), -9),
    ("mmap", (0x10001, 4096, 3, 0x32, -1, 0), -22),
    ("mmap", (0, 1 << 62, 3, 0x22, -1, 0), -12),
    ("mmap", (0, 4096, 3, 0x22, -1, 5), -22),
    ("munmap", (0x2000_0001, 4096), -22),
    ("munmap", (0x2000_0000, 0), -22),
    ("munmap", (0x2000_0000, 4096), 0),
    ("mprotect", (0x2000_0000, 4096, 1), -12),
    ("mprotect", (0x2000_0000, 4096, 0x100), -22),
    ("mprotect", (0x2000_0001, 4096, 1), -22),
    ("mprotect", (0x2000_0000, 0, 1), 0),
    ("mremap", (0x2000_0000, 4096, 8192, 0, 0), -14),
    ("mremap", (0x2000_0000, 4096, 0, 0, 0), -22),
    ("mremap", (0x2000_0000, 4096, 4096, 8, 0), -22),
    ("madvise", (0x2000_0000, 4096, 3), -12),
    ("madvise", (0x2000_0001, 4096, 3), -22),
    ("madvise", (0x2000_0000, 4096, 9999), -22),
    ("madvise", (0x2000_0000, 0, 3), 0),
]
PROCESS: list[Row] = [
    ("kill", (999_999, 0), -3),
    ("tgkill", (0, 2, 0), -22),
    ("tkill", (-1, 0), -22),
    ("rt_sigaction", (0, 0, 0, 8), -22),
    ("rt_sigaction", (65, 0, 0, 8), -22),
    ("rt_sigaction", (9, BUFFER, 0, 8), -22),
    ("rt_sigaction", (9, 0, BUFFER, 8), 0),
    ("rt_sigaction", (10, 0, BUFFER, 16), -22),
    ("rt_sigaction", (10, BAD, 0, 8), -14),
    ("rt_sigaction", (10, 0, BAD, 8), -14),
    ("rt_sigprocmask", (7, BUFFER, 0, 8), -22),
    ("rt_sigprocmask", (7, 0, 0, 8), 0),
    ("rt_sigprocmask", (0, BAD, 0, 8), -14),
    ("prlimit64", (0, 16, 0, BUFFER), -22),
    ("prlimit64", (-5, 1, 0, BUFFER), -3),
    ("prctl", (99_999, 0), -22),
    ("prctl", (16, BAD), -14),
    ("getrandom", (BUFFER, 10, 64), -22),
    ("getrandom", (BAD, 10, 0), -14),
    ("arch_prctl", (0x9999, 0), -22),
    ("getgroups", (-1, 0), -22),
    ("set_robust_list", (BUFFER, 5), -22),
    ("futex", (BUFFER, 0x80, 12345, 0, 0, 0), -11),
    ("futex", (BUFFER, 0x81, 1, 0, 0, 0), 0),
    ("uname", (BAD,), -14),
    ("getpgid", (999_999,), -3),
]
TIME: list[Row] = [
    ("nanosleep", (SECOND_TOO_LONG, 0), -22),
    ("nanosleep", (BAD, 0), -14),
    ("clock_nanosleep", (3, 0, NANOSECOND, 0), -95),
    ("clock_nanosleep", (99, 0, NANOSECOND, 0), -22),
    ("clock_nanosleep", (4, 0, NANOSECOND, 0), -95),
    ("clock_nanosleep", (5, 0, NANOSECOND, 0), -95),
    ("clock_gettime", (99, BUFFER), -22),
    ("clock_gettime", (0, BAD), -14),
    ("clock_getres", (0, 0), 0),
    ("time", (BAD,), -14),
    ("poll", (BAD, 1, 0), -14),
    ("select", (-1, 0, 0, 0, 0), -22),
]


def prepared() -> Program:
    """Return a program with the four files open."""
    program = Program(files={"/etc/hostname": b"name\n"})
    for path in ("/etc/hostname", "/dev/null", "/dev/zero", "/etc"):
        flags = 2 if path.startswith("/dev") else 0o200000 if path == "/etc" else 0
        program.call("open", path, flags, 0)
    return program


@pytest.mark.parametrize(("name", "arguments", "result"), TRANSFERS + DESCRIPTORS + PATHS + MEMORY + PROCESS + TIME)
def test_call_gives_what_linux_gives(name: str, arguments: tuple[int | str | bytes, ...], result: int) -> None:
    """Errors in the right order, and success where nobody looks."""
    assert prepared().call(name, *arguments) == result
