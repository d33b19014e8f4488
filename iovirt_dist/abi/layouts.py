"""Structures that Linux system calls read and write, as layouts of their bytes: one set per architecture.

A layout is declared as text, field by field: a name and a `struct` code, or a code alone for padding. All are
little-endian, and the padding that a C compiler would insert is written out.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Field: TypeAlias = int | bytes


class Layout:
    """The bytes of one structure.

    Args:
        text: Fields such as ``size:q``, padding such as ``:4x``, separated by blanks.

    Attributes:
        size: Bytes.
    """

    __slots__ = ("_names", "_struct", "size")

    def __init__(self, text: str) -> None:
        fields = [field.split(":") for field in text.split()]
        self._names = tuple(name for name, _ in fields if name)
        self._struct = struct.Struct("<" + "".join(code for _, code in fields))
        self.size = self._struct.size

    def pack(self, values: Mapping[str, Field]) -> bytes:
        """Return the structure's bytes.

        Args:
            values: By field name; what the layout does not have is left out, what is missing is 0.

        Raises:
            OverflowError: A value does not fit its field.
        """
        try:
            return self._struct.pack(*[values.get(name, 0) for name in self._names])
        except struct.error as error:
            raise OverflowError(str(error)) from None

    def unpack(self, data: bytes | bytearray | memoryview) -> dict[str, int]:
        """Return the fields of a structure of numbers; ``data`` holds exactly `size` bytes."""
        return dict(zip(self._names, self._struct.unpack(data), strict=True))


@dataclass(frozen=True, slots=True)
class Layouts:
    """The structures of one architecture (Linux: include/uapi/asm-generic, arch/*/include/uapi/asm).

    Attributes:
        word_bytes: Size of a pointer and of ``long``.
        hardware: ``machine`` of uname.
        stat: ``struct stat`` of stat, fstat, lstat, newfstatat.
        stat64: ``struct stat64`` of 32-bit architectures; elsewhere the same as `stat`.
        timespec: ``struct timespec`` with words.
        timeval: ``struct timeval``.
        rlimit: ``struct rlimit`` with words.
        sysinfo: ``struct sysinfo``.
        sigaction: The kernel's ``struct sigaction``.
        stack: ``stack_t``.
        arm_open_flags: The flags of open(2) are those of Arm, see `open_flags`.
    """

    word_bytes: int
    hardware: str
    stat: Layout
    stat64: Layout
    timespec: Layout
    timeval: Layout
    rlimit: Layout
    sysinfo: Layout
    sigaction: Layout
    stack: Layout
    arm_open_flags: bool = False

    def open_flags(self, flags: int) -> int:
        """Convert flags of open(2) between this architecture and the common numbers, either way.

        On Arm (arch/arm64/include/uapi/asm/fcntl.h) O_DIRECTORY and O_DIRECT have each other's number, and
        O_NOFOLLOW and O_LARGEFILE have.
        """
        if not self.arm_open_flags:
            return flags
        low, high = flags & 0o140000, flags & 0o600000
        return flags & ~0o740000 | low << 2 | high >> 2


TIMESPEC64 = Layout("seconds:q nanoseconds:q")
"""``struct __kernel_timespec``."""
RLIMIT64 = Layout("current:Q maximum:Q")
"""``struct rlimit64``."""
STATX = Layout(
    "mask:I blksize:I attributes:Q nlink:I uid:I gid:I mode:H :2x ino:Q size:Q blocks:Q attributes_mask:Q "
    "atime:q atime_ns:I :4x btime:q btime_ns:I :4x ctime:q ctime_ns:I :4x mtime:q mtime_ns:I :4x "
    "rdev_major:I rdev_minor:I dev_major:I dev_minor:I mnt_id:Q :104x"
)
"""``struct statx``, 256 bytes."""
TERMIOS = Layout("iflag:I oflag:I cflag:I lflag:I line:B characters:19s")
"""The kernel's ``struct termios`` (TCGETS), 36 bytes."""
WINDOW = Layout("rows:H columns:H :4x")
"""``struct winsize``."""
POLL = Layout("fd:i events:H revents:H")
"""``struct pollfd``."""
USER_DESCRIPTOR = Layout("entry:I base:I limit:I flags:I")
"""``struct user_desc`` of set_thread_area."""
DIRECTORY_ENTRY = Layout("ino:Q offset:q length:H type:B")
"""``struct linux_dirent64`` without its name."""
UTSNAME = Layout("system:65s node:65s release:65s version:65s hardware:65s domain:65s")
"""``struct new_utsname``."""
FD_SET = Layout(":128x")
"""``fd_set`` of a C library: 1024 bits."""

_TIMES = "atime:{0} atime_ns:{1} mtime:{0} mtime_ns:{1} ctime:{0} ctime_ns:{1}"

I386 = Layouts(
    word_bytes=4,
    hardware="i686",
    stat=Layout(
        "dev:I ino:I mode:H nlink:H uid:H gid:H rdev:I size:i blksize:I blocks:I " + _TIMES.format("I", "I") + " :8x"
    ),
    stat64=Layout(
        "dev:Q :4x ino_low:I mode:I nlink:I uid:I gid:I rdev:Q :4x size:q blksize:I blocks:Q "
        + _TIMES.format("I", "I")
        + " ino:Q"
    ),
    timespec=Layout("seconds:i nanoseconds:i"),
    timeval=Layout("seconds:i microseconds:i"),
    rlimit=Layout("current:I maximum:I"),
    sysinfo=Layout(
        "uptime:i load1:I load5:I load15:I total:I free:I shared:I buffers:I swap_total:I swap_free:I processes:H :2x "
        "high_total:I high_free:I unit:I :8x"
    ),
    sigaction=Layout("handler:I flags:I restorer:I mask:Q"),
    stack=Layout("base:I flags:i size:I"),
)
"""arch/x86/include/uapi/asm/stat.h and the compat structures: 64-bit members are aligned to four bytes."""

_STAT_X86_64 = Layout(
    "dev:Q ino:Q nlink:Q mode:I uid:I gid:I :4x rdev:Q size:q blksize:q blocks:q " + _TIMES.format("q", "Q") + " :24x"
)
_STAT_GENERIC = Layout(
    "dev:Q ino:Q mode:I nlink:I uid:I gid:I rdev:Q :8x size:q blksize:i :4x blocks:q "
    + _TIMES.format("q", "Q")
    + " :8x"
)
_SIGACTION_RESTORER = Layout("handler:Q flags:Q restorer:Q mask:Q")
_SIGACTION_PLAIN = Layout("handler:Q flags:Q mask:Q")


def _lp64(hardware: str, stat: Layout, sigaction: Layout, *, arm_open_flags: bool = False) -> Layouts:
    """Return the set of a 64-bit architecture."""
    return Layouts(
        word_bytes=8,
        hardware=hardware,
        stat=stat,
        stat64=stat,
        timespec=TIMESPEC64,
        timeval=Layout("seconds:q microseconds:q"),
        rlimit=RLIMIT64,
        sysinfo=Layout(
            "uptime:q load1:Q load5:Q load15:Q total:Q free:Q shared:Q buffers:Q swap_total:Q swap_free:Q "
            "processes:H :6x high_total:Q high_free:Q unit:I :4x"
        ),
        sigaction=sigaction,
        stack=Layout("base:Q flags:i :4x size:Q"),
        arm_open_flags=arm_open_flags,
    )


X86_64 = _lp64("x86_64", _STAT_X86_64, _SIGACTION_RESTORER)
AARCH64 = _lp64("aarch64", _STAT_GENERIC, _SIGACTION_RESTORER, arm_open_flags=True)
RISCV64 = _lp64("riscv64", _STAT_GENERIC, _SIGACTION_PLAIN)
