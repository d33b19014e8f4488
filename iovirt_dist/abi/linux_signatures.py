"""What each Linux system call's arguments are, by the call's name.

The calls of all architectures are the same but for the structures' layouts, and for arguments of 64 bits, which take
two registers on a 32-bit architecture (``offset_low`` and ``offset_high``). Names are those of the manual pages.
A pointer that the call may store for later, or that nothing here accesses, is a plain value.
"""

from __future__ import annotations

from typing import NamedTuple

from iovirt_dist.abi import layouts as structures
from iovirt_dist.abi import linux_codes as codes
from iovirt_dist.abi.layouts import Layouts
from iovirt_dist.abi.table import (
    Argument,
    Call,
    buffer_in,
    buffer_in_out,
    buffer_out,
    fd,
    string,
    value,
    vector_in,
    vector_out,
)


class Signature(NamedTuple):
    """What a call takes; see `abi.table.Call`."""

    arguments: tuple[Argument, ...] = ()
    selector: int = -1
    variants: dict[int, tuple[Argument, ...]] = {}  # noqa: RUF012 - a default that nothing changes


def parse_names(text: str) -> dict[int, str]:
    """Read a table of call names: each line a number, a colon, and the names from that number on."""
    names: dict[int, str] = {}
    for line in text.split("\n"):
        first, _, row = line.partition(":")
        names.update(enumerate(row.split(), int(first or 0)))
    return names


def build_calls(names: dict[int, str], signatures: dict[str, Signature]) -> tuple[dict[int, Call], dict[int, str]]:
    """Return an ABI's declared calls, and the names of all others."""
    calls = {
        number: Call(number, name, *signatures[name]) for number, name in sorted(names.items()) if name in signatures
    }
    return calls, {number: name for number, name in names.items() if number not in calls}


def signatures(layouts: Layouts) -> dict[str, Signature]:
    """Return the calls with the structures of an architecture."""
    declared = _transfers() | _positions(layouts) | _waits() | _files(layouts) | _memory() | _process(layouts)
    declared |= _time(layouts) | dict.fromkeys(_WITHOUT_ARGUMENTS, ())
    return {name: entry if isinstance(entry, Signature) else Signature(entry) for name, entry in declared.items()}


_Group = dict[str, tuple[Argument, ...] | Signature]

_WITHOUT_ARGUMENTS = (
    *("getpid", "gettid", "getppid", "getpgrp", "sched_yield", "sync"),
    *("getuid", "geteuid", "getgid", "getegid", "getuid32", "geteuid32", "getgid32", "getegid32"),
)


def _wide(name: str, layouts: Layouts) -> tuple[Argument, ...]:
    """An argument of 64 bits."""
    return (value(name),) if layouts.word_bytes == 8 else (value(f"{name}_low"), value(f"{name}_high"))


def _transfers() -> _Group:
    """Calls that move data at a file's position."""
    return {
        "read": (fd(), buffer_out("buffer", length=2), value("count")),
        "write": (fd(), buffer_in("buffer", length=2), value("count")),
        "readv": (fd(), vector_out("buffer", length=2), value("vectors")),
        "writev": (fd(), vector_in("buffer", length=2), value("vectors")),
        "fsync": (fd(),),
        "fdatasync": (fd(),),
        "syncfs": (fd(),),
        "close": (fd(),),
        "dup": (fd(),),
        "dup2": (fd(), fd("new_fd")),
        "dup3": (fd(), fd("new_fd"), value("flags")),
        "fcntl": (fd(), value("command"), value("argument")),
        "fcntl64": (fd(), value("command"), value("argument")),
        "getdents64": (fd(), buffer_out("buffer", length=2), value("count")),
    }


