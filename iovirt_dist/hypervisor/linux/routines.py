"""Which routine carries out which system call, by the call's name in the tables of `iovirt_dist.abi`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from iovirt_dist.abi.table import Abi
from iovirt_dist.hypervisor.linux import io_calls, memory_calls, path_calls, process_calls, time_calls
from iovirt_dist.hypervisor.linux.request import Reply, Request
from iovirt_dist.hypervisor.linux.waits import Steps

Routine: TypeAlias = Callable[[Request], Reply | Steps[Reply]]

_root = process_calls.constant(0)

_BY_NAME: dict[str, Routine] = {
    # Data
    "read": io_calls.read,
    "readv": io_calls.read,
    "pread64": io_calls.pread,
    "preadv": io_calls.pread,
    "write": io_calls.write,
    "writev": io_calls.write,
    "pwrite64": io_calls.pwrite,
    "pwritev": io_calls.pwrite,
    "sendfile": io_calls.sendfile,
    "sendfile64": io_calls.sendfile,
    "lseek": io_calls.lseek,
    "_llseek": io_calls.llseek,
    "fsync": io_calls.fsync,
    "fdatasync": io_calls.fsync,
    "syncfs": io_calls.syncfs,
    "sync": io_calls.sync,
    "ftruncate": io_calls.ftruncate,
    "ftruncate64": io_calls.ftruncate,
    "fadvise64": io_calls.fadvise,
    "fadvise64_64": io_calls.fadvise,
    "getdents64": io_calls.getdents64,
    # Descriptors
    "close": io_calls.close,
    "dup": io_calls.dup,
    "dup2": io_calls.dup2,
    "dup3": io_calls.dup3,
    "fcntl": io_calls.fcntl,
    "fcntl64": io_calls.fcntl,
    "ioctl": io_calls.ioctl,
    # Paths
    "open": path_calls.open_file,
    "openat": path_calls.open_file,
    "access": path_calls.access,
    "faccessat": path_calls.access,
    "faccessat2": path_calls.access,
    "readlink": path_calls.readlink,
    "readlinkat": path_calls.readlink,
    "getcwd": path_calls.getcwd,
    "chdir": path_calls.chdir,
    "fchdir": path_calls.fchdir,
    "stat": path_calls.stat,
    "lstat": path_calls.lstat,
    "fstat": path_calls.stat,
    "newfstatat": path_calls.stat,
    "stat64": path_calls.stat64,
    "lstat64": path_calls.lstat64,
    "fstat64": path_calls.stat64,
    "fstatat64": path_calls.stat64,
    "statx": path_calls.statx,
    "umask": path_calls.umask,
    # Memory
    "brk": memory_calls.brk,
    "mmap": memory_calls.mmap,
    "mmap2": memory_calls.mmap,
    "munmap": memory_calls.munmap,
    "mprotect": memory_calls.mprotect,
    "mremap": memory_calls.mremap,
    "madvise": memory_calls.madvise,
    # Process and system
    "exit": process_calls.exit_process,
    "exit_group": process_calls.exit_process,
    "kill": process_calls.kill,
    "tkill": process_calls.kill,
    "tgkill": process_calls.kill,
    "rt_sigaction": process_calls.rt_sigaction,
    "rt_sigprocmask": process_calls.rt_sigprocmask,
    "sigaltstack": process_calls.sigaltstack,
    "set_tid_address": process_calls.set_tid_address,
    "set_robust_list": process_calls.set_robust_list,
    "rseq": process_calls.no_rseq,
    "futex": process_calls.futex,
    "futex_time64": process_calls.futex,
    "sched_yield": process_calls.constant(0),
    "getpid": process_calls.own_number,
    "gettid": process_calls.own_number,
    "getpgrp": process_calls.own_number,
    "getpgid": process_calls.getpgid,
    "getsid": process_calls.getpgid,
    "getppid": process_calls.constant(1),
    **dict.fromkeys(("getuid", "geteuid", "getgid", "getegid"), _root),
    **dict.fromkeys(("getuid32", "geteuid32", "getgid32", "getegid32"), _root),
    **dict.fromkeys(("getgroups", "getgroups32"), process_calls.getgroups),
    "prlimit64": process_calls.prlimit64,
    "getrlimit": process_calls.getrlimit,
    "ugetrlimit": process_calls.getrlimit,
    "prctl": process_calls.prctl,
    "uname": process_calls.uname,
    "sysinfo": process_calls.sysinfo,
    "getrandom": process_calls.getrandom,
    "arch_prctl": process_calls.arch_prctl,
    "set_thread_area": process_calls.set_thread_area,
    # Time
    "time": time_calls.time,
    "gettimeofday": time_calls.gettimeofday,
    "clock_gettime": time_calls.clock_gettime,
    "clock_gettime64": time_calls.clock_gettime64,
    "clock_getres": time_calls.clock_getres,
    "clock_getres_time64": time_calls.clock_getres64,
    "nanosleep": time_calls.nanosleep,
    "clock_nanosleep": time_calls.clock_nanosleep,
    "clock_nanosleep_time64": time_calls.clock_nanosleep64,
    "poll": time_calls.poll,
    "ppoll": time_calls.ppoll,
    "ppoll_time64": time_calls.ppoll,
    "select": time_calls.select,
    "_newselect": time_calls.select,
    "pselect6": time_calls.select,
    "pselect6_time64": time_calls.select,
}

_I386: dict[str, Routine] = {"mmap": memory_calls.old_mmap}
"""Calls that are something else on i386."""


def routines_of(abi: Abi) -> dict[int, Routine]:
    """Return the routine of each call that an ABI declares, by number.

    Raises:
        KeyError: The table declares a call that has no routine.
    """
    by_name = _BY_NAME | (_I386 if abi.name == "linux_i386" else {})
    return {number: by_name[call.name] for number, call in abi.calls.items()}