def _positions(layouts: Layouts) -> _Group:
    """Calls with an offset in the file, and ioctl."""
    word = layouts.word_bytes
    offset = _wide("offset", layouts)
    vector_offset = (value("offset_low"), value("offset_high")) if word == 4 else (value("offset"), value("unused"))
    buffer, vectors = (value("count"), *offset), (value("vectors"), *vector_offset)
    return {
        "pread64": (fd(), buffer_out("buffer", length=2), *buffer),
        "pwrite64": (fd(), buffer_in("buffer", length=2), *buffer),
        "preadv": (fd(), vector_out("buffer", length=2), *vectors),
        "pwritev": (fd(), vector_in("buffer", length=2), *vectors),
        "lseek": (fd(), value("offset"), value("whence")),
        "_llseek": (fd(), value("offset_high"), value("offset_low"), buffer_out("result", 8), value("whence")),
        "sendfile": (fd("out_fd"), fd("in_fd"), buffer_in_out("offset", word), value("count")),
        "sendfile64": (fd("out_fd"), fd("in_fd"), buffer_in_out("offset", 8), value("count")),
        "ftruncate": (fd(), value("length")),
        "ftruncate64": (fd(), *_wide("length", layouts)),
        "fadvise64": (fd(), *offset, value("length"), value("advice")),
        "fadvise64_64": (fd(), *offset, *_wide("length", layouts), value("advice")),
        "ioctl": _ioctl(word),
    }


def _ioctl(word: int) -> Signature:
    """Ioctl: what its pointer is depends on the request."""
    out = {
        codes.TCGETS: structures.TERMIOS.size,
        codes.TIOCGWINSZ: structures.WINDOW.size,
        codes.BLKGETSIZE: word,
        codes.BLKGETSIZE64[word]: 8,
    } | dict.fromkeys(
        (
            *(codes.TIOCGPGRP, codes.FIONREAD, codes.BLKROGET, codes.BLKSSZGET, codes.BLKIOMIN, codes.BLKIOOPT),
            *(codes.BLKPBSZGET, codes.BLKBSZGET[word]),
        ),
        4,
    )
    into = dict.fromkeys((codes.TCSETS, codes.TCSETSW, codes.TCSETSF), structures.TERMIOS.size) | {
        codes.TIOCSPGRP: 4,
        codes.TIOCSWINSZ: structures.WINDOW.size,
        codes.BLKDISCARD: 16,
    }
    head = (fd(), value("request"))
    variants: dict[int, tuple[Argument, ...]] = {
        code: (*head, buffer_out("argument", size)) for code, size in out.items()
    }
    variants |= {code: (*head, buffer_in("argument", size)) for code, size in into.items()}
    return Signature((*head, value("argument")), 1, variants)


def _waits() -> _Group:
    """Calls that wait for files."""
    fd_sets = tuple(buffer_in_out(name, structures.FD_SET.size) for name in ("read_set", "write_set", "except_set"))
    poll = (buffer_in_out("fds", structures.POLL.size, length=1), value("nfds"))
    return {
        "poll": (*poll, value("timeout_ms")),
        "ppoll": (*poll, buffer_in("timeout64", 16), value("mask"), value("mask_size")),
        "pselect6": (value("nfds"), *fd_sets, buffer_in("timeout64", 16), value("mask")),
        "select": (value("nfds"), *fd_sets, buffer_in("timeval", 16)),
    }


def _files(layouts: Layouts) -> _Group:
    """Calls about paths and files' attributes."""
    stat, stat64 = buffer_out("status", layouts.stat.size), buffer_out("status", layouts.stat64.size)
    at = (fd("directory"), string("path"))
    return {
        "open": (string("path"), value("flags"), value("mode")),
        "openat": (*at, value("flags"), value("mode")),
        "access": (string("path"), value("mode")),
        "faccessat": (*at, value("mode")),
        "faccessat2": (*at, value("mode"), value("flags")),
        "readlink": (string("path"), buffer_out("buffer", length=2), value("count")),
        "readlinkat": (*at, buffer_out("buffer", length=3), value("count")),
        "getcwd": (buffer_out("buffer", length=1), value("count")),
        "chdir": (string("path"),),
        "fchdir": (fd(),),
        "stat": (string("path"), stat),
        "lstat": (string("path"), stat),
        "fstat": (fd(), stat),
        "newfstatat": (*at, stat, value("flags")),
        "stat64": (string("path"), stat64),
        "lstat64": (string("path"), stat64),
        "fstat64": (fd(), stat64),
        "fstatat64": (*at, stat64, value("flags")),
        "statx": (*at, value("flags"), value("mask"), buffer_out("status", structures.STATX.size)),
        "umask": (value("mask"),),
    }


def _memory() -> _Group:
    """Calls about the address space."""
    return {
        "brk": (value("address"),),
        "mmap": (
            *(value("address"), value("length"), value("protection")),
            *(value("flags"), fd(), value("offset")),
        ),
        "munmap": (value("address"), value("length")),
        "mprotect": (value("address"), value("length"), value("protection")),
        "mremap": (value("address"), value("old_length"), value("length"), value("flags"), value("new_address")),
        "madvise": (value("address"), value("length"), value("advice")),
    }


def _process(layouts: Layouts) -> _Group:
    """Calls about the process itself and the system."""
    limits = (buffer_in("new", structures.RLIMIT64.size), buffer_out("old", structures.RLIMIT64.size))
    action, stack = layouts.sigaction.size, layouts.stack.size
    name = value("option")
    return {
        "exit": (value("status"),),
        "exit_group": (value("status"),),
        "kill": (value("pid"), value("signal")),
        "tkill": (value("tid"), value("signal")),
        "tgkill": (value("pid"), value("tid"), value("signal")),
        "rt_sigaction": (value("signal"), buffer_in("new", action), buffer_out("old", action), value("size")),
        "rt_sigprocmask": (value("how"), buffer_in("new", 8), buffer_out("old", 8), value("size")),
        "sigaltstack": (buffer_in("new", stack), buffer_out("old", stack)),
        "set_tid_address": (value("address"),),
        "set_robust_list": (value("head"), value("length")),
        "rseq": (value("address"), value("length"), value("flags"), value("signature")),
        "futex": (
            *(value("address"), value("operation"), value("value")),
            *(value("timeout"), value("address2"), value("value3")),
        ),
        "prlimit64": (value("pid"), value("resource"), *limits),
        "getrlimit": (value("resource"), buffer_out("old", layouts.rlimit.size)),
        "prctl": Signature(
            (name, value("argument")),
            0,
            {
                codes.PR_GET_NAME: (name, buffer_out("argument", 16)),
                codes.PR_SET_NAME: (name, string("argument")),
            },
        ),
        "getpgid": (value("pid"),),
        "getsid": (value("pid"),),
        "getgroups": (value("count"), value("groups")),
        "getgroups32": (value("count"), value("groups")),
        "uname": (buffer_out("names", structures.UTSNAME.size),),
        "sysinfo": (buffer_out("information", layouts.sysinfo.size),),
        "getrandom": (buffer_out("buffer", length=1), value("count"), value("flags")),
    }


def _time(layouts: Layouts) -> _Group:
    """Calls about time."""
    words, wide = layouts.timespec.size, structures.TIMESPEC64.size
    return {
        "time": (buffer_out("seconds", layouts.word_bytes),),
        "gettimeofday": (buffer_out("time", layouts.timeval.size), buffer_out("zone", 8)),
        "clock_gettime": (value("clock"), buffer_out("time", words)),
        "clock_getres": (value("clock"), buffer_out("time", words)),
        "nanosleep": (buffer_in("time", words), buffer_out("left", words)),
        "clock_nanosleep": (value("clock"), value("flags"), buffer_in("time", words), buffer_out("left", words)),
        "clock_gettime64": (value("clock"), buffer_out("time", wide)),
        "clock_getres_time64": (value("clock"), buffer_out("time", wide)),
        "clock_nanosleep_time64": (
            *(value("clock"), value("flags")),
            *(buffer_in("time", wide), buffer_out("left", wide)),
        ),
    }
